//! From operators to the kinds of node that there are kernels for: one module for each family, one match from the
//! operator to its lowering.
//!
//! A lowering looks at the types and constants of one node and pushes nodes onto the program, or declines with what was
//! in the way: the interpreter computes the node then. It never changes what is there already.
mod conv;
mod elementwise;
mod gemm;
mod ml;
mod movement;
mod norm;
mod pool;
mod quantize;
mod recurrent;
mod typed;
mod view;

use crate::asm::Isa;
use crate::declined::Declined;
use crate::host::Ensembles;
use crate::kernels::ew::Expr;
use crate::plan::ir::{Kind, Node, Program, Vx};
use fcc_ir::ops::movement::new_elems;
use fcc_ir::ops::recurrent::Cell;
use fcc_ir::{DType, NodeId, OpNode, Tensor};

/// What a lowering sees.
pub(crate) struct Cx<'a> {
    pub op: &'a OpNode,
    pub program: &'a mut Program,
    pub inputs: &'a [Option<Vx>],
    pub outputs: &'a [Option<Vx>],
    pub place: &'a str,
    pub origin: NodeId,
    /// The level of the kernels.
    pub isa: Isa,
    /// The model's tree ensembles.
    pub ensembles: &'a Ensembles,
}

/// What came of a lowering: nodes on the program, or why not.
pub(crate) type Lowered = Result<(), Declined>;

/// Lowers one node; where it declines, the interpreter computes the node.
pub(crate) fn lower(cx: &mut Cx<'_>) -> Lowered {
    if cx.op.op == fcc_ir::Op::Opaque {
        return Err(cx.no_kernel());
    }
    // these may make strings
    if cx.op.domain == ml::DOMAIN {
        return ml::lower(cx);
    }
    for v in cx.outputs.iter().flatten() {
        let shape = cx.dense(*v)?.1;
        // a value without elements is nobody's hot path, and no kernel has to think of it
        if shape.contains(&0) {
            return Err(Declined::new(cx.named("output", *v), "no elements", "at least one"));
        }
        // what is out of all proportion, the interpreter refuses
        if let Err(why) = new_elems(&shape) {
            return Err(Declined::new(cx.named("output", *v), why, "what fits memory"));
        }
    }
    if cx.op.domain == "com.microsoft" {
        return match cx.op.op_type.as_str() {
            "DynamicQuantizeMatMul" => quantize::lower(cx, quantize::dynamic_quantize_matmul),
            "MatMulIntegerToFloat" => quantize::lower(cx, quantize::matmul_integer_to_float),
            "QGemm" => quantize::lower(cx, quantize::qgemm),
            _ if quantize::between_scales(cx.op).is_some() => quantize::lower(cx, quantize::qlinear),
            _ => Err(cx.no_kernel()),
        };
    }
    if !(cx.op.domain.is_empty() || cx.op.domain == "ai.onnx") {
        return Err(cx.no_kernel());
    }
    match cx.op.op_type.as_str() {
        "Conv" => conv::conv(cx),
        "ConvTranspose" => conv::conv_transpose(cx),
        "Gemm" => gemm::gemm(cx),
        "MatMul" => gemm::matmul(cx),
        "ConvInteger" => quantize::lower(cx, quantize::conv_integer),
        "MatMulInteger" => quantize::lower(cx, quantize::matmul_integer),
        "QLinearConv" => quantize::lower(cx, quantize::qlinear_conv),
        "QLinearMatMul" => quantize::lower(cx, quantize::qlinear_matmul),
        "QuantizeLinear" => quantize::lower(cx, quantize::quantize),
        "DequantizeLinear" => quantize::lower(cx, quantize::dequantize),
        "DynamicQuantizeLinear" => quantize::lower(cx, quantize::dynamic_quantize),
        "MaxPool" => pool::pool(cx).or_else(|why| quantize::lower(cx, quantize::max_pool).map_err(|_| why)),
        "AveragePool" => pool::pool(cx),
        "GlobalAveragePool" | "GlobalMaxPool" => pool::global(cx),
        "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Dropout" => view::view(cx),
        "Cast" | "CastLike" => view::cast(cx)
            .or_else(|why| quantize::lower(cx, quantize::cast).map_err(|_| why))
            .or_else(|why| typed::cast(cx).ok_or(why)),
        "BatchNormalization" => norm::batch(cx),
        "Softmax" | "LogSoftmax" => norm::softmax(cx),
        "Concat" => movement::concat(cx),
        "Transpose" => movement::transpose(cx),
        "Slice" => movement::slice(cx),
        "Split" => movement::split(cx),
        "Expand" => movement::expand(cx),
        "Tile" => movement::tile(cx),
        "Pad" => movement::pad(cx),
        "Gather" => movement::gather(cx).or_else(|why| typed::gather(cx).ok_or(why)),
        "DepthToSpace" | "SpaceToDepth" => movement::space_depth(cx),
        "Resize" | "Upsample" => movement::resize(cx),
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceSumSquare" | "ReduceL1"
        | "ReduceL2" => norm::reduce(cx),
        "LayerNormalization" => norm::layer(cx),
        "InstanceNormalization" => norm::instance(cx),
        "LRN" => norm::lrn(cx),
        "RNN" => recurrent::recurrent(cx, Cell::Rnn).ok_or_else(|| cx.no_kernel()),
        "GRU" => recurrent::recurrent(cx, Cell::Gru).ok_or_else(|| cx.no_kernel()),
        "LSTM" => recurrent::recurrent(cx, Cell::Lstm).ok_or_else(|| cx.no_kernel()),
        "Where" => typed::choose(cx).ok_or_else(|| cx.no_kernel()),
        "Not" => typed::not(cx).ok_or_else(|| cx.no_kernel()),
        "ArgMax" | "ArgMin" => typed::arg(cx).ok_or_else(|| cx.no_kernel()),
        _ => elementwise::elementwise(cx).or_else(|why| typed::zip(cx).ok_or(why)),
    }
}

