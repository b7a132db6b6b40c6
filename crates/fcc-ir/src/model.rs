//! A model: the main graph, functions, opsets and everything a file says about them.
use crate::attr::Attrs;
use crate::{Graph, Opsets, ValueInfo};
use bytes::Bytes;
use std::sync::Arc;

/// A function of a model, in ONNX's sense: an operator defined by a graph.
#[derive(Debug, Clone)]
pub struct Function {
    /// Domain.
    pub domain: String,
    /// Name, which nodes call as their operator.
    pub name: String,
    /// Overload.
    pub overload: String,
    /// Attributes without a default.
    pub attributes: Vec<String>,
    /// Attributes with their defaults.
    pub defaults: Attrs,
    /// Opset imports in file order: domain as written, version. The body's `opsets` are what counts; this is their
    /// spelling as long as it means the same.
    pub opset_imports: Vec<(String, i64)>,
    /// The body; its inputs and outputs are the function's, in order; opsets are its own, its name is the function's.
    pub body: Graph,
    /// `doc_string`.
    pub doc: String,
    /// `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// Fields of the file's message that have no place here (such as ones that are present and empty), encoded:
    /// what the exporter starts from. Empty for what fcc made.
    pub extra: Bytes,
}

impl Function {
    /// The opset imports as a file has them: [`Function::opset_imports`] while they mean the body's opsets.
    pub fn spelt_imports(&self) -> Vec<(String, i64)> {
        if by_domain(&self.opset_imports) == *self.body.opsets {
            return self.opset_imports.clone();
        }
        self.body.opsets.iter().map(|(d, v)| (d.clone(), *v)).collect()
    }
}

/// Versions by domain, `ai.onnx` as `""`.
fn by_domain(imports: &[(String, i64)]) -> Opsets {
    let key = |d: &str| if d == "ai.onnx" { String::new() } else { d.to_string() };
    imports.iter().map(|(d, v)| (key(d), *v)).collect()
}

/// A model.
#[derive(Debug, Clone)]
pub struct Model {
    /// `ir_version` of the file.
    pub ir_version: i64,
    /// Opset imports in file order: domain as written, version.
    pub opset_imports: Vec<(String, i64)>,
    /// `producer_name`.
    pub producer_name: String,
    /// `producer_version`.
    pub producer_version: String,
    /// `domain`.
    pub domain: String,
    /// `model_version`.
    pub model_version: i64,
    /// `doc_string`.
    pub doc: String,
    /// `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// The main graph.
    pub graph: Graph,
    /// Functions in file order.
    pub functions: Vec<Function>,
    /// Fields that fcc keeps as they are (`training_info`, `configuration`): field number and encoded message.
    pub verbatim: Vec<(u32, Bytes)>,
    /// Fields of the file's message that have no place here (such as ones that are present and empty), encoded:
    /// what the exporter starts from. Empty for what fcc made.
    pub extra: Bytes,
}

impl Model {
    /// A model around a graph, with the graph's opsets and the IR version that ONNX pairs with them at least.
    pub fn new(graph: Graph) -> Self {
        let opset_imports = graph.opsets.iter().map(|(d, v)| (d.clone(), *v)).collect();
        Model {
            ir_version: 8,
            opset_imports,
            producer_name: "fcc".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            domain: String::new(),
            model_version: 0,
            doc: String::new(),
            metadata: vec![],
            graph,
            functions: vec![],
            verbatim: vec![],
            extra: Bytes::new(),
        }
    }
    /// The function that a node of this operator calls.
    pub fn function(&self, domain: &str, name: &str, overload: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.domain == domain && f.name == name && f.overload == overload)
    }
    /// Opsets by domain, `ai.onnx` as `""`.
    pub fn opsets(&self) -> Arc<Opsets> {
        Arc::new(by_domain(&self.opset_imports))
    }
    /// Declared inputs that a caller must give: those without a default.
    pub fn required_inputs(&self) -> impl Iterator<Item = &ValueInfo> {
        let graph = &self.graph;
        graph
            .inputs
            .iter()
            .filter(|i| matches!(graph.node(i.node).kind, crate::NodeKind::Input))
            .map(|i| &i.info)
    }
}
