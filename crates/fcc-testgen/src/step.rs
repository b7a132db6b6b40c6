//! One node as a model of its own: how a graph is computed node by node, by the interpreter.
use crate::pb;
use fcc_ir::interp::{self, Values};
use fcc_ir::{Model, Result, Value};
use fcc_onnx::proto::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use prost::Message;
use std::collections::BTreeSet;

/// A node that is ready to be computed.
pub struct Step {
    /// The node.
    pub node: NodeProto,
    reads: Vec<String>,
    model: Model,
}

impl Step {
    /// Prepares a node. `known` says which of the names that it reads are values outside of it.
    pub fn new(
        node: &NodeProto,
        opsets: &[OperatorSetIdProto],
        functions: &[FunctionProto],
        known: &dyn Fn(&str) -> bool,
    ) -> std::result::Result<Step, String> {
        let reads: BTreeSet<&str> = pb::reads(node).into_iter().filter(|n| known(n)).collect();
        let reads: Vec<String> = reads.into_iter().map(String::from).collect();
        let unknown = fcc_ir::ValueType::Unknown;
        let outputs = node.output.iter().filter(|o| !o.is_empty());
        let graph = GraphProto {
            name: Some("step".into()),
            node: vec![node.clone()],
            input: reads.iter().map(|n| pb::info(n, &unknown)).collect(),
            output: outputs.map(|n| pb::info(n, &unknown)).collect(),
            ..Default::default()
        };
        let proto = ModelProto {
            ir_version: Some(10),
            opset_import: opsets.to_vec(),
            functions: functions.to_vec(),
            graph: Some(graph),
            ..Default::default()
        };
        let model = fcc_onnx::load_bytes(proto.encode_to_vec()).map_err(|e| e.to_string())?;
        Ok(Step { node: node.clone(), reads, model })
    }

    /// Computes the node on these values: what it makes, by name.
    pub fn run(&self, values: &Values) -> Result<Vec<(String, Value)>> {
        let given = self.reads.iter().filter_map(|n| Some((n.clone(), values.get(n)?.clone()))).collect();
        Ok(interp::run(&self.model, &given)?.into_iter().collect())
    }

    /// The values that the node reads.
    pub fn inputs<'v>(&self, values: &'v Values) -> Vec<&'v Value> {
        self.reads.iter().filter_map(|n| values.get(n)).collect()
    }
    /// The names of the values that the node reads.
    pub fn reads(&self) -> &[String] {
        &self.reads
    }
}
