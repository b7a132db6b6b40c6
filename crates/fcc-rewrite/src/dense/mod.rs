//! A classifier that slides: its image may be larger, and each window of the size that the model had gets a result.
//!
//! After the rules made Convs of the linear layers, what is left of the fixed size are the layouts between
//! `[N,K,1,1]` and `[N,K]`, and the declared extents. Both go: the layers then compute each place of their output
//! from a window of their input, wherever it lies. That holds only where nothing looks beyond the window, so every
//! operator between image and output must be one that is known not to; the first other one is named with its values.
mod check;
mod step;

pub use check::{check, check_alone};

use crate::Declined;
use fcc_ir::infer::infer;
use fcc_ir::{Dim, Effects, Graph, Model, Result, TensorType, ValueId, ValueInfo, ValueType};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use step::{Step, step};

/// What becomes of a layer that pads. In a larger image the places around an inner window hold pixels, not zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// It is declined: each window's results are those of the original.
    Decline,
    /// It stays: results are the original's on an image of the original's size; in a larger one, an inner window also
    /// sees what lies around it.
    Keep,
}

/// A model that slides over larger images.
#[derive(Debug, Clone)]
pub struct Dense {
    /// The model: spatial extents of the image are symbols, outputs `[N,K]` are `[N,K,H',W']`.
    pub model: Model,
    /// Where its results come from.
    pub windows: Windows,
}

/// The windows of the image that a dense model gives results for. Where the model does not read the last pixels of its
/// image, the last window may reach beyond a larger one by as many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Windows {
    /// The image, `[N,C,spatial...]`.
    pub input: String,
    /// Spatial extents of a window: those that the model had.
    pub extents: Vec<usize>,
    /// Distance of neighbouring windows along each axis.
    pub strides: Vec<usize>,
    /// Symbols of the image's spatial extents.
    pub symbols: Vec<String>,
    /// For each output, the distance in the image of neighbouring places.
    pub outputs: Vec<(String, Vec<usize>)>,
    /// Whether layers pad (see [`Padding::Keep`]).
    pub padded: bool,
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
        let (size, step) = (by(&self.extents), by(&self.strides));
        write!(
            f,
            "dense: `{}` may be larger; one result for each window of {size}, every {step}",
            self.input
        )?;
        match self.padded {
            false => write!(f, "; equal to the original on every window of a larger image"),
            true => write!(
                f,
                "; equal to the original on an image of {size}; inside a larger one, layers that pad see pixels where \
                 the original saw zeros"
            ),
        }
    }
}

/// What a value of the model is in the dense one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum View {
    /// Of the same rank, with larger spatial extents; distance of neighbouring places in the image.
    Image(Vec<usize>),
    /// `[N,K]`, and `[N,K,spatial...]` in the dense model.
    Rows(Vec<usize>),
    /// Extents of such values: nothing but shapes of layouts may be made of them.
    Extents,
}

/// Makes the model dense: `model` after the rules. Declines where an operator sees more than a
/// window, with what was found there.
pub fn dense(model: &Model, padding: Padding) -> Result<Dense, Declined> {
    let strict = slide(model, Padding::Decline);
    if strict.is_ok() || padding == Padding::Decline {
        return strict;
    }
    let mut made = slide(model, Padding::Keep)?;
    made.windows.padded = true;
    Ok(made)
}

fn slide(model: &Model, padding: Padding) -> Result<Dense, Declined> {
    let mut model = model.clone();
    infer(&mut model.graph, &model.functions)?;
    let image = image(&model)?;
    let spatial: Vec<usize> = image.shape.iter().skip(2).copied().collect();
    let mut views = HashMap::from([(image.value, View::Image(vec![1; spatial.len()]))]);
    // layouts that go, with the value before them
    let mut gone: Vec<(ValueId, ValueId)> = vec![];
    for id in model.graph.ops()? {
        let view = match step(&model.graph, &views, padding, id)? {
            Step::Outside => continue,
            Step::Keep(view) => view,
            Step::Change(view, change) => {
                change(&mut model.graph, id)?;
                view
            }
            Step::HandOn(x, view) => {
                let before = gone.iter().find(|(out, _)| *out == x).map_or(x, |(_, before)| *before);
                gone.push((ValueId { node: id, output: 0 }, before));
                view
            }
        };
        for value in model.graph.values_of(id) {
            views.insert(value, view.clone());
        }
    }
    let outputs = outputs(&model.graph, &views)?;
    for (out, before) in gone {
        model.graph.replace_uses(out, before)?;
    }
    let effects = Effects::new(&model.functions);
    model.graph.sweep(|op| effects.has(op));
    let along = |axis: usize| outputs.iter().filter_map(move |(_, s)| s.get(axis).copied()).fold(1, lcm);
    let strides = (0..spatial.len()).map(along).collect();
    let symbols = open(&mut model, &image)?;
    let windows = Windows { input: image.name, extents: spatial, strides, symbols, outputs, padded: false };
    Ok(Dense { model, windows })
}

