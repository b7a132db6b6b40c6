//! Quantisation, and products of 8-bit integers.
use super::{Cx, Lowered, three};
use crate::asm::Isa;
use crate::declined::Declined;
use crate::kernels::activation::Activation;
use crate::kernels::ew::{Binary, Expr, Ins, Unary};
use crate::kernels::int8::Zero;
use crate::plan::ir::{ConvNode, IntGemm, IntProduct, Kind, Val, Vx};
use fcc_ir::ops::conv::ConvProblem;
use fcc_ir::ops::microsoft::qlinear::{self, QLinear};
use fcc_ir::ops::quantize::{Granularity, integer_range};
use fcc_ir::{DType, OpNode, Tensor, TensorType};

impl Cx<'_> {
    fn dtype(&self, i: usize) -> Option<DType> {
        Some(self.program.val(self.input(i)?).dense.as_ref()?.0)
    }
    fn byte_input(&self, i: usize) -> Option<(Vx, Vec<usize>)> {
        let v = self.input(i)?;
        let (dtype, shape) = self.program.val(v).dense.clone()?;
        matches!(dtype, DType::U8 | DType::I8).then_some((v, shape))
    }
    /// A new value between nodes of this lowering.
    fn between(&mut self, like: Vx, dtype: DType, shape: &[usize]) -> Vx {
        let name = format!("{}.{dtype}", self.program.val(like).name);
        let ty = TensorType { dtype, shape: Some(shape.iter().map(|n| (*n).into()).collect()) };
        self.program.add(Val::new(name, ty.into(), None))
    }
    /// The elements of a constant; `Some(None)` where the input is absent.
    fn zeros(&self, i: usize) -> Option<Option<Vec<i32>>> {
        match self.input(i) {
            None => Some(None),
            Some(_) => {
                let values = fcc_ir::convert::to_f64s(self.constant(i)?).ok()?;
                Some(Some(values.into_iter().map(|v| v as i32).collect()))
            }
        }
    }
    fn f32s(&self, i: usize) -> Option<Vec<f32>> {
        Some(self.constant(i)?.as_slice::<f32>().ok()?.into_owned())
    }
}

/// Lowers a node by one of the functions here; nothing is left of one that declines.
pub(super) fn lower(cx: &mut Cx<'_>, by: impl FnOnce(&mut Cx<'_>) -> Option<()>) -> Lowered {
    if cx.isa == Isa::Baseline {
        return Err(Declined::new("instruction set", cx.isa, "AVX2 or AVX-512 for bytes"));
    }
    let nodes = cx.program.nodes.len();
    by(cx).ok_or_else(|| {
        cx.program.nodes.truncate(nodes);
        let what = format!("{} of bytes", cx.op.op_type);
        Declined::new(
            what,
            "another form",
            "constant 8-bit weights, scales and zero points of one element or a column",
        )
    })
}

/// An expression with the values that are its inputs.
#[derive(Default)]
struct Build {
    expr: Expr,
    inputs: Vec<Vx>,
}

impl Build {
    fn input(&mut self, v: Vx) -> usize {
        let at = self.inputs.iter().position(|i| *i == v).unwrap_or_else(|| {
            self.inputs.push(v);
            self.inputs.len() - 1
        });
        self.expr.push(Ins::Input(at))
    }
    fn binary(&mut self, f: Binary, a: usize, b: usize) -> usize {
        self.expr.code.push(Ins::Binary(f, a, b));
        self.expr.code.len() - 1
    }
    fn unary(&mut self, f: Unary, a: usize) -> usize {
        self.expr.code.push(Ins::Unary(f, a));
        self.expr.code.len() - 1
    }
    /// One number, or a constant that lies along `axis` of a value of this rank.
    fn numbers(&mut self, cx: &mut Cx<'_>, values: &[f32], axis: usize, rank: usize) -> Option<usize> {
        let first = *values.first()?;
        if values.iter().all(|v| v.to_bits() == first.to_bits()) {
            return Some(self.expr.push(Ins::Const(first)));
        }
        let mut shape = vec![1; rank];
        *shape.get_mut(axis)? = values.len();
        let name = format!("{}.along", cx.program.val(cx.only_out().ok()?).name);
        let v = cx.program.constant(name, Tensor::new(shape, values.to_vec()).ok()?);
        Some(self.input(v))
    }
    /// `clip(round(x / scale) + zero)`
    fn quantise(&mut self, x: usize, scale: usize, zero: Option<usize>, dtype: DType) -> Option<usize> {
        let (low, high) = integer_range(dtype)?;
        let q = self.binary(Binary::Div, x, scale);
        let mut q = self.unary(Unary::RoundOrZero, q);
        if let Some(z) = zero {
            q = self.binary(Binary::Add, q, z);
        }
        Some(self.unary(Unary::Act(Activation::Clip { low: low as f32, high: high as f32 }), q))
    }
}

