//! Operators that move elements.
use super::Cx;
use crate::plan::ir::{Kind, Vx};
use fcc_ir::{DType, ops};

pub(super) fn concat(cx: &mut Cx<'_>) -> Option<()> {
    let y = cx.only_out()?;
    let (dtype, shape) = cx.program.val(y).dense.clone()?;
    let default = if cx.op.version < 4 { Some(1) } else { None };
    let axis = cx.op.attrs.int("axis").ok()?.or(default)?;
    let axis = fcc_ir::op::axis(axis, shape.len()).ok()?;
    let mut inputs = vec![];
    for v in cx.inputs {
        let (d, s) = cx.program.val((*v)?).dense.clone()?;
        if d != dtype || s.len() != shape.len() {
            return None;
        }
        if s[axis] > 0 {
            inputs.push(*v);
        }
    }
    if dtype.bits() < 8 {
        return None;
    }
    cx.push(Kind::Concat { axis }, inputs, y);
    Some(())
}

pub(super) fn transpose(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    let rank = shape.len();
    let perm: Vec<usize> = match cx.op.attrs.ints("perm").ok()? {
        Some(p) => p.iter().map(|v| usize::try_from(*v).ok().filter(|v| *v < rank)).collect::<Option<_>>()?,
        None => (0..rank).rev().collect(),
    };
    if dtype.bits() < 8 || perm.len() != rank {
        return None;
    }
    // axes of extent 1 move for free
    let order: Vec<usize> = perm.iter().copied().filter(|a| shape[*a] != 1).collect();
    if order.is_sorted() {
        cx.push(Kind::View, vec![Some(x)], y);
        return Some(());
    }
    let mut steps = vec![1i64; rank];
    for i in (0..rank.saturating_sub(1)).rev() {
        steps[i] = steps[i + 1] * shape[i + 1] as i64;
    }
    let dims = perm.iter().map(|a| (shape[*a], steps[*a])).collect();
    cx.push(Kind::Copy { offset: 0, dims }, vec![Some(x)], y);
    Some(())
}

fn steps_of(shape: &[usize]) -> Vec<i64> {
    let mut steps = vec![1i64; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        steps[i] = steps[i + 1] * shape[i + 1] as i64;
    }
    steps
}

/// Elements of whole bytes.
fn movable(dtype: DType) -> Option<()> {
    (dtype.bits() >= 8 && dtype.bits() <= 64).then_some(())
}

pub(super) fn slice(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    movable(dtype)?;
    let ranges = if cx.op.version < 10 {
        let (starts, ends) = (cx.op.attrs.ints("starts").ok()??, cx.op.attrs.ints("ends").ok()??);
        ops::slice::ranges(starts, ends, cx.op.attrs.ints("axes").ok()?, None, &shape).ok()?
    } else {
        let (starts, ends) = (cx.list(1)??, cx.list(2)??);
        ops::slice::ranges(&starts, &ends, cx.list(3)?.as_deref(), cx.list(4)?.as_deref(), &shape).ok()?
    };
    let lens: Vec<usize> = ranges.iter().map(|r| r.len).collect();
    if lens != cx.shape(y) {
        return None;
    }
    let cut: Vec<usize> =
        (0..shape.len()).filter(|a| ranges[*a].len != shape[*a] || ranges[*a].step < 0).collect();
    match cut[..] {
        [] => cx.push(Kind::View, vec![Some(x)], y),
        [axis] if ranges[axis].step == 1 || ranges[axis].len == 1 => {
            cx.push(Kind::Part { axis, start: ranges[axis].start }, vec![Some(x)], y)
        }
        _ => {
            let steps = steps_of(&shape);
            let offset = ranges.iter().zip(&steps).map(|(r, s)| r.start * *s as usize).sum();
            let dims = ranges.iter().zip(&steps).map(|(r, s)| (r.len, r.step * s)).collect();
            cx.push(Kind::Copy { offset, dims }, vec![Some(x)], y);
        }
    }
    Some(())
}

