//! A graph specialised by the types of its inputs: plans are made when new types are seen, and kept in a bounded cache.
//!
//! The main graph is a segment. Where an operator's output shape depends on data, the plan ends; what follows is a
//! segment of its own, whose inputs are the values that cross the cut.
use crate::compiled::Options;
use crate::plan::{Outcome, Plan, Profile};
use crate::pool::Pool;
use fcc_ir::infer::infer_facts;
use fcc_ir::interp::eval_graph;
use fcc_ir::op::Fact;
use fcc_ir::{Function, Graph, Model, NodeKind, Result, Value, ValueType};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The types of all inputs, `None` for an overridable initializer that keeps its value.
pub(crate) type Types = Vec<Option<ValueType>>;

/// What every segment of a model shares.
pub(crate) struct Shared {
    pub functions: Vec<Function>,
    pub options: Options,
    pub pool: Pool,
}

type Cache = Mutex<Vec<(Types, Arc<Plan>)>>;

pub(crate) struct Segment {
    graph: Graph,
    shared: Arc<Shared>,
    /// Most recently used last.
    cache: Cache,
    /// Plans for inputs on which a kernel raised its flag, made of plain kernels only.
    plain: Cache,
}

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The plan for these types, which becomes the most recently used.
fn cached(cache: &Cache, types: &[Option<ValueType>]) -> Option<Arc<Plan>> {
    let mut cache = lock(cache);
    let at = cache.iter().position(|(t, _)| t == types)?;
    if at + 1 != cache.len() {
        let entry = cache.remove(at);
        cache.push(entry);
    }
    cache.last().map(|(_, plan)| plan.clone())
}

impl Segment {
    /// The main graph of a model.
    pub fn main(model: &Model, options: &Options) -> Result<Segment> {
        let pool = Pool::new(options.threads);
        let shared = Shared { functions: model.functions.clone(), options: options.clone(), pool };
        Ok(Segment::new(model.graph.clone(), Arc::new(shared)))
    }
    pub fn new(graph: Graph, shared: Arc<Shared>) -> Segment {
        Segment { graph, shared, cache: Mutex::default(), plain: Mutex::default() }
    }
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// The inputs' types, if all of them are declared as tensors of fixed shape.
    pub fn fixed_types(&self) -> Option<Types> {
        let inputs = self.graph.inputs.iter();
        inputs
            .map(|i| match (&self.graph.node(i.node).kind, i.info.ty.as_tensor()) {
                (NodeKind::Input, Some(t)) => t.known_shape().map(|_| Some(i.info.ty.clone())),
                (NodeKind::Input, None) => None,
                _ => Some(None),
            })
            .collect()
    }

    /// Runs the segment on its inputs by slot.
    pub fn run(
        &self,
        mut given: Vec<Option<Value>>,
        mut profile: Option<&mut Profile>,
    ) -> Result<Vec<Value>> {
        for (input, value) in self.graph.inputs.iter().zip(&mut given) {
            if let (None, ValueType::Optional(ty)) = (&value, &input.info.ty) {
                *value = Some(Value::Optional((**ty).clone(), None));
            }
        }
        let types: Types = given.iter().map(|v| v.as_ref().map(Value::value_type)).collect();
        let plan = self.plan(&types)?;
        let mut outcome = plan.run(&self.shared, &given, profile.as_deref_mut())?;
        if matches!(outcome, Outcome::Flagged) {
            // what was logged so far is part of this run's time
            outcome = self.plain_plan(&types)?.run(&self.shared, &given, profile.as_deref_mut())?;
        }
        let start = Instant::now();
        let mut interpreted = |why: &str| {
            if let Some(p) = profile.as_deref_mut() {
                p.add_interpreted(why, start);
            }
        };
        match outcome {
            Outcome::Done(outputs) => Ok(outputs),
            Outcome::Surprise(why) => {
                // shape inference promised a type that the operator did not make: the interpreter needs no promise
                let outputs = self.interpret(given)?;
                interpreted(&why);
                self.keep(&self.cache, types, Arc::new(Plan::interpreted(why)));
                Ok(outputs)
            }
            // plain kernels raise no flags
            Outcome::Interpret | Outcome::Flagged => {
                let outputs = self.interpret(given)?;
                interpreted(plan.interpreted_whole().unwrap_or_default());
                Ok(outputs)
            }
        }
    }
    fn interpret(&self, given: Vec<Option<Value>>) -> Result<Vec<Value>> {
        eval_graph(&self.graph, &self.shared.functions, given, &[], &mut |_, _, _| {})
    }

    /// The plan for inputs of these types, made now if it is not in the cache.
    pub fn plan(&self, types: &[Option<ValueType>]) -> Result<Arc<Plan>> {
        self.plan_in(&self.cache, types, false)
    }
    /// The plan of plain kernels.
    fn plain_plan(&self, types: &[Option<ValueType>]) -> Result<Arc<Plan>> {
        self.plan_in(&self.plain, types, true)
    }
    fn plan_in(&self, cache: &Cache, types: &[Option<ValueType>], plain: bool) -> Result<Arc<Plan>> {
        if let Some(plan) = cached(cache, types) {
            return Ok(plan);
        }
        let plan = Arc::new(self.specialise(types, plain)?);
        self.keep(cache, types.to_vec(), plan.clone());
        Ok(plan)
    }
    fn keep(&self, cache: &Cache, types: Types, plan: Arc<Plan>) {
        let mut cache = lock(cache);
        cache.retain(|(t, _)| *t != types);
        if cache.len() >= self.shared.options.cached_shapes.max(1) {
            cache.remove(0);
        }
        cache.push((types, plan));
    }

    fn specialise(&self, types: &[Option<ValueType>], plain: bool) -> Result<Plan> {
        let mut graph = self.graph.clone();
        // an initializer that is not given is a constant like any other; one that is given is an input
        let mut slots = vec![];
        let inputs = std::mem::take(&mut graph.inputs);
        let mut facts: Vec<Fact> = vec![];
        for (slot, (mut input, ty)) in inputs.into_iter().zip(types).enumerate() {
            let Some(ty) = ty else { continue };
            graph.node_mut(input.node).kind = NodeKind::Input;
            graph.set_ty(fcc_ir::ValueId { node: input.node, output: 0 }, ty.clone());
            input.info.ty = ty.clone();
            facts.push(ty.clone().into());
            slots.push(slot);
            graph.inputs.push(input);
        }
        graph.sweep();
        match infer_facts(&graph, &self.shared.functions, Some(&facts), &[]) {
            Ok(facts) => Plan::build(graph, &slots, &facts, &self.shared, plain),
            // the interpreter says what is wrong, or runs what inference is too strict for (a branch not taken)
            Err(why) => Ok(Plan::interpreted(why.to_string())),
        }
    }
}
