//! Strided copies: transposition, concatenation, slices, broadcasts, and changes of layout.
//!
//! A copy is a list of parts, each a nest of dims with a step in the source and one in the destination. CLIF is enough:
//! whole runs move as 16-byte vectors, and where source and destination are contiguous along different dims, 4x4 blocks
//! are transposed in registers.

use super::clif::{at, coordinates, for_n, for_range, off, share};
use crate::error::{Error, Result};
use crate::module::{Access, Emitter, Kernel, Operand};
use cranelift_codegen::ir::types::{F32X4, I8, I8X16, I16, I32, I64};
use cranelift_codegen::ir::{ConstantData, InstBuilder, MemFlagsData, Type, Value};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::Module;

/// One dim of a part: extent and steps in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyDim {
    /// Extent.
    pub count: usize,
    /// Bytes between neighbours in the source; 0 repeats one.
    pub src: i64,
    /// Bytes between neighbours in the destination.
    pub dst: i64,
}

/// One part of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPart {
    /// Which source.
    pub source: usize,
    /// Byte offset in the source.
    pub src: usize,
    /// Byte offset in the destination.
    pub dst: usize,
    /// Dims, in any order.
    pub dims: Vec<CopyDim>,
}

/// A copy from some sources to one destination. Parts write disjoint bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Bytes of an element: 1, 2, 4 or 8.
    pub width: usize,
    /// The parts.
    pub parts: Vec<CopyPart>,
    /// Bytes of each source.
    pub src_bytes: Vec<usize>,
    /// Bytes of the destination.
    pub dst_bytes: usize,
}

/// Bytes below which one thread does all.
const SPLIT_BYTES: usize = 64 << 10;

impl CopyPart {
    /// Outermost (largest destination step) first; neighbours that walk as one merged; extents of 1 dropped.
    fn normalised(&self) -> Vec<CopyDim> {
        let mut dims: Vec<CopyDim> = self.dims.iter().copied().filter(|d| d.count != 1).collect();
        dims.sort_by_key(|d| {
            (std::cmp::Reverse(d.dst.unsigned_abs()), std::cmp::Reverse(d.src.unsigned_abs()))
        });
        let mut out: Vec<CopyDim> = Vec::new();
        for d in dims {
            match out.last_mut() {
                Some(o) if o.src == d.src * d.count as i64 && o.dst == d.dst * d.count as i64 => {
                    *o = CopyDim { count: o.count * d.count, ..d }
                }
                _ => out.push(d),
            }
        }
        out
    }
    fn elems(&self) -> usize {
        self.dims.iter().map(|d| d.count).product()
    }
    /// The furthest byte (exclusive) that it touches: `(source, destination)`; `None` where a step goes below 0.
    fn reach(&self, width: usize) -> Option<(usize, usize)> {
        let (mut s, mut d) = (self.src.checked_add(width)?, self.dst.checked_add(width)?);
        let mut low = 0i64;
        for dim in &self.dims {
            let n = i64::try_from(dim.count.checked_sub(1)?).ok()?;
            let (a, b) = (dim.src.checked_mul(n)?, dim.dst.checked_mul(n)?);
            if a < 0 {
                low = low.checked_add(a)?
            } else {
                s = s.checked_add(a as usize)?
            }
            d = d.checked_add(usize::try_from(b).ok()?)?;
        }
        (low.unsigned_abs() as usize <= self.src).then_some((s, d))
    }
}

fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl Copy {
    /// The step function; operands are the sources in order, then the destination.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a part reaches outside its operands.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let ty = match self.width {
            1 => I8,
            2 => I16,
            4 => I32,
            8 => I64,
            w => return Err(Error::unsupported("copy", format!("elements of {w} bytes"))),
        };
        let parts: Vec<&CopyPart> = self.parts.iter().filter(|p| p.elems() > 0).collect();
        for p in &parts {
            let inside = p.reach(self.width).filter(|(s, d)| {
                self.src_bytes.get(p.source).is_some_and(|n| s <= n) && *d <= self.dst_bytes
            });
            if inside.is_none() {
                return Err(Error::invalid("copy", format!("{p:?} reaches outside its operands")));
            }
        }
        let bytes = parts.iter().map(|p| p.elems()).sum::<usize>() * self.width;
        let tasks = if bytes < SPLIT_BYTES { 1 } else { threads.max(1) };
        let n = self.src_bytes.len();
        let key = format!("{self:?} {tasks}");
        let func = e.cached(key, |e| {
            e.step("copy", n + 1, |_, b, p, task| {
                for part in &parts {
                    for (src, dst, dims) in cut(part.normalised(), self.width, tasks) {
                        let src = off(b, p[part.source], part.src as i64 + src);
                        let dst = off(b, p[n], part.dst as i64 + dst);
                        emit(b, src, dst, &dims, ty, task, tasks);
                    }
                }
                Ok(())
            })
        })?;
        let mut operands: Vec<Operand> = self.src_bytes.iter().map(|b| Operand::read("x", *b)).collect();
        operands.push(Operand { name: "y", bytes: self.dst_bytes, access: Access::Write });
        Ok(Kernel {
            func,
            name: format!("copy {bytes} bytes in {} parts", parts.len()),
            operands,
            tasks,
            flops: 0,
        })
    }
}

