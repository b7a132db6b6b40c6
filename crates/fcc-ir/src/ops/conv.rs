//! `Conv`. <https://onnx.ai/onnx/operators/onnx__Conv.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_real};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Conv`.
pub struct Conv;

/// `auto_pad`: how the padding is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoPad {
    /// From `pads`.
    NotSet,
    /// Output extent `ceil(in / stride)`, the odd one at the end.
    SameUpper,
    /// Output extent `ceil(in / stride)`, the odd one at the beginning.
    SameLower,
    /// None.
    Valid,
}

/// How a window slides over the spatial axes: shared by convolution and pooling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Extent of the kernel along each spatial axis.
    pub kernel_shape: Vec<usize>,
    /// Step along each spatial axis.
    pub strides: Vec<usize>,
    /// Distance of neighbouring taps along each spatial axis.
    pub dilations: Vec<usize>,
    /// ONNX order: all beginnings, then all ends. Only meaningful for [`AutoPad::NotSet`].
    pub pads: Vec<usize>,
    /// Where the padding comes from.
    pub auto_pad: AutoPad,
}

/// The padding along one axis, and the extent of the output there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AxisGeometry {
    /// Elements before the input.
    pub pad_begin: usize,
    /// Elements after the input.
    pub pad_end: usize,
    /// Output extent.
    pub out: usize,
}

/// A list of `n` numbers, each at least `least`.
pub(crate) fn list(node: &OpNode, name: &str, n: usize, default: usize, least: usize) -> Result<Vec<usize>> {
    let Some(values) = node.attrs.ints(name)? else { return Ok(vec![default; n]) };
    let wanted = || format!("{n} numbers, each at least {least}");
    let bad = || Error::mismatch(format!("attribute `{name}`"), format!("{values:?}"), wanted());
    if values.len() != n {
        return Err(bad());
    }
    values.iter().map(|&v| usize::try_from(v).ok().filter(|v| *v >= least).ok_or_else(bad)).collect()
}

impl Window {
    /// Reads the window's attributes. `kernel_shape` comes from the attribute or else from `from_weight`.
    /// Errors on lists of the wrong length, on steps of zero and on negative padding.
    pub fn parse(node: &OpNode, from_weight: Option<&[usize]>) -> Result<Window> {
        let kernel_shape = match (node.attrs.ints("kernel_shape")?, from_weight) {
            (Some(k), from_weight) => {
                let k = list(node, "kernel_shape", k.len(), 1, 1)?;
                if let Some(w) = from_weight.filter(|w| **w != k[..]) {
                    return Err(Error::mismatch(
                        "attribute `kernel_shape`",
                        format!("{k:?}"),
                        format!("{w:?} as in w"),
                    ));
                }
                k
            }
            (None, Some(w)) if w.contains(&0) => {
                return Err(Error::mismatch("kernel of w", format!("{w:?}"), "extents of at least 1"));
            }
            (None, Some(w)) => w.to_vec(),
            (None, None) => {
                return Err(Error::mismatch("attribute `kernel_shape`", "none", "the window's extents"));
            }
        };
        let n = kernel_shape.len();
        let auto_pad = match node.attrs.str_or("auto_pad", "NOTSET")? {
            "NOTSET" | "" => AutoPad::NotSet,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            other => {
                return Err(Error::mismatch(
                    "attribute `auto_pad`",
                    other,
                    "NOTSET, SAME_UPPER, SAME_LOWER or VALID",
                ));
            }
        };
        Ok(Window {
            strides: list(node, "strides", n, 1, 1)?,
            dilations: list(node, "dilations", n, 1, 1)?,
            pads: if auto_pad == AutoPad::NotSet { list(node, "pads", 2 * n, 0, 0)? } else { vec![0; 2 * n] },
            auto_pad,
            kernel_shape,
        })
    }
    /// Number of spatial axes.
    pub fn rank(&self) -> usize {
        self.kernel_shape.len()
    }
    /// Extent that the dilated kernel covers along an axis. Errors on overflow.
    pub fn span(&self, axis: usize) -> Result<usize> {
        (self.kernel_shape[axis] - 1)
            .checked_mul(self.dilations[axis])
            .and_then(|s| s.checked_add(1))
            .ok_or_else(|| Error::invalid("dilated kernel extent overflows"))
    }
    /// Padding and output extent along an axis for an input of `extent` (floor rounding).
    /// Errors where the kernel does not fit into the padded input.
    pub fn geometry(&self, axis: usize, extent: usize) -> Result<AxisGeometry> {
        let (span, stride) = (self.span(axis)?, self.strides[axis]);
        let (pad_begin, pad_end) = match self.auto_pad {
            AutoPad::NotSet => (self.pads[axis], self.pads[self.rank() + axis]),
            AutoPad::Valid => (0, 0),
            AutoPad::SameUpper | AutoPad::SameLower => {
                let out = extent.div_ceil(stride);
                let needed = out.saturating_sub(1).saturating_mul(stride).saturating_add(span);
                let total = needed.saturating_sub(extent);
                let small = total / 2;
                if self.auto_pad == AutoPad::SameUpper {
                    (small, total - small)
                } else {
                    (total - small, small)
                }
            }
        };
        let padded = extent.checked_add(pad_begin).and_then(|e| e.checked_add(pad_end));
        let padded = padded.ok_or_else(|| Error::invalid("padded extent overflows"))?;
        let room = padded.checked_sub(span).ok_or_else(|| {
            Error::mismatch(
                format!("padded input along spatial axis {axis}"),
                padded,
                format!("at least {span}"),
            )
        })?;
        Ok(AxisGeometry { pad_begin, pad_end, out: room / stride + 1 })
    }
    /// The output extent along an axis for a possibly symbolic input extent.
    pub fn out_dim(&self, axis: usize, extent: &Dim) -> Result<Dim> {
        if let Dim::Known(n) = extent {
            return Ok(Dim::Known(self.geometry(axis, *n)?.out));
        }
        let stride = self.strides[axis];
        Ok(match self.auto_pad {
            AutoPad::SameUpper | AutoPad::SameLower => extent.ceil_div(stride),
            AutoPad::NotSet | AutoPad::Valid => {
                let pad = self.pads[axis].saturating_add(self.pads[self.rank() + axis]);
                let offset =
                    i64::try_from(pad).ok().zip(i64::try_from(self.span(axis)?).ok()).map(|(p, s)| p - s);
                offset.map_or(Dim::Unknown, |o| extent.offset(o).floor_div(&Dim::Known(stride)).offset(1))
            }
        })
    }
}

