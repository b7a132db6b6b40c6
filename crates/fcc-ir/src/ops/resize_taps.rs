//! Where `Resize` reads along one axis: coordinates, and weights of the neighbours.
use crate::{Error, Result};

/// How values between positions are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// One of the two neighbours.
    #[default]
    Nearest,
    /// Two neighbours, by distance.
    Linear,
    /// Four neighbours, by a cubic.
    Cubic,
}

/// `coordinate_transformation_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Coordinates {
    #[default]
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixelForNn,
    TfCropAndResize,
}

/// `nearest_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nearest {
    /// To the nearest, the lower one in the middle.
    #[default]
    RoundPreferFloor,
    /// To the nearest, the upper one in the middle.
    RoundPreferCeil,
    /// Down.
    Floor,
    /// Up.
    Ceil,
    /// Version 10, as ONNX Runtime reads it: down where the axis grows, up where it shrinks.
    FloorOrCeilDown,
}

/// How a node reads between positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Nearest, linear or cubic.
    pub mode: Mode,
    /// How an output position becomes an input coordinate.
    pub coordinates: Coordinates,
    /// Rounding of [`Mode::Nearest`].
    pub nearest: Nearest,
    /// Whether the filter widens where the axis shrinks.
    pub antialias: bool,
    /// Whether neighbours outside weigh nothing (else the edge stands for them).
    pub exclude_outside: bool,
    /// The cubic's coefficient.
    pub cubic_coeff_a: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            mode: Mode::default(),
            coordinates: Coordinates::default(),
            nearest: Nearest::default(),
            antialias: false,
            exclude_outside: false,
            cubic_coeff_a: -0.75,
        }
    }
}

/// Input positions and weights of one output position, ascending; `None` is the extrapolation value.
pub type Taps = Option<Vec<(usize, f64)>>;

/// One axis of a resize.
#[derive(Debug, Clone, PartialEq)]
pub struct AxisPlan {
    /// Input extent.
    pub extent: usize,
    /// Factor that the coordinates use.
    pub scale: f64,
    /// One entry for each output position.
    pub taps: Vec<Taps>,
}

impl AxisPlan {
    /// Whether the axis stays as it is.
    pub fn is_identity(&self) -> bool {
        let same = |(i, t): (usize, &Taps)| matches!(t.as_deref(), Some([(p, w)]) if *p == i && *w == 1.0);
        self.taps.len() == self.extent && self.taps.iter().enumerate().all(same)
    }
}

