//! Rearranging constant weights: every element keeps its bits, so any element type of whole bytes will do.
use crate::rule::Declined;
use fcc_ir::half::{bf16, f16};
use fcc_ir::{DType, Error, Result, Tensor, elem_count};

/// `Transpose` of a constant: axis `i` of the result is axis `perm[i]` of `t`.
pub(crate) fn permute(t: &Tensor, perm: &[usize]) -> Result<Tensor> {
    let bad = || Error::mismatch("perm", format!("{perm:?}"), format!("the axes of {:?}", t.shape()));
    let mut seen = vec![false; t.rank()];
    for &p in perm {
        let slot = seen.get_mut(p).filter(|s| !**s).ok_or_else(bad)?;
        *slot = true;
    }
    if perm.len() != t.rank() {
        return Err(bad());
    }
    if perm.iter().enumerate().all(|(i, p)| i == *p) {
        return Ok(t.clone());
    }
    let shape: Vec<usize> = perm.iter().map(|&p| t.shape()[p]).collect();
    let from = row_major(t.shape());
    let strides: Vec<usize> = perm.iter().map(|&p| from[p]).collect();
    gather_elements(t, &shape, |emit| for_each_offset(&shape, &strides, emit))
}

/// A tensor of `shape` whose elements are those of `t` at the offsets that `offsets` emits, in row-major order.
fn gather_elements(
    t: &Tensor,
    shape: &[usize],
    offsets: impl FnOnce(&mut dyn FnMut(usize)),
) -> Result<Tensor> {
    let width = element_bytes(t.dtype())?;
    let len = elem_count(shape)?.checked_mul(width).ok_or_else(|| Error::invalid("tensor too large"))?;
    let source = t.bytes();
    let mut data: Vec<u8> = Vec::with_capacity(len);
    match width {
        4 => offsets(&mut |o| data.extend_from_slice(&source[o * 4..o * 4 + 4])),
        _ => offsets(&mut |o| data.extend_from_slice(&source[o * width..(o + 1) * width])),
    }
    Tensor::from_bytes(t.dtype(), shape, data.into())
}

