//! The IR as text.

use super::notes::Lines;
use super::{PrintOptions, is_identifier, is_type_word, number, tensors};
use crate::attr::{Attr, AttrKind, AttrValue, Attrs, ConstSparse, ConstTensor};
use crate::{
    Dim, Function, Graph, Model, Names, Node, NodeId, NodeKind, OpNode, Owner, TensorType, ValueId,
    ValueInfo, ValueType,
};
use std::fmt::Write;

/// Longest line of a graph's signature before it is broken.
const WIDTH: usize = 100;

/// A model as text. A graph with a cycle, which no file may have, is printed in file order.
pub fn print(model: &Model, options: &PrintOptions) -> String {
    let mut p = Printer { out: String::new(), options, indent: 0 };
    p.notes(Lines::model(model));
    p.header(model);
    p.graph(&model.graph, false, None);
    p.out.push('\n');
    for f in &model.functions {
        p.function(f);
        p.out.push('\n');
    }
    p.out
}

/// One graph as text, without a model's header.
pub fn print_graph(graph: &Graph, options: &PrintOptions) -> String {
    let mut p = Printer { out: String::new(), options, indent: 0 };
    p.graph(graph, false, None);
    p.out.push('\n');
    p.out
}

struct Printer<'a> {
    out: String,
    options: &'a PrintOptions,
    indent: usize,
}

/// Whether a name can stand in an attribute's value, where the syntax has no quoted names.
pub(super) fn is_bare_name(name: &str) -> bool {
    let special = ["inf", "infinity", "nan"].contains(&name.to_ascii_lowercase().as_str());
    is_identifier(name) && !is_type_word(name) && !special
}

/// Appends the name of a value, node or graph, quoted where it must be.
pub(super) fn name(out: &mut String, name: &str) {
    if is_identifier(name) && !is_type_word(name) {
        out.push_str(name);
    } else {
        number::quoted_name(out, name);
    }
}

/// Appends a word that the syntax wants bare; quoted (which only fcc reads) where it is not an identifier.
fn word(out: &mut String, word: &str) {
    if is_identifier(word) {
        out.push_str(word);
    } else {
        number::quoted_name(out, word);
    }
}

/// Appends `ai.onnx.ml`: identifiers joined by dots, quoted as a whole where it is not.
fn domain(out: &mut String, domain: &str) {
    if domain.split('.').all(is_identifier) {
        out.push_str(domain);
    } else {
        number::quoted_name(out, domain);
    }
}

/// Appends a type.
pub(super) fn ty(out: &mut String, t: &ValueType) {
    match t {
        ValueType::Unknown => out.push('?'),
        ValueType::Tensor(t) => tensor(out, t),
        ValueType::SparseTensor(t) => wrapped(out, "sparse_tensor", |out| tensor(out, t)),
        ValueType::Sequence(t) => wrapped(out, "seq", |out| ty(out, t)),
        ValueType::Optional(t) => wrapped(out, "optional", |out| ty(out, t)),
        ValueType::Map(key, value) => wrapped(out, "map", |out| {
            out.push_str(key.name());
            out.push_str(", ");
            ty(out, value);
        }),
        ValueType::Opaque(d, n) => wrapped(out, "opaque", |out| {
            if !d.is_empty() {
                domain(out, d);
                out.push_str(", ");
            }
            if !n.is_empty() || !d.is_empty() {
                word(out, n);
            }
        }),
    }
}

fn wrapped(out: &mut String, head: &str, inner: impl FnOnce(&mut String)) {
    out.push_str(head);
    out.push('(');
    inner(out);
    out.push(')');
}

fn tensor(out: &mut String, t: &TensorType) {
    out.push_str(t.dtype.name());
    let dims = match &t.shape {
        None => return out.push_str("[]"),
        Some(dims) if dims.is_empty() => return,
        Some(dims) => dims,
    };
    out.push('[');
    for (i, dim) in dims.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match dim {
            Dim::Sym(e) => {
                let text = e.to_string();
                if is_identifier(&text) { out.push_str(&text) } else { number::quoted_name(out, &text) }
            }
            other => {
                let _ = write!(out, "{other}");
            }
        }
    }
    out.push(']');
}

