//! From a specialised graph to a plan: constants are folded, the graph is cut where shapes depend on data.
use super::emit::Stop;
use super::fuse::fuse;
use super::info::NodeInfo;
use super::ir::{Dequantised, Kind, Node, Origin, Program, Val, Vx};
use super::{Level, Plan, Tail};
use crate::asm::Isa;
use crate::choices::problem::Chooser;
use crate::declined::Declined;
use crate::lower::{Cx, lower};
use crate::segment::{Segment, Shared};
use fcc_ir::infer::Facts;
use fcc_ir::interp::{call_target, eval_op};
use fcc_ir::limits;
use fcc_ir::ops::quantize::Granularity;
use fcc_ir::{DType, Graph, NodeId, NodeKind, Op, Result, Tensor, Value, ValueId, ValueInfo, ValueType};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A graph split at the operators whose output shapes depend on data.
struct Split {
    now: Vec<NodeId>,
    later: Vec<NodeId>,
}

impl Plan {
    /// Plans a graph whose input types are all known. `slots`: where each input of `graph` stands among the caller's.
    /// `plain`: only kernels that never say that their result is not to be used.
    pub(crate) fn build(
        graph: Graph,
        slots: &[usize],
        facts: &Facts,
        shared: &Arc<Shared>,
        plain: bool,
    ) -> Result<Plan> {
        let split = split(&graph, facts)?;
        let mut chooser = Chooser::new(shared.options.choices.as_deref(), shared.setting());
        let (level, why) = match shared.options.choices {
            Some(_) => {
                let (isa, alone, why) = chooser.plan(plan_name(&graph, facts, &split)?);
                (Level { isa, alone }, why)
            }
            None => (Level { isa: shared.options.isa, alone: None }, None),
        };
        // nodes that turn out to have no kernel are left to the interpreter, and the rest is planned again
        let mut denied: HashMap<NodeId, Declined> = HashMap::new();
        loop {
            match Plan::attempt(&graph, slots, facts, shared, level, &split, &denied, plain) {
                Err(Stop::NoKernel(nodes, why)) if nodes.iter().any(|n| !denied.contains_key(n)) => {
                    let why = Declined::new("kernel", why, "a problem that there is a kernel for");
                    denied.extend(nodes.into_iter().map(|n| (n, why.clone())));
                }
                Err(Stop::NoKernel(_, why)) => return Ok(Plan::interpreted(why)),
                Err(Stop::Error(e)) => return Err(e),
                Ok(mut plan) => {
                    plan.info.why = why;
                    plan.asked.splice(..0, chooser.asked());
                    return Ok(plan);
                }
            }
        }
    }

    fn attempt(
        graph: &Graph,
        slots: &[usize],
        facts: &Facts,
        shared: &Arc<Shared>,
        level: Level,
        split: &Split,
        denied: &HashMap<NodeId, Declined>,
        plain: bool,
    ) -> Result<Plan, Stop> {
        let mut builder = Builder {
            graph,
            facts,
            shared,
            isa: level.isa,
            denied,
            program: Program::default(),
            map: HashMap::new(),
        };
        for id in &split.now {
            limits::check()?;
            builder.node(*id)?;
        }
        let made_later: HashSet<NodeId> = split.later.iter().copied().collect();
        let crossing = crossing(graph, &split.later, &made_later);
        let fixed = |v: &ValueId| builder.map.get(v).and_then(|x| builder.program.val(*x).constant.clone());
        let (kept, crossing): (Vec<ValueId>, Vec<ValueId>) =
            crossing.into_iter().partition(|v| fixed(v).is_some());
        let kept: Vec<(ValueId, Tensor)> = kept.into_iter().filter_map(|v| Some((v, fixed(&v)?))).collect();
        let now_outputs: Vec<Option<ValueId>> =
            graph.outputs.iter().map(|o| (!made_later.contains(&o.value.node)).then_some(o.value)).collect();
        let (map, mut program) = (builder.map, builder.program);
        let lookup = |v: &ValueId| {
            map.get(v).copied().ok_or_else(|| {
                fcc_ir::Error::invalid(format!("value `{}` is not computed", graph.value_name(*v)))
            })
        };
        // the caller's outputs first, then what crosses the cut
        let mut outputs = vec![];
        for v in now_outputs.iter().flatten().chain(&crossing) {
            outputs.push(lookup(v)?);
        }
        program.outputs = outputs;
        for input in &graph.inputs {
            program.inputs.push(lookup(&ValueId { node: input.node, output: 0 })?);
        }
        let tail = if split.later.is_empty() {
            None
        } else {
            let rest = rest_of(graph, &split.later, &crossing, &kept)?;
            let order = now_outputs.iter().map(Option::is_some).collect();
            Some(Tail { segment: Segment::new(rest, shared.clone()), made_now: order })
        };
        fuse(&mut program);
        Plan::emit(&program, slots, tail, shared, level, plain)
    }
}

