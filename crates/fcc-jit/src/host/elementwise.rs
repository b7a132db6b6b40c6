//! Elementwise operators on integers, truth values and mixed types.
use super::{Host, HostOp, Space, elems, elems_mut, input};
use fcc_ir::{DType, Error, Result};
use std::cmp::Ordering;
use std::sync::Arc;

/// `f` of two inputs, row by row; `x` and `y` are inputs `at` and `at + 1` of the space.
fn zip<A: Copy, B: Copy, O>((x, y): (&[A], &[B]), out: &mut [O], space: &Space, f: impl Fn(A, B) -> O) {
    let (n, [sx, sy, _]) = space.row();
    let mut rows = out.chunks_exact_mut(n.max(1));
    space.for_rows(|[i, k, _]| {
        let Some(out) = rows.next() else { return };
        match (sx, sy) {
            (1, 1) => {
                out.iter_mut().zip(&x[i..i + n]).zip(&y[k..k + n]).for_each(|((o, a), b)| *o = f(*a, *b))
            }
            (1, 0) => {
                let b = y[k];
                out.iter_mut().zip(&x[i..i + n]).for_each(|(o, a)| *o = f(*a, b))
            }
            (0, 1) => {
                let a = x[i];
                out.iter_mut().zip(&y[k..k + n]).for_each(|(o, b)| *o = f(a, *b))
            }
            _ => out.iter_mut().enumerate().for_each(|(j, o)| *o = f(x[i + j * sx], y[k + j * sy])),
        }
    });
}

/// What two elements become.
pub(crate) trait ZipOp: Send + Sync + std::fmt::Debug + 'static {
    /// Its name.
    fn name(&self) -> String;
    /// Computes all elements.
    fn zip(&self, dtype: DType, x: &[u8], y: &[u8], out: &mut [u8], space: &Space) -> Result<()>;
}

/// An operator of two inputs of one type.
#[derive(Debug)]
pub(crate) struct Zip<F> {
    /// The operator.
    pub f: F,
    /// The inputs' type.
    pub dtype: DType,
    /// Where their elements lie.
    pub space: Space,
}

impl<F: ZipOp> HostOp for Zip<F> {
    fn name(&self) -> String {
        format!("{} of {}", self.f.name(), self.dtype)
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        self.f.zip(self.dtype, input(inputs, 0)?, input(inputs, 1)?, output, &self.space)
    }
}

/// Evaluates `$body` with `$T` bound to an integer type; `else` on any other.
macro_rules! ints {
    ($dtype:expr, $T:ident => $body:expr, else $other:expr) => {
        match $dtype {
            DType::I32 => {
                type $T = i32;
                $body
            }
            DType::I64 => {
                type $T = i64;
                $body
            }
            DType::U8 => {
                type $T = u8;
                $body
            }
            DType::I8 => {
                type $T = i8;
                $body
            }
            DType::U32 => {
                type $T = u32;
                $body
            }
            DType::U64 => {
                type $T = u64;
                $body
            }
            _ => $other,
        }
    };
}

fn other_type(dtype: DType) -> Error {
    Error::unsupported(format!("element type {dtype} in a compiled step"))
}

/// Arithmetic of integers; it wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    /// The remainder, with the divisor's sign or (`fmod`) the dividend's.
    Mod {
        fmod: bool,
    },
    Min,
    Max,
}

impl Arith {
    /// Whether it computes this type.
    pub fn takes(dtype: DType) -> bool {
        ints!(dtype, T => { let _: T = 0; true }, else false)
    }
}

impl ZipOp for Arith {
    fn name(&self) -> String {
        format!("{self:?}")
    }
    fn zip(&self, dtype: DType, x: &[u8], y: &[u8], out: &mut [u8], space: &Space) -> Result<()> {
        ints!(dtype, T => {
            let (x, y, out) = (elems::<T>(x), elems::<T>(y), elems_mut::<T>(out)?);
            let divides = matches!(self, Arith::Div | Arith::Mod { .. });
            if divides && !out.is_empty() && y.contains(&0) {
                return Err(Error::mismatch("integer divisor", 0, "anything else"));
            }
            let both = (&x[..], &y[..]);
            match *self {
                Arith::Add => zip(both, out, space, T::wrapping_add),
                Arith::Sub => zip(both, out, space, T::wrapping_sub),
                Arith::Mul => zip(both, out, space, T::wrapping_mul),
                Arith::Div => zip(both, out, space, T::wrapping_div),
                Arith::Mod { fmod: true } => zip(both, out, space, T::wrapping_rem),
                #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)]
                Arith::Mod { fmod: false } => zip(both, out, space, |a: T, b: T| {
                    let rest = a.wrapping_rem(b);
                    if rest != 0 && (rest < 0) != (b < 0) { rest.wrapping_add(b) } else { rest }
                }),
                Arith::Min => zip(both, out, space, T::min),
                Arith::Max => zip(both, out, space, T::max),
            }
            Ok(())
        }, else Err(other_type(dtype)))
    }
}

