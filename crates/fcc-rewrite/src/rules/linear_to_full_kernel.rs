//! Gemm and MatMul behind a Flatten as a Conv with the input's spatial size.
use super::layout::{inverse, reshape_behind, transpose_behind};
use crate::builder::Builder;
use crate::context::{Cx, known_product};
use crate::linear::{Linear, linear};
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use fcc_ir::{Dim, NodeId, ValueId};

rule_type! {
    /// `Gemm(Flatten(x[N,C,H,W]), w[M,C*H*W], b[M]) => Flatten(Conv[HxW](x, w as [M,C,H,W], b))`
    ///
    /// # What
    /// A linear layer that reads every element of an image is a convolution whose kernel is as large as the image:
    /// the same elements are multiplied with the same weights. It works for one, two or three spatial axes, for
    /// `Gemm` and `MatMul` (an `Add` of a constant bias after a `MatMul`, in either operand order, goes into the
    /// Conv), and for any of `Flatten`, `Reshape` and `Squeeze` before it. A `Transpose` from `[N,C,H,W]` to
    /// `[N,H,W,C]` before the Flatten goes away too: the weight is permuted instead.
    ///
    /// The output keeps its name and its shape `[N,M]`: a Flatten follows the Conv.
    ///
    /// # Why
    /// Networks that classify one image become detectors that slide over a larger one, and accelerators that run
    /// convolutions only can run the layer.
    ///
    /// # Example
    /// ```text
    /// flat = Flatten(x)                # x float[N,16,5,5]
    /// y = Gemm<transB=1>(flat, w, b)   # w float[120,400]
    /// ```
    /// becomes
    /// ```text
    /// conv = Conv<kernel_shape=[5,5]>(x, kernel, b)   # kernel float[120,16,5,5], the bytes of w
    /// y = Flatten(conv)
    /// ```
    ///
    /// # Exactness
    /// The rewritten layer is the same function of real numbers: weights are moved and never rounded. `alpha` goes
    /// into the weight only where every product is exact in the element type; else a `Mul` stays. `beta` times a
    /// constant bias must be exact. A bias that is not one by feature stays as an `Add`.
    ///
    /// # Declines
    /// - the weight is not constant, can be overridden by callers, or is dequantised at run time;
    /// - the input does not come from a flattened value of rank 3 to 5 with fixed channels and spatial extents;
    /// - an extent of the image is larger than the largest kernel allowed (`--max-kernel`);
    /// - `beta` times the constant bias would have to be rounded;
    /// - ONNX Runtime runs the layer and would not run the Conv: it has none of `double`;
    /// - `transA`, a constant left operand, an input that is not `[N, features]`.
    pub(crate) struct LinearToFullKernelConv = "linear-to-full-kernel-conv";
}

/// What the action needs.
pub(crate) struct Plan {
    linear: Linear,
    source: ValueId,
    /// Channels and spatial extents in the order in which the features were flattened.
    flattened: Vec<usize>,
    /// `order[i]`: which axis of `flattened` is the i-th axis of the source after N.
    order: Vec<usize>,
    /// The spatial extents of the source.
    kernel: Vec<usize>,
}

impl Rule for LinearToFullKernelConv {
    type Found = NodeId;
    type Plan = Plan;
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
        cx.op_in(node, &["Gemm", "MatMul"]).map(|_| node)
    }
    fn guard(&self, cx: &Cx<'_>, node: NodeId) -> Result<Match<Plan>, Declined> {
        let linear = linear(cx, node)?;
        linear.need_rows(cx)?;
        let image = image_behind(cx, linear.x, linear.k).ok_or_else(|| {
            let got = format!("{} {}", cx.graph().place(linear.x.node), cx.type_text(linear.x));
            let need = format!("[N,C,spatial...] with {} fixed features behind a Flatten", linear.k);
            Declined::new("x", got, need)
        })?;
        let shape = cx.need_shape(image)?;
        let flattened: Vec<usize> = shape.iter().skip(1).filter_map(Dim::known).collect();
        let (source, order): (ValueId, Vec<usize>) = match transpose_behind(cx, image) {
            Some((x, perm)) if perm.first() == Some(&0) => {
                // axis j of x is axis i of the image where perm[i] = j
                (x, inverse(&perm).into_iter().skip(1).map(|i| i - 1).collect())
            }
            _ => (image, (0..flattened.len()).collect()),
        };
        let kernel: Vec<usize> = order.iter().skip(1).filter_map(|&i| flattened.get(i).copied()).collect();
        if kernel.iter().any(|&n| n > cx.limits().kernel) {
            let need = format!("at most {} in each direction", cx.limits().kernel);
            return Err(Declined::new("kernel_shape", format!("{kernel:?}"), need));
        }
        Ok(Match {
            replaces: linear.out,
            sources: linear.sources(source),
            growth_bytes: 0,
            plan: Plan { linear, source, flattened, order, kernel },
        })
    }
    fn action(&self, plan: Plan, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        let Plan { linear, source, flattened, order, kernel } = plan;
        let (w, alpha_is_in) = linear.kernel(b, &flattened, &order, 0)?;
        linear.with_rest(b, alpha_is_in, |b, bias| {
            let conv = b.conv(source, w, bias, &kernel)?;
            if linear.weight_is_vector {
                return b.squeeze(conv, &(1..=order.len()).collect::<Vec<_>>());
            }
            b.flatten(conv, 1)
        })
    }
}

/// The value of rank 3 to 5 whose elements after the first axis, `k` of them, `x` holds flattened.
fn image_behind(cx: &Cx<'_>, x: ValueId, k: usize) -> Option<ValueId> {
    let (_, mut value) = reshape_behind(cx, x)?;
    loop {
        let shape = cx.shape(value)?;
        if (3..=5).contains(&shape.len()) && known_product(shape.get(1..)?) == Some(k) {
            return Some(value);
        }
        (_, value) = reshape_behind(cx, value)?;
    }
}
