//! What rules see of a graph: its nodes with the types, extents and constants that inference found.
use fcc_ir::infer::infer_facts;
use fcc_ir::op::Fact;
use fcc_ir::{
    DType, Dim, Function, Graph, NodeId, NodeKind, OpNode, Result, Shape, Slot, Tensor, TensorType, ValueId,
};
use std::collections::HashMap;

/// Inference's facts by value, kept up to date while rules add nodes.
#[derive(Debug, Default)]
pub(crate) struct FactMap(HashMap<ValueId, Fact>);

impl FactMap {
    /// Infers the graph; `captures` are the facts of what it captures, by index.
    pub(crate) fn new(graph: &Graph, functions: &[Function], captures: &[Fact]) -> Result<FactMap> {
        let inferred = infer_facts(graph, functions, None, captures)?;
        let mut facts = HashMap::with_capacity(graph.node_count());
        for id in graph.nodes() {
            for value in graph.values_of(id) {
                let mut fact = inferred.get(value);
                // what the file declares may be more precise than what follows from the operators
                if let Ok(ty) = fact.ty.merge(graph.ty(value)) {
                    fact.ty = ty;
                }
                facts.insert(value, fact);
            }
        }
        Ok(FactMap(facts))
    }
    pub(crate) fn get(&self, value: ValueId) -> Option<&Fact> {
        self.0.get(&value)
    }
    pub(crate) fn set(&mut self, value: ValueId, fact: Fact) {
        self.0.insert(value, fact);
    }
}

/// Limits that rules keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes by which all rewrites together may let the model's constants grow.
    pub growth_bytes: u64,
    /// Bytes of one value that constant folding may make (a value not larger than its inputs is always allowed).
    pub folded_bytes: u64,
    /// Nodes that one rewrite may make.
    pub nodes: usize,
    /// Largest extent of a kernel in any direction, as targets that run convolutions have.
    pub kernel: usize,
    /// Make nothing that ONNX Runtime's CPU provider does not run, where it runs what is replaced.
    pub runs_elsewhere: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let (growth_bytes, folded_bytes) = (256 << 20, 1 << 20);
        Limits { growth_bytes, folded_bytes, nodes: 4096, kernel: usize::MAX, runs_elsewhere: true }
    }
}

/// A graph as rules read it.
pub struct Cx<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) facts: &'a FactMap,
    pub(crate) functions: &'a [Function],
    pub(crate) captures: &'a [Fact],
    pub(crate) limits: &'a Limits,
}

