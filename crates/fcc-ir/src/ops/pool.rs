//! `MaxPool`, `AveragePool`, `LpPool`. <https://onnx.ai/onnx/operators/onnx__MaxPool.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::conv::{AutoPad, AxisGeometry, Window, indices};
use crate::ops::movement::new_elems;
use crate::ops::numeric::{Num, Real, with_num, with_real};
use crate::{At, DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `MaxPool`.
pub struct MaxPool;
/// `AveragePool`.
pub struct AveragePool;
/// `LpPool`.
pub struct LpPool;

/// A pooling of known shapes: x `[N, C, spatial…]`, y `[N, C, out…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolProblem {
    /// Batch.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Input extents along the spatial axes.
    pub spatial: Vec<usize>,
    /// The window.
    pub window: Window,
    /// Padding and output extent along each spatial axis.
    pub axes: Vec<AxisGeometry>,
}

/// `AveragePool`: whether padding counts as elements of the window.
pub fn count_include_pad(node: &OpNode) -> Result<bool> {
    node.attrs.flag("count_include_pad", false)
}
/// `MaxPool`: whether indices run through the spatial axes in column-major order.
pub fn column_major(node: &OpNode) -> Result<bool> {
    node.attrs.flag("storage_order", false)
}
/// `LpPool`, `GlobalLpPool`: the order of the norm, at least 1.
pub fn order(node: &OpNode) -> Result<f32> {
    // a float in version 1
    let p = match node.version {
        1 => node.attrs.float_or("p", 2.0)?,
        _ => node.attrs.int_or("p", 2)? as f32,
    };
    if p >= 1.0 { Ok(p) } else { Err(Error::mismatch("attribute `p`", p, "at least 1")) }
}
fn ceil_mode(node: &OpNode) -> Result<bool> {
    node.attrs.flag("ceil_mode", false)
}

/// Padding and output extent along an axis. With `ceil` a last window that is only partly inside counts, unless it
/// begins in the padding behind.
fn geometry(window: &Window, axis: usize, extent: usize, ceil: bool) -> Result<AxisGeometry> {
    let mut g = window.geometry(axis, extent)?;
    if ceil && window.auto_pad == AutoPad::NotSet {
        let stride = window.strides[axis];
        // geometry() has checked that this does not overflow
        let rest = (extent + g.pad_begin + g.pad_end - window.span(axis)?) % stride;
        if rest != 0 && g.out.checked_mul(stride).is_some_and(|start| start < extent + g.pad_begin) {
            g.out += 1;
        }
    }
    Ok(g)
}

fn out_dim(window: &Window, axis: usize, extent: &Dim, ceil: bool) -> Result<Dim> {
    if let Dim::Known(n) = extent {
        return Ok(Dim::Known(geometry(window, axis, *n, ceil)?.out));
    }
    if !ceil || window.auto_pad != AutoPad::NotSet || window.strides[axis] == 1 {
        return window.out_dim(axis, extent);
    }
    let (begin, end) = (window.pads[axis], window.pads[window.rank() + axis]);
    let (span, stride) = (window.span(axis)?, window.strides[axis]);
    // no window can begin in the padding behind if it is this small
    let plain = end.checked_add(stride).is_some_and(|reach| reach <= span);
    let offset =
        begin.checked_add(end).and_then(|p| Some(i64::try_from(p).ok()? - i64::try_from(span).ok()?));
    Ok(match offset {
        Some(offset) if plain => extent.offset(offset).ceil_div(stride).offset(1),
        _ => Dim::Unknown,
    })
}

/// The largest window, padding included: its taps are walked for each element of the output.
const MOST_TAPS: usize = 1 << 24;

