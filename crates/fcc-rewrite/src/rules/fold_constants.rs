//! Nodes whose value is the same in every run, computed now.
use crate::builder::Builder;
use crate::context::Cx;
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use fcc_ir::interp::eval_op;
use fcc_ir::{NodeId, Op, Tensor, Value, ValueId};

rule_type! {
    /// `f(constants) => the constant that f computes`
    ///
    /// # What
    /// An operator whose inputs are all constant is replaced by its value, computed by the reference interpreter.
    /// So is one whose value follows from shapes alone, such as `Shape` of a tensor of fixed extents.
    ///
    /// # Why
    /// Exporters leave transposed weights and shape arithmetic in the graph; other rules look for constants.
    ///
    /// # Example
    /// ```text
    /// t = Transpose<perm=[1,0]>(w)   # w is an initializer
    /// y = MatMul(x, t)
    /// ```
    /// becomes
    /// ```text
    /// y = MatMul(x, t)               # t is an initializer
    /// ```
    ///
    /// # Declines
    /// - the value would be larger than the limit and larger than what it is computed from;
    /// - random operators, operators with subgraphs, and `DequantizeLinear` and `QuantizeLinear`, which say how a
    ///   model is quantised;
    /// - outputs of the graph: they must come from an operator.
    pub(crate) struct FoldConstants = "fold-constants";
}

impl Rule for FoldConstants {
    type Found = NodeId;
    type Plan = Tensor;
    fn name(&self) -> &str {
        Self::NAME
    }
    fn doc(&self) -> &str {
        Self::DOC
    }
    fn traits(&self) -> Traits {
        Traits { repeats: true, ..Traits::default() }
    }
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<NodeId> {
        let op = cx.graph().op(node)?;
        let fixed = matches!(op.op, Op::Opaque | Op::Constant)
            || op.op.is_random()
            || op.attrs.graphs().next().is_some()
            || matches!(op.op, Op::QuantizeLinear | Op::DynamicQuantizeLinear | Op::DequantizeLinear);
        if fixed || cx.graph().node(node).outputs().len() != 1 {
            return None;
        }
        let inputs = cx.graph().inputs_of(node);
        let constant = !inputs.is_empty() && inputs.iter().flatten().all(|v| cx.constant(*v).is_some());
        (constant || cx.value(cx.out(node)).is_some()).then_some(node)
    }
    fn guard(&self, cx: &Cx<'_>, node: NodeId) -> Result<Match<Tensor>, Declined> {
        let value = cx.out(node);
        if cx.graph().is_output(value) {
            return Err(Declined::new(
                format!("`{}`", cx.graph().value_name(value)),
                "an output of the graph",
                "an inner value",
            ));
        }
        let inputs: Vec<Option<Tensor>> =
            cx.graph().inputs_of(node).iter().map(|v| v.and_then(|v| cx.constant(v))).collect();
        let given: u64 = inputs.iter().flatten().map(|t| t.byte_len() as u64).sum();
        let allowed = given.max(cx.limits().folded_bytes);
        let known = cx.value(value);
        let predicted = match &known {
            Some(t) => Some(t.byte_len()),
            None => {
                cx.tensor(value).and_then(|t| t.dtype.byte_len(fcc_ir::elem_count(&t.known_shape()?).ok()?))
            }
        };
        match predicted {
            Some(bytes) if bytes as u64 <= allowed => {}
            // the shape depends on the data, as in NonZero: no larger than a few times the input
            None if given <= 1 << 16 => {}
            got => {
                let got = got.map_or("an unknown number of bytes".into(), |b| format!("{b} bytes"));
                return Err(Declined::new("size of the value", got, format!("at most {allowed} bytes")));
            }
        }
        let tensor = match known {
            Some(known) => known,
            None => {
                let Some(op) = cx.graph().op(node) else {
                    return Err(Declined::new("node", cx.graph().place(node), "an operator"));
                };
                let inputs: Vec<Option<Value>> = inputs.into_iter().map(|t| t.map(Value::from)).collect();
                let made = eval_op(op, cx.functions, &inputs, &[], &[true])?;
                match made.into_iter().next() {
                    Some(Value::Tensor(t)) => t,
                    _ => return Err(Declined::new("value", "no tensor", "a tensor")),
                }
            }
        };
        let freed: u64 = cx
            .graph()
            .inputs_of(node)
            .into_iter()
            .flatten()
            .filter(|v| cx.graph().use_count(*v) == 1)
            .filter_map(|v| cx.constant(v))
            .map(|t| t.byte_len() as u64)
            .sum();
        let growth_bytes = (tensor.byte_len() as u64).saturating_sub(freed);
        Ok(Match { replaces: value, sources: vec![], growth_bytes, plan: tensor })
    }
    fn action(&self, tensor: Tensor, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        b.constant("folded", tensor)
    }
}
