//! The IR to `ModelProto`.

use fcc_ir::{Function, Graph, Model, Names, NodeId, NodeKind, Owner, ValueId, ValueInfo};
use prost::Message;

use crate::error::{At, quoted};
use crate::import::{NEWEST_IR, imports, imports_proto, opsets};
use crate::keep::{Kept, metadata_proto, put};
use crate::proto::{
    FunctionProto, GraphProto, ModelProto, NodeDeviceConfigurationProto, NodeProto, TensorAnnotation,
    TensorProto,
};
use crate::{Error, ErrorKind, Result, attrs, tensors, types};

/// Writes a whole model.
pub(crate) fn model(model: &Model) -> Result<ModelProto> {
    let mut proto = model_head(model)?;
    proto.functions = model.functions.iter().map(function).collect::<Result<_>>()?;
    proto.graph = Some(graph(&model.graph, None)?);
    Ok(proto)
}

/// A model's own fields, without graph and functions.
pub(crate) fn model_head(model: &Model) -> Result<ModelProto> {
    // what could not be read back is not written
    if !(1..=NEWEST_IR).contains(&model.ir_version) {
        return Err(Error::invalid("ir_version", model.ir_version, format!("1 to {NEWEST_IR}")));
    }
    let mut proto = ModelProto::restored(&model.extra);
    proto.ir_version = Some(model.ir_version);
    put(&mut proto.producer_name, &model.producer_name);
    put(&mut proto.producer_version, &model.producer_version);
    put(&mut proto.domain, &model.domain);
    put(&mut proto.doc_string, &model.doc);
    if model.model_version != 0 {
        proto.model_version = Some(model.model_version);
    }
    if imports(&proto.opset_import) != model.opset_imports {
        proto.opset_import = imports_proto(&model.opset_imports);
    }
    opsets(&model.opset_imports)?;
    proto.metadata_props = metadata_proto(&model.metadata);
    for (field, message) in &model.verbatim {
        let unreadable = |e| Error::new(ErrorKind::Invalid, format!("kept field {field} of the model: {e}"));
        match field {
            20 => proto.training_info.push(Message::decode(message.clone()).map_err(unreadable)?),
            26 => proto.configuration.push(Message::decode(message.clone()).map_err(unreadable)?),
            other => return Err(Error::invalid("kept field of the model", other, "20 or 26")),
        }
    }
    Ok(proto)
}

/// Writes a graph; a subgraph with the node that owns it.
pub(crate) fn graph(graph: &Graph, owner: Option<&Owner<'_>>) -> Result<GraphProto> {
    let names = Names::new(graph, owner);
    let place = || format!("graph {}", quoted(&graph.name));
    let mut proto = graph_head(&names).at(place)?;
    proto.initializer = initializers(graph).map(|id| initializer(graph, id, None)).collect();
    proto.node = graph.ops()?.into_iter().map(|id| node(&names, id)).collect::<Result<_>>().at(place)?;
    Ok(proto)
}

/// A graph's fields without nodes and initializers.
pub(crate) fn graph_head(names: &Names<'_>) -> Result<GraphProto> {
    let graph = names.graph();
    names.check_captures()?;
    let mut proto = GraphProto::restored(&graph.extra);
    put(&mut proto.name, &graph.name);
    put(&mut proto.doc_string, &graph.doc);
    proto.metadata_props = metadata_proto(&graph.metadata);
    for input in &graph.inputs {
        let name = graph.value_name(ValueId { node: input.node, output: 0 });
        proto.input.push(info(&input.info, name));
    }
    for output in &graph.outputs {
        proto.output.push(info(&output.info, names.name(output.value)?));
    }
    proto.value_info = graph.value_info.iter().map(types::export_info).collect();
    for id in graph.nodes() {
        if let NodeKind::SparseConstant(sparse) = &graph.node(id).kind {
            let mut sparse = tensors::export_sparse(sparse);
            if let Some(values) = &mut sparse.values {
                put(&mut values.name, graph.value_name(ValueId { node: id, output: 0 }));
            }
            proto.sparse_initializer.push(sparse);
        }
    }
    proto.quantization_annotation = graph
        .quantization
        .iter()
        .map(|q| TensorAnnotation {
            tensor_name: Some(q.tensor.clone()),
            quant_parameter_tensor_names: metadata_proto(&q.params),
        })
        .collect();
    Ok(proto)
}

