//! One convolution or product alone, in each of its ways, on scratch data.
use super::race::{Entrant, Rules, fastest, race};
use super::{MARGIN, decide};
use crate::aligned::AlignedF32;
use crate::asm::Isa;
use crate::choices::problem::{Asked, Problem, Sums};
use crate::choices::{Algorithm, Choice, Way};
use crate::compiled::Options;
use crate::kernels::gemm::BStorage;
use crate::kernels::winograd::bilinear::Scheme;
use crate::module::{Access, Buffer, Code, Kernel, Step};
use crate::plan::Plan;
use crate::pool::Pool;
use fcc_ir::limits;
use fcc_ir::{Error, Result};
use std::cell::Cell;
use std::time::Duration;

/// Rounds among all, and between the best and the estimate's choice.
const FIELD: Rules =
    Rules { rounds: 9, least: 2, time: Duration::from_millis(900), sample: Duration::from_micros(40) };
const FINAL: Rules =
    Rules { rounds: 21, least: 5, time: Duration::from_millis(1200), sample: Duration::from_micros(40) };
/// How often the sizes of the best way are looked around.
const STAGES: usize = 2;
/// Weights that a run finds in no cache: more than any has.
const FAR_BYTES: usize = 96 << 20;
/// Operands beyond this are not measured.
const MOST_BYTES: usize = 512 << 20;

/// What problems are measured with.
pub(super) struct Bench {
    pool: Pool,
    /// Whether one thread runs the plan.
    plan_alone: bool,
    /// Bytes of weights that the model reads between two reads of the same.
    far_bytes: usize,
}

/// A way and its kernel.
struct Made {
    way: Way,
    step: Step,
    kernel: Kernel,
}

/// Small integers with both signs, times `scale`: products and sums of them are exact in f32.
fn fill(to: &mut [f32], seed: u64, scale: f32) {
    let mut state = seed | 1;
    for v in to {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *v = ((state >> 33) % 9) as f32 * scale - 4.0 * scale;
    }
}

fn filled(elems: usize, seed: u64, scale: f32) -> AlignedF32 {
    let mut data = AlignedF32::zeros(elems);
    fill(&mut data, seed, scale);
    data
}

/// Winograd's filters have quarters: with weights that are multiples of four all is whole.
const WEIGHT_SCALE: f32 = 4.0;

/// The constant weights of a problem, as a model has them; none of a product whose B is computed.
fn weights(problem: &Problem) -> Vec<f32> {
    let elems = match problem {
        Problem::Conv(c) => c.y.c * (c.x.c / c.group) * c.kernel.iter().product::<usize>(),
        Problem::Gemm(g) if g.b == BStorage::Packed => g.k * g.n,
        _ => 0,
    };
    let mut w = vec![0.0; elems];
    fill(&mut w, 7, WEIGHT_SCALE);
    w
}

/// Largest sum of products that this data can give.
fn largest(problem: &Problem) -> f32 {
    let terms = match problem {
        Problem::Conv(c) => c.x.c / c.group * c.kernel.iter().product::<usize>(),
        Problem::Gemm(g) => g.k,
        _ => 0,
    };
    16.0 * WEIGHT_SCALE * terms as f32
}

