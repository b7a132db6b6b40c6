//! A graph specialised by the types of its inputs: plans are made when new types are seen, and kept in a bounded cache.
//!
//! The main graph is a segment. Where an operator's output shape depends on data, the plan ends; what follows is a
//! segment of its own, whose inputs are the values that cross the cut. So is each subgraph of an operator, with what
//! it captures as inputs.
use crate::asm::Isa;
use crate::choices::problem::Setting;
use crate::compiled::Options;
use crate::host::Ensembles;
use crate::plan::{Outcome, Plan, Profile};
use crate::pool::Pool;
use crate::splice::settle;
use fcc_ir::infer::infer_facts;
use fcc_ir::interp::eval_graph;
use fcc_ir::limits;
use fcc_ir::op::Fact;
use fcc_ir::{Dim, Effects, Function, Graph, Model, NodeKind, Result, Value, ValueType};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The types of all inputs, `None` for an overridable initializer that keeps its value.
pub(crate) type Types = Vec<Option<ValueType>>;

/// What every segment of a model shares.
pub(crate) struct Shared {
    pub functions: Vec<Function>,
    /// Which operators unused outputs do not make dead code.
    pub effects: Effects,
    pub options: Options,
    pub pool: Pool,
    /// The tree ensembles, for the plans of all segments.
    pub ensembles: Ensembles,
}

impl Shared {
    /// What choices depend on beside the problem.
    pub fn setting(&self) -> Setting {
        let Options { isa, threads, precision, .. } = self.options;
        Setting { isa: Isa::within(isa), threads: threads.max(1), precision }
    }
}

/// Sets of types that the body of a loop is compiled for when they are first seen; more are compiled when they come
/// again: a loop whose values grow has new ones in each turn.
const EAGER: usize = 2;
/// Sets of types seen once that are remembered.
const REMEMBERED: usize = 64;

pub(crate) struct Segment {
    graph: Graph,
    shared: Arc<Shared>,
    /// How many sets of types are compiled when they are first seen.
    eager: usize,
    /// Whether an input may be left out because it is an optional value.
    optionals: bool,
    cache: Mutex<Cache>,
    /// Plans for inputs on which a kernel raised its flag, made of plain kernels only.
    plain: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// Most recently used last.
    plans: Vec<(Types, Arc<Plan>)>,
    compiled: usize,
    seen: Vec<Types>,
}

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn types_of(given: &[Option<&Value>]) -> Types {
    given.iter().map(|v| v.map(Value::value_type)).collect()
}

/// The first plan whose types fit, which becomes the most recently used.
fn cached(cache: &Mutex<Cache>, fits: impl Fn(&Types) -> bool) -> Option<Arc<Plan>> {
    let plans = &mut lock(cache).plans;
    let at = plans.iter().rposition(|(t, _)| fits(t))?;
    if at + 1 != plans.len() {
        let entry = plans.remove(at);
        plans.push(entry);
    }
    plans.last().map(|(_, plan)| plan.clone())
}

/// Whether the values are of these types, without making theirs.
fn fit(types: &[Option<ValueType>], given: &[Option<&Value>]) -> bool {
    let one = |(ty, value): (&Option<ValueType>, &Option<&Value>)| match (ty, value) {
        (None, None) => true,
        (Some(ValueType::Tensor(ty)), Some(Value::Tensor(t))) => {
            let same = |(d, n): (&Dim, &usize)| matches!(d, Dim::Known(k) if k == n);
            let shape = ty.shape.as_deref().unwrap_or(&[]);
            let fits = ty.shape.is_some() && shape.len() == t.rank() && shape.iter().zip(t.shape()).all(same);
            ty.dtype == t.dtype() && fits
        }
        (Some(ty), Some(value)) => *ty == value.value_type(),
        _ => false,
    };
    types.len() == given.len() && types.iter().zip(given).all(one)
}