fn info(info: &ValueInfo, name: &str) -> crate::proto::ValueInfoProto {
    let mut proto = types::export_info(info);
    put(&mut proto.name, name);
    proto
}

/// The dense initializers, in file order.
pub(crate) fn initializers(graph: &Graph) -> impl Iterator<Item = NodeId> + '_ {
    graph.nodes().into_iter().filter(|id| matches!(graph.node(*id).kind, NodeKind::Constant(_)))
}

/// Writes an initializer under its value's name. An empty message for a node of another kind.
///
/// Data of `raw_from_bytes` or more that came in a typed field goes to `raw_data`, from where it can move to
/// another file.
pub(crate) fn initializer(graph: &Graph, id: NodeId, raw_from_bytes: Option<usize>) -> TensorProto {
    let NodeKind::Constant(constant) = &graph.node(id).kind else { return TensorProto::default() };
    let mut proto =
        tensors::export_as(constant, raw_from_bytes.is_some_and(|from| constant.tensor.byte_len() >= from));
    put(&mut proto.name, graph.value_name(ValueId { node: id, output: 0 }));
    proto
}

/// Writes an operator.
pub(crate) fn node(names: &Names<'_>, id: NodeId) -> Result<NodeProto> {
    let graph = names.graph();
    node_unplaced(names, id).map_err(|e| e.at(graph.place(id)))
}

fn node_unplaced(names: &Names<'_>, id: NodeId) -> Result<NodeProto> {
    let graph = names.graph();
    let node = graph.node(id);
    let op = node.op().ok_or_else(|| Error::invalid("node", "no operator", "an operator"))?;
    let mut proto = NodeProto::restored(&node.extra);
    put(&mut proto.name, &node.name);
    put(&mut proto.op_type, &op.op_type);
    put(&mut proto.domain, &op.domain);
    put(&mut proto.overload, &op.overload);
    put(&mut proto.doc_string, &node.doc);
    proto.metadata_props = metadata_proto(&node.metadata);
    for input in graph.inputs_of(id) {
        proto.input.push(input.map_or(Ok(""), |value| names.name(value))?.to_string());
    }
    proto.output = node.outputs().iter().map(|o| o.name.clone()).collect();
    let owner = Owner::new(*names, id);
    proto.attribute = op.attrs.iter().map(|a| attrs::export(a, Some(&owner))).collect::<Result<_>>()?;
    for kept in &op.device_configurations {
        let config = NodeDeviceConfigurationProto::decode(kept.clone())
            .map_err(|e| Error::new(ErrorKind::Invalid, format!("kept device configuration: {e}")))?;
        proto.device_configurations.push(config);
    }
    Ok(proto)
}

/// Writes a function.
pub(crate) fn function(function: &Function) -> Result<FunctionProto> {
    let place = || format!("function {}", quoted(&function.name));
    let body = &function.body;
    let names = Names::new(body, None);
    let mut proto = FunctionProto::restored(&function.extra);
    put(&mut proto.name, &function.name);
    put(&mut proto.domain, &function.domain);
    put(&mut proto.overload, &function.overload);
    put(&mut proto.doc_string, &function.doc);
    proto.metadata_props = metadata_proto(&function.metadata);
    let spelt = function.spelt_imports();
    if imports(&proto.opset_import) != spelt {
        proto.opset_import = imports_proto(&spelt);
    }
    opsets(&spelt).at(place)?;
    proto.attribute.clone_from(&function.attributes);
    proto.attribute_proto =
        function.defaults.iter().map(|a| attrs::export(a, None)).collect::<Result<_>>().at(place)?;
    for input in &body.inputs {
        proto.input.push(body.value_name(ValueId { node: input.node, output: 0 }).to_string());
    }
    for output in &body.outputs {
        proto.output.push(names.name(output.value)?.to_string());
    }
    if initializers(body).next().is_some() {
        return Err(Error::invalid("body", "an initializer", "Constant nodes only").at(place()));
    }
    proto.node = body.ops()?.into_iter().map(|id| node(&names, id)).collect::<Result<_>>().at(place)?;
    proto.value_info = body.value_info.iter().map(types::export_info).collect();
    Ok(proto)
}
