//! `Slice`. <https://onnx.ai/onnx/operators/onnx__Slice.html>
use super::lists::{self, List};
use super::movement;
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, Result, TensorType, Value};

/// `Slice`.
pub struct Slice;

/// What is kept of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Position of the first element.
    pub start: usize,
    /// Distance of neighbours, not 0.
    pub step: i64,
    /// Number of elements.
    pub len: usize,
}

impl Range {
    /// The positions in order.
    pub fn positions(self) -> impl Iterator<Item = usize> {
        // inside the extent by construction
        (0..self.len as i64).map(move |i| (self.start as i64 + i * self.step) as usize)
    }
    /// Clamps a request as the text says: negative numbers count from the end, ends beyond are cut.
    pub fn clamp(start: i64, end: i64, step: i64, extent: usize) -> Result<Range> {
        let n = i64::try_from(extent).map_err(|_| Error::invalid("extent too large"))?;
        let from_end = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
        let (start, end) = (from_end(start), from_end(end));
        let (start, len) = match step {
            0 => return Err(Error::mismatch("step", 0, "not 0")),
            1.. => {
                let (start, end) = (start.clamp(0, n), end.clamp(0, n));
                (start, if end > start { (end - start - 1) / step + 1 } else { 0 })
            }
            _ => {
                let (start, end) = (start.clamp(0, (n - 1).max(0)), end.clamp(-1, n - 1));
                let len =
                    if n > 0 && start > end { (start - end - 1) as u64 / step.unsigned_abs() + 1 } else { 0 };
                (start, len as i64)
            }
        };
        // both lie in 0..=extent
        Ok(Range { start: start as usize, step, len: len as usize })
    }
}

/// What is kept of every axis of `x`. Errors on lists of different length, a step of 0 or a bad axis.
pub fn ranges(
    starts: &[i64],
    ends: &[i64],
    axes: Option<&[i64]>,
    steps: Option<&[i64]>,
    x: &[usize],
) -> Result<Vec<Range>> {
    let axes = slice_axes(starts, ends, axes, steps, x.len())?;
    let mut out: Vec<Range> = x.iter().map(|&n| Range { start: 0, step: 1, len: n }).collect();
    for (i, a) in axes.into_iter().enumerate() {
        out[a] = Range::clamp(starts[i], ends[i], steps.map_or(1, |s| s[i]), x[a])?;
    }
    Ok(out)
}

fn slice_axes(
    starts: &[i64],
    ends: &[i64],
    axes: Option<&[i64]>,
    steps: Option<&[i64]>,
    rank: usize,
) -> Result<Vec<usize>> {
    let n = starts.len();
    if ends.len() != n || axes.is_some_and(|a| a.len() != n) || steps.is_some_and(|s| s.len() != n) {
        let got = format!("starts {starts:?}, ends {ends:?}, axes {axes:?}, steps {steps:?}");
        return Err(Error::mismatch("lists of Slice", got, "one length"));
    }
    match axes {
        Some(a) => lists::axes(a, rank),
        None if n <= rank => Ok((0..n).collect()),
        None => Err(Error::mismatch("starts", n, format!("at most {rank} axes"))),
    }
}

/// The extent of a slice whose bounds or extent are symbolic; unknown where clamping cannot be decided.
fn slice_dim(start: &Dim, end: &Dim, step: i64, extent: &Dim) -> Dim {
    if step != 1 {
        // the one symbolic case that needs no clamping: everything, backwards or in strides
        let (Some(s), Some(e)) = (constant(start), constant(end)) else { return Dim::Unknown };
        return match (s, e) {
            (0, i64::MAX) if step > 0 => usize::try_from(step).map_or(Dim::Unknown, |s| extent.ceil_div(s)),
            (-1, e) if step == -1 && e <= -(i64::from(i32::MAX)) => extent.clone(),
            _ => Dim::Unknown,
        };
    }
    // exporters write all kinds of numbers for "to the end"
    const FAR: i64 = 1_000_000_000;
    let end = match constant(end) {
        Some(e) if e >= FAR => extent.clone(),
        Some(e) if e < 0 => extent.offset(e),
        // a fixed end may lie beyond a symbolic extent
        Some(_) => return Dim::Unknown,
        None if end.same(extent) => extent.clone(),
        // what is never negative does not count from the end
        None if matches!(end, Dim::Sym(e) if e.is_nonnegative()) => end.lesser(extent),
        None => return Dim::Unknown,
    };
    match constant(start) {
        Some(0) => end,
        Some(s) if s > 0 => end.offset(-s),
        Some(s) => end.sub(&extent.offset(s)),
        // it may be negative and count from the end
        None => Dim::Unknown,
    }
}

fn constant(d: &Dim) -> Option<i64> {
    DimTensor::scalar(d.clone()).int(0)
}