/// A comparison, giving truth values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Compare {
    /// Whether it compares this type.
    pub fn takes(dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::F64 | DType::Bool) || Arith::takes(dtype)
    }
    /// NaN is never equal, less or greater.
    fn compare<T: PartialOrd + Copy>(self, x: &[T], y: &[T], out: &mut [u8], space: &Space) {
        match self {
            Compare::Equal => zip((x, y), out, space, |a, b| u8::from(a == b)),
            Compare::Less => zip((x, y), out, space, |a, b| u8::from(a < b)),
            Compare::LessOrEqual => zip((x, y), out, space, |a, b| u8::from(a <= b)),
            Compare::Greater => zip((x, y), out, space, |a, b| u8::from(a > b)),
            Compare::GreaterOrEqual => zip((x, y), out, space, |a, b| u8::from(a >= b)),
        }
    }
}

impl ZipOp for Compare {
    fn name(&self) -> String {
        format!("{self:?}")
    }
    fn zip(&self, dtype: DType, x: &[u8], y: &[u8], out: &mut [u8], space: &Space) -> Result<()> {
        match dtype {
            DType::F32 => self.compare(&elems::<f32>(x), &elems::<f32>(y), out, space),
            DType::F64 => self.compare(&elems::<f64>(x), &elems::<f64>(y), out, space),
            DType::Bool => {
                // any byte but 0 is true
                let order = |a: u8, b: u8| (a != 0).cmp(&(b != 0));
                let f = *self;
                let holds = move |o: Ordering| match f {
                    Compare::Equal => o.is_eq(),
                    Compare::Less => o.is_lt(),
                    Compare::LessOrEqual => o.is_le(),
                    Compare::Greater => o.is_gt(),
                    Compare::GreaterOrEqual => o.is_ge(),
                };
                zip((x, y), out, space, |a, b| u8::from(holds(order(a, b))));
            }
            _ => ints!(dtype, T => self.compare(&elems::<T>(x), &elems::<T>(y), out, space),
                else return Err(other_type(dtype))),
        }
        Ok(())
    }
}

/// A function of two truth values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
    Xor,
}

impl ZipOp for Logic {
    fn name(&self) -> String {
        format!("{self:?}")
    }
    fn zip(&self, _: DType, x: &[u8], y: &[u8], out: &mut [u8], space: &Space) -> Result<()> {
        match self {
            Logic::And => zip((x, y), out, space, |a, b| u8::from((a != 0) & (b != 0))),
            Logic::Or => zip((x, y), out, space, |a, b| u8::from((a | b) != 0)),
            Logic::Xor => zip((x, y), out, space, |a, b| u8::from((a != 0) != (b != 0))),
        }
        Ok(())
    }
}

/// `Not`.
#[derive(Debug)]
pub(crate) struct Not;

impl HostOp for Not {
    fn name(&self) -> String {
        "Not".into()
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        output.iter_mut().zip(input(inputs, 0)?).for_each(|(o, x)| *o = u8::from(*x == 0));
        Ok(())
    }
}

/// `Cast` between numbers and truth values.
#[derive(Debug)]
pub(crate) struct Cast {
    /// The input's type.
    pub from: DType,
    /// The output's type.
    pub to: DType,
}

/// A type that casts to the others: floats by truncation to 64 bits whose low bits are kept.
trait Number: bytemuck::Pod {
    fn bits(self) -> u64;
    fn float(self) -> f32;
    fn double(self) -> f64;
    fn truth(self) -> bool;
}
macro_rules! int_numbers { ($($t:ty)*) => { $(
    impl Number for $t {
        fn bits(self) -> u64 { self as u64 }
        fn float(self) -> f32 { self as f32 }
        fn double(self) -> f64 { self as f64 }
        fn truth(self) -> bool { self != 0 }
    }
)* } }
int_numbers! { i8 u8 i32 i64 u32 u64 }
macro_rules! float_numbers { ($($t:ty)*) => { $(
    impl Number for $t {
        fn bits(self) -> u64 {
            if self >= 9_223_372_036_854_775_808.0 { self as u64 } else { self as i64 as u64 }
        }
        fn float(self) -> f32 { self as f32 }
        fn double(self) -> f64 { self as f64 }
        fn truth(self) -> bool { self != 0.0 }
    }
)* } }
float_numbers! { f32 f64 }

