//! Elementwise operators of two inputs that give the type they take: a table of functions.
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::ops::broadcast;
use crate::ops::numeric::{Num, Real, with_num};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, Value};

/// `Add`, `Sub`, `Mul`, `Div`, `Pow`, `Mod`, the logical and the bitwise operators.
pub struct Binary {
    name: &'static str,
    since: &'static [i64],
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    PRelu,
    BitShift,
    And,
    Or,
    Xor,
}

macro_rules! table {
    ($($doc:literal $id:ident = $name:literal $since:expr, $kind:ident;)*) => { $(
        #[doc = $doc]
        pub static $id: Binary = Binary { name: $name, since: &$since, kind: Kind::$kind };
    )* };
}

table! {
    "`Add`." ADD = "Add" [1, 6, 7, 13, 14], Add;
    "`And` of truth values." AND = "And" [1, 7], And;
    "`BitShift`." BIT_SHIFT = "BitShift" [11, 28], BitShift;
    "`BitwiseAnd`." BITWISE_AND = "BitwiseAnd" [18], And;
    "`BitwiseOr`." BITWISE_OR = "BitwiseOr" [18], Or;
    "`BitwiseXor`." BITWISE_XOR = "BitwiseXor" [18], Xor;
    "`Div`; integers truncate." DIV = "Div" [1, 6, 7, 13, 14], Div;
    "`Mod`." MOD = "Mod" [10, 13, 28], Mod;
    "`Mul`." MUL = "Mul" [1, 6, 7, 13, 14], Mul;
    "`Or` of truth values." OR = "Or" [1, 7], Or;
    "`PRelu`: `slope * x` where x is negative, else x." PRELU = "PRelu" [1, 6, 7, 9, 16], PRelu;
    "`Sub`." SUB = "Sub" [1, 6, 7, 13, 14], Sub;
    "`Xor` of truth values." XOR = "Xor" [1, 7], Xor;
}

/// The parsed attributes of a binary operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Params {
    /// `Mod`: the quotient truncates (sign of the dividend) instead of rounding down (sign of the divisor).
    pub fmod: bool,
    /// `BitShift`: to the left.
    pub left: bool,
}

/// Reads the attributes of `Mod` and `BitShift`; the other operators have none.
pub fn params(node: &OpNode) -> Result<Params> {
    let left = match node.attrs.str("direction")? {
        Some("LEFT") => true,
        Some("RIGHT") | None => false,
        Some(other) => return Err(Error::mismatch("attribute `direction`", other, "LEFT or RIGHT")),
    };
    Ok(Params { fmod: node.attrs.flag("fmod", false)?, left })
}

/// What the table's operators do on one type.
trait Arith: Num {
    /// Errors on an integer division by zero.
    fn divide(self, other: Self) -> Result<Self>;
    /// Errors on an integer division by zero.
    fn modulo(self, other: Self, fmod: bool) -> Result<Self>;
    fn bit(self, other: Self, kind: Kind) -> Self;
    fn shift(self, by: Self, left: bool) -> Self;
}

fn zero_divisor() -> Error {
    Error::mismatch("integer divisor", 0, "anything else")
}

macro_rules! arith_ints { ($($t:ty)*) => { $(
    impl Arith for $t {
        fn divide(self, other: Self) -> Result<Self> {
            if other == 0 { Err(zero_divisor()) } else { Ok(self.wrapping_div(other)) }
        }
        fn modulo(self, other: Self, fmod: bool) -> Result<Self> {
            if other == 0 {
                return Err(zero_divisor());
            }
            let rest = self.wrapping_rem(other);
            // the remainder has the dividend's sign: one divisor more gives it the divisor's
            #[allow(unused_comparisons)]
            let other_sign = rest != 0 && (rest < 0) != (other < 0);
            Ok(if !fmod && other_sign { rest.wrapping_add(other) } else { rest })
        }
        fn bit(self, other: Self, kind: Kind) -> Self {
            match kind {
                Kind::And => self & other,
                Kind::Or => self | other,
                _ => self ^ other,
            }
        }
        #[allow(unused_comparisons)]
        fn shift(self, by: Self, left: bool) -> Self {
            let by = u32::try_from(by).ok().filter(|b| *b < <$t>::BITS);
            match (by, left) {
                (Some(by), true) => self << by,
                (Some(by), false) => self >> by,
                (None, false) if self < 0 => (0 as $t).wrapping_sub(1),
                (None, _) => 0,
            }
        }
    }
)* } }
arith_ints! { u8 i8 u16 i16 u32 i32 u64 i64 }

