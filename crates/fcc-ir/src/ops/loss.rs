//! `NegativeLogLikelihoodLoss`, `SoftmaxCrossEntropyLoss`.
//! <https://onnx.ai/onnx/operators/onnx__SoftmaxCrossEntropyLoss.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::ops::softmax::{SoftmaxProblem, softmax_line};
use crate::{Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `NegativeLogLikelihoodLoss`: of log-probabilities.
pub struct NegativeLogLikelihoodLoss;
/// `SoftmaxCrossEntropyLoss`: of scores.
pub struct SoftmaxCrossEntropyLoss;

/// What becomes of the losses of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// They are the output.
    None,
    /// Their sum.
    Sum,
    /// Their sum by the sum of the weights.
    Mean,
}

/// The attributes of both: the reduction, and the label whose samples do not count.
pub fn params(node: &OpNode) -> Result<(Reduction, Option<i64>)> {
    let reduction = match node.attrs.str_or("reduction", "mean")? {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "mean" => Reduction::Mean,
        other => return Err(Error::mismatch("attribute `reduction`", other, "none, sum or mean")),
    };
    Ok((reduction, node.attrs.int("ignore_index")?))
}

/// The loss of log-probabilities `[N, C, spatial…]` under labels `[N, spatial…]`.
fn loss<T: Real>(
    node: &OpNode,
    log_prob: &[T],
    shape: &[usize],
    labels: &Tensor,
    weight: Option<&Tensor>,
) -> Result<(Vec<T>, Vec<usize>)> {
    let (reduction, ignore) = params(node)?;
    let [n, c, spatial @ ..] = shape else {
        return Err(Error::mismatch("rank of the first input", shape.len(), "at least 2"));
    };
    let samples: Vec<usize> = std::iter::once(n).chain(spatial).copied().collect();
    if labels.shape() != samples {
        return Err(Error::mismatch(
            "shape of the labels",
            format!("{:?}", labels.shape()),
            format!("{samples:?}"),
        ));
    }
    if let Some(w) = weight.filter(|w| w.shape() != [*c]) {
        return Err(Error::mismatch("shape of the weights", format!("{:?}", w.shape()), format!("[{c}]")));
    }
    let weight = weight.map(T::load).transpose()?;
    let inner: usize = spatial.iter().product();
    let (mut losses, mut total) = (vec![], T::ZERO);
    for (i, label) in labels.to_i64s()?.into_iter().enumerate() {
        if ignore == Some(label) {
            losses.push(T::ZERO);
            continue;
        }
        let class = usize::try_from(label).ok().filter(|l| l < c);
        let class = class.ok_or_else(|| Error::mismatch("label", label, format!("0..{c}")))?;
        let w = weight.as_ref().map_or(T::ONE, |w| w[class]);
        total += w;
        losses.push(-log_prob[(i / inner * c + class) * inner + i % inner] * w);
    }
    let sum = || losses.iter().fold(T::ZERO, |s, l| s + *l);
    Ok(match reduction {
        Reduction::None => (losses, samples),
        Reduction::Sum => (vec![sum()], vec![]),
        Reduction::Mean => (vec![sum() / total], vec![]),
    })
}

fn infer_loss(cx: &InferCtx<'_>) -> Result<TensorType> {
    let (reduction, _) = params(cx.node)?;
    let shape: Option<Vec<Dim>> = match reduction {
        Reduction::None => cx.shape(1)?.cloned(),
        Reduction::Sum | Reduction::Mean => Some(vec![]),
    };
    Ok(TensorType { dtype: cx.dtype(0)?, shape })
}

impl Operator for NegativeLogLikelihoodLoss {
    fn schema(&self) -> Schema {
        let name = "NegativeLogLikelihoodLoss";
        Schema { name, domain: "", since: &[12, 13, 22], inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![infer_loss(cx)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        with_real!(x.dtype(), T => {
            let (y, shape) = loss(cx.node, &T::load(x)?, x.shape(), cx.tensor(1)?, cx.opt_tensor(2)?)?;
            Ok(vec![T::store(x.dtype(), shape, y)?.into()])
        })
    }
}

impl Operator for SoftmaxCrossEntropyLoss {
    fn schema(&self) -> Schema {
        let name = "SoftmaxCrossEntropyLoss";
        Schema { name, domain: "", since: &[12, 13], inputs: (2, 3), outputs: (1, 2) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let facts = [infer_loss(cx)?.into(), cx.ty(0)?.clone().into()];
        Ok(facts.into_iter().take(cx.n_outputs).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let [n, c, spatial @ ..] = x.shape() else {
            return Err(Error::mismatch("rank of the scores", x.rank(), "at least 2"));
        };
        let view = SoftmaxProblem { outer: *n, len: *c, inner: spatial.iter().product() };
        with_real!(x.dtype(), T => {
            let mut log_prob = T::load(x)?.into_owned();
            view.for_each_line(&mut log_prob, |line| softmax_line(line, true));
            let (y, shape) = loss(cx.node, &log_prob, x.shape(), cx.tensor(1)?, cx.opt_tensor(2)?)?;
            let outputs = [T::store(x.dtype(), shape, y)?, T::store(x.dtype(), x.shape(), log_prob)?];
            Ok(outputs.into_iter().take(cx.wanted.len()).map(Value::from).collect())
        })
    }
}
