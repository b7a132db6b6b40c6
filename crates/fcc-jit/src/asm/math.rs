//! Vector functions as assembler macros: each works on the registers it is given, in place.
//!
//! Errors are the largest distance from the exact value in units in the last place of the result, measured over all
//! finite inputs of the tests (dense grids and every exponent: `tests/ulp.rs`, `tests/activation.rs`). NaN gives NaN;
//! infinities give the limits.

use super::{Asm, Cmp};
use crate::error::Result;

/// Numerator of erf(x)/x in powers of x², for |x| up to 3.92; relative error 1.9e-8 before rounding (own fit).
const ERF_P: [f32; 6] = [
    std::f32::consts::FRAC_2_SQRT_PI,
    0.190_357_22,
    0.052_742_217,
    0.003_763_53,
    0.000_284_839_65,
    2.050_495_4e-6,
];
/// Its denominator.
const ERF_Q: [f32; 6] = [1.0, 0.502_032_46, 0.114_088_77, 0.014_965_004, 0.001_162_038_7, 3.809_374_5e-5];
/// erf is 1 within half a unit beyond this.
const ERF_END: f32 = 3.92;
/// Numerator of tanh(x)/x in powers of x², for |x| up to 9.2 (own fit). Near the end it rises above tanh, by 3e-7 at
/// 9.2, so that what is cut at 1 is 1 whatever the rounding; relative error 2.1e-8 otherwise.
const TANH_P: [f32; 5] = [1.0, 0.133_872_26, 0.003_502_923_8, 2.073_006_7e-5, 1.352_703e-8];
/// Its denominator.
const TANH_Q: [f32; 5] = [1.0, 0.467_205_46, 0.025_904_948, 0.000_329_762_2, 7.845_828e-7];
/// tanh stays at its value here beyond: 1.
const TANH_END: f32 = 9.2;
/// exp(r) for |r| up to ln(2)/2: 1 + r + r² times this in powers of r; relative error 3e-9 (own fit).
const EXP: [f32; 5] = [0.499_999_94, 0.166_665_2, 0.041_668_41, 0.008_368_921_5, 0.001_381_417_4];
/// ln(2), its leading bits: products with integers up to 2^9 are exact.
const LN2_HIGH: f32 = 0.693_359_4;
/// What `LN2_HIGH` leaves.
const LN2_LOW: f32 = -2.121_944_4e-4;
/// (ln(1 + f) - f + f²/2) / f³ in powers of f, for 1 + f from √½ to √2; relative error of the logarithm 6.5e-9 before
/// rounding (own fit).
const LN: [f32; 8] = [
    0.333_333_3,
    -0.250_008_2,
    0.200_012_27,
    -0.166_233_57,
    0.142_017_59,
    -0.131_601_83,
    0.127_615_75,
    -0.076_344_93,
];

impl Asm {
    /// `d = min(max(d, low), high)`, keeping NaN; `t` is overwritten.
    pub fn clamp(&mut self, d: usize, low: f32, high: f32, t: usize) -> Result<()> {
        if low != f32::NEG_INFINITY {
            self.splat(t, low)?;
            self.max(d, t, d)?;
        }
        if high != f32::INFINITY {
            self.splat(t, high)?;
            self.min(d, t, d)?;
        }
        Ok(())
    }

    /// `d = Σ c[i] * x^i`
    pub fn polynomial(&mut self, d: usize, x: usize, c: &[f32]) -> Result<()> {
        let Some((&last, rest)) = c.split_last() else { return self.zero(d) };
        self.splat(d, last)?;
        for &c in rest.iter().rev() {
            self.fma213(d, x, c)?;
        }
        Ok(())
    }

