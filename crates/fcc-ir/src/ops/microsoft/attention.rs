//! `Attention` of `com.microsoft`: Q, K and V are one product of the input with merged weights.
use super::heads::{Heads, join, scale, softmax, split};
use super::mask::{Form, Mask, Space, check_bias};
use super::{DOMAIN, Shapes, count, extent, head_size, is_one, share, sum, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::matmul;
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value, convert};

/// `Attention`: inputs input, weights, bias, mask_index, past, attention_bias; outputs the result and the present.
pub struct Attention;

/// The extents of an attention.
#[derive(Debug, Clone, Copy)]
struct Problem {
    heads: Heads,
    /// Columns of the input.
    input: usize,
    past: usize,
}

/// Hidden sizes of Q (and K) and of V. Errors where the heads do not divide them.
fn hidden(node: &OpNode, columns: usize) -> Result<(usize, usize)> {
    let heads = count(node, "num_heads")?;
    let Some(given) = node.attrs.ints("qkv_hidden_sizes")? else {
        let each = share("columns of `weights`", columns, 3)?;
        head_size("hidden size", each, heads)?;
        return Ok((each, each));
    };
    let bad = |wanted: String| Error::mismatch("attribute `qkv_hidden_sizes`", format!("{given:?}"), wanted);
    let sizes: Vec<usize> = given.iter().filter_map(|v| usize::try_from(*v).ok()).collect();
    match sizes[..] {
        [q, k, v] if q == k && q > 0 && q % heads == 0 && v % heads == 0 => {
            match q.checked_add(k).and_then(|s| s.checked_add(v)) {
                Some(sum) if sum == columns => Ok((q, v)),
                _ => Err(bad(format!("a sum of {columns}, the columns of `weights`"))),
            }
        }
        _ => Err(bad(format!("three sizes that {heads} heads divide, the first two alike"))),
    }
}

/// Errors on what is not computed, whatever the inputs are.
fn supported(node: &OpNode) -> Result<()> {
    for name in ["do_rotary", "past_present_share_buffer"] {
        if node.attrs.flag(name, false)? {
            return Err(Error::unsupported(format!("{DOMAIN}.Attention with `{name}`")));
        }
    }
    Ok(())
}

impl Problem {
    /// Errors where shapes do not fit.
    fn new(node: &OpNode, shapes: &Shapes) -> Result<Problem> {
        supported(node)?;
        let x = shapes.need(0, "input")?;
        let &[batch, tokens, input] = x else { return Err(Error::mismatch("rank of `input`", x.len(), 3)) };
        let weights = shapes.need(1, "weights")?;
        let columns = match *weights {
            [rows, columns] if rows == input => columns,
            _ => return Err(wrong_shape("weights", weights, format!("[{input}, columns]"))),
        };
        shapes.fit(2, "bias", &[columns])?;
        let heads = count(node, "num_heads")?;
        let (q_hidden, v_hidden) = hidden(node, columns)?;
        let (size, v_size) = (q_hidden / heads, v_hidden / heads);
        let past = match shapes.get(4) {
            None => 0,
            Some(&[2, b, h, past, s]) if (b, h, s) == (batch, heads, size) && size == v_size => past,
            Some(other) => {
                let wanted = format!("[2, {batch}, {heads}, past, {size}] and V of that size");
                return Err(wrong_shape("past", other, wanted));
            }
        };
        if shapes.get(4).is_some() && shapes.get(5).is_some() {
            return Err(Error::mismatch("inputs `past` and `attention_bias`", "both", "one of them"));
        }
        let p = Problem {
            heads: Heads {
                batch,
                heads,
                kv_heads: heads,
                queries: tokens,
                keys: sum(past, tokens)?,
                size,
                v_size,
                scale: scale(node.attrs.float_or("scale", 0.0)?, size),
            },
            input,
            past,
        };
        shapes.get(3).map(|m| Form::of_mask_index(m, p.space())).transpose()?;
        check_bias(shapes.get(5), p.space())?;
        Ok(p)
    }
    fn space(&self) -> Space {
        let Heads { batch, heads, queries, keys, .. } = self.heads;
        Space { batch, heads, queries, keys, past: self.past }
    }
}