impl Operator for Slice {
    fn schema(&self) -> Schema {
        Schema { name: "Slice", domain: "", since: &[1, 10, 11, 13], inputs: (1, 5), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let unknown = || Ok(vec![TensorType::new(dtype, vec![Dim::Unknown; x.len()]).into()]);
        let (axes, steps) = match (lists::inferred(cx, "axes", 3)?, lists::inferred(cx, "steps", 4)?) {
            (List::Unknown, _) => return unknown(),
            (List::Known(a), steps) => (Some(a), steps),
            (List::Absent, steps) => (None, steps),
        };
        let (starts, ends) = (lists::dims(cx, "starts", 1)?, lists::dims(cx, "ends", 2)?);
        let n = axes.as_ref().map(Vec::len).or(starts.as_ref().map(Vec::len)).or(ends.as_ref().map(Vec::len));
        let Some(n) = n else { return unknown() };
        let fill = |list: Option<Vec<Dim>>| list.unwrap_or_else(|| vec![Dim::Unknown; n]);
        let (starts, ends) = (fill(starts), fill(ends));
        let (zeros, sized) = (vec![0; starts.len()], vec![0; ends.len()]);
        let step_list = match &steps {
            List::Known(s) => Some(s.as_slice()),
            List::Absent | List::Unknown => None,
        };
        let places = slice_axes(&zeros, &sized, axes.as_deref(), step_list, x.len())?;
        let mut out = x.clone();
        let mut ranges: Vec<Option<Range>> = vec![None; x.len()];
        for (i, &a) in places.iter().enumerate() {
            out[a] = Dim::Unknown;
            let step = match &steps {
                List::Unknown => continue,
                List::Absent => 1,
                List::Known(s) => s[i],
            };
            match (constant(&starts[i]), constant(&ends[i]), x[a].known()) {
                (Some(s), Some(e), Some(extent)) => {
                    let r = Range::clamp(s, e, step, extent)?;
                    out[a] = Dim::Known(r.len);
                    ranges[a] = Some(r);
                }
                _ => out[a] = slice_dim(&starts[i], &ends[i], step, &x[a]),
            }
        }
        if let (Some(d), [Some(r)]) = (cx.dims(0), &ranges[..])
            && !d.is_scalar()
            && let Some(part) = DimTensor::vector(r.positions().filter_map(|p| d.elems().get(p).cloned()))
        {
            return Ok(vec![Fact::of_dims(dtype, part)]);
        }
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let need = |name: &'static str, slot| {
            lists::given(cx, name, slot)?.ok_or_else(|| Error::mismatch(name, "none", "a list"))
        };
        let (starts, ends) = (need("starts", 1)?, need("ends", 2)?);
        let (axes, steps) = (lists::given(cx, "axes", 3)?, lists::given(cx, "steps", 4)?);
        let ranges = ranges(&starts, &ends, axes.as_deref(), steps.as_deref(), x.shape())?;
        let strides = movement::strides(x.shape());
        let offsets: Vec<Vec<usize>> =
            ranges.iter().zip(strides).map(|(r, s)| r.positions().map(|p| p * s).collect()).collect();
        Ok(vec![movement::select(x, &offsets)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer};
    use crate::{DType, Tensor};

    #[test]
    fn bounds_are_clamped_on_both_sides() {
        let p = |s, e, step, n| Range::clamp(s, e, step, n).unwrap().positions().collect::<Vec<_>>();
        assert_eq!(p(1, 100, 2, 6), [1, 3, 5]);
        assert_eq!(p(-3, -1, 1, 5), [2, 3]);
        assert_eq!(p(10, i64::MIN, -3, 7), [6, 3, 0]);
        assert_eq!(p(i64::MAX, 2, i64::MIN, 5), [4]);
        assert_eq!(p(-100, i64::MAX, i64::MAX, 3), [0]);
        assert!(p(3, 1, 1, 5).is_empty() && p(0, 0, -1, 0).is_empty() && p(5, 9, 1, 5).is_empty());
        assert!(Range::clamp(0, 1, 0, 5).is_err());
    }

    #[test]
    fn attributes_of_version_1() {
        let x = Tensor::new(vec![2, 3], (0..6u8).collect()).unwrap();
        let list = |v: &[i64]| v.to_vec();
        let attrs = Attrs::new().with("starts", list(&[1])).with("ends", list(&[9])).with("axes", list(&[1]));
        assert_eq!(eval1("Slice", 1, attrs, &[Some(x)]).unwrap().bytes().as_ref(), [1, 2, 4, 5]);
    }

    #[test]
    fn the_symbol_of_a_shape_slice_stays() {
        let n = Dim::symbol("N");
        let shape = Fact::of_dims(DType::I64, DimTensor::vector([n.clone(), Dim::Known(3)]).unwrap());
        let c = |v: i64| Some(Fact::constant(Tensor::from_i64s([v])));
        let y = infer("Slice", 13, Attrs::new(), &[Some(shape), c(0), c(1)], 1).unwrap();
        assert_eq!(y[0].dims, DimTensor::vector([n.clone()]));
        let x = crate::ValueType::tensor(DType::F32, [n.clone()]).into();
        let y = infer("Slice", 13, Attrs::new(), &[Some(x), c(1), c(i64::MAX)], 1).unwrap();
        assert_eq!(y[0].ty, crate::ValueType::tensor(DType::F32, [n.offset(-1)]));
    }
}
