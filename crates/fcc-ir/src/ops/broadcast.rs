//! Multidirectional broadcasting. <https://onnx.ai/onnx/repo-docs/Broadcasting.html>
use crate::{Dim, Error, Result};

/// The shape to which `shapes` broadcast. Errors if two extents differ and neither is 1.
pub fn shape(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1usize; rank];
    for s in shapes {
        for (o, &d) in out[rank - s.len()..].iter_mut().zip(s.iter()) {
            match (*o, d) {
                (a, b) if a == b || b == 1 => {}
                (1, b) => *o = b,
                _ => return Err(Error::mismatch("broadcast", format!("{shapes:?}"), "equal extents or 1")),
            }
        }
    }
    Ok(out)
}

/// The shape to which symbolic shapes broadcast: an extent that may be 1 or not is unknown.
pub fn dims(shapes: &[&[Dim]]) -> Result<Vec<Dim>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![Dim::Known(1); rank];
    for s in shapes {
        for (o, d) in out[rank - s.len()..].iter_mut().zip(s.iter()) {
            *o = match (&*o, d) {
                (a, Dim::Known(1)) => a.clone(),
                (Dim::Known(1), b) => b.clone(),
                (Dim::Known(a), Dim::Known(b)) if a != b => {
                    return Err(Error::mismatch("broadcast", format!("{a} and {b}"), "equal extents or 1"));
                }
                (a @ Dim::Known(_), _) => a.clone(),
                (_, b @ Dim::Known(_)) => b.clone(),
                (a, b) if a.same(b) => a.clone(),
                _ => Dim::Unknown,
            };
        }
    }
    Ok(out)
}

/// Element strides that read an input of `shape` as if it had the shape `out` (0 along broadcast axes).
pub fn strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; out.len()];
    let mut step = 1;
    for i in (0..shape.len()).rev() {
        let o = out.len() - shape.len() + i;
        if shape[i] != 1 {
            strides[o] = step;
        }
        step *= shape[i];
    }
    strides
}

/// Calls `f` with the linear index into each input for every output element in row-major order.
pub fn for_each<const N: usize>(out: &[usize], strides: [&[usize]; N], mut f: impl FnMut([usize; N])) {
    if out.contains(&0) {
        return;
    }
    let mut index = vec![0usize; out.len()];
    let mut at = [0usize; N];
    loop {
        f(at);
        let mut axis = out.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            index[axis] += 1;
            for (a, s) in at.iter_mut().zip(strides) {
                *a += s[axis];
            }
            if index[axis] < out[axis] {
                break;
            }
            for (a, s) in at.iter_mut().zip(strides) {
                *a -= s[axis] * out[axis];
            }
            index[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_of_one_stretch() {
        assert_eq!(shape(&[&[2, 1, 4], &[3, 1], &[]]).unwrap(), [2, 3, 4]);
        assert!(shape(&[&[2], &[3]]).is_err());
        assert_eq!(strides(&[3, 1], &[2, 3, 4]), [0, 1, 0]);
    }

    #[test]
    fn every_output_element_is_visited_in_order() {
        let out = [2, 3];
        let mut seen = vec![];
        for_each(&out, [&strides(&[2, 1], &out), &strides(&[3], &out)], |i| seen.push(i));
        assert_eq!(seen, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
    }
}
