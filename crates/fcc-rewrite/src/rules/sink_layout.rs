//! Transposes and changes of shape moved behind elementwise operators, to where they cancel.
use super::layout::{inverse, is_identity, perm, reshape_behind, transpose_behind};
use crate::builder::Builder;
use crate::context::{Cx, same_elements_shape, same_shape};
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use crate::weights::permute;
use fcc_ir::{Dim, NodeId, Shape, Tensor, ValueId};
use std::collections::BTreeSet;

rule_type! {
    /// `f(layout(x), ..) => layout(f(x, ..))` for elementwise f
    ///
    /// # What
    /// A `Transpose`, `Reshape`, `Flatten`, `Squeeze` or `Unsqueeze` before an elementwise operator may as well come
    /// after it. It is moved only if further down, behind elementwise operators, stands one that undoes it. All
    /// operands must come through the same layout; constant operands are permuted or given the axes they need.
    /// `BatchNormalization` counts as elementwise where the layout only adds or drops extents of 1 at the end.
    ///
    /// # Why
    /// So that the layout changes between two layers that became Convs meet and go away.
    ///
    /// # Example
    /// ```text
    /// f = Flatten(c)                 # c float[N,64,1,1], a Conv's
    /// r = Relu(f)
    /// u = Unsqueeze<axes=[2,3]>(r)   # for the next Conv
    /// ```
    /// becomes
    /// ```text
    /// r = Relu(c)
    /// f = Flatten(r)
    /// u = Unsqueeze<axes=[2,3]>(f)   # which is r
    /// ```
    ///
    /// # Declines
    /// Nothing by name: a node whose operands come through different layouts, or whose layout nothing undoes, is no
    /// candidate.
    pub(crate) struct SinkLayout = "sink-layout";
}

/// Elementwise operators of one value (the rest are scalars).
pub(crate) const UNARY: &[&str] = &[
    "Abs",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
];
/// Elementwise operators of several values that broadcast.
pub(crate) const BROADCASTING: &[&str] =
    &["Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum"];

/// A change of how elements are indexed, before an elementwise operator.
enum Layout {
    Transpose(Vec<usize>),
    /// The node, and the shapes before and after.
    Reshape(NodeId, Shape, Shape),
}

/// What the action needs.
pub(crate) struct Plan {
    node: NodeId,
    layout: Layout,
    operands: Vec<Operand>,
}

enum Operand {
    Absent,
    /// What stands before the layout.
    Value(ValueId),
    /// Handed on as it is.
    Scalar(ValueId),
    /// A constant in the layout of x.
    Constant(Tensor, Tensor),
}

impl Rule for SinkLayout {
    type Found = Plan;
    type Plan = Plan;
    fn name(&self) -> &str {
        Self::NAME
    }
    fn doc(&self) -> &str {
        Self::DOC
    }
    fn traits(&self) -> Traits {
        Traits { repeats: true, ..Traits::default() }
    }
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<Plan> {
        let elementwise = is_elementwise(cx, node) || cx.op(node, "BatchNormalization").is_some();
        let single = cx.graph().node(node).outputs().len() == 1;
        let (layout, _) = layout_before(cx, node).filter(|_| elementwise && single)?;
        let operands = operands(cx, node, &layout).filter(|_| is_undone(cx, cx.out(node), &layout))?;
        Some(Plan { node, layout, operands })
    }
    fn guard(&self, cx: &Cx<'_>, plan: Plan) -> Result<Match<Plan>, Declined> {
        let sources = plan
            .operands
            .iter()
            .filter_map(|o| match o {
                Operand::Value(v) => Some(*v),
                Operand::Absent | Operand::Scalar(_) | Operand::Constant(..) => None,
            })
            .collect();
        Ok(Match { replaces: cx.out(plan.node), sources, growth_bytes: 0, plan })
    }
    fn action(&self, plan: Plan, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        let mut inputs = vec![];
        for operand in plan.operands {
            inputs.push(match operand {
                Operand::Absent => None,
                Operand::Value(v) | Operand::Scalar(v) => Some(v),
                Operand::Constant(source, moved) => {
                    let key = match &plan.layout {
                        Layout::Transpose(perm) => format!("operand before {perm:?}"),
                        Layout::Reshape(..) => format!("operand as {:?}", moved.shape()),
                    };
                    Some(b.derived(&source, &key, "operand", |_| Ok(moved))?)
                }
            });
        }
        let y = b.repeat(plan.node, &inputs)?;
        match plan.layout {
            Layout::Transpose(perm) => b.transpose(y, &perm),
            Layout::Reshape(node, ..) => b.repeat_on(node, y),
        }
    }
}

fn is_elementwise(cx: &Cx<'_>, node: NodeId) -> bool {
    cx.op_in(node, UNARY).is_some() || cx.op_in(node, BROADCASTING).is_some_and(|op| op.version >= 7)
}