/// The operands of kernels for one problem.
struct Operands {
    /// Read, by the kernels' names for them; not the constant weights.
    read: Vec<(&'static str, AlignedF32)>,
    y: AlignedF32,
    scratch: AlignedF32,
    flag: AlignedF32,
    /// Weights to be timed with, more of them than a cache holds.
    far: AlignedF32,
    /// Where the next run finds its weights.
    next: Cell<usize>,
}

fn is_weights(name: &str, problem: &Problem) -> bool {
    match problem {
        Problem::Gemm(g) => name == "b" && g.b == BStorage::Packed,
        _ => name == "w",
    }
}

impl Operands {
    /// Room for each of these kernels.
    fn new(problem: &Problem, made: &[Made], far_bytes: usize) -> Operands {
        let all = || made.iter().flat_map(|m| &m.kernel.operands);
        let most = |wanted: &dyn Fn(&crate::module::Operand) -> bool| {
            all().filter(|o| wanted(o)).map(|o| o.bytes.div_ceil(4)).max().unwrap_or(0)
        };
        let mut read: Vec<(&'static str, AlignedF32)> = vec![];
        for o in all().filter(|o| o.access == Access::Read && !is_weights(o.name, problem)) {
            if !read.iter().any(|(name, _)| *name == o.name) {
                let elems = most(&|p| p.name == o.name);
                read.push((o.name, filled(elems, read.len() as u64 * 2 + 11, 1.0)));
            }
        }
        let weights = most(&|o| is_weights(o.name, problem));
        Operands {
            read,
            y: AlignedF32::zeros(most(&|o| o.access == Access::Write)),
            scratch: AlignedF32::zeros(most(&|o| o.access == Access::Scratch)),
            flag: AlignedF32::zeros(1),
            far: filled(weights.max(if weights == 0 { 0 } else { far_bytes / 4 }), 5, 1.0 / 64.0),
            next: Cell::new(0),
        }
    }

    /// The buffers of a run: with these packed weights, or with any from far away.
    fn buffers(&self, made: &Made, problem: &Problem, packed: Option<&AlignedF32>) -> Vec<Buffer> {
        let buffer = |data: &AlignedF32, at: usize, bytes: usize| Buffer {
            ptr: data.base().wrapping_add(at).cast::<u8>(),
            bytes,
        };
        let one = |o: &crate::module::Operand| match o.access {
            Access::Write | Access::ReadWrite => buffer(&self.y, 0, o.bytes),
            Access::Scratch => buffer(&self.scratch, 0, o.bytes),
            Access::Flag => buffer(&self.flag, 0, o.bytes),
            Access::Read if is_weights(o.name, problem) => match packed {
                Some(packed) => buffer(packed, 0, o.bytes),
                None => {
                    let elems = (o.bytes / 4).next_multiple_of(16);
                    let at = if self.next.get() + elems > self.far.len() { 0 } else { self.next.get() };
                    self.next.set(at + elems);
                    buffer(&self.far, at, o.bytes)
                }
            },
            Access::Read => match self.read.iter().find(|(name, _)| *name == o.name) {
                Some((_, data)) => buffer(data, 0, o.bytes),
                None => Buffer { ptr: std::ptr::null_mut(), bytes: 0 },
            },
        };
        made.kernel.operands.iter().map(one).collect()
    }
}

impl Bench {
    /// A bench for the problems of a plan.
    pub fn new(plan: &Plan, options: &Options) -> Bench {
        let far_bytes = plan.info().packed_bytes.min(FAR_BYTES);
        Bench { pool: Pool::new(options.threads), plan_alone: plan.info().alone, far_bytes }
    }

    /// The fastest way to compute a problem. `None` where it cannot be measured, which is noted.
    pub fn measure(&self, asked: &Asked, notes: &mut Vec<String>) -> Result<Option<Choice>> {
        let (problem, s) = (&asked.problem, asked.setting());
        let estimate = Sums::estimate(problem, s).and_then(|(sums, _)| sums.way(s.isa, false));
        // groups that are cut in several ways have no choice
        let Some(estimate) = estimate else { return Ok(None) };
        let mut best = estimate;
        let mut next = problem.starts(s);
        for stage in 0..=STAGES {
            let mut ways = vec![estimate, best];
            ways.extend(next);
            let Some(field) = self.field(asked, &ways, notes)? else { return Ok(None) };
            let times = field.race(self, &FIELD)?;
            limits::check_now()?;
            let fastest = fastest(&times).map_or(best, |(i, _)| field.made[i].way);
            if stage > 0 && fastest == best {
                break;
            }
            best = fastest;
            next = problem.beside(&best, s);
        }
        let Some(last) = self.field(asked, &[estimate, best], notes)? else { return Ok(None) };
        let times = last.race(self, &FINAL)?;
        let (Some(Some(own)), Some((i, ns))) = (times.first().copied(), fastest(&times)) else {
            return Ok(None);
        };
        Ok(Some(decide((estimate, own), (last.made[i].way, ns), MARGIN)))
    }

