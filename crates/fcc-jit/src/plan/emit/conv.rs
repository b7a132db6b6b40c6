//! Convolution and pooling.
use super::forms::{conv_input, whole_groups};
use super::{Emit, Form, Loc, Stop, built, no_kernel};
use crate::aligned::AlignedF32;
use crate::kernels::conv::Conv;
use crate::kernels::conv_transpose::ConvTranspose;
use crate::kernels::global_pool::GlobalPool;
use crate::kernels::lanewise;
use crate::kernels::winograd::Winograd;
use crate::module::Kernel;
use crate::plan::ir::{ConvNode, Node, PoolKind, PoolNode, Vx};
use fcc_ir::{Error, Tensor};

fn missing() -> Stop {
    Stop::Error(Error::invalid("a lowered node lacks an operand"))
}

/// The elements of weights, which lowering has seen to be f32.
pub(super) fn floats(t: &Tensor) -> crate::error::Result<std::borrow::Cow<'_, [f32]>> {
    t.as_slice::<f32>().map_err(|e| crate::error::Error::Codegen(e.to_string()))
}

impl Emit<'_> {
    pub(super) fn conv(&mut self, node: &Node, conv: &ConvNode) -> Result<(), Stop> {
        let (x, w, y) = match (node.input(0), node.input(1), node.out()) {
            (Some(x), Some(w), Some(y)) => (x, w, y),
            _ => return Err(missing()),
        };
        let form = conv_input(self.program, conv, x, self.forms.blocked[x.at()], self.forms.cb);
        let residual = if conv.residual {
            Some(node.inputs.last().copied().flatten().ok_or_else(missing)?)
        } else {
            None
        };
        let x = self.need(x, form, &node.place)?;
        let r = residual.map(|r| self.need(r, Form::Blocked, &node.place)).transpose()?;
        let y = self.make(y)?;
        let (Some(xl), Some(yl)) = (x.layout, y.layout) else { return Err(missing()) };
        let isa = self.code.isa();
        let threads = self.shared.options.threads;
        let weights = self.program.constant_of(w).ok_or_else(missing)?;
        let weights = weights.clone();
        if conv.transposed {
            let k = ConvTranspose {
                x: xl,
                y: yl,
                kernel: conv.kernel,
                strides: conv.strides,
                dilations: conv.dilations,
                pads_begin: conv.pads_begin,
                group: conv.group,
                bias: conv.bias,
                activation: conv.activation,
            };
            let kernel = built(k.build(self.code.emitter(), threads))?;
            let job = k.clone();
            let packed = self
                .packed_later(k.packed_elems(isa), move |out| job.pack_weights(isa, &floats(&weights)?, out));
            return self.finish_conv(node, conv, kernel, packed, (k.bias_elems(isa), conv.group), vec![x, y]);
        }
        let dense = conv.group == 1 || whole_groups(conv.group, xl.c, yl.c, self.forms.cb);
        let (kernel, packed, bias_elems) = if dense {
            let k = Conv {
                x: xl,
                y: yl,
                kernel: conv.kernel,
                strides: conv.strides,
                dilations: conv.dilations,
                pads_begin: conv.pads_begin,
                group: conv.group,
                bias: conv.bias,
                residual: r.and_then(|r| r.layout),
                activation: conv.activation,
            };
            let declined = Winograd::declined(&k, isa);
            self.because(match &declined {
                None => "Winograd: 3x3, stride 1, enough channels and pixels to pay for the transforms"
                    .to_string(),
                Some(why) => format!("not Winograd: {why}"),
            });
            if declined.is_none() {
                let k = Winograd { conv: k };
                let kernel = built(k.build(self.code.emitter(), threads))?;
                let (elems, bias, job) = (k.packed_elems(isa), k.bias_elems(isa), k);
                let pack = move |out: &mut [f32]| job.pack_weights(isa, threads, &floats(&weights)?, out);
                (kernel, self.packed_later(elems, pack), bias)
            } else {
                let kernel = built(k.build(self.code.emitter(), threads))?;
                let (elems, bias, job) = (k.packed_elems(isa), k.bias_elems(isa), k);
                let pack = move |out: &mut [f32]| job.pack_weights(isa, &floats(&weights)?, out);
                (kernel, self.packed_later(elems, pack), bias)
            }
        } else {
            let (c, m) = (xl.c / conv.group, yl.c / conv.group);
            let cb = self.forms.cb;
            self.because(format!(
                "not as matrix products: channels of a group: got {c} to {m}, need multiples of {cb}"
            ));
            let k = lanewise::GroupConv {
                x: xl,
                y: yl,
                kernel: conv.kernel,
                strides: conv.strides,
                dilations: conv.dilations,
                pads_begin: conv.pads_begin,
                group: conv.group,
                bias: conv.bias,
                residual: r.and_then(|r| r.layout),
                activation: conv.activation,
            };
            let kernel = built(k.build(self.code.emitter(), threads))?;
            let (elems, bias, job) = (k.packed_elems(isa), k.bias_elems(isa), k);
            let pack = move |out: &mut [f32]| job.pack_weights(isa, &floats(&weights)?, out);
            (kernel, self.packed_later(elems, pack), bias)
        };
        let groups = if dense { conv.group } else { 1 };
        let operands = [vec![x], r.into_iter().collect(), vec![y]].concat();
        self.finish_conv(node, conv, kernel, packed, (bias_elems, groups), operands)
    }

    /// The step of a convolution: its operands are x, the weights, the bias, the residual, y.
    fn finish_conv(
        &mut self,
        node: &Node,
        conv: &ConvNode,
        kernel: Kernel,
        packed: Loc,
        (bias_elems, groups): (usize, usize),
        operands: Vec<Loc>,
    ) -> Result<(), Stop> {
        let mut operands = operands.into_iter();
        let mut args: Vec<Loc> = operands.next().into_iter().collect();
        args.push(packed);
        if conv.bias {
            let b = node.input(2).and_then(|b| self.program.constant_of(b)).ok_or_else(missing)?;
            args.push(self.packed_groups(&b.as_slice::<f32>()?, groups, bias_elems)?);
        }
        args.extend(operands);
        self.run(&node.place, kernel, args)
    }

    /// Values in `groups` equal runs, each padded with zeros to its share of `elems`.
    pub(super) fn packed_groups(&mut self, values: &[f32], groups: usize, elems: usize) -> Result<Loc, Stop> {
        let (each, room) = (values.len() / groups.max(1), elems / groups.max(1));
        if each > room {
            return Err(Error::mismatch("bias", values.len(), elems).into());
        }
        let mut data = AlignedF32::zeros(elems);
        for g in 0..groups {
            data[g * room..][..each].copy_from_slice(&values[g * each..][..each]);
        }
        Ok(self.packed(data))
    }

    fn in_out(&mut self, node: &Node) -> Result<(Loc, Vx), Stop> {
        let (Some(x), Some(y)) = (node.input(0), node.out()) else { return Err(missing()) };
        Ok((self.need(x, Form::Blocked, &node.place)?, y))
    }

    pub(super) fn pool(&mut self, node: &Node, pool: &PoolNode) -> Result<(), Stop> {
        let (x, y) = self.in_out(node)?;
        let y = self.make(y)?;
        let (Some(xl), Some(yl)) = (x.layout, y.layout) else { return Err(missing()) };
        let kernel = lanewise::Pool {
            x: xl,
            y: yl,
            kernel: pool.kernel,
            strides: pool.strides,
            dilations: pool.dilations,
            pads_begin: pool.pads_begin,
            pads_end: pool.pads_end,
            kind: match pool.kind {
                PoolKind::Max => lanewise::PoolKind::Max,
                PoolKind::Average { include_pad: false } => lanewise::PoolKind::Average,
                PoolKind::Average { include_pad: true } => lanewise::PoolKind::AverageCountingPads,
            },
        };
        let kernel = built(kernel.build(self.code.emitter(), self.shared.options.threads))?;
        self.run(&node.place, kernel, vec![x, y])
    }

    pub(super) fn global_pool(&mut self, node: &Node, kind: PoolKind) -> Result<(), Stop> {
        let (x, y) = self.in_out(node)?;
        let Some(xl) = x.layout else { return Err(no_kernel("a pool of another rank")) };
        let y = self.make_in(y, Form::Plain)?;
        let kernel = GlobalPool { x: xl, max: kind == PoolKind::Max };
        let kernel = built(kernel.build(self.code.emitter(), self.shared.options.threads))?;
        self.run(&node.place, kernel, vec![x, y])
    }
}
