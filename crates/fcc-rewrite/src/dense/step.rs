//! What one operator becomes in a dense model.
use super::{Padding, View};
use crate::Declined;
use crate::context::is_onnx;
use crate::rules::{BROADCASTING, UNARY};
use fcc_ir::attr::Attrs;
use fcc_ir::ops::conv::{AutoPad, Window};
use fcc_ir::{Dim, Graph, NewNode, NodeId, OpNode, Slot, Tensor, ValueId};
use std::collections::HashMap;

/// Changes a node in place.
type Change = Box<dyn FnOnce(&mut Graph, NodeId) -> fcc_ir::Result<()>>;

pub(super) enum Step {
    /// The node needs nothing of the image.
    Outside,
    /// It stays as it is.
    Keep(View),
    /// It stays, with other attributes or operands.
    Change(View, Change),
    /// Its uses read this value.
    HandOn(ValueId, View),
}

/// A node, with what its inputs are.
struct At<'g> {
    graph: &'g Graph,
    views: &'g HashMap<ValueId, View>,
    padding: Padding,
    id: NodeId,
    op: &'g OpNode,
}

/// Decides what a node becomes. Declines where a result would depend on more than a window of the image.
pub(super) fn step(
    graph: &Graph,
    views: &HashMap<ValueId, View>,
    padding: Padding,
    id: NodeId,
) -> Result<Step, Declined> {
    let Some(op) = graph.op(id) else { return Ok(Step::Outside) };
    let at = At { graph, views, padding, id, op };
    let inputs: Vec<Option<&View>> = graph.inputs_of(id).into_iter().map(|v| views.get(&v?)).collect();
    if graph.captures_of(id).iter().any(|v| views.contains_key(v)) {
        return Err(at.declined("a subgraph that reads the image"));
    }
    if inputs.iter().all(Option::is_none) {
        return Ok(Step::Outside);
    }
    if !is_onnx(op) {
        return Err(at.declined(format!("an operator of domain `{}`", op.domain)));
    }
    let name = op.op_type.as_str();
    match inputs.first().copied().flatten() {
        _ if at.is_layout() => at.layout(),
        Some(View::Image(_) | View::Rows(_)) if matches!(name, "Shape" | "Size") => {
            Ok(Step::Keep(View::Extents))
        }
        _ if inputs.iter().flatten().all(|v| **v == View::Extents) => Ok(Step::Keep(View::Extents)),
        _ if BROADCASTING.contains(&name) => at.broadcast(&inputs),
        _ if name == "Concat" => at.concat(&inputs),
        // what follows reads the image as its first input only
        _ if inputs.iter().skip(1).any(Option::is_some) => Err(at.declined("a second input from the image")),
        Some(View::Image(strides)) => at.of_image(strides),
        Some(View::Rows(strides)) => at.of_rows(strides),
        Some(View::Extents) | None => Err(at.declined("an operator that it is not known of")),
    }
}

