//! Tree ensembles: many rows, or many trees, go down side by side.
//!
//! A step that waits for a node's memory stands still; eight independent paths keep it busy. Paths go down without
//! branches: one that has reached its leaf stays there until all have. The weights of each row are added in the order of
//! the trees, as the interpreter adds them, so that the results are the same to the bit.
use super::{HostOp, elems, elems_mut, input};
use crate::pool::Pool;
use fcc_ir::ops::ml::real::Real;
use fcc_ir::ops::ml::tree::ensemble::{Ensemble, Mode, Node};
use fcc_ir::ops::ml::tree::head::Scores;
use fcc_ir::ops::ml::tree::{Prepared, Trees};
use fcc_ir::{DType, Error, OpNode, Result, limits};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

/// Paths that go down side by side.
const LANES: usize = 8;
/// Steps between two looks at whether all paths are at their leaves.
const STEPS: usize = 4;
/// Rows that go through all trees together: their features stay in the cache.
const BLOCK: usize = 64;
/// Trees of a task where one row has all threads.
const TREES: usize = 64;
/// Rows between two looks at limits.
const ROUND: usize = 4096;
/// Trees times rows from which on more than one thread pays.
const PARALLEL: usize = 2048;

/// The ensembles of a model, each read once for all plans and held as long as the model.
#[derive(Debug, Default)]
pub(crate) struct Ensembles(Mutex<Vec<(OpNode, DType, Arc<Prepared>)>>);

impl Ensembles {
    /// The ensemble of a node for an input of this type.
    pub fn of(&self, op: &OpNode, dtype: DType) -> Result<Arc<Prepared>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |o: &OpNode, d: DType| d == dtype && o.op_type == op.op_type && o.attrs.shares(&op.attrs);
        if let Some((.., prepared)) = known.iter().find(|(o, d, _)| same(o, *d)) {
            return Ok(prepared.clone());
        }
        let prepared = Arc::new(Prepared::of(op, dtype)?);
        // the lists are shared with the graph: the copy of the node holds nothing of its own
        known.push((op.clone(), dtype, prepared.clone()));
        Ok(prepared)
    }
}

/// `[N, 2 * targets]`: the scores of each row before anything follows, then 1 or 0 for each target: whether there was a
/// weight for it.
#[derive(Debug)]
pub(crate) struct TreeScores {
    pub trees: Arc<Prepared>,
    pub rows: usize,
    pub features: usize,
    /// The input's element type.
    pub dtype: DType,
}

/// What follows the trees: outputs or classes of all rows, out of what [`TreeScores`] made.
#[derive(Debug)]
pub(crate) struct TreeOutputs {
    pub trees: Arc<Prepared>,
    pub what: TreeOutput,
}

/// Which output of a tree operator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TreeOutput {
    /// Scores in f32 or f64.
    Scores(DType),
    /// The numbers of the classes, or their labels.
    Classes(Option<Vec<i64>>),
}

/// A path's next step.
trait Step<T: Real>: Sync {
    fn is_true(&self, node: &Node<T>, x: T) -> bool;
}
impl<T: Real, F: Fn(&Node<T>, T) -> bool + Sync> Step<T> for F {
    #[inline(always)]
    fn is_true(&self, node: &Node<T>, x: T) -> bool {
        self(node, x)
    }
}

/// Goes down to leaves from `at`, path `l` on the row that begins at `rows[l]`.
#[inline(always)]
fn walk<T: Real, const L: usize>(
    nodes: &[Node<T>],
    mut at: [u32; L],
    x: &[T],
    rows: [usize; L],
    step: &impl Step<T>,
) -> [u32; L] {
    loop {
        for _ in 0..STEPS {
            for l in 0..L {
                let node = &nodes[at[l] as usize];
                let below = node.next() + u32::from(!step.is_true(node, x[rows[l] + node.feature()]));
                at[l] = if node.is_branch() { below } else { at[l] };
            }
        }
        if at.iter().all(|a| !nodes[*a as usize].is_branch()) {
            return at;
        }
    }
}

/// Rows of features, and where their scores go.
struct Block<'a, T> {
    x: &'a [T],
    features: usize,
    out: &'a mut [T],
}

fn add<T: Real>(trees: &Trees<T>, leaf: u32, out: &mut [T]) {
    let (ensemble, how) = (&trees.ensemble, trees.head.aggregate);
    let (score, scored) = out.split_at_mut(ensemble.targets());
    let leaf = &ensemble.nodes()[leaf as usize];
    let mut one = |target: usize, weight: T| {
        score[target] = how.add(score[target], scored[target] != T::default(), weight);
        scored[target] = T::from_f64(1.0);
    };
    if ensemble.is_lone() {
        return one(0, leaf.value());
    }
    ensemble.weights(leaf).iter().for_each(|(target, weight)| one(*target as usize, *weight));
}

