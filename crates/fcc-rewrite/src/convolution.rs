//! `Conv` read for rules: constant weight and bias, extents as far as they are known.
use crate::context::{Cx, dims_text};
use crate::rule::Declined;
use fcc_ir::ops::conv::{ConvProblem, Window, group};
use fcc_ir::{Dim, NodeId, Tensor, ValueId};

/// `y[N,M,out…] = Conv(x[N,C,spatial…], w[M,C/group,kernel…], b[M])` with constant w and b.
#[derive(Debug, Clone)]
pub(crate) struct Convolution {
    pub x: ValueId,
    pub w: Tensor,
    pub b: Option<(ValueId, Tensor)>,
    /// Input channels.
    pub c: usize,
    /// Output channels.
    pub m: usize,
    pub group: usize,
    pub window: Window,
    /// Extents of x along the spatial axes.
    pub spatial: Vec<Dim>,
    /// Everything in numbers for a batch of 1, if the spatial extents are fixed.
    pub problem: Option<ConvProblem>,
}

/// Reads a Conv (the pattern looked at its name). Errs where weight or bias is not constant or the rank is unknown.
pub(crate) fn convolution(cx: &Cx<'_>, node: NodeId) -> Result<Convolution, Declined> {
    let Some(op) = cx.graph().op(node) else {
        return Err(Declined::new("node", cx.graph().place(node), "Conv"));
    };
    let x = cx.input(node, 0)?;
    let w = cx.need_constant(cx.input(node, 1)?, "weight")?;
    let b = match cx.graph().input(node, 2) {
        None => None,
        Some(value) => Some((value, cx.need_constant(value, "bias")?)),
    };
    crate::weights::element_bytes(w.dtype())?;
    let shape = cx.need_shape(x)?;
    let (&[m, cg, ref kernel @ ..], Some(spatial)) = (w.shape(), shape.get(2..)) else {
        return Err(Declined::new(
            "ranks of x and w",
            format!("{} and {}", shape.len(), w.rank()),
            "at least 3",
        ));
    };
    if kernel.len() != spatial.len() || kernel.is_empty() {
        return Err(Declined::new(
            "rank of w",
            w.rank(),
            format!("{} as of x {}", shape.len(), dims_text(shape)),
        ));
    }
    if w.is_empty() {
        return Err(Declined::new("shape of w", format!("{:?}", w.shape()), "at least one element"));
    }
    let window = Window::parse(op, Some(kernel))?;
    let group = group(op)?;
    let c = cg.checked_mul(group).ok_or_else(|| Declined::new("channels", "too many", "below 2^63"))?;
    let known: Option<Vec<usize>> = spatial.iter().map(Dim::known).collect();
    let problem = known
        .map(|s| {
            let x_shape: Vec<usize> = [1, c].into_iter().chain(s).collect();
            ConvProblem::new(op, &x_shape, w.shape(), b.as_ref().map(|(_, t)| t.shape()))
        })
        .transpose()?;
    if let Some((_, t)) = b.as_ref().filter(|(_, t)| t.shape() != [m]) {
        return Err(Declined::new("shape of b", format!("{:?}", t.shape()), format!("[{m}]")));
    }
    Ok(Convolution { x, w, b, c, m, group, window, spatial: spatial.to_vec(), problem })
}

impl Convolution {
    /// Taps of the kernel: the product of its extents.
    pub fn taps(&self) -> usize {
        self.window.kernel_shape.iter().product()
    }
    /// The numbers, or the reason why a rule that needs fixed extents declines.
    pub fn need_problem(&self) -> Result<&ConvProblem, Declined> {
        self.problem
            .as_ref()
            .ok_or_else(|| Declined::new("spatial extents of x", dims_text(&self.spatial), "fixed ones"))
    }
}

/// All index tuples of a shape in row-major order.
pub(crate) fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let total: usize = shape.iter().product();
    (0..total).map(move |mut i| {
        let mut at = vec![0; shape.len()];
        for (slot, &n) in at.iter_mut().zip(shape).rev() {
            (*slot, i) = (i % n, i / n);
        }
        at
    })
}

/// `a * b * …`, or the reason why a rule declines.
pub(crate) fn product(what: &str, factors: &[usize]) -> Result<usize, Declined> {
    factors
        .iter()
        .try_fold(1usize, |n, f| n.checked_mul(*f))
        .filter(|n| isize::try_from(*n).is_ok())
        .ok_or_else(|| Declined::new(what, format!("{factors:?} elements"), "a product below 2^63"))
}
