//! The transforms around the products: assembled kernels that apply the matrices of [`Bilinear`] to tiles.

use super::bilinear::Bilinear;
use crate::asm::reg::*;
use crate::asm::{Asm, Src};
use crate::error::Result;
use crate::kernels::activation::Activation;

/// A vector that a sum reads.
#[derive(Clone, Copy)]
enum Term {
    Reg(usize),
    At(Mem),
}

impl Term {
    fn src(self) -> Src {
        match self {
            Term::Reg(r) => Src::Reg(r),
            Term::At(m) => Src::Mem(m),
        }
    }
    fn bring(self, w: &mut Asm, d: usize) -> Result<()> {
        match self {
            Term::Reg(r) => w.mov(d, r),
            Term::At(m) => w.load(d, m),
        }
    }
}

/// `d = ± Σ ± term`; returns whether the sum came out negated, which is only where every term is negative.
fn signed_sum(w: &mut Asm, d: usize, terms: &[(bool, Term)]) -> Result<bool> {
    let flip = terms.iter().all(|t| t.0);
    let mut ordered: Vec<(bool, Term)> = terms.iter().map(|t| (t.0 != flip, t.1)).collect();
    // positive terms first, and a register before all
    ordered.sort_by_key(|t| (t.0, matches!(t.1, Term::At(_))));
    let mut rest = ordered.into_iter();
    let (Some((_, first)), second) = (rest.next(), rest.next()) else { return w.zero(d).map(|()| false) };
    let add = |w: &mut Asm, x: usize, (negative, term): (bool, Term)| match negative {
        true => w.sub(d, x, term.src()),
        false => w.add(d, x, term.src()),
    };
    match (first, second) {
        (Term::Reg(r), Some(second)) => add(w, r, second)?,
        (first, Some(second)) => {
            first.bring(w, d)?;
            add(w, d, second)?;
        }
        (first, None) => first.bring(w, d)?,
    }
    rest.try_for_each(|t| add(w, d, t))?;
    Ok(flip)
}

/// `d = Σ coefficient * term`. Terms of equal magnitude are added before they are scaled. `t` is overwritten; `d` and
/// `t` are registers of no term.
fn linear(w: &mut Asm, d: usize, t: usize, terms: &[(f32, Term)]) -> Result<()> {
    let mut magnitudes: Vec<f32> = terms.iter().map(|t| t.0.abs()).filter(|m| *m != 0.0).collect();
    // plain sums first: they need no product
    magnitudes.sort_by(|a, b| (*a != 1.0).cmp(&(*b != 1.0)).then(a.total_cmp(b)));
    magnitudes.dedup();
    let mut begun = false;
    for m in magnitudes {
        let group: Vec<(bool, Term)> =
            terms.iter().filter(|t| t.0.abs() == m).map(|t| (t.0 < 0.0, t.1)).collect();
        if m == 1.0 {
            // this group is the first, and the only one that may come out negated without a factor to undo it
            if signed_sum(w, d, &group)? {
                w.xor(d, d, Src::Bits(0x8000_0000))?;
            }
            begun = true;
            continue;
        }
        let (x, negated) = match group[..] {
            [(negative, Term::Reg(r))] => (r, negative),
            _ => (t, signed_sum(w, t, &group)?),
        };
        let m = if negated { -m } else { m };
        if begun {
            w.fma(d, x, m)?
        } else {
            w.mul(d, x, m)?
        }
        begun = true;
    }
    if begun { Ok(()) } else { w.zero(d) }
}

/// One row of a matrix, or two that differ in the signs of some columns only.
fn groups(rows: &[Vec<f32>]) -> Vec<(usize, bool)> {
    let mut out = vec![];
    let mut i = 0;
    while i < rows.len() {
        let pair = rows.get(i + 1).is_some_and(|next| {
            let same = rows[i].iter().zip(next).filter(|(a, b)| **a != 0.0 && *a == *b).count();
            let opposite = rows[i].iter().zip(next).filter(|(a, b)| **a != 0.0 && **a == -**b).count();
            let used = |r: &[f32]| r.iter().filter(|v| **v != 0.0).count();
            same > 0 && opposite > 0 && same + opposite == used(&rows[i]) && used(&rows[i]) == used(next)
        });
        out.push((i, pair));
        i += if pair { 2 } else { 1 };
    }
    out
}