impl<T: Real> Block<'_, T> {
    /// All trees, each on all rows.
    fn score(&mut self, trees: &Trees<T>, step: &impl Step<T>) {
        let (nodes, width) = (trees.ensemble.nodes(), 2 * trees.ensemble.targets());
        let rows = self.out.len() / width;
        for root in trees.ensemble.roots() {
            let mut row = 0;
            while row + LANES <= rows {
                let begins: [usize; LANES] = std::array::from_fn(|l| (row + l) * self.features);
                let leaves = walk(nodes, [*root; LANES], self.x, begins, step);
                for (l, leaf) in leaves.into_iter().enumerate() {
                    add(trees, leaf, &mut self.out[(row + l) * width..][..width]);
                }
                row += LANES;
            }
            for row in row..rows {
                let [leaf] = walk(nodes, [*root], self.x, [row * self.features], step);
                add(trees, leaf, &mut self.out[row * width..][..width]);
            }
        }
    }
}

/// The leaves that one row reaches in some trees.
fn leaves_of_row<T: Real>(nodes: &[Node<T>], roots: &[u32], x: &[T], step: &impl Step<T>, out: &mut [u32]) {
    let (some, rest) = roots.as_chunks::<LANES>();
    let (out, out_rest) = out.as_chunks_mut::<LANES>();
    for (roots, out) in some.iter().zip(out) {
        *out = walk(nodes, *roots, x, [0; LANES], step);
    }
    for (root, out) in rest.iter().zip(out_rest) {
        [*out] = walk(nodes, [*root], x, [0], step);
    }
}

/// Runs `job` on pieces of a slice, on all threads of a pool if there is one.
fn in_pieces<T: Send>(
    pool: Option<&Pool>,
    all: &mut [T],
    piece: usize,
    job: impl Fn(usize, &mut [T]) + Sync,
) {
    let Some(pool) = pool else {
        all.chunks_mut(piece).enumerate().for_each(|(i, piece)| job(i, piece));
        return;
    };
    let pieces: Vec<Mutex<&mut [T]>> = all.chunks_mut(piece).map(Mutex::new).collect();
    pool.run(pieces.len(), &|i| job(i, &mut pieces[i].lock().unwrap_or_else(PoisonError::into_inner)));
}

fn scores<T: Real>(
    trees: &Trees<T>,
    x: &[T],
    features: usize,
    pool: Option<&Pool>,
    out: &mut [T],
    step: impl Step<T>,
) -> Result<()> {
    let ensemble = &trees.ensemble;
    let (width, roots) = (2 * ensemble.targets(), ensemble.roots());
    out.fill(T::default());
    for (x, out) in x.chunks(ROUND * features).zip(out.chunks_mut(ROUND * width)) {
        limits::check()?;
        let rows = out.len() / width;
        let pool = pool.filter(|_| rows * roots.len() >= PARALLEL);
        if rows >= LANES {
            in_pieces(pool, out, BLOCK * width, |i, out| {
                let x = &x[i * BLOCK * features..];
                Block { x, features, out }.score(trees, &step);
            });
            continue;
        }
        let mut leaves = vec![0; roots.len()];
        for (x, out) in x.chunks_exact(features).zip(out.chunks_exact_mut(width)) {
            in_pieces(pool, &mut leaves, TREES, |i, leaves| {
                let roots = &roots[i * TREES..][..leaves.len()];
                leaves_of_row(ensemble.nodes(), roots, x, &step, leaves);
            });
            leaves.iter().for_each(|leaf| add(trees, *leaf, out));
        }
    }
    Ok(())
}

/// [`scores`] with a step made for the ensemble's mode.
fn scores_by_mode<T: Real>(
    trees: &Trees<T>,
    x: &[T],
    features: usize,
    pool: Option<&Pool>,
    out: &mut [T],
) -> Result<()> {
    let ensemble: &Ensemble<T> = &trees.ensemble;
    ensemble.check(features)?;
    match (ensemble.mode(), ensemble.tracks()) {
        (Some(Mode::Leq), false) => scores(trees, x, features, pool, out, |n: &Node<T>, x: T| x <= n.value()),
        (Some(Mode::Lt), false) => scores(trees, x, features, pool, out, |n: &Node<T>, x: T| x < n.value()),
        (Some(Mode::Leq), true) => {
            let step = |n: &Node<T>, x: T| x <= n.value() || (x.is_nan() && n.nan_is_true());
            scores(trees, x, features, pool, out, step)
        }
        (Some(Mode::Lt), true) => {
            let step = |n: &Node<T>, x: T| x < n.value() || (x.is_nan() && n.nan_is_true());
            scores(trees, x, features, pool, out, step)
        }
        _ => {
            // a leaf holds no number of a set
            let step = |n: &Node<T>, x: T| n.is_branch() && ensemble.holds(n, x);
            scores(trees, x, features, pool, out, step)
        }
    }
}

