//! `GridSample` and `AffineGrid`. <https://onnx.ai/onnx/operators/onnx__GridSample.html>,
//! <https://onnx.ai/onnx/operators/onnx__AffineGrid.html>
use super::lists;
use super::movement::new_elems;
use crate::convert::{Narrowing, from_f64s, to_f64s};
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, OpNode, Result, TensorType, Value};

/// `GridSample`.
pub struct GridSample;
/// `AffineGrid`.
pub struct AffineGrid;

/// How values between pixels are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Two neighbours along each axis.
    Linear,
    /// The nearest, ties to even.
    Nearest,
    /// Four neighbours along each axis.
    Cubic,
}

/// What stands outside of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Zero.
    Zeros,
    /// The pixel at the border.
    Border,
    /// The image mirrored at the border.
    Reflection,
}

/// The attributes of a node: version 16 calls the modes bilinear and bicubic.
pub fn attributes(node: &OpNode) -> Result<(Mode, Padding, bool)> {
    let mode = match node.attrs.str_or("mode", "linear")? {
        "linear" | "bilinear" => Mode::Linear,
        "nearest" => Mode::Nearest,
        "cubic" | "bicubic" => Mode::Cubic,
        other => return Err(Error::mismatch("attribute `mode`", other, "linear, nearest or cubic")),
    };
    let padding = match node.attrs.str_or("padding_mode", "zeros")? {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => {
            return Err(Error::mismatch("attribute `padding_mode`", other, "zeros, border or reflection"));
        }
    };
    Ok((mode, padding, node.attrs.flag("align_corners", false)?))
}

/// `x` mirrored into `low..=high`.
fn reflect(x: f64, low: f64, high: f64) -> f64 {
    let span = high - low;
    if span <= 0.0 {
        return low;
    }
    let t = (x - low).rem_euclid(2.0 * span);
    low + if t > span { 2.0 * span - t } else { t }
}

/// The pixel that stands at an integral position along an axis of `n`; `None` is zero.
fn pixel(at: f64, n: usize, padding: Padding, align: bool) -> Option<usize> {
    let last = n as f64 - 1.0;
    let at = match padding {
        Padding::Zeros if !(0.0..=last).contains(&at) => return None,
        Padding::Zeros => at,
        Padding::Border => at.clamp(0.0, last),
        Padding::Reflection if align => reflect(at, 0.0, last),
        Padding::Reflection => reflect(at, -0.5, last + 0.5).clamp(0.0, last),
    };
    Some(at as usize)
}

/// The neighbours of a normalised position along an axis of `n` pixels, with weights.
fn neighbours(g: f64, n: usize, mode: Mode, padding: Padding, align: bool) -> Vec<(Option<usize>, f64)> {
    let last = n as f64 - 1.0;
    let mut x = if align { (g + 1.0) / 2.0 * last } else { ((g + 1.0) * n as f64 - 1.0) / 2.0 };
    if !x.is_finite() {
        return vec![(None, 0.0)];
    }
    let pixel = |at: f64| pixel(at, n, padding, align);
    if mode != Mode::Cubic {
        // the position itself is moved inside, then its neighbours are read
        x = match padding {
            Padding::Zeros => x,
            Padding::Border => x.clamp(0.0, last),
            Padding::Reflection if align => reflect(x, 0.0, last),
            Padding::Reflection => reflect(x, -0.5, last + 0.5),
        };
    }
    let (base, t) = (x.floor(), x - x.floor());
    match mode {
        Mode::Nearest => vec![(pixel(x.round_ties_even()), 1.0)],
        Mode::Linear => vec![(pixel(base), 1.0 - t), (pixel(base + 1.0), t)],
        Mode::Cubic => [-1.0, 0.0, 1.0, 2.0].map(|k| (pixel(base + k), cubic((k - t).abs()))).to_vec(),
    }
}

/// Keys' cubic with a = -0.75.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

/// The weighted sum over all combinations of neighbours.
fn interpolate(image: &[f64], shape: &[usize], at: &[Vec<(Option<usize>, f64)>]) -> f64 {
    fn walk(
        image: &[f64],
        shape: &[usize],
        at: &[Vec<(Option<usize>, f64)>],
        offset: usize,
        weight: f64,
    ) -> f64 {
        let ([n, shape @ ..], [first, at @ ..]) = (shape, at) else { return image[offset] * weight };
        let part = |(i, w): &(Option<usize>, f64)| match i {
            Some(i) if *w != 0.0 => walk(image, shape, at, offset * n + i, weight * w),
            _ => 0.0,
        };
        first.iter().map(part).sum()
    }
    walk(image, shape, at, 0, 1.0)
}