/// Where the scale of a node lies: the axis, if it is not one number. No blocks.
fn axis_of(cx: &Cx<'_>, x: &[usize], scale: usize) -> Option<usize> {
    let shape = cx.program.val(cx.input(scale)?).f32_shape()?.to_vec();
    match Granularity::new(cx.op, x, &shape).ok()? {
        Granularity::Tensor => Some(0),
        Granularity::Axis { axis } => Some(axis),
        Granularity::Block { .. } => None,
    }
}

/// The scale of a node as part of an expression: a constant, or one number of the run.
fn scale(cx: &mut Cx<'_>, b: &mut Build, x: &[usize], slot: usize) -> Option<usize> {
    let axis = axis_of(cx, x, slot)?;
    match cx.f32s(slot) {
        Some(values) => b.numbers(cx, &values, axis, x.len()),
        None => {
            let v = cx.input(slot)?;
            (cx.shape(v).iter().product::<usize>() == 1).then(|| b.input(v))
        }
    }
}

/// The zero point likewise; `Some(None)` where there is none or it is 0.
fn zero(cx: &mut Cx<'_>, b: &mut Build, x: &[usize], slot: usize, scale: usize) -> Option<Option<usize>> {
    let Some(v) = cx.input(slot) else { return Some(None) };
    let axis = axis_of(cx, x, scale)?;
    match cx.zeros(slot) {
        Some(Some(values)) if values.iter().all(|z| *z == 0) => Some(None),
        Some(Some(values)) => {
            let values: Vec<f32> = values.iter().map(|z| *z as f32).collect();
            b.numbers(cx, &values, axis, x.len()).map(Some)
        }
        _ => (cx.shape(v).iter().product::<usize>() == 1).then(|| Some(b.input(v))),
    }
}

pub(super) fn quantize(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.f32(0).ok()?, cx.only_out().ok()?);
    let dtype = cx.program.val(y).dense.as_ref()?.0;
    // the quotient is one of f32s
    let precise = cx.op.attrs.int_or("precision", 0).ok()?;
    if !matches!(dtype, DType::U8 | DType::I8) || !(precise == 0 || precise == 1) {
        return None;
    }
    let mut b = Build::default();
    let from = b.input(cx.input(0)?);
    let s = scale(cx, &mut b, &x, 1)?;
    let z = zero(cx, &mut b, &x, 2, 1)?;
    b.quantise(from, s, z, dtype)?;
    cx.push_ew(b.expr, b.inputs, y);
    Some(())
}

pub(super) fn dequantize(cx: &mut Cx<'_>) -> Option<()> {
    let (v, y) = (cx.input(0)?, cx.only_out().ok()?);
    let (dtype, x) = cx.program.val(v).dense.clone()?;
    cx.program.val(y).f32_shape()?;
    if !matches!(dtype, DType::U8 | DType::I8 | DType::I32) {
        return None;
    }
    let mut b = Build::default();
    let mut q = b.input(v);
    let z = zero(cx, &mut b, &x, 2, 1)?;
    if let Some(z) = z {
        if dtype == DType::I32 {
            // the difference of int32s is rounded once, that of f32s is not
            return None;
        }
        q = b.binary(Binary::Sub, q, z);
    }
    let s = scale(cx, &mut b, &x, 1)?;
    b.binary(Binary::Mul, q, s);
    cx.push_ew(b.expr, b.inputs, y);
    Some(())
}

/// A cast of 8-bit integers or int32 to f32.
pub(super) fn cast(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out().ok()?);
    let known = matches!(cx.dtype(0)?, DType::U8 | DType::I8 | DType::I32);
    if !known || cx.program.val(y).f32_shape().is_none() {
        return None;
    }
    cx.push_ew(Expr { code: vec![Ins::Input(0)] }, vec![x], y);
    Some(())
}