impl PoolProblem {
    /// Checks a node against the shape of x. Errors name what does not fit.
    pub fn new(node: &OpNode, x: &[usize]) -> Result<PoolProblem> {
        let window = Window::parse(node, None)?;
        let (n, c, spatial) = split(x, &window)?;
        let ceil = ceil_mode(node)?;
        let axes = spatial.iter().enumerate().map(|(i, &s)| geometry(&window, i, s, ceil));
        let axes = axes.collect::<Result<_>>()?;
        let problem = PoolProblem { n: *n, c: *c, spatial: spatial.to_vec(), axes, window };
        new_elems(&problem.out_shape()).at(|| "output")?;
        // no tensor is as large as a window over padding
        let taps = problem.window.kernel_shape.iter().fold(1usize, |n, k| n.saturating_mul(*k));
        if taps > MOST_TAPS {
            return Err(Error::unsupported(format!("a window of {taps} elements, more than {MOST_TAPS}")));
        }
        Ok(problem)
    }
    /// Shape of y.
    pub fn out_shape(&self) -> Vec<usize> {
        [self.n, self.c].into_iter().chain(self.axes.iter().map(|a| a.out)).collect()
    }
    /// Calls `f` for each output place with its number, the offsets of the taps inside the input, and how many taps
    /// lie in the input or its padding.
    fn for_each_window(&self, mut f: impl FnMut(usize, &[usize], usize)) {
        let outs: Vec<usize> = self.axes.iter().map(|a| a.out).collect();
        let taps = indices(&self.window.kernel_shape);
        for (number, place) in watched(indices(&outs).iter().enumerate()) {
            let (mut inside, mut padded) = (vec![], 0);
            for tap in &taps {
                let (mut offset, mut is_inside, mut is_padded) = (0, true, true);
                for (i, (axis, extent)) in self.axes.iter().zip(&self.spatial).enumerate() {
                    let at = place[i] * self.window.strides[i] + tap[i] * self.window.dilations[i];
                    is_padded &= at < axis.pad_begin + extent + axis.pad_end;
                    match at.checked_sub(axis.pad_begin).filter(|a| a < extent) {
                        Some(at) => offset = offset * extent + at,
                        None => is_inside = false,
                    }
                }
                inside.extend(is_inside.then_some(offset));
                padded += usize::from(is_padded);
            }
            f(number, &inside, padded);
        }
    }
    /// The output of a function of each window: its elements and the count of taps in input or padding.
    fn pool<T: Num>(&self, x: &[T], f: impl Fn(&mut dyn Iterator<Item = T>, usize) -> T) -> Vec<T> {
        let size: usize = self.spatial.iter().product();
        let out: usize = self.axes.iter().map(|a| a.out).product();
        let planes = self.n * self.c;
        let mut y = vec![T::ZERO; planes * out];
        self.for_each_window(|place, inside, padded| {
            for plane in watched(0..planes) {
                let x = &x[plane * size..][..size];
                y[plane * out + place] = f(&mut inside.iter().map(|i| x[*i]), padded);
            }
        });
        y
    }
}

fn split<'a, T>(x: &'a [T], window: &Window) -> Result<(&'a T, &'a T, &'a [T])> {
    match x {
        [n, c, spatial @ ..] if spatial.len() == window.rank() => Ok((n, c, spatial)),
        _ => Err(Error::mismatch("rank of x", x.len(), window.rank() + 2)),
    }
}

fn infer(cx: &InferCtx<'_>) -> Result<TensorType> {
    let dtype = cx.dtype(0)?;
    let Some(x) = cx.shape(0)? else { return Ok(TensorType::unranked(dtype)) };
    let window = Window::parse(cx.node, None)?;
    let (n, c, spatial) = split(x, &window)?;
    let mut out = vec![n.clone(), c.clone()];
    for (i, extent) in spatial.iter().enumerate() {
        out.push(out_dim(&window, i, extent, ceil_mode(cx.node)?)?);
    }
    Ok(TensorType::new(dtype, out))
}

/// The greatest element of each window and its offset in the plane, the first of equals; -1 where there is none.
fn max_pool<T: Num>(p: &PoolProblem, x: &[T]) -> (Vec<T>, Vec<Option<usize>>) {
    let size: usize = p.spatial.iter().product();
    let out: usize = p.axes.iter().map(|a| a.out).product();
    let planes = p.n * p.c;
    let (mut y, mut at) = (vec![T::LOWEST; planes * out], vec![None; planes * out]);
    p.for_each_window(|place, inside, _| {
        for plane in watched(0..planes) {
            let x = &x[plane * size..][..size];
            let best = inside.iter().copied().reduce(|best, i| {
                let better = x[i] > x[best] || (x[i].is_nan() && !x[best].is_nan());
                if better { i } else { best }
            });
            if let Some(best) = best {
                y[plane * out + place] = x[best];
            }
            at[plane * out + place] = best;
        }
    });
    (y, at)
}

/// The second output of `MaxPool`: offsets in the whole of x.
fn global_indices(p: &PoolProblem, at: &[Option<usize>], column_major: bool) -> Vec<i64> {
    let size: usize = p.spatial.iter().product();
    let out: usize = p.axes.iter().map(|a| a.out).product();
    let renumber = |mut offset: usize| {
        if !column_major {
            return offset;
        }
        let (mut index, mut step) = (0, size);
        for extent in p.spatial.iter().rev() {
            step /= extent;
            index += offset % extent * step;
            offset /= extent;
        }
        index
    };
    let plane = |i: usize| i / out.max(1) * size;
    at.iter().enumerate().map(|(i, o)| o.map_or(-1, |o| (plane(i) + renumber(o)) as i64)).collect()
}