impl Cast {
    /// Whether there is a loop for it.
    pub fn takes(dtype: DType) -> bool {
        Compare::takes(dtype)
    }
    fn from<T: Number>(&self, x: &[u8], out: &mut [u8], read: impl Fn(T) -> T) -> Result<()> {
        let x = elems::<T>(x);
        let x = x.iter().map(|v| read(*v));
        match self.to {
            DType::F32 => elems_mut::<f32>(out)?.iter_mut().zip(x).for_each(|(o, v)| *o = v.float()),
            DType::F64 => elems_mut::<f64>(out)?.iter_mut().zip(x).for_each(|(o, v)| *o = v.double()),
            DType::Bool => out.iter_mut().zip(x).for_each(|(o, v)| *o = u8::from(v.truth())),
            to => ints!(to, O => {
                elems_mut::<O>(out)?.iter_mut().zip(x).for_each(|(o, v)| *o = v.bits() as O)
            }, else return Err(other_type(to))),
        }
        Ok(())
    }
}

impl HostOp for Cast {
    fn name(&self) -> String {
        format!("Cast {} to {}", self.from, self.to)
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let x = input(inputs, 0)?;
        match self.from {
            DType::F32 => self.from::<f32>(x, output, |v| v),
            DType::F64 => self.from::<f64>(x, output, |v| v),
            // any byte but 0 is true
            DType::Bool => self.from::<u8>(x, output, |v| u8::from(v != 0)),
            from => ints!(from, T => self.from::<T>(x, output, |v| v), else Err(other_type(from))),
        }
    }
}

/// `Where` for elements of `width` bytes: 1, 2, 4 or 8. Inputs: the condition, x, y.
pub(crate) fn select(width: usize, space: Space) -> Option<Host> {
    Some(match width {
        1 => Arc::new(Where::<u8>(space, Default::default())),
        2 => Arc::new(Where::<u16>(space, Default::default())),
        4 => Arc::new(Where::<u32>(space, Default::default())),
        8 => Arc::new(Where::<u64>(space, Default::default())),
        _ => return None,
    })
}

#[derive(Debug)]
struct Where<T>(Space, std::marker::PhantomData<T>);

impl<T: bytemuck::Pod + Send + Sync + std::fmt::Debug> HostOp for Where<T> {
    fn name(&self) -> String {
        format!("Where of {} bytes", size_of::<T>())
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let (c, x, y) = (input(inputs, 0)?, elems::<T>(input(inputs, 1)?), elems::<T>(input(inputs, 2)?));
        let (n, [sc, sx, sy]) = self.0.row();
        let mut rows = elems_mut::<T>(output)?.chunks_exact_mut(n.max(1));
        self.0.for_rows(|[ci, i, k]| {
            let Some(out) = rows.next() else { return };
            let pick = |c: u8, a: T, b: T| if c != 0 { a } else { b };
            match (sc, sx, sy) {
                (1, 1, 1) => {
                    let both = x[i..i + n].iter().zip(&y[k..k + n]);
                    let all = out.iter_mut().zip(&c[ci..ci + n]).zip(both);
                    all.for_each(|((o, c), (a, b))| *o = pick(*c, *a, *b));
                }
                (1, 0, 1) => {
                    let (a, all) = (x[i], out.iter_mut().zip(&c[ci..ci + n]).zip(&y[k..k + n]));
                    all.for_each(|((o, c), b)| *o = pick(*c, a, *b));
                }
                (1, 1, 0) => {
                    let (b, all) = (y[k], out.iter_mut().zip(&c[ci..ci + n]).zip(&x[i..i + n]));
                    all.for_each(|((o, c), a)| *o = pick(*c, *a, b));
                }
                _ => {
                    let at = |j: usize| pick(c[ci + j * sc], x[i + j * sx], y[k + j * sy]);
                    out.iter_mut().enumerate().for_each(|(j, o)| *o = at(j));
                }
            }
        });
        Ok(())
    }
}
