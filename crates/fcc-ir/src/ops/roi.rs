//! `RoiAlign`, `MaxRoiPool`: pooling of regions. <https://onnx.ai/onnx/operators/onnx__RoiAlign.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{Dim, Error, OpNode, Result, TensorType, Value};

/// `RoiAlign`: samples between the pixels.
pub struct RoiAlign;
/// `MaxRoiPool`: the greatest pixel of each bin.
pub struct MaxRoiPool;

/// The attributes of a `RoiAlign`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoiAlignParams {
    /// Rows and columns of the output.
    pub out: [usize; 2],
    /// Samples along each side of a bin; 0 takes as many as the bin has pixels.
    pub sampling_ratio: usize,
    /// From the rois' coordinates to those of x.
    pub spatial_scale: f32,
    /// Coordinates are shifted by half a pixel.
    pub half_pixel: bool,
    /// The greatest sample instead of the mean.
    pub max: bool,
}

/// Reads the attributes.
pub fn params(node: &OpNode) -> Result<RoiAlignParams> {
    let count = |name: &str, default: i64, least: i64| {
        let v = node.attrs.int_or(name, default)?;
        let bad = || Error::mismatch(format!("attribute `{name}`"), v, format!("at least {least}"));
        if v < least { Err(bad()) } else { usize::try_from(v).map_err(|_| bad()) }
    };
    // before opset 16 there was no shift
    let transformation = if node.version >= 16 { "half_pixel" } else { "output_half_pixel" };
    let half_pixel = match node.attrs.str_or("coordinate_transformation_mode", transformation)? {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => {
            let wanted = "half_pixel or output_half_pixel";
            return Err(Error::mismatch("attribute `coordinate_transformation_mode`", other, wanted));
        }
    };
    let max = match node.attrs.str_or("mode", "avg")? {
        "avg" => false,
        "max" => true,
        other => return Err(Error::mismatch("attribute `mode`", other, "avg or max")),
    };
    Ok(RoiAlignParams {
        out: [count("output_height", 1, 1)?, count("output_width", 1, 1)?],
        sampling_ratio: count("sampling_ratio", 0, 0)?,
        spatial_scale: node.attrs.float_or("spatial_scale", 1.0)?,
        half_pixel,
        max,
    })
}

/// The pixels before and behind a coordinate with their weights; `None` outside by more than one pixel.
fn neighbours<T: Real>(at: T, extent: usize) -> Option<[(usize, T); 2]> {
    if extent == 0 || at < -T::ONE || at > T::from_f64(extent as f64) || at.is_nan() {
        return None;
    }
    let at = if at < T::ZERO { T::ZERO } else { at };
    let low = at.to_f64() as usize;
    if low >= extent - 1 {
        return Some([(extent - 1, T::ONE), (extent - 1, T::ZERO)]);
    }
    let rest = at - T::from_f64(low as f64);
    Some([(low, T::ONE - rest), (low + 1, rest)])
}

/// One axis of a region: its beginning, the size of a bin and the samples in it.
struct Side<T> {
    start: T,
    bin: T,
    samples: usize,
}

impl<T: Real> Side<T> {
    fn new(p: &RoiAlignParams, from: T, to: T, bins: usize) -> Result<Side<T>> {
        let shift = if p.half_pixel { T::of(0.5) } else { T::ZERO };
        let scale = T::of(p.spatial_scale);
        let start = from * scale - shift;
        let mut size = to * scale - shift - start;
        if !p.half_pixel && size < T::ONE {
            // malformed regions count as one pixel
            size = T::ONE;
        }
        let bin = size / T::from_f64(bins as f64);
        let samples =
            if p.sampling_ratio > 0 { p.sampling_ratio as f64 } else { bin.to_f64().ceil().max(0.0) };
        // a finite number that no image comes near
        if samples.is_nan() || samples > 1e6 {
            return Err(Error::mismatch("extent of a region", size.to_f64(), "finite"));
        }
        Ok(Side { start, bin, samples: samples as usize })
    }
    fn at(&self, bin: usize, sample: usize) -> T {
        let inside = (T::from_f64(sample as f64) + T::of(0.5)) * self.bin / T::from_f64(self.samples as f64);
        self.start + T::from_f64(bin as f64) * self.bin + inside
    }
}

/// Shape `[rois, C, rows, columns]`, and x's extents. Errors on other ranks.
fn image(x: &[usize]) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(x).map_err(|_| Error::mismatch("rank of X", x.len(), 4))
}

fn infer(cx: &InferCtx<'_>, out: [usize; 2]) -> Result<Vec<Fact>> {
    let rois = cx.shape(1)?.and_then(|s| s.first().cloned()).unwrap_or_default();
    let channels = cx.shape(0)?.and_then(|s| s.get(1).cloned()).unwrap_or_default();
    Ok(vec![TensorType::new(cx.dtype(0)?, [rois, channels, Dim::Known(out[0]), Dim::Known(out[1])]).into()])
}

fn batch_index(v: i64, n: usize) -> Result<usize> {
    usize::try_from(v)
        .ok()
        .filter(|v| *v < n)
        .ok_or_else(|| Error::mismatch("batch index of a region", v, format!("0..{n}")))
}

