//! Text to the IR.

use super::build::{self, Scope};
use super::cursor::Cursor;
use super::notes::Notes;
use super::values::{self, AttrText, AttrTextValue};
use crate::attr::{Attr, AttrValue, Attrs, ConstSparse, ConstTensor};
use crate::{At, Function, Graph, Model, Opsets, QuantAnnotation, Result, ValueInfo, ValueType};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A graph as it stands in a text: values are names.
#[derive(Default)]
pub(super) struct GraphText {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) extra: Bytes,
    pub(super) quantization: Vec<QuantAnnotation>,
    pub(super) inputs: Vec<ValueInfo>,
    pub(super) outputs: Vec<ValueInfo>,
    pub(super) value_info: Vec<ValueInfo>,
    pub(super) constants: Vec<(String, ConstText)>,
    pub(super) nodes: Vec<NodeText>,
}

/// An initializer.
pub(super) enum ConstText {
    Dense(ConstTensor),
    Sparse(Box<ConstSparse>),
}

/// A node as it stands in a text; empty names are absent values.
#[derive(Default)]
pub(super) struct NodeText {
    pub(super) place: String,
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) extra: Bytes,
    pub(super) devices: Vec<Bytes>,
    pub(super) domain: String,
    pub(super) op_type: String,
    pub(super) overload: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) attrs: Vec<AttrText>,
}

/// Reads a model.
///
/// Errors name line and column, what stands there and what was wanted; names that nothing defines or that are
/// defined twice are errors too. What [`verify`](crate::verify::verify) checks beyond is not checked here.
pub fn parse(text: &str) -> Result<Model> {
    let c = &mut Cursor::new(text);
    let mut model = Model {
        producer_name: String::new(),
        producer_version: String::new(),
        opset_imports: vec![],
        ..Model::new(Graph::default())
    };
    let mut notes = Notes::take(c)?;
    if c.take(b'<') {
        notes.of_model(&mut model)?;
        header(c, &mut model)?;
        notes = Notes::take(c)?;
    }
    let mut opsets = opset_map(&model.opset_imports);
    if model.ir_version < FIRST_IR_WITH_OPSETS && opsets.is_empty() {
        opsets = Arc::new(Opsets::from([(String::new(), 1)]));
    }
    let overridable = model.ir_version >= FIRST_IR_WITH_DEFAULTS;
    let scope = Scope { opsets, overridable, outer_names: Arc::default(), captures: &[] };
    model.graph = build::graph(graph(c, notes)?, &scope)?;
    while c.peek().is_some() {
        model.functions.push(function(c)?);
    }
    Ok(model)
}

/// IR versions before this one have no `opset_import` and mean opset 1.
const FIRST_IR_WITH_OPSETS: i64 = 3;
/// From this IR version on, an initializer need not be an input; one that is can be overridden.
const FIRST_IR_WITH_DEFAULTS: i64 = 4;

/// Reads one graph without a model's header, under these opsets.
pub fn parse_graph(text: &str, opsets: Arc<Opsets>) -> Result<Graph> {
    let c = &mut Cursor::new(text);
    let notes = Notes::take(c)?;
    let read = graph(c, notes)?;
    if c.peek().is_some() {
        return Err(c.wanted("the end"));
    }
    build::graph(read, &Scope::outermost(opsets))
}

fn opset_map(imports: &[(String, i64)]) -> Arc<Opsets> {
    let mut opsets = Opsets::new();
    for (domain, version) in imports {
        let key = if domain == "ai.onnx" { "" } else { domain };
        // where a domain has several entries the last counts, as in ONNX Runtime
        opsets.insert(key.into(), *version);
    }
    Arc::new(opsets)
}

