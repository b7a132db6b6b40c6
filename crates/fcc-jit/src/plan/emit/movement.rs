//! Views, strided copies and concatenation.
use super::forms::{activation, relayout};
use super::{Emit, Form, Loc, Stop, built, no_kernel};
use crate::kernels::copy::{Copy, CopyDim, CopyPart};
use crate::plan::ir::{Node, Vx};

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
        let kernel = built(copy.build(self.code.emitter(), self.shared.options.threads))?;
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
        let kernel = built(copy.build(self.code.emitter(), self.shared.options.threads))?;
        self.run(&node.place, kernel, args)
    }

    /// Along channels, of whole blocks: what was not written in place is copied.
    fn concat_blocks(&mut self, node: &Node, out: Vx) -> Result<(), Stop> {
        let whole = self.make(out)?;
        let layout = whole.layout.ok_or_else(|| no_kernel("no activation"))?;
        let mut block = 0;
        let mut zeroed = false;
        for v in node.inputs.iter().flatten() {
            let blocks = self.program.shape(*v)[1].div_ceil(self.forms.cb);
            if self.forms.inside.get(v) != Some(&(out, block)) {
                let from = self.need(*v, Form::Blocked, &node.place)?;
                let have = from.layout.ok_or_else(|| no_kernel("no activation"))?;
                let total = layout.parent_blocks.unwrap_or(layout.blocks());
                let part =
                    crate::kernels::layout::BlockedLayout { c: have.c, parent_blocks: Some(total), ..layout };
                let to =
                    Loc { offset: whole.offset + block * layout.block_bytes(), layout: Some(part), ..whole };
                let copy = relayout(&have, &part);
                let kernel = built(copy.build(self.code.emitter(), self.shared.options.threads))?;
                self.zero_halo(&to, &node.place)?;
                self.run(&node.place, kernel, vec![from, to])?;
                zeroed = true;
            }
            block += blocks;
        }
        let _ = zeroed;
        Ok(())
    }
}