/// A piece of a copy: byte offsets in the source and in the destination, and dims.
type Piece = (i64, i64, Vec<CopyDim>);

/// Cuts the longest dim into equal parts for `tasks` and what is left over, where the dims that [`emit`] deals out would
/// leave some task with less than the others: one run of bytes, or one transposed matrix.
fn cut(dims: Vec<CopyDim>, width: usize, tasks: usize) -> Vec<Piece> {
    let whole = |dims| vec![(0, 0, dims)];
    let contiguous = |d: &CopyDim| d.src == width as i64 || d.dst == width as i64;
    let dealt: usize = dims.iter().filter(|d| !contiguous(d)).map(|d| d.count).product();
    let longest = dims.iter().enumerate().filter(|(_, d)| contiguous(d)).max_by_key(|(_, d)| d.count);
    let Some((at, &dim)) = longest else { return whole(dims) };
    // whole vectors of each width and whole 4x4 blocks in each part
    let each = dim.count / tasks / 16 * 16;
    if tasks == 1 || dealt >= 4 * tasks || dealt.is_multiple_of(tasks) || each == 0 {
        return whole(dims);
    }
    let mut parts = dims.clone();
    parts[at].count = each;
    let steps = |d: CopyDim| (each as i64 * d.src, each as i64 * d.dst);
    let (src, dst) = steps(dim);
    parts.insert(0, CopyDim { count: tasks, src, dst });
    let mut pieces = vec![(0, 0, parts)];
    let rest = dim.count - tasks * each;
    if rest > 0 {
        let mut dims = dims;
        dims[at].count = rest;
        pieces.push((tasks as i64 * src, tasks as i64 * dst, dims));
    }
    pieces
}

/// How the innermost dims are walked.
enum Inner {
    /// A run of bytes.
    Run(usize),
    /// Source contiguous along the first, destination along the second.
    Transpose(CopyDim, CopyDim),
    /// One element after another.
    Single,
}

fn emit(
    b: &mut FunctionBuilder,
    src: Value,
    dst: Value,
    dims: &[CopyDim],
    ty: Type,
    task: Value,
    tasks: usize,
) {
    let width = i64::from(ty.bytes());
    let mut outer = dims.to_vec();
    let s = outer.iter().position(|d| d.src == width);
    let d = outer.iter().position(|d| d.dst == width);
    let inner = match (s, d) {
        (Some(s), Some(d)) if s == d => {
            let run = outer.remove(s);
            Inner::Run(run.count * width as usize)
        }
        (Some(s), Some(d)) if width == 4 && outer[s].count >= 4 && outer[d].count >= 4 => {
            let pair = (outer[s], outer[d]);
            let (first, second) = (s.max(d), s.min(d));
            outer.remove(first);
            outer.remove(second);
            Inner::Transpose(pair.0, pair.1)
        }
        _ => Inner::Single,
    };
    // enough units for the tasks: outer dims are dealt out together, at least the first
    let mut dealt = 0;
    let mut units = 1;
    while dealt < outer.len() && units < 4 * tasks {
        units *= outer[dealt].count;
        dealt += 1;
    }
    let counts: Vec<usize> = outer[..dealt].iter().map(|d| d.count).collect();
    let (low, high) = share(b, task, units, tasks);
    for_range(b, low, high, |b, u| {
        let c = coordinates(b, u, &counts);
        let (mut s, mut d) = (src, dst);
        for (i, dim) in c.iter().zip(&outer) {
            s = at(b, s, *i, dim.src);
            d = at(b, d, *i, dim.dst);
        }
        nest(b, s, d, &outer[dealt..], &inner, ty);
    });
}

fn nest(b: &mut FunctionBuilder, src: Value, dst: Value, dims: &[CopyDim], inner: &Inner, ty: Type) {
    let Some((first, rest)) = dims.split_first() else {
        return match inner {
            Inner::Run(bytes) => run(b, src, dst, *bytes),
            Inner::Transpose(s, d) => transpose(b, src, dst, *s, *d),
            Inner::Single => {
                let v = b.ins().load(ty, flags(), src, 0);
                b.ins().store(flags(), v, dst, 0);
            }
        };
    };
    for_n(b, first.count as i64, |b, i| {
        let (s, d) = (at(b, src, i, first.src), at(b, dst, i, first.dst));
        nest(b, s, d, rest, inner, ty);
    });
}

