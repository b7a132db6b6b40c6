//! Times kernels beside the machine's own peak: `cargo run --release -p fcc-jit --example kernels [FILTER] [--isa avx2] [--json]`.
//!
//! The peak is a loop of independent vector multiply-adds, measured again before each kernel, because shared hosts
//! change their clock. Times are the best of many runs, and their median. `--gemm MxNxK` times a product of these sizes,
//! `--a-transposed` and `--b-in-place` products of operands as a model may have them.
//!
//! `--isa amx` times each kernel of AMX tiles behind the one of vectors: the step that regroups the input, then the
//! products, of six and of three bf16 terms, and of bytes. On a shared host tiles may run at a quarter of their speed for
//! part of the time: there the best and the median differ.

use fcc_jit::aligned::AlignedF32;
use fcc_jit::asm::Isa;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::amx::Terms;
use fcc_jit::kernels::amx::conv::AmxConv;
use fcc_jit::kernels::amx::gemm::AmxGemm;
use fcc_jit::kernels::amx::regroup::Regroup;
use fcc_jit::kernels::conv::Conv;
use fcc_jit::kernels::elem::Elem;
use fcc_jit::kernels::gemm::{BStorage, Gemm};
use fcc_jit::kernels::int8;
use fcc_jit::kernels::lanewise::{GroupConv, Pool as MaxPool, PoolKind};
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::kernels::reorder::Reorder;
use fcc_jit::kernels::winograd::{Winograd, bilinear::Scheme};
use fcc_jit::module::{Buffer, Code, Kernel, Operand};
use fcc_jit::peak::Peak;
use fcc_jit::pool::Pool;
use std::time::{Duration, Instant};

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

fn random(n: usize, seed: u64) -> AlignedF32 {
    let mut state = seed | 1;
    let mut a = AlignedF32::zeros(n);
    for v in a.iter_mut() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *v = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
    }
    a
}

/// Seconds that this thread has run: on a busy machine the wall clock of a long kernel counts other programs too. Wall
/// clock where there is no such clock.
fn thread_seconds() -> f64 {
    #[cfg(target_os = "linux")]
    {
        unsafe extern "C" {
            fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
        }
        const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
        let mut time = [0i64; 2];
        // SAFETY: on 64-bit Linux a timespec is two i64; the pointer is valid for the call.
        if unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) } == 0 {
            return time[0] as f64 + time[1] as f64 * 1e-9;
        }
    }
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Seconds of every run: of this thread when it runs alone, else of the wall clock.
fn times(code: &Code, kernel: &Kernel, pool: &Pool, args: &[Buffer], seconds: f64) -> Anyhow<Vec<f64>> {
    let step = code.step(kernel)?;
    let start = Instant::now();
    let mut times = vec![];
    while start.elapsed().as_secs_f64() < seconds {
        let (wall, own) = (Instant::now(), thread_seconds());
        // SAFETY: `args` are live distinct buffers of the sizes that they state, and `code` is borrowed.
        unsafe { step.run(pool, args)? };
        let (wall, own) = (wall.elapsed().as_secs_f64(), thread_seconds() - own);
        times.push(if pool.threads() == 1 { own } else { wall });
    }
    Ok(times)
}

/// The same numbers as pairs of bf16.
fn pairs(mut a: AlignedF32) -> AlignedF32 {
    let other: Vec<u32> = a.iter().rev().map(|v| v.to_bits() >> 16).collect();
    a.iter_mut().zip(other).for_each(|(v, o)| *v = f32::from_bits(v.to_bits() & 0xffff_0000 | o));
    a
}

/// What kernels are timed with, and how results are printed.
struct Bench {
    pool: Pool,
    peak: Peak,
    json: bool,
}

