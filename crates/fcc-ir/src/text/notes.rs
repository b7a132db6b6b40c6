//! Notes: what ONNX's syntax has no place for, in comments `#@ key b"…" b"…"` on lines before the thing they speak of.
//!
//! | key | values | of |
//! |---|---|---|
//! | `name` | the name | a subgraph, the tensor of an attribute or of a sparse tensor |
//! | `doc` | `doc_string` | a graph, value, node, attribute, tensor |
//! | `metadata` | key, value; one note each | a graph, value, node, tensor, function |
//! | `denotation` | that of the type | a value |
//! | `dims` | the denotation of each dimension | a value |
//! | `quantization` | tensor, then key and name of each parameter; one note each | a graph |
//! | `typed` | none: the elements stood in a typed field, not in `raw_data` | a tensor |
//! | `external` | key and value of each entry: the elements stood in another file | a tensor |
//! | `raw` | the packed bytes, where bits behind the last element of 6 bits are set | a tensor |
//! | `device` | a `NodeDeviceConfigurationProto`, encoded | a node |
//! | `training_info`, `configuration` | the message, encoded | a model |
//! | `fields` | the rest of the message, encoded: fields that are there and empty, … | everything |

use super::cursor::Cursor;
use super::number;
use crate::attr::{Attr, ConstTensor};
use crate::{Error, Graph, Model, Node, QuantAnnotation, Result, Tensor, ValueInfo};
use bytes::Bytes;

/// The notes before one thing, each taken by what reads it.
#[derive(Default)]
pub(super) struct Notes<'t>(Vec<Note<'t>>);

struct Note<'t> {
    at: Cursor<'t>,
    key: &'t str,
    values: Vec<Vec<u8>>,
}

impl Note<'_> {
    fn bad(&self, wanted: &str) -> Error {
        let got = format!("{} values of note `{}`", self.values.len(), self.key);
        self.at.clone().bad(got, wanted)
    }
    fn texts(self) -> Result<Vec<String>> {
        let utf8 = |value: Vec<u8>| {
            let bad =
                || self.at.clone().bad(format!("note `{}` of bytes that are not UTF-8", self.key), "UTF-8");
            String::from_utf8(value).map_err(|_| bad())
        };
        self.values.into_iter().map(utf8).collect()
    }
    /// The values two by two.
    fn pairs(self) -> Result<Vec<(String, String)>> {
        if !self.values.len().is_multiple_of(2) {
            return Err(self.bad("two for each entry"));
        }
        let mut texts = self.texts()?.into_iter();
        Ok(std::iter::from_fn(|| texts.next().zip(texts.next())).collect())
    }
}

impl<'t> Notes<'t> {
    /// Takes the notes that come next.
    pub(super) fn take(c: &mut Cursor<'t>) -> Result<Self> {
        let mut notes = vec![];
        while c.peek() == Some(b'#') {
            let at = c.clone();
            let (key, values) = c.note()?;
            notes.push(Note { at, key, values });
        }
        Ok(Notes(notes))
    }