impl At<'_> {
    fn declined(&self, got: impl ToString) -> Declined {
        let wanted = "operators that compute each place from a window of the image";
        Declined::new(self.graph.place(self.id), got, wanted)
    }

    fn dims(&self, value: ValueId) -> Result<&[Dim], Declined> {
        let shape = self.graph.ty(value).as_tensor().and_then(|t| t.shape.as_deref());
        shape.ok_or_else(|| self.declined("a value of unknown rank"))
    }

    fn is_layout(&self) -> bool {
        matches!(self.op.op_type.as_str(), "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze")
    }

    /// `[N,K,1,1]` to `[N,K]` and back: nothing in the dense model.
    fn layout(&self) -> Result<Step, Declined> {
        let Some(x) = self.graph.input(self.id, 0) else { return Err(self.declined("no input")) };
        let out = ValueId { node: self.id, output: 0 };
        let (from, to) = (self.dims(x)?, self.dims(out)?);
        let all_ones = |dims: &[Dim]| dims.iter().skip(2).all(|d| *d == Dim::Known(1));
        let same = from.len() >= 2 && to.len() >= 2 && from[..2].iter().zip(&to[..2]).all(|(a, b)| a.same(b));
        let fits = same && all_ones(from) && all_ones(to);
        let shapes = || {
            let (from, to) = (crate::context::dims_text(from), crate::context::dims_text(to));
            let wanted = "a layout between [N,K,1,...] and [N,K]";
            Err(Declined::new(self.graph.place(self.id), format!("{from} to {to}"), wanted))
        };
        match self.views.get(&x) {
            Some(View::Image(s)) if fits && to.len() == 2 => Ok(Step::HandOn(x, View::Rows(s.clone()))),
            Some(View::Rows(s)) if fits && to.len() == 2 => Ok(Step::HandOn(x, View::Rows(s.clone()))),
            Some(View::Image(s) | View::Rows(s)) if fits && to.len() == s.len() + 2 => {
                Ok(Step::HandOn(x, View::Image(s.clone())))
            }
            Some(View::Extents) => Ok(Step::Keep(View::Extents)),
            _ => shapes(),
        }
    }

    fn of_image(&self, strides: &[usize]) -> Result<Step, Declined> {
        match self.op.op_type.as_str() {
            "Conv" | "MaxPool" | "AveragePool" | "LpPool" => self.window(strides),
            "LRN" | "BatchNormalization" | "Dropout" | "Identity" => {
                self.by_place(View::Image(strides.to_vec()))
            }
            name if UNARY.contains(&name) => self.by_place(View::Image(strides.to_vec())),
            "Softmax" | "LogSoftmax" => {
                self.need_axis_1(strides.len() + 2)?;
                self.need_new_softmax()?;
                Ok(Step::Keep(View::Image(strides.to_vec())))
            }
            _ => Err(self.declined(format!("{}, which may read the whole image", self.op.op_type))),
        }
    }

    fn of_rows(&self, strides: &[usize]) -> Result<Step, Declined> {
        let view = View::Rows(strides.to_vec());
        match self.op.op_type.as_str() {
            "BatchNormalization" | "Dropout" | "Identity" => self.by_place(view),
            name if UNARY.contains(&name) => self.by_place(view),
            "Softmax" | "LogSoftmax" => {
                self.need_axis_1(2)?;
                let change = if self.op.version < 13 { old_softmax(strides.len()) } else { set_axis_1() };
                Ok(Step::Change(view, change))
            }
            name => Err(self.declined(format!("{name} of rows [N,K]"))),
        }
    }

    /// An operator of one value that computes each element from those of its place.
    fn by_place(&self, view: View) -> Result<Step, Declined> {
        if self.graph.values_of(self.id).skip(1).any(|v| self.graph.use_count(v) > 0) {
            return Err(self.declined("uses of its second output"));
        }
        let normal = self.op.op_type == "BatchNormalization";
        let spatial = self.op.attrs.int_or("spatial", 1)? == 1;
        if (normal && (self.op.version < 7 || !spatial)) || self.op.attrs.flag("training_mode", false)? {
            return Err(self.declined("statistics of the batch, or by place"));
        }
        if self.op.op_type == "Dropout" && (self.op.version < 7 || self.graph.input(self.id, 2).is_some()) {
            return Err(self.declined("a Dropout that may train"));
        }
        Ok(Step::Keep(view))
    }

    /// A Conv or a pool: no padding, for that of a window is pixels of the image around it.
    fn window(&self, strides: &[usize]) -> Result<Step, Declined> {
        let kernel: Option<Vec<usize>> = match self.op.op_type.as_str() {
            "Conv" => {
                let w = self.graph.input(self.id, 1).ok_or_else(|| self.declined("no weight"))?;
                Some(self.dims(w)?.iter().skip(2).filter_map(Dim::known).collect())
            }
            _ => None,
        };
        let window = Window::parse(self.op, kernel.as_deref())?;
        self.need_no_padding(&window)?;
        if window.strides.len() != strides.len() {
            return Err(self.declined(format!("{} spatial axes", window.strides.len())));
        }
        let along = strides.iter().zip(&window.strides).map(|(a, b)| a.checked_mul(*b));
        let strides: Option<Vec<usize>> = along.collect();
        self.by_place(View::Image(strides.ok_or_else(|| self.declined("strides that overflow"))?))
    }

    fn need_no_padding(&self, window: &Window) -> Result<(), Declined> {
        let padded = window.pads.iter().any(|p| *p > 0);
        let same = matches!(window.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
        let keep = self.padding == Padding::Keep;
        if same && keep && window.strides.iter().any(|s| *s > 1) {
            let wanted = "explicit pads: with strides, these move with the image's extents";
            let what = format!("auto_pad of {}", self.graph.place(self.id));
            return Err(Declined::new(what, format!("{:?}", window.auto_pad), wanted));
        }
        if (padded || same) && !keep {
            let got = if padded { format!("{:?}", window.pads) } else { format!("{:?}", window.auto_pad) };
            let wanted = "no padding: where a window lies inside a larger image, pixels stand there";
            return Err(Declined::new(format!("pads of {}", self.graph.place(self.id)), got, wanted));
        }
        if self.op.attrs.int_or("ceil_mode", 0)? != 0 && !keep {
            let what = format!("ceil_mode of {}", self.graph.place(self.id));
            return Err(Declined::new(what, 1, "0: the last place reads beyond the window"));
        }
        Ok(())
    }

    fn broadcast(&self, inputs: &[Option<&View>]) -> Result<Step, Declined> {
        if self.op.version < 7 {
            return Err(self.declined(format!("the broadcasting of opset {}", self.op.version)));
        }
        let view = self.common_view(inputs)?;
        let spatial = match &view {
            View::Image(s) | View::Rows(s) => s.len(),
            View::Extents => 0,
        };
        let mut moved: Vec<(u32, Tensor)> = vec![];
        for (slot, value) in (0u32..).zip(self.graph.inputs_of(self.id)) {
            let Some(value) = value.filter(|v| !self.views.contains_key(v)) else { continue };
            let t =
                self.graph.constant(value).ok_or_else(|| self.declined("an operand that is not constant"))?;
            if t.len() == 1 && t.rank() <= 1 {
                continue;
            }
            match &view {
                // [K] or [1,K] beside [N,K] is [K,1,1] beside [N,K,H,W]
                View::Rows(_)
                    if t.rank() <= 2 && t.shape().first().is_some_and(|n| t.rank() == 1 || *n == 1) =>
                {
                    moved.push((slot, t.reshaped([t.shape(), &vec![1; spatial]].concat())?));
                }
                View::Image(_)
                    if t.rank() <= spatial + 2 && t.shape().iter().rev().take(spatial).all(|n| *n == 1) => {}
                _ => return Err(self.declined(format!("an operand {:?} that differs by place", t.shape()))),
            }
        }
        if moved.is_empty() {
            return Ok(Step::Keep(view));
        }
        let change: Change = Box::new(move |graph, id| {
            for (slot, t) in moved {
                let name = graph.fresh_name(&format!("{}.operand", graph.node(id).name));
                let value = graph.add_constant(&name, t)?;
                graph.connect(value, id, fcc_ir::Slot::Input(slot));
            }
            Ok(())
        });
        Ok(Step::Change(view, change))
    }

    fn concat(&self, inputs: &[Option<&View>]) -> Result<Step, Declined> {
        if inputs.iter().any(Option::is_none) {
            return Err(self.declined("an input that is not made of the image"));
        }
        let view = self.common_view(inputs)?;
        match &view {
            View::Image(s) => {
                self.need_axis_1(s.len() + 2)?;
                Ok(Step::Keep(view))
            }
            View::Rows(_) => {
                self.need_axis_1(2)?;
                Ok(Step::Change(view, set_axis_1()))
            }
            View::Extents => Ok(Step::Keep(view)),
        }
    }

    /// What all inputs that are made of the image are.
    fn common_view(&self, inputs: &[Option<&View>]) -> Result<View, Declined> {
        let mut all = inputs.iter().flatten();
        let Some(first) = all.next() else { return Err(self.declined("no input")) };
        if let Some(other) = all.find(|v| **v != *first) {
            return Err(self.declined(format!("{first:?} beside {other:?}")));
        }
        Ok((*first).clone())
    }

    /// The axis must be that of the channels, the second.
    fn need_axis_1(&self, rank: usize) -> Result<(), Declined> {
        let default = if self.op.version < 13 { 1 } else { -1 };
        let axis = self.op.attrs.int_or("axis", default)?;
        if axis == 1 || i64::try_from(rank).is_ok_and(|rank| axis + rank == 1) {
            return Ok(());
        }
        let what = format!("axis of {}", self.graph.place(self.id));
        Err(Declined::new(what, axis, "that of the channels, 1"))
    }

    /// Before opset 13 Softmax normalised over all axes from `axis` on.
    fn need_new_softmax(&self) -> Result<(), Declined> {
        if self.op.version >= 13 {
            return Ok(());
        }
        let what = format!("opset of {}", self.graph.place(self.id));
        Err(Declined::new(
            what,
            self.op.version,
            "13 or later: before, Softmax normalised over all places together",
        ))
    }
}

