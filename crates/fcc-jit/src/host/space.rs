//! Iteration over broadcast operands, row by row.
use fcc_ir::limits::check;
use fcc_ir::ops::broadcast;

/// The elements of an output, and where those of up to three inputs lie that belong to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Space {
    /// Extent and the inputs' steps in elements, outermost first, neighbours that all walk as one merged; the last
    /// one is the row.
    dims: Vec<(usize, [usize; 3])>,
}

impl Space {
    /// For inputs of these shapes, which stretch to `out`.
    pub fn new(shapes: &[&[usize]], out: &[usize]) -> Space {
        let strides: Vec<Vec<usize>> = shapes.iter().map(|s| broadcast::strides(s, out)).collect();
        let mut dims: Vec<(usize, [usize; 3])> = vec![];
        for (axis, n) in out.iter().enumerate().filter(|(_, n)| **n != 1) {
            let mut steps = [0; 3];
            for (to, from) in steps.iter_mut().zip(&strides) {
                *to = from[axis];
            }
            match dims.last_mut() {
                Some((count, outer)) if (0..3).all(|i| outer[i] == steps[i] * n) => {
                    (*count, *outer) = (*count * n, steps);
                }
                _ => dims.push((*n, steps)),
            }
        }
        if dims.is_empty() {
            dims.push((1, [0; 3]));
        }
        Space { dims }
    }
    /// Extent of a row and the inputs' steps in it.
    pub fn row(&self) -> (usize, [usize; 3]) {
        self.dims.last().copied().unwrap_or((1, [0; 3]))
    }
    /// Calls `f` with the inputs' first elements of each row, in the output's order, up to where the run is stopped.
    pub fn for_rows(&self, mut f: impl FnMut([usize; 3])) {
        let outer = &self.dims[..self.dims.len().saturating_sub(1)];
        if self.dims.iter().any(|d| d.0 == 0) {
            return;
        }
        let (mut index, mut at) = (vec![0usize; outer.len()], [0usize; 3]);
        while check().is_ok() {
            f(at);
            let mut axis = outer.len();
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                let (count, steps) = outer[axis];
                index[axis] += 1;
                at.iter_mut().zip(steps).for_each(|(a, s)| *a += s);
                if index[axis] < count {
                    break;
                }
                at.iter_mut().zip(steps).for_each(|(a, s)| *a -= s * count);
                index[axis] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_walk_as_one_are_merged() {
        let s = Space::new(&[&[2, 3, 4], &[3, 4], &[]], &[2, 3, 4]);
        assert_eq!(s.dims, [(2, [12, 0, 0]), (12, [1, 1, 0])]);
        let mut seen = vec![];
        s.for_rows(|at| seen.push(at));
        assert_eq!(seen, [[0, 0, 0], [12, 0, 0]]);
        assert_eq!(Space::new(&[&[1, 1]], &[1, 1]).dims, [(1, [0; 3])]);
    }

    #[test]
    fn a_space_without_elements_has_no_rows() {
        Space::new(&[&[0, 3], &[3]], &[0, 3]).for_rows(|_| panic!("a row"));
    }
}