impl Operator for Attention {
    fn schema(&self) -> Schema {
        Schema { name: "Attention", domain: DOMAIN, since: &[1], inputs: (2, 7), outputs: (1, 2) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        supported(cx.node)?;
        if let Some(shapes) = Shapes::fixed(cx)? {
            Problem::new(cx.node, &shapes)?;
        }
        let heads = count(cx.node, "num_heads")?;
        let columns = extent(cx, 1, 1)?.known();
        let sizes = columns.map(|c| hidden(cx.node, c)).transpose()?;
        let v_hidden = sizes.map_or(Dim::Unknown, |s| Dim::Known(s.1));
        let (batch, tokens) = (extent(cx, 0, 0)?, extent(cx, 0, 1)?);
        let past = if cx.has(4) { extent(cx, 4, 3)? } else { Dim::Known(0) };
        let y = TensorType::new(cx.dtype(0)?, [batch.clone(), tokens.clone(), v_hidden]);
        let size = sizes.map_or(Dim::Unknown, |s| Dim::Known(s.1 / heads));
        let cache = [Dim::Known(2), batch, Dim::Known(heads), past.add(&tokens), size];
        let present = TensorType::new(cx.dtype(0)?, cache);
        Ok([y, present].into_iter().take(cx.n_outputs).map(Fact::from).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let Problem { heads: p, input, past } = Problem::new(cx.node, &Shapes::of(cx)?)?;
        let (x, weights) = (cx.tensor(0)?, cx.tensor(1)?);
        float(x.dtype())?;
        let (tokens, columns) = (p.queries, weights.shape()[1]);
        let mut merged = vec![0f32; p.batch * tokens * columns];
        let (rows, w) = (convert::to_f32s(x)?, convert::to_f32s(weights)?);
        let product = (p.batch * tokens, input, columns);
        matmul::product(&rows, [input, 1], &w, [columns, 1], product, &mut merged);
        let bias = cx.opt_tensor(2)?.map(convert::to_f32s).transpose()?;
        let part = |at: usize, size: usize| {
            split(&merged, (p.batch, tokens, columns), at, (p.heads, size), bias.as_ref().map(|b| &b[at..]))
        };
        let old = cx.opt_tensor(4)?.map(convert::to_f32s).transpose()?.unwrap_or_default();
        let (old_k, old_v) = old.split_at(old.len() / 2);
        let hidden = p.heads * p.size;
        let q = part(0, p.size);
        let k = join(old_k, part(hidden, p.size), p.batch * p.heads);
        let v = join(old_v, part(2 * hidden, p.v_size), p.batch * p.heads);
        let space = Space { batch: p.batch, heads: p.heads, queries: tokens, keys: p.keys, past };
        let mask = cx.opt_tensor(3)?;
        let mask = mask.map(|m| Ok::<_, Error>((m, Form::of_mask_index(m.shape(), space)?))).transpose()?;
        let causal = is_one(cx.node, "unidirectional", false)?;
        let filter = cx.node.attrs.float_or("mask_filter_value", -10000.0)?;
        let mask = Mask::new(space, mask, filter, cx.opt_tensor(5)?, causal)?;
        let y = p.attend(
            [&q, &k, &v],
            |_| p.keys,
            |at, scores| {
                mask.add(at, scores);
                softmax(scores, None);
            },
        )?;
        let y = convert::from_f32s(x.dtype(), [p.batch, tokens, p.heads * p.v_size], y)?;
        let mut outputs = vec![y.into()];
        if cx.wants(1) {
            if p.size != p.v_size {
                return Err(Error::mismatch(
                    "head size of V",
                    p.v_size,
                    format!("{} for the present", p.size),
                ));
            }
            let shape = [2, p.batch, p.heads, p.keys, p.size];
            outputs.push(convert::from_f32s(x.dtype(), shape, [k, v].concat())?.into());
        }
        Ok(outputs)
    }
}

/// Errors unless this is a float type that attention is computed for.
pub(super) fn float(dtype: DType) -> Result<()> {
    if matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Ok(());
    }
    Err(crate::op::unsupported_dtype(dtype))
}

/// A float tensor as f32, empty if it is absent.
pub(super) fn floats(t: Option<&Tensor>) -> Result<Vec<f32>> {
    t.map_or(Ok(vec![]), convert::to_f32s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ValueType;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval_in, infer_in};

    fn f(shape: &[usize], v: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(shape, v.to_vec()).unwrap())
    }
    fn run(attrs: Attrs, inputs: &[Option<Tensor>], n: usize) -> Result<Vec<Vec<f32>>> {
        let made = eval_in(DOMAIN, "Attention", attrs, inputs, n)?;
        made.iter().map(|v| convert::to_f32s(v.as_tensor()?)).collect()
    }