impl Sampling {
    /// The plan of an axis. `region` is its part of the roi. Errors where an empty axis should grow.
    pub fn axis(&self, extent: usize, out: usize, scale: f64, region: [f64; 2]) -> Result<AxisPlan> {
        if extent == 0 && out > 0 {
            return Err(Error::mismatch("extent to resize", 0, "at least 1"));
        }
        let taps = (0..out).map(|i| self.taps(i, extent, out, scale, region)).collect();
        Ok(AxisPlan { extent, scale, taps })
    }
    /// The input coordinate of an output position; `None` outside of the region's input.
    fn coordinate(&self, i: usize, extent: usize, out: usize, scale: f64, region: [f64; 2]) -> Option<f64> {
        let (x, n) = (i as f64, extent as f64);
        let (width, last) = (scale * n, n - 1.0);
        let half_pixel = (x + 0.5) / scale - 0.5;
        Some(match self.coordinates {
            Coordinates::HalfPixel => half_pixel,
            // the middle of the input lies in the middle of the output, whose extent was rounded
            Coordinates::HalfPixelSymmetric => n / 2.0 * (1.0 - out as f64 / width) + half_pixel,
            Coordinates::PytorchHalfPixel if out == 1 => -0.5,
            Coordinates::PytorchHalfPixel => half_pixel,
            Coordinates::AlignCorners if width == 1.0 => 0.0,
            Coordinates::AlignCorners => x * last / (width - 1.0),
            Coordinates::Asymmetric => x / scale,
            Coordinates::TfHalfPixelForNn => (x + 0.5) / scale,
            Coordinates::TfCropAndResize => {
                let [begin, end] = region;
                let at = if out == 1 {
                    0.5 * (begin + end) * last
                } else {
                    begin * last + x * (end - begin) * last / (out as f64 - 1.0)
                };
                return (0.0..=last).contains(&at).then_some(at);
            }
        })
    }
    fn taps(&self, i: usize, extent: usize, out: usize, scale: f64, region: [f64; 2]) -> Taps {
        let x = self.coordinate(i, extent, out, scale, region)?;
        // x lies in (base, base + 1]
        let base = x.ceil() - 1.0;
        let weights = self.weights(x - base, scale);
        let first = base as i64 + 1 - (weights.len() / 2) as i64;
        let last = extent as i64 - 1;
        let mut taps: Vec<(usize, f64)> = vec![];
        let mut sum = 0.0;
        for (k, w) in weights.into_iter().enumerate() {
            let at = first + k as i64;
            if w == 0.0 || (self.exclude_outside && !(0..=last).contains(&at)) {
                continue;
            }
            sum += w;
            let at = at.clamp(0, last) as usize;
            match taps.last_mut() {
                Some((p, v)) if *p == at => *v += w,
                _ => taps.push((at, w)),
            }
        }
        if self.exclude_outside {
            taps.iter_mut().for_each(|(_, w)| *w /= sum);
        }
        Some(taps)
    }
    /// Weights of the neighbours of a point that lies `ratio` in (0, 1] above its lower neighbour: an even number,
    /// half of them below it.
    fn weights(&self, ratio: f64, scale: f64) -> Vec<f64> {
        let stretch = if self.antialias { scale.min(1.0) } else { 1.0 };
        let spread = |reach: f64, kernel: &dyn Fn(f64) -> f64| {
            let first = (-reach / stretch).floor() as i64 + 1;
            let weights: Vec<f64> =
                (first..2 - first).map(|k| kernel((k as f64 - ratio) * stretch)).collect();
            let sum: f64 = weights.iter().sum();
            // without antialiasing the weights sum to 1 as they are
            if self.antialias { weights.into_iter().map(|w| w / sum).collect() } else { weights }
        };
        match self.mode {
            Mode::Nearest => {
                let upper = ratio == 1.0
                    || match self.nearest {
                        Nearest::RoundPreferFloor => ratio > 0.5,
                        Nearest::RoundPreferCeil => ratio >= 0.5,
                        Nearest::Floor => false,
                        Nearest::Ceil => true,
                        Nearest::FloorOrCeilDown => scale < 1.0,
                    };
                if upper { vec![0.0, 1.0] } else { vec![1.0, 0.0] }
            }
            Mode::Linear => spread(1.0, &|x: f64| (1.0 - x.abs()).clamp(0.0, 1.0)),
            Mode::Cubic => spread(2.0, &|x: f64| cubic(x.abs(), self.cubic_coeff_a)),
        }
    }
}

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(s: Sampling, extent: usize, out: usize) -> Vec<Vec<(usize, f64)>> {
        let plan = s.axis(extent, out, out as f64 / extent as f64, [0.0, 1.0]).unwrap();
        plan.taps.into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn linear_reads_two_neighbours_and_the_edge() {
        let s = Sampling { mode: Mode::Linear, ..Default::default() };
        let want = [vec![(0, 1.0)], vec![(0, 0.75), (1, 0.25)], vec![(0, 0.25), (1, 0.75)], vec![(1, 1.0)]];
        assert_eq!(axis(s, 2, 4), want);
    }

    #[test]
    fn weights_sum_to_one_in_every_mode() {
        for mode in [Mode::Nearest, Mode::Linear, Mode::Cubic] {
            for antialias in [false, true] {
                for exclude_outside in [false, true] {
                    let s = Sampling { mode, antialias, exclude_outside, ..Default::default() };
                    for (extent, out) in [(5, 3), (3, 7), (4, 4), (1, 3), (9, 2)] {
                        for taps in axis(s, extent, out) {
                            let sum: f64 = taps.iter().map(|t| t.1).sum();
                            assert!((sum - 1.0).abs() < 1e-12, "{s:?} {extent} {out} {taps:?}");
                            assert!(taps.iter().all(|t| t.0 < extent));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_unchanged_axis_is_the_identity() {
        let s = Sampling { mode: Mode::Cubic, ..Default::default() };
        assert!(s.axis(5, 5, 1.0, [0.0, 1.0]).unwrap().is_identity());
        assert!(s.axis(0, 2, 1.0, [0.0, 1.0]).is_err());
    }
}