macro_rules! arith_floats { ($($t:ty)*) => { $(
    impl Arith for $t {
        fn divide(self, other: Self) -> Result<Self> {
            Ok(self / other)
        }
        fn modulo(self, other: Self, fmod: bool) -> Result<Self> {
            let rest = self % other;
            Ok(if fmod || rest.is_nan() {
                rest
            } else if rest == 0.0 {
                rest.abs().copysign(other)
            } else if (rest < 0.0) != (other < 0.0) {
                rest + other
            } else {
                rest
            })
        }
        fn bit(self, _: Self, _: Kind) -> Self { <$t>::NAN }
        fn shift(self, _: Self, _: bool) -> Self { <$t>::NAN }
    }
)* } }
arith_floats! { f32 f64 }

fn apply<T: Arith>(kind: Kind, p: Params, a: T, b: T) -> Result<T> {
    Ok(match kind {
        Kind::Add => a.plus(b),
        Kind::Sub => a.minus(b),
        Kind::Mul => a.times(b),
        Kind::Div => return a.divide(b),
        Kind::Mod => return a.modulo(b, p.fmod),
        Kind::PRelu if a < T::ZERO => a.times(b),
        Kind::PRelu => a,
        Kind::BitShift => a.shift(b, p.left),
        Kind::And | Kind::Or | Kind::Xor => a.bit(b, kind),
    })
}

impl Binary {
    fn is_logical(&self) -> bool {
        matches!(self.name, "And" | "Or" | "Xor")
    }
    fn is_bitwise(&self) -> bool {
        matches!(self.kind, Kind::And | Kind::Or | Kind::Xor | Kind::BitShift)
    }
    /// Shape arithmetic on symbolic elements.
    fn dims(&self, cx: &InferCtx<'_>) -> Option<DimTensor> {
        let f: fn(&Dim, &Dim) -> Dim = match self.kind {
            Kind::Add => Dim::add,
            Kind::Sub => Dim::sub,
            Kind::Mul => Dim::mul,
            // the operator truncates, which is rounding down only of what is not negative
            Kind::Div => |a, b| if a.is_nonnegative() { a.floor_div(b) } else { Dim::Unknown },
            _ => return None,
        };
        zip_dims(&cx.dims(0)?, &cx.dims(1)?, f)
    }
}

/// `f` of the elements of two scalars or vectors, broadcast.
pub(crate) fn zip_dims(a: &DimTensor, b: &DimTensor, f: impl Fn(&Dim, &Dim) -> Dim) -> Option<DimTensor> {
    let n = if a.elems().len() == 1 { b.elems().len() } else { a.elems().len() };
    let at = |d: &DimTensor, i: usize| d.elems().get(if d.elems().len() == 1 { 0 } else { i }).cloned();
    let elems = (0..n).map(|i| Some(f(&at(a, i)?, &at(b, i)?))).collect::<Option<Vec<_>>>()?;
    DimTensor::of(a.is_scalar() && b.is_scalar(), elems)
}

/// Slope of `PRelu` shaped for broadcasting: before opset 7 one slope for each channel of `[N, C, …]`.
fn prelu_slope<T: Clone>(node: &OpNode, x_rank: usize, slope: &[T], one: T) -> Vec<T> {
    match slope {
        [c] if node.version < 7 && x_rank > 1 => {
            std::iter::once(c.clone()).chain(std::iter::repeat_n(one, x_rank - 2)).collect()
        }
        _ => slope.to_vec(),
    }
}