/// `key: value, …>`.
fn header(c: &mut Cursor<'_>, model: &mut Model) -> Result<()> {
    c.items(b'>', |c| {
        let Some(key) = c.peek_identifier() else { return Err(c.wanted("a key such as `ir_version`")) };
        let at_key = c.clone();
        c.identifier();
        c.expect(b':')?;
        match key {
            "ir_version" => model.ir_version = c.int("an int64")?,
            "opset_import" => model.opset_imports = imports(c)?,
            "producer_name" => model.producer_name = c.text_string()?,
            "producer_version" => model.producer_version = c.text_string()?,
            "domain" => model.domain = c.text_string()?,
            "model_version" => model.model_version = c.int("an int64")?,
            "doc_string" => model.doc = c.text_string()?,
            "metadata_props" => {
                c.expect(b'[')?;
                model.metadata = c.items(b']', pair)?;
            }
            _ => return Err(at_key.clone().wanted("a key of a model such as `ir_version`")),
        }
        Ok(())
    })?;
    Ok(())
}

fn pair(c: &mut Cursor<'_>) -> Result<(String, String)> {
    let key = c.text_string()?;
    c.expect(b':')?;
    Ok((key, c.text_string()?))
}

fn imports(c: &mut Cursor<'_>) -> Result<Vec<(String, i64)>> {
    c.expect(b'[')?;
    c.items(b']', |c| {
        let domain = c.text_string()?;
        c.expect(b':')?;
        Ok((domain, c.int("a version")?))
    })
}

fn function(c: &mut Cursor<'_>) -> Result<Function> {
    let mut notes = Notes::take(c)?;
    let (metadata, extra) = (notes.metadata()?, notes.fields()?);
    notes.end()?;
    let (mut domain, mut overload, mut doc, mut opset_imports) = Default::default();
    if c.take(b'<') {
        c.items(b'>', |c| {
            let Some(key) = c.peek_identifier() else { return Err(c.wanted("a key such as `domain`")) };
            let at_key = c.clone();
            c.identifier();
            c.expect(b':')?;
            match key {
                "domain" => domain = c.text_string()?,
                "overload" => overload = c.text_string()?,
                "doc_string" => doc = c.text_string()?,
                "opset_import" => opset_imports = imports(c)?,
                _ => return Err(at_key.clone().wanted("a key of a function such as `domain`")),
            }
            Ok(())
        })?;
    }
    let name = c.name("a function's name")?;
    let place = format!("function `{name}`");
    let scope = Scope::outermost(opset_map(&opset_imports));
    // a body has no name of its own: the importer of files gives it this one too
    let mut body = GraphText { name: name.clone(), ..Default::default() };
    let (mut attributes, mut defaults) = (vec![], Attrs::new());
    if c.take(b'<') {
        c.items(b'>', |c| {
            let notes = Notes::take(c)?;
            let start = c.clone();
            let name = c.name("an attribute's name")?;
            if !matches!(c.peek(), Some(b':' | b'=')) {
                notes.end()?;
                attributes.push(name);
                return Ok(());
            }
            if defaults.get(&name).is_some() {
                return Err(start.clone().bad(format!("`{name}` twice"), "once"));
            }
            let (doc, extra) = notes.of_attribute()?;
            let value = values::attr_after_name(c)?;
            let attr = AttrText { name, doc, extra, value };
            defaults.push(attr.build(|text| build::graph(text, &scope))?);
            Ok(())
        })?;
    }
    signature(c, &mut body)?;
    let body = build::graph(body, &scope).at(|| &place)?;
    Ok(Function { domain, name, overload, attributes, defaults, opset_imports, body, doc, metadata, extra })
}

/// Takes a graph behind its notes: its name and what follows.
pub(super) fn graph<'t>(c: &mut Cursor<'t>, mut notes: Notes<'t>) -> Result<GraphText> {
    let mut g = GraphText::default();
    let noted = notes.name()?;
    notes.of_graph(&mut g)?;
    let name = c.name("a graph's name")?;
    g.name = noted.unwrap_or(name);
    signature(c, &mut g)?;
    Ok(g)
}