    /// Two heads of one element over two batches of three tokens. Q and K are 0, so that all keys that are seen weigh the
    /// same; V is the token's two columns.
    fn even(attrs: Attrs, mask: Option<Tensor>, past: Option<Tensor>) -> Result<Vec<Vec<f32>>> {
        let x = f(&[2, 3, 2], &[1.0, 10.0, 2.0, 20.0, 6.0, 60.0, 1.0, 0.0, 0.0, 4.0, 2.0, 2.0]);
        let weights = f(&[2, 6], &[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        run(attrs.with("num_heads", 2i64), &[x, weights, f(&[6], &[0.0; 6]), mask, past], 1)
    }
    fn ints(shape: &[usize], v: &[i32]) -> Option<Tensor> {
        Some(Tensor::new(shape, v.to_vec()).unwrap())
    }

    #[test]
    fn masks_of_every_form_hide_keys() {
        let seen = |mask| even(Attrs::new(), mask, None).unwrap().remove(0);
        assert_eq!(seen(None)[..2], [3.0, 30.0]);
        // ends
        let y = seen(ints(&[2], &[2, 1]));
        assert_eq!((&y[..2], &y[6..8]), (&[1.5, 15.0][..], &[1.0, 0.0][..]));
        assert_eq!(seen(ints(&[8], &[2, 1, 0, 3, 6, 0, 3, 6])), y);
        // ends and begins
        let y = seen(ints(&[4], &[3, 3, 1, 2]));
        assert_eq!((&y[..2], &y[6..8]), (&[4.0, 40.0][..], &[2.0, 2.0][..]));
        let y = seen(ints(&[2, 3], &[1, 0, 1, 0, 1, 0]));
        assert_eq!((&y[..2], &y[6..8]), (&[3.5, 35.0][..], &[0.0, 4.0][..]));
        let y = seen(ints(&[2, 3, 3], &[1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1]));
        assert_eq!(y[..6], [1.0, 10.0, 2.0, 20.0, 6.0, 60.0]);
        assert_eq!(y[6..], [0.5, 2.0, 1.0, 2.0, 2.0, 2.0]);
        // one element for all keys changes nothing
        assert_eq!(seen(ints(&[1, 1], &[0]))[..2], [3.0, 30.0]);
        for bad in
            [ints(&[2], &[-1, 1]), ints(&[3], &[1; 3]), ints(&[2, 2], &[1; 4]), ints(&[2, 1, 3, 3], &[1; 18])]
        {
            assert!(even(Attrs::new(), bad, None).is_err());
        }
    }

    #[test]
    fn later_tokens_are_hidden_and_the_past_comes_first() {
        let causal = || Attrs::new().with("unidirectional", 1i64);
        let y = even(causal(), None, None).unwrap().remove(0);
        assert_eq!(y[..6], [1.0, 10.0, 1.5, 15.0, 3.0, 30.0]);
        // [2, batch, heads, 1, 1]: keys 0, values 3 and 6 for the heads of the first batch
        let past = f(&[2, 2, 2, 1, 1], &[0.0, 0.0, 0.0, 0.0, 3.0, 6.0, 0.0, 0.0]);
        let y = even(causal(), None, past.clone()).unwrap().remove(0);
        assert_eq!(y[..4], [2.0, 8.0, 2.0, 12.0]);
        let x = f(&[1, 1, 1], &[5.0]);
        let weights = f(&[1, 3], &[1.0, 2.0, 3.0]);
        let past = f(&[2, 1, 1, 1, 1], &[8.0, 9.0]);
        let made = run(Attrs::new().with("num_heads", 1i64), &[x, weights, None, None, past], 2).unwrap();
        assert_eq!(made[1], [8.0, 10.0, 9.0, 15.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_before_and_in_the_run() {
        let heads = |n: i64| Attrs::new().with("num_heads", n);
        let x = f(&[1, 2, 3], &[0.0; 6]);
        let w = |columns: usize| f(&[3, columns], &vec![0.0; 3 * columns]);
        let past = |shape: &[usize]| f(shape, &vec![0.0; shape.iter().product()]);
        let bias = past(&[1, 2, 2, 2]);
        let bad: Vec<(Attrs, Vec<Option<Tensor>>)> = vec![
            (heads(4), vec![x.clone(), w(6)]),
            (heads(0), vec![x.clone(), w(6)]),
            (Attrs::new(), vec![x.clone(), w(6)]),
            (heads(2), vec![x.clone(), w(7)]),
            (heads(2), vec![f(&[2, 3], &[0.0; 6]), w(6)]),
            (heads(2), vec![x.clone(), w(6), f(&[5], &[0.0; 5])]),
            (heads(2), vec![x.clone(), w(6), None, None, past(&[1, 1, 2, 1, 1])]),
            (heads(2), vec![x.clone(), w(6), None, None, past(&[2, 1, 2, 1, 2])]),
            (heads(2), vec![x.clone(), w(6), None, None, past(&[2, 1, 2, 0, 1]), bias]),
            (heads(2), vec![x.clone(), w(6), None, None, None, past(&[1, 3, 2, 2])]),
            (heads(2).with("qkv_hidden_sizes", vec![2i64, 4, 0]), vec![x.clone(), w(6)]),
            (heads(2).with("do_rotary", 1i64), vec![x.clone(), w(6)]),
            (heads(2).with("past_present_share_buffer", 1i64), vec![x, w(6)]),
        ];
        for (attrs, inputs) in bad {
            let facts: Vec<_> =
                inputs.iter().map(|t| t.as_ref().map(|t| ValueType::from(t.tensor_type()).into())).collect();
            assert!(run(attrs.clone(), &inputs, 1).is_err(), "{attrs:?} {inputs:?}");
            assert!(infer_in(DOMAIN, "Attention", attrs.clone(), &facts, 1).is_err(), "{attrs:?} {inputs:?}");
        }
    }

    #[test]
    fn symbolic_extents_follow() {
        let symbol = |dims: Vec<Dim>| Some(Fact::from(TensorType::new(DType::F32, dims)));
        let (b, s, p) = (Dim::symbol("b"), Dim::symbol("s"), Dim::symbol("p"));
        let inputs = [
            symbol(vec![b.clone(), s.clone(), 3.into()]),
            symbol(vec![3.into(), 12.into()]),
            None,
            None,
            symbol(vec![2.into(), b.clone(), 2.into(), p.clone(), 2.into()]),
        ];
        let facts = infer_in(DOMAIN, "Attention", Attrs::new().with("num_heads", 2i64), &inputs, 2).unwrap();
        let shape = |i: usize| facts[i].ty.as_tensor().unwrap().shape.clone().unwrap();
        assert_eq!(shape(0), [b.clone(), s.clone(), 4.into()]);
        assert_eq!(shape(1), [2.into(), b, 2.into(), p.add(&s), 2.into()]);
    }
}