impl Operator for Binary {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: self.since, inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        params(cx.node)?;
        let dtype = if cx.dtype(0)? == DType::Undefined { cx.dtype(1)? } else { cx.dtype(0)? };
        if self.kind == Kind::PRelu {
            if let Some(x) = cx.shape(0)?.filter(|_| cx.version() >= 7) {
                cx.need_stretch(1, x)?;
            }
            return Ok(vec![cx.ty(0)?.clone().into()]);
        }
        let ty = broadcast::infer(cx, [0, 1], dtype)?;
        Ok(vec![match self.dims(cx) {
            Some(dims) if matches!(dtype, DType::I64 | DType::I32) => Fact::of_dims(dtype, dims),
            _ => ty.into(),
        }])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (a, b, p) = (cx.tensor(0)?, cx.tensor(1)?, params(cx.node)?);
        let slope;
        let b = if self.kind == Kind::PRelu {
            slope = b.reshaped(prelu_slope(cx.node, a.rank(), b.shape(), 1))?;
            &slope
        } else {
            b
        };
        if a.dtype() != b.dtype() {
            return Err(Error::mismatch("element type of the second input", b.dtype(), a.dtype()));
        }
        let (a, b, out) = broadcast::operands(cx.node, a, b)?;
        if self.kind == Kind::PRelu && out != a.shape() {
            return Err(Error::mismatch(
                "shape of slope",
                format!("{:?}", b.shape()),
                format!("{:?}", a.shape()),
            ));
        }
        if self.is_logical() {
            let f = |x: bool, y: bool| match self.kind {
                Kind::And => x && y,
                Kind::Or => x || y,
                _ => x != y,
            };
            let y = broadcast::map2((&a.as_bools()?, a.shape()), (&b.as_bools()?, b.shape()), &out, f);
            return Ok(vec![Tensor::from_bools(out, y)?.into()]);
        }
        if self.is_bitwise() && !a.dtype().is_int() {
            return Err(unsupported_dtype(a.dtype()));
        }
        with_num!(a.dtype(), T => {
            let (x, y) = (T::load(&a)?, T::load(&b)?);
            let f = |x: T, y: T| apply(self.kind, p, x, y);
            let z = broadcast::map2((&x[..], a.shape()), (&y[..], b.shape()), &out, f);
            Ok(vec![T::store(a.dtype(), out, z.into_iter().collect::<Result<_>>()?)?.into()])
        })
    }
}

/// `Pow`: the base's type; the exponent may have another.
pub struct Pow;

impl Operator for Pow {
    fn schema(&self) -> Schema {
        Schema { name: "Pow", domain: "", since: &[1, 7, 12, 13, 15], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![broadcast::infer(cx, [0, 1], cx.dtype(0)?)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (a, b, out) = broadcast::operands(cx.node, cx.tensor(0)?, cx.tensor(1)?)?;
        with_num!(a.dtype(), T => {
            let x = T::load(&a)?;
            let z = with_num!(b.dtype(), E => {
                let e = E::load(&b)?;
                broadcast::map2((&x[..], a.shape()), (&e[..], b.shape()), &out, |x: T, e: E| x.power(e))
            });
            Ok(vec![T::store(a.dtype(), out, z)?.into()])
        })
    }
}

trait Power: Num {
    fn power<E: Num>(self, e: E) -> Self;
}
macro_rules! power_floats { ($($t:ty)*) => { $(
    impl Power for $t {
        fn power<E: Num>(self, e: E) -> Self {
            // an integral exponent of a narrow type is exact in f32; the others go through the type's own power
            Real::powf(self, <$t>::from_f64(e.to_f64()))
        }
    }
)* } }
power_floats! { f32 f64 }
macro_rules! power_ints { ($($t:ty)*) => { $(
    impl Power for $t {
        /// Wraps for exponents that are whole and not negative, else the float result cut to the type.
        fn power<E: Num>(self, e: E) -> Self {
            let e = e.to_f64();
            if e >= 0.0 && e.fract() == 0.0 && e <= f64::from(u32::MAX) {
                self.wrapping_pow(e as u32)
            } else {
                Self::from_f64(self.to_f64().powf(e))
            }
        }
    }
)* } }
power_ints! { u8 i8 u16 i16 u32 i32 u64 i64 }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ValueType;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer};

