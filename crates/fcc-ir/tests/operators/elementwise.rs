//! `unary`, `activation`, `predicate`, `identity`, `constant`, `swiglu`, `cumulative`, `arg`.
use crate::{check, refuse};

#[test]
fn functions_of_one_number() {
    check(&[
        (13, "float[3] x = {-1.5, 0.0, 2.0}", "y = Abs (x)", "float[3] y = {1.5, 0.0, 2.0}"),
        (13, "int8[3] x = {-128, 0, 7}", "y = Abs (x)", "int8[3] y = {-128, 0, 7}"),
        (13, "int32[3] x = {-4, 0, 7}", "y = Neg (x)", "int32[3] y = {4, 0, -7}"),
        (13, "int32[3] x = {-4, 0, 7}", "y = Sign (x)", "int32[3] y = {-1, 0, 1}"),
        (14, "int32[3] x = {-4, 0, 7}", "y = Relu (x)", "int32[3] y = {0, 0, 7}"),
        (13, "float[4] x = {-1.5, -0.5, 0.5, 1.5}", "y = Floor (x)", "float[4] y = {-2.0, -1.0, 0.0, 1.0}"),
        (13, "float[4] x = {-1.5, -0.5, 0.5, 1.5}", "y = Ceil (x)", "float[4] y = {-1.0, -0.0, 1.0, 2.0}"),
        // halves go to the even number
        (
            22,
            "float[5] x = {-1.5, -0.5, 0.5, 1.5, 2.5}",
            "y = Round (x)",
            "float[5] y = {-2.0, -0.0, 0.0, 2.0, 2.0}",
        ),
        (13, "float[3] x = {0.25, 4.0, 9.0}", "y = Sqrt (x)", "float[3] y = {0.5, 2.0, 3.0}"),
        (13, "double[3] x = {0.25, 4.0, -1.0}", "y = Sqrt (x)", "double[3] y = {0.5, 2.0, nan}"),
        (13, "float[3] x = {0.25, 4.0, -0.0}", "y = Reciprocal (x)", "float[3] y = {4.0, 0.25, -inf}"),
        (13, "float[3] x = {0.0, 1.0, -1.0}", "y = Exp (x)", "float[3] y = {1.0, 2.7182817, 0.36787945}"),
        (13, "float[3] x = {1.0, 2.7182817, 0.0}", "y = Log (x)", "float[3] y = {0.0, 1.0, -inf}"),
        (13, "float[3] x = {0.0, 1.0, -inf}", "y = Sigmoid (x)", "float[3] y = {0.5, 0.7310586, 0.0}"),
        (13, "float[3] x = {0.0, 1.0, inf}", "y = Tanh (x)", "float[3] y = {0.0, 0.7615942, 1.0}"),
        (13, "float[2] x = {0.0, 1.0}", "y = Erf (x)", "float[2] y = {0.0, 0.8427008}"),
        (22, "float[2] x = {0.0, 1.0}", "y = Softplus (x)", "float[2] y = {0.6931472, 1.3132616}"),
        (22, "float[3] x = {-3.0, 0.0, 1.0}", "y = Softsign (x)", "float[3] y = {-0.75, 0.0, 0.5}"),
        (
            22,
            "float[4] x = {-4.0, -1.0, 0.0, 3.0}",
            "y = HardSwish (x)",
            "float[4] y = {0.0, -0.33333334, 0.0, 3.0}",
        ),
        // x * tanh(ln(1 + e^x)); at 0 it is 0
        (22, "float[2] x = {0.0, 1.0}", "y = Mish (x)", "float[2] y = {0.0, 0.8650984}"),
        (22, "float[2] x = {0.0, 1.0}", "a = Sin (x) y = Asin (a)", "float[2] y = {0.0, 1.0}"),
        (22, "float[2] x = {0.0, 1.0}", "a = Cos (x) y = Acos (a)", "float[2] y = {0.0, 1.0}"),
        (22, "float[2] x = {0.0, 1.0}", "a = Tan (x) y = Atan (a)", "float[2] y = {0.0, 1.0}"),
        (22, "float[2] x = {0.0, 1.0}", "a = Sinh (x) y = Asinh (a)", "float[2] y = {0.0, 1.0}"),
        (22, "float[2] x = {0.0, 1.0}", "a = Cosh (x) y = Acosh (a)", "float[2] y = {0.0, 1.0}"),
        (22, "float[2] x = {0.0, 0.5}", "a = Tanh (x) y = Atanh (a)", "float[2] y = {0.0, 0.5}"),
    ]);
}

