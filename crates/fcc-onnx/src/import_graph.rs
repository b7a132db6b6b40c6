//! `GraphProto` and function bodies to the IR.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use fcc_ir::attr::Attrs;
use fcc_ir::{Graph, NewNode, NodeId, Opsets, QuantAnnotation, Slot, ValueId, ValueInfo, ValueType};
use prost::Message;

use crate::error::{At, quoted};
use crate::external::Source;
use crate::keep::{Kept, metadata};
use crate::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use crate::{Error, Result, attrs, tensors, types};

/// The outer names that the subgraphs of one node use, numbered by first use.
#[derive(Default)]
pub(crate) struct Captures {
    names: Vec<String>,
    index: HashMap<String, u32>,
}

impl Captures {
    fn index(&mut self, name: &str) -> Result<u32> {
        if let Some(index) = self.index.get(name) {
            return Ok(*index);
        }
        let index =
            u32::try_from(self.names.len()).map_err(|_| Error::invalid("captures", "2^32", "fewer"))?;
        self.names.push(name.to_string());
        self.index.insert(name.to_string(), index);
        Ok(index)
    }
}

/// What the subgraphs of a node see.
pub(crate) struct Nesting<'a, 's> {
    builder: &'a mut Builder<'s>,
    /// Names of the graph that holds the node, and of those around it.
    visible: Arc<BTreeSet<String>>,
    captures: &'a mut Captures,
}

impl Nesting<'_, '_> {
    pub(crate) fn source(&mut self) -> &mut Source {
        self.builder.source
    }
    /// Reads a subgraph of the node.
    pub(crate) fn subgraph(&mut self, proto: GraphProto) -> Result<Graph> {
        let place = format!("graph {}", quoted(proto.name()));
        self.builder.nested(proto, &self.visible, Some(self.captures)).at(|| place)
    }
}

/// What all graphs of one model, or of one function, share.
pub(crate) struct Builder<'s> {
    opsets: Arc<Opsets>,
    overridable: bool,
    source: &'s mut Source,
}

impl<'s> Builder<'s> {
    pub(crate) fn new(opsets: Arc<Opsets>, overridable: bool, source: &'s mut Source) -> Self {
        Builder { opsets, overridable, source }
    }

    /// A main graph.
    pub(crate) fn graph(&mut self, proto: GraphProto) -> Result<Graph> {
        self.nested(proto, &Arc::default(), None)
    }

    fn empty(&self, name: &str, outer: &Arc<BTreeSet<String>>) -> Graph {
        let mut graph = Graph::new(name, self.opsets.clone());
        graph.overridable_inputs = self.overridable;
        graph.outer_names = outer.clone();
        graph
    }

    fn nested(
        &mut self,
        mut proto: GraphProto,
        outer: &Arc<BTreeSet<String>>,
        captures: Option<&mut Captures>,
    ) -> Result<Graph> {
        let mut graph = self.empty(proto.name(), outer);
        graph.doc = proto.doc_string().to_string();
        graph.metadata = metadata(&proto.metadata_props);
        graph.extra = proto.kept();
        self.constants(&mut proto, &mut graph)?;
        inputs(&proto, &mut graph)?;
        let wired = self.nodes(std::mem::take(&mut proto.node), &mut graph)?;
        let mut resolver = Resolver { outer, captures };
        connect(wired, &mut graph, &mut resolver)?;
        for output in &proto.output {
            let info = types::import_info(output)?;
            let place = || format!("output {}", quoted(&info.name));
            let value = resolver.resolve(&mut graph, &info.name).at(place)?;
            refine(&mut graph, value, &info.ty);
            graph.add_output(value, info);
        }
        value_info(&proto.value_info, &mut graph)?;
        graph.quantization = proto
            .quantization_annotation
            .iter()
            .map(|a| QuantAnnotation {
                tensor: a.tensor_name().to_string(),
                params: metadata(&a.quant_parameter_tensor_names),
            })
            .collect();
        graph.ops()?; // errors on a cycle
        Ok(graph)
    }

