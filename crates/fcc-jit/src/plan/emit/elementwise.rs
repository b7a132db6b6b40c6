//! Elementwise expressions, on row-major tensors and on blocked activations.
use super::forms::activation;
use super::{Emit, Form, Loc, Stop, no_kernel};
use crate::aligned::AlignedF32;
use crate::kernels::elem::Elem;
use crate::kernels::ew::{Dim, Elementwise, Expr};
use crate::plan::ir::{Node, Vx};
use fcc_ir::ops::broadcast;

/// An operand: its type, where it begins and its steps in bytes along the dims of the iteration space.
struct Operand {
    loc: Loc,
    base: usize,
    steps: Vec<i64>,
    bytes: usize,
    elem: Elem,
}

impl Emit<'_> {
    pub(super) fn elementwise(&mut self, node: &Node, expr: &Expr) -> Result<(), Stop> {
        let out = node.out().ok_or_else(|| no_kernel("no output"))?;
        let blocked = self.forms.blocked[out.at()];
        let mut operands = vec![];
        for v in node.inputs.iter().flatten() {
            operands.push(if blocked {
                self.blocked_operand(*v, out, &node.place)?
            } else {
                self.plain_operand(*v, out, &node.place)?
            });
        }
        let y = self.make(out)?;
        let elem = self.elem_of(out)?;
        let size = elem.bytes() as i64;
        let (counts, base, steps) = match y.layout.filter(|_| blocked) {
            Some(l) => {
                let [d, h, w] = l.spatial;
                let steps = [
                    l.batch_bytes(),
                    l.block_bytes(),
                    l.plane_bytes(),
                    l.row_bytes(),
                    l.pixel_bytes(),
                    elem.bytes(),
                ];
                (vec![l.n, l.blocks(), d, h, w, l.cb], l.origin_bytes(), steps.map(|s| s as i64).to_vec())
            }
            None => {
                let shape = self.program.shape(out).to_vec();
                let steps = broadcast::strides(&shape, &shape).iter().map(|s| size * *s as i64).collect();
                (shape, 0, steps)
            }
        };
        let bytes = self.extent(&y, out)?;
        operands.push(Operand { loc: y, base, steps, bytes, elem });
        let dims = counts
            .iter()
            .enumerate()
            .map(|(i, count)| Dim { count: *count, steps: operands.iter().map(|o| o.steps[i]).collect() })
            .collect();
        let spec = Elementwise {
            expr: expr.clone(),
            dims,
            base: operands.iter().map(|o| o.base as i64).collect(),
            bytes: operands.iter().map(|o| o.bytes).collect(),
            types: operands.iter().map(|o| o.elem).collect(),
        };
        let kernel = self.kernel(&spec, Elementwise::build)?;
        self.zero_halo(&y, &node.place)?;
        self.run(&node.place, kernel, operands.into_iter().map(|o| o.loc).collect())
    }

    fn plain_operand(&mut self, v: Vx, out: Vx, place: &str) -> Result<Operand, Stop> {
        let loc = self.need(v, Form::Plain, place)?;
        let steps = broadcast::strides(self.program.shape(v), self.program.shape(out));
        let elem = self.elem_of(v)?;
        let steps = steps.iter().map(|s| elem.bytes() as i64 * *s as i64).collect();
        Ok(Operand { loc, base: 0, steps, bytes: self.bytes_of(v)?, elem })
    }

    /// An input of a blocked result: blocked itself, one value a channel, or one value a pixel.
    fn blocked_operand(&mut self, v: Vx, out: Vx, place: &str) -> Result<Operand, Stop> {
        let y = activation(self.program, out).ok_or_else(|| no_kernel("no activation"))?;
        let rank = self.program.shape(out).len();
        let own = self.program.shape(v);
        let mut shape = vec![1; rank - own.len().min(rank)];
        shape.extend_from_slice(own);
        let (n, c) = (shape[0], shape[1]);
        let mut spatial = [1; 3];
        spatial[5 - rank..].copy_from_slice(&shape[2..]);
        let cb = self.forms.cb;
        let along = |count: usize, step: usize| if count == 1 { 0 } else { step as i64 };
        if spatial == [1; 3] && c == y.c && self.program.constant_of(v).is_some() {
            return self.channel_constant(v, n, c);
        }
        if c == 1 && !self.locs.contains_key(&(v, Form::Blocked)) && !self.forms.blocked[v.at()] {
            // one value for all channels
            let loc = self.need(v, Form::Plain, place)?;
            let [d, h, w] = spatial;
            let elem = self.elem_of(v)?;
            let e = elem.bytes();
            let steps =
                vec![along(n, e * d * h * w), 0, along(d, e * h * w), along(h, e * w), along(w, e), 0];
            return Ok(Operand { loc, base: 0, steps, bytes: self.bytes_of(v)?, elem });
        }
        if own.len() != rank {
            return Err(no_kernel("an activation of fewer dims"));
        }
        let loc = self.need(v, Form::Blocked, place)?;
        let l = loc.layout.ok_or_else(|| no_kernel("no activation"))?;
        let one = c == 1 && y.c != 1;
        let steps = vec![
            along(n, l.batch_bytes()),
            if one { 0 } else { l.block_bytes() as i64 },
            along(l.spatial[0], l.plane_bytes()),
            along(l.spatial[1], l.row_bytes()),
            along(l.spatial[2], l.pixel_bytes()),
            if one { 0 } else { l.elem.bytes() as i64 },
        ];
        let _ = cb;
        Ok(Operand { loc, base: l.origin_bytes(), steps, bytes: l.bytes(), elem: l.elem })
    }

    /// A constant with one value a channel (and image), padded to whole blocks.
    fn channel_constant(&mut self, v: Vx, n: usize, c: usize) -> Result<Operand, Stop> {
        let cb = self.forms.cb;
        let room = c.next_multiple_of(cb);
        let tensor = self.program.constant_of(v).ok_or_else(|| no_kernel("no constant"))?;
        if tensor.dtype() != fcc_ir::DType::F32 {
            return Err(no_kernel("a constant of channels that is not f32"));
        }
        let values = tensor.as_slice::<f32>()?;
        let mut data = AlignedF32::zeros(n * room);
        for i in 0..n {
            data[i * room..][..c].copy_from_slice(&values[i * c..][..c]);
        }
        let loc = self.packed(data);
        let batch = if n == 1 { 0 } else { 4 * room as i64 };
        Ok(Operand {
            loc,
            base: 0,
            steps: vec![batch, 4 * cb as i64, 0, 0, 0, 4],
            bytes: 4 * n * room,
            elem: Elem::F32,
        })
    }
}
