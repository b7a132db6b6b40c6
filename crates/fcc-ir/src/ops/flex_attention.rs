//! `FlexAttention` of `ai.onnx.preview`: attention whose scores and probabilities pass through subgraphs.
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::matmul;
use crate::ops::numeric::{Num, Real, round_through, with_real};
use crate::ops::softmax::softmax_line;
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value};

/// `FlexAttention`.
pub struct FlexAttention;

/// The type that scores and probabilities have.
pub fn softmax_precision(node: &OpNode, q: DType) -> Result<DType> {
    match node.attrs.int_or("softmax_precision", 0)? {
        0 if q == DType::F64 => Ok(DType::F64),
        0 => Ok(DType::F32),
        v => i32::try_from(v)
            .ok()
            .and_then(DType::from_code)
            .ok_or_else(|| Error::mismatch("attribute `softmax_precision`", v, "a float type")),
    }
}

/// `[batch, heads, tokens, size]` of an operand.
fn extents(name: &str, t: &Tensor) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(t.shape()).map_err(|_| Error::mismatch(format!("rank of {name}"), t.rank(), 4))
}

/// Runs a modifier, if the node has it, on a tensor; its output must keep shape and type.
fn modify(cx: &EvalCtx<'_>, name: &str, tensor: Tensor) -> Result<Tensor> {
    let Some(graph) = cx.node.attrs.graph(name)? else { return Ok(tensor) };
    let (shape, dtype) = (tensor.shape().to_vec(), tensor.dtype());
    let out = (cx.subgraph)(graph, vec![tensor.into()])?;
    let [out] = out.as_slice() else {
        return Err(Error::mismatch(format!("outputs of `{name}`"), out.len(), 1));
    };
    let out = out.as_tensor()?;
    if out.shape() != shape || out.dtype() != dtype {
        let wanted = format!("{dtype}{shape:?}");
        return Err(Error::mismatch(format!("output of `{name}`"), out.tensor_type(), wanted));
    }
    Ok(out.clone())
}

impl Operator for FlexAttention {
    fn schema(&self) -> Schema {
        let domain = "ai.onnx.preview";
        Schema { name: "FlexAttention", domain, since: &[1], inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let shape = match (cx.shape(0)?.map(Vec::as_slice), cx.shape(2)?.map(Vec::as_slice)) {
            (Some([b, h, s, _]), Some([_, _, _, d])) => Some([b, h, s, d].map(Clone::clone).to_vec()),
            _ => None,
        };
        Ok(vec![TensorType { dtype: cx.dtype(0)?, shape }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (q, k, v) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let ([b, h, s, d], [kb, kh, t, kd], [vb, vh, vt, dv]) =
            (extents("Q", q)?, extents("K", k)?, extents("V", v)?);
        if (kb, kd) != (b, d) || (vb, vh, vt) != (b, kh, t) || kh == 0 || h % kh != 0 {
            let got = format!("{:?}, {:?}, {:?}", q.shape(), k.shape(), v.shape());
            let wanted =
                "one batch, head size of Q and K, tokens and heads of K and V, heads of Q a multiple of them";
            return Err(Error::mismatch("shapes of Q, K, V", got, wanted));
        }
        let precision = softmax_precision(cx.node, q.dtype())?;
        let scale = cx.node.attrs.float("scale")?.unwrap_or((1.0 / (d as f64).sqrt()) as f32);
        let group = h / kh;
        let scores = with_real!(q.dtype(), T => {
            let mut root = [T::of(scale.sqrt())];
            round_through(q.dtype(), &mut root);
            let scaled = |t: &Tensor| -> Result<Vec<T>> {
                let mut x: Vec<T> = T::load(t)?.iter().map(|v| *v * root[0]).collect();
                round_through(q.dtype(), &mut x);
                Ok(x)
            };
            let (qs, ks) = (scaled(q)?, scaled(k)?);
            let mut scores = vec![T::ZERO; b * h * s * t];
            for (i, out) in scores.chunks_mut((s * t).max(1)).enumerate() {
                let key = &ks[(i / h * kh + i % h / group) * t * d..][..t * d];
                matmul::product(&qs[i * s * d..][..s * d], [d, 1], key, [1, d], (s, d, t), out);
            }
            round_through(q.dtype(), &mut scores);
            T::store(precision, [b, h, s, t], scores)?
        });
        let scores = modify(cx, "score_mod", scores)?;
        let probabilities = with_real!(precision, T => {
            let mut p = T::load(&scores)?.into_owned();
            p.chunks_mut(t.max(1)).for_each(|row| softmax_line(row, false));
            T::store(precision, scores.shape(), p)?
        });
        let probabilities = modify(cx, "prob_mod", probabilities)?;
        with_real!(precision, T => {
            let (p, values) = (T::load(&probabilities)?, T::load(v)?);
            let mut y = vec![T::ZERO; b * h * s * dv];
            for (i, out) in y.chunks_mut((s * dv).max(1)).enumerate() {
                let value = &values[(i / h * kh + i % h / group) * t * dv..][..t * dv];
                matmul::product(&p[i * s * t..][..s * t], [t, 1], value, [dv, 1], (s, t, dv), out);
            }
            Ok(vec![T::store(v.dtype(), [b, h, s, dv], y)?.into()])
        })
    }
}
