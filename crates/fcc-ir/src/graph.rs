//! The graph: nodes are inputs, constants and operators; edges carry which output feeds which slot.
mod effects;
mod listed;
mod names;
mod splice;

pub use effects::Effects;
pub use listed::Listed;
pub use names::{Names, Owner};

use crate::attr::{Attrs, ConstSparse, ConstTensor};
use crate::{Error, Op, Result, Tensor, ValueInfo, ValueType};
use bytes::Bytes;
use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::{EdgeReference, NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

/// The opset version of each domain (`""` is `ai.onnx`).
pub type Opsets = BTreeMap<String, i64>;

/// A node of a [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(NodeIndex);

/// One output of a node: the unit of data flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    /// The node that makes it.
    pub node: NodeId,
    /// Which of the node's outputs.
    pub output: u32,
}

/// Where an edge arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// The operator's input of this index.
    Input(u32),
    /// The value that the operator's subgraphs see as their capture of this index.
    Capture(u32),
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    from_output: u32,
    to: Slot,
}

/// An output of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name; empty for an optional output that is not made.
    pub name: String,
    /// The best known type: declared, inferred, or both merged.
    pub ty: ValueType,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// An input of the graph without a default.
    Input,
    /// An initializer. It may be listed among the graph's inputs too: then it can be overridden.
    Constant(ConstTensor),
    /// A sparse initializer.
    SparseConstant(Box<ConstSparse>),
    /// In a subgraph: a value of an enclosing graph, the capture of this index of the owning node.
    Capture(u32),
    /// An operator.
    Op(OpNode),
}

/// An operator with its attributes as the file gave them.
#[derive(Debug, Clone)]
pub struct OpNode {
    /// Which operator; [`Op::Opaque`] if fcc does not know it.
    pub op: Op,
    /// Domain, `""` for `ai.onnx`.
    pub domain: String,
    /// Operator or function name.
    pub op_type: String,
    /// Overload of a model-local function.
    pub overload: String,
    /// Opset version of the domain in this graph.
    pub version: i64,
    /// Attributes.
    pub attrs: Attrs,
    /// Number of input slots, absent optional ones included.
    pub n_inputs: u32,
    /// `NodeProto.device_configurations`, encoded, kept as read.
    pub device_configurations: Vec<Bytes>,
}

impl OpNode {
    /// The name, if the node is an operator of `ai.onnx` that fcc knows in this opset; `""` for anything else, a call
    /// of a model's function that bears such a name included. Who asks what a node computes by name asks here.
    pub fn onnx_name(&self) -> &str {
        match self.op {
            Op::Opaque => "",
            _ if matches!(self.domain.as_str(), "" | "ai.onnx") => &self.op_type,
            _ => "",
        }
    }
    /// Makes the node something else, of `ai.onnx`.
    pub fn become_onnx(&mut self, op_type: &str) {
        (self.domain, self.op_type, self.overload) = (String::new(), op_type.into(), String::new());
        self.op = Op::of("", op_type, "", self.version);
    }
    /// Sets the overload: with one, the node is a call of a model's function.
    pub fn set_overload(&mut self, overload: String) {
        self.op = Op::of(&self.domain, &self.op_type, &overload, self.version);
        self.overload = overload;
    }
}

/// A node: what it is, its name and its outputs.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name, possibly empty.
    pub name: String,
    /// `doc_string`.
    pub doc: String,
    /// `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// Fields of the file's message that have no place here (such as ones that are present and empty), encoded:
    /// what the exporter starts from. Empty for what fcc made.
    pub extra: Bytes,
    /// What it is.
    pub kind: NodeKind,
    outputs: Vec<Output>,
    /// Place in the file; nodes that a rule makes take the rank of what they replace.
    rank: u64,
}

impl Node {
    /// The outputs in order, absent optional ones with an empty name.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }
    /// The operator, if this is one.
    pub fn op(&self) -> Option<&OpNode> {
        match &self.kind {
            NodeKind::Op(op) => Some(op),
            _ => None,
        }
    }
    /// The operator to change, if this is one.
    pub fn op_mut(&mut self) -> Option<&mut OpNode> {
        match &mut self.kind {
            NodeKind::Op(op) => Some(op),
            _ => None,
        }
    }
}

/// An input of a graph.
#[derive(Debug, Clone)]
pub struct GraphInput {
    /// An [`NodeKind::Input`], or a constant that callers may override.
    pub node: NodeId,
    /// What the file declares.
    pub info: ValueInfo,
}