/// `group`, at least 1.
pub fn group(node: &OpNode) -> Result<usize> {
    let g = node.attrs.int_or("group", 1)?;
    usize::try_from(g)
        .ok()
        .filter(|g| *g > 0)
        .ok_or_else(|| Error::mismatch("attribute `group`", g, "at least 1"))
}

/// A convolution of known shapes: x `[N, C, spatial…]`, w `[M, C/group, kernel…]`, y `[N, M, out…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvProblem {
    /// Batch.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Output channels.
    pub m: usize,
    /// Groups.
    pub group: usize,
    /// Input extents along the spatial axes.
    pub spatial: Vec<usize>,
    /// The window.
    pub window: Window,
    /// Padding and output extent along each spatial axis.
    pub axes: Vec<AxisGeometry>,
}

impl ConvProblem {
    /// Checks a node against the shapes of x, w and b. Errors name what does not fit.
    pub fn new(node: &OpNode, x: &[usize], w: &[usize], b: Option<&[usize]>) -> Result<ConvProblem> {
        let (&[n, c, ref spatial @ ..], &[m, cg, ref kernel @ ..]) = (x, w) else {
            return Err(Error::mismatch(
                "ranks of x and w",
                format!("{} and {}", x.len(), w.len()),
                "at least 3",
            ));
        };
        if spatial.len() != kernel.len() || spatial.is_empty() {
            return Err(Error::mismatch("rank of w", w.len(), format!("{} as of x", x.len())));
        }
        let window = Window::parse(node, Some(kernel))?;
        let group = group(node)?;
        if cg.checked_mul(group) != Some(c) {
            return Err(Error::mismatch("channels of x", c, format!("{cg} of w x {group} groups")));
        }
        if m % group != 0 {
            return Err(Error::mismatch("output channels of w", m, format!("a multiple of {group} groups")));
        }
        if let Some(b) = b.filter(|b| **b != [m]) {
            return Err(Error::mismatch("shape of b", format!("{b:?}"), format!("[{m}]")));
        }
        let axes = spatial.iter().enumerate().map(|(i, &s)| window.geometry(i, s)).collect::<Result<_>>()?;
        Ok(ConvProblem { n, c, m, group, spatial: spatial.to_vec(), window, axes })
    }
    /// Shape of y.
    pub fn out_shape(&self) -> Vec<usize> {
        [self.n, self.m].into_iter().chain(self.axes.iter().map(|a| a.out)).collect()
    }
}

