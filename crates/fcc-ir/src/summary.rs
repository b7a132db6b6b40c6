//! What a model is made of, layer by layer: output shapes, parameters, floating point operations, memory.
//!
//! Counted as a parameter: each element of an initializer (or of a `Constant` node's tensor) that a layer uses,
//! except `int64`, `bool` and strings, which are shapes and indices; and except the running mean and variance of a
//! BatchNormalization, which are buffers. A tensor that several layers share counts once, at its first user.
use crate::attr::AttrValue;
use crate::infer::infer;
use crate::ops::conv::Window;
use crate::{DType, Dim, Graph, Model, NodeId, NodeKind, OpNode, Result, Shape, Tensor, ValueId, ValueType};
use std::collections::BTreeSet;

/// One operator of the main graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The node's name, or its first output's where it has none.
    pub name: String,
    /// The operator, with its domain if that is not `ai.onnx`.
    pub op: String,
    /// The types of the outputs, absent ones left out.
    pub outputs: Vec<ValueType>,
    /// Parameters that are not counted at an earlier layer.
    pub parameters: usize,
    /// Elements of running means and variances.
    pub buffers: usize,
    /// Floating point operations of one run, a multiplication with its addition counted as two; over symbols where
    /// shapes are symbolic; [`Dim::Unknown`] where shapes are not known or the operator is not known to fcc.
    pub flops: Dim,
}

/// A model, layer by layer, with totals.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The layers in the order in which they run.
    pub layers: Vec<Layer>,
    /// Names and types of the required inputs.
    pub inputs: Vec<(String, ValueType)>,
    /// Names and types of the outputs.
    pub outputs: Vec<(String, ValueType)>,
    /// All parameters.
    pub parameters: usize,
    /// All elements of running means and variances.
    pub buffers: usize,
    /// Size of all initializers, shapes and indices included.
    pub weight_bytes: usize,
    /// Sum over the layers whose number is known.
    pub flops: Dim,
    /// How many layers have an unknown number of operations.
    pub flops_unknown: usize,
    /// Size of the required inputs.
    pub input_bytes: Dim,
    /// Size of everything that the layers make, each value once, as if nothing were reused.
    pub activation_bytes: Dim,
}

/// Looks at a model. Types are inferred on a copy (weights are shared). Errors as [`infer`].
///
/// Layers inside subgraphs and functions are not listed; their parameters count at the node that owns them.
pub fn summary(model: &Model) -> Result<Summary> {
    let mut graph = model.graph.clone();
    infer(&mut graph, &model.functions)?;
    let mut counted = BTreeSet::new();
    let mut summary = Summary {
        layers: vec![],
        inputs: vec![],
        outputs: graph.outputs.iter().map(|o| (o.info.name.clone(), graph.ty(o.value).clone())).collect(),
        parameters: 0,
        buffers: 0,
        weight_bytes: 0,
        flops: Dim::Known(0),
        flops_unknown: 0,
        input_bytes: Dim::Known(0),
        activation_bytes: Dim::Known(0),
    };
    for id in graph.nodes() {
        let ty = graph.node(id).outputs().first().map(|o| o.ty.clone()).unwrap_or_default();
        match &graph.node(id).kind {
            NodeKind::Input => {
                let name = graph.node(id).outputs().first().map(|o| o.name.clone()).unwrap_or_default();
                summary.input_bytes = summary.input_bytes.add(&bytes_of(&ty));
                summary.inputs.push((name, ty));
            }
            NodeKind::Constant(c) => summary.weight_bytes += c.tensor.byte_len(),
            NodeKind::SparseConstant(s) => {
                summary.weight_bytes += s.values.tensor.byte_len() + s.indices.tensor.byte_len();
            }
            NodeKind::Capture(_) | NodeKind::Op(_) => {}
        }
    }
    for id in graph.ops()? {
        let Some(op) = graph.op(id) else { continue };
        let (parameters, buffers) = parameters_of(&graph, id, op, &mut counted);
        let made = graph.node(id).outputs().iter().filter(|o| !o.name.is_empty());
        let outputs: Vec<ValueType> = made.map(|o| o.ty.clone()).collect();
        let flops = flops(&graph, id, op);
        match &flops {
            Dim::Unknown => summary.flops_unknown += 1,
            known => summary.flops = summary.flops.add(known),
        }
        for ty in &outputs {
            summary.activation_bytes = summary.activation_bytes.add(&bytes_of(ty));
        }
        summary.parameters += parameters;
        summary.buffers += buffers;
        let prefix = if op.domain.is_empty() { String::new() } else { format!("{}.", op.domain) };
        summary.layers.push(Layer {
            name: layer_name(&graph, id),
            op: format!("{prefix}{}", op.op_type),
            outputs,
            parameters,
            buffers,
            flops,
        });
    }
    Ok(summary)
}

