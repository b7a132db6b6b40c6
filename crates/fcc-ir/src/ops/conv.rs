//! `Conv`. <https://onnx.ai/onnx/operators/onnx__Conv.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_real};
use crate::{At, DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

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
        let problem = ConvProblem { n, c, m, group, spatial: spatial.to_vec(), window, axes };
        super::movement::new_elems(&problem.out_shape()).at(|| "output")?;
        Ok(problem)
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
        cx.need_one_dtype(3)?;
        Ok(vec![infer(cx, 0, 1, Some(2), cx.dtype(0)?)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(3)?;
        let (x, w, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?);
        let problem = ConvProblem::new(cx.node, x.shape(), w.shape(), b.map(Tensor::shape))?;
        with_real!(x.dtype(), T => {
            let b = b.map(T::load).transpose()?;
            let y = direct(&problem, &T::load(x)?, &T::load(w)?, b.as_deref());
            Ok(vec![T::store(x.dtype(), problem.out_shape(), y)?.into()])
        })
    }
}

/// Where one tap of the kernel reads: for each output row (the places that differ in the last axis only) that it
/// reaches, the row's offset and that of the input row, and the part of the rows that lies inside.
struct TapRows {
    rows: Vec<(usize, usize)>,
    places: std::ops::Range<usize>,
    /// Input place along the last axis that the first of `places` reads.
    first: usize,
}

fn tap_rows(p: &ConvProblem, tap: &[usize]) -> TapRows {
    let at = |axis: usize, place: usize| {
        let at = place * p.window.strides[axis] + tap[axis] * p.window.dilations[axis];
        at.checked_sub(p.axes[axis].pad_begin).filter(|a| *a < p.spatial[axis])
    };
    let last = p.spatial.len() - 1;
    let outer: Vec<usize> = p.axes[..last].iter().map(|a| a.out).collect();
    let row = |(number, place): (usize, &Vec<usize>)| {
        let mut offset = 0;
        for (axis, place) in place.iter().enumerate() {
            offset = offset * p.spatial[axis] + at(axis, *place)?;
        }
        Some((number * p.axes[last].out, offset * p.spatial[last]))
    };
    let rows = indices(&outer).iter().enumerate().filter_map(row).collect();
    // the places at or behind `from`, in input positions that count the padding
    let places = |from: usize| {
        let ahead = from.saturating_sub(tap[last] * p.window.dilations[last]);
        ahead.div_ceil(p.window.strides[last]).min(p.axes[last].out)
    };
    let (begin, end) = (places(p.axes[last].pad_begin), places(p.axes[last].pad_begin + p.spatial[last]));
    TapRows { rows, places: begin..end, first: at(last, begin).unwrap_or(0) }
}

/// The sum of products in the order of the text: each output element starts at its bias and adds up over channels,
/// then taps. Neighbours along the last axis are added up side by side.
pub(crate) fn direct<T: Num>(p: &ConvProblem, x: &[T], w: &[T], b: Option<&[T]>) -> Vec<T> {
    let (cg, mg) = (p.c / p.group, p.m / p.group);
    let in_size: usize = p.spatial.iter().product();
    let out_size: usize = p.axes.iter().map(|a| a.out).product();
    let taps: Vec<TapRows> = indices(&p.window.kernel_shape).iter().map(|tap| tap_rows(p, tap)).collect();
    let step = p.window.strides.last().copied().unwrap_or(1);
    let mut y = vec![T::ZERO; p.n * p.m * out_size];
    for (plane, y) in watched(y.chunks_mut(out_size.max(1)).enumerate()) {
        let (n, m) = (plane / p.m, plane % p.m);
        if let Some(b) = b {
            y.fill(b[m]);
        }
        for c in 0..cg {
            let xc = &x[(n * p.c + m / mg * cg + c) * in_size..][..in_size];
            let wc = &w[(m * cg + c) * taps.len()..][..taps.len()];
            for (tap, &weight) in watched(taps.iter().zip(wc)) {
                for &(out, input) in watched(&tap.rows) {
                    let row = &mut y[out..][tap.places.clone()];
                    let from = &xc[input + tap.first..];
                    if step == 1 {
                        row.iter_mut().zip(from).for_each(|(y, x)| *y = y.plus(x.times(weight)));
                    } else {
                        row.iter_mut()
                            .zip(from.iter().step_by(step))
                            .for_each(|(y, x)| *y = y.plus(x.times(weight)));
                    }
                }
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
