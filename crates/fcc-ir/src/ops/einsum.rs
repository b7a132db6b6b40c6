//! `Einsum`. <https://onnx.ai/onnx/operators/onnx__Einsum.html>
use crate::limits::check;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::broadcast;
use crate::ops::numeric::{Num, with_num};
use crate::{Dim, Error, OpNode, Result, TensorType, Value};
use std::collections::BTreeMap;

/// `Einsum`.
pub struct Einsum;

/// A label of an axis: a letter, or a place in the axes that `...` stands for, counted from the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// An axis of the ellipsis; the last one is 0.
    Ellipsis(usize),
    /// A letter.
    Letter(char),
}

/// An equation for inputs of known ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equation {
    /// The labels of each input's axes.
    pub inputs: Vec<Vec<Label>>,
    /// The labels of the output's axes.
    pub output: Vec<Label>,
}

fn bad(equation: &str, wanted: impl Into<String>) -> Error {
    Error::mismatch("attribute `equation`", format!("`{equation}`"), wanted.into())
}

/// The labels of one term; `ellipsis` axes stand for `...`.
fn labels(term: &str, ellipsis: usize, equation: &str) -> Result<Vec<Label>> {
    let letters = |s: &str| -> Result<Vec<Label>> {
        let letter = |c: char| {
            if c.is_ascii_alphabetic() {
                Ok(Label::Letter(c))
            } else {
                Err(bad(equation, "letters, `...`, `,` and `->`"))
            }
        };
        s.chars().map(letter).collect()
    };
    match term.split_once("...") {
        None => letters(term),
        Some((head, tail)) => {
            let middle = (0..ellipsis).rev().map(Label::Ellipsis);
            Ok(letters(head)?.into_iter().chain(middle).chain(letters(tail)?).collect())
        }
    }
}