/// A name for the operators before the cut and their types: whole plans with the same name take the same time.
fn plan_name(graph: &Graph, facts: &Facts, split: &Split) -> Result<String> {
    // FNV-1a: the name must be the same in every build
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let mut operators = 0;
    for id in &split.now {
        let Some(op) = graph.op(*id) else { continue };
        operators += 1;
        add(&op.op_type);
        for v in graph.inputs_of(*id).into_iter().flatten().chain(graph.values_of(*id)) {
            add(&facts.get(v).ty.to_string());
        }
    }
    Ok(format!("plan of {operators} operators {hash:016x}"))
}

/// Whether a run can tell nothing new about the type.
fn settled(ty: &ValueType) -> bool {
    match ty {
        ValueType::Unknown => false,
        ValueType::Tensor(t) => t.known_shape().is_some(),
        _ => true,
    }
}

fn split(graph: &Graph, facts: &Facts) -> Result<Split> {
    let (mut now, mut later) = (vec![], vec![]);
    let mut unsettled: HashSet<NodeId> = HashSet::new();
    for id in graph.topological()? {
        let reads = graph.inputs_of(id).into_iter().flatten().chain(graph.captures_of(id));
        let waits = reads.into_iter().any(|v| {
            unsettled.contains(&v.node) || (graph.op(v.node).is_some() && !settled(&facts.get(v).ty))
        });
        if waits {
            unsettled.insert(id);
            later.push(id);
        } else {
            now.push(id);
        }
    }
    Ok(Split { now, later })
}

/// The values that nodes before the cut make and nodes after it read, each once, in a stable order.
fn crossing(graph: &Graph, later: &[NodeId], made_later: &HashSet<NodeId>) -> Vec<ValueId> {
    let mut seen = HashSet::new();
    let mut crossing = vec![];
    for id in later {
        for v in graph.inputs_of(*id).into_iter().flatten().chain(graph.captures_of(*id)) {
            let constant =
                matches!(graph.node(v.node).kind, NodeKind::Constant(_) | NodeKind::SparseConstant(_));
            if !made_later.contains(&v.node) && !constant && seen.insert(v) {
                crossing.push(v);
            }
        }
    }
    crossing
}

/// The graph after the cut: its inputs are the values that cross it; constants are kept as such.
fn rest_of(
    graph: &Graph,
    later: &[NodeId],
    crossing: &[ValueId],
    kept: &[(ValueId, Tensor)],
) -> Result<Graph> {
    let mut rest = graph.clone();
    let made_later: HashSet<NodeId> = later.iter().copied().collect();
    rest.outputs.retain(|o| made_later.contains(&o.value.node));
    rest.inputs.clear();
    let fresh = |rest: &Graph, old: ValueId| rest.fresh_name(&format!("{}.cut", rest.value_name(old)));
    let mut instead = vec![];
    for old in crossing {
        let name = fresh(&rest, *old);
        instead.push((*old, rest.add_input(ValueInfo::new(name, ValueType::Unknown))?));
    }
    for (old, tensor) in kept {
        let name = fresh(&rest, *old);
        instead.push((*old, rest.add_constant(&name, tensor.clone())?));
    }
    for (old, new) in instead {
        for (user, slot) in rest.users(old) {
            if made_later.contains(&user) {
                rest.connect(new, user, slot);
            }
        }
    }
    // what may have effects ran before the cut
    rest.sweep(|_| false);
    Ok(rest)
}