    /// `d = exp(d)`, within 2 ulp (and 1 of the smallest denormals); `t` are overwritten.
    pub fn exp(&mut self, d: usize, t: [usize; 2]) -> Result<()> {
        let [n, p] = t;
        self.clamp(d, -104.0, 89.0, n)?;
        self.mul(n, d, std::f32::consts::LOG2_E)?;
        self.round(n, n, 0)?;
        self.fnma(d, n, LN2_HIGH)?;
        self.fnma(d, n, LN2_LOW)?;
        self.polynomial(p, d, &EXP)?;
        self.fma213(p, d, 1.0)?;
        self.fma213(p, d, 1.0)?;
        if self.isa() == super::Isa::Avx512 {
            return self.scale_by_power(d, p, n);
        }
        // 2^n in two factors, so that denormal results and overflow come out right.
        self.to_int(n, n)?;
        self.shift_right_arithmetic(d, n, 1)?;
        self.subi(n, n, d)?;
        for half in [d, n] {
            self.addi(half, half, super::Src::Bits(127))?;
            self.shift_left(half, half, 23)?;
        }
        self.mul(p, p, d)?;
        self.mul(d, p, n)
    }

    /// `d = ln(d)`, within 3 ulp: NaN below 0, minus infinity at 0; `t` are overwritten.
    pub fn ln(&mut self, d: usize, t: [usize; 5]) -> Result<()> {
        let [p, f, e, s, z] = t;
        // denormal numbers are scaled up by 2^23
        self.mul(p, d, 8_388_608.0)?;
        self.select(f, Cmp::Lt, d, f32::MIN_POSITIVE, p, d, e)?;
        self.zero(z)?;
        self.splat(s, 23.0)?;
        self.select(s, Cmp::Lt, d, f32::MIN_POSITIVE, s, z, e)?;
        // x = 2^e * (1 + f), 1 + f from √½ on
        self.subi(e, f, super::Src::Bits(std::f32::consts::FRAC_1_SQRT_2.to_bits()))?;
        self.shift_right_arithmetic(e, e, 23)?;
        self.shift_left(p, e, 23)?;
        self.subi(f, f, p)?;
        self.from_int(e, e)?;
        self.sub(e, e, s)?;
        self.sub(f, f, 1.0)?;
        self.polynomial(p, f, &LN)?;
        self.mul(s, f, f)?;
        self.mul(p, p, f)?;
        self.mul(p, p, s)?;
        self.fnma(p, s, 0.5)?;
        self.fma(p, e, LN2_LOW)?;
        self.add(p, p, f)?;
        self.fma(p, e, LN2_HIGH)?;
        self.select(p, Cmp::Eq, d, f32::INFINITY, d, p, e)?;
        self.splat(f, f32::NEG_INFINITY)?;
        self.select(p, Cmp::Eq, d, 0.0, f, p, e)?;
        self.splat(f, f32::NAN)?;
        self.select(p, Cmp::Lt, d, 0.0, f, p, e)?;
        self.select(d, Cmp::Unordered, d, d, d, p, e)
    }

    /// `d = 1 / (1 + exp(-d))`, within 4 ulp where the result is normal; `t` are overwritten.
    pub fn sigmoid(&mut self, d: usize, t: [usize; 2]) -> Result<()> {
        self.xor(d, d, super::Src::Bits(0x8000_0000))?;
        self.exp(d, t)?;
        self.add(d, d, 1.0)?;
        self.splat(t[0], 1.0)?;
        self.div(d, t[0], d)
    }

    /// `d = d * sigmoid(d)`, within 5 ulp where the sigmoid is normal; `t` are overwritten.
    pub fn silu(&mut self, d: usize, t: [usize; 3]) -> Result<()> {
        self.mov(t[2], d)?;
        self.sigmoid(d, [t[0], t[1]])?;
        self.mul(d, d, t[2])
    }

    /// `d = tanh(d)`, within 5 ulp (6 where products and sums round apart), and 1 from 9.1 on as its neighbours of f32
    /// are: who quantises to the range of the results sees -1 to 1; `t` are overwritten.
    pub fn tanh(&mut self, d: usize, t: [usize; 3]) -> Result<()> {
        self.clamp(d, -TANH_END, TANH_END, t[0])?;
        self.odd_rational(d, &TANH_P, &TANH_Q, t)?;
        self.clamp(d, -1.0, 1.0, t[0])
    }

