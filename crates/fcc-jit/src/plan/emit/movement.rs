//! Views, strided copies and concatenation.
use super::forms::{activation, channels};
use super::{Emit, Form, Loc, Stop, no_kernel};
use crate::kernels::channels::Channels;
use crate::kernels::copy::{Copy, CopyDim, CopyPart};
use crate::kernels::ew::{Binary, Dim, Elementwise, Expr, Ins, Unary};
use crate::kernels::layout::BlockedLayout;
use crate::kernels::resize::Resize;
use crate::plan::ir::{Node, Vx};
use fcc_ir::ops::lrn::LrnParams;

impl Emit<'_> {
    /// The same bytes under another name.
    pub(super) fn view(&mut self, node: &Node) -> Result<(), Stop> {
        let (Some(x), Some(y)) = (node.input(0), node.out()) else {
            return Err(no_kernel("a view of nothing"));
        };
        let loc = self.need(x, Form::Plain, &node.place)?;
        let layout = activation(self.program, y);
        self.locs.insert((y, Form::Plain), Loc { layout, ..loc });
        Ok(())
    }

    /// A part along one axis: of whole channel blocks it is a view, as it is where nothing lies between its elements.
    pub(super) fn part(&mut self, node: &Node, axis: usize, start: usize) -> Result<(), Stop> {
        let (Some(x), Some(y)) = (node.input(0), node.out()) else {
            return Err(no_kernel("a part of nothing"));
        };
        if self.forms.blocked[y.at()] && !start.is_multiple_of(self.forms.cb) {
            return self.channels(node, x, y);
        }
        if self.forms.blocked[y.at()] {
            let x = self.need(x, Form::Blocked, &node.place)?;
            let mut layout = self.layout(y, Form::Blocked)?;
            let have = x.layout.ok_or_else(|| no_kernel("no activation"))?;
            layout.parent_blocks = Some(have.parent_blocks.unwrap_or(have.blocks()));
            layout.halo = have.halo;
            let offset = x.offset + start / self.forms.cb * layout.block_bytes();
            self.locs.insert((y, Form::Blocked), Loc { offset, layout: Some(layout), ..x });
            return Ok(());
        }
        let (from, to) = (self.program.shape(x).to_vec(), self.program.shape(y).to_vec());
        let inner: usize = from[axis + 1..].iter().product();
        let outer: usize = from[..axis].iter().product();
        let loc = self.need(x, Form::Plain, &node.place)?;
        let constant = self.program.constant_of(x).is_some();
        if outer == 1 && matches!(loc.home, super::Home::Buffer(_)) && !constant {
            let offset = loc.offset + start * inner * self.width(x);
            self.locs.insert((y, Form::Plain), Loc { offset, layout: activation(self.program, y), ..loc });
            return Ok(());
        }
        let dims = vec![(outer, (from[axis] * inner) as i64), (to[axis], inner as i64), (inner, 1)];
        self.copy(node, start * inner, &dims)
    }

    /// Channels of a blocked activation in another order.
    fn channels(&mut self, node: &Node, x: Vx, y: Vx) -> Result<(), Stop> {
        let sources = channels(self.program, node).ok_or_else(|| no_kernel("no selection of channels"))?;
        let x = self.need(x, Form::Blocked, &node.place)?;
        let y = self.make(y)?;
        let (Some(xl), Some(yl)) = (x.layout, y.layout) else { return Err(no_kernel("no activation")) };
        let spec = Channels { x: xl, y: yl, sources };
        let kernel = self.kernel(&spec, Channels::build)?;
        self.run(&node.place, kernel, vec![x, y])
    }

    /// For each axis the source of each output position, in as few strided copies as the positions allow.
    pub(super) fn select(
        &mut self,
        node: &Node,
        sources: &[Vec<Option<usize>>],
        fill: f32,
    ) -> Result<(), Stop> {
        let (Some(x), Some(y)) = (node.input(0), node.out()) else {
            return Err(no_kernel("nothing to select"));
        };
        if self.forms.blocked[y.at()] {
            return self.channels(node, x, y);
        }
        let from = self.program.shape(x).to_vec();
        let to = self.program.shape(y).to_vec();
        let (src, dst) = (strides(&from), strides(&to));
        let mut parts = vec![CopyPart { source: 0, src: 0, dst: 0, dims: vec![] }];
        for (axis, list) in sources.iter().enumerate() {
            if let Some((first, dims)) = affine(list) {
                for part in &mut parts {
                    part.src += 4 * first * src[axis];
                    part.dims.extend(dims.iter().map(|(count, from, at)| CopyDim {
                        count: *count,
                        src: 4 * from * src[axis] as i64,
                        dst: 4 * (at * dst[axis]) as i64,
                    }));
                }
                continue;
            }
            let runs = runs(list);
            if parts.len() * runs.len() > 64 {
                return Err(no_kernel("a selection of too many pieces"));
            }
            let mut next = vec![];
            for part in &parts {
                for (at, first, step, count) in &runs {
                    let mut p = part.clone();
                    p.src += 4 * first * src[axis];
                    p.dst += 4 * at * dst[axis];
                    p.dims.push(CopyDim {
                        count: *count,
                        src: 4 * step * src[axis] as i64,
                        dst: 4 * dst[axis] as i64,
                    });
                    next.push(p);
                }
            }
            parts = next;
        }
        let bytes = [self.bytes_of(x)?, self.bytes_of(y)?];
        let x = self.need(x, Form::Plain, &node.place)?;
        let to_loc = self.make_in(y, Form::Plain)?;
        if sources.iter().flatten().any(Option::is_none) {
            let spec = Elementwise {
                expr: Expr { code: vec![Ins::Const(fill)] },
                dims: vec![Dim { count: bytes[1] / 4, steps: vec![4] }],
                base: vec![0],
                bytes: vec![bytes[1]],
                types: vec![],
            };
            let kernel = self.kernel(&spec, Elementwise::build)?;
            self.run(&node.place, kernel, vec![to_loc])?;
        }
        let copy = Copy { width: 4, parts, src_bytes: vec![bytes[0]], dst_bytes: bytes[1] };
        let kernel = self.kernel(&copy, Copy::build)?;
        self.run(&node.place, kernel, vec![x, to_loc])
    }

    pub(super) fn resize(&mut self, node: &Node, taps: &[Vec<Vec<(usize, f32)>>]) -> Result<(), Stop> {
        let (Some(x), Some(y)) = (node.input(0), node.out()) else {
            return Err(no_kernel("nothing to resize"));
        };
        let x = self.need(x, Form::Blocked, &node.place)?;
        let y = self.make(y)?;
        let (Some(xl), Some(yl)) = (x.layout, y.layout) else { return Err(no_kernel("no activation")) };
        let mut all = [vec![vec![(0, 1.0)]], vec![vec![(0, 1.0)]], vec![vec![(0, 1.0)]]];
        let first = 3 - taps.len();
        for (to, from) in all[first..].iter_mut().zip(taps) {
            *to = from.clone();
        }
        let spec = Resize { x: xl, y: yl, taps: all };
        let kernel = self.kernel(&spec, Resize::build)?;
        let table = self.packed(crate::aligned::AlignedF32::from_slice(&spec.table()));
        self.zero_halo(&y, &node.place)?;
        self.run(&node.place, kernel, vec![x, table, y])
    }

    /// `LRN`: channels near the ends have fewer neighbours, each such channel is a step of its own.
    pub(super) fn lrn(&mut self, node: &Node, p: &LrnParams) -> Result<(), Stop> {
        let (Some(v), Some(y)) = (node.input(0), node.out()) else {
            return Err(no_kernel("nothing to normalise"));
        };
        let shape = self.program.shape(v).to_vec();
        let (n, c, inner) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
        let bytes = self.bytes_of(v)?;
        let x = self.need(v, Form::Plain, &node.place)?;
        let to = self.make_in(y, Form::Plain)?;
        let reach = |channel: usize| (p.reach.0.min(channel), p.reach.1.min(c - 1 - channel));
        let mut first = 0;
        while first < c {
            let (before, after) = reach(first);
            let count = (first..c).take_while(|ch| reach(*ch) == (before, after)).count();
            // input 0 is the channel itself, then its neighbours
            let mut offsets = vec![0i64];
            offsets.extend((-(before as i64)..=after as i64).filter(|o| *o != 0));
            let step = |o: i64| 4 * ((first as i64 + o) * inner as i64);
            let mut base: Vec<i64> = offsets.iter().map(|o| step(*o)).collect();
            base.push(step(0));
            let operands = base.len();
            let spec = Elementwise {
                expr: lrn_expr(p, offsets.len()),
                dims: vec![
                    Dim { count: n, steps: vec![4 * (c * inner) as i64; operands] },
                    Dim { count: count * inner, steps: vec![4; operands] },
                ],
                base,
                bytes: vec![bytes; operands],
                types: vec![],
            };
            let kernel = self.kernel(&spec, Elementwise::build)?;
            let mut args = vec![x; operands - 1];
            args.push(to);
            self.run(&node.place, kernel, args)?;
            first += count;
        }
        Ok(())
    }

    fn width(&self, v: Vx) -> usize {
        self.program.val(v).dense.as_ref().map_or(0, |d| d.0.bits() / 8)
    }

    pub(super) fn copy(&mut self, node: &Node, offset: usize, dims: &[(usize, i64)]) -> Result<(), Stop> {
        let (Some(x), Some(y)) = (node.input(0), node.out()) else {
            return Err(no_kernel("a copy of nothing"));
        };
        let width = self.width(x);
        let from = self.need(x, Form::Plain, &node.place)?;
        let to = self.make_in(y, Form::Plain)?;
        let mut step = width as i64;
        let mut parts: Vec<CopyDim> = vec![];
        for (count, src) in dims.iter().rev() {
            parts.push(CopyDim { count: *count, src: src * width as i64, dst: step });
            step *= *count as i64;
        }
        parts.reverse();
        let copy = Copy {
            width,
            parts: vec![CopyPart { source: 0, src: offset * width, dst: 0, dims: parts }],
            src_bytes: vec![self.bytes_of(x)?],
            dst_bytes: self.bytes_of(y)?,
        };
        let kernel = self.kernel(&copy, Copy::build)?;
        self.run(&node.place, kernel, vec![from, to])
    }

    pub(super) fn concat(&mut self, node: &Node, axis: usize) -> Result<(), Stop> {
        let out = node.out().ok_or_else(|| no_kernel("no output"))?;
        if self.forms.blocked[out.at()] {
            return self.concat_blocks(node, out);
        }
        let shape = self.program.shape(out).to_vec();
        let width = self.width(out);
        let inner: usize = shape[axis + 1..].iter().product::<usize>() * width;
        let outer: usize = shape[..axis].iter().product();
        let row = shape[axis] * inner;
        let (mut args, mut parts, mut src_bytes, mut at) = (vec![], vec![], vec![], 0);
        for v in node.inputs.iter().flatten() {
            let bytes = self.program.shape(*v)[axis] * inner;
            args.push(self.need(*v, Form::Plain, &node.place)?);
            let dims = vec![
                CopyDim { count: outer, src: bytes as i64, dst: row as i64 },
                CopyDim { count: bytes / width, src: width as i64, dst: width as i64 },
            ];
            parts.push(CopyPart { source: src_bytes.len(), src: 0, dst: at, dims });
            src_bytes.push(self.bytes_of(*v)?);
            at += bytes;
        }
        args.push(self.make_in(out, Form::Plain)?);
        let copy = Copy { width, parts, src_bytes, dst_bytes: self.bytes_of(out)? };
        let kernel = self.kernel(&copy, Copy::build)?;
        self.run(&node.place, kernel, args)
    }

    /// Along channels: what was not written in place is copied, shifted inside the blocks where it begins inside one.
    fn concat_blocks(&mut self, node: &Node, out: Vx) -> Result<(), Stop> {
        let whole = self.make(out)?;
        let layout = whole.layout.ok_or_else(|| no_kernel("no activation"))?;
        let (root, first) = self.forms.root(out);
        let cb = self.forms.cb;
        let total = layout.parent_blocks.unwrap_or(layout.blocks());
        let mut channel = 0;
        for v in node.inputs.iter().flatten() {
            let c = self.program.shape(*v)[1];
            let block = channel / cb;
            let in_place = channel.is_multiple_of(cb) && self.forms.root(*v) == (root, first + block);
            if !in_place {
                let from = self.need(*v, Form::Blocked, &node.place)?;
                let have = from.layout.ok_or_else(|| no_kernel("no activation"))?;
                let blocks = (channel % cb + c).div_ceil(cb);
                let part = BlockedLayout { c: blocks * cb, parent_blocks: Some(total), ..layout };
                let offset = whole.offset + block * layout.block_bytes();
                let to = Loc { offset, layout: Some(part), ..whole };
                let copy = insert(&have, &part, channel % cb);
                let kernel = self.kernel(&copy, Copy::build)?;
                self.zero_halo(&to, &node.place)?;
                self.run(&node.place, kernel, vec![from, to])?;
            }
            channel += c;
        }
        Ok(())
    }
}