impl<'a> Cx<'a> {
    /// The graph.
    pub fn graph(&self) -> &'a Graph {
        self.graph
    }
    /// The limits in force.
    pub fn limits(&self) -> &'a Limits {
        self.limits
    }
    /// The operator of a node if it is this one of `ai.onnx`.
    pub fn op(&self, node: NodeId, op_type: &str) -> Option<&'a OpNode> {
        self.graph.op(node).filter(|op| is_onnx(op) && op.op_type == op_type)
    }
    /// The operator of a node if it is one of these of `ai.onnx`.
    pub fn op_in(&self, node: NodeId, op_types: &[&str]) -> Option<&'a OpNode> {
        self.graph.op(node).filter(|op| is_onnx(op) && op_types.contains(&op.op_type.as_str()))
    }
    /// The first output of a node.
    pub fn out(&self, node: NodeId) -> ValueId {
        ValueId { node, output: 0 }
    }
    /// A required input. Errs if it is absent.
    pub fn input(&self, node: NodeId, index: usize) -> Result<ValueId, crate::Declined> {
        self.graph
            .input(node, index)
            .ok_or_else(|| crate::Declined::new(format!("input {index}"), "none", "a value"))
    }
    /// The tensor type of a value, as far as it is known.
    pub fn tensor(&self, value: ValueId) -> Option<&'a TensorType> {
        self.facts.get(value)?.ty.as_tensor()
    }
    /// The shape of a value, if its rank is known.
    pub fn shape(&self, value: ValueId) -> Option<&'a Shape> {
        self.tensor(value)?.shape.as_ref()
    }
    /// The element type, [`DType::Undefined`] if unknown.
    pub fn dtype(&self, value: ValueId) -> DType {
        self.tensor(value).map_or(DType::Undefined, |t| t.dtype)
    }
    /// The shape, or the reason why a rule that needs it declines.
    pub fn need_shape(&self, value: ValueId) -> Result<&'a Shape, crate::Declined> {
        self.shape(value).ok_or_else(|| {
            crate::Declined::new(
                format!("shape of `{}`", self.graph.value_name(value)),
                self.type_text(value),
                "a known rank",
            )
        })
    }
    /// A value's type as messages show it.
    pub fn type_text(&self, value: ValueId) -> String {
        self.facts.get(value).map_or_else(|| "?".into(), |f| f.ty.to_string())
    }
    /// The tensor behind a value that is the same in every run, one captured from an enclosing graph included.
    pub fn constant(&self, value: ValueId) -> Option<Tensor> {
        known_constant(self.graph, self.captures, value)
    }
    /// What inference computed of a value that is the same in every run.
    pub fn value(&self, value: ValueId) -> Option<Tensor> {
        self.facts.get(value)?.value.clone()
    }
    /// The constant, or the reason why a rule that needs it declines: what the value is instead.
    pub fn need_constant(&self, value: ValueId, what: &str) -> Result<Tensor, crate::Declined> {
        self.constant(value).ok_or_else(|| {
            let node = self.graph.node(value.node);
            let got = match &node.kind {
                NodeKind::Constant(_) => {
                    format!("initializer `{}` that callers may override", self.graph.value_name(value))
                }
                NodeKind::Op(op) if op.onnx_name() == "DequantizeLinear" => {
                    format!("the quantised {}", self.graph.place(value.node))
                }
                _ => self.graph.place(value.node),
            };
            crate::Declined::new(what, got, "a constant")
        })
    }
    /// The only use of a value, if a single operator's input is it and no output of the graph is.
    pub fn only_user(&self, value: ValueId) -> Option<(NodeId, usize)> {
        if self.graph.is_output(value) || self.graph.use_count(value) != 1 {
            return None;
        }
        match self.graph.users(value).as_slice() {
            [(node, Slot::Input(i))] => Some((*node, *i as usize)),
            _ => None,
        }
    }
    /// Version of `ai.onnx` in this graph.
    pub fn opset(&self) -> i64 {
        self.graph.opsets.get("").copied().unwrap_or(0)
    }
}

/// The tensor behind a value that is the same in every run, one captured from an enclosing graph included.
pub(crate) fn known_constant(graph: &Graph, captures: &[Fact], value: ValueId) -> Option<Tensor> {
    match graph.node(value.node).kind {
        NodeKind::Capture(i) => captures.get(i as usize)?.value.clone(),
        _ => graph.constant(value),
    }
}

/// Whether a node is of ONNX's own operators.
pub(crate) fn is_onnx(op: &OpNode) -> bool {
    !op.onnx_name().is_empty()
}

/// The product of extents, if all are fixed and it does not overflow.
pub(crate) fn known_product(dims: &[Dim]) -> Option<usize> {
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.known()?))
}

/// Whether both shapes are certainly the same.
pub(crate) fn same_shape(a: &[Dim], b: &[Dim]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b))
}

/// Whether two shapes of the same elements are certainly the same: all extents are, or all but one are and are
/// fixed and not zero, so that the one left is too.
pub(crate) fn same_elements_shape(a: &[Dim], b: &[Dim]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let differ = a.iter().zip(b).filter(|(a, b)| !a.same(b)).count();
    let fixed = a.iter().zip(b).filter(|(a, b)| matches!(a, Dim::Known(n) if *n > 0) && a.same(b)).count();
    differ == 0 || (differ == 1 && fixed + 1 == a.len())
}

/// Extents as messages show them: `[N,3,?]`.
pub(crate) fn dims_text(dims: &[Dim]) -> String {
    let parts: Vec<String> = dims.iter().map(Dim::to_string).collect();
    format!("[{}]", parts.join(","))
}
