//! Names to edges: a graph out of what a text says.

use super::parse::{ConstText, GraphText, NodeText};
use crate::attr::Attrs;
use crate::{At, Error, Graph, NewNode, NodeId, Opsets, Result, Slot, ValueId, ValueInfo, ValueType};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What surrounds a graph.
pub(super) struct Scope<'a> {
    pub(super) opsets: Arc<Opsets>,
    /// Whether an initializer that is also an input can be overridden.
    pub(super) overridable: bool,
    /// Names of all enclosing graphs.
    pub(super) outer_names: Arc<BTreeSet<String>>,
    /// Name and type of each capture of the node that owns the graph.
    pub(super) captures: &'a [(String, ValueType)],
}

impl Scope<'_> {
    /// Of a graph that stands alone.
    pub(super) fn outermost(opsets: Arc<Opsets>) -> Self {
        Scope { opsets, overridable: true, outer_names: Arc::default(), captures: &[] }
    }
}

impl GraphText {
    /// Every name that the graph defines.
    fn defined(&self) -> BTreeSet<&str> {
        let inputs = self.inputs.iter().map(|i| i.name.as_str());
        let constants = self.constants.iter().map(|(name, _)| name.as_str());
        let outputs = self.nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str));
        inputs.chain(constants).chain(outputs).collect()
    }
    /// The names that the graph takes from outside, in order of first use.
    fn free(&self) -> Vec<String> {
        let defined = self.defined();
        let mut free: Vec<String> = vec![];
        let mut seen = BTreeSet::new();
        let mut used = |name: &str| {
            if !name.is_empty() && !defined.contains(name) && seen.insert(name.to_string()) {
                free.push(name.into());
            }
        };
        for node in &self.nodes {
            node.inputs.iter().for_each(|name| used(name));
            node.captures().iter().for_each(|name| used(name));
        }
        self.outputs.iter().for_each(|o| used(&o.name));
        free
    }
}

impl NodeText {
    /// The names that the node's subgraphs take from outside, in order of first use.
    fn captures(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let names = self.attrs.iter().flat_map(|a| a.graphs()).flat_map(GraphText::free);
        names.filter(|name| seen.insert(name.clone())).collect()
    }
}

/// Builds a graph. Errors on a name that is defined twice or nowhere.
pub(super) fn graph(text: GraphText, scope: &Scope<'_>) -> Result<Graph> {
    let free: BTreeSet<String> = text.free().into_iter().collect();
    let names: BTreeSet<String> =
        text.defined().into_iter().filter(|n| !n.is_empty()).map(Into::into).collect();
    let mut g = Graph::new(text.name, scope.opsets.clone());
    g.doc = text.doc;
    g.metadata = text.metadata;
    g.extra = text.extra;
    g.quantization = text.quantization;
    g.overridable_inputs = scope.overridable;
    g.outer_names = scope.outer_names.clone();
    for (i, (name, ty)) in scope.captures.iter().enumerate() {
        if free.contains(name) {
            g.add_capture(u32::try_from(i).unwrap_or(u32::MAX), name, ty.clone())?;
        }
    }
    let constants: BTreeSet<String> = text.constants.iter().map(|(name, _)| name.clone()).collect();
    let has_default = |info: &ValueInfo| constants.contains(&info.name);
    for info in text.inputs.iter().filter(|info| !has_default(info)) {
        g.add_input(info.clone())?;
    }
    for (name, constant) in text.constants {
        match constant {
            ConstText::Dense(tensor) => g.add_constant(&name, tensor)?,
            ConstText::Sparse(sparse) => g.add_sparse_constant(&name, *sparse)?,
        };
    }
    // inputs in the order of the text, those with a default among the others
    let mut required = std::mem::take(&mut g.inputs).into_iter();
    let mut listed = BTreeSet::new();
    for info in text.inputs {
        if !constants.contains(&info.name) {
            required.next().into_iter().for_each(|i| g.inputs.push(i));
            continue;
        }
        if !listed.insert(info.name.clone()) {
            return Err(Error::mismatch("value name", format!("`{}` twice", info.name), "unique names"));
        }
        let node = defined(&g, &info.name)?.node;
        g.list_as_input(node, info);
    }
    // what subgraphs see: only where there is one, for the names of a large graph are many
    let nested = text.nodes.iter().flat_map(|n| &n.attrs).any(|a| !a.graphs().is_empty());
    let outer_names = match nested {
        true => Arc::new(scope.outer_names.iter().cloned().chain(names).collect::<BTreeSet<_>>()),
        false => Arc::default(),
    };
    let mut uses: Vec<Uses> = vec![];
    for node in text.nodes {
        let place = node.place.clone();
        let made = add(&mut g, node, &outer_names, &mut uses);
        made.at(|| place)?;
    }
    for u in &uses {
        u.connect(&mut g).at(|| u.place.clone())?;
    }
    for info in text.outputs {
        let value = defined(&g, &info.name).at(|| "graph output")?;
        merge_type(&mut g, value, &info.ty);
        g.add_output(value, info);
    }
    for info in &text.value_info {
        if let Some(value) = g.value(&info.name) {
            merge_type(&mut g, value, &info.ty);
        }
    }
    g.value_info = text.value_info;
    retype_captures(&mut g)?;
    Ok(g)
}