/// The copy of blocked channels to blocks that begin `shift` channels before them.
fn insert(from: &BlockedLayout, to: &BlockedLayout, shift: usize) -> Copy {
    let (cb, width) = (from.cb, from.elem.bytes());
    let mut parts = vec![];
    // lanes `low..high` of source blocks `first..first + blocks` move up by `shift`, into the next block beyond the end
    let mut part = |first: usize, blocks: usize, low: usize, high: usize| {
        if blocks == 0 || low >= high {
            return;
        }
        let (block, lane) = (first + (low + shift) / cb, (low + shift) % cb);
        let dim = |count: usize, f: fn(&BlockedLayout) -> usize| CopyDim {
            count,
            src: f(from) as i64,
            dst: f(to) as i64,
        };
        let [d, h, w] = from.spatial;
        parts.push(CopyPart {
            source: 0,
            src: from.origin_bytes() + first * from.block_bytes() + width * low,
            dst: to.origin_bytes() + block * to.block_bytes() + width * lane,
            dims: vec![
                dim(from.n, BlockedLayout::batch_bytes),
                dim(blocks, BlockedLayout::block_bytes),
                dim(d, BlockedLayout::plane_bytes),
                dim(h, BlockedLayout::row_bytes),
                dim(w, BlockedLayout::pixel_bytes),
                CopyDim { count: high - low, src: width as i64, dst: width as i64 },
            ],
        });
    };
    let (whole, rest) = (from.c / cb, from.c % cb);
    let split = cb - shift;
    part(0, whole, 0, split);
    part(0, whole, split, cb);
    part(whole, 1, 0, split.min(rest));
    part(whole, 1, split, rest);
    Copy { width, parts, src_bytes: vec![from.bytes()], dst_bytes: to.bytes() }
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        out[i] = out[i + 1] * shape[i + 1];
    }
    out
}

