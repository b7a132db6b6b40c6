//! Convolution and pooling.
use super::forms::{conv_input, dense, narrow_conv, spreads};
use super::weights::{Source, Weights};
use super::{Emit, Form, Home, Loc, Stop, no_kernel};
use crate::aligned::AlignedF32;
use crate::choices::problem::{Decided, Problem, Sums};
use crate::kernels::amx::conv::AmxConv;
use crate::kernels::conv::Conv;
use crate::kernels::conv_transpose::ConvTranspose;
use crate::kernels::copy::{Copy, CopyDim, CopyPart};
use crate::kernels::global_pool::GlobalPool;
use crate::kernels::lanewise;
use crate::kernels::layout::BlockedLayout;
use crate::kernels::narrow::NarrowConv;
use crate::module::Kernel;
use crate::plan::ir::{ConvNode, Node, PoolKind, PoolNode, Vx};
use fcc_ir::Error;

fn missing() -> Stop {
    Stop::Error(Error::invalid("a lowered node lacks an operand"))
}

impl Emit<'_> {
    pub(super) fn conv(&mut self, node: &Node, conv: &ConvNode) -> Result<(), Stop> {
        let (x, w, y) = match (node.input(0), node.input(1), node.out()) {
            (Some(x), Some(w), Some(y)) => (x, w, y),
            _ => return Err(missing()),
        };
        let isa = self.code.isa();
        if self.forms.lanes_are_pixels(node) {
            return self.narrow_conv(node, conv);
        }
        if spreads(self.program, conv, node, isa) {
            return self.spread_conv(node, conv);
        }
        let form = conv_input(self.program, conv, node, &self.forms);
        let residual = if conv.residual {
            Some(node.inputs.last().copied().flatten().ok_or_else(missing)?)
        } else {
            None
        };
        let x = self.need(x, form, &node.place)?;
        let r = residual.map(|r| self.need(r, Form::Blocked, &node.place)).transpose()?;
        let y = self.make(y)?;
        let (Some(xl), Some(yl)) = (x.layout, y.layout) else { return Err(missing()) };
        let weights = self.weights(conv, w)?;
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
            let kernel = self.kernel(&k, ConvTranspose::build)?;
            let job = k.clone();
            let pack = move |w: &Source<'_>, out: &mut [f32]| job.pack_weights(isa, w.values, out);
            let packed = self.packed_from(weights, k.packed_elems(isa), pack);
            return self.finish_conv(node, conv, kernel, packed, (k.bias_elems(isa), conv.group), vec![x, y]);
        }
        let dense = dense(conv.group, xl.c, yl.c, self.forms.cb);
        let (kernel, packed, bias) = if dense {
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
                cut: None,
            };
            let amx = self.amx_for(&k, &weights)?;
            if let Ok(k) = amx {
                return self.amx_conv(node, conv, k, weights, (x, r, y));
            }
            self.sums(Problem::Conv(k), weights, amx.err().flatten())?
        } else {
            let (c, m) = (xl.c / conv.group, yl.c / conv.group);
            let cb = self.forms.cb;
            self.because(format!(
                "not as matrix products: {} groups of {c} to {m} channels, need multiples of {cb}, or at most 32 groups of 4 or more to {} or more",
                conv.group,
                cb / 2
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
            let kernel = self.kernel(&k, lanewise::GroupConv::build)?;
            let (elems, bias, job) = (k.packed_elems(isa), (k.bias_elems(isa), 1), k);
            let pack = move |w: &Source<'_>, out: &mut [f32]| job.pack_weights(isa, w.values, out);
            (kernel, self.packed_from(weights, elems, pack), bias)
        };
        let operands = [vec![x], r.into_iter().collect(), vec![y]].concat();
        self.finish_conv(node, conv, kernel, packed, bias, operands)
    }

    /// A convolution by AMX tiles: a step that puts x into terms, and the products.
    fn amx_conv(
        &mut self,
        node: &Node,
        conv: &ConvNode,
        k: AmxConv,
        weights: Weights,
        (x, r, y): (Loc, Option<Loc>, Loc),
    ) -> Result<(), Stop> {
        let v = node.input(0).ok_or_else(missing)?;
        let kernel = self.kernel(&k, AmxConv::build)?;
        let x = self.regrouped(&node.place, v, x, &k.regroup(), None)?;
        let bias = self.constant_bias(node, conv.bias)?;
        let elems = k.packed_elems();
        let pack = move |w: &Source<'_>, out: &mut [f32]| k.pack(w.values, bias.as_deref(), out);
        let packed = self.packed_from(weights, elems, pack);
        let args = [vec![x, packed], r.into_iter().collect(), vec![y]].concat();
        self.run(&node.place, kernel, args)
    }

    /// The kernel of a dense convolution in the way that is chosen, its weights, and the elements and runs of its bias.
    fn sums(
        &mut self,
        problem: Problem,
        weights: Weights,
        no_amx: Option<String>,
    ) -> Result<(Kernel, Loc, (usize, usize)), Stop> {
        let isa = self.code.isa();
        let decided = self.chooser.sums(&problem, self.plain).ok_or_else(missing)?;
        let Decided { way: sums, threads, why, tuned } = decided;
        self.decided(no_amx.into_iter().chain(why), tuned);
        let kernel = self.kernel_for(&sums, Sums::build, threads)?;
        let (elems, bias) = (sums.packed_elems(isa), sums.bias(isa));
        let pack = move |w: &Source<'_>, out: &mut [f32]| sums.pack_weights(isa, threads, w.values, out);
        Ok((kernel, self.packed_from(weights, elems, pack), bias))
    }

    /// The weights of a convolution, `[M, C/group, …]` or transposed `[C, M/group, …]`.
    fn weights(&self, conv: &ConvNode, w: Vx) -> Result<Weights, Stop> {
        let tensor = self.program.constant_of(w).ok_or_else(missing)?.clone();
        let run = match conv.transposed {
            true => conv.kernel.iter().product(),
            false => tensor.len() / tensor.shape().first().copied().unwrap_or(1).max(1),
        };
        Ok(Weights::scaled(tensor, conv.scale.clone(), run))
    }

    /// A convolution of few output channels, from a row-major input with its halo to a row-major output.
    fn narrow_conv(&mut self, node: &Node, conv: &ConvNode) -> Result<(), Stop> {
        let (Some(x), Some(w), Some(y)) = (node.input(0), node.input(1), node.out()) else {
            return Err(missing());
        };
        let residual = if conv.residual { node.inputs.last().copied().flatten() } else { None };
        let mut x = self.need(x, Form::Haloed, &node.place)?;
        let r = residual.map(|r| self.need(r, Form::Plain, &node.place)).transpose()?;
        let y = self.make_in(y, Form::Plain)?;
        let (Some(xl), Some(yl)) = (x.layout, y.layout) else { return Err(missing()) };
        let k = narrow_conv(conv, xl, yl);
        if let Some(copy) = k.split() {
            self.because("the input's columns by phase of the stride");
            let kernel = self.kernel(&copy, Copy::build)?;
            let to = Loc { home: Home::Buffer(self.buffer(4 * k.input_elems())), offset: 0, layout: None };
            self.run(&node.place, kernel, vec![x, to])?;
            x = to;
        }
        if let Some(decided) = self.forms.lanes(node) {
            let (why, tuned) = (decided.why.clone(), decided.tuned);
            self.decided(why, tuned);
        }
        let weights = self.weights(conv, w)?;
        let kernel = self.kernel(&k, NarrowConv::build)?;
        let (elems, bias) = (k.packed_elems(), (yl.c, 1));
        let packed = self.packed_from(weights, elems, move |w, out| k.pack_weights(w.values, out));
        let operands = [vec![x], r.into_iter().collect(), vec![y]].concat();
        self.finish_conv(node, conv, kernel, packed, bias, operands)
    }

    /// A transposed convolution that spreads each pixel over a window of its own: a 1x1 convolution to a channel for each
    /// place of the window, whose results are then put there.
    fn spread_conv(&mut self, node: &Node, conv: &ConvNode) -> Result<(), Stop> {
        let (Some(x), Some(w), Some(y)) = (node.input(0), node.input(1), node.out()) else {
            return Err(missing());
        };
        let x = self.need(x, Form::Blocked, &node.place)?;
        let y = self.make_in(y, Form::Plain)?;
        let (Some(xl), Some(yl)) = (x.layout, y.layout) else { return Err(missing()) };
        let isa = self.code.isa();
        let window: usize = conv.kernel.iter().product();
        let channels = yl.c * window;
        let middle = BlockedLayout::blocked(xl.n, channels, xl.spatial, isa.lanes());
        let k = Conv {
            x: xl,
            y: middle,
            kernel: [1; 3],
            strides: [1; 3],
            dilations: [1; 3],
            pads_begin: [0; 3],
            group: 1,
            bias: conv.bias,
            residual: None,
            activation: conv.activation,
            cut: None,
        };
        let buffer = Home::Buffer(self.buffer(middle.bytes()));
        let to = Loc { home: buffer, offset: 0, layout: Some(middle) };
        let kernel = self.kernel(&k, Conv::build)?;
        self.because("windows do not overlap: a channel for each place of the window");
        let weights = self.weights(conv, w)?;
        let packed = self.packed_from(weights, k.packed_elems(isa), move |w, out| {
            // [C, M * window] to [M * window, C]
            let w = w.values;
            let rows: Vec<f32> = (0..w.len()).map(|i| w.at(i % xl.c * channels + i / xl.c)).collect();
            k.pack_weights(isa, &rows, out)
        });
        let mut args = vec![x, packed];
        if conv.bias {
            let b = node.input(2).and_then(|b| self.program.constant_of(b)).ok_or_else(missing)?;
            let each: Vec<f32> = b.as_slice::<f32>()?.iter().flat_map(|v| vec![*v; window]).collect();
            args.push(self.packed_groups(&each, 1, channels.next_multiple_of(isa.lanes()))?);
        }
        args.push(to);
        self.run(&node.place, kernel, args)?;
        let copy = spread_copy(&middle, &yl, conv.kernel);
        let kernel = self.kernel(&copy, Copy::build)?;
        self.because("the places of the windows");
        self.run(&node.place, kernel, vec![to, y])
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
        let kernel = self.kernel(&kernel, lanewise::Pool::build)?;
        self.run(&node.place, kernel, vec![x, y])
    }

    pub(super) fn global_pool(&mut self, node: &Node, kind: PoolKind) -> Result<(), Stop> {
        let (x, y) = self.in_out(node)?;
        let Some(xl) = x.layout else { return Err(no_kernel("a pool of another rank")) };
        let y = self.make_in(y, Form::Plain)?;
        let kernel = GlobalPool { x: xl, max: kind == PoolKind::Max };
        let kernel = self.kernel(&kernel, GlobalPool::build)?;
        self.run(&node.place, kernel, vec![x, y])
    }
}