/// An output of a graph.
#[derive(Debug, Clone)]
pub struct GraphOutput {
    /// The value; its name is `info.name`.
    pub value: ValueId,
    /// What the file declares.
    pub info: ValueInfo,
}

/// `quantization_annotation`: a tensor's name and the names of its scale and zero point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantAnnotation {
    /// The annotated tensor.
    pub tensor: String,
    /// Keys such as `SCALE_TENSOR` and the tensors' names.
    pub params: Vec<(String, String)>,
}

/// A new operator node, as rules and importers describe it.
#[derive(Debug, Clone)]
pub struct NewNode<'a> {
    /// Operator name, in domain `ai.onnx` unless `domain` says else.
    pub op_type: &'a str,
    /// Domain.
    pub domain: &'a str,
    /// Name of the node.
    pub name: String,
    /// Inputs by slot.
    pub inputs: Vec<Option<ValueId>>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Attributes.
    pub attrs: Attrs,
}

/// A dataflow graph: a model's main graph, a subgraph of `If`/`Loop`/`Scan`, or a function's body.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    g: StableDiGraph<Node, Edge>,
    names: HashMap<String, ValueId>,
    /// How many slots each value feeds.
    fed: HashMap<ValueId, usize>,
    /// The operators that hold graphs, but for what happened to the one in `lent`.
    owners: BTreeSet<NodeId>,
    /// The node that was lent to be changed last: it may hold graphs by now.
    lent: Option<NodeId>,
    /// Name.
    pub name: String,
    /// `doc_string`.
    pub doc: String,
    /// `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// Fields of the file's message that have no place here (such as ones that are present and empty), encoded:
    /// what the exporter starts from. Empty for what fcc made.
    pub extra: Bytes,
    /// Inputs in order, overridable constants included.
    pub inputs: Listed<GraphInput>,
    /// Outputs in order.
    pub outputs: Listed<GraphOutput>,
    /// `value_info` as the file gave it.
    pub value_info: Vec<ValueInfo>,
    /// `quantization_annotation` as the file gave it.
    pub quantization: Vec<QuantAnnotation>,
    /// Opset versions in force.
    pub opsets: Arc<Opsets>,
    /// Names of enclosing graphs, which new names must avoid.
    pub outer_names: Arc<BTreeSet<String>>,
    /// From IR 4 on, an initializer that is also an input can be overridden; before, every one had to be listed.
    pub overridable_inputs: bool,
    next_rank: u64,
}

/// The value that an edge carries.
fn feeder(edge: &EdgeReference<'_, Edge>) -> ValueId {
    ValueId { node: NodeId(edge.source()), output: edge.weight().from_output }
}

/// Distance between the ranks of nodes read from a file.
const RANK_STEP: u64 = 1 << 20;

impl Graph {
    /// An empty graph under these opsets.
    pub fn new(name: impl Into<String>, opsets: Arc<Opsets>) -> Self {
        Graph { name: name.into(), opsets, overridable_inputs: true, ..Default::default() }
    }

    // ---- reading

