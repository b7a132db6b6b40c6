//! Elementwise functions with numbers as attributes: `LeakyRelu`, `Elu`, `Gelu`, ….
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, each, with_num, with_real};
use crate::ops::unary::sigmoid;
use crate::{Error, OpNode, Result, Value};

/// An elementwise function with up to two parameters.
pub struct Activation {
    name: &'static str,
    since: &'static [i64],
    /// Names and defaults of the float attributes.
    attrs: &'static [(&'static str, f32)],
    f32: fn(f32, [f32; 2]) -> f32,
    f64: fn(f64, [f64; 2]) -> f64,
    /// Whether ONNX defines it on integers, too.
    ints: bool,
}

macro_rules! table {
    ($($doc:literal $id:ident = $name:literal $since:expr, $attrs:expr, $ints:literal, $f:ident;)*) => { $(
        #[doc = $doc]
        pub static $id: Activation = Activation {
            name: $name, since: &$since, attrs: &$attrs, f32: $f::<f32>, f64: $f::<f64>, ints: $ints,
        };
    )* };
}

table! {
    "`Celu`: `max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`."
        CELU = "Celu" [12, 28], [("alpha", 1.0)], false, celu;
    "`Elu`: `x` where positive, else `alpha * (exp(x) - 1)`."
        ELU = "Elu" [1, 6, 22], [("alpha", 1.0)], false, elu;
    "`Gelu`: `x * Phi(x)`; its parameter is 1 for the approximation by tanh."
        GELU = "Gelu" [20], [], false, gelu;
    "`HardSigmoid`: `max(0, min(1, alpha * x + beta))`."
        HARD_SIGMOID = "HardSigmoid" [1, 6, 22], [("alpha", 0.2), ("beta", 0.5)], false, hard_sigmoid;
    "`LeakyRelu`: `x` where not negative, else `alpha * x`."
        LEAKY_RELU = "LeakyRelu" [1, 6, 16], [("alpha", 0.01)], false, leaky_relu;
    "`Selu`: `gamma * x` where positive, else `gamma * alpha * (exp(x) - 1)`."
        SELU = "Selu" [1, 6, 22], [("alpha", 1.673_263_2), ("gamma", 1.050_701)], false, selu;
    "`Shrink`: `x + bias` below `-lambd`, `x - bias` above `lambd`, else 0."
        SHRINK = "Shrink" [9], [("bias", 0.0), ("lambd", 0.5)], true, shrink;
    "`Swish`: `x * sigmoid(alpha * x)`."
        SWISH = "Swish" [24], [("alpha", 1.0)], false, swish;
    "`ThresholdedRelu`: `x` where above `alpha`, else 0."
        THRESHOLDED_RELU = "ThresholdedRelu" [1, 10, 22], [("alpha", 1.0)], false, thresholded_relu;
}