fn layer_name(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    match node.outputs().first() {
        Some(first) if node.name.is_empty() => first.name.clone(),
        _ => node.name.clone(),
    }
}

/// Whether elements of this type are trained.
fn is_parameter(dtype: DType) -> bool {
    !matches!(dtype, DType::I64 | DType::Bool | DType::String | DType::Undefined)
}

fn parameter_elems(t: &Tensor) -> usize {
    if is_parameter(t.dtype()) { t.len() } else { 0 }
}

/// Parameters and buffers that a node uses first.
fn parameters_of(graph: &Graph, id: NodeId, op: &OpNode, counted: &mut BTreeSet<ValueId>) -> (usize, usize) {
    let (mut parameters, mut buffers) = (0, 0);
    let captures = graph.captures_of(id).into_iter().map(|v| (usize::MAX, v));
    let inputs = graph.inputs_of(id).into_iter().enumerate().filter_map(|(i, v)| Some((i, v?)));
    for (i, value) in inputs.chain(captures) {
        let elems = match &graph.node(value.node).kind {
            NodeKind::Constant(c) => parameter_elems(&c.tensor),
            NodeKind::SparseConstant(s) => parameter_elems(&s.values.tensor),
            NodeKind::Op(o) if o.onnx_name() == "Constant" => {
                graph.constant(value).map_or(0, |t| parameter_elems(&t))
            }
            NodeKind::Op(_) | NodeKind::Input | NodeKind::Capture(_) => 0,
        };
        if elems > 0 && counted.insert(value) {
            let running = op.onnx_name() == "BatchNormalization" && i >= 3;
            *(if running { &mut buffers } else { &mut parameters }) += elems;
        }
    }
    for sub in op.attrs.graphs() {
        parameters += subgraph_parameters(sub);
    }
    (parameters, buffers)
}

fn subgraph_parameters(graph: &Graph) -> usize {
    let of = |id: NodeId| match &graph.node(id).kind {
        NodeKind::Constant(c) => parameter_elems(&c.tensor),
        NodeKind::SparseConstant(s) => parameter_elems(&s.values.tensor),
        NodeKind::Op(op) => {
            let own = match op.attrs.get("value") {
                Some(AttrValue::Tensor(t)) if op.onnx_name() == "Constant" => parameter_elems(&t.tensor),
                _ => 0,
            };
            own + op.attrs.graphs().map(subgraph_parameters).sum::<usize>()
        }
        NodeKind::Input | NodeKind::Capture(_) => 0,
    };
    graph.nodes().into_iter().map(of).sum()
}

fn shape(graph: &Graph, value: Option<ValueId>) -> Option<Shape> {
    graph.ty(value?).as_tensor()?.shape.clone()
}

fn product<'d>(dims: impl IntoIterator<Item = &'d Dim>) -> Dim {
    dims.into_iter().fold(Dim::Known(1), |product, d| product.mul(d))
}

fn bytes_of(ty: &ValueType) -> Dim {
    let Some(t) = ty.as_tensor() else { return Dim::Unknown };
    let Some(shape) = &t.shape else { return Dim::Unknown };
    match t.dtype.bits() {
        0 => Dim::Unknown,
        bits if bits < 8 => product(shape).mul(&Dim::Known(bits)).ceil_div(8),
        bits => product(shape).mul(&Dim::Known(bits / 8)),
    }
}