fn report(code: &Code, bench: &Bench, kernel: &Kernel, built: f64) -> Anyhow<()> {
    let pool = &bench.pool;
    let tiles = kernel.name.contains(" amx ");
    let operand = |(i, o): (usize, &Operand)| {
        let values = random(o.bytes.div_ceil(4), i as u64 * 77 + 5);
        if tiles && i < 2 { pairs(values) } else { values }
    };
    let mut buffers: Vec<AlignedF32> = kernel.operands.iter().enumerate().map(operand).collect();
    let args: Vec<Buffer> =
        buffers.iter_mut().map(|b| Buffer { ptr: b.as_mut_ptr().cast(), bytes: b.len() * 4 }).collect();
    let (mut all, mut highest) = (vec![], 0f64);
    for _ in 0..3 {
        highest = highest.max(bench.peak.gflops(pool, Duration::from_millis(20))?);
        all.extend(times(code, kernel, pool, &args, 0.25)?);
    }
    all.sort_by(f64::total_cmp);
    let (Some(&fastest), Some(&median)) = (all.first(), all.get(all.len() / 2)) else { return Ok(()) };
    let rate = kernel.flops as f64 / fastest / 1e9;
    if bench.json {
        let name = kernel.name.replace('"', "'");
        println!(
            "{{\"kernel\":\"{name}\",\"us\":{:.3},\"median_us\":{:.3},\"gflops\":{rate:.3},\"peak_gflops\":{highest:.3},\"threads\":{}}}",
            fastest * 1e6,
            median * 1e6,
            pool.threads()
        );
        return Ok(());
    }
    println!(
        "{:58} {:9.1} µs, median {:9.1} µs {rate:7.1} GFLOP/s {:5.1} % of {highest:.0} ({} threads)   built in {:.2} ms",
        kernel.name,
        fastest * 1e6,
        median * 1e6,
        100.0 * rate / highest,
        pool.threads(),
        built * 1e3
    );
    Ok(())
}

fn conv(isa: Isa, c: usize, m: usize, out: usize, k: usize, s: usize, first: bool) -> Conv {
    let pad = k / 2;
    let cb = if first { 1 } else { isa.lanes() };
    let size = out * s;
    Conv {
        x: BlockedLayout::blocked(1, c, [1, size, size], cb).with_halo([(0, 0), (pad, pad), (pad, pad)]),
        y: BlockedLayout::blocked(1, m, [1, out, out], isa.lanes()).with_halo([
            (0, 0),
            (pad, pad),
            (pad, pad),
        ]),
        kernel: [1, k, k],
        strides: [1, s, s],
        dilations: [1; 3],
        pads_begin: [0, pad, pad],
        group: 1,
        bias: true,
        residual: None,
        activation: Some(Activation::Relu),
        cut: None,
    }
}

/// What `--schemes` compares.
const SCHEMES: [[Scheme; 2]; 6] = [
    [Scheme::Two, Scheme::Two],
    [Scheme::Two, Scheme::Direct],
    [Scheme::Direct, Scheme::Two],
    [Scheme::Two, Scheme::Four],
    [Scheme::Four, Scheme::Two],
    [Scheme::Four, Scheme::Four],
];

