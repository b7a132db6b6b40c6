//! `MultiHeadAttention`: Q, K and V are given apart.
use super::attention::{float, floats};
use super::heads::{Heads, join, scale, softmax, split};
use super::mask::{Form, Mask, Space, check_bias};
use super::{DOMAIN, Shapes, count, extent, head_size, is_one, share, sum};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, OpNode, Result, TensorType, Value, convert};

/// `MultiHeadAttention`: inputs query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value; outputs
/// the result, the keys and values with their past, and the scores before the softmax.
pub struct MultiHeadAttention;

/// The extents of an attention.
#[derive(Debug, Clone, Copy)]
struct Problem {
    heads: Heads,
    past: usize,
    /// Key and value come as `[batch, heads, keys, size]`.
    apart: bool,
}

/// Errors on what is not computed, whatever the inputs are.
fn supported(has: impl Fn(usize) -> bool) -> Result<()> {
    for (i, name) in [(8, "past_sequence_length"), (9, "cache_indirection")] {
        if has(i) {
            return Err(Error::unsupported(format!("{DOMAIN}.MultiHeadAttention with `{name}`")));
        }
    }
    if !(has(1) && has(2)) {
        return Err(Error::unsupported(format!(
            "{DOMAIN}.MultiHeadAttention of packed queries, keys and values"
        )));
    }
    Ok(())
}

impl Problem {
    /// Errors where shapes do not fit.
    fn new(node: &OpNode, shapes: &Shapes) -> Result<Problem> {
        supported(|i| shapes.get(i).is_some())?;
        let heads = count(node, "num_heads")?;
        let q = shapes.need(0, "query")?;
        let &[batch, queries, hidden] = q else { return Err(Error::mismatch("rank of `query`", q.len(), 3)) };
        let size = head_size("last extent of `query`", hidden, heads)?;
        let (key, value) = (shapes.need(1, "key")?, shapes.need(2, "value")?);
        let (new, v_size, apart) = match (key, value) {
            (&[b, len, d], &[vb, v_len, dv]) if (b, vb, d, v_len) == (batch, batch, hidden, len) => {
                (len, share("last extent of `value`", dv, heads)?, false)
            }
            (&[b, h, len, d], &[vb, vh, v_len, dv])
                if (b, h, d) == (batch, heads, size) && (vb, vh, v_len) == (batch, heads, len) =>
            {
                (len, dv, true)
            }
            _ => {
                let got = format!("{key:?} and {value:?}");
                let wanted = format!(
                    "[{batch}, keys, {hidden}] and [{batch}, keys, columns], or [{batch}, {heads}, keys, {size}] and \
                     [{batch}, {heads}, keys, columns]"
                );
                return Err(Error::mismatch("shapes of `key` and `value`", got, wanted));
            }
        };
        shapes.fit(3, "bias", &[sum(sum(hidden, hidden)?, heads.saturating_mul(v_size))?])?;
        let past = match (shapes.get(6), shapes.get(7)) {
            (None, None) => 0,
            (Some(&[b, h, past, d]), Some(other))
                if (b, h, d) == (batch, heads, size) && other == [batch, heads, past, v_size] && !apart =>
            {
                past
            }
            (k, v) => {
                let got = format!("{k:?} and {v:?}");
                let wanted = if apart {
                    "none beside keys of four axes".to_string()
                } else {
                    format!("both [{batch}, {heads}, past, {size}], V's with {v_size}")
                };
                return Err(Error::mismatch("shapes of `past_key` and `past_value`", got, wanted));
            }
        };
        let p = Problem {
            heads: Heads {
                batch,
                heads,
                kv_heads: heads,
                queries,
                keys: sum(past, new)?,
                size,
                v_size,
                scale: scale(node.attrs.float_or("scale", 0.0)?, size),
            },
            past,
            apart,
        };
        shapes.get(4).map(|m| Form::of_padding(m, p.space())).transpose()?;
        check_bias(shapes.get(5), p.space())?;
        Ok(p)
    }
    fn space(&self) -> Space {
        let Heads { batch, heads, queries, keys, .. } = self.heads;
        Space { batch, heads, queries, keys, past: self.past }
    }
}