/// Takes inputs, outputs, values and nodes.
fn signature(c: &mut Cursor<'_>, g: &mut GraphText) -> Result<()> {
    c.expect(b'(')?;
    let GraphText { inputs, outputs, value_info, constants, .. } = g;
    *inputs = c.items(b')', |c| {
        let info = values::value_info(c)?;
        if c.take(b'=') {
            constants.push((info.name.clone(), constant(c, &info.ty, Notes::default())?));
        }
        Ok(info)
    })?;
    c.arrow()?;
    c.expect(b'(')?;
    *outputs = c.items(b')', values::value_info)?;
    if c.take(b'<') {
        c.items(b'>', |c| {
            let notes = Notes::take(c)?;
            let mut info = values::plain_info(c)?;
            if c.take(b'=') {
                constants.push((info.name, constant(c, &info.ty, notes)?));
            } else {
                notes.of_info(&mut info)?;
                value_info.push(info);
            }
            Ok(())
        })?;
    }
    c.expect(b'{')?;
    while !c.take_end()? {
        g.nodes.push(node(c)?);
    }
    Ok(())
}

fn constant<'t>(c: &mut Cursor<'t>, ty: &ValueType, notes: Notes<'t>) -> Result<ConstText> {
    match ty {
        ValueType::Tensor(t) => {
            let mut constant = ConstTensor::from(values::tensor_data(c, t)?);
            notes.of_tensor(&mut constant)?;
            Ok(ConstText::Dense(constant))
        }
        ValueType::SparseTensor(t) => {
            notes.end()?;
            Ok(ConstText::Sparse(Box::new(values::sparse_data(c, t)?)))
        }
        other => Err(c.bad(format!("data of type {other}"), "a tensor type before the name")),
    }
}

fn node(c: &mut Cursor<'_>) -> Result<NodeText> {
    let mut n = NodeText::default();
    Notes::take(c)?.of_node(&mut n)?;
    n.place = c.place();
    if c.take(b'[') {
        n.name = c.optional_name()?.unwrap_or_default();
        c.expect(b']')?;
    }
    n.outputs = names(c)?;
    c.expect(b'=')?;
    let mut words = vec![c.name("an operator")?];
    while c.take(b'.') {
        words.push(c.name("an operator")?);
    }
    n.op_type = words.pop().unwrap_or_default();
    n.domain = words.join(".");
    if c.take(b':') {
        n.overload = c.name("an overload")?;
    }
    attrs(c, &mut n)?;
    c.expect(b'(')?;
    n.inputs = names(c)?;
    c.expect(b')')?;
    if n.attrs.is_empty() {
        attrs(c, &mut n)?;
    }
    Ok(n)
}

/// Names divided by commas; nothing before a comma is an absent value, nothing after the last is nothing.
fn names(c: &mut Cursor<'_>) -> Result<Vec<String>> {
    let mut names = vec![];
    loop {
        match c.optional_name()? {
            Some(name) => names.push(name),
            None if c.peek() == Some(b',') => names.push(String::new()),
            None => return Ok(names),
        }
        if !c.take(b',') {
            return Ok(names);
        }
    }
}

fn attrs(c: &mut Cursor<'_>, n: &mut NodeText) -> Result<()> {
    if !c.take(b'<') {
        return Ok(());
    }
    let start = c.clone();
    n.attrs = c.items(b'>', values::attr)?;
    let mut seen = BTreeSet::new();
    match n.attrs.iter().find(|a| !seen.insert(a.name.as_str())) {
        Some(attr) => Err(start.clone().bad(format!("attribute `{}` twice", attr.name), "once")),
        None => Ok(()),
    }
}

impl AttrText {
    /// The graphs in the attribute.
    pub(super) fn graphs(&self) -> &[GraphText] {
        match &self.value {
            AttrTextValue::Plain(_) => &[],
            AttrTextValue::Graph(g) => std::slice::from_ref(g),
            AttrTextValue::Graphs(gs) => gs,
        }
    }
    /// The attribute with its graphs built.
    pub(super) fn build(self, mut one: impl FnMut(GraphText) -> Result<Graph>) -> Result<Attr> {
        let value = match self.value {
            AttrTextValue::Plain(v) => v,
            AttrTextValue::Graph(g) => AttrValue::Graph(Box::new(one(*g)?)),
            AttrTextValue::Graphs(gs) => AttrValue::Graphs(gs.into_iter().map(one).collect::<Result<_>>()?),
        };
        Ok(Attr { name: self.name, doc: self.doc, value, extra: self.extra })
    }
}
