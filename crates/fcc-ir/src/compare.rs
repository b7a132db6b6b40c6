//! Comparing values: equality of what has no rounding, closeness of floats.
use crate::convert::{to_f64s, widen};
use crate::{DType, Error, Result, Tensor, Value};
use std::fmt;

/// How far floats may lie apart: `|got - want| <= atol + rtol * |want|`, NaN equal to NaN, infinities equal to
/// themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Relative to the wanted value.
    pub rtol: f64,
    /// Absolute.
    pub atol: f64,
}

impl Tolerance {
    /// Bit-for-bit as numbers.
    pub const EXACT: Tolerance = Tolerance { rtol: 0.0, atol: 0.0 };

    /// Whether two numbers are close enough.
    pub fn accepts(&self, got: f64, want: f64) -> bool {
        if got.is_nan() || want.is_nan() {
            return got.is_nan() && want.is_nan();
        }
        got == want || (got - want).abs() <= self.atol + self.rtol * want.abs() && want.is_finite()
    }
}

/// The worst element of a comparison that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its index.
    pub index: Vec<usize>,
    /// What was computed.
    pub got: String,
    /// What was wanted.
    pub want: String,
    /// How many elements differ, of how many.
    pub count: (usize, usize),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, of) = self.count;
        write!(f, "{n} of {of} elements differ; at {:?} got {}, wanted {}", self.index, self.got, self.want)
    }
}

/// Compares two values. Floats are held to the tolerance, everything else must be equal; types must be the same.
/// The error names the first part that differs and its worst element.
pub fn close(got: &Value, want: &Value, tolerance: Tolerance) -> Result<()> {
    let kinds = || Error::mismatch("type", got.value_type(), want.value_type());
    match (got, want) {
        (Value::Tensor(g), Value::Tensor(w)) => match difference(g, w, tolerance)? {
            None => Ok(()),
            Some(d) => Err(Error::invalid(d.to_string())),
        },
        (Value::Sequence(_, g), Value::Sequence(_, w)) => all("element", g, w, tolerance),
        (Value::Optional(_, g), Value::Optional(_, w)) => match (g, w) {
            (None, None) => Ok(()),
            (Some(g), Some(w)) => close(g, w, tolerance),
            _ => Err(Error::mismatch("optional", g.is_some(), w.is_some())),
        },
        (Value::Map(gk, g), Value::Map(wk, w)) => maps((gk, g), (wk, w), tolerance),
        _ => Err(kinds()),
    }
}

/// Maps are compared by their keys, in whatever order they stand.
fn maps(got: (&Tensor, &[Value]), want: (&Tensor, &[Value]), tolerance: Tolerance) -> Result<()> {
    fn sorted((keys, values): (&Tensor, &[Value])) -> Result<(Tensor, Vec<Value>)> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        if keys.dtype() == DType::String {
            let keys = keys.as_strings()?;
            order.sort_by_key(|i| &keys[*i]);
        } else {
            let keys = widen(keys)?;
            order.sort_by(|a, b| keys.compare(*a, *b));
        }
        let value = |i: &usize| values.get(*i).cloned();
        let values = order.iter().map(value).collect::<Option<_>>();
        let values = values.ok_or_else(|| Error::mismatch("values of a map", "fewer", "one a key"))?;
        Ok((crate::ops::movement::take(keys, [order.len()], &order)?, values))
    }
    let (got, want) = (sorted(got)?, sorted(want)?);
    if got.0 != want.0 {
        return Err(Error::mismatch("keys of a map", format!("{:?}", got.0), format!("{:?}", want.0)));
    }
    all("value", &got.1, &want.1, tolerance)
}

fn all(what: &str, got: &[Value], want: &[Value], tolerance: Tolerance) -> Result<()> {
    if got.len() != want.len() {
        return Err(Error::mismatch(format!("number of {what}s"), got.len(), want.len()));
    }
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        close(g, w, tolerance).map_err(|e| e.at(format!("{what} {i}")))?;
    }
    Ok(())
}