impl Cx<'_> {
    fn input(&self, i: usize) -> Option<Vx> {
        self.inputs.get(i).copied().flatten()
    }
    /// An input that must be there.
    fn need(&self, i: usize) -> Result<Vx, Declined> {
        self.input(i).ok_or_else(|| Declined::new(format!("input {i}"), "none", "a value"))
    }
    /// The only output, where the node has no other.
    fn only_out(&self) -> Result<Vx, Declined> {
        let used = self.outputs.iter().flatten().count();
        let first = self.outputs.first().copied().flatten().filter(|_| used == 1);
        first.ok_or_else(|| Declined::new("outputs", format!("{used} in use"), "the first alone"))
    }
    /// Element type and extents of a dense value.
    fn dense(&self, v: Vx) -> Result<(DType, Vec<usize>), Declined> {
        let val = self.program.val(v);
        let need = "a dense tensor of known shape";
        val.dense.clone().ok_or_else(|| Declined::new(self.named("value", v), &val.ty, need))
    }
    /// Extents of an f32 input.
    fn f32(&self, i: usize) -> Result<Vec<usize>, Declined> {
        self.f32_value(self.need(i)?, &format!("input {i}"))
    }
    /// Extents of an f32 value, which the reason calls `what`.
    fn f32_value(&self, v: Vx, what: &str) -> Result<Vec<usize>, Declined> {
        let val = self.program.val(v);
        let shape = val.f32_shape().map(<[usize]>::to_vec);
        shape.ok_or_else(|| Declined::new(self.named(what, v), &val.ty, "float of known shape"))
    }
    fn constant(&self, i: usize) -> Option<&Tensor> {
        self.program.constant_of(self.input(i)?)
    }
    /// An input that must be the same in every run.
    fn fixed(&self, i: usize) -> Result<&Tensor, Declined> {
        let v = self.need(i)?;
        let got = "a value that a run gives";
        let tensor = self.program.constant_of(v);
        tensor.ok_or_else(|| Declined::new(self.named(&format!("input {i}"), v), got, "a constant"))
    }
    fn named(&self, what: &str, v: Vx) -> String {
        format!("{what} `{}`", self.program.val(v).name)
    }
    /// Nothing here computes such an operator.
    fn no_kernel(&self) -> Declined {
        let domain = if self.op.domain.is_empty() { "" } else { &format!("{}.", self.op.domain) };
        let inputs = self.inputs.iter().flatten().map(|v| self.program.val(*v).ty.to_string());
        let got = format!("{domain}{} of {}", self.op.op_type, inputs.collect::<Vec<_>>().join(", "));
        Declined::new("operator", got, "one that there is a kernel for")
    }
    /// The operator's attributes make another shape than inference found.
    fn other_shape(&self, y: Vx) -> Declined {
        Declined::new(self.named("output", y), "another shape", format!("{:?}", self.program.shape(y)))
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
    /// The elements of a constant list of integers; `None` where the input is absent.
    fn list(&self, i: usize) -> Result<Option<Vec<i64>>, Declined> {
        match self.input(i) {
            None => Ok(None),
            Some(_) => self.some_list(i).map(Some),
        }
    }
    /// A list that older versions hold as attribute `attr` and newer ones as input `i`: as inference and the
    /// interpreter read it.
    fn list_of(&self, attr: &str, i: usize) -> Result<Option<Vec<i64>>, Declined> {
        match self.op.attrs.ints(attr)? {
            Some(list) => Ok(Some(list.to_vec())),
            None => self.list(i),
        }
    }
    /// The elements of a constant list of integers.
    fn some_list(&self, i: usize) -> Result<Vec<i64>, Declined> {
        Ok(self.fixed(i)?.to_i64s()?)
    }
}

/// `[D, H, W]` of a list of up to three, with `fill` in front.
pub(crate) fn three(list: &[usize], fill: usize) -> Result<[usize; 3], Declined> {
    let mut out = [fill; 3];
    let at = 3usize.checked_sub(list.len());
    let at = at.ok_or_else(|| Declined::new("spatial axes", list.len(), "3 at most"))?;
    out[at..].copy_from_slice(list);
    Ok(out)
}
