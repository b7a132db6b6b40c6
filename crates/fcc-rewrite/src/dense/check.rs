//! Holds a dense model against the original on every window of a larger image.
use super::Windows;
use crate::verify::{as_f64s, epsilon, index_of, inputs};
use fcc_ir::interp::{self, Values};
use fcc_ir::{At, Bindings, Dim, Error, Model, Result, Tensor};

/// Runs the dense model on a seeded image that holds at least two windows along each axis, and a rest that belongs to
/// none, and the others on each window. Answers with what differs first.
///
/// Where `rewritten` (the model before it was made dense) differs by one bit, that is told: the same sums are made in
/// the same order. `original` is held to the rounding of the outputs' type, for its sums are made in another order.
pub fn check(
    original: &Model,
    rewritten: &Model,
    dense: &Model,
    windows: &Windows,
) -> Result<Option<String>> {
    let bindings = bindings(dense, windows)?;
    let given = inputs(dense, &bindings, 1)?;
    let whole = interp::run(dense, &given).at(|| "the dense model")?;
    let image = given.get(&windows.input).ok_or_else(|| Error::invalid("no image"))?.as_tensor()?;
    let room = image.shape().iter().skip(2).zip(&windows.extents).zip(&windows.strides);
    let counts: Vec<usize> = room.map(|((n, k), s)| (n - k) / s + 1).collect();
    for number in 0..counts.iter().product() {
        let place = index_of(number, &counts);
        let begin: Vec<usize> = place.iter().zip(&windows.strides).map(|(p, s)| p * s).collect();
        let window = crop(image, &begin, &windows.extents)?;
        let given = Values::from([(windows.input.clone(), window.into())]);
        let exact = interp::run(rewritten, &given).at(|| "the rewritten model")?;
        let close = interp::run(original, &given).at(|| "the original")?;
        for (name, strides) in &windows.outputs {
            let begin: Vec<usize> = begin.iter().zip(strides).map(|(b, s)| b / s).collect();
            let found = output(&whole, name)?;
            if let Some(why) = differs(found, output(&exact, name)?, &begin, true)? {
                return Ok(Some(format!(
                    "`{name}` of the window at {place:?}: {why} in the rewritten model"
                )));
            }
            if let Some(why) = differs(found, output(&close, name)?, &begin, false)? {
                return Ok(Some(format!("`{name}` of the window at {place:?}: {why} in the original")));
            }
        }
    }
    Ok(None)
}

/// Runs a dense model whose layers pad, and the original, on an image of the original's size. Answers with what differs
/// first: on larger images there is nothing to compare with. `run` runs whole models.
pub fn check_alone(
    original: &Model,
    dense: &Model,
    windows: &Windows,
    run: &dyn Fn(&Model, &Values) -> Result<Values>,
) -> Result<Option<String>> {
    let mut bindings = bindings(dense, windows)?;
    bindings.extend(windows.symbols.iter().cloned().zip(windows.extents.iter().copied()));
    let given = inputs(dense, &bindings, 1)?;
    let found = run(dense, &given).at(|| "the dense model")?;
    let wanted = run(original, &given).at(|| "the original")?;
    for (name, strides) in &windows.outputs {
        let (found, wanted) = (output(&found, name)?, output(&wanted, name)?);
        if let Some(why) = differs(found, wanted, &vec![0; strides.len()], false)? {
            return Ok(Some(format!("`{name}` of an image of the original's size: {why} in the original")));
        }
    }
    Ok(None)
}

/// Extents: of the image for unequal numbers of windows and a rest, 2 for N and other symbols.
fn bindings(dense: &Model, windows: &Windows) -> Result<Bindings> {
    let mut bindings = Bindings::new();
    for info in dense.required_inputs() {
        info.ty.clone().for_each_dim(&mut |dim| {
            if let Dim::Sym(e) = dim {
                e.visit_symbols(&mut |s| {
                    bindings.insert(s.to_string(), 2);
                });
            }
        });
    }
    for (i, symbol) in windows.symbols.iter().enumerate() {
        let sizes = windows.extents.get(i).zip(windows.strides.get(i));
        let (extent, stride) = sizes.ok_or_else(|| Error::invalid("windows of another rank"))?;
        // at least two windows, more along later axes, and a part of one
        let more = stride.checked_mul(i + 1).and_then(|n| n.checked_add(stride / 2)?.checked_add(*extent));
        bindings.insert(symbol.clone(), more.ok_or_else(|| Error::invalid("extents overflow"))?);
    }
    Ok(bindings)
}

fn output<'v>(values: &'v Values, name: &str) -> Result<&'v Tensor> {
    values.get(name).ok_or_else(|| Error::invalid(format!("output `{name}` is missing")))?.as_tensor()
}

/// The part of an image that begins at these places of its spatial axes.
fn crop(x: &Tensor, begin: &[usize], extents: &[usize]) -> Result<Tensor> {
    let outer = x.shape().get(..2).unwrap_or_default();
    let shape = [outer, extents].concat();
    let full = [&[0, 0], begin].concat();
    let bits = x.dtype().bits();
    if !bits.is_multiple_of(8) || bits == 0 {
        return Err(Error::unsupported(format!("windows of {}", x.dtype())));
    }
    let size = bits / 8;
    let mut bytes = Vec::with_capacity(fcc_ir::elem_count(&shape)? * size);
    for i in 0..fcc_ir::elem_count(&shape)? {
        let index = index_of(i, &shape);
        let places = index.iter().zip(&full).zip(x.shape());
        let at = places.fold(0, |at, ((i, first), n)| at * n + i + first);
        let element = x.bytes().get(at * size..(at + 1) * size);
        bytes.extend_from_slice(element.ok_or_else(|| Error::invalid("a window outside the image"))?);
    }
    Tensor::from_bytes(x.dtype(), shape, bytes.into())
}

/// How a window's results in the dense output differ from those that a run on the window gave.
fn differs(dense: &Tensor, want: &Tensor, begin: &[usize], exact: bool) -> Result<Option<String>> {
    let spatial: Vec<usize> =
        if want.rank() == 2 { vec![1; begin.len()] } else { want.shape().iter().skip(2).copied().collect() };
    let got = crop(dense, begin, &spatial)?;
    if got.len() != want.len() || got.dtype() != want.dtype() {
        return Ok(Some(format!("{got:?}, but {want:?}")));
    }
    let (Some(x), Some(y)) = (as_f64s(&got), as_f64s(want)) else {
        return Ok((got.bytes() != want.bytes()).then(|| format!("{got:?}, but {want:?}")));
    };
    let largest = y.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let bound = if exact { 0.0 } else { epsilon(want.dtype()).sqrt() * largest };
    let explained = |x: f64, y: f64| x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= bound;
    let first = x.iter().zip(&y).position(|(x, y)| !explained(*x, *y));
    Ok(first.map(|i| {
        let (index, x, y) = (index_of(i, want.shape()), x.get(i).copied(), y.get(i).copied());
        format!("{} at {index:?}, but {}", x.unwrap_or_default(), y.unwrap_or_default())
    }))
}
