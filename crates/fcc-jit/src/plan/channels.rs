//! What views and copies do to activations, said so that blocked layouts can stay.
//!
//! 1. A view to the same shape is its input.
//! 2. `View(Copy(View(x)))` in which whole channels change their places, a channel shuffle, becomes a selection.
use super::ir::{Kind, Node, Program, Vx};

pub(super) fn simplify(program: &mut Program) {
    same_shape(program);
    let makers = program.makers();
    for n in 0..program.nodes.len() {
        if let Some((x, sources)) = shuffle(program, &makers, n) {
            let node = &mut program.nodes[n];
            node.kind = Kind::Select { sources, fill: 0.0 };
            node.inputs = vec![Some(x)];
        }
    }
}

/// Law 1. What reads the view reads its input; the view counts as done by the node that makes it.
fn same_shape(program: &mut Program) {
    let makers = program.makers();
    let mut instead: Vec<Vx> = (0..program.vals.len() as u32).map(Vx).collect();
    for n in 0..program.nodes.len() {
        for input in program.nodes[n].inputs.iter_mut().flatten() {
            *input = instead[input.at()];
        }
        let node = &program.nodes[n];
        let (Kind::View, Some(x), Some(y)) = (&node.kind, node.input(0), node.out()) else { continue };
        let same = program.val(x).dense.is_some() && program.val(x).dense == program.val(y).dense;
        let (true, Some(maker)) = (same && !program.outputs.contains(&y), makers[x.at()]) else { continue };
        instead[y.at()] = x;
        let origins = program.nodes[n].origins.clone();
        program.nodes[maker].origins.extend(origins);
    }
}

/// Law 2 for the node that makes the result: the input, and for each axis the sources of its positions.
fn shuffle(program: &Program, makers: &[Option<usize>], n: usize) -> Option<(Vx, Vec<Vec<Option<usize>>>)> {
    let before = |v: Vx| makers[v.at()].map(|m| &program.nodes[m]);
    let node = &program.nodes[n];
    let y = node.out()?;
    let copy: &Node = match node.kind {
        Kind::View => before(node.input(0)?)?,
        _ => node,
    };
    let Kind::Copy { offset, dims } = &copy.kind else { return None };
    let mut x = copy.input(0)?;
    if let Some(view) = before(x).filter(|m| matches!(m.kind, Kind::View)) {
        x = view.input(0)?;
    }
    let (from, to) = (program.val(x).f32_shape()?, program.val(y).f32_shape()?);
    if !(3..=5).contains(&from.len()) || from.len() != to.len() || from[2..] != to[2..] || from[0] != to[0] {
        return None;
    }
    let plane = from[2..].iter().product::<usize>();
    let planes = planes(*offset, dims, plane)?;
    let first: Vec<usize> = planes.iter().take(to[1]).copied().collect();
    let moved = |(i, p): (usize, &usize)| first.get(i % to[1]).is_some_and(|s| *p == i / to[1] * from[1] + s);
    if first.iter().any(|s| *s >= from[1]) || !planes.iter().enumerate().all(moved) {
        return None;
    }
    let whole = |n: &usize| (0..*n).map(Some).collect();
    let mut sources: Vec<Vec<Option<usize>>> = to.iter().map(whole).collect();
    sources[1] = first.into_iter().map(Some).collect();
    Some((x, sources))
}

/// For each plane of `plane` elements that a copy makes, which plane of its source it is; `None` if it copies others
/// than whole planes.
fn planes(offset: usize, dims: &[(usize, i64)], plane: usize) -> Option<Vec<usize>> {
    let (mut inside, mut outer) = (1, dims.len());
    while inside < plane {
        let (count, step) = *dims.get(outer.checked_sub(1)?)?;
        if count != 1 && step != inside as i64 {
            return None;
        }
        (inside, outer) = (inside * count, outer - 1);
    }
    if inside != plane {
        return None;
    }
    let mut at = vec![offset as i64];
    for (count, step) in &dims[..outer] {
        at = at.iter().flat_map(|a| (0..*count as i64).map(move |i| a + i * step)).collect();
    }
    let plane = plane as i64;
    at.iter().map(|a| if a % plane == 0 { usize::try_from(a / plane).ok() } else { None }).collect()
}