/// From blocks of `[M, kD, kH, kW]` channels for each pixel to the pixels of their windows.
fn spread_copy(from: &BlockedLayout, to: &BlockedLayout, kernel: [usize; 3]) -> Copy {
    let [kd, kh, kw] = kernel;
    let [d, h, w] = from.spatial;
    let mut parts = vec![];
    for lane in (0..from.c).step_by(kw) {
        let (m, i, j) = (lane / (kd * kh * kw), lane / (kh * kw) % kd, lane / kw % kh);
        let dim = |count: usize, src: usize, dst: usize| CopyDim { count, src: src as i64, dst: dst as i64 };
        parts.push(CopyPart {
            source: 0,
            src: 4 * lane,
            dst: m * to.block_bytes() + i * to.plane_bytes() + j * to.row_bytes(),
            dims: vec![
                dim(from.n, from.batch_bytes(), to.batch_bytes()),
                dim(d, from.plane_bytes(), kd * to.plane_bytes()),
                dim(h, from.row_bytes(), kh * to.row_bytes()),
                dim(w, from.pixel_bytes(), kw * to.pixel_bytes()),
                dim(kw, 4, to.pixel_bytes()),
            ],
        });
    }
    Copy { width: 4, parts, src_bytes: vec![from.bytes()], dst_bytes: to.bytes() }
}
