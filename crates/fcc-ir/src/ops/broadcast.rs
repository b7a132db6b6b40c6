//! Multidirectional broadcasting. <https://onnx.ai/onnx/repo-docs/Broadcasting.html>
use crate::limits::check;
use crate::op::InferCtx;
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType};

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
                // min(n, k) against n: either they are equal, or one is 1 and the other is n (extents of 0 aside)
                (a, b) if a.is_min_of(b) => b.clone(),
                (a, b) if b.is_min_of(a) => a.clone(),
                _ => Dim::Unknown,
            };
        }
    }
    Ok(out)
}

/// Element strides that read an input of `shape` as if it had the shape `out` (0 along broadcast axes). Where `shape` has
/// more axes, those in front have one element, as a scale `[1]` beside a scalar.
pub fn strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; out.len()];
    let mut step = 1;
    for i in (0..shape.len()).rev() {
        if let Some(o) = (out.len() + i).checked_sub(shape.len())
            && shape[i] != 1
        {
            strides[o] = step;
        }
        step *= shape[i];
    }
    strides
}

/// Calls `f` with the linear index into each input for every output element in row-major order, up to where a limit of
/// the run is reached (see [`watched`](crate::limits::watched)).
pub(crate) fn for_each<const N: usize>(out: &[usize], strides: [&[usize]; N], mut f: impl FnMut([usize; N])) {
    if out.contains(&0) {
        return;
    }
    let mut index = vec![0usize; out.len()];
    let mut at = [0usize; N];
    while check().is_ok() {
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

/// The shape of b under the broadcasting before opset 7: with `broadcast = 1` b lies along the axes of a that begin at
/// `axis` (by default the last ones), else as it is. Errors if it does not fit.
pub fn legacy_shape<T: Clone>(node: &OpNode, a_rank: usize, b: &[T], one: T) -> Result<Vec<T>> {
    if node.version >= 7 || !node.attrs.flag("broadcast", false)? {
        return Ok(b.to_vec());
    }
    let suffix = a_rank.checked_sub(b.len());
    let Some(suffix) = suffix else {
        return Err(Error::mismatch("rank of the second input", b.len(), format!("at most {a_rank}")));
    };
    let axis = match node.attrs.int("axis")? {
        Some(a) => crate::op::axis(a, a_rank)?,
        None => suffix,
    };
    let tail = suffix.checked_sub(axis).ok_or_else(|| {
        Error::mismatch(
            "attribute `axis`",
            axis,
            format!("at most {suffix} for an input of rank {}", b.len()),
        )
    })?;
    Ok(b.iter().cloned().chain(std::iter::repeat_n(one, tail)).collect())
}

/// Both inputs of a binary operator, the second one shaped for numpy broadcasting, and the output shape.
pub fn operands(node: &OpNode, a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor, Vec<usize>)> {
    let b = b.reshaped(legacy_shape(node, a.rank(), b.shape(), 1)?)?;
    let out = shape(&[a.shape(), b.shape()])?;
    Ok((a.clone(), b, out))
}

/// The broadcast type of some inputs, with the given element type.
pub fn infer(cx: &InferCtx<'_>, inputs: impl IntoIterator<Item = usize>, dtype: DType) -> Result<TensorType> {
    let mut shapes: Vec<Vec<Dim>> = vec![];
    for i in inputs {
        let Some(s) = cx.shape(i)? else { return Ok(TensorType::unranked(dtype)) };
        let s = match shapes.first() {
            Some(first) => legacy_shape(cx.node, first.len(), s, Dim::Known(1))?,
            None => s.clone(),
        };
        shapes.push(s);
    }
    let shapes: Vec<&[Dim]> = shapes.iter().map(Vec::as_slice).collect();
    Ok(TensorType { dtype, shape: Some(dims(&shapes)?) })
}

/// `f` of every pair of elements of two inputs broadcast to `out`.
pub(crate) fn map2<A: Copy, B: Copy, C>(
    (a, a_shape): (&[A], &[usize]),
    (b, b_shape): (&[B], &[usize]),
    out: &[usize],
    mut f: impl FnMut(A, B) -> C,
) -> Vec<C> {
    if a_shape == out && b_shape == out {
        return a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect();
    }
    let mut y = Vec::with_capacity(out.iter().product());
    for_each(out, [&strides(a_shape, out), &strides(b_shape, out)], |[i, k]| y.push(f(a[i], b[k])));
    y
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

    #[test]
    fn axes_of_one_in_front_of_a_smaller_shape_are_read_as_none() {
        assert_eq!(strides(&[1], &[]), Vec::<usize>::new());
        assert_eq!(strides(&[1, 1, 3], &[2, 3]), [0, 1]);
        assert_eq!(strides(&[2, 1], &[2, 3]), [1, 0]);
    }
}
