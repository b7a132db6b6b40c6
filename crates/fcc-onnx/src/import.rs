//! `ModelProto` to the IR.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use fcc_ir::{
    Function, Graph, Model, NewNode, NodeId, Opsets, QuantAnnotation, Slot, ValueId, ValueInfo, ValueType,
};
use prost::Message;

use crate::error::{At, quoted};
use crate::external::Source;
use crate::keep::{explicit, kept, metadata};
use crate::proto::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use crate::{Error, ErrorKind, Result, attrs, tensors, types};

/// The newest IR version whose messages this crate knows whole.
pub(crate) const NEWEST_IR: i64 = 14;
/// The newest opset of `ai.onnx` that the schema's release defines.
pub(crate) const NEWEST_OPSET: i64 = 28;
/// IR versions before this one have no `opset_import` and mean opset 1.
const FIRST_IR_WITH_OPSETS: i64 = 3;
/// From this IR version on, an initializer need not be an input; one that is can be overridden.
const FIRST_IR_WITH_DEFAULTS: i64 = 4;

/// Reads a model; external data comes from `source`.
pub(crate) fn model(mut proto: ModelProto, source: &mut Source) -> Result<Model> {
    let ir_version = match proto.ir_version {
        Some(v @ 1..=NEWEST_IR) => v,
        Some(v) if v > NEWEST_IR => {
            let message = format!("ir_version: got {v}, wanted {NEWEST_IR} or less");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        got => {
            let got = got.map_or("none".to_string(), |v| v.to_string());
            return Err(Error::invalid(
                "ir_version",
                got,
                format!("1 to {NEWEST_IR}: is this an ONNX model?"),
            ));
        }
    };
    let graph_proto = proto.graph.take().ok_or_else(|| Error::invalid("graph", "none", "a graph"))?;
    let opset_imports = imports(&proto.opset_import);
    let mut opsets = opsets(&opset_imports)?;
    if ir_version < FIRST_IR_WITH_OPSETS && opsets.is_empty() {
        opsets.insert(String::new(), 1);
    }
    let overridable = ir_version >= FIRST_IR_WITH_DEFAULTS;
    let extra = kept(&ModelProto {
        producer_name: explicit(&proto.producer_name),
        producer_version: explicit(&proto.producer_version),
        domain: explicit(&proto.domain),
        model_version: proto.model_version.filter(|&v| v == 0),
        doc_string: explicit(&proto.doc_string),
        opset_import: spelt_imports(&proto.opset_import, &opset_imports),
        ..Default::default()
    });
    let mut verbatim: Vec<(u32, Bytes)> = vec![];
    verbatim.extend(proto.training_info.iter().map(|t| (20, Bytes::from(t.encode_to_vec()))));
    verbatim.extend(proto.configuration.iter().map(|c| (26, Bytes::from(c.encode_to_vec()))));
    let mut functions: Vec<Function> = Vec::with_capacity(proto.functions.len());
    let mut known = HashSet::new();
    for function_proto in std::mem::take(&mut proto.functions) {
        let f = function(function_proto, source)?;
        if !known.insert((f.domain.clone(), f.name.clone(), f.overload.clone())) {
            return Err(Error::invalid(
                "functions",
                format!("{} twice", quoted(&f.name)),
                "unique functions",
            ));
        }
        functions.push(f);
    }
    let place = format!("graph {}", quoted(graph_proto.name()));
    let graph = Builder::new(Arc::new(opsets), overridable, source).graph(graph_proto).at(|| place)?;
    Ok(Model {
        ir_version,
        opset_imports,
        producer_name: proto.producer_name.unwrap_or_default(),
        producer_version: proto.producer_version.unwrap_or_default(),
        domain: proto.domain.unwrap_or_default(),
        model_version: proto.model_version.unwrap_or_default(),
        doc: proto.doc_string.unwrap_or_default(),
        metadata: metadata(&proto.metadata_props),
        graph,
        functions,
        verbatim,
        extra,
    })
}

/// Domain as written, and version.
pub(crate) fn imports(protos: &[OperatorSetIdProto]) -> Vec<(String, i64)> {
    protos.iter().map(|p| (p.domain().to_string(), p.version())).collect()
}

/// The imports as a file holds them.
pub(crate) fn imports_proto(imports: &[(String, i64)]) -> Vec<OperatorSetIdProto> {
    let one = |(domain, version): &(String, i64)| OperatorSetIdProto {
        domain: (!domain.is_empty()).then(|| domain.clone()),
        version: Some(*version),
    };
    imports.iter().map(one).collect()
}

/// The imports in the file's own spelling, where the IR's form would be written otherwise.
fn spelt_imports(spelt: &[OperatorSetIdProto], imports: &[(String, i64)]) -> Vec<OperatorSetIdProto> {
    if imports_proto(imports) == spelt { vec![] } else { spelt.to_vec() }
}

/// The version of each domain, `ai.onnx` as `""`.
fn opsets(imports: &[(String, i64)]) -> Result<Opsets> {
    let mut opsets = Opsets::new();
    for (domain, version) in imports {
        let key = if domain == "ai.onnx" { "" } else { domain.as_str() };
        let what = || format!("opset_import of {}", quoted(if key.is_empty() { "ai.onnx" } else { key }));
        if *version < 1 {
            return Err(Error::invalid(what(), version, "1 or more"));
        }
        if key.is_empty() && *version > NEWEST_OPSET {
            let message = format!("{}: got {version}, wanted {NEWEST_OPSET} or less", what());
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if let Some(other) = opsets.insert(key.to_string(), *version)
            && other != *version
        {
            return Err(Error::invalid(what(), format!("{other} and {version}"), "one version"));
        }
    }
    Ok(opsets)
}

fn function(mut proto: FunctionProto, source: &mut Source) -> Result<Function> {
    let place = format!("function {}", quoted(proto.name()));
    let opset_imports = imports(&proto.opset_import);
    let extra = kept(&FunctionProto {
        name: explicit(&proto.name),
        domain: explicit(&proto.domain),
        overload: explicit(&proto.overload),
        doc_string: explicit(&proto.doc_string),
        // the body keeps its opsets sorted, by domain
        opset_import: proto.opset_import.clone(),
        ..Default::default()
    });
    let read = |proto: &mut FunctionProto, source: &mut Source| {
        let opsets = Arc::new(opsets(&opset_imports)?);
        let mut builder = Builder::new(opsets, true, source);
        let mut captures = Captures::default();
        let defaults = attrs::import(
            std::mem::take(&mut proto.attribute_proto),
            &mut Nesting { builder: &mut builder, visible: Arc::default(), captures: &mut captures },
        )?;
        let body = builder.body(proto)?;
        Ok((defaults, body))
    };
    let (defaults, body) = read(&mut proto, source).at(|| place)?;
    Ok(Function {
        domain: proto.domain.unwrap_or_default(),
        name: proto.name.unwrap_or_default(),
        overload: proto.overload.unwrap_or_default(),
        attributes: proto.attribute,
        defaults,
        body,
        doc: proto.doc_string.unwrap_or_default(),
        metadata: metadata(&proto.metadata_props),
        extra,
    })
}

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
    fn new(opsets: Arc<Opsets>, overridable: bool, source: &'s mut Source) -> Self {
        Builder { opsets, overridable, source }
    }

    fn graph(&mut self, proto: GraphProto) -> Result<Graph> {
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
        graph.extra = kept(&GraphProto {
            name: explicit(&proto.name),
            doc_string: explicit(&proto.doc_string),
            ..Default::default()
        });
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

    /// A function's body.
    fn body(&mut self, proto: &mut FunctionProto) -> Result<Graph> {
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
        node.extra = kept(&NodeProto {
            name: explicit(&proto.name),
            op_type: explicit(&proto.op_type),
            domain: explicit(&proto.domain),
            overload: explicit(&proto.overload),
            doc_string: explicit(&proto.doc_string),
            ..Default::default()
        });
        if let Some(op) = node.op_mut() {
            op.overload = proto.overload().to_string();
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
