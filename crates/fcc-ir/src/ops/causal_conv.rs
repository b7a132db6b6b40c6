//! `CausalConvWithState`: a depthwise convolution along one axis that carries its last inputs on.
//! <https://onnx.ai/onnx/operators/onnx__CausalConvWithState.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, round_through};
use crate::ops::unary::sigmoid;
use crate::{Error, OpNode, Result, Tensor, TensorType, Value};

/// `CausalConvWithState`.
pub struct CausalConvWithState;

/// Whether the output passes through `x * sigmoid(x)`.
pub fn has_silu(node: &OpNode) -> Result<bool> {
    match node.attrs.str_or("activation", "none")? {
        "none" => Ok(false),
        "silu" | "swish" => Ok(true),
        other => Err(Error::mismatch("attribute `activation`", other, "none, silu or swish")),
    }
}

impl Operator for CausalConvWithState {
    fn schema(&self) -> Schema {
        Schema { name: "CausalConvWithState", domain: "", since: &[27], inputs: (2, 4), outputs: (2, 2) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        has_silu(cx.node)?;
        let state = match (cx.shape(0)?.map(Vec::as_slice), cx.shape(1)?.map(Vec::as_slice)) {
            (Some([b, c, _]), Some([_, _, k])) => Some(vec![b.clone(), c.clone(), k.offset(-1)]),
            _ => None,
        };
        Ok(vec![cx.ty(0)?.clone().into(), TensorType { dtype: cx.dtype(0)?, shape: state }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, w, bias, past) = (cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?, cx.opt_tensor(3)?);
        let &[n, c, len] = x.shape() else { return Err(Error::mismatch("rank of the input", x.rank(), 3)) };
        let k = match *w.shape() {
            [wc, 1, k] if wc == c && k > 0 => k,
            _ => {
                return Err(Error::mismatch(
                    "shape of the weight",
                    format!("{:?}", w.shape()),
                    format!("[{c}, 1, k]"),
                ));
            }
        };
        let fits = |name: &str, t: Option<&Tensor>, shape: &[usize]| match t {
            Some(t) if t.shape() != shape => Err(Error::mismatch(
                format!("shape of {name}"),
                format!("{:?}", t.shape()),
                format!("{shape:?}"),
            )),
            _ => Ok(()),
        };
        fits("the bias", bias, &[c])?;
        fits("past_state", past, &[n, c, k - 1])?;
        let silu = has_silu(cx.node)?;
        let (values, weight) = (f32::load(x)?, f32::load(w)?);
        let (bias, past) = (bias.map(f32::load).transpose()?, past.map(f32::load).transpose()?);
        let (mut y, mut state) = (Vec::with_capacity(values.len()), vec![]);
        for row in watched(0..n * c) {
            let channel = row % c;
            let mut padded = match &past {
                Some(p) => p[row * (k - 1)..][..k - 1].to_vec(),
                None => vec![0.0; k - 1],
            };
            padded.extend_from_slice(&values[row * len..][..len]);
            for t in watched(0..len) {
                let start = bias.as_ref().map_or(0.0, |b| b[channel]);
                let taps = padded[t..][..k].iter().zip(&weight[channel * k..][..k]);
                y.push(taps.fold(start, |sum, (x, w)| sum + x * w));
            }
            state.extend_from_slice(&padded[len..]);
        }
        if silu {
            // the convolution's result has the input's type before the activation
            round_through(x.dtype(), &mut y);
            y.iter_mut().for_each(|v| *v *= sigmoid(*v));
        }
        Ok(vec![
            f32::store(x.dtype(), x.shape(), y)?.into(),
            f32::store(x.dtype(), [n, c, k - 1], state)?.into(),
        ])
    }
}
