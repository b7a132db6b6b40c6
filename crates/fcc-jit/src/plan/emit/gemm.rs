//! Matrix products.
use super::weights::Weights;
use super::{Emit, Form, Home, Loc, Stop, no_kernel};
use crate::choices::problem::{Decided, Problem, Sums};
use crate::kernels::amx::gemm::AmxGemm;
use crate::kernels::copy::{Copy, CopyDim, CopyPart};
use crate::kernels::gemm::{BStorage, BatchDim, Gemm, GemmBias, GemmResidual};
use crate::plan::ir::{GemmNode, Node, Vx};
use fcc_ir::ops::broadcast;

impl Emit<'_> {
    pub(super) fn gemm(&mut self, node: &Node, g: &GemmNode) -> Result<(), Stop> {
        let (Some(a), Some(b), Some(out)) = (node.input(0), node.input(1), node.out()) else {
            return Err(no_kernel("a product without operands"));
        };
        let (sa, sb, sy) = (
            self.program.shape(a).to_vec(),
            self.program.shape(b).to_vec(),
            self.program.shape(out).to_vec(),
        );
        let (&[ref ba @ .., a0, a1], &[ref bb @ .., b0, b1], &[ref by @ .., m, n]) =
            (&sa[..], &sb[..], &sy[..])
        else {
            return Err(no_kernel("a product of vectors"));
        };
        let k = if g.trans_a { a0 } else { a1 };
        let constant_b = self.program.constant_of(b).is_some();
        let b_moves = broadcast::strides(bb, by).iter().any(|s| *s != 0);
        // rows of all matrices are rows of one where B is the same for all
        let flat = !g.trans_a && !b_moves && ba == by;
        let rows = if flat { by.iter().product::<usize>() * m } else { m };
        let batch: Vec<BatchDim> = if flat {
            vec![]
        } else {
            let (ta, tb) = (broadcast::strides(ba, by), broadcast::strides(bb, by));
            let ty = broadcast::strides(by, by);
            let matrix = if constant_b { 1 } else { b0 * b1 };
            (0..by.len())
                .map(|i| BatchDim {
                    count: by[i],
                    a: ta[i] * a0 * a1,
                    b: tb[i] * matrix,
                    bias: 0,
                    residual: if g.residual.is_some() { ty[i] * m * n } else { 0 },
                    y: ty[i] * m * n,
                })
                .filter(|d| d.count != 1)
                .collect()
        };
        let storage = if constant_b { BStorage::Packed } else { BStorage::InPlace { row: n } };
        let mut spec = Gemm { batch, ..Gemm::new(rows, n, k, storage) };
        (spec.a_row, spec.a_col) = if g.trans_a { (1, m) } else { (k, 1) };
        spec.activation = g.activation;
        spec.bias = if g.bias { GemmBias::Columns } else { GemmBias::None };
        spec.alpha = if constant_b { 1.0 } else { g.alpha };
        let residual = if g.residual.is_some() { node.inputs.last().copied().flatten() } else { None };
        if let (Some(scale), Some(r)) = (g.residual, residual) {
            let whole = self.program.shape(r).iter().product::<usize>() == sy.iter().product::<usize>();
            if !whole && spec.batch.iter().any(|d| d.residual != 0) {
                return Err(no_kernel("a batched product with a broadcast residual"));
            }
            spec.residual = Some(GemmResidual { row: if whole { n } else { 0 }, scale });
        }
        let decided = self.chooser.sums(&Problem::Gemm(spec), false).ok_or_else(|| no_kernel("a product"))?;
        let Decided { way: Sums::Gemm(spec), threads, why, tuned } = decided else {
            return Err(no_kernel("a product by another algorithm"));
        };
        let a_loc = self.need(a, Form::Plain, &node.place)?;
        let mut no_amx = None;
        if let Some(terms) = self.terms() {
            match AmxGemm::choose(&spec, terms) {
                Ok(amx) if self.constant_b(b)?.finite(g.alpha)? => {
                    self.because(terms.why());
                    return self.amx_gemm(node, g, amx, a_loc, residual);
                }
                Ok(_) => no_amx = Some("no AMX: weights that are not finite".into()),
                Err(no) => no_amx = Some(no),
            }
        }
        let b_loc =
            if constant_b { self.packed_b(&spec, b, g)? } else { self.b_in_place(b, g.trans_b, node)? };
        let mut args = vec![a_loc, b_loc];
        if g.bias {
            let t =
                node.input(2).and_then(|b| self.program.constant_of(b)).ok_or_else(|| no_kernel("a bias"))?;
            let elems = spec.bias_elems(self.code.isa());
            let values = t.as_slice::<f32>()?.into_owned();
            args.push(self.packed_groups(&values, 1, elems)?);
        }
        if let Some(r) = residual {
            args.push(self.need(r, Form::Plain, &node.place)?);
        }
        args.push(self.make_in(out, Form::Plain)?);
        let kernel = self.kernel_for(&spec, Gemm::build, threads)?;
        self.decided(no_amx.into_iter().chain(why), tuned);
        self.run(&node.place, kernel, args)
    }

    fn constant_b(&self, b: Vx) -> Result<Weights, Stop> {
        let tensor = self.program.constant_of(b).ok_or_else(|| no_kernel("a constant"))?;
        Ok(Weights::plain(tensor.clone()))
    }

    /// A product by AMX tiles: a step that puts A into terms, and the products.
    fn amx_gemm(
        &mut self,
        node: &Node,
        g: &GemmNode,
        amx: AmxGemm,
        a_loc: Loc,
        residual: Option<Vx>,
    ) -> Result<(), Stop> {
        let (Some(a), Some(b), Some(out)) = (node.input(0), node.input(1), node.out()) else {
            return Err(no_kernel("a product without operands"));
        };
        let kernel = self.kernel(&amx, AmxGemm::build)?;
        let mut args = vec![self.regrouped(&node.place, a, a_loc, &amx.regroup(), None)?];
        let bias = self.constant_bias(node, g.bias)?;
        let (weights, &[.., b0, b1]) = (self.constant_b(b)?, self.program.shape(b)) else {
            return Err(no_kernel("a product of vectors"));
        };
        let (each, size) = (b0 * b1, amx.packed_elems());
        let strides = if g.trans_b { (1, b1) } else { (b1, 1) };
        let alpha = g.alpha;
        let matrices = self.program.shape(b).iter().product::<usize>() / each.max(1);
        args.push(self.packed_from(weights, matrices * size, move |w, packed| {
            let mut parts = packed.chunks_exact_mut(size).zip(w.values.chunks(each));
            parts.try_for_each(|(out, b)| amx.pack(b, strides, alpha, bias.as_deref(), out))
        }));
        if let Some(r) = residual {
            args.push(self.need(r, Form::Plain, &node.place)?);
        }
        args.push(self.make_in(out, Form::Plain)?);
        self.run(&node.place, kernel, args)
    }

    /// A constant B, all its matrices packed; alpha goes into them.
    fn packed_b(&mut self, spec: &Gemm, b: Vx, g: &GemmNode) -> Result<Loc, Stop> {
        let isa = self.code.isa();
        let tensor = self.program.constant_of(b).ok_or_else(|| no_kernel("a constant"))?.clone();
        let each = spec.k * spec.n;
        let matrices = tensor.len() / each.max(1);
        let size = spec.packed_elems(isa);
        let steps = if g.trans_b { (1, spec.k) } else { (spec.n, 1) };
        let (spec, alpha) = (spec.clone(), g.alpha);
        Ok(self.packed_from(Weights::plain(tensor), matrices * size, move |w, packed| {
            let mut parts = packed.chunks_exact_mut(size).zip(w.values.chunks(each)).enumerate();
            parts.try_for_each(|(i, (out, b))| {
                let done = |r: std::ops::Range<usize>| w.done(i * each + r.start..i * each + r.end);
                spec.pack_b(isa, b, steps, alpha, out, done)
            })
        }))
    }

    /// B as rows of columns: transposed into a buffer of its own if it is given the other way.
    fn b_in_place(&mut self, b: Vx, transposed: bool, node: &Node) -> Result<Loc, Stop> {
        let loc = self.need(b, Form::Plain, &node.place)?;
        if !transposed {
            return Ok(loc);
        }
        let &[n, k] = self.program.shape(b) else { return Err(no_kernel("a transposed batch")) };
        let bytes = self.bytes_of(b)?;
        let dims = vec![
            CopyDim { count: k, src: 4, dst: 4 * n as i64 },
            CopyDim { count: n, src: 4 * k as i64, dst: 4 },
        ];
        let part = CopyPart { source: 0, src: 0, dst: 0, dims };
        let copy = Copy { width: 4, parts: vec![part], src_bytes: vec![bytes], dst_bytes: bytes };
        let kernel = self.kernel(&copy, Copy::build)?;
        let to = Loc { home: Home::Buffer(self.buffer(bytes)), offset: 0, layout: None };
        self.run(&node.place, kernel, vec![loc, to])?;
        Ok(to)
    }
}