impl Segment {
    /// The main graph of a model.
    pub fn main(model: &Model, options: &Options) -> Result<Segment> {
        let pool = Pool::new(options.threads);
        let (functions, options) = (model.functions.clone(), options.clone());
        let effects = Effects::new(&functions);
        let shared = Shared { functions, effects, options, pool, ensembles: Ensembles::default() };
        Ok(Segment::new(model.graph.clone(), Arc::new(shared)))
    }
    pub fn new(graph: Graph, shared: Arc<Shared>) -> Segment {
        let optionals = graph.inputs.iter().any(|i| matches!(i.info.ty, ValueType::Optional(_)));
        let (cache, plain) = (Mutex::default(), Mutex::default());
        Segment { graph, shared, eager: usize::MAX, optionals, cache, plain }
    }
    /// The subgraph of an operator.
    pub fn body(graph: Graph, shared: Arc<Shared>) -> Segment {
        Segment { eager: EAGER, ..Segment::new(graph, shared) }
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
    pub fn run(&self, given: &[Option<&Value>], profile: Option<&mut Profile>) -> Result<Vec<Value>> {
        if self.optionals {
            return self.run_with_optionals(given, profile);
        }
        self.run_all(given, profile)
    }
    /// An optional input that is left out is an optional without a value.
    fn run_with_optionals(
        &self,
        given: &[Option<&Value>],
        profile: Option<&mut Profile>,
    ) -> Result<Vec<Value>> {
        let nothing = |ty: &ValueType| match ty {
            ValueType::Optional(ty) => Some(Value::Optional((**ty).clone(), None)),
            _ => None,
        };
        let empty: Vec<Option<Value>> = self.graph.inputs.iter().map(|i| nothing(&i.info.ty)).collect();
        let all: Vec<Option<&Value>> = given.iter().zip(&empty).map(|(g, e)| g.or(e.as_ref())).collect();
        self.run_all(&all, profile)
    }
    fn run_all(&self, given: &[Option<&Value>], profile: Option<&mut Profile>) -> Result<Vec<Value>> {
        let plan = match self.at_hand(given) {
            Some(plan) => plan,
            None => {
                let types = types_of(given);
                if self.waits(&types) {
                    let start = Instant::now();
                    let made = self.interpret(given);
                    if let Some(profile) = profile {
                        profile.add_interpreted("types that are new in each turn", start);
                    }
                    return made;
                }
                self.plan(&types)?
            }
        };
        self.run_plan(&plan, given, profile)
    }
    /// Runs a plan that was made for the types of `given`.
    pub fn run_plan(
        &self,
        plan: &Plan,
        given: &[Option<&Value>],
        mut profile: Option<&mut Profile>,
    ) -> Result<Vec<Value>> {
        let mut outcome = plan.run(&self.shared, given, profile.as_deref_mut())?;
        if matches!(outcome, Outcome::Flagged) {
            // what was logged so far is part of this run's time
            let plain = self.plan_in(&self.plain, &types_of(given), true)?;
            outcome = plain.run(&self.shared, given, profile.as_deref_mut())?;
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
                self.keep(&self.cache, types_of(given), Arc::new(Plan::interpreted(why)));
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
    fn interpret(&self, given: &[Option<&Value>]) -> Result<Vec<Value>> {
        let given = given.iter().map(|v| v.cloned()).collect();
        eval_graph(&self.graph, &self.shared.functions, given, &[], &mut |_, _, _| {})
    }

    /// The plan for inputs of these types, made now if it is not in the cache.
    pub fn plan(&self, types: &[Option<ValueType>]) -> Result<Arc<Plan>> {
        self.plan_in(&self.cache, types, false)
    }
    /// The same in one of the caches; `plain`: of plain kernels.
    fn plan_in(&self, cache: &Mutex<Cache>, types: &[Option<ValueType>], plain: bool) -> Result<Arc<Plan>> {
        if let Some(plan) = cached(cache, |t| t == types) {
            return Ok(plan);
        }
        let plan = Arc::new(self.specialise(types, plain)?);
        // a plan that was made in haste is not kept
        limits::check_now()?;
        self.keep(cache, types.to_vec(), plan.clone());
        Ok(plan)
    }
    /// The plan for these inputs, if there is one.
    pub fn at_hand(&self, given: &[Option<&Value>]) -> Option<Arc<Plan>> {
        cached(&self.cache, |t| fit(t, given))
    }
    /// Whether inputs of these types are left to the interpreter, this first time that they are seen.
    fn waits(&self, types: &Types) -> bool {
        let cache = &mut *lock(&self.cache);
        if cache.compiled < self.eager {
            return false;
        }
        if cache.seen.contains(types) {
            return false;
        }
        if cache.seen.len() >= REMEMBERED {
            cache.seen.remove(0);
        }
        cache.seen.push(types.clone());
        true
    }
    fn keep(&self, cache: &Mutex<Cache>, types: Types, plan: Arc<Plan>) {
        let cache = &mut *lock(cache);
        cache.plans.retain(|(t, _)| *t != types);
        if cache.plans.len() >= self.shared.options.cached_shapes.max(1) {
            cache.plans.remove(0);
        }
        cache.plans.push((types, plan));
        cache.compiled += 1;
    }

    fn specialise(&self, types: &[Option<ValueType>], plain: bool) -> Result<Plan> {
        let mut graph = self.graph.clone();
        // an initializer that is not given is a constant like any other; one that is given is an input
        let mut slots = vec![];
        let inputs = std::mem::take(&mut graph.inputs);
        let mut given: Vec<Fact> = vec![];
        for (slot, (mut input, ty)) in inputs.into_iter().zip(types).enumerate() {
            let Some(ty) = ty else { continue };
            graph.node_mut(input.node).kind = NodeKind::Input;
            graph.set_ty(fcc_ir::ValueId { node: input.node, output: 0 }, ty.clone());
            input.info.ty = ty.clone();
            given.push(ty.clone().into());
            slots.push(slot);
            graph.inputs.push(input);
        }
        graph.sweep(|op| self.shared.effects.has(op));
        let mut spliced = 0;
        loop {
            let facts = match infer_facts(&graph, &self.shared.functions, Some(&given), &[]) {
                Ok(facts) => facts,
                Err(why) if why.is_stopped() => return Err(why),
                // the interpreter says what is wrong, or runs what inference is too strict for (a branch not taken)
                Err(why) => return Ok(Plan::interpreted(why.to_string())),
            };
            match settle(&mut graph, &facts, &self.shared, spliced) {
                Ok(0) => return Plan::build(graph, &slots, &facts, &self.shared, plain),
                Ok(n) => spliced += n,
                Err(why) if why.is_stopped() => return Err(why),
                Err(why) => return Ok(Plan::interpreted(why.to_string())),
            }
        }
    }
}