pub(super) fn split(cx: &mut Cx<'_>) -> Option<()> {
    let x = cx.input(0)?;
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    movable(dtype)?;
    let axis = ops::split::split_axis(cx.op, shape.len()).ok()?;
    let given = cx.list(1)?;
    let sizes = ops::split::sizes(cx.op, given.as_deref(), shape[axis], cx.outputs.len()).ok()?;
    let mut start = 0;
    let parts: Vec<(Vx, usize)> = cx
        .outputs
        .iter()
        .zip(&sizes)
        .filter_map(|(v, n)| {
            let at = start;
            start += n;
            Some(((*v)?, at))
        })
        .collect();
    for (v, start) in parts {
        if cx.shape(v) == shape {
            cx.push(Kind::View, vec![Some(x)], v);
        } else {
            cx.push(Kind::Part { axis, start }, vec![Some(x)], v);
        }
    }
    Some(())
}

pub(super) fn expand(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    movable(dtype)?;
    let out = cx.shape(y);
    if !super::elementwise::broadcasts(&shape, &out) {
        return None;
    }
    if shape.iter().product::<usize>() == out.iter().product() {
        cx.push(Kind::View, vec![Some(x)], y);
        return Some(());
    }
    let steps = ops::broadcast::strides(&shape, &out);
    let dims = out.iter().zip(steps).map(|(n, s)| (*n, s as i64)).collect();
    cx.push(Kind::Copy { offset: 0, dims }, vec![Some(x)], y);
    Some(())
}

pub(super) fn tile(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    movable(dtype)?;
    let out = cx.shape(y);
    if cx.op.version < 6 || out.len() != shape.len() {
        return None;
    }
    let mut dims = vec![];
    for ((n, s), o) in shape.iter().zip(steps_of(&shape)).zip(&out) {
        dims.push((o / n, 0));
        dims.push((*n, s));
    }
    cx.push(Kind::Copy { offset: 0, dims }, vec![Some(x)], y);
    Some(())
}

pub(super) fn pad(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    let shape = cx.f32(0)?;
    let mode = ops::pad::mode(cx.op).ok()?;
    let (pads, axes) = if cx.op.version < 11 {
        (cx.op.attrs.ints("pads").ok()??.to_vec(), None)
    } else {
        (cx.list(1)??, cx.list(3)?)
    };
    let fill = match cx.input(2) {
        Some(_) => *cx.constant(2)?.as_slice::<f32>().ok()?.first()?,
        None => cx.op.attrs.float_or("value", 0.0).ok()?,
    };
    let pads = ops::pad::Pads::new(&pads, axes.as_deref(), shape.len()).ok()?;
    let sources = shape.iter().enumerate().map(|(a, n)| pads.sources(a, *n, mode));
    let sources: Vec<Vec<Option<usize>>> = sources.collect::<Result<_, _>>().ok()?;
    select(cx, x, y, sources, fill)
}

/// Indices that are the same in every run.
pub(super) fn gather(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    movable(dtype)?;
    let axis = ops::gather::gather_axis(cx.op, shape.len()).ok()?;
    let indices = cx.constant(1)?.to_i64s().ok()?;
    let extent = shape[axis];
    let indices: Vec<usize> =
        indices.into_iter().map(|i| ops::gather::index(i, extent)).collect::<Result<_, _>>().ok()?;
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    // the elements as [outer, extent, inner], whatever the shape of the indices
    let (first, n) = (*indices.first()?, indices.len());
    let step = indices.get(1).map_or(1, |i| *i as i64 - first as i64);
    let regular = indices.iter().enumerate().all(|(i, v)| *v as i64 == first as i64 + i as i64 * step);
    if !regular {
        return None;
    }
    let dims = vec![(outer, (extent * inner) as i64), (n, step * inner as i64), (inner, 1)];
    cx.push(Kind::Copy { offset: first * inner, dims }, vec![Some(x)], y);
    Some(())
}