fn main() -> Anyhow<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let isa = match args.iter().position(|a| a == "--isa") {
        Some(i) => args.get(i + 1).ok_or("--isa needs a level")?.parse::<Isa>()?,
        None => Isa::within(Isa::Avx512),
    };
    let threads = match args.iter().position(|a| a == "--threads") {
        Some(i) => args.get(i + 1).ok_or("--threads needs a number")?.parse::<usize>()?,
        None => 1,
    };
    let filter = args.first().filter(|a| !a.starts_with("--")).cloned().unwrap_or_default();
    let json = args.iter().any(|a| a == "--json");
    let bench = Bench { pool: Pool::new(threads), peak: Peak::new(isa, threads)?, json };
    let mut code = Code::new(isa)?;
    let isa = code.isa();
    let all_schemes = args.iter().any(|a| a == "--schemes");
    let own = args.iter().position(|a| a == "--gemm");
    let mut gemms = vec![
        (1024, 1024, 1024),
        (512, 512, 512),
        (64, 3136, 576),
        (100, 500, 784),
        (1, 4096, 4096),
        (128, 768, 768),
        (197, 3072, 768),
    ];
    if let Some(i) = own {
        let sizes: Result<Vec<usize>, _> =
            args.get(i + 1).ok_or("--gemm needs MxNxK")?.split('x').map(str::parse).collect();
        let [m, n, k] = sizes?[..] else { return Err("--gemm needs MxNxK".into()) };
        gemms = vec![(m, n, k)];
    }
    for (m, n, k) in gemms {
        let b = if args.iter().any(|a| a == "--b-in-place") {
            BStorage::InPlace { row: n }
        } else {
            BStorage::Packed
        };
        let mut gemm = Gemm::new(m, n, k, b);
        if args.iter().any(|a| a == "--a-transposed") {
            (gemm.a_row, gemm.a_col) = (1, m);
        }
        if format!("gemm {m}x{n}x{k}").contains(&filter) {
            let t = Instant::now();
            let kernel = gemm.build(code.emitter(), threads)?;
            code.finalize()?;
            let built = t.elapsed().as_secs_f64();
            report(&code, &bench, &kernel, built)?;
            for terms in TERMS {
                if let Ok(amx) = AmxGemm::choose(&gemm, terms) {
                    tiles(&mut code, &bench, &amx.regroup(), &mut |code| amx.build(code.emitter(), threads))?;
                }
            }
        }
    }
    let convs = [
        (64, 64, 56, 3, 1, false),
        (128, 128, 28, 3, 1, false),
        (256, 256, 14, 3, 1, false),
        (512, 512, 7, 3, 1, false),
        (64, 64, 224, 3, 1, false),
        (512, 512, 28, 3, 1, false),
        (512, 512, 14, 3, 1, false),
        (32, 32, 112, 3, 1, false),
        (32, 64, 40, 3, 1, false),
        (48, 96, 13, 3, 1, false),
        (128, 32, 7, 3, 1, false),
        (256, 64, 56, 1, 1, false),
        (64, 256, 56, 1, 1, false),
        (64, 64, 56, 1, 1, false),
        (512, 128, 28, 1, 1, false),
        (1024, 256, 14, 1, 1, false),
        (2048, 512, 7, 1, 1, false),
        (512, 2048, 7, 1, 1, false),
        (128, 128, 28, 3, 2, false),
        (256, 256, 14, 3, 2, false),
        (512, 512, 7, 3, 2, false),
        (96, 24, 160, 3, 1, false),
        (16, 64, 55, 3, 1, false),
        (16, 32, 14, 5, 1, false),
        (96, 256, 26, 5, 1, false),
        (256, 512, 28, 1, 2, false),
        (3, 64, 112, 7, 2, true),
        (3, 64, 224, 3, 1, true),
        (24, 72, 56, 1, 1, false),
    ];
    for (c, m, out, k, s, first) in convs.into_iter().filter(|_| own.is_none()) {
        let conv = conv(isa, c, m, out, k, s, first);
        if format!("conv {k}x{k}/{s} {c}->{m} {out}x{out}").contains(&filter) {
            let t = Instant::now();
            let kernel = conv.build(code.emitter(), threads)?;
            code.finalize()?;
            let built = t.elapsed().as_secs_f64();
            report(&code, &bench, &kernel, built)?;
            for terms in TERMS {
                if let Ok(amx) = AmxConv::choose(&conv, terms) {
                    tiles(&mut code, &bench, &amx.regroup(), &mut |code| amx.build(code.emitter(), threads))?;
                }
            }
            let chosen = Winograd::choose(&conv, isa, false).winograd;
            for schemes in SCHEMES.into_iter().filter(|_| k > 1) {
                let Some(winograd) = Winograd::new(&conv, isa, schemes) else { continue };
                if !all_schemes && chosen.as_ref() != Some(&winograd) {
                    continue;
                }
                let t = Instant::now();
                let kernel = winograd.build(code.emitter(), threads)?;
                code.finalize()?;
                let built = t.elapsed().as_secs_f64();
                report(&code, &bench, &kernel, built)?;
                let share = winograd.estimate(isa);
                println!(
                    "{schemes:>60?} {share:.2} of direct by count{}",
                    [" ", " (chosen)"][usize::from(chosen.as_ref() == Some(&winograd))]
                );
            }
        }
    }
    if own.is_none() {
        lanewise(&mut code, &bench, threads, &filter)?;
        bytes(&mut code, &bench, threads, &filter)?;
    }
    Ok(())
}

const TERMS: [Terms; 2] = [Terms::Six, Terms::Three];

/// At level AMX: the step that regroups the input, and the products.
fn tiles(
    code: &mut Code,
    bench: &Bench,
    regroup: &Regroup,
    products: &mut dyn FnMut(&mut Code) -> fcc_jit::error::Result<Kernel>,
) -> Anyhow<()> {
    if !code.emitter().has_tiles() {
        return Ok(());
    }
    let t = Instant::now();
    let kernels = [regroup.build(code.emitter(), bench.pool.threads())?, products(code)?];
    code.finalize()?;
    let built = t.elapsed().as_secs_f64();
    kernels.iter().try_for_each(|kernel| report(code, bench, kernel, built))
}