/// The scale and zero point of `x`, and `x` quantised by them.
fn dynamic(cx: &mut Cx<'_>, slot: usize, outputs: [Option<Vx>; 3]) -> Option<[Vx; 3]> {
    let (x, shape) = (cx.input(slot)?, cx.f32(slot).ok()?);
    let mut out = |i: usize, dtype: DType, shape: &[usize]| match outputs[i] {
        Some(v) => v,
        None => cx.between(x, dtype, shape),
    };
    let (y, s, z) = (out(0, DType::U8, &shape), out(1, DType::F32, &[]), out(2, DType::U8, &[]));
    cx.push(Kind::DynamicRange, vec![Some(x)], s);
    cx.program.nodes.last_mut()?.outputs.push(Some(z));
    let mut b = Build::default();
    let (from, scale, zero) = (b.input(x), b.input(s), b.input(z));
    b.quantise(from, scale, Some(zero), DType::U8)?;
    cx.push_ew(b.expr, b.inputs, y);
    Some([y, s, z])
}

pub(super) fn dynamic_quantize(cx: &mut Cx<'_>) -> Option<()> {
    let out = |i: usize| cx.outputs.get(i).copied().flatten();
    let outputs = [out(0), out(1), out(2)];
    dynamic(cx, 0, outputs).map(|_| ())
}

/// A zero point of x for a product: a number, or a value of one element.
fn product_zero(cx: &Cx<'_>, slot: usize) -> Option<(Zero, Option<Vx>)> {
    match cx.zeros(slot) {
        Some(None) => Some((Zero::Const(0), None)),
        Some(Some(z)) if z.len() == 1 => Some((Zero::Const(z[0]), None)),
        Some(_) => None,
        None => {
            let v = cx.input(slot)?;
            (cx.shape(v).iter().product::<usize>() == 1).then_some((Zero::Operand, Some(v)))
        }
    }
}

/// Zero points of w: none is 0, a vector has `n`.
fn w_zeros(cx: &Cx<'_>, slot: usize, n: usize) -> Option<Vec<i32>> {
    let z = cx.zeros(slot)?.unwrap_or_else(|| vec![0]);
    (z.len() == 1 || z.len() == n).then_some(z)
}

/// A product of x and constant w, by their slots; the caller says what is made of the sums.
struct Product {
    kind: Kind,
    inputs: Vec<Option<Vx>>,
}

fn conv_product(cx: &Cx<'_>, x: [usize; 2], w: [usize; 2], bias: Option<usize>) -> Option<Product> {
    let ((xv, xs), (wv, ws), y) = (cx.byte_input(x[0])?, cx.byte_input(w[0])?, cx.only_out().ok()?);
    cx.constant(w[0])?;
    let b = bias.and_then(|b| cx.input(b));
    let b_shape = b.map(|b| cx.shape(b));
    let p = ConvProblem::new(cx.op, &xs, &ws, b_shape.as_deref()).ok()?;
    if p.out_shape() != cx.shape(y) || !(3..=5).contains(&xs.len()) {
        return None;
    }
    let begins: Vec<usize> = p.axes.iter().map(|a| a.pad_begin).collect();
    let ends: Vec<usize> = p.axes.iter().map(|a| a.pad_end).collect();
    let conv = ConvNode {
        kernel: three(&p.window.kernel_shape, 1).ok()?,
        strides: three(&p.window.strides, 1).ok()?,
        dilations: three(&p.window.dilations, 1).ok()?,
        pads_begin: three(&begins, 0).ok()?,
        pads_end: three(&ends, 0).ok()?,
        group: p.group,
        bias: false,
        residual: false,
        activation: None,
        transposed: false,
        scale: None,
    };
    let (zero, zero_value) = product_zero(cx, x[1])?;
    let bias = match b {
        Some(_) => Some(cx.constant(bias?)?.as_slice::<i32>().ok()?.into_owned()),
        None => None,
    };
    let product = IntProduct { zero, w_zero: w_zeros(cx, w[1], *ws.first()?)?, bias, expr: None };
    let inputs = [Some(xv), Some(wv)].into_iter().chain(zero_value.map(Some)).collect();
    Some(Product { kind: Kind::IntConv(conv, product), inputs })
}