    /// The defaults of a function's attributes, which see nothing around them.
    pub(crate) fn defaults(&mut self, protos: Vec<AttributeProto>) -> Result<Attrs> {
        let mut captures = Captures::default();
        attrs::import(
            protos,
            &mut Nesting { builder: self, visible: Arc::default(), captures: &mut captures },
        )
    }

    /// A function's body.
    pub(crate) fn body(&mut self, proto: &mut FunctionProto) -> Result<Graph> {
        let outer = Arc::default();
        let mut graph = self.empty(proto.name(), &outer);
        for name in &proto.input {
            graph.add_input(ValueInfo::new(name.as_str(), ValueType::Unknown))?;
        }
        let wired = self.nodes(std::mem::take(&mut proto.node), &mut graph)?;
        let mut resolver = Resolver { outer: &outer, captures: None };
        connect(wired, &mut graph, &mut resolver)?;
        for name in &proto.output {
            let value = resolver.resolve(&mut graph, name).at(|| format!("output {}", quoted(name)))?;
            graph.add_output(value, ValueInfo::new(name.as_str(), ValueType::Unknown));
        }
        value_info(&proto.value_info, &mut graph)?;
        graph.ops()?;
        Ok(graph)
    }

    fn constants(&mut self, proto: &mut GraphProto, graph: &mut Graph) -> Result<()> {
        for tensor in std::mem::take(&mut proto.initializer) {
            let name = tensor.name().to_string();
            let add = |source: &mut Source| {
                named(&name)?;
                graph.add_constant(&name, tensors::import_unplaced(tensor, source)?)?;
                Ok(())
            };
            add(self.source).at(|| format!("initializer {}", quoted(&name)))?;
        }
        for sparse in std::mem::take(&mut proto.sparse_initializer) {
            let name = sparse.values.as_ref().map_or("", |v| v.name()).to_string();
            let add = |source: &mut Source| {
                named(&name)?;
                graph.add_sparse_constant(&name, tensors::import_sparse(sparse, source)?)?;
                Ok(())
            };
            add(self.source).at(|| format!("sparse initializer {}", quoted(&name)))?;
        }
        Ok(())
    }

    /// Adds the operators, not yet connected: a file need not list producers first for us to read it.
    fn nodes(&mut self, protos: Vec<NodeProto>, graph: &mut Graph) -> Result<Vec<Wiring>> {
        let nested = protos.iter().flat_map(|n| &n.attribute).any(|a| a.g.is_some() || !a.graphs.is_empty());
        let visible = if nested { visible(&protos, graph) } else { Arc::default() };
        protos
            .into_iter()
            .enumerate()
            .map(|(index, proto)| {
                let place = place(&proto, index);
                self.node(proto, graph, &visible).at(|| place)
            })
            .collect()
    }

    fn node(
        &mut self,
        mut proto: NodeProto,
        graph: &mut Graph,
        visible: &Arc<BTreeSet<String>>,
    ) -> Result<Wiring> {
        let mut captures = Captures::default();
        let attributes = std::mem::take(&mut proto.attribute);
        let attrs = attrs::import(
            attributes,
            &mut Nesting { builder: self, visible: visible.clone(), captures: &mut captures },
        )?;
        let domain = proto.domain();
        if matches!(domain, "" | "ai.onnx") && !self.opsets.contains_key("") {
            return Err(Error::invalid(
                "opset_import of `ai.onnx`",
                "none",
                "a version, as this operator needs",
            ));
        }
        let id = graph.add_op(NewNode {
            op_type: proto.op_type(),
            domain,
            name: proto.name().to_string(),
            inputs: vec![None; proto.input.len()],
            outputs: proto.output.clone(),
            attrs,
        })?;
        let node = graph.node_mut(id);
        node.doc = proto.doc_string().to_string();
        node.metadata = metadata(&proto.metadata_props);
        node.extra = proto.kept();
        if let Some(op) = node.op_mut() {
            op.set_overload(proto.overload().to_string());
            op.device_configurations =
                proto.device_configurations.iter().map(|d| Bytes::from(d.encode_to_vec())).collect();
        }
        Ok(Wiring { id, inputs: proto.input, captures: captures.names })
    }
}

