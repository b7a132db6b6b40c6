//! `Attention`. <https://onnx.ai/onnx/operators/onnx__Attention.html>
use crate::convert;
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::broadcast;
use crate::ops::matmul;
use crate::ops::numeric::{Num, Real, round_through, with_real};
use crate::ops::softmax::softmax_line;
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Attention`.
pub struct Attention;

/// What the fourth output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoresAt {
    /// The product of Q and K.
    Product,
    /// After the soft cap.
    SoftCap,
    /// After mask and bias.
    Bias,
    /// After the softmax.
    Softmax,
}

/// The attributes of an `Attention`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionParams {
    /// Heads of Q and of K and V, where x is packed `[batch, tokens, heads * size]`.
    pub heads: Option<(usize, usize)>,
    /// Factor of the scores; by default `1 / sqrt(head_size)`.
    pub scale: Option<f32>,
    /// `softcap * tanh(score / softcap)`; 0 is none.
    pub softcap: f32,
    /// Keys behind the query are hidden.
    pub is_causal: bool,
    /// Keys visible to the left and right of the query; `None` is all.
    pub window: (Option<usize>, Option<usize>),
    /// Type that the softmax computes in; by default Q's.
    pub softmax_precision: Option<DType>,
    /// What the fourth output holds.
    pub scores_at: ScoresAt,
}

/// Reads the attributes.
pub fn params(node: &OpNode) -> Result<AttentionParams> {
    let attrs = &node.attrs;
    let count = |name: &str| -> Result<Option<usize>> {
        let given = attrs.int(name)?;
        let bad = |v| Error::mismatch(format!("attribute `{name}`"), v, "at least 1");
        given.map(|v| usize::try_from(v).ok().filter(|v| *v > 0).ok_or_else(|| bad(v))).transpose()
    };
    let bound = |name: &str| match attrs.int_or(name, -1)? {
        -1 => Ok(None),
        v => usize::try_from(v)
            .map(Some)
            .map_err(|_| Error::mismatch(format!("attribute `{name}`"), v, "-1 or more")),
    };
    let precision = match attrs.int_or("softmax_precision", 0)? {
        0 => None,
        v => Some(
            i32::try_from(v)
                .ok()
                .and_then(DType::from_code)
                .filter(|d| d.is_float() && d.bits() > 8)
                .ok_or_else(|| Error::mismatch("attribute `softmax_precision`", v, "1, 10, 11 or 16"))?,
        ),
    };
    Ok(AttentionParams {
        heads: count("q_num_heads")?.zip(count("kv_num_heads")?),
        scale: attrs.float("scale")?,
        softcap: attrs.float_or("softcap", 0.0)?,
        is_causal: attrs.flag("is_causal", false)?,
        window: (bound("left_window_size")?, bound("right_window_size")?),
        softmax_precision: precision,
        scores_at: match attrs.int_or("qk_matmul_output_mode", 0)? {
            0 => ScoresAt::Product,
            1 => ScoresAt::SoftCap,
            2 => ScoresAt::Bias,
            3 => ScoresAt::Softmax,
            other => return Err(Error::mismatch("attribute `qk_matmul_output_mode`", other, "0 to 3")),
        },
    })
}

/// `[batch, heads, tokens, size]` of an operand that may be packed.
fn unpacked<T: Clone>(
    name: &str,
    shape: &[T],
    heads: Option<usize>,
    divide: impl Fn(&T, usize) -> Option<T>,
    known: impl Fn(usize) -> T,
) -> Result<[T; 4]> {
    match (shape, heads) {
        ([b, h, s, d], _) => Ok([b, h, s, d].map(T::clone)),
        ([b, s, hidden], Some(h)) => {
            let size = divide(hidden, h).ok_or_else(|| {
                Error::mismatch(
                    format!("last extent of {name}"),
                    "another",
                    format!("a multiple of {h} heads"),
                )
            })?;
            Ok([b.clone(), known(h), s.clone(), size])
        }
        ([_, _, _], None) => {
            Err(Error::mismatch("attributes `q_num_heads`, `kv_num_heads`", "none", "the heads"))
        }
        _ => Err(Error::mismatch(format!("rank of {name}"), shape.len(), "3 or 4")),
    }
}

/// An attention of known shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionProblem {
    /// The attributes.
    pub params: AttentionParams,
    /// Batch.
    pub batch: usize,
    /// Heads of Q; a multiple of those of K and V.
    pub q_heads: usize,
    /// Heads of K and V.
    pub kv_heads: usize,
    /// Tokens of Q.
    pub q_len: usize,
    /// Tokens of the past.
    pub past: usize,
    /// Tokens of K and V, the past included.
    pub total: usize,
    /// Elements of a head of Q and K.
    pub head_size: usize,
    /// Elements of a head of V.
    pub v_head_size: usize,
    /// Operands and output are `[batch, tokens, heads * size]`; otherwise `[batch, heads, tokens, size]`.
    pub packed: bool,
}

impl AttentionProblem {
    /// Checks a node against the shapes of Q, K, V and the past keys. Errors name what does not fit.
    pub fn new(node: &OpNode, q: &[usize], k: &[usize], v: &[usize], past: Option<&[usize]>) -> Result<Self> {
        let params = params(node)?;
        let (qh, kvh) = (params.heads.map(|h| h.0), params.heads.map(|h| h.1));
        let divide = |hidden: &usize, h: usize| hidden.is_multiple_of(h).then(|| hidden / h);
        let [batch, q_heads, q_len, head_size] = unpacked("Q", q, qh, divide, |h| h)?;
        let [kb, kv_heads, k_len, k_size] = unpacked("K", k, kvh, divide, |h| h)?;
        let [vb, v_heads, v_len, v_head_size] = unpacked("V", v, kvh, divide, |h| h)?;
        let same = [
            (kb, batch, "batch of K"),
            (vb, batch, "batch of V"),
            (v_heads, kv_heads, "heads of V"),
            (k_size, head_size, "head size of K"),
            (v_len, k_len, "tokens of V"),
        ];
        for (got, wanted, what) in same {
            if got != wanted {
                return Err(Error::mismatch(what, got, wanted));
            }
        }
        if kv_heads == 0 || q_heads % kv_heads != 0 {
            return Err(Error::mismatch("heads of Q", q_heads, format!("a multiple of {kv_heads}")));
        }
        let past = match past {
            None => 0,
            Some([b, h, p, d]) if (*b, *h, *d) == (batch, kv_heads, head_size) => *p,
            Some(other) => {
                let wanted = format!("[{batch}, {kv_heads}, past, {head_size}]");
                return Err(Error::mismatch("shape of past_key", format!("{other:?}"), wanted));
            }
        };
        let packed = q.len() == 3;
        let total = past + k_len;
        Ok(AttentionProblem {
            params,
            batch,
            q_heads,
            kv_heads,
            q_len,
            past,
            total,
            head_size,
            v_head_size,
            packed,
        })
    }
    /// Shape of Y.
    pub fn out_shape(&self) -> Vec<usize> {
        if self.packed {
            vec![self.batch, self.q_len, self.q_heads * self.v_head_size]
        } else {
            vec![self.batch, self.q_heads, self.q_len, self.v_head_size]
        }
    }
    /// Whether key `j` is hidden from query `i` by causality, window or padding. `valid`: the keys of this batch that
    /// are no padding, if the cache is external.
    fn hides(&self, i: usize, j: usize, valid: Option<i64>) -> bool {
        let offset = match valid {
            Some(n) => n - self.q_len as i64,
            None => self.past as i64,
        };
        let ahead = j as i64 - (i as i64 + offset);
        let (left, right) = self.params.window;
        (self.params.is_causal && ahead > 0)
            || left.is_some_and(|l| -ahead > l as i64)
            || right.is_some_and(|r| ahead > r as i64)
            || valid.is_some_and(|n| j as i64 >= n)
    }
}

/// Elements of an operand as `[batch, heads, tokens, size]`, the past before the new tokens.
fn gather<T: Real>(
    x: &Tensor,
    past: Option<&Tensor>,
    heads: usize,
    batch: usize,
    size: usize,
) -> Result<Vec<T>> {
    let values = T::load(x)?;
    let old = past.map(T::load).transpose()?;
    let packed = x.rank() == 3;
    let len = values.len() / (batch * heads * size).max(1);
    let old_len = old.as_ref().map_or(0, |o| o.len() / (batch * heads * size).max(1));
    let mut out = Vec::with_capacity(values.len() + old.as_ref().map_or(0, |o| o.len()));
    for b in 0..batch {
        for h in 0..heads {
            if let Some(old) = &old {
                out.extend_from_slice(&old[(b * heads + h) * old_len * size..][..old_len * size]);
            }
            for t in 0..len {
                let row = if packed { (b * len + t) * heads + h } else { (b * heads + h) * len + t };
                out.extend_from_slice(&values[row * size..][..size]);
            }
        }
    }
    Ok(out)
}

/// The mask as numbers to add to the scores: minus infinity where a boolean mask says no, and past its end.
struct Mask<T> {
    values: Vec<T>,
    strides: Vec<usize>,
    /// Keys that the mask covers.
    keys: usize,
}

fn mask<T: Real>(p: &AttentionProblem, mask: Option<&Tensor>) -> Result<Option<Mask<T>>> {
    let Some(t) = mask else { return Ok(None) };
    let values = match t.dtype() {
        DType::Bool => t.as_bools()?.into_iter().map(|on| if on { T::ZERO } else { T::LOWEST }).collect(),
        _ => convert::to_f64s(t)?.into_iter().map(T::from_f64).collect(),
    };
    // a shorter mask ends early, one of extent 1 included: what is behind it is hidden
    let keys = t.shape().last().copied().unwrap_or(p.total);
    let space = [p.batch, p.q_heads, p.q_len, keys];
    if keys > p.total || broadcast::shape(&[t.shape(), &space]).ok().as_deref() != Some(&space) {
        let wanted = format!("broadcastable to [{}, {}, {}, {}]", p.batch, p.q_heads, p.q_len, p.total);
        return Err(Error::mismatch("shape of attn_mask", format!("{:?}", t.shape()), wanted));
    }
    Ok(Some(Mask { values, strides: broadcast::strides(t.shape(), &space), keys }))
}

impl<T: Real> Mask<T> {
    fn at(&self, b: usize, h: usize, i: usize, j: usize) -> T {
        if j >= self.keys {
            return T::LOWEST;
        }
        let at = [b, h, i, j].iter().zip(&self.strides).map(|(i, s)| i * s).sum::<usize>();
        self.values[at]
    }
}

struct Outputs<T> {
    y: Vec<T>,
    scores: Vec<T>,
}

/// The pattern of the text, each of its steps rounded to the type of its tensor.
fn attend<T: Real>(
    p: &AttentionProblem,
    dtype: DType,
    [mut q, mut k, v]: [Vec<T>; 3],
    mask: Option<Mask<T>>,
    valid: Option<&[i64]>,
) -> Outputs<T> {
    let round = |data: &mut [T]| round_through(dtype, data);
    let scale = p.params.scale.map_or_else(|| 1.0 / (p.head_size as f64).sqrt(), f64::from);
    let mut root = [T::from_f64(scale.sqrt())];
    round(&mut root);
    for operand in [&mut q, &mut k] {
        operand.iter_mut().for_each(|x| *x *= root[0]);
        round(operand);
    }
    let (d, dv, total) = (p.head_size, p.v_head_size, p.total);
    let mut out = Outputs {
        y: vec![T::ZERO; p.batch * p.q_heads * p.q_len * dv],
        scores: Vec::with_capacity(p.batch * p.q_heads * p.q_len * total),
    };
    let softcap = T::of(p.params.softcap);
    for b in 0..p.batch {
        for h in 0..p.q_heads {
            let kv = b * p.kv_heads + h / (p.q_heads / p.kv_heads);
            let (k, v) = (&k[kv * total * d..][..total * d], &v[kv * total * dv..][..total * dv]);
            for i in watched(0..p.q_len) {
                let row = (b * p.q_heads + h) * p.q_len + i;
                let mut scores = vec![T::ZERO; total];
                matmul::product(&q[row * d..][..d], [d, 1], k, [1, d], (1, d, total), &mut scores);
                round(&mut scores);
                let mut kept = scores.clone();
                if softcap > T::ZERO {
                    scores.iter_mut().for_each(|s| *s /= softcap);
                    round(&mut scores);
                    scores.iter_mut().for_each(|s| *s = s.tanh());
                    round(&mut scores);
                    scores.iter_mut().for_each(|s| *s *= softcap);
                    round(&mut scores);
                }
                if p.params.scores_at == ScoresAt::SoftCap {
                    kept.clone_from(&scores);
                }
                let valid = valid.map(|v| v[b]);
                let bias = |j: usize| {
                    let mask = mask.as_ref().map_or(T::ZERO, |m| m.at(b, h, i, j));
                    if p.hides(i, j, valid) { mask + T::LOWEST } else { mask }
                };
                let bias: Vec<T> = (0..total).map(bias).collect();
                scores.iter_mut().zip(&bias).for_each(|(s, b)| *s += *b);
                round(&mut scores);
                if p.params.scores_at == ScoresAt::Bias {
                    kept.clone_from(&scores);
                }
                let precision = p.params.softmax_precision.unwrap_or(dtype);
                round_through(precision, &mut scores);
                softmax_line(&mut scores, false);
                round_through(precision, &mut scores);
                round(&mut scores);
                // a query that may look at no key gives zeros
                if bias.iter().all(|b| *b == T::LOWEST) {
                    scores.fill(T::ZERO);
                }
                if p.params.scores_at == ScoresAt::Softmax {
                    kept.clone_from(&scores);
                }
                out.scores.extend_from_slice(&kept);
                let at = if p.packed { (b * p.q_len + i) * p.q_heads + h } else { row };
                matmul::product(&scores, [total, 1], v, [dv, 1], (1, total, dv), &mut out.y[at * dv..][..dv]);
            }
        }
    }
    out
}

impl Operator for Attention {
    fn schema(&self) -> Schema {
        Schema { name: "Attention", domain: "", since: &[23, 24, 25], inputs: (3, 7), outputs: (1, 4) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let p = params(cx.node)?;
        let types = [cx.dtype(0)?, cx.dtype(1)?, cx.dtype(2)?, cx.dtype(0)?];
        let shapes = infer_shapes(cx, &p)?;
        let shape = |i: usize| shapes.as_ref().map(|s| s[i].clone());
        let facts = (0..4).map(|i| TensorType { dtype: types[i], shape: shape(i) }.into());
        Ok(facts.take(cx.n_outputs).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (q, k, v) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let (past_key, past_value) = (cx.opt_tensor(4)?, cx.opt_tensor(5)?);
        let p = AttentionProblem::new(cx.node, q.shape(), k.shape(), v.shape(), past_key.map(Tensor::shape))?;
        let past_shape = [p.batch, p.kv_heads, p.past, p.v_head_size];
        match past_value {
            None if past_key.is_none() => {}
            Some(t) if past_key.is_some() && t.shape() == past_shape => {}
            other => {
                let got = other.map_or("none".into(), |t| format!("{:?}", t.shape()));
                return Err(Error::mismatch(
                    "shape of past_value",
                    got,
                    format!("{past_shape:?} as past_key"),
                ));
            }
        }
        let valid = cx.opt_tensor(6)?.map(Tensor::to_i64s).transpose()?;
        if let Some(n) = valid.as_ref().filter(|v| v.len() != p.batch) {
            return Err(Error::mismatch("elements of nonpad_kv_seqlen", n.len(), p.batch));
        }
        with_real!(q.dtype(), T => {
            let q_values = gather::<T>(q, None, p.q_heads, p.batch, p.head_size)?;
            let k_values = gather::<T>(k, past_key, p.kv_heads, p.batch, p.head_size)?;
            let v_values = gather::<T>(v, past_value, p.kv_heads, p.batch, p.v_head_size)?;
            let present_key = T::store(k.dtype(), [p.batch, p.kv_heads, p.total, p.head_size], k_values.clone())?;
            let present_value =
                T::store(v.dtype(), [p.batch, p.kv_heads, p.total, p.v_head_size], v_values.clone())?;
            let mask = mask(&p, cx.opt_tensor(3)?)?;
            let out = attend(&p, q.dtype(), [q_values, k_values, v_values], mask, valid.as_deref());
            let y = T::store(q.dtype(), p.out_shape(), out.y)?;
            let scores = T::store(q.dtype(), [p.batch, p.q_heads, p.q_len, p.total], out.scores)?;
            let outputs = [y, present_key, present_value, scores];
            Ok(outputs.into_iter().take(cx.wanted.len()).map(Value::from).collect())
        })
    }
}

/// Shapes of the four outputs for possibly symbolic inputs.
fn infer_shapes(cx: &InferCtx<'_>, p: &AttentionParams) -> Result<Option<[Vec<Dim>; 4]>> {
    let (Some(q), Some(k), Some(v)) = (cx.shape(0)?, cx.shape(1)?, cx.shape(2)?) else { return Ok(None) };
    let divide = |d: &Dim, h: usize| Some(d.floor_div(&Dim::Known(h)));
    let (qh, kvh) = (p.heads.map(|h| h.0), p.heads.map(|h| h.1));
    let [b, heads, len, _] = unpacked("Q", q, qh, divide, Dim::Known)?;
    let [_, kv_heads, k_len, size] = unpacked("K", k, kvh, divide, Dim::Known)?;
    let [_, _, _, v_size] = unpacked("V", v, kvh, divide, Dim::Known)?;
    let past = match cx.has(4) {
        false => Dim::Known(0),
        true => cx.shape(4)?.and_then(|s| s.get(2).cloned()).unwrap_or_default(),
    };
    let total = past.add(&k_len);
    let y = match q.len() {
        3 => vec![b.clone(), len.clone(), heads.mul(&v_size)],
        _ => vec![b.clone(), heads.clone(), len.clone(), v_size.clone()],
    };
    let cache = |size: Dim| vec![b.clone(), kv_heads.clone(), total.clone(), size];
    Ok(Some([y, cache(size), cache(v_size), vec![b.clone(), heads, len, total.clone()]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn causal_queries_see_no_later_key_and_hidden_rows_are_zero() {
        let t = |shape: &[usize], v: &[f32]| Some(Tensor::new(shape, v.to_vec()).unwrap());
        let q = t(&[1, 1, 2, 1], &[0.0, 0.0]);
        let v = t(&[1, 1, 2, 1], &[2.0, 4.0]);
        let run = |attrs: Attrs, mask: Option<Tensor>| {
            let y = eval1("Attention", 24, attrs, &[q.clone(), q.clone(), v.clone(), mask]).unwrap();
            y.as_slice::<f32>().unwrap().to_vec()
        };
        assert_eq!(run(Attrs::new(), None), [3.0, 3.0]);
        assert_eq!(run(Attrs::new().with("is_causal", 1i64), None), [2.0, 3.0]);
        let mask = Tensor::from_bools([2, 2], [false, false, false, true]).unwrap();
        assert_eq!(run(Attrs::new(), Some(mask)), [0.0, 4.0]);
    }
}
