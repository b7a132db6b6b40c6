//! `DFT`, `STFT`, `MelWeightMatrix`, and the windows. <https://onnx.ai/onnx/operators/onnx__DFT.html>,
//! <https://onnx.ai/onnx/operators/onnx__STFT.html>, <https://onnx.ai/onnx/operators/onnx__MelWeightMatrix.html>
use super::lists;
use super::movement::new_elems;
use crate::convert::{Narrowing, from_f64s, to_f64s};
use crate::limits::watched;
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};
use std::f64::consts::TAU;

/// `DFT`.
pub struct Dft;
/// `STFT`.
pub struct Stft;
/// `MelWeightMatrix`.
pub struct MelWeightMatrix;

/// A complex number: real part, imaginary part.
type Complex = (f64, f64);

/// The bins `0..bins` of the transform of length `signal.len()`, by the definition.
fn transform(signal: &[Complex], bins: usize, inverse: bool) -> Vec<Complex> {
    let n = signal.len();
    let sign = if inverse { TAU } else { -TAU } / n as f64;
    let turns: Vec<Complex> = (0..n).map(|k| (sign * k as f64).sin_cos()).map(|(s, c)| (c, s)).collect();
    let bin = |k: usize| {
        let (mut re, mut im) = (0.0, 0.0);
        for (i, x) in watched(signal.iter().enumerate()) {
            // n is an extent: the product stays below 2^63 for every signal that fits in memory
            let (c, s) = turns[k * i % n];
            re += x.0 * c - x.1 * s;
            im += x.0 * s + x.1 * c;
        }
        if inverse { (re / n as f64, im / n as f64) } else { (re, im) }
    };
    (0..bins).map(bin).collect()
}

/// One number of an optional input.
fn number(t: Option<&Tensor>, what: &str) -> Result<Option<i64>> {
    match t.map(|t| t.to_i64s()).transpose()? {
        None => Ok(None),
        Some(v) => match v[..] {
            [v] => Ok(Some(v)),
            _ => Err(Error::mismatch(what, format!("{v:?}"), "one number")),
        },
    }
}

fn positive(v: i64, what: &str) -> Result<usize> {
    usize::try_from(v).ok().filter(|v| *v > 0).ok_or_else(|| Error::mismatch(what, v, "at least 1"))
}

/// The signal axis: an attribute (1 by default) before version 20, an input (-2 by default) since.
fn dft_axis(node: &OpNode, input: Option<i64>, rank: usize) -> Result<usize> {
    let given = if node.version < 20 { node.attrs.int_or("axis", 1)? } else { input.unwrap_or(-2) };
    let a = axis(given, rank)?;
    if a + 1 == rank {
        return Err(Error::mismatch("axis", given, "not the last: it holds real and imaginary parts"));
    }
    Ok(a)
}

/// `(inverse, onesided)`.
fn dft_flags(node: &OpNode) -> Result<(bool, bool)> {
    Ok((node.attrs.flag("inverse", false)?, node.attrs.flag("onesided", false)?))
}

