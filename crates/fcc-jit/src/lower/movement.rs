//! Operators that move elements.
use super::{Cx, Lowered};
use crate::declined::Declined;
use crate::plan::ir::{Kind, Vx};
use fcc_ir::{DType, ops};

pub(super) fn concat(cx: &mut Cx<'_>) -> Lowered {
    let y = cx.only_out()?;
    let (dtype, shape) = cx.dense(y)?;
    let default = if cx.op.version < 4 { Some(1) } else { None };
    let axis = cx.op.attrs.int("axis")?.or(default);
    let axis = axis.ok_or_else(|| Declined::new("axis", "none", "one"))?;
    let axis = fcc_ir::op::axis(axis, shape.len())?;
    let mut inputs = vec![];
    for i in 0..cx.inputs.len() {
        let v = cx.need(i)?;
        let (d, s) = cx.dense(v)?;
        if d != dtype || s.len() != shape.len() {
            return Err(Declined::new(
                format!("input {i}"),
                format!("{d}{s:?}"),
                format!("{dtype} of rank {}", shape.len()),
            ));
        }
        if s[axis] > 0 {
            inputs.push(Some(v));
        }
    }
    movable(dtype)?;
    cx.push(Kind::Concat { axis }, inputs, y);
    Ok(())
}

pub(super) fn transpose(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    let (dtype, shape) = cx.dense(x)?;
    let rank = shape.len();
    let perm: Vec<usize> = match cx.op.attrs.ints("perm")? {
        Some(p) => {
            let axes: Option<Vec<usize>> =
                p.iter().map(|v| usize::try_from(*v).ok().filter(|v| *v < rank)).collect();
            axes.ok_or_else(|| Declined::new("perm", format!("{p:?}"), format!("axes below {rank}")))?
        }
        None => (0..rank).rev().collect(),
    };
    movable(dtype)?;
    if perm.len() != rank {
        return Err(Declined::new("perm", format!("{perm:?}"), format!("{rank} axes")));
    }
    // axes of extent 1 move for free
    let order: Vec<usize> = perm.iter().copied().filter(|a| shape[*a] != 1).collect();
    if order.is_sorted() {
        cx.push(Kind::View, vec![Some(x)], y);
        return Ok(());
    }
    let mut steps = vec![1i64; rank];
    for i in (0..rank.saturating_sub(1)).rev() {
        steps[i] = steps[i + 1] * shape[i + 1] as i64;
    }
    let dims = perm.iter().map(|a| (shape[*a], steps[*a])).collect();
    cx.push(Kind::Copy { offset: 0, dims }, vec![Some(x)], y);
    Ok(())
}

/// The first of a list.
fn first<T: Copy>(list: &[T]) -> Result<T, Declined> {
    list.first().copied().ok_or_else(|| Declined::new("list", "nothing", "an element"))
}

fn steps_of(shape: &[usize]) -> Vec<i64> {
    let mut steps = vec![1i64; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        steps[i] = steps[i + 1] * shape[i + 1] as i64;
    }
    steps
}

/// Elements of whole bytes.
fn movable(dtype: DType) -> Lowered {
    match dtype.bits() {
        8..=64 => Ok(()),
        _ => Err(Declined::new("type", dtype, "elements of 1 to 8 bytes")),
    }
}