fn info(info: &ValueInfo, called: &str) -> String {
    let mut out = String::new();
    if info.ty != ValueType::Unknown {
        ty(&mut out, &info.ty);
        out.push(' ');
    }
    name(&mut out, called);
    out
}

impl Printer<'_> {
    fn newline(&mut self) {
        self.out.push('\n');
        for _ in 0..self.indent {
            self.out.push_str("  ");
        }
    }

    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut one: impl FnMut(&mut Self, T)) {
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            one(self, item);
        }
    }

    /// Items in a bracket, on one line if they fit, else one a line.
    fn block(&mut self, open: &str, items: Vec<String>, close: &str) {
        let start = self.out.rfind('\n').map_or(0, |i| i + 1);
        let width: usize = items.iter().map(|i| i.len() + 2).sum();
        let one_line = self.out.len() - start + width < WIDTH && !items.iter().any(|i| i.contains('\n'));
        self.out.push_str(open);
        if one_line {
            self.out.push_str(&items.join(", "));
        } else {
            self.lines(items);
        }
        self.out.push_str(close);
    }

    /// Items one a line, then a new line.
    fn lines(&mut self, items: Vec<String>) {
        self.indent += 1;
        let last = items.len().saturating_sub(1);
        for (i, item) in items.into_iter().enumerate() {
            self.newline();
            self.out.push_str(&item);
            if i < last {
                self.out.push(',');
            }
        }
        self.indent -= 1;
        self.newline();
    }

    /// Notes, each on a line of its own, a new line after each.
    fn notes(&mut self, notes: Lines) {
        if self.options.details {
            for line in notes.0 {
                self.out.push_str(&line);
                self.newline();
            }
        }
    }

    /// Notes in the middle of a line, which ends before them.
    fn notes_within(&mut self, notes: Lines) {
        if self.options.details && !notes.0.is_empty() {
            self.indent += 2;
            self.out.truncate(self.out.trim_end_matches(' ').len());
            self.newline();
            self.notes(notes);
            self.indent -= 2;
        }
    }

    /// An item of a list, behind its notes.
    fn noted(&self, notes: Lines, item: String) -> String {
        let mut lines = if self.options.details { notes.0 } else { vec![] };
        lines.push(item);
        lines.join(&format!("\n{}", "  ".repeat(self.indent + 1)))
    }

    fn header(&mut self, m: &Model) {
        let mut items = vec![format!("ir_version: {}", m.ir_version), imports(&m.opset_imports)];
        let mut text = |key: &str, value: &str| {
            if !value.is_empty() {
                let mut item = format!("{key}: ");
                number::quoted(&mut item, value.as_bytes());
                items.push(item);
            }
        };
        text("producer_name", &m.producer_name);
        text("producer_version", &m.producer_version);
        text("domain", &m.domain);
        if self.options.details {
            text("doc_string", &m.doc);
        }
        if m.model_version != 0 {
            items.push(format!("model_version: {}", m.model_version));
        }
        if self.options.details && !m.metadata.is_empty() {
            let mut item = String::from("metadata_props: [");
            for (i, (key, value)) in m.metadata.iter().enumerate() {
                item.push_str(if i > 0 { ", " } else { "" });
                number::quoted(&mut item, key.as_bytes());
                item.push_str(": ");
                number::quoted(&mut item, value.as_bytes());
            }
            items.push(item + "]");
        }
        self.out.push('<');
        self.lines(items);
        self.out.push_str(">\n");
    }

    fn function(&mut self, f: &Function) {
        self.notes(Lines::function(f));
        let mut items = vec![];
        for (key, value) in [("domain", &f.domain), ("overload", &f.overload)] {
            if !value.is_empty() {
                let mut item = format!("{key}: ");
                number::quoted(&mut item, value.as_bytes());
                items.push(item);
            }
        }
        items.push(imports(&f.spelt_imports()));
        if !f.doc.is_empty() && self.options.details {
            let mut item = String::from("doc_string: ");
            number::quoted(&mut item, f.doc.as_bytes());
            items.push(item);
        }
        self.out.push('<');
        self.lines(items);
        self.out.push_str(">\n");
        name(&mut self.out, &f.name);
        let attributes: Vec<&str> = f.attributes.iter().map(String::as_str).collect();
        if !attributes.is_empty() || f.defaults.iter().next().is_some() {
            self.out.push_str(" <");
            self.list(attributes, |p, a| name(&mut p.out, a));
            for (i, attr) in f.defaults.iter().enumerate() {
                self.out.push_str(if i > 0 || !f.attributes.is_empty() { ", " } else { "" });
                self.attr(attr, None);
            }
            self.out.push('>');
        }
        self.out.push(' ');
        self.body(&Names::new(&f.body, None));
    }

    /// A graph. One that is an attribute's value must have a bare name: another stands in a note.
    fn graph(&mut self, g: &Graph, nested: bool, owner: Option<&Owner<'_>>) {
        let bare = is_bare_name(&g.name);
        if nested {
            self.notes_within(Lines::graph(g, (!bare).then_some(&g.name)));
            self.out.push_str(if bare { &g.name } else { "graph" });
        } else {
            self.notes(Lines::graph(g, None));
            name(&mut self.out, &g.name);
        }
        self.out.push(' ');
        self.body(&Names::new(g, owner));
    }

    fn body(&mut self, names: &Names<'_>) {
        let g = names.graph();
        let item = |p: &Self, i: &ValueInfo, called: &str| p.noted(Lines::info(i), info(i, called));
        let first = |node: NodeId| ValueId { node, output: 0 };
        let inputs = g.inputs.iter().map(|i| item(self, &i.info, g.value_name(first(i.node)))).collect();
        let outputs = g.outputs.iter().map(|o| item(self, &o.info, called(names, o.value))).collect();
        self.block("(", inputs, ") => ");
        self.block("(", outputs, ") ");
        let mut values: Vec<String> =
            g.nodes().into_iter().filter_map(|id| self.constant(g.node(id))).collect();
        if self.options.details {
            values.extend(g.value_info.iter().map(|i| item(self, i, &i.name)));
        }
        if !values.is_empty() {
            self.out.push('<');
            self.lines(values);
            self.out.push_str("> ");
        }
        self.out.push('{');
        self.indent += 1;
        let ops = g.ops().unwrap_or_else(|_| {
            let mut all = g.nodes();
            all.retain(|id| g.op(*id).is_some());
            all
        });
        for id in ops {
            self.newline();
            self.node(names, id);
        }
        self.indent -= 1;
        self.newline();
        self.out.push('}');
    }

    fn constant(&self, node: &Node) -> Option<String> {
        let mut item = String::new();
        let value = node.outputs().first()?;
        match &node.kind {
            NodeKind::Constant(c) => {
                tensors::tensor_type(&mut item, c.tensor.dtype(), c.tensor.shape());
                item.push(' ');
                name(&mut item, &value.name);
                item.push_str(" = ");
                tensors::data(&mut item, &c.tensor, self.options.constants);
                Some(self.noted(Lines::tensor(c, None), item))
            }
            NodeKind::SparseConstant(s) => {
                sparse_type(&mut item, s);
                item.push(' ');
                name(&mut item, &value.name);
                item.push_str(" = ");
                self.sparse(&mut item, s);
                Some(item)
            }
            NodeKind::Input | NodeKind::Capture(_) | NodeKind::Op(_) => None,
        }
    }

    fn node(&mut self, names: &Names<'_>, id: NodeId) {
        let g = names.graph();
        let node = g.node(id);
        let Some(op) = node.op() else { return };
        self.notes(Lines::node(node));
        if !node.name.is_empty() {
            self.out.push('[');
            name(&mut self.out, &node.name);
            self.out.push_str("] ");
        }
        self.list(node.outputs(), |p, o| name(&mut p.out, &o.name));
        self.out.push_str(" = ");
        self.operator(op);
        let owner = Owner::new(*names, id);
        // subgraphs are long: they stand last
        let attributes_last = op.attrs.graphs().next().is_some();
        if !attributes_last {
            self.attrs(&op.attrs, &owner);
        }
        self.out.push_str(" (");
        self.list(g.inputs_of(id), |p, input| name(&mut p.out, input.map_or("", |v| called(names, v))));
        self.out.push(')');
        if attributes_last {
            self.attrs(&op.attrs, &owner);
        }
        let known = |o: &&crate::Output| !o.name.is_empty() && o.ty != ValueType::Unknown;
        if self.options.types && node.outputs().iter().any(|o| known(&o)) {
            self.out.push_str("  # ");
            for (i, output) in node.outputs().iter().enumerate() {
                self.out.push_str(if i > 0 { ", " } else { "" });
                ty(&mut self.out, &output.ty);
            }
        }
    }

    fn operator(&mut self, op: &OpNode) {
        if !op.domain.is_empty() {
            domain(&mut self.out, &op.domain);
            self.out.push('.');
        }
        word(&mut self.out, &op.op_type);
        if !op.overload.is_empty() {
            self.out.push(':');
            word(&mut self.out, &op.overload);
        }
    }

    fn attrs(&mut self, attrs: &Attrs, owner: &Owner<'_>) {
        if attrs.iter().next().is_some() {
            self.out.push_str(" <");
            self.list(attrs.iter(), |p, attr| p.attr(attr, Some(owner)));
            self.out.push('>');
        }
    }

    fn attr(&mut self, attr: &Attr, owner: Option<&Owner<'_>>) {
        self.notes_within(Lines::attribute(attr));
        word(&mut self.out, &attr.name);
        let kind = kind_name(attr.value.kind());
        let annotated = match &attr.value {
            AttrValue::Ref(_, kind) => *kind != AttrKind::Undefined,
            AttrValue::Undefined => true,
            value => is_empty_list(value),
        };
        if annotated {
            let _ = write!(self.out, ": {kind}");
        }
        if matches!(attr.value, AttrValue::Undefined) {
            return;
        }
        self.out.push_str(" = ");
        self.attr_value(&attr.value, owner);
    }

    fn attr_value(&mut self, value: &AttrValue, owner: Option<&Owner<'_>>) {
        use AttrValue as V;
        let text = |p: &mut Self, s: &[u8]| number::quoted(&mut p.out, s);
        match value {
            V::Float(v) => number::f32(&mut self.out, *v),
            V::Int(v) => self.int(*v),
            V::String(s) => text(self, s),
            V::Tensor(t) => self.tensor(t),
            V::Graph(g) => self.graph(g, true, owner),
            V::SparseTensor(s) => self.sparse_value(s),
            V::Type(t) => ty(&mut self.out, t),
            V::Floats(v) => self.bracket(v.iter(), |p, v| number::f32(&mut p.out, *v)),
            V::Ints(v) => self.bracket(v.iter(), |p, v| p.int(*v)),
            V::Strings(v) => self.bracket(v.iter(), |p, s| text(p, s)),
            V::Tensors(v) => self.bracket(v, Self::tensor),
            V::Graphs(v) => self.bracket(v, |p, g| p.graph(g, true, owner)),
            V::SparseTensors(v) => self.bracket(v, Self::sparse_value),
            V::Types(v) => self.bracket(v, |p, t| ty(&mut p.out, t)),
            V::Ref(to, _) => {
                self.out.push('@');
                name(&mut self.out, to);
            }
            V::Undefined => {}
        }
    }

    fn int(&mut self, v: i64) {
        let _ = write!(self.out, "{v}");
    }

    fn bracket<T>(&mut self, items: impl IntoIterator<Item = T>, one: impl FnMut(&mut Self, T)) {
        self.out.push('[');
        self.list(items, one);
        self.out.push(']');
    }

    fn tensor(&mut self, t: &ConstTensor) {
        self.notes_within(Lines::tensor(t, unplaced_name(t)));
        tensors::attribute(&mut self.out, t, self.options.constants);
    }

    fn sparse_value(&mut self, s: &ConstSparse) {
        sparse_type(&mut self.out, s);
        self.out.push(' ');
        let mut data = String::new();
        self.sparse(&mut data, s);
        self.out.push_str(&data);
    }

    /// A sparse tensor without its name: `sparse {float[2] {..}, int64[2] {..}}`, values first.
    fn sparse(&self, out: &mut String, s: &ConstSparse) {
        for (before, t) in [("sparse {", &s.values), (",", &s.indices)] {
            let mut item = String::new();
            tensors::attribute(&mut item, t, self.options.constants);
            let noted = self.noted(Lines::tensor(t, unplaced_name(t)), item);
            out.push_str(before);
            match noted.starts_with('#') {
                true => {
                    let _ = write!(out, "\n{}", "  ".repeat(self.indent + 1));
                }
                false => out.push_str(if before == "," { " " } else { "" }),
            }
            out.push_str(&noted);
        }
        out.push('}');
    }
}

