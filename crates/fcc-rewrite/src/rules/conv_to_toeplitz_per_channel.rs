//! Conv as a sum of products with one Toeplitz matrix for each pair of channels.
use super::conv_to_toeplitz::{bias_bytes, image, place_bias};
use crate::builder::{Builder, Extent};
use crate::context::Cx;
use crate::convolution::{Convolution, convolution, product};
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use crate::toeplitz;
use fcc_ir::{NodeId, Tensor, ValueId};

rule_type! {
    /// `Conv(x, w, b)[m] => sum over c of x[c] as [N,H*W] @ T(w[m,c])[H*W,OH*OW] + b[m]`
    ///
    /// # What
    /// The form of `conv-to-toeplitz-gemm` that textbooks draw: the kernel of one output and one input channel is
    /// one Toeplitz matrix, and each output channel is the sum over its input channels. The blocks that groups leave
    /// zero are not there.
    ///
    /// # Why
    /// To look at the matrix of one pair of channels, and for tools that place one matrix on one unit.
    ///
    /// # Example
    /// ```text
    /// y = Conv(x, w)   # x float[N,2,4,4], w float[1,2,3,3]
    /// ```
    /// becomes
    /// ```text
    /// r = Reshape(x, [0,2,16])
    /// x0 = Gather<axis=1>(r, 0)
    /// x1 = Gather<axis=1>(r, 1)
    /// p0 = MatMul(x0, toeplitz_0_0)   # float[16,4]
    /// p1 = MatMul(x1, toeplitz_0_1)
    /// s = Sum(p0, p1)
    /// y = Reshape(s, [0,1,2,2])
    /// ```
    ///
    /// # Declines
    /// - as `conv-to-toeplitz-gemm`;
    /// - there are more pairs of channels than a rewrite may make nodes.
    pub(crate) struct ConvToToeplitzGemmPerChannel = "conv-to-toeplitz-gemm-per-channel";
}

impl Rule for ConvToToeplitzGemmPerChannel {
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
        let pairs = product("pairs of channels", &[p.m, p.c / p.group])?;
        // a matrix and a MatMul for each pair, a Gather and its index for each channel, a Sum for each output
        let nodes = pairs.saturating_mul(2).saturating_add(p.c.saturating_mul(2)).saturating_add(p.m + 8);
        if nodes > cx.limits().nodes {
            let got = format!("{pairs} ({nodes} nodes)");
            return Err(Declined::new(
                "pairs of channels",
                got,
                format!("at most {} nodes", cx.limits().nodes),
            ));
        }
        let matrices = toeplitz::whole_bytes(p, &conv.w)? / p.group as u64;
        let growth_bytes =
            matrices.saturating_add(bias_bytes(&conv)?).saturating_sub(conv.w.byte_len() as u64);
        Ok(Match { replaces: cx.out(node), sources: vec![conv.x], growth_bytes, plan: conv })
    }
    fn action(&self, conv: Convolution, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        let p = conv.need_problem()?;
        let (places, _, _) = toeplitz::extents(p)?;
        let (cg, mg) = (p.c / p.group, p.m / p.group);
        let planes = b.reshape(conv.x, &[Extent::Same, Extent::Fixed(p.c), Extent::Fixed(places)])?;
        let mut channels = vec![];
        for c in 0..p.c {
            let index = b.constant(&format!("channel_{c}"), Tensor::scalar(c as i64))?;
            channels.push(b.gather(planes, index, 1)?);
        }
        let mut outputs = vec![];
        for m in 0..p.m {
            let mut products = vec![];
            for c in 0..cg {
                let key = format!("toeplitz {m} {c} {:?} {:?}", p.spatial, p.window);
                let hint = format!("toeplitz_{m}_{c}");
                let matrix = b.derived(&conv.w, &key, &hint, |w| toeplitz::of_pair(p, w, m, c))?;
                let Some(&x) = channels.get(m / mg * cg + c) else {
                    return Err(Declined::new("channel", m / mg * cg + c, format!("below {}", p.c)));
                };
                products.push(b.matmul(x, matrix)?);
            }
            outputs.push(b.sum(&products)?);
        }
        let mut y = b.concat(&outputs, 1)?;
        if let Some(bias) = place_bias(b, &conv)? {
            y = b.add(y, bias)?;
        }
        b.reshape(y, &image(p))
    }
}