    /// A node. Ids stay valid until the node is removed; panics on a removed one.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.g[id.0]
    }
    /// A node to change.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        if let Some(lent) = self.lent.replace(id) {
            self.note_owner(lent);
        }
        &mut self.g[id.0]
    }
    /// Notes whether the node holds graphs: an id may be that of a removed one.
    fn note_owner(&mut self, id: NodeId) {
        let op = self.g.node_weight(id.0).and_then(Node::op);
        match op.is_some_and(|op| op.attrs.graphs().next().is_some()) {
            true => self.owners.insert(id),
            false => self.owners.remove(&id),
        };
    }
    /// Whether the node is still in the graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.g.contains_node(id.0)
    }
    /// The operator of a node, if it is one.
    pub fn op(&self, id: NodeId) -> Option<&OpNode> {
        self.node(id).op()
    }
    /// Number of nodes of all kinds.
    pub fn node_count(&self) -> usize {
        self.g.node_count()
    }
    /// All nodes by place in the file (not a topological order).
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> = self.g.node_indices().map(NodeId).collect();
        ids.sort_by_key(|id| (self.node(*id).rank, *id));
        ids
    }
    /// All operators so that producers come first; ties by place in the file. Errors on a cycle.
    pub fn ops(&self) -> Result<Vec<NodeId>> {
        let mut ids = self.topological()?;
        ids.retain(|id| self.op(*id).is_some());
        Ok(ids)
    }
    /// All nodes so that producers come first; ties by place in the file. Errors on a cycle.
    pub fn topological(&self) -> Result<Vec<NodeId>> {
        // what has no producers comes first: it must not delay an operator behind others of higher rank
        let key = |ix: NodeIndex| Reverse((self.g[ix].op().is_some(), self.g[ix].rank, ix));
        let mut waiting: HashMap<NodeIndex, usize> = HashMap::with_capacity(self.g.node_count());
        let mut ready = BinaryHeap::new();
        for ix in self.g.node_indices() {
            match self.g.edges_directed(ix, Incoming).count() {
                0 => ready.push(key(ix)),
                n => {
                    waiting.insert(ix, n);
                }
            }
        }
        let mut order = Vec::with_capacity(self.g.node_count());
        while let Some(Reverse((_, _, ix))) = ready.pop() {
            order.push(NodeId(ix));
            for e in self.g.edges_directed(ix, Outgoing) {
                if let Some(n) = waiting.get_mut(&e.target()) {
                    *n -= 1;
                    if *n == 0 {
                        ready.push(key(e.target()));
                    }
                }
            }
        }
        if order.len() == self.g.node_count() {
            return Ok(order);
        }
        let stuck = waiting.iter().filter(|(_, n)| **n > 0).map(|(ix, _)| NodeId(*ix)).min();
        Err(Error::invalid(format!("cycle through {}", stuck.map_or_else(String::new, |id| self.place(id)))))
    }
    /// What feeds a slot.
    pub fn slot(&self, id: NodeId, slot: Slot) -> Option<ValueId> {
        self.g.edges_directed(id.0, Incoming).find(|e| e.weight().to == slot).map(|e| feeder(&e))
    }
    /// What feeds the input of this index.
    pub fn input(&self, id: NodeId, index: usize) -> Option<ValueId> {
        self.slot(id, Slot::Input(u32::try_from(index).ok()?))
    }
    /// All inputs of an operator by slot, absent ones as `None`; empty for other nodes.
    pub fn inputs_of(&self, id: NodeId) -> Vec<Option<ValueId>> {
        let n = self.op(id).map_or(0, |op| op.n_inputs as usize);
        let mut inputs = vec![None; n];
        for e in self.g.edges_directed(id.0, Incoming) {
            if let Slot::Input(i) = e.weight().to
                && let Some(slot) = inputs.get_mut(i as usize)
            {
                *slot = Some(feeder(&e));
            }
        }
        inputs
    }
    /// What the node's subgraphs capture: index and value, in no order.
    fn captures(&self, id: NodeId) -> impl Iterator<Item = (u32, ValueId)> {
        self.g.edges_directed(id.0, Incoming).filter_map(|e| match e.weight().to {
            Slot::Capture(i) => Some((i, feeder(&e))),
            Slot::Input(_) => None,
        })
    }
    /// The values that the node's subgraphs capture, by capture index.
    pub fn captures_of(&self, id: NodeId) -> Vec<ValueId> {
        let mut captures: Vec<(u32, ValueId)> = self.captures(id).collect();
        captures.sort_unstable();
        captures.into_iter().map(|(_, v)| v).collect()
    }
    /// The capture indices of the node's subgraphs, ascending.
    pub fn capture_slots(&self, id: NodeId) -> Vec<u32> {
        let mut slots: Vec<u32> = self.captures(id).map(|(i, _)| i).collect();
        slots.sort_unstable();
        slots
    }
    /// Every use of a value by a node, in place order; uses as a graph output are not among them.
    pub fn users(&self, value: ValueId) -> Vec<(NodeId, Slot)> {
        let mut users: Vec<(NodeId, Slot)> = self
            .g
            .edges_directed(value.node.0, Outgoing)
            .filter(|e| e.weight().from_output == value.output)
            .map(|e| (NodeId(e.target()), e.weight().to))
            .collect();
        users.sort_by_key(|(id, slot)| (self.node(*id).rank, *id, *slot));
        users
    }
    /// Whether the value is an output of the graph.
    pub fn is_output(&self, value: ValueId) -> bool {
        self.outputs.count(value) > 0
    }
    /// Number of uses: by nodes, and as an output of the graph.
    pub fn use_count(&self, value: ValueId) -> usize {
        self.fed.get(&value).copied().unwrap_or(0) + self.outputs.count(value)
    }
    /// The output that a value is.
    pub fn output(&self, value: ValueId) -> &Output {
        &self.node(value.node).outputs[value.output as usize]
    }
    /// A value's name.
    pub fn value_name(&self, value: ValueId) -> &str {
        &self.output(value).name
    }
    /// A value's type.
    pub fn ty(&self, value: ValueId) -> &ValueType {
        &self.output(value).ty
    }
    /// The value of a name.
    pub fn value(&self, name: &str) -> Option<ValueId> {
        self.names.get(name).copied()
    }
    /// The values that a node makes (absent optional outputs left out).
    pub fn values_of(&self, id: NodeId) -> impl Iterator<Item = ValueId> + '_ {
        let outputs = self.node(id).outputs.iter().enumerate();
        outputs.filter(|(_, o)| !o.name.is_empty()).map(move |(i, _)| ValueId { node: id, output: i as u32 })
    }
    /// Whether callers of the graph may replace this constant.
    pub fn is_overridable(&self, id: NodeId) -> bool {
        self.overridable_inputs && self.inputs.count(id) > 0
    }
    /// The tensor behind a value that is the same in every run: an initializer that callers cannot override,
    /// or a `Constant` node holding a tensor or numbers.
    pub fn constant(&self, value: ValueId) -> Option<Tensor> {
        match &self.node(value.node).kind {
            NodeKind::Constant(c) if !self.is_overridable(value.node) => Some(c.tensor.clone()),
            NodeKind::Op(op) if op.op == Op::Constant => crate::ops::constant::tensor(op).ok().flatten(),
            _ => None,
        }
    }
    /// How errors and reports call a node: ``node `conv1` (Conv)``.
    pub fn place(&self, id: NodeId) -> String {
        let node = self.node(id);
        let first = node.outputs.first().map_or("", |o| &o.name);
        match &node.kind {
            NodeKind::Op(op) if node.name.is_empty() => format!("node of output `{first}` ({})", op.op_type),
            NodeKind::Op(op) => format!("node `{}` ({})", node.name, op.op_type),
            NodeKind::Input => format!("input `{first}`"),
            NodeKind::Constant(_) | NodeKind::SparseConstant(_) => format!("initializer `{first}`"),
            NodeKind::Capture(_) => format!("outer value `{first}`"),
        }
    }

    // ---- building

    fn insert(
        &mut self,
        name: String,
        kind: NodeKind,
        outputs: Vec<Output>,
        rank: Option<u64>,
    ) -> Result<NodeId> {
        let mut seen = HashSet::with_capacity(outputs.len());
        for o in &outputs {
            let doubled = self.names.contains_key(&o.name) || !seen.insert(o.name.as_str());
            if !o.name.is_empty() && doubled {
                return Err(Error::mismatch("value name", format!("`{}` twice", o.name), "unique names"));
            }
        }
        let rank = rank.unwrap_or_else(|| {
            self.next_rank += RANK_STEP;
            self.next_rank
        });
        let node =
            Node { name, doc: String::new(), metadata: vec![], extra: Bytes::new(), kind, outputs, rank };
        let id = NodeId(self.g.add_node(node));
        self.note_owner(id);
        for i in 0..self.node(id).outputs.len() {
            let name = self.node(id).outputs[i].name.clone();
            if !name.is_empty() {
                self.names.insert(name, ValueId { node: id, output: i as u32 });
            }
        }
        Ok(id)
    }
    fn insert_source(&mut self, kind: NodeKind, name: &str, ty: ValueType) -> Result<ValueId> {
        let node = self.insert(String::new(), kind, vec![Output { name: name.into(), ty }], None)?;
        Ok(ValueId { node, output: 0 })
    }
    /// Adds an input. Errors if its name is taken.
    pub fn add_input(&mut self, info: ValueInfo) -> Result<ValueId> {
        let value = self.insert_source(NodeKind::Input, &info.name, info.ty.clone())?;
        self.inputs.push(GraphInput { node: value.node, info });
        Ok(value)
    }
    /// Adds an initializer. Errors if its name is taken.
    pub fn add_constant(&mut self, name: &str, constant: impl Into<ConstTensor>) -> Result<ValueId> {
        let constant = constant.into();
        let ty = constant.tensor.tensor_type().into();
        self.insert_source(NodeKind::Constant(constant), name, ty)
    }
    /// Adds a sparse initializer. Errors if its name is taken.
    pub fn add_sparse_constant(&mut self, name: &str, constant: ConstSparse) -> Result<ValueId> {
        let ty = ValueType::tensor(constant.values.tensor.dtype(), constant.shape.iter().copied());
        self.insert_source(NodeKind::SparseConstant(Box::new(constant)), name, ty)
    }
    /// Adds the capture of this index, under the name the enclosing graph gives it. Errors if its name is taken.
    pub fn add_capture(&mut self, index: u32, name: &str, ty: ValueType) -> Result<ValueId> {
        self.insert_source(NodeKind::Capture(index), name, ty)
    }
    /// Lists an initializer among the graph's inputs too.
    pub fn list_as_input(&mut self, node: NodeId, info: ValueInfo) {
        self.inputs.push(GraphInput { node, info });
    }
    /// Adds an operator. Its operator is looked up in fcc's list and its version in the graph's opsets.
    /// Output types are unknown until inference. Errors if an output's name is taken.
    pub fn add_op(&mut self, new: NewNode<'_>) -> Result<NodeId> {
        self.add_op_ranked(new, None)
    }
    /// Adds an operator in the place of `at`: dumps and files show it there.
    pub fn add_op_at(&mut self, new: NewNode<'_>, at: NodeId) -> Result<NodeId> {
        let rank = self.node(at).rank;
        self.add_op_ranked(new, Some(rank))
    }
    fn add_op_ranked(&mut self, new: NewNode<'_>, rank: Option<u64>) -> Result<NodeId> {
        let n_inputs = u32::try_from(new.inputs.len()).map_err(|_| Error::invalid("too many inputs"))?;
        let domain = if new.domain == "ai.onnx" { "" } else { new.domain };
        let version = self.opsets.get(domain).copied().unwrap_or(0);
        let op = OpNode {
            op: Op::of(domain, new.op_type, "", version),
            domain: new.domain.into(),
            op_type: new.op_type.into(),
            overload: String::new(),
            version,
            attrs: new.attrs,
            n_inputs,
            device_configurations: vec![],
        };
        let outputs = new.outputs.into_iter().map(|name| Output { name, ty: ValueType::Unknown }).collect();
        let id = self.insert(new.name, NodeKind::Op(op), outputs, rank)?;
        for (i, input) in new.inputs.into_iter().enumerate() {
            if let Some(value) = input {
                self.connect_new(value, id, Slot::Input(i as u32));
            }
        }
        Ok(id)
    }
    /// Feeds a slot, in place of what fed it before. The slot must be below the operator's `n_inputs`.
    pub fn connect(&mut self, from: ValueId, to: NodeId, slot: Slot) {
        self.disconnect(to, slot);
        self.connect_new(from, to, slot);
    }
    /// Feeds a slot that nothing fed yet, which the caller vouches for: a node of a million inputs is read in one go.
    pub fn connect_new(&mut self, from: ValueId, to: NodeId, slot: Slot) {
        *self.fed.entry(from).or_insert(0) += 1;
        self.g.add_edge(from.node.0, to.0, Edge { from_output: from.output, to: slot });
    }
    /// Leaves a slot empty.
    pub fn disconnect(&mut self, to: NodeId, slot: Slot) {
        let old = self.g.edges_directed(to.0, Incoming).find(|e| e.weight().to == slot);
        if let Some((edge, from)) = old.map(|e| (e.id(), feeder(&e))) {
            self.no_longer_feeds(from);
            self.g.remove_edge(edge);
        }
    }
    /// Makes a value an output of the graph.
    pub fn add_output(&mut self, value: ValueId, info: ValueInfo) {
        self.outputs.push(GraphOutput { value, info });
    }
    /// Sets a value's type.
    pub fn set_ty(&mut self, value: ValueId, ty: ValueType) {
        self.g[value.node.0].outputs[value.output as usize].ty = ty;
    }
    /// Renames a value. Errors if the name is taken.
    pub fn rename(&mut self, value: ValueId, name: &str) -> Result<()> {
        if self.value_name(value) == name {
            return Ok(());
        }
        if self.names.contains_key(name) {
            return Err(Error::mismatch("value name", format!("`{name}` twice"), "unique names"));
        }
        let old =
            std::mem::replace(&mut self.g[value.node.0].outputs[value.output as usize].name, name.into());
        self.names.remove(&old);
        self.names.insert(name.into(), value);
        Ok(())
    }
    /// A name that no value of this graph, of its subgraphs or of an enclosing graph has: `hint`, `hint_1`, ….
    pub fn fresh_name(&self, hint: &str) -> String {
        let taken = |name: &str| self.has_name(name) || self.outer_names.contains(name);
        if !hint.is_empty() && !taken(hint) {
            return hint.into();
        }
        // numbers are given from 1 on, so that a free one behind those that are taken is found by halving
        let numbered = |i: u64| format!("{hint}_{i}");
        let mut free = 1u64;
        while taken(&numbered(free)) {
            free *= 2;
        }
        let mut last_taken = free / 2;
        while last_taken + 1 < free {
            let middle = last_taken + (free - last_taken) / 2;
            match taken(&numbered(middle)) {
                true => last_taken = middle,
                false => free = middle,
            }
        }
        numbered(free)
    }
    fn has_name(&self, name: &str) -> bool {
        let inside = |id: &NodeId| {
            let op = self.g.node_weight(id.0).and_then(Node::op);
            op.is_some_and(|op| op.attrs.graphs().any(|g| g.has_name(name)))
        };
        self.names.contains_key(name) || self.owners.iter().chain(&self.lent).any(inside)
    }
    fn no_longer_feeds(&mut self, value: ValueId) {
        if let Some(n) = self.fed.get_mut(&value) {
            *n -= 1;
            if *n == 0 {
                self.fed.remove(&value);
            }
        }
    }
    /// All value names of this graph.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    // ---- changing

    /// Redirects every use of `old` to `new`, as a graph output too. An output keeps its name: `new` takes it.
    ///
    /// Errors, changing nothing, where that is impossible: `old` is an output of the graph and `new` is an input,
    /// a constant, a capture, or an output itself.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) -> Result<()> {
        if old == new {
            return Ok(());
        }
        self.may_replace(old, new)?;
        if self.is_output(old) {
            let name = self.value_name(old).to_string();
            let parked = self.fresh_name(&format!("{name}.replaced"));
            self.rename(old, &parked)?;
            self.rename(new, &name)?;
        }
        for (user, slot) in self.users(old) {
            self.connect(new, user, slot);
        }
        self.outputs.replace(old, new);
        Ok(())
    }
    /// Errors as [`Graph::replace_uses`] would.
    pub fn may_replace(&self, old: ValueId, new: ValueId) -> Result<()> {
        if old == new || !self.is_output(old) || (self.op(new.node).is_some() && !self.is_output(new)) {
            return Ok(());
        }
        Err(Error::mismatch(
            format!("replacement of output `{}`", self.value_name(old)),
            self.place(new.node),
            "an operator's value that is not an output itself",
        ))
    }
    /// Removes a node that nothing uses. Errors if something does.
    pub fn remove(&mut self, id: NodeId) -> Result<()> {
        let used = self.g.edges_directed(id.0, Outgoing).next().is_some()
            || self.values_of(id).any(|v| self.is_output(v))
            || self.inputs.count(id) > 0;
        if used {
            return Err(Error::invalid(format!("{} is still used", self.place(id))));
        }
        self.discard(id);
        Ok(())
    }
    fn discard(&mut self, id: NodeId) {
        let fed: Vec<ValueId> = self.g.edges_directed(id.0, Incoming).map(|e| feeder(&e)).collect();
        fed.into_iter().for_each(|v| self.no_longer_feeds(v));
        for output in 0..self.node(id).outputs.len() as u32 {
            self.fed.remove(&ValueId { node: id, output });
        }
        self.owners.remove(&id);
        if let Some(node) = self.g.remove_node(id.0) {
            for o in &node.outputs {
                self.names.remove(&o.name);
            }
        }
    }
    /// Removes every operator, constant and capture that no output needs; graph inputs stay, and so do operators that
    /// `kept` asks for (those with [`Effects`]), with what they read. Returns the places of what was removed.
    /// `value_info` entries of values that are gone go with them.
    pub fn sweep(&mut self, kept: impl Fn(&OpNode) -> bool) -> Vec<String> {
        let mut live: BTreeSet<NodeId> = self.inputs.iter().map(|i| i.node).collect();
        let mut work: Vec<NodeId> = self.outputs.iter().map(|o| o.value.node).collect();
        work.extend(self.nodes().into_iter().filter(|id| self.op(*id).is_some_and(&kept)));
        while let Some(id) = work.pop() {
            if live.insert(id) {
                work.extend(self.g.neighbors_directed(id.0, Incoming).map(NodeId));
            }
        }
        let dead: Vec<NodeId> = self.nodes().into_iter().filter(|id| !live.contains(id)).collect();
        let places = dead.iter().map(|id| self.place(*id)).collect();
        for id in dead {
            self.discard(id);
        }
        let names = &self.names;
        self.value_info.retain(|info| names.contains_key(&info.name));
        places
    }
}
