//! A 1x1 Conv as a MatMul.
use super::layout::inverse;
use crate::builder::Builder;
use crate::context::Cx;
use crate::convolution::{Convolution, convolution};
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use crate::weights::permute;
use fcc_ir::{Dim, NodeId, ValueId};

rule_type! {
    /// `Conv[1x1](x[N,C,H,W], w[M,C,1,1], b[M]) => Transpose(MatMul(Transpose(x) as [N,H,W,C], w^T[C,M]) + b)`
    ///
    /// # What
    /// A convolution with a kernel of one element multiplies the channels of every pixel with one matrix. There may
    /// be as many pixels as there are at run time. Where the image has one pixel, `[N,C,1,1]`, a Flatten before and
    /// an Unsqueeze after take the place of the Transposes.
    ///
    /// # Why
    /// The other direction of `linear-to-pointwise-conv`, for tools that treat MatMul better than Conv.
    ///
    /// # Example
    /// ```text
    /// y = Conv(x, w, b)   # x float[N,64,H,W], w float[128,64,1,1]
    /// ```
    /// becomes
    /// ```text
    /// t = Transpose<perm=[0,2,3,1]>(x)
    /// p = MatMul(t, matrix)   # matrix float[64,128]
    /// s = Add(p, b)
    /// y = Transpose<perm=[0,3,1,2]>(s)
    /// ```
    ///
    /// # Declines
    /// - a kernel of more than one element, strides other than 1, padding, groups: `conv-to-im2col-gemm` takes them;
    /// - the weight or the bias is not constant.
    pub(crate) struct PointwiseConvToMatmul = "pointwise-conv-to-matmul";
}

impl Rule for PointwiseConvToMatmul {
    type Found = NodeId;
    type Plan = Convolution;
    fn name(&self) -> &str {
        Self::NAME
    }
    fn doc(&self) -> &str {
        Self::DOC
    }
    fn traits(&self) -> Traits {
        Traits { linear: true, ..Traits::default() }
    }
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<NodeId> {
        cx.op(node, "Conv").map(|_| node)
    }
    fn guard(&self, cx: &Cx<'_>, node: NodeId) -> Result<Match<Convolution>, Declined> {
        let conv = convolution(cx, node)?;
        all_are("kernel_shape", &conv.window.kernel_shape, 1)?;
        all_are("strides", &conv.window.strides, 1)?;
        // SAME and VALID pad nothing for a kernel of one element and steps of 1
        all_are("pads", &conv.window.pads, 0)?;
        if conv.group != 1 {
            return Err(Declined::new("group", conv.group, 1));
        }
        Ok(Match { replaces: cx.out(node), sources: vec![conv.x], growth_bytes: 0, plan: conv })
    }
    fn action(&self, conv: Convolution, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        let matrix = b.derived(&conv.w, "matrix [C,M]", "matrix", |w| {
            permute(&w.reshaped(vec![conv.m, conv.c])?, &[1, 0])
        })?;
        let rank = conv.spatial.len();
        let one_pixel = conv.spatial.iter().all(|d| *d == Dim::Known(1));
        // channels last: [0, 2, .., 1]
        let last: Vec<usize> = std::iter::once(0).chain(2..rank + 2).chain([1]).collect();
        let x = if one_pixel { b.flatten(conv.x, 1)? } else { b.transpose(conv.x, &last)? };
        let mut y = b.matmul(x, matrix)?;
        if let Some((bias, _)) = conv.b {
            y = b.add(y, bias)?;
        }
        if one_pixel {
            b.unsqueeze(y, &(2..rank + 2).collect::<Vec<_>>())
        } else {
            b.transpose(y, &inverse(&last))
        }
    }
}

fn all_are(what: &str, got: &[usize], need: usize) -> Result<(), Declined> {
    if got.iter().all(|v| *v == need) {
        return Ok(());
    }
    Err(Declined::new(what, format!("{got:?}"), format!("{:?}", vec![need; got.len()])))
}