impl Operator for MultiHeadAttention {
    fn schema(&self) -> Schema {
        Schema { name: "MultiHeadAttention", domain: DOMAIN, since: &[1], inputs: (1, 10), outputs: (1, 4) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        supported(|i| cx.has(i))?;
        if let Some(shapes) = Shapes::fixed(cx)? {
            Problem::new(cx.node, &shapes)?;
        }
        let heads = count(cx.node, "num_heads")?;
        let each = |d: Dim| d.floor_div(&Dim::Known(heads));
        let (batch, queries) = (extent(cx, 0, 0)?, extent(cx, 0, 1)?);
        let rank = |i: usize| Ok::<_, Error>(cx.shape(i)?.map(Vec::len));
        let (new, size, v_size) = match (rank(1)?, rank(2)?) {
            (Some(3), Some(3)) => (extent(cx, 1, 1)?, each(extent(cx, 0, 2)?), each(extent(cx, 2, 2)?)),
            (Some(4), Some(4)) => (extent(cx, 1, 2)?, extent(cx, 1, 3)?, extent(cx, 2, 3)?),
            (None, _) | (_, None) => (Dim::Unknown, Dim::Unknown, Dim::Unknown),
            (k, v) => {
                let got = format!("{} and {}", k.unwrap_or(0), v.unwrap_or(0));
                return Err(Error::mismatch("ranks of `key` and `value`", got, "both 3 or both 4"));
            }
        };
        let past = if cx.has(6) { extent(cx, 6, 2)? } else { Dim::Known(0) };
        let (keys, n) = (past.add(&new), Dim::Known(heads));
        let shapes = [
            vec![batch.clone(), queries.clone(), n.mul(&v_size)],
            vec![batch.clone(), n.clone(), keys.clone(), size],
            vec![batch.clone(), n.clone(), keys.clone(), v_size],
            vec![batch, n, queries, keys],
        ];
        let dtype = cx.dtype(0)?;
        Ok(shapes.into_iter().take(cx.n_outputs).map(|s| TensorType::new(dtype, s).into()).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(4)?;
        let problem = Problem::new(cx.node, &Shapes::of(cx)?)?;
        let (p, space) = (problem.heads, problem.space());
        let query = cx.tensor(0)?;
        float(query.dtype())?;
        let bias = cx.opt_tensor(3)?.map(convert::to_f32s).transpose()?;
        let hidden = p.heads * p.size;
        let part = |i: usize, tokens: usize, size: usize, at: usize| {
            let x = convert::to_f32s(cx.tensor(i)?)?;
            let width = p.heads * size;
            let bias = bias.as_ref().map(|b| &b[at..]);
            Ok::<_, Error>(split(&x, (p.batch, tokens, width), 0, (p.heads, size), bias))
        };
        let q = part(0, p.queries, p.size, 0)?;
        let (k, v) = if problem.apart {
            (floats(cx.opt_tensor(1)?)?, floats(cx.opt_tensor(2)?)?)
        } else {
            let new = p.keys - problem.past;
            let k = part(1, new, p.size, hidden)?;
            let v = part(2, new, p.v_size, 2 * hidden)?;
            let rows = p.batch * p.heads;
            (join(&floats(cx.opt_tensor(6)?)?, k, rows), join(&floats(cx.opt_tensor(7)?)?, v, rows))
        };
        let mask = cx.opt_tensor(4)?;
        let mask = mask.map(|m| Ok::<_, Error>((m, Form::of_padding(m.shape(), space)?))).transpose()?;
        let causal = is_one(cx.node, "unidirectional", false)?;
        let filter = cx.node.attrs.float_or("mask_filter_value", -10000.0)?;
        let mask = Mask::new(space, mask, filter, cx.opt_tensor(5)?, causal)?;
        let mut kept = vec![];
        let y = p.attend(
            [&q, &k, &v],
            |_| p.keys,
            |at, scores| {
                mask.add(at, scores);
                if cx.wants(3) {
                    kept.extend_from_slice(scores);
                }
                softmax(scores, None);
            },
        )?;
        let store = |shape: &[usize], data: Vec<f32>| convert::from_f32s(query.dtype(), shape, data);
        let mut outputs = vec![store(&[p.batch, p.queries, p.heads * p.v_size], y)?.into()];
        if cx.wanted.len() > 1 {
            outputs.push(store(&[p.batch, p.heads, p.keys, p.size], k)?.into());
            outputs.push(store(&[p.batch, p.heads, p.keys, p.v_size], v)?.into());
        }
        if cx.wants(3) {
            outputs.push(store(&[p.batch, p.heads, p.queries, p.keys], kept)?.into());
        }
        outputs.truncate(cx.wanted.len());
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval_in, infer_in};
    use crate::{Tensor, ValueType};

    fn f(shape: &[usize], v: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(shape, v.to_vec()).unwrap())
    }
    fn zeros(shape: &[usize]) -> Option<Tensor> {
        f(shape, &vec![0.0; shape.iter().product()])
    }
    fn run(attrs: Attrs, inputs: &[Option<Tensor>], n: usize) -> Result<Vec<Vec<f32>>> {
        let made = eval_in(DOMAIN, "MultiHeadAttention", attrs.with("num_heads", 2i64), inputs, n)?;
        made.iter().map(|v| convert::to_f32s(v.as_tensor()?)).collect()
    }

    #[test]
    fn biases_go_to_each_part_and_scores_are_given() {
        // one query of two heads of one element, two keys
        let (q, k, v) = (f(&[1, 1, 2], &[1.0, 2.0]), f(&[1, 2, 2], &[1.0, 0.0, 3.0, 0.0]), zeros(&[1, 2, 4]));
        let bias = f(&[8], &[1.0, -2.0, 0.5, 0.0, 1.0, 2.0, 3.0, 4.0]);
        let made = run(Attrs::new(), &[q, k, v, bias], 4).unwrap();
        assert_eq!(made[0], [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(made[1], [1.5, 3.5, 0.0, 0.0]);
        assert_eq!(made[2], [1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
        assert_eq!(made[3], [3.0, 7.0, 0.0, 0.0]);
    }

    #[test]
    fn keys_of_four_axes_masks_bias_and_past_are_taken() {
        let q = zeros(&[1, 2, 2]);
        let v = f(&[1, 2, 3, 1], &[1.0, 2.0, 6.0, 3.0, 5.0, 7.0]);
        let apart = run(Attrs::new(), &[q.clone(), zeros(&[1, 2, 3, 1]), v], 1).unwrap();
        assert_eq!(apart[0], [3.0, 5.0, 3.0, 5.0]);
        let (k, v) = (zeros(&[1, 2, 2]), f(&[1, 2, 2], &[1.0, 10.0, 3.0, 30.0]));
        let (pk, pv) = (zeros(&[1, 2, 1, 1]), f(&[1, 2, 1, 1], &[8.0, 80.0]));
        let mask = Some(Tensor::new([1, 3], vec![1i32, 0, 1]).unwrap());
        let inputs = [q.clone(), k.clone(), v.clone(), None, mask, None, pk.clone(), pv.clone()];
        assert_eq!(run(Attrs::new(), &inputs, 1).unwrap()[0], [5.5, 55.0, 5.5, 55.0]);
        let causal = Attrs::new().with("unidirectional", 1i64);
        assert_eq!(run(causal, &inputs, 1).unwrap()[0], [8.0, 80.0, 5.5, 55.0]);
        // three keys without a past: the first query sees its own, the last one all
        let causal = Attrs::new().with("unidirectional", 1i64);
        let wide = [q.clone(), zeros(&[1, 3, 2]), f(&[1, 3, 2], &[1.0, 10.0, 3.0, 30.0, 8.0, 80.0])];
        assert_eq!(run(causal, &wide, 1).unwrap()[0], [1.0, 10.0, 4.0, 40.0]);
        // a bias for one head of all
        let bias = f(&[1, 1, 2, 3], &[0.0, -1e9, -1e9, -1e9, -1e9, 0.0]);
        let inputs = [q, k, v, None, None, bias, pk, pv];
        assert_eq!(run(Attrs::new(), &inputs, 1).unwrap()[0], [8.0, 80.0, 3.0, 30.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_before_and_in_the_run() {
        let (q, k) = (zeros(&[1, 2, 4]), zeros(&[1, 3, 4]));
        let past = |size| zeros(&[1, 2, 1, size]);
        let one = |n: usize| Some(Tensor::new([n], vec![1i32; n]).unwrap());
        let bad: Vec<Vec<Option<Tensor>>> = vec![
            vec![q.clone()],
            vec![q.clone(), k.clone()],
            vec![zeros(&[1, 2, 3]), k.clone(), k.clone()],
            vec![q.clone(), zeros(&[1, 3, 6]), k.clone()],
            vec![q.clone(), zeros(&[2, 3, 4]), zeros(&[2, 3, 4])],
            vec![q.clone(), k.clone(), q.clone()],
            vec![q.clone(), k.clone(), zeros(&[1, 2, 3, 2])],
            vec![q.clone(), k.clone(), k.clone(), zeros(&[11])],
            vec![q.clone(), k.clone(), k.clone(), None, one(3)],
            vec![q.clone(), k.clone(), k.clone(), None, None, zeros(&[1, 2, 2, 4])],
            vec![q.clone(), k.clone(), k.clone(), None, None, None, past(2)],
            vec![q.clone(), k.clone(), k.clone(), None, None, None, past(1), past(1)],
            vec![q.clone(), zeros(&[1, 2, 3, 2]), zeros(&[1, 2, 3, 2]), None, None, None, past(2), past(2)],
            vec![q.clone(), k.clone(), k.clone(), None, None, None, None, None, one(1)],
        ];
        for inputs in bad {
            let facts: Vec<_> =
                inputs.iter().map(|t| t.as_ref().map(|t| ValueType::from(t.tensor_type()).into())).collect();
            let attrs = Attrs::new().with("num_heads", 2i64);
            assert!(run(attrs.clone(), &inputs, 1).is_err(), "{inputs:?}");
            assert!(infer_in(DOMAIN, "MultiHeadAttention", attrs, &facts, 1).is_err(), "{inputs:?}");
        }
    }
}