/// A product of matrices; `b` is `[K, N]`, or `[N, K]` if `trans_b`, or a batch of `[K, N]`.
fn gemm_product(
    cx: &Cx<'_>,
    a: (Vx, usize),
    b: [usize; 2],
    trans_b: bool,
    bias: Option<Vec<i32>>,
) -> Option<Product> {
    let (dtype, sa) = cx.program.val(a.0).dense.clone()?;
    let ((bv, sb), y) = (cx.byte_input(b[0])?, cx.only_out().ok()?);
    cx.constant(b[0])?;
    let k = *sa.last()?;
    let fits = matches!(dtype, DType::U8 | DType::I8) && sa.len() >= 2 && sb.len() >= 2 && k > 0;
    if !fits || cx.shape(y).len() != sa.len().max(sb.len()) || (trans_b && sb.len() != 2) {
        return None;
    }
    let n = if trans_b { sb[0] } else { *sb.last()? };
    let (zero, zero_value) = product_zero(cx, a.1)?;
    let product = IntProduct { zero, w_zero: w_zeros(cx, b[1], n)?, bias, expr: None };
    let inputs = [Some(a.0), Some(bv)].into_iter().chain(zero_value.map(Some)).collect();
    Some(Product { kind: Kind::IntGemm(IntGemm { trans_b }, product), inputs })
}

/// Pushes a product whose sums, as input 0, an expression of further inputs turns into y.
fn push(cx: &mut Cx<'_>, product: Product, end: Option<Build>) -> Option<()> {
    let y = cx.only_out().ok()?;
    let Product { mut kind, mut inputs } = product;
    if let (Some(end), Kind::IntConv(_, p) | Kind::IntGemm(_, p)) = (end, &mut kind) {
        p.expr = Some(end.expr);
        // input 0 of the expression is the sum
        inputs.extend(end.inputs.into_iter().skip(1).map(Some));
    }
    cx.push(kind, inputs, y);
    Some(())
}

/// An expression that begins with the sums.
fn of_sums(cx: &Cx<'_>) -> Option<(Build, usize)> {
    let mut b = Build::default();
    // stands for the sums until the product is pushed
    let sums = b.input(cx.only_out().ok()?);
    Some((b, sums))
}

pub(super) fn conv_integer(cx: &mut Cx<'_>) -> Option<()> {
    let p = conv_product(cx, [0, 2], [1, 3], None)?;
    push(cx, p, None)
}

pub(super) fn matmul_integer(cx: &mut Cx<'_>) -> Option<()> {
    let (a, _) = cx.byte_input(0)?;
    let p = gemm_product(cx, (a, 2), [1, 3], false, None)?;
    push(cx, p, None)
}

/// `f32(sum) * (x_scale * w_scale / y_scale)`, rounded, plus the zero point of y: `slots` of those three scales and of
/// the zero point.
fn requantise(cx: &mut Cx<'_>, slots: [usize; 4], axis: usize, alpha: f32) -> Option<Build> {
    let [x, w, y, z] = slots;
    let (rank, n) = (cx.shape(cx.only_out().ok()?).len(), cx.shape(cx.only_out().ok()?)[axis]);
    let (xs, ws, ys) = (cx.f32s(x)?, cx.f32s(w)?, cx.f32s(y)?);
    let ([xs], [ys]) = (&xs[..], &ys[..]) else { return None };
    if ws.len() != 1 && ws.len() != n {
        return None;
    }
    let factors: Vec<f32> = ws.iter().map(|w| xs * alpha * w / ys).collect();
    let dtype = cx.program.val(cx.only_out().ok()?).dense.as_ref()?.0;
    let (low, high) = integer_range(dtype)?;
    let zero = cx.zeros(z)?.unwrap_or_else(|| vec![0]);
    let [zero] = zero[..] else { return None };
    if !matches!(dtype, DType::U8 | DType::I8) {
        return None;
    }
    let (mut b, sums) = of_sums(cx)?;
    let factor = b.numbers(cx, &factors, axis, rank)?;
    let y = b.binary(Binary::Mul, sums, factor);
    let mut y = b.unary(Unary::RoundOrZero, y);
    if zero != 0 {
        let z = b.expr.push(Ins::Const(zero as f32));
        y = b.binary(Binary::Add, y, z);
    }
    b.unary(Unary::Act(Activation::Clip { low: low as f32, high: high as f32 }), y);
    Some(b)
}

