//! Recurrent layers.
use super::conv::floats;
use super::{Emit, Form, Stop, built, no_kernel};
use crate::aligned::AlignedF32;
use crate::kernels::recurrent::Recurrence;
use crate::plan::ir::Node;

impl Emit<'_> {
    /// Inputs of the node: g, r, extra (if the cell has one), h0, c0 (LSTM), lens (if given).
    pub(super) fn recurrent(&mut self, node: &Node, spec: &Recurrence) -> Result<(), Stop> {
        let mut inputs = node.inputs.iter().flatten().copied();
        let mut next = || inputs.next().ok_or_else(|| no_kernel("a recurrent layer without operands"));
        let (g, r) = (next()?, next()?);
        let mut args = vec![self.need(g, Form::Plain, &node.place)?];
        let weights = self.program.constant_of(r).ok_or_else(|| no_kernel("computed weights"))?.clone();
        let (isa, job) = (self.code.isa(), spec.clone());
        args.push(
            self.packed_later(spec.packed_elems(isa), move |out| job.pack(isa, &floats(&weights)?, out)),
        );
        if spec.cell.extras() > 0 {
            let extra = self.program.constant_of(next()?).ok_or_else(|| no_kernel("a computed bias"))?;
            let packed = spec.pack_extra(isa, &extra.as_slice::<f32>()?);
            args.push(self.packed(AlignedF32::from_slice(&packed)));
        }
        for v in inputs {
            args.push(self.need(v, Form::Plain, &node.place)?);
        }
        for v in node.outputs.iter().flatten() {
            args.push(self.make_in(*v, Form::Plain)?);
        }
        let kernel = built(spec.build(self.code.emitter(), self.shared.options.threads))?;
        self.run(&node.place, kernel, args)
    }
}
