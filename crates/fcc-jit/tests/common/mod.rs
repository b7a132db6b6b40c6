//! What the kernel tests share: seeded numbers, running a kernel, a plain convolution.
#![allow(dead_code)]

use cranelift_codegen::settings::Configurable;
use cranelift_module::default_libcall_names;
use cranelift_object::{ObjectBuilder, ObjectModule};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod amx;
pub mod guard;
pub mod net;
pub mod sums;

use fcc_jit::asm::Isa;
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::module::{Buffer, Code, Emitter, Kernel, flags};
use fcc_jit::pool::Pool;

/// The levels that this machine has.
pub fn levels() -> Vec<Isa> {
    [Isa::Baseline, Isa::Avx2, Isa::Avx512].into_iter().filter(|&l| l <= Isa::detect()).collect()
}

/// What tanh may be off by, in units in the last place: more where products and sums are rounded apart, as the baseline
/// does on a CPU that has nothing more.
pub fn tanh_bound() -> f64 {
    if Isa::detect() > Isa::Baseline { 5.0 } else { 6.0 }
}

/// The levels of vectors that models are compiled for here, and AMX, by emulation if need be.
pub fn model_levels() -> Vec<Isa> {
    let mut levels = levels();
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    levels.extend(amx::amx().map(|_| Isa::Amx));
    levels
}

/// An emitter of code for any machine, with features of it by Cranelift's names.
pub fn object_emitter(triple: &str, isa: Isa, features: &[&str]) -> Emitter<ObjectModule> {
    let mut target = cranelift_codegen::isa::lookup_by_name(triple).expect("target");
    for feature in features {
        target.enable(feature).expect("feature");
    }
    let target = target.finish(flags(true, isa).expect("flags")).expect("target");
    let object = ObjectBuilder::new(target, "kernels", default_libcall_names()).expect("object");
    Emitter::new(ObjectModule::new(object), isa)
}

/// A small generator of pseudo-random numbers (xorshift64*).
pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    pub fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n
    }
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }
    /// Small integers, exact in f32 products and sums.
    pub fn ints(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.below(9) as f32 - 4.0).collect()
    }
    /// Values in -1 .. 1.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

/// Runs a kernel on copies of its operands, each of exactly the bytes that the kernel states, once with their first and
/// once with their last byte at an unreadable page: a read or write outside ends the test.
pub fn run(code: &Code, kernel: &Kernel, pool: &Pool, buffers: &mut [Vec<f32>]) {
    guard::name_faults();
    assert_eq!(kernel.operands.len(), buffers.len(), "{}: {:?}", kernel.name, kernel.operands);
    let args: Vec<Buffer> =
        buffers.iter_mut().map(|b| Buffer { ptr: b.as_mut_ptr().cast(), bytes: b.len() * 4 }).collect();
    let step = code.step(kernel).expect("step");
    // SAFETY: the buffers live here, are distinct and have the sizes they claim; `code` is borrowed.
    unsafe { step.run_guarded(pool, &args) }.expect("run");
}

/// Index of a value in a blocked buffer.
pub fn index(l: &BlockedLayout, n: usize, c: usize, at: [usize; 3]) -> usize {
    let bytes = n * l.batch_bytes()
        + c / l.cb * l.block_bytes()
        + (at[0] + l.halo[0].0) * l.plane_bytes()
        + (at[1] + l.halo[1].0) * l.row_bytes()
        + (at[2] + l.halo[2].0) * l.pixel_bytes();
    bytes / 4 + c % l.cb
}

fn each(l: &BlockedLayout, mut f: impl FnMut(usize, usize)) {
    let [d, h, w] = l.spatial;
    let mut plain = 0;
    for n in 0..l.n {
        for c in 0..l.c {
            for i in 0..d * h * w {
                f(plain, index(l, n, c, [i / (h * w), i / w % h, i % w]));
                plain += 1;
            }
        }
    }
}

/// Plain NCDHW values in a layout: halo zero, padding channels NaN (nothing may read them).
pub fn to_layout(l: &BlockedLayout, x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; l.bytes() / 4];
    for n in 0..l.n {
        for c in l.c..l.blocks() * l.cb {
            for d in 0..l.spatial[0] {
                for h in 0..l.spatial[1] {
                    for w in 0..l.spatial[2] {
                        out[index(l, n, c, [d, h, w])] = f32::NAN;
                    }
                }
            }
        }
    }
    each(l, |plain, at| out[at] = x[plain]);
    out
}

/// The plain values of a layout; asserts that its halo is zero.
pub fn from_layout(l: &BlockedLayout, x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; l.n * l.c * l.spatial.iter().product::<usize>()];
    let mut halo = x.to_vec();
    each(l, |plain, at| out[plain] = x[at]);
    let whole = BlockedLayout { c: l.blocks() * l.cb, ..*l };
    each(&whole, |_, at| halo[at] = 0.0);
    if l.parent_blocks.is_none() {
        assert!(halo.iter().all(|&v| v == 0.0), "halo of {l:?} is not zero");
    }
    out
}

/// A convolution's sizes.
#[derive(Clone, Debug)]
pub struct ConvCase {
    pub n: usize,
    pub c: usize,
    pub m: usize,
    pub input: [usize; 3],
    pub kernel: [usize; 3],
    pub strides: [usize; 3],
    pub dilations: [usize; 3],
    pub begin: [usize; 3],
    pub end: [usize; 3],
    pub group: usize,
}
impl ConvCase {
    pub fn out(&self) -> Option<[usize; 3]> {
        let mut out = [0; 3];
        for (d, out) in out.iter_mut().enumerate() {
            let reach = (self.kernel[d] - 1) * self.dilations[d] + 1;
            let padded = self.input[d] + self.begin[d] + self.end[d];
            *out = padded.checked_sub(reach)? / self.strides[d] + 1;
        }
        Some(out)
    }
    /// Plain loops, in f64 (exact on small integers).
    pub fn reference(&self, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
        let o = self.out().expect("output");
        let (icg, mg) = (self.c / self.group, self.m / self.group);
        let [kd, kh, kw] = self.kernel;
        let mut y = Vec::new();
        for n in 0..self.n {
            for m in 0..self.m {
                for i in 0..o.iter().product::<usize>() {
                    let at = [i / (o[1] * o[2]), i / o[2] % o[1], i % o[2]];
                    let mut sum = f64::from(bias.get(m).copied().unwrap_or(0.0));
                    for c in 0..icg {
                        for t in 0..kd * kh * kw {
                            let k = [t / (kh * kw), t / kw % kh, t % kw];
                            let mut p = [0; 3];
                            let inside = (0..3).all(|d| {
                                let q = at[d] * self.strides[d] + k[d] * self.dilations[d];
                                p[d] = q.wrapping_sub(self.begin[d]);
                                q >= self.begin[d] && p[d] < self.input[d]
                            });
                            if inside {
                                let ch = m / mg * icg + c;
                                let xi = (((n * self.c + ch) * self.input[0] + p[0]) * self.input[1] + p[1])
                                    * self.input[2]
                                    + p[2];
                                sum += f64::from(x[xi]) * f64::from(w[(m * icg + c) * kd * kh * kw + t]);
                            }
                        }
                    }
                    y.push(sum as f32);
                }
            }
        }
        y
    }
}
