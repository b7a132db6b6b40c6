//! A body in the place of the node that would run it: the branch of an `If`, the body of a function.
use super::{Graph, NewNode, NodeId, NodeKind, Output, Slot, ValueId};
use crate::attr::Attrs;
use crate::{Error, Result};
use std::collections::HashMap;

impl Graph {
    /// Puts the nodes of `body` in the place of node `at`: `inputs` feed the body's inputs by slot (`None` leaves what
    /// reads them without), its captures are what `at` captures, its outputs go to the users of `at`'s outputs.
    /// Names that are taken in this graph get others; that a subgraph may have the same is for who writes files to
    /// mind, not for who computes.
    ///
    /// Errors where the body reads what it is not given; the graph is of no use then.
    pub fn splice(&mut self, at: NodeId, body: &Graph, inputs: &[Option<ValueId>]) -> Result<()> {
        let captures = self.captures_of(at);
        let mut here: HashMap<ValueId, ValueId> = HashMap::new();
        let mut given: HashMap<NodeId, Option<ValueId>> = HashMap::new();
        for (i, input) in body.inputs.iter().enumerate() {
            given.insert(input.node, inputs.get(i).copied().flatten());
        }
        for id in body.topological()? {
            let first = ValueId { node: id, output: 0 };
            let replaced = given.get(&id).copied().flatten();
            match (&body.node(id).kind, replaced) {
                (_, Some(v)) => {
                    here.insert(first, v);
                }
                (NodeKind::Input, None) => {}
                (NodeKind::Capture(i), None) => {
                    let outer = captures.get(*i as usize).copied();
                    let missing = || Error::invalid(format!("{} is not given", body.place(id)));
                    here.insert(first, outer.ok_or_else(missing)?);
                }
                (NodeKind::Constant(_) | NodeKind::SparseConstant(_) | NodeKind::Op(_), None) => {
                    self.splice_node(at, body, id, &mut here)?
                }
            }
        }
        for (i, output) in body.outputs.iter().enumerate() {
            let old = ValueId { node: at, output: i as u32 };
            if self.node(at).outputs.get(i).is_none_or(|o| o.name.is_empty()) {
                continue;
            }
            let missing = || Error::invalid(format!("output `{}` is not computed", output.info.name));
            let mut new = here.get(&output.value).copied().ok_or_else(missing)?;
            // a graph's output needs a value of its own, which takes the output's name
            if self.is_output(old) && (self.op(new.node).is_none() || self.is_output(new)) {
                new = self.identity(new, at)?;
            }
            self.replace_uses(old, new)?;
        }
        self.remove(at)
    }

    /// A copy of one node of the body.
    fn splice_node(
        &mut self,
        at: NodeId,
        body: &Graph,
        id: NodeId,
        here: &mut HashMap<ValueId, ValueId>,
    ) -> Result<()> {
        let node = body.node(id);
        let fresh = |o: &Output| match o.name.is_empty() {
            true => o.clone(),
            false => Output { name: self.name_inside(at, &o.name), ty: o.ty.clone() },
        };
        let outputs: Vec<Output> = node.outputs.iter().map(fresh).collect();
        let rank = self.node(at).rank;
        let copy = self.insert(node.name.clone(), node.kind.clone(), outputs, Some(rank))?;
        for i in 0..node.outputs.len() as u32 {
            here.insert(ValueId { node: id, output: i }, ValueId { node: copy, output: i });
        }
        for (i, v) in body.inputs_of(id).into_iter().enumerate() {
            if let Some(v) = v.and_then(|v| here.get(&v)) {
                self.connect_new(*v, copy, Slot::Input(i as u32));
            }
        }
        for (i, v) in body.captures_of(id).into_iter().enumerate() {
            let missing = || Error::invalid(format!("value `{}` is not computed", body.value_name(v)));
            let v = *here.get(&v).ok_or_else(missing)?;
            self.connect_new(v, copy, Slot::Capture(i as u32));
        }
        Ok(())
    }

    /// A name that no value of this graph has: the body's own, or one that begins with what `at` makes.
    fn name_inside(&self, at: NodeId, own: &str) -> String {
        if !self.names.contains_key(own) {
            return own.into();
        }
        let maker = self.node(at).outputs.iter().map(|o| o.name.as_str()).find(|n| !n.is_empty());
        let mut name = format!("{}/{own}", maker.unwrap_or("body"));
        while self.names.contains_key(&name) {
            name.push('\'');
        }
        name
    }

    fn identity(&mut self, of: ValueId, at: NodeId) -> Result<ValueId> {
        let name = self.name_inside(at, &format!("{}.out", self.value_name(of)));
        let node = NewNode {
            op_type: "Identity",
            domain: "",
            name: name.clone(),
            inputs: vec![Some(of)],
            outputs: vec![name],
            attrs: Attrs::new(),
        };
        Ok(ValueId { node: self.add_op_at(node, at)?, output: 0 })
    }
}

#[cfg(test)]
mod tests {
    use crate::interp::{self, Values};
    use crate::{Model, Op, Tensor, text, verify};

    /// The model with its first `If` replaced by a branch.
    fn taken(source: &str, branch: &str) -> Model {
        let mut m = text::parse(source).unwrap();
        let ops = m.graph.ops().unwrap();
        let at = ops.into_iter().find(|id| m.graph.op(*id).unwrap().op == Op::If).unwrap();
        let body = m.graph.op(at).unwrap().attrs.need_graph(branch).unwrap().clone();
        m.graph.splice(at, &body, &[]).unwrap();
        verify::verify(&m).unwrap();
        m
    }

    #[test]
    fn a_branch_takes_the_place_of_its_if() {
        let source = r#"<ir_version: 8, opset_import: ["" : 18]>
            main (bool c, float[2] x) => (float[2] y, float[2] z, float[2] u) {
              h = Neg(x)
              y, z, u = If(c) <
                then_branch = a () => (float[2] p, float[2] q, float[2] r) {
                  h_1 = Abs(h) p = If(c) <
                    then_branch = aa () => (float[2] s) { s = Add(h_1, x) },
                    else_branch = bb () => (float[2] s2) { s2 = Sub(h_1, x) }
                  >
                  q = Identity(x)
                  r = Identity(h_1)
                },
                else_branch = b () => (float[2] t, float[2] t2, float[2] t3) {
                  t = Exp(x) t2 = Identity(t) t3 = Identity(h)
                }
              >
            }"#;
        let whole = text::parse(source).unwrap();
        for (c, branch) in [(true, "then_branch"), (false, "else_branch")] {
            let inputs = Values::from([
                ("c".to_string(), Tensor::from_bools([], [c]).unwrap().into()),
                ("x".to_string(), Tensor::new([2], vec![3f32, -2.0]).unwrap().into()),
            ]);
            let got = interp::run(&taken(source, branch), &inputs).unwrap();
            assert_eq!(got, interp::run(&whole, &inputs).unwrap());
        }
    }

    #[test]
    fn a_body_that_passes_values_through_keeps_the_outputs_names() {
        let source = r#"<ir_version: 8, opset_import: ["" : 18]>
            main (bool c, float[2] x) => (float[2] y, float[2] z) {
              y, z = If(c) <
                then_branch = a () => (float[2] x, float[2] d) { d = Identity(x) },
                else_branch = b () => (float[2] p, float[2] q) { p = Neg(x) q = Identity(p) }
              >
            }"#;
        let m = taken(source, "then_branch");
        let names: Vec<&str> = m.graph.outputs.iter().map(|o| m.graph.value_name(o.value)).collect();
        assert_eq!(names, ["y", "z"]);
    }
}
