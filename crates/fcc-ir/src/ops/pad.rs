//! `Pad`. <https://onnx.ai/onnx/operators/onnx__Pad.html>
use super::{lists, movement};
use crate::convert::{Narrowing, from_f64s};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Pad`.
pub struct Pad;

/// What stands in the padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A constant.
    Constant,
    /// The elements mirrored at the edge, which is not repeated.
    Reflect,
    /// The element at the edge.
    Edge,
    /// The elements from the other side.
    Wrap,
}

/// `mode`, constant by default.
pub fn mode(node: &OpNode) -> Result<Mode> {
    match node.attrs.str_or("mode", "constant")? {
        "constant" => Ok(Mode::Constant),
        "reflect" => Ok(Mode::Reflect),
        "edge" => Ok(Mode::Edge),
        "wrap" => Ok(Mode::Wrap),
        other => Err(Error::mismatch("attribute `mode`", other, "constant, reflect, edge or wrap")),
    }
}

/// Elements added (or, negative, removed) before and after each axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pads {
    /// Before each axis.
    pub begin: Vec<i64>,
    /// After each axis.
    pub end: Vec<i64>,
}

impl Pads {
    /// From the list `[all beginnings, all ends]` of all axes or of the given ones.
    pub fn new(given: &[i64], axes: Option<&[i64]>, rank: usize) -> Result<Pads> {
        let axes = axes.map_or_else(|| Ok((0..rank).collect()), |a| lists::axes(a, rank))?;
        if given.len() != 2 * axes.len() {
            let wanted = format!("{} numbers", 2 * axes.len());
            return Err(Error::mismatch("pads", format!("{given:?}"), wanted));
        }
        let mut pads = Pads { begin: vec![0; rank], end: vec![0; rank] };
        for (i, &a) in axes.iter().enumerate() {
            pads.begin[a] = given[i];
            pads.end[a] = given[axes.len() + i];
        }
        Ok(pads)
    }
    /// The padded extent of an axis. Errors where more is removed than there is.
    pub fn out(&self, axis: usize, extent: usize) -> Result<usize> {
        let (b, e) = (self.begin[axis], self.end[axis]);
        let sum = i128::try_from(extent).unwrap_or(i128::MAX / 2) + i128::from(b) + i128::from(e);
        let limit = |n: &usize| isize::try_from(*n).is_ok();
        usize::try_from(sum)
            .ok()
            .filter(limit)
            .ok_or_else(|| Error::mismatch(format!("padded extent of axis {axis}"), sum, "at least 0"))
    }
    /// Where each padded position of an axis comes from; `None` is the constant. What negative pads remove goes
    /// first, the other modes fill from what stays.
    pub fn sources(&self, axis: usize, extent: usize, mode: Mode) -> Result<Vec<Option<usize>>> {
        let out = self.out(axis, extent)?;
        let removed = |p: i64| usize::try_from(p.unsigned_abs()).unwrap_or(usize::MAX) * usize::from(p < 0);
        let first = removed(self.begin[axis]).min(extent);
        let kept = extent - first - removed(self.end[axis]).min(extent - first);
        if kept == 0 && out > 0 && mode != Mode::Constant {
            return Err(Error::mismatch(format!("extent of axis {axis}"), 0, "elements to fill the padding"));
        }
        let n = kept as i64;
        let source = |i: usize| {
            let at = i as i64 - self.begin[axis].max(0);
            let inside = (0..n).contains(&at);
            let at = match mode {
                _ if inside => at,
                Mode::Constant => return None,
                Mode::Edge => at.clamp(0, n - 1),
                Mode::Wrap => at.rem_euclid(n),
                Mode::Reflect if n == 1 => 0,
                Mode::Reflect => {
                    let at = at.rem_euclid(2 * (n - 1));
                    if at < n { at } else { 2 * (n - 1) - at }
                }
            };
            Some(first + at as usize)
        };
        Ok((0..out).map(source).collect())
    }
}

/// The constant of the padding: the input since version 11, the attribute `value` before; 0 by default.
fn fill_value(cx: &EvalCtx<'_>, dtype: DType) -> Result<Tensor> {
    match cx.opt_tensor(2)? {
        Some(t) if t.len() == 1 => Ok(t.reshaped([])?),
        Some(t) => Err(Error::mismatch("constant_value", t.tensor_type(), "one element")),
        None if dtype == DType::String => Tensor::from_strings([], [""]),
        None => {
            let value = cx.node.attrs.float_or("value", 0.0)?;
            from_f64s(dtype, [], vec![f64::from(value)], Narrowing::default())
        }
    }
}

/// The attribute's name before version 2, and since.
pub fn attribute(node: &OpNode) -> &'static str {
    if node.version < 2 { "paddings" } else { "pads" }
}

impl Operator for Pad {
    fn schema(&self) -> Schema {
        Schema {
            name: "Pad",
            domain: "",
            since: &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25],
            inputs: (1, 4),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        cx.need_one_element(2)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let unknown = || Ok(vec![TensorType::new(dtype, vec![Dim::Unknown; x.len()]).into()]);
        let axes = match lists::inferred(cx, "axes", 3)? {
            lists::List::Unknown => return unknown(),
            lists::List::Absent => None,
            lists::List::Known(a) => Some(a),
        };
        let given = match lists::inferred(cx, attribute(cx.node), 1)? {
            lists::List::Known(v) => v,
            lists::List::Unknown => return unknown(),
            lists::List::Absent => return Err(Error::mismatch("pads", "none", "a list")),
        };
        let pads = Pads::new(&given, axes.as_deref(), x.len())?;
        let extent = |(i, d): (usize, &Dim)| match d {
            Dim::Known(n) => Ok(Dim::Known(pads.out(i, *n)?)),
            d => Ok(pads.begin[i].checked_add(pads.end[i]).map_or(Dim::Unknown, |p| d.offset(p))),
        };
        let out = x.iter().enumerate().map(extent).collect::<Result<Vec<_>>>()?;
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let given = lists::given(cx, attribute(cx.node), 1)?
            .ok_or_else(|| Error::mismatch("pads", "none", "a list"))?;
        let axes = lists::given(cx, "axes", 3)?;
        let pads = Pads::new(&given, axes.as_deref(), x.rank())?;
        let mode = mode(cx.node)?;
        let strides = movement::strides(x.shape());
        let out: Vec<usize> = (0..x.rank()).map(|i| pads.out(i, x.shape()[i])).collect::<Result<_>>()?;
        // before any list of that length is made
        movement::new_elems(&out)?;
        let offsets = (0..x.rank())
            .map(|i| {
                let sources = pads.sources(i, x.shape()[i], mode)?;
                Ok(sources.into_iter().map(|s| s.map(|s| s * strides[i])).collect())
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(vec![movement::select_or(x, &offsets, &fill_value(cx, x.dtype())?)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn sources_of_every_mode() {
        let of = |b: i64, e: i64, mode| Pads::new(&[b, e], None, 1).unwrap().sources(0, 3, mode).unwrap();
        let some = |v: &[usize]| v.iter().map(|v| Some(*v)).collect::<Vec<_>>();
        assert_eq!(of(1, 1, Mode::Constant), [None, Some(0), Some(1), Some(2), None]);
        assert_eq!(of(3, 4, Mode::Reflect), some(&[1, 2, 1, 0, 1, 2, 1, 0, 1, 2]));
        assert_eq!(of(2, 1, Mode::Edge), some(&[0, 0, 0, 1, 2, 2]));
        assert_eq!(of(4, 1, Mode::Wrap), some(&[2, 0, 1, 2, 0, 1, 2, 0]));
        assert_eq!(of(-1, 2, Mode::Edge), some(&[1, 2, 2, 2]));
        assert!(Pads::new(&[-2, -2], None, 1).unwrap().sources(0, 3, Mode::Constant).is_err());
    }

    #[test]
    fn the_attribute_of_version_2_and_axes_of_18() {
        let x = Tensor::new(vec![1, 2], vec![1f32, 2.]).unwrap();
        let attrs = Attrs::new().with("pads", vec![0i64, 1, 0, 0]).with("value", 9f32);
        let y = eval1("Pad", 2, attrs, &[Some(x.clone())]).unwrap();
        assert_eq!(*y.as_slice::<f32>().unwrap(), [9., 1., 2.]);
        let inputs = [Some(x), Some(Tensor::from_i64s([0, 1])), None, Some(Tensor::from_i64s([-1]))];
        let y = eval1("Pad", 18, Attrs::new(), &inputs).unwrap();
        assert_eq!(*y.as_slice::<f32>().unwrap(), [1., 2., 0.]);
    }
}