    /// `d = erf(d)`, within 6 ulp; `t` are overwritten.
    pub fn erf(&mut self, d: usize, t: [usize; 3]) -> Result<()> {
        self.clamp(d, -ERF_END, ERF_END, t[0])?;
        self.odd_rational(d, &ERF_P, &ERF_Q, t)?;
        self.clamp(d, -1.0, 1.0, t[0])
    }

    /// `d = d * p(d²) / q(d²)`
    fn odd_rational(&mut self, d: usize, p: &[f32], q: &[f32], t: [usize; 3]) -> Result<()> {
        self.mul(t[0], d, d)?;
        self.polynomial(t[1], t[0], p)?;
        self.polynomial(t[2], t[0], q)?;
        self.mul(d, d, t[1])?;
        self.div(d, d, t[2])
    }

    /// `d = 0.5 * d * (1 + erf(d / √2))`, within `3e-7 * max(|d|, 1)`; `t` are overwritten.
    pub fn gelu(&mut self, d: usize, t: [usize; 3]) -> Result<()> {
        // The clamps may turn NaN into a number: the products with d below bring it back.
        let [x, p, q] = t;
        self.mul(x, d, d)?;
        self.mul(x, x, 0.5)?;
        self.min(x, x, ERF_END * ERF_END)?;
        self.polynomial(p, x, &ERF_P)?;
        self.polynomial(q, x, &ERF_Q)?;
        self.mul(x, d, std::f32::consts::FRAC_1_SQRT_2)?;
        self.min(x, x, ERF_END)?;
        self.max(x, x, -ERF_END)?;
        self.mul(x, x, p)?;
        self.div(x, x, q)?;
        self.min(x, x, 1.0)?;
        self.max(x, x, -1.0)?;
        self.mul(d, d, 0.5)?;
        self.fma213(d, x, d)
    }

    /// `d = 0.5 * d * (1 + tanh(√(2/π) * (d + 0.044715 d³)))`, within `5e-7 * max(|d|, 1)`; `t` are overwritten.
    pub fn gelu_tanh(&mut self, d: usize, t: [usize; 4]) -> Result<()> {
        let x = t[3];
        self.mul(t[0], d, d)?;
        self.splat(x, 1.0)?;
        self.fma(x, t[0], 0.044_715)?;
        self.mul(x, x, d)?;
        self.mul(x, x, 0.797_884_6)?;
        self.tanh(x, [t[0], t[1], t[2]])?;
        self.mul(d, d, 0.5)?;
        self.fma213(d, x, d)
    }

    /// `d = d < 0 ? alpha * d : d`; `t` are overwritten.
    pub fn leaky_relu(&mut self, d: usize, alpha: f32, t: [usize; 2]) -> Result<()> {
        self.mul(t[0], d, alpha)?;
        self.select(d, Cmp::Lt, d, 0.0, t[0], d, t[1])
    }

    /// `d = max(d, 0)`, NaN staying NaN; `zero` holds 0.
    pub fn relu(&mut self, d: usize, zero: usize) -> Result<()> {
        self.max(d, zero, d)
    }

    /// `d = min(max(alpha * d + beta, 0), 1)`; `t` is overwritten.
    pub fn hard_sigmoid(&mut self, d: usize, alpha: f32, beta: f32, t: usize) -> Result<()> {
        self.splat(t, alpha)?;
        self.fma213(d, t, beta)?;
        self.clamp(d, 0.0, 1.0, t)
    }

    /// `d = d * min(max(d / 6 + 0.5, 0), 1)`; `t` are overwritten.
    pub fn hard_swish(&mut self, d: usize, t: [usize; 2]) -> Result<()> {
        self.mov(t[0], d)?;
        self.hard_sigmoid(t[0], 1.0 / 6.0, 0.5, t[1])?;
        self.mul(d, d, t[0])
    }
}
