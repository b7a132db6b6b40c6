//! `ReduceSum` and its kin: one number over some axes. <https://onnx.ai/onnx/operators/onnx__ReduceSum.html>
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::ops::broadcast;
use crate::ops::numeric::{Num, with_num};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// A reduction.
pub struct Reduce {
    name: &'static str,
    since: &'static [i64],
    kind: Kind,
}

/// What is computed of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `sum |x|`
    L1,
    /// `sqrt(sum x^2)`
    L2,
    /// `ln(sum x)`
    LogSum,
    /// `ln(sum exp(x))`
    LogSumExp,
    /// Greatest; NaN wins.
    Max,
    /// `sum x / count`
    Mean,
    /// Least; NaN wins.
    Min,
    /// Product.
    Prod,
    /// Sum.
    Sum,
    /// `sum x^2`
    SumSquare,
}

macro_rules! table {
    ($($id:ident = $name:literal $since:expr, $kind:ident;)*) => { $(
        #[doc = concat!("`", $name, "`.")]
        pub static $id: Reduce = Reduce { name: $name, since: &$since, kind: Kind::$kind };
    )* };
}
table! {
    L1 = "ReduceL1" [1, 11, 13, 18], L1;
    L2 = "ReduceL2" [1, 11, 13, 18], L2;
    LOG_SUM = "ReduceLogSum" [1, 11, 13, 18, 28], LogSum;
    LOG_SUM_EXP = "ReduceLogSumExp" [1, 11, 13, 18, 28], LogSumExp;
    MAX = "ReduceMax" [1, 11, 12, 13, 18, 20], Max;
    MEAN = "ReduceMean" [1, 11, 13, 18], Mean;
    MIN = "ReduceMin" [1, 11, 12, 13, 18, 20], Min;
    PROD = "ReduceProd" [1, 11, 13, 18], Prod;
    SUM = "ReduceSum" [1, 11, 13], Sum;
    SUM_SQUARE = "ReduceSumSquare" [1, 11, 13, 18], SumSquare;
}

/// Axes made non-negative, ascending. Errors on one outside or given twice.
pub fn normalise_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut out = axes.iter().map(|a| crate::op::axis(*a, rank)).collect::<Result<Vec<_>>>()?;
    out.sort_unstable();
    if out.windows(2).any(|w| w[0] == w[1]) {
        return Err(Error::mismatch("axes", format!("{axes:?}"), "each axis once"));
    }
    Ok(out)
}

/// Whether axes come as an input (from opset 13 for `ReduceSum`, from 18 for the others) and not as an attribute.
pub fn axes_are_input(node: &OpNode) -> bool {
    node.version >= if node.op == crate::Op::ReduceSum { 13 } else { 18 }
}

/// The axes to reduce, ascending, from the attribute or the input (`given`); none means all, or with
/// `noop_with_empty_axes` none.
pub fn axes(node: &OpNode, given: Option<&[i64]>, rank: usize) -> Result<Vec<usize>> {
    let given = if axes_are_input(node) { given } else { node.attrs.ints("axes")? };
    match given {
        Some(axes) if !axes.is_empty() => normalise_axes(axes, rank),
        _ if node.attrs.flag("noop_with_empty_axes", false)? => Ok(vec![]),
        _ => Ok((0..rank).collect()),
    }
}

/// Whether reduced axes stay, with extent 1.
pub fn keepdims(node: &OpNode) -> Result<bool> {
    node.attrs.flag("keepdims", true)
}

/// The shape without the reduced axes, or with ones in their place.
pub fn out_shape<T: Clone>(shape: &[T], axes: &[usize], keepdims: bool, one: T) -> Vec<T> {
    let extent = |(i, d): (usize, &T)| match (axes.contains(&i), keepdims) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(one.clone()),
        (true, false) => None,
    };
    shape.iter().enumerate().filter_map(extent).collect()
}

/// Which output element each input element belongs to.
#[derive(Debug, Clone)]
pub struct Plan {
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Output elements.
    pub out_len: usize,
    /// Input elements for each output element.
    pub count: usize,
}

impl Plan {
    /// A reduction of `shape` over `axes`.
    pub fn new(shape: &[usize], axes: &[usize]) -> Plan {
        let kept = out_shape(shape, axes, true, 1);
        Plan {
            strides: broadcast::strides(&kept, shape),
            out_len: kept.iter().product(),
            count: axes.iter().map(|a| shape[*a]).product(),
            shape: shape.to_vec(),
        }
    }
    /// Calls `f` with each input's and its output's index, the inputs in order.
    pub(crate) fn for_each(&self, mut f: impl FnMut(usize, usize)) {
        let mut i = 0;
        broadcast::for_each(&self.shape, [&self.strides], |[o]| {
            f(i, o);
            i += 1;
        });
    }
    /// Folds the elements of each output in order.
    pub(crate) fn fold<T: Copy, A: Copy>(&self, x: &[T], init: A, f: impl Fn(A, T) -> A) -> Vec<A> {
        let mut out = vec![init; self.out_len];
        self.for_each(|i, o| out[o] = f(out[o], x[i]));
        out
    }
}