/// The layout that makes the first operand that has one, and the value before it.
fn layout_before(cx: &Cx<'_>, node: NodeId) -> Option<(Layout, ValueId)> {
    cx.graph().inputs_of(node).into_iter().flatten().find_map(|v| layout_of(cx, v))
}

fn layout_of(cx: &Cx<'_>, value: ValueId) -> Option<(Layout, ValueId)> {
    if let Some((x, perm)) = transpose_behind(cx, value) {
        return Some((Layout::Transpose(perm), x));
    }
    let (node, x) = reshape_behind(cx, value)?;
    Some((Layout::Reshape(node, cx.shape(x)?.clone(), cx.shape(value)?.clone()), x))
}

/// Each operand in the layout of x; `None` where one does not fit.
fn operands(cx: &Cx<'_>, node: NodeId, layout: &Layout) -> Option<Vec<Operand>> {
    let unary = cx.op_in(node, UNARY).is_some();
    let channelwise = cx.op(node, "BatchNormalization").is_some();
    if channelwise && !matches!(layout, Layout::Reshape(_, from, to) if to.len() >= 2 && ones_apart(from, to))
    {
        return None;
    }
    let operand = |(i, input): (usize, Option<ValueId>)| {
        let Some(value) = input else { return Some(Operand::Absent) };
        // the bounds of Clip and the statistics of BatchNormalization do not lie along x
        if i > 0 && (unary || channelwise) {
            return Some(Operand::Scalar(value));
        }
        match (cx.constant(value), layout_of(cx, value)) {
            (Some(t), _) => constant_operand(value, t, layout),
            (None, Some((own, x))) if same_layout(&own, layout) => Some(Operand::Value(x)),
            (None, _) => None,
        }
    };
    cx.graph().inputs_of(node).into_iter().enumerate().map(operand).collect()
}

fn same_layout(a: &Layout, b: &Layout) -> bool {
    match (a, b) {
        (Layout::Transpose(p), Layout::Transpose(q)) => p == q,
        (Layout::Reshape(_, from, to), Layout::Reshape(_, from2, to2)) => {
            same_shape(from, from2) && same_shape(to, to2)
        }
        (Layout::Transpose(_), Layout::Reshape(..)) | (Layout::Reshape(..), Layout::Transpose(_)) => false,
    }
}

/// Whether one shape is the other with extents of 1 at the end.
fn ones_apart(a: &[Dim], b: &[Dim]) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let (same, rest) = long.split_at(short.len());
    same_shape(short, same) && rest.iter().all(|d| *d == Dim::Known(1))
}

/// A constant operand as it must stand beside x before the layout; `None` where it cannot.
fn constant_operand(value: ValueId, t: Tensor, layout: &Layout) -> Option<Operand> {
    let moved = match layout {
        Layout::Transpose(perm) => {
            let ones = perm.len().checked_sub(t.rank())?;
            if t.len() == 1 {
                return Some(Operand::Scalar(value));
            }
            let full = [vec![1; ones], t.shape().to_vec()].concat();
            permute(&t.reshaped(full).ok()?, &inverse(perm)).ok()?
        }
        Layout::Reshape(_, from, to) => {
            if t.len() == 1 && t.rank() <= from.len().min(to.len()) {
                return Some(Operand::Scalar(value));
            }
            // [N,C,1,1] -> [N,C]: an operand [C] is [C,1,1] before
            let ones = from.len().checked_sub(to.len())?;
            if !ones_apart(from, to) || t.rank() > to.len() {
                return None;
            }
            t.reshaped([t.shape(), &vec![1; ones]].concat()).ok()?
        }
    };
    Some(Operand::Constant(t, moved))
}

/// Values that the search for what undoes a layout looks at.
const SEARCHED: usize = 64;

/// Whether behind elementwise operators a user of the value undoes the layout.
fn is_undone(cx: &Cx<'_>, value: ValueId, layout: &Layout) -> bool {
    let mut seen = BTreeSet::from([value]);
    let mut work = vec![value];
    while let Some(value) = work.pop() {
        for (user, _) in cx.graph().users(value) {
            let out = cx.out(user);
            if undoes(cx, user, layout) {
                return true;
            }
            let passes = is_elementwise(cx, user) || cx.op(user, "BatchNormalization").is_some();
            if passes && seen.len() < SEARCHED && seen.insert(out) {
                work.push(out);
            }
        }
    }
    false
}

fn undoes(cx: &Cx<'_>, user: NodeId, layout: &Layout) -> bool {
    match layout {
        Layout::Transpose(p) => {
            cx.op(user, "Transpose").is_some()
                && perm(cx, user, p.len()).is_ok_and(|q| {
                    is_identity(&q.iter().filter_map(|&i| p.get(i).copied()).collect::<Vec<_>>())
                })
        }
        Layout::Reshape(_, from, _) => {
            super::layout::is_reshape(cx, user)
                && cx.shape(cx.out(user)).is_some_and(|to| same_elements_shape(from, to))
        }
    }
}
