//! `LinearAttention`: a recurrence over tokens instead of a softmax over them.
//! <https://onnx.ai/onnx/operators/onnx__LinearAttention.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::Num;
use crate::{Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `LinearAttention`.
pub struct LinearAttention;

/// The attributes of a `LinearAttention`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearAttentionParams {
    /// Heads of the query; a multiple of `kv_heads`.
    pub q_heads: usize,
    /// Heads of key, value and state.
    pub kv_heads: usize,
    /// Factor of the output; 0 stands for `1 / sqrt(d_k)`.
    pub scale: f32,
    /// The state decays by `exp(decay)`.
    pub gated: bool,
    /// What the state already holds for a key is taken off the value.
    pub delta: bool,
}

/// Reads the attributes.
pub fn params(node: &OpNode) -> Result<LinearAttentionParams> {
    let heads = |name: &str| {
        let v = node.attrs.need_int(name)?;
        usize::try_from(v)
            .ok()
            .filter(|h| *h > 0)
            .ok_or_else(|| Error::mismatch(format!("attribute `{name}`"), v, "at least 1"))
    };
    let (q_heads, kv_heads) = (heads("q_num_heads")?, heads("kv_num_heads")?);
    if q_heads % kv_heads != 0 {
        return Err(Error::mismatch("attribute `q_num_heads`", q_heads, format!("a multiple of {kv_heads}")));
    }
    let (gated, delta) = match node.attrs.str_or("update_rule", "gated_delta")? {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => {
            return Err(Error::mismatch(
                "attribute `update_rule`",
                other,
                "linear, gated, delta or gated_delta",
            ));
        }
    };
    Ok(LinearAttentionParams { q_heads, kv_heads, scale: node.attrs.float_or("scale", 0.0)?, gated, delta })
}

/// `[batch, tokens, heads * size]` as `(batch, tokens, size)`.
fn packed(name: &str, t: &Tensor, heads: usize) -> Result<(usize, usize, usize)> {
    match *t.shape() {
        [b, len, hidden] if hidden % heads == 0 => Ok((b, len, hidden / heads)),
        _ => Err(Error::mismatch(
            format!("shape of {name}"),
            format!("{:?}", t.shape()),
            format!("[batch, tokens, a multiple of {heads}]"),
        )),
    }
}