/// Applies rows `i` and, of a pair, `i + 1` to terms (`None` counts as 0), into `d[0]` and `d[1]`. The `t` are
/// overwritten.
fn apply(
    w: &mut Asm,
    rows: &[Vec<f32>],
    (i, pair): (usize, bool),
    terms: &[Option<Term>],
    d: [usize; 2],
    t: [usize; 3],
) -> Result<()> {
    let with = |keep: &dyn Fn(usize) -> bool| -> Vec<(f32, Term)> {
        let used = terms.iter().enumerate().filter(|(l, _)| rows[i][*l] != 0.0 && keep(*l));
        used.filter_map(|(l, term)| Some((rows[i][l], (*term)?))).collect()
    };
    if !pair {
        return linear(w, d[0], t[0], &with(&|_| true));
    }
    let (same, opposite) = (with(&|l| rows[i][l] == rows[i + 1][l]), with(&|l| rows[i][l] != rows[i + 1][l]));
    linear(w, t[0], t[2], &same)?;
    linear(w, t[1], t[2], &opposite)?;
    w.add(d[0], t[0], t[1])?;
    w.sub(d[1], t[0], t[1])
}

/// Tiles of one row of tiles of one channel block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TileRun {
    pub tiles: usize,
    /// Outputs that the tiles have down, and the last tile across: fewer at the edge.
    pub rows: usize,
    pub last_cols: usize,
    /// Bytes between products of a tile.
    pub point_step: i32,
}

/// `body(columns)` for each tile of a run: a loop over the whole ones, then the last if it is cut.
fn each_tile(
    w: &mut Asm,
    run: TileRun,
    whole: usize,
    mut body: impl FnMut(&mut Asm, usize) -> Result<()>,
    advance: impl Fn(&mut Asm) -> Result<()>,
) -> Result<()> {
    let cut = run.last_cols != whole;
    let n = run.tiles - usize::from(cut);
    if n > 0 {
        let top = w.repeat(rax, n)?;
        body(w, whole)?;
        advance(w)?;
        w.again(rax, top)?;
    }
    if cut { body(w, run.last_cols) } else { Ok(()) }
}

/// Transforms inputs: `fn(x, v)`.
#[derive(Clone, Debug)]
pub(super) struct InputTile<'a> {
    pub y: &'a Bilinear,
    pub x: &'a Bilinear,
    pub px: i32,
    pub row: i32,
}

impl InputTile<'_> {
    /// Vector registers that it needs at least.
    pub fn registers(x: &Bilinear) -> usize {
        x.inputs() + 5
    }

    pub fn assemble(&self, w: &mut Asm, run: TileRun) -> Result<()> {
        let step = i64::from(self.px) * (self.x.outputs * self.x.stride) as i64;
        let vb = i64::from(w.vb());
        each_tile(
            w,
            run,
            self.x.outputs,
            |w, cols| self.tile(w, run, cols),
            |w| {
                w.add_imm(rdi, step)?;
                w.add_imm(rsi, vb)
            },
        )
    }

    /// One tile of inputs at `rdi` to its points at `rsi`. Inputs that only outputs beyond the edge depend on count as
    /// zeros and are not read.
    fn tile(&self, w: &mut Asm, run: TileRun, cols: usize) -> Result<()> {
        let (height, width) = (self.y.inputs_of(run.rows), self.x.inputs_of(cols));
        let all = self.x.inputs();
        let pairs_fit = 2 * all + 5 <= w.regs();
        for (u, pair) in groups(&self.y.bt) {
            let steps: Vec<(usize, bool)> = match pair && !pairs_fit {
                true => vec![(u, false), (u + 1, false)],
                false => vec![(u, pair)],
            };
            for (u, pair) in steps {
                let count = if pair { 2 } else { 1 };
                let free = count * all;
                let temps = [free, free + 1, free + 2];
                for l in 0..width {
                    let terms: Vec<Option<Term>> = (0..self.y.inputs())
                        .map(|i| {
                            (i < height).then(|| Term::At(rdi + (i as i32 * self.row + l as i32 * self.px)))
                        })
                        .collect();
                    apply(w, &self.y.bt, (u, pair), &terms, [l, all + l], temps)?;
                }
                for k in 0..count {
                    let terms: Vec<Option<Term>> =
                        (0..all).map(|l| (l < width).then_some(Term::Reg(k * all + l))).collect();
                    self.across(w, &terms, (u + k) * self.x.products(), run, free)?;
                }
            }
        }
        Ok(())
    }

    /// The rows of the second transform, stored as they are made.
    fn across(
        &self,
        w: &mut Asm,
        terms: &[Option<Term>],
        first: usize,
        run: TileRun,
        free: usize,
    ) -> Result<()> {
        let (d, temps) = ([free, free + 1], [free + 2, free + 3, free + 4]);
        for (v, pair) in groups(&self.x.bt) {
            apply(w, &self.x.bt, (v, pair), terms, d, temps)?;
            for (k, d) in d.into_iter().enumerate().take(1 + usize::from(pair)) {
                w.store(rsi + (first + v + k) as i32 * run.point_step, d)?;
            }
        }
        Ok(())
    }
}