pub(super) fn qlinear_conv(cx: &mut Cx<'_>) -> Option<()> {
    let p = conv_product(cx, [0, 2], [3, 5], Some(8))?;
    let end = requantise(cx, [1, 4, 6, 7], 1, 1.0)?;
    push(cx, p, Some(end))
}

pub(super) fn qlinear_matmul(cx: &mut Cx<'_>) -> Option<()> {
    let (a, _) = cx.byte_input(0)?;
    let p = gemm_product(cx, (a, 2), [3, 5], false, None)?;
    let last = cx.shape(cx.only_out().ok()?).len().checked_sub(1)?;
    let end = requantise(cx, [1, 4, 6, 7], last, 1.0)?;
    push(cx, p, Some(end))
}

/// `f32(sum) * (a_scale * b_scale) + bias`; scales may be numbers of the run.
fn rescale(cx: &mut Cx<'_>, a: Result<Vx, f32>, b_slot: usize, bias: Option<usize>) -> Option<Build> {
    let y = cx.only_out().ok()?;
    let (last, rank) = (cx.shape(y).len().checked_sub(1)?, cx.shape(y).len());
    let n = cx.shape(y)[last];
    let row = |v: &Vec<f32>| v.len() == 1 || v.len() == n;
    let (mut b, sums) = of_sums(cx)?;
    let w = cx.f32s(b_slot).filter(row)?;
    let scale = match a {
        Ok(v) => {
            let (v, w) = (b.input(v), b.numbers(cx, &w, last, rank)?);
            b.binary(Binary::Mul, v, w)
        }
        Err(s) => {
            let product: Vec<f32> = w.iter().map(|w| s * w).collect();
            b.numbers(cx, &product, last, rank)?
        }
    };
    let y = b.binary(Binary::Mul, sums, scale);
    if let Some(slot) = bias.filter(|s| cx.input(*s).is_some()) {
        let values = cx.f32s(slot).filter(row)?;
        let c = b.numbers(cx, &values, last, rank)?;
        b.binary(Binary::Add, y, c);
    }
    Some(b)
}

/// A scale input: a number, or a value of one element.
fn scale_input(cx: &Cx<'_>, slot: usize) -> Option<Result<Vx, f32>> {
    match cx.f32s(slot) {
        Some(v) if v.len() == 1 => Some(Err(v[0])),
        Some(_) => None,
        None => {
            let v = cx.input(slot)?;
            (cx.f32(slot).ok()?.iter().product::<usize>() == 1).then_some(Ok(v))
        }
    }
}

pub(super) fn matmul_integer_to_float(cx: &mut Cx<'_>) -> Option<()> {
    let (a, _) = cx.byte_input(0)?;
    let p = gemm_product(cx, (a, 4), [1, 5], false, None)?;
    let scale = scale_input(cx, 2)?;
    let end = rescale(cx, scale, 3, Some(6))?;
    push(cx, p, Some(end))
}

pub(super) fn dynamic_quantize_matmul(cx: &mut Cx<'_>) -> Option<()> {
    let a = cx.f32(0).ok()?;
    let (_, sb) = cx.byte_input(1)?;
    cx.constant(1)?;
    let n = *sb.last()?;
    w_zeros(cx, 3, n)?;
    if a.len() < 2 || sb.len() < 2 || a.last() == Some(&0) {
        return None;
    }
    let [q, s, z] = dynamic(cx, 0, [None; 3])?;
    let end = rescale(cx, Ok(s), 2, Some(4))?;
    let (bv, _) = cx.byte_input(1)?;
    let product = IntProduct { zero: Zero::Operand, w_zero: w_zeros(cx, 3, n)?, bias: None, expr: None };
    let kind = Kind::IntGemm(IntGemm { trans_b: false }, product);
    push(cx, Product { kind, inputs: vec![Some(q), Some(bv), Some(z)] }, Some(end))
}

