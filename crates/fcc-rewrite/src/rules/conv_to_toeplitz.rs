//! Conv as one product with its doubly blocked Toeplitz matrix.
use crate::builder::{Builder, Extent};
use crate::context::Cx;
use crate::convolution::{Convolution, convolution, product};
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use crate::toeplitz;
use crate::weights::{element_bytes, repeat_each};
use fcc_ir::{NodeId, ValueId};

rule_type! {
    /// `Conv(x[N,C,H,W], w, b) => reshape(Flatten(x) @ T[C*H*W,M*OH*OW] + b of every output place)`
    ///
    /// # What
    /// A convolution over an image of fixed extents is a linear map, and this writes out its matrix: column `(m,i,j)`
    /// holds the weights that output reads, zero elsewhere. All channels and groups are in the one matrix; strides,
    /// dilations and every padding are in it too, so nothing is padded at run time. One, two or three spatial axes.
    ///
    /// # Why
    /// Verifiers, solvers, crossbars and encrypted inference take a matrix where they take no convolution.
    ///
    /// # Example
    /// ```text
    /// y = Conv(x, w, b)   # x float[N,1,4,4], w float[2,1,3,3]
    /// ```
    /// becomes
    /// ```text
    /// f = Flatten(x)
    /// g = Gemm(f, toeplitz, bias)   # toeplitz float[16,8], bias float[8]
    /// y = Reshape(g, [0,2,2,2])
    /// ```
    /// Without a bias, and before opset 7, it is a `MatMul` (and an `Add`).
    ///
    /// # Declines
    /// - the matrix would exceed the budget: its size is known before it is built (`C*H*W * M*OH*OW` elements);
    /// - the spatial extents are not fixed;
    /// - the weight or the bias is not constant.
    pub(crate) struct ConvToToeplitzGemm = "conv-to-toeplitz-gemm";
}

impl Rule for ConvToToeplitzGemm {
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
        let p = conv.need_problem()?;
        let matrix = toeplitz::whole_bytes(p, &conv.w)?;
        let growth_bytes = matrix.saturating_add(bias_bytes(&conv)?).saturating_sub(conv.w.byte_len() as u64);
        Ok(Match { replaces: cx.out(node), sources: vec![conv.x], growth_bytes, plan: conv })
    }
    fn action(&self, conv: Convolution, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        let p = conv.need_problem()?;
        let key = format!("toeplitz {:?} {:?} {:?}", p.spatial, p.window, p.group);
        let matrix = b.derived(&conv.w, &key, "toeplitz", |w| toeplitz::whole(p, w))?;
        let bias = place_bias(b, &conv)?;
        let x = b.flatten(conv.x, 1)?;
        let y = match bias {
            None => b.matmul(x, matrix)?,
            Some(bias) if b.opset() >= 7 => b.gemm(x, matrix, bias)?,
            Some(bias) => {
                let y = b.matmul(x, matrix)?;
                b.add(y, bias)?
            }
        };
        b.reshape(y, &image(p))
    }
}

/// `[N, M, out…]` as the target of a Reshape of `[N, M*P]`.
pub(super) fn image(p: &fcc_ir::ops::conv::ConvProblem) -> Vec<Extent> {
    let outs = p.axes.iter().map(|a| Extent::Fixed(a.out));
    [Extent::Same, Extent::Fixed(p.m)].into_iter().chain(outs).collect()
}

/// Bytes of the bias written out for every output place.
pub(super) fn bias_bytes(conv: &Convolution) -> Result<u64, Declined> {
    let Some((_, t)) = &conv.b else { return Ok(0) };
    let (_, places, _) = toeplitz::extents(conv.need_problem()?)?;
    product("the bias", &[conv.m, places, element_bytes(t.dtype())?]).map(|n| n as u64)
}

/// The bias of every output place, `[M*P]`.
pub(super) fn place_bias(b: &mut Builder<'_>, conv: &Convolution) -> Result<Option<ValueId>, Declined> {
    let Some((_, t)) = &conv.b else { return Ok(None) };
    let (_, places, _) = toeplitz::extents(conv.need_problem()?)?;
    b.derived(t, &format!("bias of {places} places"), "bias", |t| repeat_each(t, conv.m, places)).map(Some)
}