impl Operator for LinearAttention {
    fn schema(&self) -> Schema {
        Schema { name: "LinearAttention", domain: "", since: &[27], inputs: (3, 6), outputs: (2, 2) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let p = params(cx.node)?;
        let state_dtype = if cx.has(3) { cx.dtype(3)? } else { cx.dtype(0)? };
        let (y, state) = match (cx.shape(0)?.map(Vec::as_slice), cx.shape(2)?.map(Vec::as_slice)) {
            (Some([b, t, q]), Some([_, _, v])) => {
                let (dk, dv) = (q.floor_div(&Dim::Known(p.q_heads)), v.floor_div(&Dim::Known(p.kv_heads)));
                let y = vec![b.clone(), t.clone(), dv.mul(&Dim::Known(p.q_heads))];
                (Some(y), Some(vec![b.clone(), Dim::Known(p.kv_heads), dk, dv]))
            }
            _ => (None, None),
        };
        let y = TensorType { dtype: cx.dtype(0)?, shape: y };
        Ok(vec![y.into(), TensorType { dtype: state_dtype, shape: state }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let p = params(cx.node)?;
        let (q, k, v) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let (past, decay, beta) = (cx.opt_tensor(3)?, cx.opt_tensor(4)?, cx.opt_tensor(5)?);
        let (batch, len, dk) = packed("query", q, p.q_heads)?;
        let (kv, dv) = (packed("key", k, p.kv_heads)?, packed("value", v, p.kv_heads)?);
        if kv != (batch, len, dk) || (dv.0, dv.1) != (batch, len) {
            return Err(Error::mismatch(
                "shapes of key and value",
                format!("{kv:?} and {dv:?}"),
                format!("{:?}", (batch, len, dk)),
            ));
        }
        let dv = dv.2;
        for (given, wanted, name) in [(decay.is_some(), p.gated, "decay"), (beta.is_some(), p.delta, "beta")]
        {
            if given != wanted {
                let word = |on| if on { "given" } else { "none" };
                return Err(Error::mismatch(
                    format!("input {name} under this update_rule"),
                    word(given),
                    word(wanted),
                ));
            }
        }
        let state_shape = [batch, p.kv_heads, dk, dv];
        if let Some(s) = past.filter(|s| s.shape() != state_shape) {
            return Err(Error::mismatch(
                "shape of past_state",
                format!("{:?}", s.shape()),
                format!("{state_shape:?}"),
            ));
        }
        let per_head = |name: &str, t: &Tensor, sizes: [usize; 2]| -> Result<(Vec<f32>, usize)> {
            match *t.shape() {
                [b, l, n] if (b, l) == (batch, len) && sizes.contains(&n) => {
                    Ok((f32::load(t)?.into_owned(), n))
                }
                _ => Err(Error::mismatch(
                    format!("shape of {name}"),
                    format!("{:?}", t.shape()),
                    format!("[{batch}, {len}, one of {sizes:?}]"),
                )),
            }
        };
        let decay = decay.map(|t| per_head("decay", t, [p.kv_heads, p.kv_heads * dk])).transpose()?;
        let beta = beta.map(|t| per_head("beta", t, [p.kv_heads, 1])).transpose()?;
        // everything is computed in f32, whatever the tensors' type
        let mut state = match past {
            Some(s) => f32::load(s)?.into_owned(),
            None => vec![0.0; state_shape.iter().product()],
        };
        let (qs, ks, vs) = (f32::load(q)?, f32::load(k)?, f32::load(v)?);
        let scale = if p.scale == 0.0 { (1.0 / (dk as f64).sqrt()) as f32 } else { p.scale };
        let group = p.q_heads / p.kv_heads;
        let mut y = vec![0f32; batch * len * p.q_heads * dv];
        for b in 0..batch {
            for t in watched(0..len) {
                let token = b * len + t;
                for h in watched(0..p.kv_heads) {
                    let s = &mut state[(b * p.kv_heads + h) * dk * dv..][..dk * dv];
                    let key = &ks[(token * p.kv_heads + h) * dk..][..dk];
                    let mut value = vs[(token * p.kv_heads + h) * dv..][..dv].to_vec();
                    if let Some((g, n)) = &decay {
                        let of = |i: usize| {
                            if *n == p.kv_heads { g[token * n + h] } else { g[token * n + h * dk + i] }
                        };
                        (0..dk).for_each(|i| s[i * dv..][..dv].iter_mut().for_each(|x| *x *= of(i).exp()));
                    }
                    if let Some((beta, n)) = &beta {
                        let rate = beta[token * n + if *n == 1 { 0 } else { h }];
                        for (m, x) in value.iter_mut().enumerate() {
                            let held = (0..dk).fold(0.0, |sum, i| sum + s[i * dv + m] * key[i]);
                            *x = rate * (*x - held);
                        }
                    }
                    for (i, k) in key.iter().enumerate() {
                        s[i * dv..][..dv].iter_mut().zip(&value).for_each(|(x, v)| *x += k * v);
                    }
                    for head in h * group..(h + 1) * group {
                        let query = &qs[(token * p.q_heads + head) * dk..][..dk];
                        for m in 0..dv {
                            let sum = (0..dk).fold(0.0, |sum, i| sum + query[i] * s[i * dv + m]);
                            y[(token * p.q_heads + head) * dv + m] = scale * sum;
                        }
                    }
                }
            }
        }
        let y = f32::store(q.dtype(), [batch, len, p.q_heads * dv], y)?;
        let state = f32::store(past.map_or(q.dtype(), Tensor::dtype), state_shape, state)?;
        Ok(vec![y.into(), state.into()])
    }
}