/// All positions as one nest of dims, if their sources are that: the first source, and for each dim its extent, the step
/// of the sources and that of the positions.
fn affine(sources: &[Option<usize>]) -> Option<(usize, Vec<(usize, i64, usize)>)> {
    let all: Vec<i64> = sources.iter().map(|s| s.map(|s| s as i64)).collect::<Option<_>>()?;
    let (mut heads, mut at, mut dims) = (all.clone(), 1, vec![]);
    while heads.len() > 1 {
        let step = heads[1] - heads[0];
        let count = 1 + heads.windows(2).take_while(|w| w[1] - w[0] == step).count();
        let even = heads.len().is_multiple_of(count)
            && heads.chunks(count).all(|c| c.windows(2).all(|w| w[1] - w[0] == step));
        if !even {
            return None;
        }
        dims.push((count, step, at));
        heads = heads.chunks(count).map(|c| c[0]).collect();
        at *= count;
    }
    Some((usize::try_from(*all.first()?).ok()?, dims))
}

/// Runs of positions whose sources are evenly spaced: `(position, first source, step, count)`.
fn runs(sources: &[Option<usize>]) -> Vec<(usize, usize, i64, usize)> {
    let mut out: Vec<(usize, usize, i64, usize)> = vec![];
    for (at, source) in sources.iter().enumerate() {
        let Some(s) = *source else { continue };
        if let Some((start, first, step, count)) = out.last_mut()
            && *start + *count == at
        {
            let next = *first as i64 + *step * *count as i64;
            if *count == 1 {
                *step = s as i64 - *first as i64;
                *count = 2;
                continue;
            }
            if next == s as i64 {
                *count += 1;
                continue;
            }
        }
        out.push((at, s, 1, 1));
    }
    out
}