    fn t(shape: &[usize], v: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(shape, v.to_vec()).unwrap())
    }
    fn ints(v: &[i64]) -> Option<Tensor> {
        Some(Tensor::from_i64s(v))
    }

    #[test]
    fn before_opset_7_the_second_input_lies_along_an_axis() {
        let attrs = Attrs::new().with("broadcast", 1i64).with("axis", 0i64);
        let (a, b) = (t(&[2, 3], &[0.0; 6]), t(&[2], &[1.0, 2.0]));
        let y = eval1("Add", 6, attrs, &[a.clone(), b.clone()]).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap()[..], [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        assert!(eval1("Add", 14, Attrs::new(), &[a, b]).is_err(), "numpy broadcasting aligns the last axes");
    }

    #[test]
    fn integers_truncate_wrap_and_refuse_zero() {
        let y = eval1("Div", 14, Attrs::new(), &[ints(&[-7, 7, i64::MIN]), ints(&[2, -2, -1])]).unwrap();
        assert_eq!(y.to_i64s().unwrap(), [-3, -3, i64::MIN]);
        let y = eval1("Mod", 13, Attrs::new(), &[ints(&[-7, 7]), ints(&[2, -2])]).unwrap();
        assert_eq!(y.to_i64s().unwrap(), [1, -1], "the divisor's sign");
        let y = eval1("Mod", 13, Attrs::new().with("fmod", 1i64), &[ints(&[-7, 7]), ints(&[2, -2])]).unwrap();
        assert_eq!(y.to_i64s().unwrap(), [-1, 1], "the dividend's sign");
        for op in ["Div", "Mod"] {
            let error = eval1(op, 14, Attrs::new(), &[ints(&[1]), ints(&[0])]).unwrap_err();
            assert_eq!(error.to_string(), "integer divisor: got 0, wanted anything else");
        }
    }

    #[test]
    fn shape_arithmetic_keeps_symbols() {
        let n = Dim::symbol("N");
        let shape = Fact {
            ty: ValueType::tensor(DType::I64, [2usize]),
            dims: DimTensor::vector([n.clone(), Dim::Known(6)]),
            value: None,
        };
        let scalar = |v: i64| Some(Fact::constant(Tensor::scalar(v)));
        let dims = |op: &str, b| {
            infer(op, 14, Attrs::new(), &[Some(shape.clone()), b], 1)
                .unwrap()
                .remove(0)
                .dims
                .unwrap()
                .into_elems()
        };
        assert_eq!(dims("Mul", scalar(2)), [n.mul(&Dim::Known(2)), Dim::Known(12)]);
        assert_eq!(dims("Add", scalar(-1)), [n.offset(-1), Dim::Known(5)]);
        assert_eq!(dims("Sub", scalar(1)), [n.offset(-1), Dim::Known(5)]);
        assert_eq!(dims("Div", scalar(2)), [n.floor_div(&Dim::Known(2)), Dim::Known(3)]);
    }

    #[test]
    fn a_slope_for_each_channel_before_opset_7() {
        let (x, slope) = (t(&[1, 2, 2], &[-1.0, 1.0, -1.0, -2.0]), t(&[2], &[0.5, 0.25]));
        let y = eval1("PRelu", 6, Attrs::new(), &[x, slope]).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap()[..], [-0.5, 1.0, -0.25, -0.5]);
    }
}