/// Offsets of all index tuples of `shape` in row-major order.
pub(crate) fn for_each_offset(shape: &[usize], strides: &[usize], emit: &mut dyn FnMut(usize)) {
    fn walk(shape: &[usize], strides: &[usize], base: usize, emit: &mut dyn FnMut(usize)) {
        match (shape, strides) {
            ([n], [s]) => (0..*n).for_each(|i| emit(base + i * s)),
            ([n, rest @ ..], [s, rests @ ..]) => {
                (0..*n).for_each(|i| walk(rest, rests, base + i * s, emit));
            }
            _ => emit(base),
        }
    }
    walk(shape, strides, 0, emit);
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// Bytes of one element. Errors on strings and types narrower than a byte.
pub(crate) fn element_bytes(dtype: DType) -> Result<usize> {
    match dtype.bits() {
        bits if bits >= 8 && bits % 8 == 0 => Ok(bits / 8),
        _ => Err(Error::mismatch("element type", dtype, "one of whole bytes")),
    }
}

/// The element repeated: `[1] -> [n]`, or the tensor itself where it has `n` elements; the result is a vector.
pub(crate) fn spread(t: &Tensor, n: usize) -> Result<Tensor> {
    repeat_each(t, n, 1)
}

/// The vector of `n` elements (one is spread), each repeated `times` times.
pub(crate) fn repeat_each(t: &Tensor, n: usize, times: usize) -> Result<Tensor> {
    if t.len() != n && t.len() != 1 {
        return Err(Error::mismatch("elements", t.len(), format!("1 or {n}")));
    }
    if t.len() == n && times == 1 {
        return t.reshaped(vec![n]);
    }
    let step = usize::from(t.len() == n);
    let len = n.checked_mul(times).ok_or_else(|| Error::invalid("too many elements"))?;
    gather_elements(t, &[len], |emit| for_each_offset(&[n, times], &[step, 0], emit))
}

/// `factor * t` if every product is exactly representable in the element type, so that nothing is rounded.
pub(crate) fn scaled_exactly(t: &Tensor, factor: f32) -> Option<Tensor> {
    if factor == 1.0 {
        return Some(t.clone());
    }
    if !factor.is_finite() {
        return None;
    }
    let factor = f64::from(factor);
    macro_rules! scale {
        ($t:ty, $to:expr, $from:expr) => {{
            let scaled: Option<Vec<$t>> = t
                .as_slice::<$t>()
                .ok()?
                .iter()
                .map(|v| {
                    // the product of a factor of 24 and an element of at most 24 bits is exact in f64
                    let exact: f64 = $to(*v) * factor;
                    let rounded: $t = $from(exact);
                    ($to(rounded) == exact && exact.is_finite()).then_some(rounded)
                })
                .collect();
            Tensor::new(t.shape(), scaled?).ok()
        }};
    }
    match t.dtype() {
        DType::F32 => scale!(f32, f64::from, |v: f64| v as f32),
        DType::F16 => scale!(f16, f16::to_f64, f16::from_f64),
        DType::BF16 => scale!(bf16, bf16::to_f64, bf16::from_f64),
        DType::F64 => {
            // the remainder of a rounded product is itself a number, unless the product is tiny
            let exact = |v: f64| {
                let p = v * factor;
                let tiny = p.abs() < 2f64.powi(-960) && v != 0.0;
                (p.is_finite() && !tiny && v.mul_add(factor, -p) == 0.0).then_some(p)
            };
            let scaled: Option<Vec<f64>> = t.as_slice::<f64>().ok()?.iter().map(|v| exact(*v)).collect();
            Tensor::new(t.shape(), scaled?).ok()
        }
        _ => None,
    }
}

/// A scalar of a floating element type. Errs on other types and where `value` is not representable.
pub(crate) fn scalar(dtype: DType, value: f32) -> Result<Tensor, Declined> {
    let exact = |kept: f64| {
        (kept == f64::from(value))
            .then_some(())
            .ok_or_else(|| Declined::new("factor", value, format!("a value of {dtype}")))
    };
    Ok(match dtype {
        DType::F32 => Tensor::scalar(value),
        DType::F64 => Tensor::scalar(f64::from(value)),
        DType::F16 => {
            let v = f16::from_f32(value);
            exact(v.to_f64())?;
            Tensor::scalar(v)
        }
        DType::BF16 => {
            let v = bf16::from_f32(value);
            exact(v.to_f64())?;
            Tensor::scalar(v)
        }
        other => return Err(Declined::new("element type", other, "a float of 16, 32 or 64 bits")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permuting_moves_elements() {
        let t = Tensor::new(vec![2, 3], vec![1f32, 2., 3., 4., 5., 6.]).unwrap();
        assert_eq!(
            permute(&t, &[1, 0]).unwrap(),
            Tensor::new(vec![3, 2], vec![1f32, 4., 2., 5., 3., 6.]).unwrap()
        );
        assert_eq!(permute(&t, &[0, 1]).unwrap().bytes().as_ptr(), t.bytes().as_ptr());
        assert!(permute(&t, &[0, 0]).is_err());
        let bytes = Tensor::new(vec![1, 2, 2], vec![1u8, 2, 3, 4]).unwrap();
        assert_eq!(
            permute(&bytes, &[2, 1, 0]).unwrap(),
            Tensor::new(vec![2, 2, 1], vec![1u8, 3, 2, 4]).unwrap()
        );
    }

    #[test]
    fn scaling_is_exact_or_refused() {
        let t = Tensor::new(vec![2], vec![1.5f32, -3.0]).unwrap();
        assert_eq!(scaled_exactly(&t, 0.5), Some(Tensor::new(vec![2], vec![0.75f32, -1.5]).unwrap()));
        assert_eq!(scaled_exactly(&t, 3.0), Some(Tensor::new(vec![2], vec![4.5f32, -9.0]).unwrap()));
        let third = Tensor::new(vec![1], vec![0.1f32]).unwrap();
        assert_eq!(scaled_exactly(&third, 0.3), None);
        let tiny = Tensor::new(vec![1], vec![f32::from_bits(1)]).unwrap();
        assert_eq!(scaled_exactly(&tiny, 0.5), None, "half of the smallest number is not a number");
        let double = Tensor::new(vec![1], vec![0.1f64]).unwrap();
        assert_eq!(scaled_exactly(&double, 0.5), Some(Tensor::new(vec![1], vec![0.05f64]).unwrap()));
        assert_eq!(scaled_exactly(&double, 3.0), None);
        let whole = Tensor::new(vec![1], vec![7f64]).unwrap();
        assert_eq!(scaled_exactly(&whole, 3.0), Some(Tensor::new(vec![1], vec![21f64]).unwrap()));
    }

    #[test]
    fn elements_repeat() {
        let t = Tensor::new(vec![1, 2], vec![1f32, 2.]).unwrap();
        assert_eq!(repeat_each(&t, 2, 2).unwrap(), Tensor::new(vec![4], vec![1f32, 1., 2., 2.]).unwrap());
        assert_eq!(spread(&Tensor::scalar(3f32), 2).unwrap(), Tensor::new(vec![2], vec![3f32, 3.]).unwrap());
        assert!(spread(&t, 3).is_err());
    }
}