impl Operator for MaxPool {
    fn schema(&self) -> Schema {
        let since = &[1, 8, 10, 11, 12, 22];
        Schema { name: "MaxPool", domain: "", since, inputs: (1, 1), outputs: (1, 2) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let y = infer(cx)?;
        let indices = TensorType { dtype: DType::I64, shape: y.shape.clone() };
        Ok([y, indices].into_iter().take(cx.n_outputs).map(Fact::from).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let p = PoolProblem::new(cx.node, x.shape())?;
        let (y, at) = with_num!(x.dtype(), T => {
            let (y, at) = max_pool(&p, &T::load(x)?);
            (T::store(x.dtype(), p.out_shape(), y)?, at)
        });
        let mut outputs = vec![y.into()];
        if cx.wanted.len() > 1 {
            let indices = global_indices(&p, &at, column_major(cx.node)?);
            outputs.push(Tensor::new(p.out_shape(), indices)?.into());
        }
        Ok(outputs)
    }
}

impl Operator for AveragePool {
    fn schema(&self) -> Schema {
        let since = &[1, 7, 10, 11, 19, 22];
        Schema { name: "AveragePool", domain: "", since, inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![infer(cx)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (p, with_pads) = (PoolProblem::new(cx.node, x.shape())?, count_include_pad(cx.node)?);
        with_real!(x.dtype(), T => {
            let y = p.pool(&T::load(x)?, |window, padded| {
                let (sum, inside) = window.fold((T::ZERO, 0), |(sum, n), v| (sum + v, n + 1));
                sum / T::from_f64((if with_pads { padded } else { inside }) as f64)
            });
            Ok(vec![T::store(x.dtype(), p.out_shape(), y)?.into()])
        })
    }
}

/// The norm of some elements: `(sum |x|^p)^(1/p)`.
pub(crate) fn norm<T: Real>(elems: &mut dyn Iterator<Item = T>, p: T) -> T {
    if p == T::ONE {
        return elems.fold(T::ZERO, |sum, v| sum + v.abs());
    }
    if p == T::of(2.0) {
        return elems.fold(T::ZERO, |sum, v| sum + v * v).sqrt();
    }
    elems.fold(T::ZERO, |sum, v| sum + v.abs().powf(p)).powf(T::ONE / p)
}

impl Operator for LpPool {
    fn schema(&self) -> Schema {
        Schema { name: "LpPool", domain: "", since: &[1, 2, 11, 18, 22], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        order(cx.node)?;
        Ok(vec![infer(cx)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (p, order) = (PoolProblem::new(cx.node, x.shape())?, order(cx.node)?);
        with_real!(x.dtype(), T => {
            let y = p.pool(&T::load(x)?, |window, _| norm(window, T::of(order)));
            Ok(vec![T::store(x.dtype(), p.out_shape(), y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval, eval1, infer};

    fn x(v: Vec<f32>) -> Option<Tensor> {
        Some(Tensor::new([1, 1, v.len()], v).unwrap())
    }
    fn attrs(kernel: i64, stride: i64, pads: [i64; 2], ceil: bool) -> Attrs {
        Attrs::new()
            .with("kernel_shape", vec![kernel])
            .with("strides", vec![stride])
            .with("pads", pads.to_vec())
            .with("ceil_mode", i64::from(ceil))
    }

    #[test]
    fn a_last_window_counts_if_it_begins_inside() {
        let extents = |n: usize, a: Attrs| {
            let known = eval1("MaxPool", 12, a.clone(), &[x(vec![0.0; n])]).unwrap().shape()[2];
            let ty = crate::ValueType::tensor(DType::F32, [Dim::Known(1), Dim::Known(1), Dim::symbol("L")]);
            let fact = infer("MaxPool", 12, a, &[Some(ty.into())], 1).unwrap().remove(0);
            let out = fact.ty.as_tensor().unwrap().shape.as_ref().unwrap()[2].clone();
            (known, out.bind(&[("L".to_string(), n)].into()))
        };
        assert_eq!(extents(5, attrs(2, 2, [0, 0], false)), (2, Dim::Known(2)));
        assert_eq!(extents(5, attrs(2, 2, [0, 0], true)), (3, Dim::Known(3)));
        // windows begin at 0, 3 and 6, which is padding: the formula alone would count it
        assert_eq!(extents(4, attrs(2, 3, [1, 1], true)), (2, Dim::Unknown));
        assert_eq!(extents(28, attrs(3, 2, [0, 0], false)), (13, Dim::Known(13)));
    }

    #[test]
    fn padding_counts_only_where_it_is_asked_for() {
        let run = |with_pads: i64| {
            let a = attrs(3, 1, [1, 1], false).with("count_include_pad", with_pads);
            eval1("AveragePool", 22, a, &[x(vec![3.0, 6.0, 9.0])])
                .unwrap()
                .as_slice::<f32>()
                .unwrap()
                .to_vec()
        };
        assert_eq!(run(0), [4.5, 6.0, 7.5]);
        assert_eq!(run(1), [3.0, 6.0, 5.0]);
    }

    #[test]
    fn indices_point_at_the_first_greatest() {
        let outputs = eval("MaxPool", 12, attrs(2, 1, [0, 0], false), &[x(vec![1.0, 5.0, 5.0])], 2).unwrap();
        assert_eq!(outputs[1].as_tensor().unwrap().to_i64s().unwrap(), [1, 1]);
        let nan = eval1("MaxPool", 12, attrs(2, 2, [0, 0], false), &[x(vec![f32::NAN, 5.0])]).unwrap();
        assert!(nan.as_slice::<f32>().unwrap()[0].is_nan());
    }
}
