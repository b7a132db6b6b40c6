//! Products of 8-bit integers, and the range of dynamic quantisation.
use super::{Emit, Form, Home, Loc, Stop, no_kernel};
use crate::kernels::amx::regroup::Regroup;
use crate::kernels::elem::Elem;
use crate::kernels::int8::conv::Conv;
use crate::kernels::int8::gemm::Gemm;
use crate::kernels::int8::halo::FillHalo;
use crate::kernels::int8::range::{Range, Values};
use crate::kernels::int8::{Epilogue, Input, Zero, pack};
use crate::plan::fuse::along_axis;
use crate::plan::info::Work;
use crate::plan::ir::{ConvNode, IntGemm, IntProduct, Node, Program, Vx};
use fcc_ir::ops::broadcast;
use fcc_ir::{DType, Tensor};

/// The form in which a convolution of bytes reads x.
pub(super) fn int_conv_input(program: &Program, conv: &ConvNode, x: Vx, x_blocked: bool) -> Form {
    let c = program.shape(x).get(1).copied().unwrap_or(0);
    if conv.group == 1 && !x_blocked && c <= 4 { Form::Quad } else { Form::Blocked }
}

/// The elements of 8-bit weights less their zero points; `column` of each element.
fn centred(t: &Tensor, zeros: &[i32], column: impl Fn(usize) -> usize) -> Result<Vec<i16>, Stop> {
    let less = |(i, v): (usize, i32)| (v - zeros[if zeros.len() == 1 { 0 } else { column(i) }]) as i16;
    Ok(match t.dtype() {
        DType::U8 => t.as_slice::<u8>()?.iter().map(|v| i32::from(*v)).enumerate().map(less).collect(),
        DType::I8 => t.as_slice::<i8>()?.iter().map(|v| i32::from(*v)).enumerate().map(less).collect(),
        _ => return Err(no_kernel("weights that are no bytes")),
    })
}

/// The end of a product: how the kernel sees it, its constants for columns, and its other operands.
struct End {
    epilogue: Epilogue,
    constants: Vec<Vec<f32>>,
    scalars: Vec<Vx>,
    residual: Option<Vx>,
}