/// Copies `bytes` contiguous bytes.
fn run(b: &mut FunctionBuilder, src: Value, dst: Value, bytes: usize) {
    let blocks = bytes / 64;
    for_n(b, blocks as i64, |b, i| {
        let (s, d) = (at(b, src, i, 64), at(b, dst, i, 64));
        let v: Vec<Value> = (0..4).map(|k| b.ins().load(I8X16, flags(), s, 16 * k)).collect();
        for (k, v) in v.into_iter().enumerate() {
            b.ins().store(flags(), v, d, 16 * k as i32);
        }
    });
    let mut done = blocks * 64;
    let (s, d) = (off(b, src, done as i64), off(b, dst, done as i64));
    let start = done;
    for (ty, size) in [(I8X16, 16), (I64, 8), (I32, 4), (I16, 2), (I8, 1)] {
        while bytes - done >= size {
            let o = (done - start) as i32;
            let v = b.ins().load(ty, flags(), s, o);
            b.ins().store(flags(), v, d, o);
            done += size;
        }
    }
}

/// 4-byte elements, the source contiguous along `s`, the destination along `d`: 4x4 blocks, then what is left.
fn transpose(b: &mut FunctionBuilder, src: Value, dst: Value, s: CopyDim, d: CopyDim) {
    let (bs, bd) = (s.count / 4, d.count / 4);
    for_n(b, bs as i64, |b, i| {
        let (p, q) = (at(b, src, i, 16), at(b, dst, i, 4 * s.dst));
        for_n(b, bd as i64, |b, j| {
            let (p, q) = (at(b, p, j, 4 * d.src), at(b, q, j, 16));
            block(b, p, q, d.src, s.dst);
        });
        let (p, q) = (off(b, p, 4 * bd as i64 * d.src), off(b, q, 16 * bd as i64));
        singles(b, p, q, CopyDim { count: 4, ..s }, CopyDim { count: d.count - 4 * bd, ..d });
    });
    let (p, q) = (off(b, src, 16 * bs as i64), off(b, dst, 4 * bs as i64 * s.dst));
    singles(b, p, q, CopyDim { count: s.count - 4 * bs, ..s }, d);
}

fn singles(b: &mut FunctionBuilder, src: Value, dst: Value, s: CopyDim, d: CopyDim) {
    for_n(b, s.count as i64, |b, i| {
        let (p, q) = (at(b, src, i, s.src), at(b, dst, i, s.dst));
        for_n(b, d.count as i64, |b, j| {
            let (p, q) = (at(b, p, j, d.src), at(b, q, j, d.dst));
            let v = b.ins().load(I32, flags(), p, 0);
            b.ins().store(flags(), v, q, 0);
        });
    });
}

/// A 4x4 block of 4-byte elements: rows `row` bytes apart in the source become columns, `col` bytes apart.
fn block(b: &mut FunctionBuilder, src: Value, dst: Value, row: i64, col: i64) {
    let cast = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
    let rows: Vec<Value> = (0..4)
        .map(|r| {
            let p = off(b, src, r * row);
            b.ins().load(I8X16, flags(), p, 0)
        })
        .collect();
    let shuffle = |b: &mut FunctionBuilder, x: Value, y: Value, words: [u8; 4]| {
        let bytes: Vec<u8> = words.iter().flat_map(|w| (0..4).map(move |i| 4 * w + i)).collect();
        let mask = b.func.dfg.immediates.push(ConstantData::from(bytes.as_slice()));
        b.ins().shuffle(x, y, mask)
    };
    let (lo, hi) = ([0, 4, 1, 5], [2, 6, 3, 7]);
    let (lo64, hi64) = ([0, 1, 4, 5], [2, 3, 6, 7]);
    let (a, c) = (shuffle(b, rows[0], rows[1], lo), shuffle(b, rows[2], rows[3], lo));
    let (e, g) = (shuffle(b, rows[0], rows[1], hi), shuffle(b, rows[2], rows[3], hi));
    let out =
        [shuffle(b, a, c, lo64), shuffle(b, a, c, hi64), shuffle(b, e, g, lo64), shuffle(b, e, g, hi64)];
    for (i, v) in out.into_iter().enumerate() {
        let v = b.ins().bitcast(F32X4, cast, v);
        let q = off(b, dst, i as i64 * col);
        b.ins().store(flags(), v, q, 0);
    }
}