/// The output type of a convolution of the inputs `x` and `w` with the optional bias `b`, for possibly symbolic shapes.
/// Errors on what can never fit.
pub(crate) fn infer(
    cx: &InferCtx<'_>,
    x: usize,
    w: usize,
    b: Option<usize>,
    dtype: DType,
) -> Result<TensorType> {
    let (Some(x), Some(w)) = (cx.shape(x)?, cx.shape(w)?) else {
        return Ok(TensorType::unranked(dtype));
    };
    let ([n, c, spatial @ ..], [m, cg, kernel @ ..]) = (&x[..], &w[..]) else {
        return Err(Error::mismatch(
            "ranks of x and w",
            format!("{} and {}", x.len(), w.len()),
            "at least 3",
        ));
    };
    if spatial.len() != kernel.len() {
        return Err(Error::mismatch("rank of w", w.len(), format!("{} as of x", x.len())));
    }
    let group = group(cx.node)?;
    if let (Some(c), Some(cg)) = (c.known(), cg.known())
        && cg.checked_mul(group) != Some(c)
    {
        return Err(Error::mismatch("channels of x", c, format!("{cg} of w x {group} groups")));
    }
    if let Some(b) = b.filter(|b| cx.has(*b))
        && let (Some(shape), Some(m)) = (cx.shape(b)?, m.known())
        && !matches!(&shape[..], [d] if d.compatible(&Dim::Known(m)))
    {
        return Err(Error::mismatch("shape of b", cx.ty(b)?, format!("[{m}]")));
    }
    let kernel: Option<Vec<usize>> = kernel.iter().map(Dim::known).collect();
    if kernel.is_none() && cx.node.attrs.ints("kernel_shape")?.is_none() {
        let shape = [n.clone(), m.clone()].into_iter().chain(spatial.iter().map(|_| Dim::Unknown));
        return Ok(TensorType::new(dtype, shape));
    }
    let window = Window::parse(cx.node, kernel.as_deref())?;
    let mut out = vec![n.clone(), m.clone()];
    for (i, extent) in spatial.iter().enumerate() {
        out.push(window.out_dim(i, extent)?);
    }
    Ok(TensorType::new(dtype, out))
}

impl Operator for Conv {
    fn schema(&self) -> Schema {
        Schema { name: "Conv", domain: "", since: &[1, 11, 22], inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![infer(cx, 0, 1, Some(2), cx.dtype(0)?)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, w, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?);
        let problem = ConvProblem::new(cx.node, x.shape(), w.shape(), b.map(Tensor::shape))?;
        with_real!(x.dtype(), T => {
            let b = b.map(T::load).transpose()?;
            let y = direct(&problem, &T::load(x)?, &T::load(w)?, b.as_deref());
            Ok(vec![T::store(x.dtype(), problem.out_shape(), y)?.into()])
        })
    }
}

/// The sum of products in the order of the text: for each output element over channels, then taps.
pub(crate) fn direct<T: Num>(p: &ConvProblem, x: &[T], w: &[T], b: Option<&[T]>) -> Vec<T> {
    let (cg, mg) = (p.c / p.group, p.m / p.group);
    let outs: Vec<usize> = p.axes.iter().map(|a| a.out).collect();
    let (in_size, k_size): (usize, usize) =
        (p.spatial.iter().product(), p.window.kernel_shape.iter().product());
    let taps: Vec<Vec<usize>> = indices(&p.window.kernel_shape);
    let places = indices(&outs);
    let mut y = Vec::with_capacity(p.n * p.m * places.len());
    for n in 0..p.n {
        for m in 0..p.m {
            let first_channel = m / mg * cg;
            for place in &places {
                let mut sum = b.map_or(T::ZERO, |b| b[m]);
                // input offset of each tap that falls inside, found once for all channels
                let inside: Vec<(usize, usize)> = taps
                    .iter()
                    .enumerate()
                    .filter_map(|(k, tap)| Some((k, input_offset(p, place, tap)?)))
                    .collect();
                for c in 0..cg {
                    let xc = &x[(n * p.c + first_channel + c) * in_size..][..in_size];
                    let wc = &w[(m * cg + c) * k_size..][..k_size];
                    for &(k, i) in &inside {
                        sum = sum.plus(xc[i].times(wc[k]));
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

/// All index tuples of a shape in row-major order.
pub(crate) fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |all, &n| {
        all.iter().flat_map(|head| (0..n).map(move |i| [head.as_slice(), &[i]].concat())).collect()
    })
}

/// Linear index into the spatial extents that a tap reads for an output place; `None` in the padding.
fn input_offset(p: &ConvProblem, place: &[usize], tap: &[usize]) -> Option<usize> {
    let mut offset = 0;
    for (i, extent) in p.spatial.iter().enumerate() {
        let at = place[i] * p.window.strides[i] + tap[i] * p.window.dilations[i];
        let at = at.checked_sub(p.axes[i].pad_begin).filter(|a| a < extent)?;
        offset = offset * extent + at;
    }
    Some(offset)
}