/// What feeds a node, by name.
struct Wiring {
    id: NodeId,
    inputs: Vec<String>,
    captures: Vec<String>,
}

fn named(name: &str) -> Result<()> {
    if name.is_empty() { Err(Error::invalid("name", "none", "a name")) } else { Ok(()) }
}

/// How errors call a node before it is in the graph.
fn place(proto: &NodeProto, index: usize) -> String {
    match (proto.name(), proto.output.iter().find(|o| !o.is_empty())) {
        ("", None) => format!("node {index} ({})", proto.op_type()),
        ("", Some(output)) => format!("node of output {} ({})", quoted(output), proto.op_type()),
        (name, _) => format!("node {} ({})", quoted(name), proto.op_type()),
    }
}

/// The names of a graph and of those around it.
fn visible(protos: &[NodeProto], graph: &Graph) -> Arc<BTreeSet<String>> {
    let mut names = (*graph.outer_names).clone();
    names.extend(graph.names().map(str::to_string));
    names.extend(protos.iter().flat_map(|n| &n.output).filter(|o| !o.is_empty()).cloned());
    Arc::new(names)
}

fn inputs(proto: &GraphProto, graph: &mut Graph) -> Result<()> {
    let mut seen = HashSet::new();
    for input in &proto.input {
        let info = types::import_info(input)?;
        let place = format!("input {}", quoted(&info.name));
        let add = || {
            named(&info.name)?;
            if !seen.insert(input.name()) {
                return Err(Error::invalid(
                    "value name",
                    format!("{} twice", quoted(&info.name)),
                    "unique names",
                ));
            }
            match graph.value(&info.name) {
                Some(constant) => {
                    let ty = graph.ty(constant).merge(&info.ty);
                    ty.map_err(|why| Error::invalid("default of an input", why, "its declared type"))?;
                    graph.list_as_input(constant.node, info);
                }
                None => {
                    graph.add_input(info)?;
                }
            }
            Ok(())
        };
        add().at(|| place)?;
    }
    Ok(())
}

/// Finds values by name; in a subgraph also those of the graphs around it.
struct Resolver<'a> {
    outer: &'a BTreeSet<String>,
    captures: Option<&'a mut Captures>,
}

impl Resolver<'_> {
    fn resolve(&mut self, graph: &mut Graph, name: &str) -> Result<ValueId> {
        if let Some(value) = graph.value(name) {
            return Ok(value);
        }
        if let Some(captures) = &mut self.captures
            && self.outer.contains(name)
        {
            let index = captures.index(name)?;
            return Ok(graph.add_capture(index, name, ValueType::Unknown)?);
        }
        Err(Error::invalid(
            "value",
            quoted(name),
            "the name of an input, an initializer or an output of a node",
        ))
    }
}

fn connect(wired: Vec<Wiring>, graph: &mut Graph, resolver: &mut Resolver<'_>) -> Result<()> {
    for Wiring { id, inputs, captures } in wired {
        let inputs = inputs.iter().enumerate().filter(|(_, name)| !name.is_empty());
        let slots = inputs.map(|(i, name)| (Slot::Input(i as u32), name)); // add_op bounds the count by u32
        let captured = captures.iter().enumerate().map(|(i, name)| (Slot::Capture(i as u32), name));
        for (slot, name) in slots.chain(captured) {
            let value = resolver.resolve(graph, name).map_err(|e| e.at(graph.place(id)))?;
            graph.connect_new(value, id, slot);
        }
    }
    Ok(())
}

fn value_info(protos: &[crate::proto::ValueInfoProto], graph: &mut Graph) -> Result<()> {
    for proto in protos {
        let info = types::import_info(proto)?;
        if let Some(value) = graph.value(&info.name) {
            refine(graph, value, &info.ty);
        }
        graph.value_info.push(info);
    }
    Ok(())
}

/// Adds what a declaration says to what is known of a value. A contradiction is left for inference to report.
fn refine(graph: &mut Graph, value: ValueId, declared: &ValueType) {
    if let Ok(ty) = graph.ty(value).merge(declared) {
        graph.set_ty(value, ty);
    }
}