impl Emit<'_> {
    pub(super) fn elem_of(&self, v: Vx) -> Result<Elem, Stop> {
        self.program.val(v).elem().ok_or_else(|| no_kernel("an element type of no kernel"))
    }

    fn end(&self, node: &Node, p: &IntProduct, axis: usize) -> Result<End, Stop> {
        let out = node.out().ok_or_else(|| no_kernel("no output"))?;
        let shape = self.program.shape(out);
        let mut end = End { epilogue: Epilogue::sums(), constants: vec![], scalars: vec![], residual: None };
        end.epilogue.out = self.elem_of(out)?;
        end.epilogue.expr = p.expr.clone();
        if p.expr.is_none() && end.epilogue.out != Elem::I32 {
            return Err(no_kernel("sums of another type"));
        }
        for v in node.inputs.iter().skip(p.first_extra()).flatten() {
            let column = || along_axis(self.program.constant_of(*v)?, shape, axis);
            let input = if self.program.shape(*v).iter().product::<usize>() == 1 {
                end.scalars.push(*v);
                Input::Scalar(self.elem_of(*v)?)
            } else if let Some(values) = column() {
                end.constants.push(values.into_iter().map(|v| v as f32).collect());
                Input::Column
            } else if self.program.shape(*v) == shape && end.residual.is_none() {
                end.residual = Some(*v);
                Input::Residual(self.elem_of(*v)?)
            } else {
                return Err(no_kernel("an input of another shape"));
            };
            end.epilogue.inputs.push(input);
        }
        Ok(end)
    }

    /// The operands of one element: the zero point, then those of the epilogue.
    fn scalar_locs(&mut self, node: &Node, p: &IntProduct, end: &End) -> Result<Vec<Loc>, Stop> {
        let zero = (p.zero == Zero::Operand).then(|| node.input(2)).flatten();
        let all: Vec<Vx> = zero.into_iter().chain(end.scalars.iter().copied()).collect();
        all.into_iter().map(|v| self.need(v, Form::Plain, &node.place)).collect()
    }

    /// Bytes that `job` fills before the plan is finished.
    fn packed_bytes(
        &mut self,
        bytes: usize,
        job: impl FnOnce(&mut [u8]) -> crate::error::Result<()> + Send + 'static,
    ) -> Loc {
        self.packed_later(bytes.div_ceil(4), move |out| {
            job(&mut bytemuck::cast_slice_mut::<f32, u8>(out)[..bytes])
        })
    }

    pub(super) fn int_conv(&mut self, node: &Node, conv: &ConvNode, p: &IntProduct) -> Result<(), Stop> {
        let (Some(xv), Some(wv), Some(yv)) = (node.input(0), node.input(1), node.out()) else {
            return Err(no_kernel("a convolution without operands"));
        };
        let end = self.end(node, p, 1)?;
        let form = int_conv_input(self.program, conv, xv, self.forms.blocked[xv.at()]);
        let x = self.need(xv, form, &node.place)?;
        let residual = end.residual.map(|r| self.need(r, Form::Blocked, &node.place)).transpose()?;
        let scalars = self.scalar_locs(node, p, &end)?;
        let y = self.make(yv)?;
        let (Some(xl), Some(yl)) = (x.layout, y.layout) else { return Err(no_kernel("no activation")) };
        let (isa, dot) = (self.code.isa(), self.code.emitter().dot());
        let tensor = self.program.constant_of(wv).ok_or_else(|| no_kernel("weights of the run"))?.clone();
        let each = tensor.len() / yl.c.max(1);
        let weights = centred(&tensor, &p.w_zero, |i| i / each.max(1))?;
        let parts = |dot| pack::parts(dot, weights.iter().map(|w| i32::from(*w)));
        let plain = Conv {
            x: xl,
            y: yl,
            kernel: conv.kernel,
            strides: conv.strides,
            dilations: conv.dilations,
            pads_begin: conv.pads_begin,
            group: conv.group,
            dot,
            zero: p.zero,
            parts: parts(dot),
            epilogue: end.epilogue.clone(),
            residual: residual.and_then(|r| r.layout),
        };
        self.fill_halo(xv, form, x, node, p)?;
        let zero = Some((p.zero, if p.zero == Zero::Operand { node.input(2) } else { None }));
        let regroup = |e: &mut Self, how: &Regroup| e.regrouped(&node.place, xv, x, how, zero);
        let (mut spec, x) = self.in_tiles(plain, x, Conv::for_tiles, regroup)?;
        spec.parts = parts(spec.dot);
        let kernel = self.kernel(&spec, Conv::build)?;
        self.zero_halo(&y, &node.place)?;
        let weights = std::sync::Arc::new(weights);
        let (job, w) = (spec.clone(), weights.clone());
        let packed =
            self.packed_bytes(spec.packed_bytes(isa), move |out| job.pack(isa, &|i| i32::from(w[i]), out));
        let (bias, constants, job) = (p.bias.clone(), end.constants, spec.clone());
        let columns = self.packed_later(spec.column_elems(isa), move |out| {
            job.pack_columns(isa, &|i| i32::from(weights[i]), bias.as_deref(), &constants, out)
        });
        let args = [vec![x, packed, columns], scalars, residual.into_iter().collect(), vec![y]].concat();
        self.run(&node.place, kernel, args)
    }

    /// Puts the zero point of x around it, unless that is there already.
    fn fill_halo(&mut self, v: Vx, form: Form, x: Loc, node: &Node, p: &IntProduct) -> Result<(), Stop> {
        let Some(layout) = x.layout.filter(|l| !l.is_tight()) else { return Ok(()) };
        let zero = (p.zero == Zero::Operand).then(|| node.input(2)).flatten();
        let key = (p.zero, zero);
        // values that share a buffer share parts of their halos
        if self.forms.inside.is_empty() && self.halos.get(&(v, form)) == Some(&key) {
            return Ok(());
        }
        self.halos.insert((v, form), key);
        let spec = FillHalo { layout, value: p.zero };
        let kernel = self.kernel(&spec, FillHalo::build)?;
        let zero = zero.map(|z| self.need(z, Form::Plain, &node.place)).transpose()?;
        let value = format!("{} images of {}x{:?}", layout.n, layout.c, layout.spatial);
        let args = zero.into_iter().chain([x]).collect();
        self.aside(Work::Border, value, |e| e.run(&node.place, kernel, args))
    }

    pub(super) fn int_gemm(&mut self, node: &Node, g: &IntGemm, p: &IntProduct) -> Result<(), Stop> {
        let (Some(av), Some(bv), Some(yv)) = (node.input(0), node.input(1), node.out()) else {
            return Err(no_kernel("a product without operands"));
        };
        let shape = |v: Vx| self.program.shape(v).to_vec();
        let (sa, sb, sy) = (shape(av), shape(bv), shape(yv));
        let (&[ref ba @ .., _, k], &[ref bb @ .., _, _], &[ref by @ .., m, n]) = (&sa[..], &sb[..], &sy[..])
        else {
            return Err(no_kernel("a product of vectors"));
        };
        let end = self.end(node, p, sy.len() - 1)?;
        let (ta, tb) = (broadcast::strides(ba, by), broadcast::strides(bb, by));
        // rows of all matrices are rows of one where B is the same for all
        let flat = ba == by && tb.iter().all(|s| *s == 0);
        let rows = if flat { by.iter().product::<usize>() * m } else { m };
        let batch: Vec<(usize, usize, usize)> = match flat {
            true => vec![],
            false => (0..by.len()).map(|i| (by[i], ta[i], tb[i])).collect(),
        };
        let (isa, dot) = (self.code.isa(), self.code.emitter().dot());
        let tensor = self.program.constant_of(bv).ok_or_else(|| no_kernel("weights of the run"))?.clone();
        let trans = g.trans_b;
        let weights = centred(&tensor, &p.w_zero, |i| if trans { i / k.max(1) } else { i % n.max(1) })?;
        let parts = |dot| pack::parts(dot, weights.iter().map(|w| i32::from(*w)));
        let plain = Gemm {
            m: rows,
            n,
            k,
            batch,
            signed: self.elem_of(av)? == Elem::I8,
            dot,
            zero: p.zero,
            parts: parts(dot),
            epilogue: end.epilogue.clone(),
        };
        let a = self.need(av, Form::Plain, &node.place)?;
        let residual = end.residual.map(|r| self.need(r, Form::Plain, &node.place)).transpose()?;
        let scalars = self.scalar_locs(node, p, &end)?;
        let regroup = |e: &mut Self, how: &Regroup| e.regrouped(&node.place, av, a, how, None);
        let (mut spec, a) = self.in_tiles(plain, a, Gemm::for_tiles, regroup)?;
        spec.parts = parts(spec.dot);
        let kernel = self.kernel(&spec, Gemm::build)?;
        let y = self.make_in(yv, Form::Plain)?;
        let matrices = tensor.len() / (k * n).max(1);
        let weights = std::sync::Arc::new(weights);
        let at = move |w: &[i16], matrix: usize, i: usize, j: usize| {
            i32::from(w[matrix * k * n + if trans { j * k + i } else { i * n + j }])
        };
        let (size, job, w) = (spec.packed_bytes(isa), spec.clone(), weights.clone());
        let packed = self.packed_bytes(matrices * size, move |out| {
            let mut parts = out.chunks_exact_mut(size).enumerate();
            parts.try_for_each(|(i, out)| job.pack(isa, &|k, n| at(&w, i, k, n), out))
        });
        let (size, job) = (spec.column_elems(isa), spec);
        let (bias, constants) = (p.bias.clone(), end.constants);
        let columns = self.packed_later(matrices * size, move |out| {
            let mut parts = out.chunks_exact_mut(size).enumerate();
            parts.try_for_each(|(i, out)| {
                let b = |k: usize, n: usize| at(&weights, i, k, n);
                job.pack_columns(isa, &b, bias.as_deref(), &constants, out)
            })
        });
        let args = [vec![a, packed, columns], scalars, residual.into_iter().collect(), vec![y]].concat();
        self.run(&node.place, kernel, args)
    }

    pub(super) fn dynamic_range(&mut self, node: &Node) -> Result<(), Stop> {
        let (Some(x), [Some(scale), Some(zero)]) = (node.input(0), &node.outputs[..]) else {
            return Err(no_kernel("a range of nothing"));
        };
        let (scale, zero) = (*scale, *zero);
        let form = if self.forms.blocked[x.at()] { Form::Blocked } else { Form::Plain };
        let from = self.need(x, form, &node.place)?;
        let values = match (form, from.layout) {
            (Form::Blocked, Some(l)) => Values::Activation(l),
            _ => Values::Dense(self.bytes_of(x)? / 4),
        };
        let spec = Range { values };
        let threads = self.shared.options.threads;
        let (first, end) = (self.kernel(&spec, Range::build)?, self.kernel(&spec, Range::build_end)?);
        let partial =
            Loc { home: Home::Buffer(self.buffer(spec.partial_bytes(threads))), offset: 0, layout: None };
        self.run(&node.place, first, vec![from, partial])?;
        let (scale, zero) = (self.make_in(scale, Form::Plain)?, self.make_in(zero, Form::Plain)?);
        self.run(&node.place, end, vec![partial, scale, zero])
    }
}