impl Operator for RoiAlign {
    fn schema(&self) -> Schema {
        Schema { name: "RoiAlign", domain: "", since: &[10, 16, 22], inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        infer(cx, params(cx.node)?.out)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, rois, batches, p) =
            (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?.to_i64s()?, params(cx.node)?);
        let [n, c, height, width] = image(x.shape())?;
        if rois.shape() != [batches.len(), 4] {
            return Err(Error::mismatch(
                "shape of rois",
                format!("{:?}", rois.shape()),
                format!("[{}, 4]", batches.len()),
            ));
        }
        with_real!(x.dtype(), T => {
            let (values, rois) = (T::load(x)?, T::load(rois)?);
            let mut y = Vec::with_capacity(batches.len() * c * p.out[0] * p.out[1]);
            for (batch, roi) in batches.iter().zip(rois.chunks(4)) {
                let batch = batch_index(*batch, n)?;
                let rows = Side::new(&p, roi[1], roi[3], p.out[0])?;
                let columns = Side::new(&p, roi[0], roi[2], p.out[1])?;
                for channel in 0..c {
                    let plane = &values[(batch * c + channel) * height * width..][..height * width];
                    for ph in watched(0..p.out[0]) {
                        for pw in watched(0..p.out[1]) {
                            y.push(bin(&p, plane, [height, width], (&rows, ph), (&columns, pw)));
                        }
                    }
                }
            }
            Ok(vec![T::store(x.dtype(), [batches.len(), c, p.out[0], p.out[1]], y)?.into()])
        })
    }
}

/// The mean of a bin's samples; in `max` mode the greatest of the weighted pixels, as other engines compute it.
fn bin<T: Real>(
    p: &RoiAlignParams,
    plane: &[T],
    [height, width]: [usize; 2],
    (rows, ph): (&Side<T>, usize),
    (columns, pw): (&Side<T>, usize),
) -> T {
    let (mut sum, mut max) = (T::ZERO, None);
    for iy in watched(0..rows.samples) {
        for ix in watched(0..columns.samples) {
            let near = neighbours(rows.at(ph, iy), height).zip(neighbours(columns.at(pw, ix), width));
            let weighted = near.map_or([T::ZERO; 4], |(ys, xs)| {
                let pixel = |i: usize, k: usize| ys[i].1 * xs[k].1 * plane[ys[i].0 * width + xs[k].0];
                [pixel(0, 0), pixel(0, 1), pixel(1, 0), pixel(1, 1)]
            });
            for v in weighted {
                sum += v;
                max = Some(max.map_or(v, |m: T| if v > m { v } else { m }));
            }
        }
    }
    if p.max {
        max.unwrap_or(T::ZERO)
    } else {
        sum / T::from_f64((rows.samples * columns.samples).max(1) as f64)
    }
}

/// Rows and columns of `MaxRoiPool`'s output, and its scale.
pub fn max_roi_params(node: &OpNode) -> Result<([usize; 2], f32)> {
    let given = node.attrs.need_ints("pooled_shape")?;
    let extents: Option<Vec<usize>> =
        given.iter().map(|v| usize::try_from(*v).ok().filter(|v| *v > 0)).collect();
    let out = extents.and_then(|e| <[usize; 2]>::try_from(e).ok());
    let out =
        out.ok_or_else(|| Error::mismatch("attribute `pooled_shape`", format!("{given:?}"), "two extents"))?;
    Ok((out, node.attrs.float_or("spatial_scale", 1.0)?))
}

impl Operator for MaxRoiPool {
    fn schema(&self) -> Schema {
        Schema { name: "MaxRoiPool", domain: "", since: &[1, 22], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        infer(cx, max_roi_params(cx.node)?.0)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, rois, (out, scale)) = (cx.tensor(0)?, cx.tensor(1)?, max_roi_params(cx.node)?);
        let [n, c, height, width] = image(x.shape())?;
        let &[count, 5] = rois.shape() else {
            return Err(Error::mismatch("shape of rois", format!("{:?}", rois.shape()), "[rois, 5]"));
        };
        with_real!(x.dtype(), T => {
            let (values, rois) = (T::load(x)?, T::load(rois)?);
            let mut y = Vec::with_capacity(count * c * out[0] * out[1]);
            for roi in rois.chunks(5) {
                let batch = batch_index(roi[0].to_f64() as i64, n)?;
                // whole pixels, both ends included, at least one
                let pixel = |v: T| (v * T::of(scale)).to_f64().round();
                let side = |from: f64, to: f64, bins: usize| (from, (to - from + 1.0).max(1.0) / bins as f64);
                let rows = side(pixel(roi[2]), pixel(roi[4]), out[0]);
                let columns = side(pixel(roi[1]), pixel(roi[3]), out[1]);
                let range = |(start, size): (f64, f64), bin: usize, extent: usize| {
                    let bound = |v: f64| v.clamp(0.0, extent as f64) as usize;
                    bound((bin as f64 * size).floor() + start)..bound(((bin + 1) as f64 * size).ceil() + start)
                };
                for channel in 0..c {
                    let plane = &values[(batch * c + channel) * height * width..][..height * width];
                    for ph in watched(0..out[0]) {
                        for pw in watched(0..out[1]) {
                            let pixels = range(rows, ph, height)
                                .flat_map(|r| range(columns, pw, width).map(move |k| r * width + k));
                            let max = pixels.map(|i| plane[i]).reduce(|m, v| if v > m { v } else { m });
                            y.push(max.unwrap_or(T::ZERO));
                        }
                    }
                }
            }
            Ok(vec![T::store(x.dtype(), [count, c, out[0], out[1]], y)?.into()])
        })
    }
}