/// `x / (bias + alpha / size * sum of squares)^beta` of the channel (input 0) and its neighbours.
fn lrn_expr(p: &LrnParams, inputs: usize) -> Expr {
    let mut e = Expr::default();
    let square = |e: &mut Expr, i: usize| {
        let x = e.push(Ins::Input(i));
        e.push(Ins::Binary(Binary::Mul, x, x))
    };
    let mut sum = square(&mut e, 0);
    for i in 1..inputs {
        let s = square(&mut e, i);
        sum = e.push(Ins::Binary(Binary::Add, sum, s));
    }
    let factor = e.push(Ins::Const(p.alpha / p.size as f32));
    let scaled = e.push(Ins::Binary(Binary::Mul, sum, factor));
    let bias = e.push(Ins::Const(p.bias));
    let base = e.push(Ins::Binary(Binary::Add, scaled, bias));
    let root = |e: &mut Expr, x: usize| e.push(Ins::Unary(Unary::Sqrt, x));
    let power = match p.beta {
        0.5 => root(&mut e, base),
        0.75 => {
            let half = root(&mut e, base);
            let quarter = root(&mut e, half);
            e.push(Ins::Binary(Binary::Mul, half, quarter))
        }
        _ => base,
    };
    let x = e.push(Ins::Input(0));
    let y = e.push(Ins::Binary(Binary::Div, x, power));
    e.ending_at(y)
}
