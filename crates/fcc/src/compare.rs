//! Is a computed value the expected one? The first difference, in words.
use fcc_ir::convert::to_f64s;
use fcc_ir::{DType, Tensor, Value};

/// How far a float may be off: `|got - want| <= atol + rtol * |want|`. NaN equals NaN, infinities their like;
/// everything that is no float must be equal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Relative to the expected value.
    pub rtol: f64,
    /// Absolute.
    pub atol: f64,
}

impl Tolerance {
    /// What ONNX's own backend tests use.
    pub const ONNX_TESTS: Tolerance = Tolerance { rtol: 1e-3, atol: 1e-7 };

    fn allows(self, got: f64, want: f64) -> bool {
        let close = || (got - want).abs() <= self.atol + self.rtol * want.abs();
        got == want || (got.is_nan() && want.is_nan()) || (want.is_finite() && close())
    }
}

/// The first difference between two values, or `None`. An optional that holds a value equals the value.
pub fn difference(got: &Value, want: &Value, tolerance: Tolerance) -> Option<String> {
    match (inner(got), inner(want)) {
        (None, None) => None,
        (Some(Value::Tensor(a)), Some(Value::Tensor(b))) => tensor_difference(a, b, tolerance),
        (Some(Value::Sequence(_, a)), Some(Value::Sequence(_, b))) => {
            list_difference("length", a, b, tolerance)
        }
        (Some(Value::Map(k, a)), Some(Value::Map(l, b))) => {
            tensor_difference(k, l, tolerance).or_else(|| list_difference("size", a, b, tolerance))
        }
        (a, b) => Some(format!("got {}, wanted {}", kind(a), kind(b))),
    }
}

/// What an optional holds; any other value is itself.
fn inner(value: &Value) -> Option<&Value> {
    match value {
        Value::Optional(_, held) => held.as_deref().and_then(inner),
        other => Some(other),
    }
}

fn kind(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".into(), |v| v.value_type().to_string())
}

fn list_difference(what: &str, got: &[Value], want: &[Value], tolerance: Tolerance) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{what}: got {}, wanted {}", got.len(), want.len()));
    }
    got.iter()
        .zip(want)
        .enumerate()
        .find_map(|(i, (a, b))| difference(a, b, tolerance).map(|d| format!("element {i}: {d}")))
}

fn tensor_difference(got: &Tensor, want: &Tensor, tolerance: Tolerance) -> Option<String> {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return Some(format!(
            "got {}{:?}, wanted {}{:?}",
            got.dtype(),
            got.shape(),
            want.dtype(),
            want.shape()
        ));
    }
    let Some((a, b)) = floats(got).zip(floats(want)) else {
        return (got != want).then(|| unequal(got, want));
    };
    // a complex element is two numbers
    let width = if want.is_empty() { 1 } else { b.len() / want.len() };
    let at = a.iter().zip(&b).position(|(x, y)| !tolerance.allows(*x, *y))?;
    let count = a.iter().zip(&b).filter(|(x, y)| !tolerance.allows(**x, **y)).count();
    let place = index(at / width.max(1), want.shape());
    Some(format!("{place}: got {}, wanted {}; {count} of {} differ", a[at], b[at], b.len()))
}

/// The elements of a float or complex tensor (two numbers each); `None` for other types.
fn floats(t: &Tensor) -> Option<Vec<f64>> {
    match t.dtype() {
        DType::C64 => {
            let parts = t.bytes().chunks_exact(4);
            Some(parts.map(|c| f64::from(f32::from_le_bytes([c[0], c[1], c[2], c[3]]))).collect())
        }
        DType::C128 => {
            let parts = t.bytes().chunks_exact(8);
            Some(
                parts.map(|c| f64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]])).collect(),
            )
        }
        dtype if dtype.is_float() => to_f64s(t).ok(),
        _ => None,
    }
}

