//! Gemm and MatMul as a 1x1 Conv.
use super::layout::inverse;
use crate::builder::{Builder, Extent};
use crate::context::{Cx, dims_text};
use crate::linear::{Linear, linear};
use crate::registry::CANCEL_LAYOUTS;
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use fcc_ir::{Dim, NodeId, ValueId};

rule_type! {
    /// `Gemm(x[N,K], w[K,M], b[M]) => Flatten(Conv[1x1](x as [N,K,1,1], w^T as [M,K,1,1], b))`
    ///
    /// # What
    /// A linear layer is a convolution with a kernel of one element, its features are the channels.
    /// - `[N,K]` becomes an image of one pixel, `[N,K,1,1]`.
    /// - In `MatMul(x[B,T,K], w[K,M])`, as transformers have it, the tokens become the spatial axis:
    ///   `Transpose(Conv[1](Transpose(x), w^T as [M,K,1]))`. With two or three axes of tokens the Conv has two or
    ///   three spatial axes. No extent but K and M must be known. ONNX has no Conv of an image without pixels, while a
    ///   product may have no tokens: where their number is open, the rewritten layer refuses a run with none.
    /// - `MatMul(w[M,K], x[B,K,T])`, the weight on the left, is a Conv as it stands.
    /// - An `Add` of a constant bias goes into the Conv.
    ///
    /// The rules `sink-layout`, `merge-reshapes` and `merge-transposes` of the same pass then remove the Reshapes
    /// and Transposes between neighbouring layers, so that a chain of layers is a chain of Convs.
    ///
    /// # Why
    /// Accelerators that run convolutions well refuse or slow down on Gemm and MatMul.
    ///
    /// # Example
    /// ```text
    /// h = MatMul(x, w)   # x float[B,T,256], w float[256,1024]
    /// y = Add(b, h)
    /// ```
    /// becomes
    /// ```text
    /// t = Transpose<perm=[0,2,1]>(x)             # float[B,256,T]
    /// c = Conv<kernel_shape=[1]>(t, kernel, b)   # kernel float[1024,256,1]
    /// y = Transpose<perm=[0,2,1]>(c)
    /// ```
    ///
    /// # Exactness
    /// As for `linear-to-full-kernel-conv`: weights are moved and never rounded.
    ///
    /// # Declines
    /// - the weight is not constant, can be overridden by callers, or is dequantised at run time;
    /// - the weight is a batch of matrices;
    /// - ONNX Runtime runs the layer and would not run the Conv: it has none of `double`;
    /// - the input's rank is unknown or above 5;
    /// - there are no tokens: an axis that would become spatial is known to have the extent 0.
    pub(crate) struct LinearToPointwiseConv = "linear-to-pointwise-conv";
}

impl Rule for LinearToPointwiseConv {
    type Found = NodeId;
    type Plan = Linear;
    fn name(&self) -> &str {
        Self::NAME
    }
    fn doc(&self) -> &str {
        Self::DOC
    }
    fn traits(&self) -> Traits {
        Traits { linear: true, then: Some(CANCEL_LAYOUTS), ..Traits::default() }
    }
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<NodeId> {
        cx.op_in(node, &["Gemm", "MatMul"]).map(|_| node)
    }
    fn guard(&self, cx: &Cx<'_>, node: NodeId) -> Result<Match<Linear>, Declined> {
        let linear = linear(cx, node)?;
        if !(1..=5).contains(&linear.x_rank) {
            return Err(Declined::new("rank of x", linear.x_rank, "1 to 5"));
        }
        // in the body of a function shapes are open
        if let Some(shape) = cx.shape(linear.x)
            && token_axes(&linear).iter().any(|&i| shape.get(i) == Some(&Dim::Known(0)))
        {
            let need = "at least 1 along each axis that becomes spatial";
            return Err(Declined::new("shape of x", dims_text(shape), need));
        }
        Ok(Match { replaces: linear.out, sources: linear.sources(linear.x), growth_bytes: 0, plan: linear })
    }
    fn action(&self, linear: Linear, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        let spatial = spatial_axes(&linear);
        let (w, alpha_is_in) = linear.kernel(b, &[linear.k], &[0], spatial)?;
        linear.with_rest(b, alpha_is_in, |b, bias| {
            let x = to_channels(b, &linear)?;
            let conv = b.conv(x, w, bias, &vec![1; spatial])?;
            from_channels(b, &linear, conv)
        })
    }
}

/// The axes of x that become spatial in the Conv: none of vectors and rows, which become images of one pixel.
fn token_axes(linear: &Linear) -> Vec<usize> {
    match (linear.weight_is_left, linear.x_rank) {
        (true, 2) => vec![1],
        (false, 1 | 2) => vec![],
        (left, rank) => feature_to_axis_1(rank, if left { rank - 2 } else { rank - 1 }).split_off(2),
    }
}

/// Number of spatial axes of the Conv.
fn spatial_axes(linear: &Linear) -> usize {
    match (linear.weight_is_left, linear.x_rank) {
        (false, 1 | 2) => 2,
        _ => token_axes(linear).len(),
    }
}

/// x with its features on axis 1.
fn to_channels(b: &mut Builder<'_>, linear: &Linear) -> Result<ValueId, Declined> {
    let (x, rank) = (linear.x, linear.x_rank);
    match (linear.weight_is_left, rank) {
        (true, 2) => b.unsqueeze(x, &[0]),
        (true, _) => b.transpose(x, &feature_to_axis_1(rank, rank - 2)),
        (false, 1) => {
            b.reshape(x, &[Extent::Fixed(1), Extent::Fixed(linear.k), Extent::Fixed(1), Extent::Fixed(1)])
        }
        (false, 2) => {
            let rows = if linear.x_is_transposed { b.transpose(x, &[1, 0])? } else { x };
            b.unsqueeze(rows, &[2, 3])
        }
        (false, _) => b.transpose(x, &feature_to_axis_1(rank, rank - 1)),
    }
}

/// The Conv's output in the layout of the product.
fn from_channels(b: &mut Builder<'_>, linear: &Linear, conv: ValueId) -> Result<ValueId, Declined> {
    let rank = linear.x_rank;
    let no_features = linear.weight_is_vector;
    match (linear.weight_is_left, rank) {
        (true, 2) if no_features => b.squeeze(conv, &[0, 1]),
        (true, 2) => b.squeeze(conv, &[0]),
        (_, 1) if no_features => b.reshape(conv, &[]),
        (_, 1) => b.reshape(conv, &[Extent::Fixed(linear.m)]),
        (false, 2) if no_features => b.squeeze(conv, &[1, 2, 3]),
        (false, 2) => b.flatten(conv, 1),
        _ if no_features => b.squeeze(conv, &[1]),
        (true, _) => b.transpose(conv, &inverse(&feature_to_axis_1(rank, rank - 2))),
        (false, _) => b.transpose(conv, &inverse(&feature_to_axis_1(rank, rank - 1))),
    }
}

/// The permutation that moves the axis `feature` to axis 1 and keeps the others in their order.
fn feature_to_axis_1(rank: usize, feature: usize) -> Vec<usize> {
    let mut perm: Vec<usize> = (0..rank).filter(|i| *i != feature).collect();
    perm.insert(1, feature);
    perm
}