/// The worst difference of two tensors; `Ok(None)` if there is none. Errors if their types or shapes differ.
pub fn difference(got: &Tensor, want: &Tensor, tolerance: Tolerance) -> Result<Option<Difference>> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Err(Error::mismatch("type", got.tensor_type(), want.tensor_type()));
    }
    let (mut worst, mut count) = (None, 0);
    if want.dtype().is_float() {
        let mut most = -1.0;
        for (i, (g, w)) in to_f64s(got)?.into_iter().zip(to_f64s(want)?).enumerate() {
            if tolerance.accepts(g, w) {
                continue;
            }
            count += 1;
            // how much of the tolerance is used; what is not finite is worst of all
            let excess = (g - w).abs() - tolerance.rtol * w.abs();
            let excess = if excess.is_finite() { excess } else { f64::INFINITY };
            if excess > most {
                most = excess;
                worst = Some((i, g.to_string(), w.to_string()));
            }
        }
    } else if want.dtype() == DType::String {
        for (i, (g, w)) in got.as_strings()?.iter().zip(want.as_strings()?).enumerate() {
            if g != w {
                count += 1;
                worst.get_or_insert((i, format!("{g:?}"), format!("{w:?}")));
            }
        }
    } else {
        let width = (want.dtype().bits() / 8).max(1);
        let (g, w) = (got.unpacked_bits(), want.unpacked_bits());
        for (i, (g, w)) in g.chunks(width).zip(w.chunks(width)).enumerate() {
            if g != w {
                count += 1;
                worst.get_or_insert((i, integer(want.dtype(), g), integer(want.dtype(), w)));
            }
        }
    }
    Ok(worst.map(|(i, got, want_text)| Difference {
        index: unravel(i, want.shape()),
        got,
        want: want_text,
        count: (count, want.len()),
    }))
}

/// How far two numeric tensors lie apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distance {
    /// Greatest `|got - want|`; infinite where only one is NaN or finite.
    pub abs: f64,
    /// Greatest `|got - want| / |want|` over the elements where `want` is not zero.
    pub rel: f64,
    /// Index of the first element that the tolerance does not accept.
    pub first: Option<Vec<usize>>,
}

/// Measures two tensors of one type and shape; `None` if they are not, or hold no real numbers. Floats are held to
/// the tolerance, everything else must be equal.
pub fn distance(got: &Tensor, want: &Tensor, tolerance: Tolerance) -> Option<Distance> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return None;
    }
    let tolerance = if want.dtype().is_float() { tolerance } else { Tolerance::EXACT };
    let mut distance = Distance::default();
    for (i, (g, w)) in to_f64s(got).ok()?.into_iter().zip(to_f64s(want).ok()?).enumerate() {
        if Tolerance::EXACT.accepts(g, w) {
            continue;
        }
        let abs = if g.is_finite() && w.is_finite() { (g - w).abs() } else { f64::INFINITY };
        distance.abs = distance.abs.max(abs);
        if w != 0.0 {
            distance.rel = distance.rel.max(if abs.is_finite() { abs / w.abs() } else { abs });
        }
        if distance.first.is_none() && !tolerance.accepts(g, w) {
            distance.first = Some(unravel(i, want.shape()));
        }
    }
    Some(distance)
}

/// Little-endian bytes of an element that is no float, as text.
fn integer(dtype: DType, bytes: &[u8]) -> String {
    let mut wide = [0u8; 16];
    for (w, b) in wide.iter_mut().zip(bytes) {
        *w = *b;
    }
    let bits = u128::from_le_bytes(wide);
    let unused = 128 - dtype.bits().clamp(1, 128);
    match dtype {
        DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::I4 | DType::I2 => {
            ((bits << unused) as i128 >> unused).to_string()
        }
        _ => bits.to_string(),
    }
}