impl Operator for GridSample {
    fn schema(&self) -> Schema {
        Schema { name: "GridSample", domain: "", since: &[16, 20, 22], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let (Some(x), Some(grid)) = (cx.shape(0)?, cx.shape(1)?) else {
            return Ok(vec![TensorType::unranked(dtype).into()]);
        };
        let ([n, c, spatial @ ..], [_, places @ .., _]) = (&x[..], &grid[..]) else {
            return Err(Error::mismatch("ranks", format!("{} and {}", x.len(), grid.len()), "at least 3"));
        };
        if spatial.len() != places.len() {
            return Err(Error::mismatch("rank of the grid", grid.len(), x.len()));
        }
        Ok(vec![TensorType::new(dtype, [&[n.clone(), c.clone()], places].concat()).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, grid) = (cx.tensor(0)?, cx.tensor(1)?);
        let bad = || {
            let got = format!("{} and {}", x.tensor_type(), grid.tensor_type());
            Error::mismatch("X and grid", got, "[N, C, in…] and [N, out…, number of axes]")
        };
        let (&[n, c, ref spatial @ ..], &[gn, ref places @ .., r]) = (x.shape(), grid.shape()) else {
            return Err(bad());
        };
        if gn != n || r != spatial.len() || places.len() != r || r == 0 {
            return Err(bad());
        }
        let (mode, padding, align) = attributes(cx.node)?;
        let (size, count): (usize, usize) = (spatial.iter().product(), places.iter().product());
        let shape = [&[n, c], places].concat();
        let mut y = vec![0f64; new_elems(&shape)?];
        if size == 0 && !y.is_empty() && padding != Padding::Zeros {
            return Err(Error::mismatch("pixels", 0, "at least 1"));
        }
        let (image, grid) = (to_f64s(x)?, to_f64s(grid)?);
        for b in 0..n {
            for p in watched(0..count) {
                // coordinates are listed from the innermost axis outwards
                let place = grid[(b * count + p) * r..][..r].iter().rev();
                let at: Vec<_> =
                    place.zip(spatial).map(|(g, n)| neighbours(*g, *n, mode, padding, align)).collect();
                for k in watched(0..c) {
                    let channel = &image[(b * c + k) * size..][..size];
                    y[(b * c + k) * count + p] = interpolate(channel, spatial, &at);
                }
            }
        }
        Ok(vec![from_f64s(x.dtype(), shape, y, Narrowing::default())?.into()])
    }
}

impl Operator for AffineGrid {
    fn schema(&self) -> Schema {
        Schema { name: "AffineGrid", domain: "", since: &[20], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let shape = cx.dims(1).and_then(|d| match d.elems() {
            [n, _, places @ ..] => {
                Some([std::slice::from_ref(n), places, &[Dim::Known(places.len())]].concat())
            }
            _ => None,
        });
        Ok(vec![TensorType { dtype, shape }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let theta = cx.tensor(0)?;
        let size = lists::extents("size", &cx.tensor(1)?.to_i64s()?)?;
        let [n, _, places @ ..] = &size[..] else {
            return Err(Error::mismatch("size", format!("{size:?}"), "[N, C, H, W] or [N, C, D, H, W]"));
        };
        let r = places.len();
        if !(2..=3).contains(&r) || theta.shape() != [*n, r, r + 1] {
            return Err(Error::mismatch("theta", theta.tensor_type(), format!("[{n}, {r}, {}]", r + 1)));
        }
        let align = cx.node.attrs.flag("align_corners", false)?;
        let position = |i: usize, n: usize| match (align, n) {
            (true, 1) => 0.0,
            (true, n) => 2.0 * i as f64 / (n as f64 - 1.0) - 1.0,
            (false, n) => (2.0 * i as f64 + 1.0) / n as f64 - 1.0,
        };
        let shape = [&[*n], places, &[r]].concat();
        let mut grid = Vec::with_capacity(new_elems(&shape)?);
        let theta_values = to_f64s(theta)?;
        for b in 0..*n {
            let rows = &theta_values[b * r * (r + 1)..][..r * (r + 1)];
            for p in watched(0..places.iter().product()) {
                // x is the innermost axis: coordinates run from the last axis to the first
                let (mut rest, mut at): (usize, Vec<f64>) = (p, vec![]);
                for &extent in places.iter().rev() {
                    at.push(position(rest % extent, extent));
                    rest /= extent;
                }
                at.push(1.0);
                grid.extend(
                    rows.chunks(r + 1).map(|row| row.iter().zip(&at).map(|(a, b)| a * b).sum::<f64>()),
                );
            }
        }
        Ok(vec![from_f64s(theta.dtype(), shape, grid, Narrowing::default())?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_mirrored_at_the_border() {
        // the text's example: x = -3.5 by -1 becomes 1.5, then by 1 becomes 0.5
        assert_eq!(reflect(-3.5, -1.0, 1.0), 0.5);
        assert_eq!(reflect(3.0, 3.0, 3.0), 3.0);
    }

    #[test]
    fn the_corners_are_pixel_centres_when_aligned() {
        let at = |g: f64, align: bool| neighbours(g, 4, Mode::Nearest, Padding::Zeros, align)[0].0;
        assert_eq!((at(-1.0, true), at(1.0, true)), (Some(0), Some(3)));
        assert_eq!(at(1.2, false), None);
        assert_eq!(neighbours(f64::NAN, 4, Mode::Linear, Padding::Border, true), [(None, 0.0)]);
    }
}