fn select(cx: &mut Cx<'_>, x: Vx, y: Vx, sources: Vec<Vec<Option<usize>>>, fill: f32) -> Option<()> {
    let lens: Vec<usize> = sources.iter().map(Vec::len).collect();
    if lens != cx.shape(y) {
        return None;
    }
    cx.push(Kind::Select { sources, fill }, vec![Some(x)], y);
    Some(())
}

pub(super) fn space_depth(cx: &mut Cx<'_>) -> Option<()> {
    use ops::space_depth::{Mode, block_size, mode};
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    movable(dtype)?;
    let b = block_size(cx.op).ok()?;
    let &[n, c, h, w] = &shape[..] else { return None };
    let out = cx.shape(y);
    let plane = (h * w) as i64;
    let (w_, b_) = (w as i64, b as i64);
    let dims = if cx.op.op_type == "SpaceToDepth" {
        let (channel, blocks) = ((c, plane), [(b, w_), (b, 1)]);
        let image = [(h / b, b_ * w_), (w / b, b_)];
        let mut dims = vec![(n, c as i64 * plane)];
        match mode(cx.op).ok()? {
            Mode::Dcr => dims.extend(blocks.into_iter().chain([channel])),
            Mode::Crd => dims.extend([channel].into_iter().chain(blocks)),
        }
        dims.extend(image);
        dims
    } else {
        let oc = c / (b * b);
        let (channel, bh, bw) = match mode(cx.op).ok()? {
            Mode::Dcr => (plane, b_ * oc as i64 * plane, oc as i64 * plane),
            Mode::Crd => (b_ * b_ * plane, b_ * plane, plane),
        };
        // out [n, oc, h, bh, w, bw]
        vec![(n, c as i64 * plane), (oc, channel), (h, w_), (b, bh), (w, 1), (b, bw)]
    };
    if dims.iter().map(|d| d.0).product::<usize>() != out.iter().product() {
        return None;
    }
    cx.push(Kind::Copy { offset: 0, dims }, vec![Some(x)], y);
    Some(())
}

/// Nearest, linear and cubic resizing of the spatial axes.
pub(super) fn resize(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    let shape = cx.f32(0)?;
    let get = |i: usize| match cx.input(i) {
        None => Ok(None),
        Some(v) => {
            cx.program.constant_of(v).cloned().map(Some).ok_or_else(|| fcc_ir::Error::invalid("not constant"))
        }
    };
    let request = ops::resize::request(cx.op, shape.len(), &get).ok()?;
    let plan = ops::resize::Plan::new(cx.op, &shape, &request).ok()?;
    if plan.out_shape() != cx.shape(y) || !(3..=5).contains(&shape.len()) {
        return None;
    }
    let [batch, channels, spatial @ ..] = &plan.axes[..] else { return None };
    if !batch.is_identity() || !channels.is_identity() {
        return None;
    }
    let narrow = |t: &Vec<(usize, f64)>| t.iter().map(|(p, w)| (*p, *w as f32)).collect::<Vec<_>>();
    let taps: Option<Vec<Vec<Vec<(usize, f32)>>>> =
        spatial.iter().map(|a| a.taps.iter().map(|t| t.as_ref().map(narrow)).collect()).collect();
    let taps = taps?.into_iter().map(even).collect::<Option<_>>()?;
    cx.push(Kind::Resize { taps }, vec![Some(x)], y);
    Some(())
}

/// The taps of an axis with as many at each position: where there are fewer, the last is halved, which is exact.
fn even(mut axis: Vec<Vec<(usize, f32)>>) -> Option<Vec<Vec<(usize, f32)>>> {
    let most = axis.iter().map(Vec::len).max()?;
    for taps in &mut axis {
        while taps.len() < most {
            let last = taps.last_mut()?;
            last.1 *= 0.5;
            let half = *last;
            taps.push(half);
        }
    }
    Some(axis)
}
