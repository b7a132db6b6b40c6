//! `Resize` and `Upsample`. <https://onnx.ai/onnx/operators/onnx__Resize.html>,
//! <https://onnx.ai/onnx/operators/onnx__Upsample.html>
//!
//! Every mode is separable, so a resize is a [`Plan`]: for each axis, which input positions with which weights make
//! an output position.
use super::resize_taps::{AxisPlan, Coordinates, Mode, Nearest, Sampling};
use super::{lists, movement};
use crate::convert::{Narrowing, from_f64s, to_f32s, to_f64s};
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Resize`.
pub struct Resize;
/// `Upsample`, deprecated since version 10.
pub struct Upsample;

/// A resize of known shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Nearest, linear or cubic.
    pub mode: Mode,
    /// Every axis of the input, those that stay included.
    pub axes: Vec<AxisPlan>,
    /// Stands where an axis has no source.
    pub extrapolation_value: f32,
}

/// What a node's inputs or attributes ask for, on the axes that `axes` names (all by default).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// Factors.
    pub scales: Option<Vec<f32>>,
    /// Output extents.
    pub sizes: Option<Vec<i64>>,
    /// Region, all beginnings and then all ends, relative to the extents.
    pub roi: Option<Vec<f32>>,
}

/// Whether `keep_aspect_ratio_policy` wants one factor for all axes, and which.
fn common_factor(node: &OpNode, ratios: &[f64]) -> Result<Option<f64>> {
    Ok(match node.attrs.str_or("keep_aspect_ratio_policy", "stretch")? {
        "stretch" => None,
        "not_larger" => ratios.iter().copied().reduce(f64::min),
        "not_smaller" => ratios.iter().copied().reduce(f64::max),
        other => {
            let wanted = "stretch, not_larger or not_smaller";
            return Err(Error::mismatch("attribute `keep_aspect_ratio_policy`", other, wanted));
        }
    })
}

/// The axes that the request is about.
pub fn axes(node: &OpNode, rank: usize) -> Result<Vec<usize>> {
    node.attrs.ints("axes")?.map_or_else(|| Ok((0..rank).collect()), |a| lists::axes(a, rank))
}

/// Output extent for a factor, `floor(extent * scale)` in f32.
fn scaled(extent: usize, scale: f32) -> Result<usize> {
    let out = (extent as f32 * scale).floor();
    if scale > 0.0 && scale.is_finite() && out < 1e15 {
        Ok(out as usize)
    } else {
        Err(Error::mismatch("scale", scale, "a positive number"))
    }
}

/// How a node reads between positions, by its attributes and version.
pub fn sampling(node: &OpNode) -> Result<Sampling> {
    let mode = match node.attrs.str_or("mode", "nearest")? {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" => Mode::Cubic,
        other => return Err(Error::mismatch("attribute `mode`", other, "nearest, linear or cubic")),
    };
    if node.op_type == "Upsample" || node.version < 11 {
        let nearest = if node.op_type == "Upsample" { Nearest::Floor } else { Nearest::FloorOrCeilDown };
        return Ok(Sampling { mode, coordinates: Coordinates::Asymmetric, nearest, ..Sampling::default() });
    }
    let coordinates = match node.attrs.str_or("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_half_pixel_for_nn" => Coordinates::TfHalfPixelForNn,
        "tf_crop_and_resize" => Coordinates::TfCropAndResize,
        other => {
            return Err(Error::mismatch("attribute `coordinate_transformation_mode`", other, "a known mode"));
        }
    };
    let nearest = match node.attrs.str_or("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => Nearest::RoundPreferFloor,
        "round_prefer_ceil" => Nearest::RoundPreferCeil,
        "floor" => Nearest::Floor,
        "ceil" => Nearest::Ceil,
        other => return Err(Error::mismatch("attribute `nearest_mode`", other, "a known mode")),
    };
    Ok(Sampling {
        mode,
        coordinates,
        nearest,
        antialias: node.attrs.flag("antialias", false)?,
        exclude_outside: node.attrs.flag("exclude_outside", false)?,
        cubic_coeff_a: f64::from(node.attrs.float_or("cubic_coeff_a", -0.75)?),
    })
}

/// Factor and output extent of each axis of an input `x`; the region of each axis.
fn extents(node: &OpNode, x: &[usize], request: &Request) -> Result<Vec<(f64, usize, [f64; 2])>> {
    let axes = axes(node, x.len())?;
    let crops = sampling(node)?.coordinates == Coordinates::TfCropAndResize;
    let mut out: Vec<(f64, usize, [f64; 2])> = x.iter().map(|&n| (1.0, n, [0.0, 1.0])).collect();
    let count = |what: &str, n: usize| {
        if n == axes.len() {
            Ok(())
        } else {
            Err(Error::mismatch(what, n, format!("{} numbers", axes.len())))
        }
    };
    if let Some(roi) = request.roi.as_ref().filter(|r| crops && !r.is_empty()) {
        count("half the roi", roi.len() / 2)?;
        for (k, &a) in axes.iter().enumerate() {
            out[a].2 = [f64::from(roi[k]), f64::from(roi[axes.len() + k])];
        }
    }
    match (&request.scales, &request.sizes) {
        (Some(scales), None) => {
            count("scales", scales.len())?;
            for (&a, &scale) in axes.iter().zip(scales) {
                let [begin, end] = out[a].2;
                let region = if crops { (end - begin) as f32 } else { 1.0 };
                out[a].0 = f64::from(scale);
                out[a].1 = scaled(x[a], scale * region)?;
            }
        }
        (None, Some(sizes)) => {
            count("sizes", sizes.len())?;
            let sizes = lists::extents("sizes", sizes)?;
            let ratio = |(&a, &n): (&usize, &usize)| n as f64 / x[a] as f64;
            let ratios: Vec<f64> = axes.iter().zip(&sizes).map(ratio).collect();
            let common = common_factor(node, &ratios)?;
            for ((&a, size), ratio) in axes.iter().zip(sizes).zip(ratios) {
                out[a].0 = common.unwrap_or(ratio);
                out[a].1 = common.map_or(size, |f| (f * x[a] as f64 + 0.5).floor() as usize);
            }
        }
        (scales, sizes) => {
            let got = format!("{} and {}", scales.is_some(), sizes.is_some());
            return Err(Error::mismatch("scales given and sizes given", got, "one of them"));
        }
    }
    movement::new_elems(&out.iter().map(|o| o.1).collect::<Vec<_>>())?;
    Ok(out)
}

impl Plan {
    /// The plan of a node on an input of shape `x`. Errors on a request that does not fit it.
    pub fn new(node: &OpNode, x: &[usize], request: &Request) -> Result<Plan> {
        let sampling = sampling(node)?;
        let axes = x
            .iter()
            .zip(extents(node, x, request)?)
            .map(|(&extent, (scale, out, region))| sampling.axis(extent, out, scale, region))
            .collect::<Result<_>>()?;
        let extrapolation_value = node.attrs.float_or("extrapolation_value", 0.0)?;
        Ok(Plan { mode: sampling.mode, axes, extrapolation_value })
    }
    /// Output shape.
    pub fn out_shape(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.taps.len()).collect()
    }
    /// Applies the plan: axis by axis in f64, or by moving elements where every output is one input.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let single = |a: &AxisPlan| a.taps.iter().flatten().all(|t| matches!(t[..], [(_, 1.0)]));
        if self.axes.iter().all(single) {
            let strides = movement::strides(x.shape());
            let source = |(a, s): (&AxisPlan, usize)| {
                a.taps.iter().map(|t| t.as_ref().map(|t| t[0].0 * s)).collect::<Vec<_>>()
            };
            let offsets: Vec<_> = self.axes.iter().zip(strides).map(source).collect();
            if offsets.iter().flatten().all(Option::is_some) {
                let offsets: Vec<Vec<usize>> =
                    offsets.into_iter().map(|a| a.into_iter().flatten().collect()).collect();
                return movement::select(x, &offsets);
            }
            let fill =
                from_f64s(x.dtype(), [], vec![f64::from(self.extrapolation_value)], Narrowing::default())?;
            return movement::select_or(x, &offsets, &fill);
        }
        let (mut data, mut shape) = (to_f64s(x)?, x.shape().to_vec());
        let outside = f64::from(self.extrapolation_value);
        for (i, a) in self.axes.iter().enumerate().filter(|(_, a)| !a.is_identity()) {
            data = along(&data, &shape, i, a);
            shape[i] = a.taps.len();
        }
        // an output without a source in any axis is the extrapolation value alone
        if self.axes.iter().any(|a| a.taps.iter().any(Option::is_none)) {
            let mut at = 0;
            fill(&self.axes, false, &mut |is_outside| {
                if is_outside {
                    data[at] = outside;
                }
                at += 1;
            });
        }
        from_f64s(x.dtype(), shape, data, Narrowing::default())
    }
}

/// Visits every output in order, with whether an axis has no source there.
fn fill(axes: &[AxisPlan], is_outside: bool, f: &mut dyn FnMut(bool)) {
    match axes {
        [] => f(is_outside),
        [first, rest @ ..] => first.taps.iter().for_each(|t| fill(rest, is_outside || t.is_none(), f)),
    }
}

/// Weighted sums along one axis.
fn along(data: &[f64], shape: &[usize], axis: usize, plan: &AxisPlan) -> Vec<f64> {
    let (outer, inner): (usize, usize) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
    let mut out = vec![0f64; outer * plan.taps.len() * inner];
    for (number, out) in watched(out.chunks_mut(inner.max(1)).enumerate()) {
        let (o, taps) = (number / plan.taps.len(), &plan.taps[number % plan.taps.len()]);
        let row = &data[o * shape[axis] * inner..][..shape[axis] * inner];
        for (i, v) in watched(out.iter_mut().enumerate()) {
            *v = taps.iter().flatten().map(|(t, w)| row[t * inner + i] * w).sum();
        }
    }
    out
}

/// The inputs of a node as its version orders them: X, roi, scales, sizes since 11; X, scales before.
fn slots(node: &OpNode) -> (Option<usize>, usize, Option<usize>) {
    if node.op_type == "Upsample" || node.version < 11 { (None, 1, None) } else { (Some(1), 2, Some(3)) }
}

/// The factors that old versions of `Upsample` hold as attributes.
fn scale_attributes(node: &OpNode, rank: Option<usize>) -> Result<Option<Vec<f32>>> {
    if let Some(s) = node.attrs.floats("scales")? {
        return Ok(Some(s.to_vec()));
    }
    match (node.attrs.float("height_scale")?, node.attrs.float("width_scale")?, rank) {
        (Some(h), Some(w), Some(rank)) if rank >= 2 => Ok(Some([vec![1.0; rank - 2], vec![h, w]].concat())),
        _ => Ok(None),
    }
}

/// The request of a node with these inputs; an empty list counts as absent.
pub fn request(
    node: &OpNode,
    rank: usize,
    input: &dyn Fn(usize) -> Result<Option<Tensor>>,
) -> Result<Request> {
    let (roi, scales, sizes) = slots(node);
    let floats = |i: usize| input(i)?.filter(|t| !t.is_empty()).map(|t| to_f32s(&t)).transpose();
    let given = scale_attributes(node, Some(rank))?;
    Ok(Request {
        scales: if given.is_some() { given } else { floats(scales)? },
        sizes: match sizes {
            Some(i) => input(i)?.filter(|t| !t.is_empty()).map(|t| t.to_i64s()).transpose()?,
            None => None,
        },
        roi: match roi {
            Some(i) => floats(i)?,
            None => None,
        },
    })
}

/// The output extent of an axis whose input extent is symbolic.
fn scaled_dim(extent: &Dim, scale: f32) -> Dim {
    let whole = |v: f32| (v.fract() == 0.0 && (1.0..1e6).contains(&v)).then_some(v as usize);
    match (whole(scale), whole(1.0 / scale)) {
        (Some(times), _) => extent.mul(&Dim::Known(times)),
        (_, Some(by)) => extent.floor_div(&Dim::Known(by)),
        _ => Dim::Unknown,
    }
}

fn infer(cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
    let dtype = cx.dtype(0)?;
    let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
    let (roi, scales, sizes) = slots(cx.node);
    let unknown = |i: Option<usize>| i.is_some_and(|i| cx.has(i) && cx.value(i).is_none());
    let named = axes(cx.node, x.len())?;
    let stretches = cx.node.attrs.str_or("keep_aspect_ratio_policy", "stretch")? == "stretch";
    let mut out = x.clone();
    let mut set = |a: usize, d: Dim| {
        if let Some(o) = out.get_mut(a) {
            *o = d;
        }
    };
    let attributes = scale_attributes(cx.node, Some(x.len()))?;
    if let Some(d) = sizes.and_then(|i| cx.dims(i)).filter(|d| stretches && d.elems().len() == named.len()) {
        named.iter().zip(d.into_elems()).for_each(|(&a, d)| set(a, d));
        return Ok(vec![TensorType::new(dtype, out).into()]);
    }
    let known: Option<Vec<usize>> = x.iter().map(Dim::known).collect();
    let hidden = unknown(roi) || unknown(sizes) || (attributes.is_none() && unknown(Some(scales)));
    if hidden {
        named.iter().for_each(|&a| set(a, Dim::Unknown));
        return Ok(vec![TensorType::new(dtype, out).into()]);
    }
    let request = request(cx.node, x.len(), &|i| Ok(cx.value(i).cloned()))?;
    match (known, &request.scales) {
        (Some(x), _) => {
            extents(cx.node, &x, &request)?.into_iter().enumerate().for_each(|(a, e)| set(a, Dim::Known(e.1)))
        }
        (None, Some(scales)) if scales.len() == named.len() && request.roi.is_none() => {
            for (&a, &scale) in named.iter().zip(scales) {
                match &x[a] {
                    Dim::Known(n) => set(a, Dim::Known(scaled(*n, scale)?)),
                    d => set(a, scaled_dim(d, scale)),
                }
            }
        }
        (None, _) => named.iter().for_each(|&a| set(a, Dim::Unknown)),
    }
    Ok(vec![TensorType::new(dtype, out).into()])
}

fn eval(cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
    let x = cx.tensor(0)?;
    let request = request(cx.node, x.rank(), &|i| Ok(cx.opt_tensor(i)?.cloned()))?;
    Ok(vec![Plan::new(cx.node, x.shape(), &request)?.apply(x)?.into()])
}

impl Operator for Resize {
    fn schema(&self) -> Schema {
        Schema { name: "Resize", domain: "", since: &[10, 11, 13, 18, 19], inputs: (1, 4), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        infer(cx)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        eval(cx)
    }
}

impl Operator for Upsample {
    fn schema(&self) -> Schema {
        Schema { name: "Upsample", domain: "", since: &[1, 7, 9, 10], inputs: (1, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        infer(cx)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        eval(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer as infer_node};
    use crate::{DType, ValueType};

    #[test]
    fn old_versions_repeat_elements() {
        let x = Tensor::new(vec![1, 1, 1, 2], vec![1f32, 2.]).unwrap();
        let want = [1., 1., 1., 2., 2., 2.];
        let scales = Tensor::new(vec![4], vec![1f32, 1., 1., 3.]).unwrap();
        let y = eval1("Upsample", 9, Attrs::new(), &[Some(x.clone()), Some(scales.clone())]).unwrap();
        assert_eq!(*y.as_slice::<f32>().unwrap(), want);
        let attrs = Attrs::new().with("scales", vec![1f32, 1., 1., 3.]);
        let y = eval1("Upsample", 7, attrs, &[Some(x.clone())]).unwrap();
        assert_eq!(*y.as_slice::<f32>().unwrap(), want);
        let y = eval1("Resize", 10, Attrs::new(), &[Some(x.clone()), Some(scales)]).unwrap();
        assert_eq!(*y.as_slice::<f32>().unwrap(), want);
        let bad = Tensor::new(vec![4], vec![1f32, 1., -1., 3.]).unwrap();
        assert!(eval1("Resize", 10, Attrs::new(), &[Some(x), Some(bad)]).is_err());
    }

    #[test]
    fn symbolic_extents_scale() {
        let h = Dim::symbol("H");
        let x = ValueType::tensor(DType::F32, [Dim::Known(1), Dim::Known(3), h.clone(), Dim::Known(8)]);
        let scales = Fact::constant(Tensor::new(vec![4], vec![1f32, 1., 2., 0.5]).unwrap());
        let y = infer_node("Resize", 13, Attrs::new(), &[Some(x.into()), None, Some(scales)], 1).unwrap();
        let want = [Dim::Known(1), Dim::Known(3), h.mul(&Dim::Known(2)), Dim::Known(4)];
        assert_eq!(y[0].ty, ValueType::tensor(DType::F32, want));
    }

    #[test]
    fn scales_beside_sizes_are_an_error() {
        let x = Tensor::new(vec![2], vec![1f32, 2.]).unwrap();
        let scales = Tensor::new(vec![1], vec![2f32]).unwrap();
        let sizes = Tensor::from_i64s([4]);
        let inputs = [Some(x.clone()), None, Some(scales), Some(sizes)];
        assert!(eval1("Resize", 13, Attrs::new(), &inputs).is_err());
        assert!(eval1("Resize", 13, Attrs::new(), &[Some(x)]).is_err());
    }
}