    /// Kernels for these ways, each once, whose results are those of the first.
    fn field<'a>(
        &self,
        asked: &'a Asked,
        ways: &[Way],
        notes: &mut Vec<String>,
    ) -> Result<Option<Field<'a>>> {
        let s = asked.setting();
        let mut code = Code::new(s.isa)?;
        let mut kernels: Vec<(Way, Sums, usize, Kernel)> = vec![];
        for way in ways {
            if kernels.iter().any(|k| k.0 == *way) {
                continue;
            }
            let threads = way.threads(s.threads);
            limits::check()?;
            let sums = Sums::of(&asked.problem, way, s).map_err(Error::invalid)?;
            match sums.build(code.emitter(), threads) {
                Ok(kernel) => kernels.push((*way, sums, threads, kernel)),
                Err(why) if kernels.is_empty() => {
                    notes.push(format!("{}: {why}", asked.key.problem));
                    return Ok(None);
                }
                // offsets that do not fit, for instance
                Err(_) => {}
            }
        }
        code.finalize()?;
        let bytes = |k: &Kernel| k.operands.iter().map(|o| o.bytes).sum::<usize>();
        if let Some(most) = kernels.iter().map(|k| bytes(&k.3)).max().filter(|b| *b > MOST_BYTES) {
            notes.push(format!("{}: operands of {most} bytes, at most {MOST_BYTES}", asked.key.problem));
            return Ok(None);
        }
        let w = weights(&asked.problem);
        let mut made = vec![];
        let mut packers = vec![];
        for (way, sums, threads, kernel) in kernels {
            made.push(Made { way, step: code.step(&kernel)?, kernel });
            packers.push((sums, threads));
        }
        let mut operands = Operands::new(&asked.problem, &made, self.far_bytes);
        let bound = |way: &Way| match way {
            Way::Sums { algorithm: Algorithm::Winograd(schemes), .. } if schemes.contains(&Scheme::Four) => {
                1e-5 * largest(&asked.problem)
            }
            _ => 0.0,
        };
        let mut want: Option<Vec<f32>> = None;
        let mut right = vec![];
        for (m, (sums, threads)) in made.into_iter().zip(packers) {
            let packed = pack(&asked.problem, &sums, &m.kernel, s.isa, threads, &w)?;
            operands.y.fill(0.0);
            let buffers = operands.buffers(&m, &asked.problem, Some(&packed));
            // SAFETY: `code` is alive below; `buffers` are live, distinct, and as long as they state, and `operands` is
            // not touched during the call.
            unsafe { m.step.run(&self.pool, &buffers)? };
            clear_padding(&asked.problem, &mut operands.y);
            let want = want.get_or_insert_with(|| operands.y.to_vec());
            let bound = bound(&m.way).max(bound(&right.first().map_or(m.way, |r: &Made| r.way)));
            match differs(&operands.y, want, bound) {
                None => right.push(m),
                Some((at, got, wanted)) => {
                    let what = format!("element {at} is {got}, not {wanted}, as by the estimate's choice");
                    notes.push(format!("{}: {}: {what}", asked.key.problem, m.way));
                }
            }
            operands.flag.fill(0.0);
        }
        Ok(Some(Field { made: right, operands, asked, code }))
    }
}

/// Clears the padding channels of a convolution's result, in which kernels may leave anything.
fn clear_padding(problem: &Problem, y: &mut [f32]) {
    let Problem::Conv(conv) = problem else { return };
    let (l, used) = (&conv.y, conv.y.last_channels());
    for n in 0..l.n {
        let last = (n * l.batch_bytes() + (l.blocks() - 1) * l.block_bytes()) / 4;
        y[last..last + l.block_bytes() / 4].chunks_mut(l.cb).for_each(|pixel| pixel[used..].fill(0.0));
    }
}

/// The first element that is further away than the bound.
fn differs(got: &[f32], want: &[f32], bound: f32) -> Option<(usize, f32, f32)> {
    let near = |g: f32, w: f32| g == w || (g - w).abs() <= bound || g.is_nan() && w.is_nan();
    let pairs = got.iter().zip(want).enumerate();
    pairs.map(|(i, (g, w))| (i, *g, *w)).find(|(_, g, w)| !near(*g, *w))
}

/// The weights as a kernel reads them; all matrices of a product get the same values.
fn pack(
    problem: &Problem,
    sums: &Sums,
    kernel: &Kernel,
    isa: Isa,
    threads: usize,
    w: &[f32],
) -> Result<AlignedF32> {
    let operand = kernel.operands.iter().find(|o| is_weights(o.name, problem));
    let mut packed = AlignedF32::zeros(operand.map_or(0, |o| o.bytes / 4));
    let each = sums.packed_elems(isa).max(1);
    packed.chunks_exact_mut(each).try_for_each(|out| sums.pack_weights(isa, threads, w.into(), out))?;
    Ok(packed)
}

/// Ways of one problem that are ready to be timed; the first is the estimate's choice.
struct Field<'a> {
    made: Vec<Made>,
    operands: Operands,
    asked: &'a Asked,
    /// The code that the steps point into.
    #[allow(dead_code)]
    code: Code,
}

impl Field<'_> {
    /// Median times; see [`race`].
    fn race(&self, bench: &Bench, rules: &Rules) -> Result<Vec<Option<u64>>> {
        // one thread does all tasks of a plan that is not split
        let single = Pool::new(1);
        let pool = if bench.plan_alone { &single } else { &bench.pool };
        let mut entrants: Vec<Entrant> = vec![];
        for m in &self.made {
            entrants.push(Box::new(move || {
                let buffers = self.operands.buffers(m, &self.asked.problem, None);
                // SAFETY: as in `Bench::field`: `self.code` is alive, the buffers are live and distinct, and nobody
                // else touches the operands. Their sizes are those of the kernel, so that an error is impossible.
                let _ = unsafe { m.step.run(pool, &buffers) };
            }));
        }
        Ok(race(&mut entrants, rules))
    }
}