pub(super) fn qgemm(cx: &mut Cx<'_>) -> Option<()> {
    let p = fcc_ir::ops::gemm::params(cx.op).ok()?;
    let (a, sa) = cx.byte_input(0)?;
    let y = cx.only_out().ok()?;
    if p.transA || sa.len() != 2 {
        return None;
    }
    let n = cx.shape(y)[1];
    let bias = match cx.input(6) {
        None => None,
        Some(_) => {
            let c = cx.constant(6)?;
            let row = c.shape() == [n] || c.shape() == [1, n];
            let values = c.as_slice::<i32>().ok()?.into_owned();
            match values[..] {
                [one] => Some(vec![one; n]),
                _ if row => Some(values),
                _ => return None,
            }
        }
    };
    let product = gemm_product(cx, (a, 2), [3, 5], p.transB, bias)?;
    let end = match cx.input(7) {
        Some(_) => requantise(cx, [1, 4, 7, 8], 1, p.alpha)?,
        None => match scale_input(cx, 1)? {
            Err(s) => rescale(cx, Err(s * p.alpha), 4, None)?,
            Ok(_) => return None,
        },
    };
    push(cx, product, Some(end))
}

/// The float operator between two scales that a node of `com.microsoft` is.
pub(super) fn between_scales(op: &OpNode) -> Option<&'static QLinear> {
    qlinear::ALL.iter().copied().find(|q| fcc_ir::op::Operator::schema(*q).name == op.op_type)
}

/// A float operator between two scales: what it is made of, lowered one after the other.
pub(super) fn qlinear(cx: &mut Cx<'_>) -> Option<()> {
    let op = between_scales(cx.op)?;
    let node = op.float_node(cx.op).ok()?;
    let (slots, [y_scale, y_zero]) = op.slots(cx.inputs.len()).ok()?;
    let y = cx.only_out().ok()?;
    let mut whole = || {
        let mut floats = vec![];
        for [x, s, z] in &slots {
            let (v, shape) = cx.byte_input(*x)?;
            let (scales, zero) = (cx.f32s(*s)?, cx.zeros(*z)?.unwrap_or_else(|| vec![0]));
            let ([scale], [zero]) = (&scales[..], &zero[..]) else { return None };
            let f = cx.between(v, DType::F32, &shape);
            cx.push_ew(dequantised(*scale, *zero), vec![v], f);
            floats.push(Some(f));
        }
        let (dtype, shape) = cx.program.val(y).dense.clone()?;
        let f = cx.between(y, DType::F32, &shape);
        inner(cx, &node, &floats, f)?;
        let (scales, zero) = (cx.f32s(y_scale)?, cx.zeros(y_zero)?.unwrap_or_else(|| vec![0]));
        let ([scale], [zero]) = (&scales[..], &zero[..]) else { return None };
        let mut b = Build::default();
        let (x, s) = (b.input(f), b.expr.push(Ins::Const(*scale)));
        let z = (*zero != 0).then(|| b.expr.push(Ins::Const(*zero as f32)));
        b.quantise(x, s, z, dtype)?;
        cx.push_ew(b.expr, b.inputs, y);
        Some(())
    };
    whole()
}

/// `(x - zero) * scale`
fn dequantised(scale: f32, zero: i32) -> Expr {
    let mut e = Expr { code: vec![Ins::Input(0)] };
    let mut x = 0;
    if zero != 0 {
        let z = e.push(Ins::Const(zero as f32));
        e.code.push(Ins::Binary(Binary::Sub, x, z));
        x = e.code.len() - 1;
    }
    let s = e.push(Ins::Const(scale));
    e.code.push(Ins::Binary(Binary::Mul, x, s));
    e
}

/// Lowers another node with these inputs and output in this one's place.
fn inner(cx: &mut Cx<'_>, node: &OpNode, inputs: &[Option<Vx>], out: Vx) -> Option<()> {
    let outputs = [Some(out)];
    let (place, origin, isa, ensembles) = (cx.place, cx.origin, cx.isa, cx.ensembles);
    super::lower(&mut Cx {
        op: node,
        program: &mut *cx.program,
        inputs,
        outputs: &outputs,
        place,
        origin,
        isa,
        ensembles,
    })
    .ok()
}

/// `MaxPool` of bytes: their maximum as f32s, which hold them exactly.
pub(super) fn max_pool(cx: &mut Cx<'_>) -> Option<()> {
    let ((x, shape), y) = (cx.byte_input(0)?, cx.only_out().ok()?);
    let (from, to) = (cx.between(x, DType::F32, &shape), cx.shape(y));
    let to = cx.between(y, DType::F32, &to);
    let same = || Expr { code: vec![Ins::Input(0)] };
    cx.push_ew(same(), vec![x], from);
    let op = cx.op;
    inner(cx, op, &[Some(from)], to)?;
    cx.push_ew(same(), vec![to], y);
    Some(())
}