/// What reductions need beyond arithmetic: square roots and logarithms of integers go through f64.
trait Reducible: Num {
    fn magnitude(self) -> Self;
    fn mean(self, count: usize) -> Self;
    fn root(self) -> Self;
    fn log(self) -> Self;
    /// `ln(sum exp(x))` of some elements.
    fn log_sum_exp(elems: &mut dyn Iterator<Item = Self>, max: Self) -> Self;
}
macro_rules! reducible_floats { ($($t:ty)*) => { $(
    impl Reducible for $t {
        fn magnitude(self) -> Self { self.abs() }
        fn mean(self, count: usize) -> Self { self / count as $t }
        fn root(self) -> Self { self.sqrt() }
        fn log(self) -> Self { self.ln() }
        fn log_sum_exp(elems: &mut dyn Iterator<Item = Self>, max: Self) -> Self {
            // an infinite maximum must not meet itself in a difference
            let shift = if max.is_infinite() { 0.0 } else { max };
            elems.fold(0.0, |s: $t, v| s + (v - shift).exp()).ln() + shift
        }
    }
)* } }
reducible_floats! { f32 f64 }
macro_rules! reducible_ints { ($($t:ty)*) => { $(
    impl Reducible for $t {
        #[allow(unused_comparisons)]
        fn magnitude(self) -> Self { if self < 0 { (0 as $t).wrapping_sub(self) } else { self } }
        fn mean(self, count: usize) -> Self { Self::from_f64(self.to_f64() / count as f64) }
        fn root(self) -> Self { Self::from_f64(self.to_f64().sqrt()) }
        fn log(self) -> Self { Self::from_f64(self.to_f64().ln()) }
        fn log_sum_exp(elems: &mut dyn Iterator<Item = Self>, max: Self) -> Self {
            Self::from_f64(f64::log_sum_exp(&mut elems.map(Num::to_f64), max.to_f64()))
        }
    }
)* } }
reducible_ints! { u8 i8 u16 i16 u32 i32 u64 i64 }

fn greater<T: Num>(a: T, b: T) -> T {
    if b > a || b.is_nan() { b } else { a }
}
fn less<T: Num>(a: T, b: T) -> T {
    if b < a || b.is_nan() { b } else { a }
}

fn reduce<T: Reducible>(kind: Kind, plan: &Plan, x: &[T]) -> Vec<T> {
    let sum = || plan.fold(x, T::ZERO, T::plus);
    let squares = || plan.fold(x, T::ZERO, |s, v| s.plus(v.times(v)));
    let each = |values: Vec<T>, f: &dyn Fn(T) -> T| values.into_iter().map(f).collect();
    match kind {
        Kind::L1 => plan.fold(x, T::ZERO, |s, v| s.plus(v.magnitude())),
        Kind::L2 => each(squares(), &T::root),
        Kind::LogSum => each(sum(), &T::log),
        Kind::Max => plan.fold(x, T::LOWEST, greater),
        Kind::Mean => each(sum(), &|s| s.mean(plan.count)),
        Kind::Min => plan.fold(x, T::HIGHEST, less),
        Kind::Prod => plan.fold(x, T::ONE, T::times),
        Kind::Sum => sum(),
        Kind::SumSquare => squares(),
        Kind::LogSumExp => {
            let max = plan.fold(x, T::LOWEST, greater);
            let mut groups: Vec<Vec<T>> = vec![vec![]; plan.out_len];
            plan.for_each(|i, o| groups[o].push(x[i]));
            let of = |(g, m): (Vec<T>, T)| T::log_sum_exp(&mut g.into_iter(), m);
            groups.into_iter().zip(max).map(of).collect()
        }
    }
}

impl Reduce {
    /// What this operator computes.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// The product or sum of the extents in a shape.
    fn dims(&self, cx: &InferCtx<'_>) -> Option<DimTensor> {
        let (of, start) = match self.kind {
            Kind::Prod => (Dim::mul as fn(&Dim, &Dim) -> Dim, 1),
            Kind::Sum => (Dim::add as fn(&Dim, &Dim) -> Dim, 0),
            _ => return None,
        };
        let d = cx.dims(0).filter(|d| !d.is_scalar())?;
        let whole = if axes_are_input(cx.node) && cx.has(1) { cx.value(1)?.len() == 1 } else { true };
        let noop = cx.node.attrs.flag("noop_with_empty_axes", false).ok()?;
        let scalar = !keepdims(cx.node).unwrap_or(true);
        let all = || d.elems().iter().fold(Dim::Known(start), |p, e| of(&p, e));
        (whole && !noop).then(|| DimTensor::of(scalar, [all()]))?
    }
}

