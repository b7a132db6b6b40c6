//! Text to the IR.

use super::build::{self, Scope};
use super::cursor::Cursor;
use super::values::{self, AttrText, AttrTextValue};
use crate::attr::{AttrValue, Attrs, ConstSparse};
use crate::{At, Error, Function, Graph, Model, Opsets, Result, Tensor, ValueInfo, ValueType};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A graph as it stands in a text: values are names.
#[derive(Default)]
pub(super) struct GraphText {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) inputs: Vec<ValueInfo>,
    pub(super) outputs: Vec<ValueInfo>,
    pub(super) value_info: Vec<ValueInfo>,
    pub(super) constants: Vec<(String, ConstText)>,
    pub(super) nodes: Vec<NodeText>,
}

/// An initializer.
pub(super) enum ConstText {
    Dense(Tensor),
    Sparse(Box<ConstSparse>),
}

/// A node as it stands in a text; empty names are absent values.
#[derive(Default)]
pub(super) struct NodeText {
    pub(super) place: String,
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) metadata: Vec<(String, String)>,
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
    if c.take(b'<') {
        header(c, &mut model)?;
    }
    let opsets = opset_map(&model.opset_imports)?;
    let scope = Scope { opsets, outer_names: Arc::default(), captures: &[] };
    model.graph = build::graph(graph(c)?, &scope)?;
    model.graph.overridable_inputs = model.ir_version >= 4;
    while c.peek().is_some() {
        model.functions.push(function(c)?);
    }
    Ok(model)
}

/// Reads one graph without a model's header, under these opsets.
pub fn parse_graph(text: &str, opsets: Arc<Opsets>) -> Result<Graph> {
    let c = &mut Cursor::new(text);
    let read = graph(c)?;
    if c.peek().is_some() {
        return Err(c.wanted("the end"));
    }
    build::graph(read, &Scope { opsets, outer_names: Arc::default(), captures: &[] })
}

fn opset_map(imports: &[(String, i64)]) -> Result<Arc<Opsets>> {
    let mut opsets = Opsets::new();
    for (domain, version) in imports {
        let key = if domain == "ai.onnx" { "" } else { domain };
        if let Some(other) = opsets.insert(key.into(), *version).filter(|v| v != version) {
            let place = format!("opset of domain `{domain}`");
            return Err(Error::mismatch(place, format!("{other} and {version}"), "one version"));
        }
    }
    Ok(Arc::new(opsets))
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
            "opset_import" => model.opset_imports = opset_imports(c)?,
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

fn opset_imports(c: &mut Cursor<'_>) -> Result<Vec<(String, i64)>> {
    c.expect(b'[')?;
    c.items(b']', |c| {
        let domain = c.text_string()?;
        c.expect(b':')?;
        Ok((domain, c.int("a version")?))
    })
}

fn function(c: &mut Cursor<'_>) -> Result<Function> {
    let (mut domain, mut overload, mut doc, mut imports) = Default::default();
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
                "opset_import" => imports = opset_imports(c)?,
                _ => return Err(at_key.clone().wanted("a key of a function such as `domain`")),
            }
            Ok(())
        })?;
    }
    let mut body = GraphText::default();
    notes(c, &mut String::new(), &mut String::new(), &mut body.metadata)?;
    let name = c.name("a function's name")?;
    // a body has no name of its own: the importer of files gives it this one too
    body.name.clone_from(&name);
    let (mut attributes, mut defaults) = (vec![], Attrs::new());
    if c.take(b'<') {
        c.items(b'>', |c| {
            let name = c.name("an attribute's name")?;
            if !matches!(c.peek(), Some(b':' | b'=')) {
                attributes.push(name);
                return Ok(());
            }
            let start = c.clone();
            match values::attr_after_name(c)? {
                AttrTextValue::Plain(value) if defaults.get(&name).is_none() => defaults.set(&name, value),
                AttrTextValue::Plain(_) => return Err(start.clone().bad(format!("`{name}` twice"), "once")),
                _ => return Err(start.clone().bad("a graph", "a default without graphs")),
            }
            Ok(())
        })?;
    }
    signature(c, &mut body)?;
    let metadata = std::mem::take(&mut body.metadata);
    let place = format!("function `{name}`");
    let scope =
        Scope { opsets: opset_map(&imports).at(|| &place)?, outer_names: Arc::default(), captures: &[] };
    let body = build::graph(body, &scope).at(|| &place)?;
    Ok(Function {
        domain,
        name,
        overload,
        attributes,
        defaults,
        body,
        doc,
        metadata,
        extra: Default::default(),
    })
}

/// Takes a graph: its name and what follows.
pub(super) fn graph(c: &mut Cursor<'_>) -> Result<GraphText> {
    let mut g = GraphText { name: c.name("a graph's name")?, ..Default::default() };
    let (mut name, mut doc) = Default::default();
    let renamed = notes(c, &mut name, &mut doc, &mut g.metadata)?;
    g.doc = doc;
    if renamed {
        g.name = name;
    }
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
            constants.push((info.name.clone(), constant(c, &info.ty)?));
        }
        Ok(info)
    })?;
    c.arrow()?;
    c.expect(b'(')?;
    *outputs = c.items(b')', values::value_info)?;
    if c.take(b'<') {
        c.items(b'>', |c| {
            let info = values::value_info(c)?;
            if c.take(b'=') {
                constants.push((info.name, constant(c, &info.ty)?));
            } else {
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

fn constant(c: &mut Cursor<'_>, ty: &ValueType) -> Result<ConstText> {
    match ty {
        ValueType::Tensor(t) => Ok(ConstText::Dense(values::tensor_data(c, t)?)),
        ValueType::SparseTensor(t) => Ok(ConstText::Sparse(Box::new(values::sparse_data(c, t)?))),
        other => Err(c.bad(format!("data of type {other}"), "a tensor type before the name")),
    }
}

/// Takes the notes that come next. Says whether one was a name.
fn notes(
    c: &mut Cursor<'_>,
    name: &mut String,
    doc: &mut String,
    metadata: &mut Vec<(String, String)>,
) -> Result<bool> {
    let mut named = false;
    while let Some(key) = c.note() {
        match key {
            "name" => {
                *name = c.text_string()?;
                named = true;
            }
            "doc" => *doc = c.text_string()?,
            "metadata" => metadata.push((c.text_string()?, c.text_string()?)),
            other => return Err(c.bad(format!("note `{other}`"), "name, doc or metadata")),
        }
    }
    Ok(named)
}

fn node(c: &mut Cursor<'_>) -> Result<NodeText> {
    let mut n = NodeText::default();
    notes(c, &mut String::new(), &mut n.doc, &mut n.metadata)?;
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
    pub(super) fn build(self, mut one: impl FnMut(GraphText) -> Result<Graph>) -> Result<AttrValue> {
        Ok(match self.value {
            AttrTextValue::Plain(v) => v,
            AttrTextValue::Graph(g) => AttrValue::Graph(Box::new(one(*g)?)),
            AttrTextValue::Graphs(gs) => AttrValue::Graphs(gs.into_iter().map(one).collect::<Result<_>>()?),
        })
    }
}