#[test]
fn activations_with_attributes_and_their_defaults() {
    let x = "float[4] x = {-2.0, -0.5, 0.0, 3.0}";
    check(&[
        (16, x, "y = LeakyRelu (x)", "float[4] y = {-0.02, -0.005, 0.0, 3.0}"),
        (16, x, "y = LeakyRelu <alpha = 0.5> (x)", "float[4] y = {-1.0, -0.25, 0.0, 3.0}"),
        (22, x, "y = Elu (x)", "float[4] y = {-0.86466473, -0.39346933, 0.0, 3.0}"),
        (22, x, "y = Elu <alpha = 2.0> (x)", "float[4] y = {-1.7293295, -0.78693867, 0.0, 3.0}"),
        // max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
        (12, x, "y = Celu <alpha = 2.0> (x)", "float[4] y = {-1.2642411, -0.44239843, 0.0, 3.0}"),
        (
            22,
            x,
            "y = Selu <alpha = 1.0, gamma = 2.0> (x)",
            "float[4] y = {-1.7293295, -0.78693867, 0.0, 6.0}",
        ),
        (22, x, "y = HardSigmoid (x)", "float[4] y = {0.1, 0.4, 0.5, 1.0}"),
        (22, x, "y = HardSigmoid <alpha = 0.5, beta = 0.25> (x)", "float[4] y = {0.0, 0.0, 0.25, 1.0}"),
        (22, x, "y = ThresholdedRelu (x)", "float[4] y = {0.0, 0.0, 0.0, 3.0}"),
        (22, x, "y = ThresholdedRelu <alpha = -1.0> (x)", "float[4] y = {0.0, -0.5, 0.0, 3.0}"),
        (9, x, "y = Shrink <lambd = 1.0, bias = 0.5> (x)", "float[4] y = {-1.5, 0.0, 0.0, 2.5}"),
        (9, "int32[3] x = {-2, 0, 2}", "y = Shrink <lambd = 1.0, bias = 1.0> (x)", "int32[3] y = {-1, 0, 1}"),
        (24, "float[2] x = {0.0, 1.0}", "y = Swish (x)", "float[2] y = {0.0, 0.7310586}"),
        (24, "float[2] x = {0.0, 0.5}", "y = Swish <alpha = 2.0> (x)", "float[2] y = {0.0, 0.3655293}"),
        (20, "float[2] x = {0.0, 1.0}", "y = Gelu (x)", "float[2] y = {0.0, 0.8413447}"),
        (
            20,
            "float[2] x = {0.0, 1.0}",
            "y = Gelu <approximate = \"tanh\"> (x)",
            "float[2] y = {0.0, 0.841192}",
        ),
        (
            28,
            "float[2] a = {0.0, 1.0}, float[2] b = {5.0, 2.0}",
            "y = SwiGLU (a, b)",
            "float[2] y = {0.0, 1.4621172}",
        ),
    ]);
    refuse(&[
        (20, "float[1] x = {0.0}", "y = Gelu <approximate = \"erf\"> (x)", "approximate"),
        (28, "float[2] a = {0.0, 1.0}, float[1] b = {5.0}", "y = SwiGLU (a, b)", "got float[1]"),
        (16, "float[1] x = {0.0}", "y = LeakyRelu <alpha = 1> (x)", "alpha"),
    ]);
}

#[test]
fn predicates() {
    let x = "float[4] x = {nan, -inf, inf, 0.0}";
    check(&[
        (20, x, "y = IsNaN (x)", "bool[4] y = {1, 0, 0, 0}"),
        (20, x, "y = IsInf (x)", "bool[4] y = {0, 1, 1, 0}"),
        (20, x, "y = IsInf <detect_negative = 0> (x)", "bool[4] y = {0, 0, 1, 0}"),
        (10, x, "y = IsInf <detect_positive = 0> (x)", "bool[4] y = {0, 1, 0, 0}"),
        (1, "bool[2] x = {1, 0}", "y = Not (x)", "bool[2] y = {0, 1}"),
        (18, "uint8[2] x = {0, 5}", "y = BitwiseNot (x)", "uint8[2] y = {255, 250}"),
        (18, "int16[2] x = {0, 5}", "y = BitwiseNot (x)", "int16[2] y = {-1, -6}"),
    ]);
    refuse(&[(1, "float[2] x = {1.0, 0.0}", "y = Not (x)", "wanted bool")]);
}