/// An input's elements in the format that trees are computed in; `None` for a type that has none.
fn converted<T: Real>(bytes: &[u8], dtype: DType) -> Option<Cow<'_, [T]>> {
    let of = |v: f64| T::from_f64(v);
    Some(match dtype {
        _ if dtype == T::DTYPE => elems::<T>(bytes),
        DType::F32 => elems::<f32>(bytes).iter().map(|v| of(f64::from(*v))).collect(),
        DType::F64 => elems::<f64>(bytes).iter().map(|v| of(*v)).collect(),
        DType::I32 => elems::<i32>(bytes).iter().map(|v| of(f64::from(*v))).collect(),
        // rounded once: by way of f64 it would be twice
        DType::I64 if T::DTYPE == DType::F32 => {
            elems::<i64>(bytes).iter().map(|v| of(f64::from(*v as f32))).collect()
        }
        DType::I64 => elems::<i64>(bytes).iter().map(|v| of(*v as f64)).collect(),
        _ => return None,
    })
}

impl TreeScores {
    fn of<T: Real>(&self, trees: &Trees<T>, x: &[u8], pool: Option<&Pool>, out: &mut [u8]) -> Result<()> {
        let x = converted::<T>(x, self.dtype);
        let x =
            x.ok_or_else(|| Error::unsupported(format!("element type {} in a compiled step", self.dtype)))?;
        scores_by_mode(trees, &x, self.features, pool, elems_mut(out)?)
    }
}

impl HostOp for TreeScores {
    fn name(&self) -> String {
        let (trees, bytes) = match &*self.trees {
            Prepared::F32(t) => (t.ensemble.roots().len(), t.ensemble.bytes()),
            Prepared::F64(t) => (t.ensemble.roots().len(), t.ensemble.bytes()),
        };
        format!("{trees} trees of {bytes} bytes on {}x{}", self.rows, self.features)
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        self.run_on(None, inputs, output)
    }
    fn run_on(&self, pool: Option<&Pool>, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let x = input(inputs, 0)?;
        match &*self.trees {
            Prepared::F32(trees) => self.of(trees, x, pool, output),
            Prepared::F64(trees) => self.of(trees, x, pool, output),
        }
    }
}

impl TreeOutputs {
    fn of<T: Real>(&self, trees: &Trees<T>, raw: &[u8], out: &mut [u8]) -> Result<()> {
        let raw = elems::<T>(raw);
        match &self.what {
            TreeOutput::Scores(DType::F32) => {
                let out = elems_mut::<f32>(out)?;
                finish(trees, &raw, |row, scores| {
                    let n = trees.ensemble.targets();
                    trees.head.finish(scores, &mut out[row * n..][..n]);
                });
            }
            TreeOutput::Scores(DType::F64) => {
                let out = elems_mut::<f64>(out)?;
                finish(trees, &raw, |row, scores| {
                    let n = trees.ensemble.targets();
                    trees.head.finish(scores, &mut out[row * n..][..n]);
                });
            }
            TreeOutput::Scores(other) => {
                return Err(Error::unsupported(format!("scores of type {other} in a compiled step")));
            }
            TreeOutput::Classes(labels) => {
                let out = elems_mut::<i64>(out)?;
                let mut unused = vec![0.0f32; trees.ensemble.targets()];
                finish(trees, &raw, |row, scores| {
                    let class = trees.head.finish(scores, &mut unused);
                    out[row] = labels.as_ref().map_or(class as i64, |l| l[class]);
                });
            }
        }
        Ok(())
    }
}

/// Calls `done` with the number and the scores of each row.
fn finish<T: Real>(trees: &Trees<T>, raw: &[T], mut done: impl FnMut(usize, &mut Scores<T>)) {
    let targets = trees.ensemble.targets();
    let mut scores = Scores::new(targets);
    for (row, raw) in raw.chunks_exact(2 * targets).enumerate() {
        scores.score.copy_from_slice(&raw[..targets]);
        scores.scored.iter_mut().zip(&raw[targets..]).for_each(|(s, v)| *s = *v != T::default());
        done(row, &mut scores);
    }
}

impl HostOp for TreeOutputs {
    fn name(&self) -> String {
        match &self.what {
            TreeOutput::Scores(_) => "scores of trees".into(),
            TreeOutput::Classes(_) => "classes of trees".into(),
        }
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        match &*self.trees {
            Prepared::F32(trees) => self.of(trees, input(inputs, 0)?, output),
            Prepared::F64(trees) => self.of(trees, input(inputs, 0)?, output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fcc_ir::Op;
    use fcc_ir::attr::Attrs;

    #[test]
    fn an_ensemble_is_read_once_for_all_plans() {
        let op = |weight: f32| OpNode {
            op: Op::TreeEnsembleRegressor,
            domain: "ai.onnx.ml".into(),
            op_type: "TreeEnsembleRegressor".into(),
            overload: String::new(),
            version: 3,
            attrs: Attrs::new().with("n_targets", 1i64).with("base_values", vec![weight]),
            n_inputs: 1,
            device_configurations: vec![],
        };
        let (all, a) = (Ensembles::default(), op(1.0));
        let first = all.of(&a, DType::F32).unwrap();
        assert!(Arc::ptr_eq(&first, &all.of(&a.clone(), DType::F32).unwrap()));
        assert!(!Arc::ptr_eq(&first, &all.of(&a, DType::F64).unwrap()));
        // equal lists in another place are another ensemble
        assert!(!Arc::ptr_eq(&first, &all.of(&op(1.0), DType::F32).unwrap()));
    }
}