impl Operator for Dft {
    fn schema(&self) -> Schema {
        Schema { name: "DFT", domain: "", since: &[17, 20], inputs: (1, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let (inverse, onesided) = dft_flags(cx.node)?;
        let mut out = x.clone();
        let parts = if inverse && onesided { 1 } else { 2 };
        if let Some(last) = out.last_mut() {
            *last = Dim::Known(parts);
        }
        if cx.version() >= 20 && cx.has(2) && cx.value(2).is_none() {
            let dims = out.len().saturating_sub(1);
            out[..dims].fill(Dim::Unknown);
            return Ok(vec![TensorType::new(dtype, out).into()]);
        }
        let at = dft_axis(cx.node, number(cx.value(2), "axis")?, x.len())?;
        let length = match (cx.has(1), inverse && onesided) {
            (true, _) => cx.dims(1).map(DimTensor::first).unwrap_or_default(),
            (false, true) => x[at].offset(-1).mul(&Dim::Known(2)),
            (false, false) => x[at].clone(),
        };
        out[at] = if onesided && !inverse { length.floor_div(&Dim::Known(2)).offset(1) } else { length };
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (inverse, onesided) = dft_flags(cx.node)?;
        let at = dft_axis(cx.node, number(cx.opt_tensor(2)?, "axis")?, x.rank())?;
        let parts = x.shape()[x.rank() - 1];
        let fits = match (inverse, onesided) {
            (false, true) => parts == 1,
            (true, true) => parts == 2,
            (_, false) => parts == 1 || parts == 2,
        };
        if !fits {
            return Err(Error::mismatch("parts of the last axis", parts, "1 (real) or 2 (complex)"));
        }
        let n = x.shape()[at];
        let length = match (number(cx.opt_tensor(1)?, "dft_length")?, inverse && onesided) {
            (Some(v), _) => positive(v, "dft_length")?,
            (None, true) => positive(2 * (n as i64 - 1), "dft_length")?,
            (None, false) => n,
        };
        let bins = if onesided && !inverse { length / 2 + 1 } else { length };
        let out_parts = if inverse && onesided { 1 } else { 2 };
        let mut shape = x.shape().to_vec();
        shape[at] = bins;
        let last = shape.len() - 1;
        shape[last] = out_parts;
        let mut y = vec![0f64; new_elems(&shape)?];
        let data = to_f64s(x)?;
        let (outer, inner): (usize, usize) =
            (x.shape()[..at].iter().product(), x.shape()[at + 1..last].iter().product());
        for o in 0..outer {
            for i in watched(0..inner) {
                let read = |k: usize| {
                    let first = ((o * n + k) * inner + i) * parts;
                    (data[first], if parts == 2 { data[first + 1] } else { 0.0 })
                };
                let mut signal: Vec<Complex> = (0..n.min(length)).map(read).collect();
                signal.resize(length, (0.0, 0.0));
                if inverse && onesided {
                    // the other half is the conjugate of what is given
                    for k in length / 2 + 1..length {
                        let (re, im) = signal[length - k];
                        signal[k] = (re, -im);
                    }
                }
                for (k, (re, im)) in transform(&signal, bins, inverse).into_iter().enumerate() {
                    let first = ((o * bins + k) * inner + i) * out_parts;
                    y[first] = re;
                    if out_parts == 2 {
                        y[first + 1] = im;
                    }
                }
            }
        }
        Ok(vec![from_f64s(x.dtype(), shape, y, Narrowing::default())?.into()])
    }
}

impl Operator for Stft {
    fn schema(&self) -> Schema {
        Schema { name: "STFT", domain: "", since: &[17], inputs: (2, 4), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let (batch, signal) = match cx.shape(0)?.map(Vec::as_slice) {
            Some([b, s, _]) => (b.clone(), s.clone()),
            Some(other) => return Err(Error::mismatch("rank of the signal", other.len(), 3)),
            None => (Dim::Unknown, Dim::Unknown),
        };
        let first = |i: usize| cx.dims(i).map(DimTensor::first).unwrap_or_default();
        let length = match (cx.has(3), cx.has(2)) {
            (true, _) => first(3),
            (false, true) => cx.shape(2)?.and_then(|s| s.first().cloned()).unwrap_or_default(),
            (false, false) => signal.clone(),
        };
        let frames = signal.sub(&length).floor_div(&first(1)).offset(1);
        let onesided = cx.node.attrs.flag("onesided", true)?;
        let bins = if onesided { length.floor_div(&Dim::Known(2)).offset(1) } else { length };
        Ok(vec![TensorType::new(dtype, [batch, frames, bins, Dim::Known(2)]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let &[batch, n, parts @ (1 | 2)] = x.shape() else {
            return Err(Error::mismatch("signal", x.tensor_type(), "[batch, length, 1 or 2]"));
        };
        let step = number(Some(cx.tensor(1)?), "frame_step")?.unwrap_or(0);
        let step = positive(step, "frame_step")?;
        let window = cx.opt_tensor(2)?.map(to_f64s).transpose()?;
        let length = match (number(cx.opt_tensor(3)?, "frame_length")?, &window) {
            (Some(v), _) => positive(v, "frame_length")?,
            (None, Some(w)) => w.len(),
            (None, None) => n,
        };
        let window = window.unwrap_or_else(|| vec![1.0; length]);
        if window.len() != length || length == 0 || length > n {
            let wanted = format!("the frame's length {length}, at most {n}");
            return Err(Error::mismatch("length of the window", window.len(), wanted));
        }
        let onesided = cx.node.attrs.flag("onesided", true)?;
        if onesided && parts == 2 {
            return Err(Error::mismatch("signal", "complex", "real, for one side of the spectrum"));
        }
        let bins = if onesided { length / 2 + 1 } else { length };
        let frames = (n - length) / step + 1;
        let data = to_f64s(x)?;
        let mut y = Vec::with_capacity(new_elems(&[batch, frames, bins, 2])?);
        for b in 0..batch {
            for f in watched(0..frames) {
                let sample = |(k, w): (usize, &f64)| {
                    let first = (b * n + f * step + k) * parts;
                    (data[first] * w, if parts == 2 { data[first + 1] * w } else { 0.0 })
                };
                let frame: Vec<Complex> = window.iter().enumerate().map(sample).collect();
                y.extend(transform(&frame, bins, false).into_iter().flat_map(|(re, im)| [re, im]));
            }
        }
        Ok(vec![from_f64s(x.dtype(), [batch, frames, bins, 2], y, Narrowing::default())?.into()])
    }
}

/// The attribute `output_datatype`, f32 by default.
fn output_type(node: &OpNode) -> Result<DType> {
    let code = node.attrs.int_or("output_datatype", 1)?;
    let dtype = i32::try_from(code).ok().and_then(DType::from_code);
    dtype.ok_or_else(|| Error::mismatch("attribute `output_datatype`", code, "an element type"))
}

impl Operator for MelWeightMatrix {
    fn schema(&self) -> Schema {
        Schema { name: "MelWeightMatrix", domain: "", since: &[17], inputs: (5, 5), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let first = |i: usize| cx.dims(i).map(DimTensor::first).unwrap_or_default();
        let shape = [first(1).floor_div(&Dim::Known(2)).offset(1), first(0)];
        Ok(vec![TensorType::new(output_type(cx.node)?, shape).into()])
    }
    /// Triangles over the spectrogram's bins, whose corners lie evenly on the mel scale and are rounded down to
    /// bins.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let whole = |i: usize, what: &str| positive(number(Some(cx.tensor(i)?), what)?.unwrap_or(0), what);
        let (bands, length, rate) =
            (whole(0, "num_mel_bins")?, whole(1, "dft_length")?, whole(2, "sample_rate")?);
        let edge = |i: usize| {
            let t = cx.tensor(i)?;
            to_f64s(t)?.first().copied().ok_or_else(|| Error::mismatch("edge", t.tensor_type(), "one number"))
        };
        let mel = |hz: f64| 2595.0 * (1.0 + hz / 700.0).log10();
        let (low, high) = (mel(edge(3)?), mel(edge(4)?));
        let bins = length / 2 + 1;
        let corner = |i: usize| {
            // the step that the reference and ONNX Runtime take: one more than there are gaps
            let mel = low + (high - low) / (bands as f64 + 2.0) * i as f64;
            let hz = 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
            ((length as f64 + 1.0) * hz / rate as f64).floor()
        };
        let mut y = vec![0f64; new_elems(&[bins, bands])?];
        for band in watched(0..bands) {
            let (left, peak, right) = (corner(band), corner(band + 1), corner(band + 2));
            for bin in 0..bins {
                let f = bin as f64;
                let value = if f == peak && left == peak {
                    1.0
                } else if (left..=peak).contains(&f) && peak > left {
                    (f - left) / (peak - left)
                } else if f >= peak && f < right {
                    (right - f) / (right - peak)
                } else {
                    0.0
                };
                y[bin * bands + band] = value;
            }
        }
        Ok(vec![from_f64s(output_type(cx.node)?, [bins, bands], y, Narrowing::default())?.into()])
    }
}

/// A window: a sum of cosines over its length.
pub struct Window {
    name: &'static str,
    /// `w[n] = c0 - c1 cos(2 pi n / N) + c2 cos(4 pi n / N)`.
    coefficients: [f64; 3],
}
/// `HannWindow`.
pub static HANN: Window = Window { name: "HannWindow", coefficients: [0.5, 0.5, 0.0] };
/// `HammingWindow`.
pub static HAMMING: Window =
    Window { name: "HammingWindow", coefficients: [25.0 / 46.0, 1.0 - 25.0 / 46.0, 0.0] };
/// `BlackmanWindow`.
pub static BLACKMAN: Window = Window { name: "BlackmanWindow", coefficients: [0.42, 0.5, 0.08] };

impl Operator for Window {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: &[17], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let n = cx.dims(0).map(DimTensor::first).unwrap_or_default();
        Ok(vec![TensorType::new(output_type(cx.node)?, [n]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let size = lists::extents("size", &cx.tensor(0)?.to_i64s()?)?;
        let [n] = size[..] else { return Err(Error::mismatch("size", format!("{size:?}"), "one number")) };
        new_elems(&[n])?;
        let over = if cx.node.attrs.flag("periodic", true)? { n as f64 } else { n as f64 - 1.0 };
        let [a, b, c] = self.coefficients;
        let at = |i: usize| {
            // a symmetric window of one sample is that sample alone
            let t = if over > 0.0 { TAU * i as f64 / over } else { std::f64::consts::PI };
            a - b * t.cos() + c * (2.0 * t).cos()
        };
        let values = (0..n).map(at).collect();
        Ok(vec![from_f64s(output_type(cx.node)?, [n], values, Narrowing::default())?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn the_inverse_undoes_the_transform() {
        let x = Tensor::new([1, 5, 1], vec![1f64, 2., -3., 4., 0.5]).unwrap();
        let y = eval1("DFT", 17, Attrs::new(), &[Some(x.clone())]).unwrap();
        assert_eq!(y.shape(), [1, 5, 2]);
        let back = eval1("DFT", 17, Attrs::new().with("inverse", 1i64), &[Some(y)]).unwrap();
        for (got, want) in back.as_slice::<f64>().unwrap().chunks(2).zip(x.as_slice::<f64>().unwrap().iter())
        {
            assert!((got[0] - want).abs() < 1e-12 && got[1].abs() < 1e-12);
        }
    }

    #[test]
    fn one_side_is_enough_for_a_real_signal() {
        let x = Tensor::new([1, 6, 1], vec![1f64, 2., -3., 4., 0.5, 7.]).unwrap();
        let one = Attrs::new().with("onesided", 1i64);
        let y = eval1("DFT", 20, one.clone(), &[Some(x.clone())]).unwrap();
        assert_eq!(y.shape(), [1, 4, 2]);
        let back = eval1("DFT", 20, one.with("inverse", 1i64), &[Some(y)]).unwrap();
        assert_eq!(back.shape(), [1, 6, 1]);
        for (got, want) in back.as_slice::<f64>().unwrap().iter().zip(x.as_slice::<f64>().unwrap().iter()) {
            assert!((got - want).abs() < 1e-12);
        }
    }
}