impl Operator for Reduce {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: self.since, inputs: (1, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (dtype, keep) = (cx.dtype(0)?, keepdims(cx.node)?);
        let Some(shape) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let given = cx.value(1).map(Tensor::to_i64s).transpose()?;
        if axes_are_input(cx.node) && cx.has(1) && given.is_none() {
            // which axes is known only at run time
            let ty = match keep {
                true => TensorType::new(dtype, shape.iter().map(|_| Dim::Unknown)),
                false => TensorType::unranked(dtype),
            };
            return Ok(vec![ty.into()]);
        }
        let axes = axes(cx.node, given.as_deref(), shape.len())?;
        let ty = TensorType::new(dtype, out_shape(shape, &axes, keep, Dim::Known(1)));
        Ok(vec![match self.dims(cx) {
            Some(dims) if matches!(dtype, DType::I64 | DType::I32) => Fact::of_dims(dtype, dims),
            _ => ty.into(),
        }])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let given = cx.opt_tensor(1)?.map(Tensor::to_i64s).transpose()?;
        let axes = axes(cx.node, given.as_deref(), x.rank())?;
        let out = out_shape(x.shape(), &axes, keepdims(cx.node)?, 1);
        let plan = Plan::new(x.shape(), &axes);
        if x.dtype() == DType::Bool {
            let values = x.as_bools()?;
            let y = match self.kind {
                Kind::Max => plan.fold(&values, false, |a, b| a || b),
                Kind::Min => plan.fold(&values, true, |a, b| a && b),
                _ => return Err(unsupported_dtype(DType::Bool)),
            };
            return Ok(vec![Tensor::from_bools(out, y)?.into()]);
        }
        with_num!(x.dtype(), T => {
            let y = reduce(self.kind, &plan, &T::load(x)?);
            Ok(vec![T::store(x.dtype(), out, y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ValueType;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer};

    #[test]
    fn axes_are_an_attribute_or_an_input() {
        let x = Some(Tensor::new([2, 3], vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap());
        let attrs = Attrs::new().with("axes", vec![-1i64]).with("keepdims", 0i64);
        let old = eval1("ReduceMean", 13, attrs, std::slice::from_ref(&x)).unwrap();
        let axes = Some(Tensor::from_i64s([-1]));
        let new = eval1("ReduceMean", 18, Attrs::new().with("keepdims", 0i64), &[x.clone(), axes]).unwrap();
        assert_eq!(old.as_slice::<f32>().unwrap()[..], [2.0, 5.0]);
        assert_eq!(old, new);
        let all = eval1("ReduceSum", 13, Attrs::new(), std::slice::from_ref(&x)).unwrap();
        assert_eq!((all.shape(), all.as_slice::<f32>().unwrap()[0]), (&[1usize, 1][..], 21.0));
        let none = Attrs::new().with("noop_with_empty_axes", 1i64);
        assert_eq!(eval1("ReduceSum", 13, none, std::slice::from_ref(&x)).ok(), x);
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element() {
        let x = Some(Tensor::new([2, 0], Vec::<f32>::new()).unwrap());
        for (op, want) in [("ReduceSum", 0.0), ("ReduceProd", 1.0), ("ReduceMax", f32::NEG_INFINITY)] {
            let y = eval1(op, 20, Attrs::new(), &[x.clone(), Some(Tensor::from_i64s([1]))]).unwrap();
            assert_eq!(y.as_slice::<f32>().unwrap()[..], [want; 2], "{op}");
        }
        let y = eval1("ReduceLogSumExp", 18, Attrs::new(), &[x, Some(Tensor::from_i64s([1]))]).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap()[..], [f32::NEG_INFINITY; 2]);
    }

    #[test]
    fn the_number_of_elements_stays_symbolic() {
        let n = Dim::symbol("N");
        let shape = Fact {
            ty: ValueType::tensor(DType::I64, [2usize]),
            dims: DimTensor::vector([n.clone(), Dim::Known(6)]),
            value: None,
        };
        let facts = infer("ReduceProd", 13, Attrs::new().with("keepdims", 0i64), &[Some(shape)], 1).unwrap();
        let dims = facts[0].dims.clone().unwrap();
        assert_eq!(dims, DimTensor::scalar(n.mul(&Dim::Known(6))));
    }

    #[test]
    fn axes_known_only_at_run_time_keep_the_rank() {
        let x = ValueType::tensor(DType::F32, [2usize, 3]);
        let axes = ValueType::tensor(DType::I64, [1usize]);
        let facts = infer("ReduceSum", 13, Attrs::new(), &[Some(x.into()), Some(axes.into())], 1).unwrap();
        assert_eq!(facts[0].ty, ValueType::tensor(DType::F32, [Dim::Unknown, Dim::Unknown]));
    }
}