fn celu<T: Real>(x: T, [alpha, _]: [T; 2]) -> T {
    let scaled = alpha * (x / alpha).exp_m1();
    // an alpha of 0 leaves NaN everywhere but below 0, as the text's formula does
    if x > T::ZERO && alpha != T::ZERO { x } else { scaled }
}
fn elu<T: Real>(x: T, [alpha, _]: [T; 2]) -> T {
    if x > T::ZERO { x } else { alpha * x.exp_m1() }
}
pub(crate) fn gelu<T: Real>(x: T, [tanh, _]: [T; 2]) -> T {
    let half = T::of(0.5);
    if tanh != T::ZERO {
        let scale = T::from_f64((2.0 / std::f64::consts::PI).sqrt());
        let cubic = x + T::from_f64(0.044715) * x * x * x;
        return half * x * (T::ONE + (scale * cubic).tanh());
    }
    half * x * (T::ONE + (x * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf())
}
pub(crate) fn hard_sigmoid<T: Real>(x: T, [alpha, beta]: [T; 2]) -> T {
    let y = alpha * x + beta;
    if y < T::ZERO {
        T::ZERO
    } else if y > T::ONE {
        T::ONE
    } else {
        y
    }
}
fn leaky_relu<T: Real>(x: T, [alpha, _]: [T; 2]) -> T {
    if x < T::ZERO { alpha * x } else { x }
}
fn selu<T: Real>(x: T, [alpha, gamma]: [T; 2]) -> T {
    gamma * if x > T::ZERO { x } else { alpha * x.exp_m1() }
}
fn shrink<T: Real>(x: T, [bias, lambd]: [T; 2]) -> T {
    if x < -lambd {
        x + bias
    } else if x > lambd {
        x - bias
    } else if x.is_nan() {
        x
    } else {
        T::ZERO
    }
}
pub(crate) fn swish<T: Real>(x: T, [alpha, _]: [T; 2]) -> T {
    x * sigmoid(alpha * x)
}
pub(crate) fn thresholded_relu<T: Real>(x: T, [alpha, _]: [T; 2]) -> T {
    if x > alpha || x.is_nan() { x } else { T::ZERO }
}

impl Activation {
    /// The parameters in the order of the table above: `[alpha]`, `[alpha, beta]`, `[alpha, gamma]`,
    /// `[bias, lambd]`; for `Gelu` 1 for the approximation by tanh. Absent ones are 0.
    pub fn params(&self, node: &OpNode) -> Result<[f32; 2]> {
        let mut params = [0.0; 2];
        for (p, (name, default)) in params.iter_mut().zip(self.attrs) {
            *p = node.attrs.float_or(name, *default)?;
        }
        if self.name == "Gelu" {
            params[0] = match node.attrs.str_or("approximate", "none")? {
                "none" => 0.0,
                "tanh" => 1.0,
                other => return Err(Error::mismatch("attribute `approximate`", other, "none or tanh")),
            };
        }
        if self.name == "Selu" && node.version < 6 {
            // version 1 gave the constants with fewer digits
            params = [node.attrs.float_or("alpha", 1.6732)?, node.attrs.float_or("gamma", 1.0507)?];
        }
        Ok(params)
    }
}

impl Operator for Activation {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: self.since, inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        self.params(cx.node)?;
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, params) = (cx.tensor(0)?, self.params(cx.node)?);
        if self.ints && x.dtype().is_int() {
            let params = params.map(f64::from);
            return with_num!(x.dtype(), T => {
                let y = each(&T::load(x)?, |v| T::from_f64((self.f64)(v.to_f64(), params)));
                Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
            });
        }
        trait Pick: Real {
            fn pick(a: &Activation) -> fn(Self, [Self; 2]) -> Self;
        }
        impl Pick for f32 {
            fn pick(a: &Activation) -> fn(f32, [f32; 2]) -> f32 {
                a.f32
            }
        }
        impl Pick for f64 {
            fn pick(a: &Activation) -> fn(f64, [f64; 2]) -> f64 {
                a.f64
            }
        }
        with_real!(x.dtype(), T => {
            let (f, params) = (T::pick(self), params.map(T::of));
            let y = each(&T::load(x)?, |v| f(*v, params));
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn celu_with_an_alpha_of_0_is_what_its_formula_says() {
        let x = Some(Tensor::new([4], vec![-2f32, 0.0, 1.0, 3.0]).unwrap());
        let y = |alpha: f32| {
            let y = eval1("Celu", 12, Attrs::new().with("alpha", alpha), std::slice::from_ref(&x)).unwrap();
            y.as_slice::<f32>().unwrap().to_vec()
        };
        let of_0 = y(0.0);
        assert!(of_0[0] == 0.0 && of_0[1..].iter().all(|v| v.is_nan()), "{of_0:?}");
        assert_eq!(y(2.0)[1..], [0.0, 1.0, 3.0]);
        assert_eq!(y(-1.0)[2..], [1.0, 3.0]);
    }
}
