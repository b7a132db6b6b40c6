//! Stretches of changed nodes between the values that two models share by name, computed on both sides in `f64`.
use crate::frontier::Shared;
use crate::same::same_producer;
use crate::side::{Constants, Side, inert};
use crate::sizes::widened;
use crate::verify::{as_f64s, index_of};
use fcc_ir::interp::Values;
use fcc_ir::{At, Error, Model, NodeId, Result, Value, ValueId, ValueInfo};
use std::collections::{BTreeSet, HashSet};

/// What both models share and where they differ.
pub(crate) struct Stretches<'m> {
    original: &'m Model,
    rewritten: &'m Model,
    shared: Shared<'m>,
    /// In the order of the rewritten graph.
    targets: Vec<Target>,
    /// By side: the original, the rewritten model.
    inert: [HashSet<NodeId>; 2],
}

/// A shared value whose node differs: there both sides are compared.
struct Target {
    name: String,
    /// In the original.
    was: ValueId,
    /// In the rewritten model.
    is: ValueId,
    /// Shared values that are computed with it rather than read: as few as may do, then all that may be needed.
    opened: Vec<BTreeSet<String>>,
}

/// One value compared.
pub(crate) struct Compared {
    pub value: String,
    pub place: String,
    pub elements: usize,
    /// The largest error in parts of its bound.
    pub worst: f64,
    /// The largest bound in parts of the largest element.
    pub coarseness: f64,
    pub differs: Option<ElementDiffers>,
}

/// A second look at a difference counts only where its bounds are finer than this: behind many layers a bound of
/// absolute products explains anything.
const FINE: f64 = 1e-9;

pub(crate) struct ElementDiffers {
    pub index: Vec<usize>,
    pub original: String,
    pub rewritten: String,
    pub bound: f64,
}

impl<'m> Stretches<'m> {
    pub(crate) fn new(original: &'m Model, rewritten: &'m Model) -> Result<Stretches<'m>> {
        let (a, b) = (&original.graph, &rewritten.graph);
        for o in &a.outputs {
            if !b.outputs.iter().any(|p| p.info.name == o.info.name) {
                let wanted = format!("`{}`", o.info.name);
                return Err(Error::mismatch("outputs of the rewritten model", "none", wanted));
            }
        }
        let shared = Shared::new(a, b)?;
        let mut targets = vec![];
        for id in b.ops()? {
            for is in b.values_of(id).filter(|v| shared.contains(b.value_name(*v))) {
                let name = b.value_name(is).to_string();
                let Some(was) = a.value(&name).filter(|_| !same_producer(original, rewritten, is)) else {
                    continue;
                };
                let mut opened = vec![shared.opened(&name), shared.opened_wide(&name)];
                opened.dedup();
                targets.push(Target { opened, name, was, is });
            }
        }
        let inert = [inert(original)?, inert(rewritten)?];
        Ok(Stretches { original, rewritten, shared, targets, inert })
    }

    /// The original with every value that the comparison reads as an output.
    pub(crate) fn observed_model(&self) -> Model {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for Target { name, opened, .. } in &self.targets {
            for (graph, opened) in [&self.original.graph, &self.rewritten.graph]
                .into_iter()
                .flat_map(|graph| opened.iter().map(move |opened| (graph, opened)))
            {
                names.extend(self.shared.reads(graph, name, opened, false));
            }
        }
        let mut model = self.original.clone();
        for name in names {
            if let Some(value) = model.graph.value(&name)
                && !model.graph.is_output(value)
                && model.graph.op(value.node).is_some()
            {
                let info = ValueInfo::new(name, model.graph.ty(value).clone());
                model.graph.add_output(value, info);
            }
        }
        model
    }

    /// Compares every target. `run`: the outputs of [`Stretches::observed_model`].
    pub(crate) fn compare<'s>(
        &'s self,
        given: &'s Values,
        run: &'s Values,
    ) -> impl Iterator<Item = Result<Compared>> + 's {
        self.targets.iter().map(move |target| self.compare_value(target, given, run))
    }

    /// Equal with constants as they are folded, or with all of them computed in `f64`; with few values opened or with
    /// more: each says that both sides are the same function.
    fn compare_value(&self, target: &Target, given: &Values, run: &Values) -> Result<Compared> {
        let mut first = None;
        for opened in &target.opened {
            for constants in [Constants::AsFolded, Constants::Wide] {
                let found = self.compare_with(target, opened, given, run, constants)?;
                if found.differs.is_none() && (first.is_none() || found.coarseness <= FINE) {
                    return Ok(found);
                }
                first = first.or(Some(found));
            }
        }
        first.ok_or_else(|| Error::invalid(format!("`{}` was not compared", target.name)))
    }

    fn compare_with(
        &self,
        target: &Target,
        opened: &BTreeSet<String>,
        given: &Values,
        run: &Values,
        constants: Constants,
    ) -> Result<Compared> {
        let name = target.name.clone();
        let place = self.rewritten.graph.place(target.is.node);
        let side = |model: &'m Model, which: usize| {
            Side::new(model, &self.shared, opened, given, run, &self.inert[which], constants)
        };
        let (mut was, mut is) = (side(self.original, 0), side(self.rewritten, 1));
        let a = was.node(target.was).at(|| "the original")?;
        let b = is.node(target.is).at(|| "the rewritten model")?;
        let terms = was.terms.saturating_add(is.terms) as f64;
        let native = a.native.max(b.native);
        let mut compared =
            Compared { value: name, place, elements: 0, worst: 0.0, coarseness: 0.0, differs: None };
        let (Value::Tensor(x), Value::Tensor(y)) = (&a.value, &b.value) else {
            if a.value != b.value {
                compared.differs = Some(ElementDiffers {
                    index: vec![],
                    original: a.value.value_type().to_string(),
                    rewritten: b.value.value_type().to_string(),
                    bound: 0.0,
                });
            }
            return Ok(compared);
        };
        compared.elements = x.len();
        let types_differ = x.shape() != y.shape() || (widened(x).dtype() != widened(y).dtype());
        let (x, y) = match (types_differ, as_f64s(x), as_f64s(y)) {
            (false, Some(xs), Some(ys)) => (xs, ys),
            (false, _, _) if x.bytes() == y.bytes() => return Ok(compared),
            _ => {
                compared.differs = Some(ElementDiffers {
                    index: vec![],
                    original: format!("{x:?}"),
                    rewritten: format!("{y:?}"),
                    bound: 0.0,
                });
                return Ok(compared);
            }
        };
        let shape = b.value.as_tensor()?.shape().to_vec();
        let unit = native.max(f64::EPSILON);
        let (of_a, of_b) = (a.size(), b.size());
        let largest = x.iter().filter(|v| v.is_finite()).fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
        for (i, (x, y)) in x.iter().zip(&y).enumerate() {
            if x == y || (x.is_nan() && y.is_nan()) {
                continue;
            }
            let size = of_a.get(i).copied().unwrap_or(0.0).max(of_b.get(i).copied().unwrap_or(0.0));
            let (error, bound) = ((x - y).abs(), 2.0 * unit * terms * size);
            compared.coarseness = compared.coarseness.max(bound / largest);
            let explained = error <= bound;
            if !explained {
                compared.worst = f64::INFINITY;
                compared.differs = Some(ElementDiffers {
                    index: index_of(i, &shape),
                    original: x.to_string(),
                    rewritten: y.to_string(),
                    bound,
                });
                return Ok(compared);
            }
            compared.worst = compared.worst.max(error / bound);
        }
        Ok(compared)
    }
}
