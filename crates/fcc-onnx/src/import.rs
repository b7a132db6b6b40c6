//! `ModelProto` to the IR: the model, its opsets and its functions.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use fcc_ir::{Function, Model, Opsets};
use prost::Message;

use crate::error::{At, quoted};
use crate::external::Source;
use crate::import_graph::Builder;
use crate::keep::{Kept, metadata};
use crate::proto::{FunctionProto, ModelProto, OperatorSetIdProto};
use crate::{Error, ErrorKind, Result};

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
    let extra = proto.kept();
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
pub(crate) fn spelt_imports(spelt: &[OperatorSetIdProto]) -> Vec<OperatorSetIdProto> {
    if imports_proto(&imports(spelt)) == spelt { vec![] } else { spelt.to_vec() }
}

/// The version of each domain, `ai.onnx` as `""`. Where a domain has several entries the last counts, as in ONNX
/// Runtime.
pub(crate) fn opsets(imports: &[(String, i64)]) -> Result<Opsets> {
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
        opsets.insert(key.to_string(), *version);
    }
    Ok(opsets)
}

fn function(mut proto: FunctionProto, source: &mut Source) -> Result<Function> {
    let place = format!("function {}", quoted(proto.name()));
    let opset_imports = imports(&proto.opset_import);
    let extra = proto.kept();
    let read = |proto: &mut FunctionProto, source: &mut Source| {
        let opsets = Arc::new(opsets(&opset_imports)?);
        let mut builder = Builder::new(opsets, true, source);
        let defaults = builder.defaults(std::mem::take(&mut proto.attribute_proto))?;
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
        opset_imports,
        body,
        doc: proto.doc_string.unwrap_or_default(),
        metadata: metadata(&proto.metadata_props),
        extra,
    })
}