impl Equation {
    /// Reads the attribute for inputs of these ranks. Errors on a malformed equation or other ranks.
    pub fn parse(node: &OpNode, ranks: &[usize]) -> Result<Equation> {
        let text = node
            .attrs
            .str("equation")?
            .ok_or_else(|| Error::mismatch("attribute `equation`", "none", "an equation"))?;
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match plain.split_once("->") {
            Some((l, r)) => (l, Some(r)),
            None => (plain.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(bad(text, format!("{} terms, one for each input", ranks.len())));
        }
        let mut inputs = vec![];
        let mut widest = 0;
        for (term, rank) in terms.iter().zip(ranks) {
            let letters = term.replacen("...", "", 1).chars().count();
            let rest = rank.checked_sub(letters).filter(|r| *r == 0 || term.contains("..."));
            let ellipsis = rest.ok_or_else(|| bad(text, format!("`{term}` to label {rank} axes")))?;
            widest = widest.max(ellipsis);
            inputs.push(labels(term, ellipsis, text)?);
        }
        let output = match right {
            Some(term) => labels(term, widest, text)?,
            None => {
                // all axes of the ellipsis, then the letters that occur once, in alphabetical order
                let mut count = BTreeMap::new();
                inputs.iter().flatten().for_each(|l| *count.entry(*l).or_insert(0) += 1);
                let once = count.iter().filter(|(l, n)| **n == 1 && matches!(l, Label::Letter(_)));
                let dots = (0..widest).rev().map(Label::Ellipsis);
                dots.chain(once.map(|(l, _)| *l)).collect()
            }
        };
        let known = |l: &Label| inputs.iter().any(|i| i.contains(l));
        let twice = |(i, l): (usize, &Label)| output[..i].contains(l);
        if !output.iter().all(known) || output.iter().enumerate().any(twice) {
            return Err(bad(text, "each label of the output once, and in an input"));
        }
        Ok(Equation { inputs, output })
    }
    /// The labels that are summed over, in order.
    pub fn summed(&self) -> Vec<Label> {
        let mut labels: Vec<Label> = self.inputs.iter().flatten().copied().collect();
        labels.sort_unstable();
        labels.dedup();
        labels.retain(|l| !self.output.contains(l));
        labels
    }
    /// The extent of every label; an extent of 1 stretches.
    fn extents(&self, shapes: &[&[usize]]) -> Result<BTreeMap<Label, usize>> {
        let mut extents = BTreeMap::new();
        for (label, &d) in self.inputs.iter().zip(shapes).flat_map(|(l, s)| l.iter().zip(s.iter())) {
            let e = extents.entry(*label).or_insert(d);
            if *e == 1 {
                *e = d;
            } else if d != 1 && *e != d {
                return Err(Error::mismatch(format!("extent of {label:?}"), d, *e));
            }
        }
        Ok(extents)
    }
}

/// Strides of an input along `axes`; a label that occurs twice walks the diagonal.
fn strides(labels: &[Label], shape: &[usize], axes: &[Label]) -> Vec<usize> {
    let steps = broadcast::strides(shape, shape);
    let along = |axis: &Label| labels.iter().zip(&steps).filter(|(l, _)| *l == axis).map(|(_, s)| s).sum();
    axes.iter().map(along).collect()
}

impl Operator for Einsum {
    fn schema(&self) -> Schema {
        Schema { name: "Einsum", domain: "", since: &[12, 28], inputs: (1, usize::MAX), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let shapes: Vec<_> = (0..cx.inputs.len()).map(|i| cx.shape(i)).collect::<Result<_>>()?;
        let Some(shapes) = shapes.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(vec![TensorType::unranked(dtype).into()]);
        };
        let equation = Equation::parse(cx.node, &shapes.iter().map(|s| s.len()).collect::<Vec<_>>())?;
        let mut extents: BTreeMap<Label, Dim> = BTreeMap::new();
        for (label, d) in equation.inputs.iter().zip(&shapes).flat_map(|(l, s)| l.iter().zip(s.iter())) {
            let so_far = extents.remove(label).unwrap_or(Dim::Known(1));
            extents.insert(*label, broadcast::dims(&[&[so_far], std::slice::from_ref(d)])?.remove(0));
        }
        let out = equation.output.iter().map(|l| extents.get(l).cloned().unwrap_or_default());
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let inputs: Vec<_> = (0..cx.inputs.len()).map(|i| cx.tensor(i)).collect::<Result<_>>()?;
        let shapes: Vec<&[usize]> = inputs.iter().map(|t| t.shape()).collect();
        let equation = Equation::parse(cx.node, &shapes.iter().map(|s| s.len()).collect::<Vec<_>>())?;
        let extents = equation.extents(&shapes)?;
        let axes: Vec<Label> = equation.output.iter().copied().chain(equation.summed()).collect();
        let space: Vec<usize> = axes.iter().map(|l| extents[l]).collect();
        let (out, inner) = space.split_at(equation.output.len());
        let terms: usize = inner.iter().product();
        let Some(first) = inputs.first() else {
            return Err(Error::mismatch("number of inputs", 0, "at least 1"));
        };
        with_num!(first.dtype(), T => {
            let values = inputs.iter().map(|t| T::load(t)).collect::<Result<Vec<_>>>()?;
            let steps: Vec<Vec<usize>> =
                equation.inputs.iter().zip(&shapes).map(|(l, s)| strides(l, s, &axes)).collect();
            let mut y = vec![T::ZERO; out.iter().product()];
            // the output's axes come first, so each output's terms are neighbours
            let mut number = 0;
            walk(&space, &steps, |at| {
                let product = values.iter().zip(at).fold(T::ONE, |p, (v, i)| p.times(v[*i]));
                let slot = &mut y[number / terms];
                *slot = slot.plus(product);
                number += 1;
            });
            Ok(vec![T::store(first.dtype(), out, y)?.into()])
        })
    }
}

/// Calls `f` with the linear index into each input for every point of a space in row-major order.
fn walk(space: &[usize], steps: &[Vec<usize>], mut f: impl FnMut(&[usize])) {
    if space.contains(&0) {
        return;
    }
    let mut index = vec![0usize; space.len()];
    let mut at = vec![0usize; steps.len()];
    while check().is_ok() {
        f(&at);
        let mut axis = space.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            at.iter_mut().zip(steps).for_each(|(a, s)| *a += s[axis]);
            if index[axis] < space[axis] {
                break;
            }
            at.iter_mut().zip(steps).for_each(|(a, s)| *a -= s[axis] * space[axis]);
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn labels_sum_stretch_and_walk_diagonals() {
        let t = |shape: &[usize], v: &[f32]| Some(Tensor::new(shape, v.to_vec()).unwrap());
        let m = t(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let run = |equation: &str, inputs: &[Option<Tensor>]| {
            let y = eval1("Einsum", 12, Attrs::new().with("equation", equation), inputs)?;
            Ok::<_, crate::Error>((y.shape().to_vec(), y.as_slice::<f32>()?.to_vec()))
        };
        assert_eq!(run("ii", std::slice::from_ref(&m)).unwrap(), (vec![], vec![5.0]));
        assert_eq!(run("ij->ji", std::slice::from_ref(&m)).unwrap().1, [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(run("...j, j", &[m.clone(), t(&[2], &[1.0, 10.0])]).unwrap(), (vec![2], vec![21.0, 43.0]));
        for bad in ["ij,jk", "ijk", "ij->ik", "i1->i", "ij->ii"] {
            assert!(run(bad, std::slice::from_ref(&m)).is_err(), "{bad}");
        }
    }
}