/// The only input of a model, an image of fixed channels and spatial extents.
struct Image {
    value: ValueId,
    name: String,
    /// Extents; that of N is 0 where it is not fixed.
    shape: Vec<usize>,
}

fn image(model: &Model) -> Result<Image, Declined> {
    let required: Vec<_> = model.required_inputs().collect();
    let [info] = required.as_slice() else {
        let names: Vec<String> = required.iter().map(|i| format!("`{}`", i.name)).collect();
        return Err(Declined::new("inputs", names.join(", "), "one image"));
    };
    let wanted = "an image [N,C,spatial...] of rank 3 to 5 with fixed C and spatial extents";
    let bad = || Declined::new(format!("input `{}`", info.name), &info.ty, wanted);
    let dims = info.ty.as_tensor().and_then(|t| t.shape.as_ref()).ok_or_else(bad)?;
    let fixed = dims.iter().skip(1).all(|d| d.known().is_some_and(|n| n > 0));
    let value = model.graph.value(&info.name).filter(|_| fixed && (3..=5).contains(&dims.len()));
    let shape = dims.iter().map(|d| d.known().unwrap_or(0)).collect();
    Ok(Image { value: value.ok_or_else(bad)?, name: info.name.clone(), shape })
}

/// The outputs' names with the distance of neighbouring places.
fn outputs(graph: &Graph, views: &HashMap<ValueId, View>) -> Result<Vec<(String, Vec<usize>)>, Declined> {
    let view = |o: &fcc_ir::GraphOutput| match views.get(&o.value) {
        Some(View::Image(strides) | View::Rows(strides)) => Ok((o.info.name.clone(), strides.clone())),
        Some(View::Extents) => {
            let what = format!("output `{}`", o.info.name);
            Err(Declined::new(what, "extents of an image", "results for its windows"))
        }
        None => Err(Declined::new(format!("output `{}`", o.info.name), "no use of the image", "one")),
    };
    graph.outputs.iter().map(view).collect()
}

/// Makes symbols of the image's spatial extents, and infers all types anew. Answers with the symbols.
fn open(model: &mut Model, image: &Image) -> Result<Vec<String>> {
    let graph = &mut model.graph;
    let mut taken = BTreeSet::new();
    graph.ty(image.value).clone().for_each_dim(&mut |dim| {
        if let Dim::Sym(e) = dim {
            e.visit_symbols(&mut |s| {
                taken.insert(s.to_string());
            });
        }
    });
    let spatial = image.shape.len() - 2;
    let names = ["D", "H", "W"].into_iter().skip(3usize.saturating_sub(spatial));
    let symbols: Vec<String> = names.map(|name| fresh(name, &taken)).collect();
    let mut ty = graph.ty(image.value).clone();
    if let ValueType::Tensor(TensorType { shape: Some(dims), .. }) = &mut ty {
        dims.iter_mut().skip(2).zip(&symbols).for_each(|(dim, symbol)| *dim = Dim::symbol(symbol));
    }
    let nodes: Vec<_> = graph.inputs.iter().map(|i| i.node).collect();
    for (info, _) in graph.inputs.infos_mut().zip(nodes).filter(|(_, node)| *node == image.value.node) {
        info.ty = ty.clone();
    }
    graph.set_ty(image.value, ty);
    graph.value_info.clear();
    for id in graph.ops()? {
        for value in graph.values_of(id).collect::<Vec<_>>() {
            graph.set_ty(value, ValueType::Unknown);
        }
    }
    infer(graph, &model.functions)?;
    let types: Vec<ValueType> = graph.outputs.iter().map(|o| graph.ty(o.value).clone()).collect();
    for (info, ty) in graph.outputs.infos_mut().zip(types) {
        *info = ValueInfo { name: std::mem::take(&mut info.name), ty, ..ValueInfo::default() };
    }
    Ok(symbols)
}

/// The name, or with underscores behind it where it is taken.
fn fresh(name: &str, taken: &BTreeSet<String>) -> String {
    let mut name = name.to_string();
    while taken.contains(&name) {
        name.push('_');
    }
    name
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a.checked_div(x).unwrap_or(0).saturating_mul(b)
}