/// Transforms products to outputs: `fn(m, y, bias, residual, flag)`. Where a sum is not finite, 1 is written to `flag`.
#[derive(Clone, Debug)]
pub(super) struct OutputTile<'a> {
    pub y: &'a Bilinear,
    pub x: &'a Bilinear,
    pub px: i32,
    pub row: i32,
    pub residual_row: Option<i32>,
    pub bias: bool,
    pub activation: Option<Activation>,
}

impl OutputTile<'_> {
    /// Vector registers that it needs.
    pub fn registers(x: &Bilinear) -> usize {
        x.products() + x.outputs + 5
    }

    pub fn assemble(&self, w: &mut Asm, run: TileRun) -> Result<()> {
        let [flag, zero] = self.flag_registers();
        w.zero(flag)?;
        w.zero(zero)?;
        let step = i64::from(self.px) * self.x.outputs as i64;
        let vb = i64::from(w.vb());
        each_tile(
            w,
            run,
            self.x.outputs,
            |w, cols| self.tile(w, run, cols),
            |w| {
                w.add_imm(rdi, vb)?;
                w.add_imm(rsi, step)?;
                w.add_imm(rcx, step)
            },
        )?;
        w.mark_nan(flag, zero, r8.into())
    }

    fn flag_registers(&self) -> [usize; 2] {
        let first = self.x.products() + self.x.outputs + 3;
        [first, first + 1]
    }

    /// The points of a tile at `rdi` to outputs at `rsi`; bias vector at `rdx`, residual at `rcx`.
    fn tile(&self, w: &mut Asm, run: TileRun, cols: usize) -> Result<()> {
        let products = self.x.products();
        let temps = [0, 1, 2].map(|t| products + self.x.outputs + t);
        let [flag, zero] = self.flag_registers();
        for i in 0..run.rows {
            for v in 0..products {
                let point = |u: usize| Term::At(rdi + ((u * products + v) as i32 * run.point_step));
                let terms: Vec<(f32, Term)> =
                    self.y.at[i].iter().enumerate().map(|(u, c)| (*c, point(u))).collect();
                linear(w, v, temps[0], &terms)?;
            }
            let outputs: Vec<usize> = (0..cols).map(|j| products + j).collect();
            for (j, &d) in outputs.iter().enumerate() {
                let terms: Vec<(f32, Term)> =
                    self.x.at[j].iter().enumerate().map(|(v, c)| (*c, Term::Reg(v))).collect();
                linear(w, d, temps[0], &terms)?;
                // 0 times an infinity or NaN is NaN, and stays
                w.fma(flag, d, zero)?;
                if self.bias {
                    w.add(d, d, Src::Mem(rdx.into()))?;
                }
                if let Some(row) = self.residual_row {
                    w.add(d, d, Src::Mem(rcx + (i as i32 * row + j as i32 * self.px)))?;
                }
            }
            if let Some(activation) = self.activation {
                activation.emit(w, &outputs, temps)?;
            }
            for (j, &d) in outputs.iter().enumerate() {
                w.store(rsi + (i as i32 * self.row + j as i32 * self.px), d)?;
            }
        }
        Ok(())
    }
}