struct Builder<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    shared: &'a Shared,
    /// The level that kernels are made for.
    isa: Isa,
    denied: &'a HashMap<NodeId, Declined>,
    program: Program,
    map: HashMap<ValueId, Vx>,
}

impl Builder<'_> {
    fn value(&mut self, v: ValueId, constant: Option<Tensor>) -> Vx {
        let ty = match &constant {
            Some(t) => t.tensor_type().into(),
            None => self.facts.get(v).ty,
        };
        let name = self.graph.value_name(v).to_string();
        let vx = self.program.add(Val::new(name, ty, constant));
        self.map.insert(v, vx);
        vx
    }

    fn node(&mut self, id: NodeId) -> Result<()> {
        let first = ValueId { node: id, output: 0 };
        match &self.graph.node(id).kind {
            NodeKind::Input => {
                self.value(first, None);
            }
            NodeKind::Capture(_) => {
                return Err(fcc_ir::Error::invalid(format!("{} is not given", self.graph.place(id))));
            }
            NodeKind::Constant(c) => {
                let tensor = c.tensor.clone();
                self.value(first, Some(tensor));
            }
            NodeKind::SparseConstant(s) => {
                let tensor = s.tensor().to_dense()?;
                self.value(first, Some(tensor));
            }
            NodeKind::Op(_) => self.operator(id)?,
        }
        Ok(())
    }

    fn operator(&mut self, id: NodeId) -> Result<()> {
        let Some(op) = self.graph.op(id) else { return Ok(()) };
        self.origin(id, op);
        if let Some(folded) = self.fold(id, op)? {
            self.origin_mut(id, |o| o.constant = true);
            let from = self.dequantised(id, op);
            for (v, tensor) in self.graph.values_of(id).collect::<Vec<_>>().into_iter().zip(folded) {
                let vx = self.value(v, Some(tensor));
                self.program.vals[vx.at()].dequantised = from.clone();
            }
            return Ok(());
        }
        let inputs = self.graph.inputs_of(id);
        let captures = self.graph.captures_of(id);
        let reads = inputs.into_iter().chain(captures.iter().copied().map(Some));
        let inputs: Vec<Option<Vx>> = reads.map(|v| v.and_then(|v| self.map.get(&v).copied())).collect();
        let outputs = self.graph.node(id).outputs().to_vec();
        let outputs = outputs
            .iter()
            .enumerate()
            .map(|(i, o)| {
                (!o.name.is_empty()).then(|| self.value(ValueId { node: id, output: i as u32 }, None))
            })
            .collect();
        let outputs: Vec<Option<Vx>> = outputs;
        let place = self.graph.place(id);
        let declined = if !self.shared.options.kernels {
            Declined::new("kernels", "switched off", "on")
        } else if !captures.is_empty() {
            Declined::new("subgraphs", format!("{} values of the graph around them", captures.len()), "none")
        } else if call_target(op, &self.shared.functions).is_some() {
            Declined::new("operator", "a function of the model", "one that there is a kernel for")
        } else if let Some(why) = self.denied.get(&id) {
            why.clone()
        } else {
            // outputs that are listed and not read hinder no kernel
            let read = |v: &Option<Vx>, i: usize| {
                v.filter(|_| self.graph.use_count(ValueId { node: id, output: i as u32 }) > 0)
            };
            let outputs: Vec<Option<Vx>> = outputs.iter().enumerate().map(|(i, v)| read(v, i)).collect();
            let mut cx = Cx {
                op,
                program: &mut self.program,
                inputs: &inputs,
                outputs: &outputs,
                place: &place,
                origin: id,
                isa: Isa::within(self.isa).vectors(),
                ensembles: &self.shared.ensembles,
            };
            match lower(&mut cx) {
                Ok(()) => return Ok(()),
                Err(why) => why,
            }
        };
        self.origin_mut(id, |o| o.declined = Some(declined));
        let kind = Kind::Interpret { op: Box::new(op.clone()), captures: captures.len() };
        self.program.nodes.push(Node { place, kind, inputs, outputs, origins: vec![id] });
        Ok(())
    }

    /// Notes an operator for explanations.
    fn origin(&mut self, id: NodeId, op: &fcc_ir::OpNode) {
        let node = self.graph.node(id);
        let first = node.outputs().first().map_or("", |o| &o.name);
        let name = if node.name.is_empty() { first } else { &node.name };
        let info = NodeInfo { name: name.to_string(), op_type: op.op_type.clone() };
        let order = self.program.origins.len();
        self.program.origins.insert(id, Origin { info, order, constant: false, declined: None });
    }
    fn origin_mut(&mut self, id: NodeId, change: impl FnOnce(&mut Origin)) {
        if let Some(origin) = self.program.origins.get_mut(&id) {
            change(origin);
        }
    }

    /// What a folded `DequantizeLinear` of bytes began with.
    fn dequantised(&self, id: NodeId, op: &fcc_ir::OpNode) -> Option<Dequantised> {
        if op.op != Op::DequantizeLinear {
            return None;
        }
        let inputs = self.graph.inputs_of(id);
        let constant = |i: usize| {
            let v = inputs.get(i).copied().flatten()?;
            self.program.constant_of(*self.map.get(&v)?).cloned()
        };
        let (tensor, scale) = (constant(0)?, constant(1)?);
        let axis = match Granularity::new(op, tensor.shape(), scale.shape()).ok()? {
            Granularity::Tensor => None,
            Granularity::Axis { axis } => Some(axis),
            Granularity::Block { .. } => return None,
        };
        let scale = scale.as_slice::<f32>().ok()?.into_owned();
        let zero = match inputs.get(2).copied().flatten() {
            Some(_) => fcc_ir::convert::to_f64s(&constant(2)?).ok()?.into_iter().map(|z| z as i32).collect(),
            None => vec![0; scale.len()],
        };
        let bytes = matches!(tensor.dtype(), DType::U8 | DType::I8);
        (bytes && zero.len() == scale.len()).then_some(Dequantised { tensor, scale, zero, axis })
    }

    /// The outputs that are there, if they are the same in every run and not too large to keep. Errors if a limit of the
    /// run is reached.
    fn fold(&self, id: NodeId, op: &fcc_ir::OpNode) -> Result<Option<Vec<Tensor>>> {
        let values: Vec<ValueId> = self.graph.values_of(id).collect();
        let known: Option<Vec<Tensor>> = values.iter().map(|v| self.facts.get(*v).value).collect();
        if known.is_some() {
            return Ok(known);
        }
        let Some(inputs) = self.foldable(id, op, &values) else { return Ok(None) };
        let wanted: Vec<bool> = self.graph.node(id).outputs().iter().map(|o| !o.name.is_empty()).collect();
        let made = match eval_op(op, &self.shared.functions, &inputs, &[], &wanted) {
            Ok(made) => made,
            Err(why) if why.is_stopped() => return Err(why.at(self.graph.place(id))),
            // what fails here fails again in the run, with its place
            Err(_) => return Ok(None),
        };
        let kept = made.into_iter().zip(wanted).filter(|(_, w)| *w);
        Ok(kept.map(|(v, _)| if let Value::Tensor(t) = v { Some(t) } else { None }).collect())
    }

    /// The inputs of an operator, if they are constants and its outputs small enough to keep.
    fn foldable(&self, id: NodeId, op: &fcc_ir::OpNode, values: &[ValueId]) -> Option<Vec<Option<Value>>> {
        let random = op.op.is_random() || op.op == Op::Opaque || op.attrs.graphs().next().is_some();
        if random || !self.graph.captures_of(id).is_empty() {
            return None;
        }
        let mut inputs: Vec<Option<Value>> = vec![];
        for v in self.graph.inputs_of(id) {
            inputs.push(match v {
                None => None,
                Some(v) => Some(self.program.val(*self.map.get(&v)?).constant.clone()?.into()),
            });
        }
        let mut bytes = 0usize;
        for v in values {
            let ty = self.facts.get(*v).ty;
            let t = ty.as_tensor()?;
            bytes = bytes.checked_add(t.dtype.byte_len(fcc_ir::elem_count(&t.known_shape()?).ok()?)?)?;
        }
        if bytes > self.shared.options.fold_budget_bytes {
            return None;
        }
        Some(inputs)
    }
}