/// Products of bytes with 32-bit sums; a filter names them from `int8` on.
fn bytes(code: &mut Code, bench: &Bench, threads: usize, filter: &str) -> Anyhow<()> {
    let (isa, dot) = (code.isa(), code.emitter().dot());
    if isa == Isa::Baseline {
        return Ok(());
    }
    let (zero, epilogue) = (int8::Zero::Const(3), int8::Epilogue::sums());
    for (m, n, k) in [(1024, 1024, 1024), (128, 768, 768)] {
        let epilogue = epilogue.clone();
        let gemm = int8::gemm::Gemm { m, n, k, batch: vec![], signed: false, dot, zero, parts: 1, epilogue };
        if format!("int8 gemm {m}x{n}x{k}").starts_with(filter) {
            let kernel = gemm.build(code.emitter(), threads)?;
            code.finalize()?;
            report(code, bench, &kernel, 0.0)?;
            if let Ok((tiled, regroup)) = gemm.for_tiles() {
                tiles(code, bench, &regroup, &mut |code| tiled.build(code.emitter(), threads))?;
            }
        }
    }
    for (c, m, out, k) in [(64, 64, 56, 3), (256, 256, 14, 3), (256, 64, 56, 1)] {
        let pad = (k / 2, k / 2);
        let like = conv(isa, c, m, out, k, 1, false);
        let conv = int8::conv::Conv {
            x: BlockedLayout { elem: Elem::U8, halo: [(0, 0), pad, pad], ..like.x },
            y: BlockedLayout { elem: Elem::I32, ..like.y },
            kernel: like.kernel,
            strides: like.strides,
            dilations: like.dilations,
            pads_begin: like.pads_begin,
            group: 1,
            dot,
            zero,
            parts: 1,
            epilogue: epilogue.clone(),
            residual: None,
        };
        if format!("int8 conv {k}x{k}/1 {c}->{m} {out}x{out}").starts_with(filter) {
            let kernel = conv.build(code.emitter(), threads)?;
            code.finalize()?;
            report(code, bench, &kernel, 0.0)?;
            if let Ok((tiled, regroup)) = conv.for_tiles() {
                tiles(code, bench, &regroup, &mut |code| tiled.build(code.emitter(), threads))?;
            }
        }
    }
    Ok(())
}

/// Kernels that work lane by lane: their limit is memory, so look at the bytes.
fn lanewise(code: &mut Code, bench: &Bench, threads: usize, filter: &str) -> Anyhow<()> {
    let cb = code.isa().lanes();
    let layout = |c, size, halo| {
        BlockedLayout::blocked(1, c, [1, size, size], cb).with_halo([(0, 0), (halo, halo), (halo, halo)])
    };
    for (c, size, k, s) in [(128, 56, 3, 1), (96, 40, 5, 1), (128, 56, 3, 2), (16, 320, 3, 1)] {
        let conv = GroupConv {
            x: layout(c, size, k / 2),
            y: layout(c, size / s, 0),
            kernel: [1, k, k],
            strides: [1, s, s],
            dilations: [1; 3],
            pads_begin: [0, k / 2, k / 2],
            group: c,
            bias: true,
            residual: None,
            activation: Some(Activation::HardSwish),
        };
        if "depthwise".contains(filter) {
            let kernel = conv.build(code.emitter(), threads)?;
            code.finalize()?;
            report(code, bench, &kernel, 0.0)?;
        }
    }
    if "pool".contains(filter) {
        let pads = [0, 1, 1];
        let (x, y) = (layout(64, 112, 0), layout(64, 56, 0));
        let (kernel, strides) = ([1, 3, 3], [1, 2, 2]);
        let pool_problem = MaxPool {
            x,
            y,
            kernel,
            strides,
            dilations: [1; 3],
            pads_begin: pads,
            pads_end: pads,
            kind: PoolKind::Max,
        };
        let kernel = pool_problem.build(code.emitter(), threads)?;
        code.finalize()?;
        report(code, bench, &kernel, 0.0)?;
    }
    if "reorder".contains(filter) {
        for (x, y) in [
            (BlockedLayout::plain(1, 64, [1, 56, 56]), layout(64, 56, 1)),
            (layout(64, 56, 0), BlockedLayout::plain(1, 64, [1, 56, 56])),
        ] {
            let kernel = Reorder { x, y }.build(code.emitter(), threads)?;
            code.finalize()?;
            report(code, bench, &kernel, 0.0)?;
        }
    }
    Ok(())
}