pub(super) fn slice(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    let (dtype, shape) = cx.dense(x)?;
    movable(dtype)?;
    let ranges = if cx.op.version < 10 {
        let given = |name: &str| {
            let list = cx.op.attrs.ints(name)?;
            list.ok_or_else(|| Declined::new(name, "none", "a list"))
        };
        let (starts, ends) = (given("starts")?, given("ends")?);
        ops::slice::ranges(starts, ends, cx.op.attrs.ints("axes")?, None, &shape)?
    } else {
        let (starts, ends) = (cx.some_list(1)?, cx.some_list(2)?);
        ops::slice::ranges(&starts, &ends, cx.list(3)?.as_deref(), cx.list(4)?.as_deref(), &shape)?
    };
    let lens: Vec<usize> = ranges.iter().map(|r| r.len).collect();
    if lens != cx.shape(y) {
        return Err(cx.other_shape(y));
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
    Ok(())
}

pub(super) fn split(cx: &mut Cx<'_>) -> Lowered {
    let x = cx.need(0)?;
    let (dtype, shape) = cx.dense(x)?;
    movable(dtype)?;
    let axis = ops::split::split_axis(cx.op, shape.len())?;
    let given = cx.list_of("split", 1)?;
    let sizes = ops::split::sizes(cx.op, given.as_deref(), shape[axis], cx.outputs.len())?;
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
    Ok(())
}

pub(super) fn expand(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    let (dtype, shape) = cx.dense(x)?;
    movable(dtype)?;
    let out = cx.shape(y);
    // what comes with the run may not fit, although inference knows what it must be
    cx.fixed(1)?;
    if !super::elementwise::broadcasts(&shape, &out) {
        return Err(cx.other_shape(y));
    }
    if shape.iter().product::<usize>() == out.iter().product() {
        cx.push(Kind::View, vec![Some(x)], y);
        return Ok(());
    }
    let steps = ops::broadcast::strides(&shape, &out);
    let dims = out.iter().zip(steps).map(|(n, s)| (*n, s as i64)).collect();
    cx.push(Kind::Copy { offset: 0, dims }, vec![Some(x)], y);
    Ok(())
}

pub(super) fn tile(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    let (dtype, shape) = cx.dense(x)?;
    movable(dtype)?;
    let out = cx.shape(y);
    if cx.op.version < 6 || out.len() != shape.len() {
        return Err(Declined::new(
            "version and rank",
            format!("{} and {}", cx.op.version, shape.len()),
            format!("6 or later and {}", out.len()),
        ));
    }
    let mut dims = vec![];
    for ((n, s), o) in shape.iter().zip(steps_of(&shape)).zip(&out) {
        dims.push((o / n, 0));
        dims.push((*n, s));
    }
    cx.push(Kind::Copy { offset: 0, dims }, vec![Some(x)], y);
    Ok(())
}

pub(super) fn pad(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    let shape = cx.f32(0)?;
    let mode = ops::pad::mode(cx.op)?;
    let pads = cx.list_of(ops::pad::attribute(cx.op), 1)?;
    let pads = pads.ok_or_else(|| Declined::new("pads", "none", "a list"))?;
    let axes = cx.list(3)?;
    let fill = match cx.input(2) {
        Some(_) => first(&cx.fixed(2)?.as_slice::<f32>()?)?,
        None => cx.op.attrs.float_or("value", 0.0)?,
    };
    let pads = ops::pad::Pads::new(&pads, axes.as_deref(), shape.len())?;
    let sources = shape.iter().enumerate().map(|(a, n)| pads.sources(a, *n, mode));
    let sources: Vec<Vec<Option<usize>>> = sources.collect::<Result<_, _>>()?;
    select(cx, x, y, sources, fill)
}

/// Indices that are the same in every run.
pub(super) fn gather(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    let (dtype, shape) = cx.dense(x)?;
    movable(dtype)?;
    let axis = ops::gather::gather_axis(cx.op, shape.len())?;
    let indices = cx.fixed(1)?.to_i64s()?;
    let extent = shape[axis];
    let indices: Vec<usize> =
        indices.into_iter().map(|i| ops::gather::index(i, extent)).collect::<Result<_, _>>()?;
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    // the elements as [outer, extent, inner], whatever the shape of the indices
    let (start, n) = (first(&indices)?, indices.len());
    let step = indices.get(1).map_or(1, |i| *i as i64 - start as i64);
    let regular = indices.iter().enumerate().all(|(i, v)| *v as i64 == start as i64 + i as i64 * step);
    if !regular {
        return Err(Declined::new("indices", format!("{n} of uneven steps"), "evenly spaced ones"));
    }
    let dims = vec![(outer, (extent * inner) as i64), (n, step * inner as i64), (inner, 1)];
    cx.push(Kind::Copy { offset: start * inner, dims }, vec![Some(x)], y);
    Ok(())
}

fn select(cx: &mut Cx<'_>, x: Vx, y: Vx, sources: Vec<Vec<Option<usize>>>, fill: f32) -> Lowered {
    let lens: Vec<usize> = sources.iter().map(Vec::len).collect();
    if lens != cx.shape(y) {
        return Err(cx.other_shape(y));
    }
    cx.push(Kind::Select { sources, fill }, vec![Some(x)], y);
    Ok(())
}

pub(super) fn space_depth(cx: &mut Cx<'_>) -> Lowered {
    use ops::space_depth::{Mode, block_size, mode};
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    let (dtype, shape) = cx.dense(x)?;
    movable(dtype)?;
    let b = block_size(cx.op)?;
    let &[n, c, h, w] = &shape[..] else {
        return Err(Declined::new("rank", shape.len(), 4));
    };
    let out = cx.shape(y);
    let plane = (h * w) as i64;
    let (w_, b_) = (w as i64, b as i64);
    let dims = if cx.op.op_type == "SpaceToDepth" {
        let (channel, blocks) = ((c, plane), [(b, w_), (b, 1)]);
        let image = [(h / b, b_ * w_), (w / b, b_)];
        let mut dims = vec![(n, c as i64 * plane)];
        match mode(cx.op)? {
            Mode::Dcr => dims.extend(blocks.into_iter().chain([channel])),
            Mode::Crd => dims.extend([channel].into_iter().chain(blocks)),
        }
        dims.extend(image);
        dims
    } else {
        let oc = c / (b * b);
        let (channel, bh, bw) = match mode(cx.op)? {
            Mode::Dcr => (plane, b_ * oc as i64 * plane, oc as i64 * plane),
            Mode::Crd => (b_ * b_ * plane, b_ * plane, plane),
        };
        // out [n, oc, h, bh, w, bw]
        vec![(n, c as i64 * plane), (oc, channel), (h, w_), (b, bh), (w, 1), (b, bw)]
    };
    if dims.iter().map(|d| d.0).product::<usize>() != out.iter().product() {
        return Err(cx.other_shape(y));
    }
    cx.push(Kind::Copy { offset: 0, dims }, vec![Some(x)], y);
    Ok(())
}

/// Nearest, linear and cubic resizing of the spatial axes.
pub(super) fn resize(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    let shape = cx.f32(0)?;
    let get = |i: usize| match cx.input(i) {
        None => Ok(None),
        Some(v) => {
            cx.program.constant_of(v).cloned().map(Some).ok_or_else(|| fcc_ir::Error::invalid("not constant"))
        }
    };
    let request = ops::resize::request(cx.op, shape.len(), &get)?;
    let plan = ops::resize::Plan::new(cx.op, &shape, &request)?;
    if plan.out_shape() != cx.shape(y) || !(3..=5).contains(&shape.len()) {
        return Err(Declined::new(
            "output",
            format!("{:?} of rank {}", plan.out_shape(), shape.len()),
            format!("{:?} of rank 3 to 5", cx.shape(y)),
        ));
    }
    let [batch, channels, spatial @ ..] = &plan.axes[..] else {
        return Err(Declined::new("rank", shape.len(), "3 to 5"));
    };
    if !batch.is_identity() || !channels.is_identity() {
        return Err(Declined::new("axes", "batch or channels resized", "spatial axes only"));
    }
    let narrow = |t: &Vec<(usize, f64)>| t.iter().map(|(p, w)| (*p, *w as f32)).collect::<Vec<_>>();
    let taps: Option<Vec<Vec<Vec<(usize, f32)>>>> =
        spatial.iter().map(|a| a.taps.iter().map(|t| t.as_ref().map(narrow)).collect()).collect();
    let even_taps = taps.and_then(|t| t.into_iter().map(even).collect::<Option<_>>());
    let taps = even_taps.ok_or_else(|| Declined::new("positions", "some outside the input", "all inside"))?;
    cx.push(Kind::Resize { taps }, vec![Some(x)], y);
    Ok(())
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