    /// All notes of these keys, in order.
    fn all(&mut self, keys: &[&str]) -> Vec<Note<'t>> {
        let (found, rest) = std::mem::take(&mut self.0).into_iter().partition(|n| keys.contains(&n.key));
        self.0 = rest;
        found
    }

    /// The note of a key, which may stand once.
    fn one(&mut self, key: &str) -> Result<Option<Note<'t>>> {
        let mut found = self.all(&[key]);
        let first = found.pop();
        match found.pop() {
            None => Ok(first),
            Some(again) => Err(again.at.clone().bad(format!("note `{key}` twice"), "it once")),
        }
    }

    fn bytes(&mut self, key: &str) -> Result<Option<Bytes>> {
        let Some(mut note) = self.one(key)? else { return Ok(None) };
        match (note.values.pop(), note.values.is_empty()) {
            (Some(value), true) => Ok(Some(value.into())),
            _ => Err(note.bad("one")),
        }
    }

    fn text(&mut self, key: &str) -> Result<Option<String>> {
        let Some(note) = self.one(key)? else { return Ok(None) };
        let at = note.at.clone();
        let mut texts = note.texts()?;
        match (texts.pop(), texts.is_empty()) {
            (Some(text), true) => Ok(Some(text)),
            _ => Err(at.clone().bad(format!("note `{key}`"), "one value")),
        }
    }

    pub(super) fn name(&mut self) -> Result<Option<String>> {
        self.text("name")
    }

    fn doc(&mut self) -> Result<String> {
        Ok(self.text("doc")?.unwrap_or_default())
    }

    pub(super) fn fields(&mut self) -> Result<Bytes> {
        Ok(self.bytes("fields")?.unwrap_or_default())
    }

    pub(super) fn metadata(&mut self) -> Result<Vec<(String, String)>> {
        let mut all = vec![];
        for note in self.all(&["metadata"]) {
            all.extend(note.pairs()?);
        }
        Ok(all)
    }

    /// Errors on a note that nothing has taken.
    pub(super) fn end(self) -> Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some(note) => {
                let wanted = "one that this can have";
                Err(note.at.clone().bad(format!("note `{}`", note.key), wanted))
            }
        }
    }

    pub(super) fn of_model(mut self, model: &mut Model) -> Result<()> {
        for mut note in self.all(&["training_info", "configuration"]) {
            let number = if note.key == "training_info" { 20 } else { 26 };
            match (note.values.pop(), note.values.is_empty()) {
                (Some(message), true) => model.verbatim.push((number, message.into())),
                _ => return Err(note.bad("one")),
            }
        }
        model.extra = self.fields()?;
        self.end()
    }

    /// What is noted of a graph, but for its name.
    pub(super) fn of_graph(mut self, g: &mut super::parse::GraphText) -> Result<()> {
        (g.doc, g.metadata, g.extra) = (self.doc()?, self.metadata()?, self.fields()?);
        for note in self.all(&["quantization"]) {
            let mut note = note;
            if note.values.is_empty() {
                return Err(note.bad("a tensor's name, then key and name of each parameter"));
            }
            let params = note.values.split_off(1);
            let rest = Note { values: params, ..Note { at: note.at.clone(), key: note.key, values: vec![] } };
            let tensor = note.texts()?.pop().unwrap_or_default();
            g.quantization.push(QuantAnnotation { tensor, params: rest.pairs()? });
        }
        self.end()
    }

    pub(super) fn of_node(mut self, n: &mut super::parse::NodeText) -> Result<()> {
        (n.doc, n.metadata, n.extra) = (self.doc()?, self.metadata()?, self.fields()?);
        for mut note in self.all(&["device"]) {
            match (note.values.pop(), note.values.is_empty()) {
                (Some(message), true) => n.devices.push(message.into()),
                _ => return Err(note.bad("one")),
            }
        }
        self.end()
    }

    pub(super) fn of_info(mut self, info: &mut ValueInfo) -> Result<()> {
        (info.doc, info.metadata, info.extra) = (self.doc()?, self.metadata()?, self.fields()?);
        info.denotation = self.text("denotation")?.unwrap_or_default();
        info.dim_denotations = self.one("dims")?.map_or(Ok(vec![]), Note::texts)?;
        self.end()
    }

    /// What is noted of a tensor; of an initializer the name is the value's and stands elsewhere.
    pub(super) fn of_tensor(mut self, t: &mut ConstTensor) -> Result<()> {
        (t.doc, t.metadata, t.extra) = (self.doc()?, self.metadata()?, self.fields()?);
        if let Some(name) = self.name()? {
            t.name = name;
        }
        if let Some(note) = self.one("typed")? {
            if !note.values.is_empty() {
                return Err(note.bad("none"));
            }
            t.typed_field = true;
        }
        if let Some(note) = self.one("raw")? {
            let bytes: Vec<u8> = note.values.concat();
            let raw = Tensor::from_bytes(t.tensor.dtype(), t.tensor.shape().to_vec(), bytes.into());
            match raw.ok().filter(|raw| raw.unpacked_bits() == t.tensor.unpacked_bits()) {
                Some(raw) => t.tensor = raw,
                None => {
                    return Err(note.at.clone().bad("bytes of other elements", "those in braces, packed"));
                }
            }
        }
        t.external = self.one("external")?.map(Note::pairs).transpose()?;
        self.end()
    }

    pub(super) fn of_attribute(mut self) -> Result<(String, Bytes)> {
        let about = (self.doc()?, self.fields()?);
        self.end()?;
        Ok(about)
    }
}