fn set_axis_1() -> Change {
    Box::new(|graph, id| {
        if let Some(op) = graph.node_mut(id).op_mut() {
            op.attrs.set("axis", 1i64);
        }
        Ok(())
    })
}

/// Before opset 13 Softmax normalised over `axis` and all after it: the channels go last for it, and back.
fn old_softmax(spatial: usize) -> Change {
    Box::new(move |graph, id| {
        let Some(x) = graph.input(id, 0) else { return Ok(()) };
        let last = i64::try_from(spatial).unwrap_or(0) + 1;
        let to_last: Vec<i64> = [0].into_iter().chain(2..=last).chain([1]).collect();
        let back: Vec<i64> = [0, last].into_iter().chain(1..last).collect();
        let Some(mut softmax) = graph.op(id).cloned() else { return Ok(()) };
        softmax.attrs.set("axis", last);
        let root = graph.node(id).name.clone();
        let mut add = |op_type: &str, part: &str, x: ValueId, attrs: Attrs| -> fcc_ir::Result<ValueId> {
            let name = graph.fresh_name(&format!("{root}.{part}"));
            let new = NewNode {
                op_type,
                domain: "",
                name: name.clone(),
                inputs: vec![Some(x)],
                outputs: vec![name],
                attrs,
            };
            Ok(ValueId { node: graph.add_op_at(new, id)?, output: 0 })
        };
        let last_axis = add("Transpose", "channels_last", x, Attrs::new().with("perm", to_last))?;
        let normal = add(&softmax.op_type, "softmax", last_axis, softmax.attrs)?;
        // the node itself goes back, so that its output keeps its name
        if let Some(op) = graph.node_mut(id).op_mut() {
            op.become_onnx("Transpose");
            op.attrs = Attrs::new().with("perm", back);
        }
        graph.connect(normal, id, Slot::Input(0));
        Ok(())
    })
}