/// Operations of one run of a node.
fn flops(graph: &Graph, id: NodeId, op: &OpNode) -> Dim {
    let first = (!graph.node(id).outputs().is_empty()).then_some(ValueId { node: id, output: 0 });
    if first.is_some_and(|v| graph.constant(v).is_some()) {
        return Dim::Known(0);
    }
    let input = |i| shape(graph, graph.input(id, i));
    let output = shape(graph, first);
    counted(op, &input, output.as_ref()).unwrap_or(Dim::Unknown)
}

/// The count by operator; `None` where a shape it needs is not known.
fn counted(op: &OpNode, input: &dyn Fn(usize) -> Option<Shape>, output: Option<&Shape>) -> Option<Dim> {
    let times = |a: &Dim, n: usize| a.mul(&Dim::Known(n));
    let per_output = |n: usize| Some(times(&product(output?), n));
    let per_input = |n: usize| Some(times(&product(&input(0)?), n));
    match op.onnx_name() {
        "" => None,
        // two for each tap of each output element: w is [M, C/group, kernel…]
        "Conv" | "ConvInteger" => Some(times(&product(output?).mul(&product(input(1)?.get(1..)?)), 2)),
        "QLinearConv" => Some(times(&product(output?).mul(&product(input(3)?.get(1..)?)), 2)),
        // each input element meets every tap of its group's outputs: w is [C, M/group, kernel…]
        "ConvTranspose" => Some(times(&product(&input(0)?).mul(&product(input(1)?.get(1..)?)), 2)),
        "Gemm" => {
            let a = input(0)?;
            let k = if op.attrs.int_or("transA", 0).ok()? == 0 { a.get(1)? } else { a.first()? };
            Some(times(&product(output?).mul(k), 2))
        }
        "MatMul" | "MatMulInteger" | "QLinearMatMul" => {
            Some(times(&product(output?).mul(input(0)?.last()?), 2))
        }
        "MaxPool" | "AveragePool" | "LpPool" => {
            let window = Window::parse(op, None).ok()?;
            per_output(window.kernel_shape.iter().product())
        }
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => per_input(1),
        name if name.starts_with("Reduce") || matches!(name, "ArgMax" | "ArgMin" | "CumSum") => per_input(1),
        "Softmax" | "LogSoftmax" => per_output(5),
        "BatchNormalization" => per_output(2),
        "InstanceNormalization" | "LayerNormalization" | "GroupNormalization" | "RMSNormalization" => {
            per_output(8)
        }
        "LRN" => per_output(usize::try_from(op.attrs.int_or("size", 1).ok()?).ok()?),
        // data movement and shapes
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity" | "Concat" | "Split"
        | "Slice" | "Gather" | "GatherElements" | "GatherND" | "Scatter" | "ScatterElements"
        | "ScatterND" | "Pad" | "Tile" | "Expand" | "Shape" | "Size" | "Constant" | "ConstantOfShape"
        | "Cast" | "CastLike" | "Dropout" | "DepthToSpace" | "SpaceToDepth" | "Upsample" | "NonZero"
        | "Range" | "OneHot" | "EyeLike" | "Trilu" | "Compress" | "ReverseSequence" | "SequenceEmpty"
        | "SequenceConstruct" | "SequenceInsert" | "SequenceAt" | "SequenceErase" | "SequenceLength"
        | "SplitToSequence" | "ConcatFromSequence" | "Optional" | "OptionalGetElement"
        | "OptionalHasElement" => Some(Dim::Known(0)),
        "Resize" => match op.attrs.str_or("mode", "nearest").ok()? {
            "nearest" => Some(Dim::Known(0)),
            "linear" => per_output(6),
            _ => per_output(24),
        },
        // what the loops and branches do is not known before they run; recurrences are left out too
        "If" | "Loop" | "Scan" | "LSTM" | "GRU" | "RNN" | "Einsum" | "TopK" | "NonMaxSuppression" => None,
        // elementwise
        _ => per_output(1),
    }
}