/// Notes being printed, each a line without its end.
#[derive(Default)]
pub(super) struct Lines(pub(super) Vec<String>);

impl Lines {
    fn add<'v>(&mut self, key: &str, values: impl IntoIterator<Item = &'v [u8]>) {
        let mut line = format!("#@ {key}");
        for value in values {
            line.push(' ');
            number::escaped(&mut line, value);
        }
        self.0.push(line);
    }
    fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.add(key, [value.as_bytes()]);
        }
    }
    fn pairs(pairs: &[(String, String)]) -> impl Iterator<Item = &[u8]> {
        pairs.iter().flat_map(|(k, v)| [k.as_bytes(), v.as_bytes()])
    }
    fn about(&mut self, doc: &str, metadata: &[(String, String)], fields: &Bytes) {
        self.text("doc", doc);
        metadata.iter().for_each(|(k, v)| self.add("metadata", [k.as_bytes(), v.as_bytes()]));
        if !fields.is_empty() {
            self.add("fields", [&fields[..]]);
        }
    }

    pub(super) fn model(m: &Model) -> Self {
        let mut lines = Lines::default();
        for (number, message) in &m.verbatim {
            lines.add(if *number == 20 { "training_info" } else { "configuration" }, [&message[..]]);
        }
        lines.about("", &[], &m.extra);
        lines
    }
    /// Of a graph; `name` where it has no place in the text.
    pub(super) fn graph(g: &Graph, name: Option<&str>) -> Self {
        let mut lines = Lines::default();
        lines.0.extend(name.map(Self::name));
        lines.about(&g.doc, &g.metadata, &g.extra);
        for q in &g.quantization {
            lines.add("quantization", std::iter::once(q.tensor.as_bytes()).chain(Self::pairs(&q.params)));
        }
        lines
    }
    pub(super) fn function(f: &crate::Function) -> Self {
        let mut lines = Lines::default();
        lines.about("", &f.metadata, &f.extra);
        lines
    }
    pub(super) fn node(node: &Node) -> Self {
        let mut lines = Lines::default();
        lines.about(&node.doc, &node.metadata, &node.extra);
        let devices = node.op().map_or(&[][..], |op| &op.device_configurations);
        devices.iter().for_each(|message| lines.add("device", [&message[..]]));
        lines
    }
    pub(super) fn info(info: &ValueInfo) -> Self {
        let mut lines = Lines::default();
        lines.about(&info.doc, &info.metadata, &info.extra);
        lines.text("denotation", &info.denotation);
        if !info.dim_denotations.is_empty() {
            lines.add("dims", info.dim_denotations.iter().map(String::as_bytes));
        }
        lines
    }
    /// Of a tensor; `name` where it has no place in the text.
    pub(super) fn tensor(t: &ConstTensor, name: Option<&str>) -> Self {
        let mut lines = Lines::default();
        lines.0.extend(name.map(Self::name));
        lines.about(&t.doc, &t.metadata, &t.extra);
        // strings have no other place
        if t.typed_field && t.tensor.dtype() != crate::DType::String {
            lines.add("typed", []);
        }
        if t.tensor.dtype().bits() == 6 {
            let (dtype, shape) = (t.tensor.dtype(), t.tensor.shape().to_vec());
            let plain = Tensor::from_unpacked_bits(dtype, shape, &t.tensor.unpacked_bits());
            if plain.is_ok_and(|plain| plain != t.tensor) {
                lines.add("raw", [&t.tensor.bytes()[..]]);
            }
        }
        if let Some(entries) = &t.external {
            lines.add("external", Self::pairs(entries));
        }
        lines
    }
    pub(super) fn attribute(attr: &Attr) -> Self {
        let mut lines = Lines::default();
        lines.about(&attr.doc, &[], &attr.extra);
        lines
    }
    fn name(name: &str) -> String {
        let mut line = String::from("#@ name ");
        number::escaped(&mut line, name.as_bytes());
        line
    }
}