/// Words for two tensors of one type and shape that are not equal.
fn unequal(got: &Tensor, want: &Tensor) -> String {
    if let (Ok(a), Ok(b)) = (got.as_strings(), want.as_strings()) {
        let text = |b: &fcc_ir::Bytes| String::from_utf8_lossy(b).into_owned();
        if let Some(at) = a.iter().zip(b).position(|(x, y)| x != y) {
            return format!("{}: got {:?}, wanted {:?}", index(at, want.shape()), text(&a[at]), text(&b[at]));
        }
    }
    if let (Ok(a), Ok(b)) = (to_f64s(got), to_f64s(want))
        && let Some(at) = a.iter().zip(&b).position(|(x, y)| x != y)
    {
        let count = a.iter().zip(&b).filter(|(x, y)| x != y).count();
        let place = index(at, want.shape());
        return format!("{place}: got {}, wanted {}; {count} of {} differ", a[at], b[at], b.len());
    }
    format!("got {got:?}, wanted {want:?}")
}

/// A place in a tensor: `[0, 3, 1]`.
fn index(mut at: usize, shape: &[usize]) -> String {
    let mut place = vec![0; shape.len()];
    for (slot, &extent) in place.iter_mut().zip(shape).rev() {
        *slot = at % extent.max(1);
        at /= extent.max(1);
    }
    format!("{place:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(data: Vec<f32>) -> Value {
        Tensor::new(vec![2, data.len() / 2], data).unwrap().into()
    }

    #[test]
    fn names_the_first_place_that_is_too_far_off() {
        let want = value(vec![1.0, 2.0, 3.0, 4.0]);
        let got = value(vec![1.0, 2.0, 3.1, 5.0]);
        let loose = Tolerance { rtol: 0.0, atol: 0.2 };
        let found = difference(&got, &want, loose).unwrap();
        assert_eq!(found, "[1, 1]: got 5, wanted 4; 1 of 4 differ");
        assert_eq!(difference(&got, &want, Tolerance { rtol: 0.25, atol: 0.0 }), None);
    }

    #[test]
    fn nan_equals_only_nan_and_infinities_only_their_like() {
        let none = Tolerance { rtol: 1.0, atol: 1.0 };
        let special = value(vec![f32::NAN, f32::INFINITY]);
        assert_eq!(difference(&special, &special, none), None);
        assert!(difference(&value(vec![f32::NAN, 1.0]), &value(vec![0.0, 1.0]), none).is_some());
        assert!(difference(&value(vec![0.0, 1e30]), &value(vec![0.0, f32::INFINITY]), none).is_some());
        assert!(difference(&value(vec![0.0, f32::INFINITY]), &value(vec![0.0, 1e30]), none).is_some());
        assert!(
            difference(&value(vec![0.0, f32::NEG_INFINITY]), &value(vec![0.0, f32::INFINITY]), none)
                .is_some()
        );
    }

    #[test]
    fn integers_and_shapes_must_be_equal() {
        let ints = |v: Vec<i64>| Value::from(Tensor::from_i64s(v));
        let loose = Tolerance { rtol: 1.0, atol: 100.0 };
        assert_eq!(
            difference(&ints(vec![1, 2]), &ints(vec![1, 3]), loose).unwrap(),
            "[1]: got 2, wanted 3; 1 of 2 differ"
        );
        assert_eq!(
            difference(&ints(vec![1]), &ints(vec![1, 3]), loose).unwrap(),
            "got int64[1], wanted int64[2]"
        );
        assert!(difference(&value(vec![1.0, 2.0]), &ints(vec![1, 2]), loose).is_some());
    }

    #[test]
    fn an_optional_that_holds_a_value_equals_the_value() {
        let x = value(vec![1.0, 2.0]);
        let held = Value::Optional(x.value_type(), Some(Box::new(x.clone())));
        let empty = Value::Optional(x.value_type(), None);
        let exact = Tolerance { rtol: 0.0, atol: 0.0 };
        assert_eq!(difference(&held, &x, exact), None);
        assert_eq!(difference(&empty, &empty, exact), None);
        assert_eq!(difference(&empty, &x, exact).unwrap(), "got nothing, wanted float[2,1]");
    }
}
