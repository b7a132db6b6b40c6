//! From operators to the kinds of node that there are kernels for: one module for each family, one match from the
//! operator to its lowering.
//!
//! A lowering looks at the types and constants of one node and pushes nodes onto the program, or returns `None`: the
//! interpreter computes the node then. It never changes what is there already.
mod conv;
mod elementwise;
mod gemm;
mod movement;
mod norm;
mod pool;
mod quantize;
mod view;

use crate::kernels::ew::Expr;
use crate::plan::ir::{Kind, Node, Program, Vx};
use fcc_ir::{NodeId, OpNode, Tensor};

/// What a lowering sees.
pub(crate) struct Cx<'a> {
    pub op: &'a OpNode,
    pub program: &'a mut Program,
    pub inputs: &'a [Option<Vx>],
    pub outputs: &'a [Option<Vx>],
    pub place: &'a str,
    pub origin: NodeId,
}

/// Lowers one node: `None` leaves it to the interpreter.
pub(crate) fn lower(cx: &mut Cx<'_>) -> Option<()> {
    if cx.op.op == fcc_ir::Op::Opaque {
        return None;
    }
    // a value without elements is nobody's hot path, and no kernel has to think of it
    let empty = |v: &Vx| cx.program.val(*v).dense.as_ref().is_none_or(|d| d.1.contains(&0));
    if cx.outputs.iter().flatten().any(empty) {
        return None;
    }
    if cx.op.domain == "com.microsoft" {
        return match cx.op.op_type.as_str() {
            "DynamicQuantizeMatMul" => quantize::dynamic_quantize_matmul(cx),
            "MatMulIntegerToFloat" => quantize::matmul_integer_to_float(cx),
            "QGemm" => quantize::qgemm(cx),
            _ => quantize::qlinear(cx),
        };
    }
    if !(cx.op.domain.is_empty() || cx.op.domain == "ai.onnx") {
        return None;
    }
    match cx.op.op_type.as_str() {
        "Conv" => conv::conv(cx),
        "ConvTranspose" => conv::conv_transpose(cx),
        "Gemm" => gemm::gemm(cx),
        "MatMul" => gemm::matmul(cx),
        "ConvInteger" => quantize::conv_integer(cx),
        "MatMulInteger" => quantize::matmul_integer(cx),
        "QLinearConv" => quantize::qlinear_conv(cx),
        "QLinearMatMul" => quantize::qlinear_matmul(cx),
        "QuantizeLinear" => quantize::quantize(cx),
        "DequantizeLinear" => quantize::dequantize(cx),
        "DynamicQuantizeLinear" => quantize::dynamic_quantize(cx),
        "MaxPool" => pool::pool(cx).or_else(|| quantize::max_pool(cx)),
        "AveragePool" => pool::pool(cx),
        "GlobalAveragePool" | "GlobalMaxPool" => pool::global(cx),
        "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Dropout" => view::view(cx),
        "Cast" => view::cast(cx).or_else(|| quantize::cast(cx)),
        "BatchNormalization" => norm::batch(cx),
        "Softmax" | "LogSoftmax" => norm::softmax(cx),
        "Concat" => movement::concat(cx),
        "Transpose" => movement::transpose(cx),
        "Slice" => movement::slice(cx),
        "Split" => movement::split(cx),
        "Expand" => movement::expand(cx),
        "Tile" => movement::tile(cx),
        "Pad" => movement::pad(cx),
        "Gather" => movement::gather(cx),
        "DepthToSpace" | "SpaceToDepth" => movement::space_depth(cx),
        "Resize" | "Upsample" => movement::resize(cx),
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceSumSquare" | "ReduceL1"
        | "ReduceL2" => norm::reduce(cx),
        "LayerNormalization" => norm::layer(cx),
        "InstanceNormalization" => norm::instance(cx),
        "LRN" => norm::lrn(cx),
        _ => elementwise::elementwise(cx),
    }
}

impl Cx<'_> {
    fn input(&self, i: usize) -> Option<Vx> {
        self.inputs.get(i).copied().flatten()
    }
    fn out(&self) -> Option<Vx> {
        self.outputs.first().copied().flatten()
    }
    /// The only output, where the node has no other.
    fn only_out(&self) -> Option<Vx> {
        if self.outputs.iter().skip(1).any(Option::is_some) { None } else { self.out() }
    }
    /// Extents of an f32 input.
    fn f32(&self, i: usize) -> Option<Vec<usize>> {
        self.program.val(self.input(i)?).f32_shape().map(<[usize]>::to_vec)
    }
    fn constant(&self, i: usize) -> Option<&Tensor> {
        self.program.constant_of(self.input(i)?)
    }
    fn shape(&self, v: Vx) -> Vec<usize> {
        self.program.shape(v).to_vec()
    }
    fn push(&mut self, kind: Kind, inputs: Vec<Option<Vx>>, out: Vx) {
        self.program.nodes.push(Node {
            place: self.place.to_string(),
            kind,
            inputs,
            outputs: vec![Some(out)],
            origins: vec![self.origin],
        });
    }
    fn push_ew(&mut self, expr: Expr, inputs: Vec<Vx>, out: Vx) {
        self.push(Kind::Ew(expr), inputs.into_iter().map(Some).collect(), out);
    }
    /// The elements of a constant list of integers; `Ok(None)` where the input is absent.
    fn list(&self, i: usize) -> Option<Option<Vec<i64>>> {
        match self.input(i) {
            None => Some(None),
            Some(v) => Some(Some(self.program.constant_of(v)?.to_i64s().ok()?)),
        }
    }
}

/// `[D, H, W]` of a list of up to three, with `fill` in front.
pub(crate) fn three(list: &[usize], fill: usize) -> Option<[usize; 3]> {
    let mut out = [fill; 3];
    let at = 3usize.checked_sub(list.len())?;
    out[at..].copy_from_slice(list);
    Some(out)
}