/// What a node takes by name, to be connected once every node is there.
struct Uses {
    node: NodeId,
    place: String,
    inputs: Vec<String>,
    captures: Vec<String>,
}

impl Uses {
    fn connect(&self, g: &mut Graph) -> Result<()> {
        let slots = self.inputs.iter().zip(0u32..).map(|(name, i)| (name, Slot::Input(i)));
        let captures = self.captures.iter().zip(0u32..).map(|(name, i)| (name, Slot::Capture(i)));
        for (name, slot) in slots.chain(captures).filter(|(name, _)| !name.is_empty()) {
            let value = defined(g, name)?;
            g.connect_new(value, self.node, slot);
        }
        Ok(())
    }
}

fn defined(g: &Graph, name: &str) -> Result<ValueId> {
    g.value(name).ok_or_else(|| {
        Error::mismatch(
            format!("value `{name}`"),
            "none of this name",
            "an input, an initializer or a node's output",
        )
    })
}

fn merge_type(g: &mut Graph, value: ValueId, ty: &ValueType) {
    if let Ok(merged) = g.ty(value).merge(ty) {
        g.set_ty(value, merged);
    }
}

fn add(
    g: &mut Graph,
    node: NodeText,
    outer_names: &Arc<BTreeSet<String>>,
    uses: &mut Vec<Uses>,
) -> Result<()> {
    let names = node.captures();
    let captures: Vec<(String, ValueType)> =
        names.iter().map(|name| (name.clone(), ValueType::Unknown)).collect();
    let scope = Scope {
        opsets: g.opsets.clone(),
        overridable: g.overridable_inputs,
        outer_names: outer_names.clone(),
        captures: &captures,
    };
    let mut attrs = Attrs::new();
    for attr in node.attrs {
        attrs.push(attr.build(|text| graph(text, &scope))?);
    }
    let id = g.add_op(NewNode {
        op_type: &node.op_type,
        domain: &node.domain,
        name: node.name,
        inputs: vec![None; node.inputs.len()],
        outputs: node.outputs,
        attrs,
    })?;
    let added = g.node_mut(id);
    (added.doc, added.metadata, added.extra) = (node.doc, node.metadata, node.extra);
    if let Some(op) = added.op_mut() {
        op.set_overload(node.overload);
        op.device_configurations = node.devices;
    }
    uses.push(Uses { node: id, place: node.place, inputs: node.inputs, captures: names });
    Ok(())
}

/// Gives the captures of every subgraph the type of the value they stand for.
fn retype_captures(g: &mut Graph) -> Result<()> {
    for id in g.nodes() {
        let types: Vec<ValueType> = g.captures_of(id).into_iter().map(|v| g.ty(v).clone()).collect();
        let Some(op) = g.node_mut(id).op_mut() else { continue };
        for sub in op.attrs.graphs_mut() {
            for node in sub.nodes() {
                if let crate::NodeKind::Capture(i) = sub.node(node).kind
                    && let Some(ty) = types.get(i as usize)
                {
                    sub.set_ty(ValueId { node, output: 0 }, ty.clone());
                }
            }
            retype_captures(sub)?;
        }
    }
    Ok(())
}
