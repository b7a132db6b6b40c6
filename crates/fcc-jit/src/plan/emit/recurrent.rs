//! Recurrent layers.
use super::weights::Weights;
use super::{Emit, Form, Home, Loc, Stop, no_kernel};
use crate::aligned::AlignedF32;
use crate::host::PackRecurrence;
use crate::kernels::recurrent::Recurrence;
use crate::plan::ir::{Node, Vx};
use std::sync::Arc;

impl Emit<'_> {
    /// Inputs of the node: g, r, extra (if the cell has one), h0, c0 (LSTM), lens (if given).
    pub(super) fn recurrent(&mut self, node: &Node, spec: &Recurrence) -> Result<(), Stop> {
        let mut inputs = node.inputs.iter().flatten().copied();
        let mut next = || inputs.next().ok_or_else(|| no_kernel("a recurrent layer without operands"));
        let (g, r) = (next()?, next()?);
        let mut args = vec![self.need(g, Form::Plain, &node.place)?, self.recurrence_weights(node, spec, r)?];
        if spec.cell.extras() > 0 {
            args.push(self.recurrence_extra(node, spec, next()?)?);
        }
        for v in inputs {
            args.push(self.need(v, Form::Plain, &node.place)?);
        }
        for v in node.outputs.iter().flatten() {
            args.push(self.make_in(*v, Form::Plain)?);
        }
        let kernel = self.kernel(spec, Recurrence::build)?;
        self.run(&node.place, kernel, args)
    }

    fn recurrence_weights(&mut self, node: &Node, spec: &Recurrence, r: Vx) -> Result<Loc, Stop> {
        let isa = self.code.isa();
        let elems = spec.packed_elems(isa);
        let Some(weights) = self.program.constant_of(r).cloned() else {
            return self.packed_in_the_run(node, spec, r, elems, false);
        };
        let job = spec.clone();
        Ok(self.packed_from(Weights::plain(weights), elems, move |w, out| job.pack(isa, w.values, out)))
    }

    fn recurrence_extra(&mut self, node: &Node, spec: &Recurrence, v: Vx) -> Result<Loc, Stop> {
        let isa = self.code.isa();
        let Some(lists) = self.program.constant_of(v) else {
            return self.packed_in_the_run(node, spec, v, spec.extra_elems(isa), true);
        };
        let packed = spec.pack_extra(isa, &lists.as_slice::<f32>()?);
        Ok(self.packed(AlignedF32::from_slice(&packed)))
    }

    fn packed_in_the_run(
        &mut self,
        node: &Node,
        spec: &Recurrence,
        v: Vx,
        elems: usize,
        extra: bool,
    ) -> Result<Loc, Stop> {
        let host = PackRecurrence { spec: spec.clone(), isa: self.code.isa(), extra };
        let bytes = elems.checked_mul(4).ok_or_else(|| no_kernel("weights that are too large"))?;
        let read = (self.need(v, Form::Plain, &node.place)?, self.bytes_of(v)?);
        let to = Loc { home: Home::Buffer(self.buffer(bytes)), offset: 0, layout: None };
        self.host_step(&node.place, Arc::new(host), vec![read], (to, bytes));
        Ok(to)
    }
}