fn unravel(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (slot, &n) in index.iter_mut().zip(shape).rev() {
        *slot = i % n.max(1);
        i /= n.max(1);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_element_is_named() {
        let t = |v: Vec<f32>| Tensor::new(vec![2, 2], v).unwrap();
        let tolerance = Tolerance { rtol: 1e-3, atol: 1e-6 };
        let want = t(vec![1., 2., f32::NAN, f32::INFINITY]);
        assert_eq!(difference(&want, &want, tolerance).unwrap(), None);
        let got = t(vec![1.01, 4., f32::NAN, f32::INFINITY]);
        let d = difference(&got, &want, tolerance).unwrap().unwrap();
        assert_eq!((d.index, d.count), (vec![0, 1], (2, 4)));
        let got = t(vec![1., 2., 0., f32::NEG_INFINITY]);
        assert_eq!(difference(&got, &want, tolerance).unwrap().unwrap().count, (2, 4));
        let infinite = t(vec![f32::INFINITY; 4]);
        assert!(difference(&infinite, &t(vec![1e30; 4]), tolerance).unwrap().is_some());
    }

    #[test]
    fn maps_are_compared_by_their_keys() {
        let map = |keys: &[i64], values: &[f32]| {
            let values = values.iter().map(|v| Tensor::scalar(*v).into()).collect();
            Value::Map(Tensor::from_i64s(keys.to_vec()), values)
        };
        let want = map(&[1, 2, 3], &[0.5, 1.5, 2.5]);
        assert!(close(&map(&[3, 1, 2], &[2.5, 0.5, 1.5]), &want, Tolerance::EXACT).is_ok());
        for bad in
            [map(&[3, 1, 2], &[2.5, 1.5, 0.5]), map(&[1, 2, 4], &[0.5, 1.5, 2.5]), map(&[1, 2], &[0.5, 1.5])]
        {
            assert!(close(&bad, &want, Tolerance::EXACT).is_err());
        }
        let text = Value::Map(Tensor::from_strings([1], ["1"]).unwrap(), vec![Tensor::scalar(0.5f32).into()]);
        assert!(close(&text, &want, Tolerance::EXACT).is_err());
    }

    #[test]
    fn integers_are_compared_exactly() {
        let t = |v: i8| Tensor::new(vec![1], vec![v]).unwrap();
        let d = difference(&t(-1), &t(0), Tolerance { rtol: 1.0, atol: 9.0 }).unwrap().unwrap();
        assert_eq!((d.got.as_str(), d.want.as_str()), ("-1", "0"));
        assert!(difference(&t(1), &Tensor::new(vec![1], vec![1u8]).unwrap(), Tolerance::EXACT).is_err());
    }

    #[test]
    fn distance_names_the_first_place_and_the_greatest_sizes() {
        let t = |v: [f32; 4]| Tensor::new([2, 2], v.to_vec()).unwrap();
        let loose = Tolerance { rtol: 0.0, atol: 0.2 };
        let d = distance(&t([1.0, 2.1, 3.5, 8.0]), &t([1.0, 2.0, 3.0, 4.0]), loose).unwrap();
        assert_eq!((d.abs, d.rel, d.first), (4.0, 1.0, Some(vec![1, 0])));
        let d = distance(&t([f32::NAN, 0.0, 0.0, 0.0]), &t([f32::NAN, -0.0, 0.0, 0.0]), loose).unwrap();
        assert_eq!(d, Distance::default());
        let d = distance(&t([f32::NAN, 0.0, 0.0, 0.0]), &t([1.0, 0.0, 0.0, 0.0]), loose).unwrap();
        assert_eq!((d.abs, d.first), (f64::INFINITY, Some(vec![0, 0])));
        assert_eq!(distance(&Tensor::from_i64s([1]), &t([0.0; 4]), loose), None);
    }
}