/// The name of a tensor that has no place in the text.
fn unplaced_name(t: &ConstTensor) -> Option<&str> {
    (!t.name.is_empty() && !is_bare_name(&t.name)).then_some(&t.name)
}

/// What a value is called in the text. A capture that no graph around gives has the name that it was read with.
fn called<'a>(names: &Names<'a>, value: ValueId) -> &'a str {
    names.name(value).unwrap_or_else(|_| names.graph().value_name(value))
}

fn sparse_type(out: &mut String, s: &ConstSparse) {
    wrapped(out, "sparse_tensor", |out| tensors::tensor_type(out, s.values.tensor.dtype(), &s.shape));
}

fn is_empty_list(value: &AttrValue) -> bool {
    use AttrValue as V;
    match value {
        V::Floats(v) => v.is_empty(),
        V::Ints(v) => v.is_empty(),
        V::Strings(v) => v.is_empty(),
        V::Tensors(v) => v.is_empty(),
        V::Graphs(v) => v.is_empty(),
        V::SparseTensors(v) => v.is_empty(),
        V::Types(v) => v.is_empty(),
        V::Float(_) | V::Int(_) | V::String(_) | V::Tensor(_) | V::Graph(_) => false,
        V::SparseTensor(_) | V::Type(_) | V::Ref(..) | V::Undefined => false,
    }
}

/// The syntax's word for a kind of attribute.
pub(super) fn kind_name(kind: AttrKind) -> &'static str {
    match kind {
        AttrKind::Undefined => "undefined",
        AttrKind::Float => "float",
        AttrKind::Int => "int",
        AttrKind::String => "string",
        AttrKind::Tensor => "tensor",
        AttrKind::Graph => "graph",
        AttrKind::Floats => "floats",
        AttrKind::Ints => "ints",
        AttrKind::Strings => "strings",
        AttrKind::Tensors => "tensors",
        AttrKind::Graphs => "graphs",
        AttrKind::SparseTensor => "sparse_tensor",
        AttrKind::SparseTensors => "sparse_tensors",
        AttrKind::Type => "type_proto",
        AttrKind::Types => "type_protos",
    }
}

fn imports(opsets: &[(String, i64)]) -> String {
    let mut item = String::from("opset_import: [");
    for (i, (domain, version)) in opsets.iter().enumerate() {
        item.push_str(if i > 0 { ", " } else { "" });
        number::quoted(&mut item, domain.as_bytes());
        let _ = write!(item, " : {version}");
    }
    item + "]"
}