#[test]
fn constants_and_identity() {
    check(&[
        (13, "", "y = Constant <value = float[2] {1.0, -2.0}> ()", "float[2] y = {1.0, -2.0}"),
        (13, "", "y = Constant <value_float = 1.5> ()", "float y = {1.5}"),
        (13, "", "y = Constant <value_floats = [1.5, 2.5]> ()", "float[2] y = {1.5, 2.5}"),
        (13, "", "y = Constant <value_int = -3> ()", "int64 y = {-3}"),
        (13, "", "y = Constant <value_ints = [4, 5]> ()", "int64[2] y = {4, 5}"),
        (13, "", "y = Constant <value_string = \"a\"> ()", "string y = {\"a\"}"),
        (13, "", "y = Constant <value_strings = [\"a\", \"\"]> ()", "string[2] y = {\"a\", \"\"}"),
        (14, "bfloat16[2] x = {16256, 0}", "y = Identity (x)", "bfloat16[2] y = {16256, 0}"),
    ]);
    refuse(&[
        (13, "", "y = Constant ()", "value"),
        (13, "", "y = Constant <value_int = 1, value_float = 1.0> ()", "value"),
    ]);
}

#[test]
fn sums_and_products_along_an_axis() {
    let x =
        "float[2,3] x = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, int32 one = {1}, int64 zero = {0}, int64 last = {-1}";
    check(&[
        (14, x, "y = CumSum (x, one)", "float[2,3] y = {1.0, 3.0, 6.0, 4.0, 9.0, 15.0}"),
        (14, x, "y = CumSum (x, zero)", "float[2,3] y = {1.0, 2.0, 3.0, 5.0, 7.0, 9.0}"),
        (14, x, "y = CumSum <exclusive = 1> (x, last)", "float[2,3] y = {0.0, 1.0, 3.0, 0.0, 4.0, 9.0}"),
        (11, x, "y = CumSum <reverse = 1> (x, one)", "float[2,3] y = {6.0, 5.0, 3.0, 15.0, 11.0, 6.0}"),
        (
            14,
            x,
            "y = CumSum <reverse = 1, exclusive = 1> (x, one)",
            "float[2,3] y = {5.0, 3.0, 0.0, 11.0, 6.0, 0.0}",
        ),
        (26, x, "y = CumProd (x, one)", "float[2,3] y = {1.0, 2.0, 6.0, 4.0, 20.0, 120.0}"),
        (
            26,
            x,
            "y = CumProd <exclusive = 1, reverse = 1> (x, one)",
            "float[2,3] y = {6.0, 3.0, 1.0, 30.0, 6.0, 1.0}",
        ),
    ]);
    refuse(&[(14, "float[2] x = {1.0, 2.0}, int64 k = {1}", "y = CumSum (x, k)", "axis")]);
}

#[test]
fn places_of_the_greatest_and_least() {
    let x = "int32[2,3] x = {3, 9, 9, -1, -1, 5}";
    check(&[
        (13, x, "y = ArgMax <axis = 1> (x)", "int64[2,1] y = {1, 2}"),
        (13, x, "y = ArgMax <axis = -1, keepdims = 0> (x)", "int64[2] y = {1, 2}"),
        (12, x, "y = ArgMax <axis = 1, select_last_index = 1> (x)", "int64[2,1] y = {2, 2}"),
        (11, x, "y = ArgMin (x)", "int64[1,3] y = {1, 1, 1}"),
        (13, x, "y = ArgMin <axis = 1, keepdims = 0, select_last_index = 1> (x)", "int64[2] y = {0, 1}"),
        (13, "float[0,2] x = {}", "y = ArgMax <axis = 1> (x)", "int64[0,1] y = {}"),
    ]);
    refuse(&[
        (13, x, "y = ArgMax <axis = 2> (x)", "axis"),
        (13, "float[0,2] x = {}", "y = ArgMax (x)", "extent of axis 0"),
    ]);
}
