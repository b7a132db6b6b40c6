//! `--shape`: the extents of an input, and those that nobody gives.
use super::Failure;
use super::out::note;
use fcc_ir::{Bindings, Dim, Model, ValueId, ValueType, infer};
use std::collections::BTreeSet;
use std::str::FromStr;

/// `NAME=1,3,48,192`.
#[derive(Debug, Clone)]
pub struct InputShape {
    name: String,
    extents: Vec<usize>,
}

impl FromStr for InputShape {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("got `{text}`, wanted NAME=N,N,… such as x=1,3,48,192 (NAME= for a scalar)");
        let (name, extents) = text.rsplit_once('=').ok_or_else(wanted)?;
        let extents = match extents.trim() {
            "" => vec![],
            list => {
                list.split(',').map(|n| n.trim().parse().map_err(|_| wanted())).collect::<Result<_, _>>()?
            }
        };
        if name.is_empty() {
            return Err(wanted());
        }
        Ok(InputShape { name: name.into(), extents })
    }
}

/// The option `--shape`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ShapeArg {
    /// Give an input a shape, for example x=1,3,48,192: extents without a name, which --set cannot give, and named ones
    /// for all inputs that have them; give it once for each input
    #[arg(long = "shape", value_name = "NAME=N,N,…")]
    shape: Vec<InputShape>,
}

impl ShapeArg {
    /// Gives the inputs their shapes. Errors on an unknown input, and on a shape that the declared type rules out.
    pub fn apply(&self, model: &mut Model) -> Result<(), Failure> {
        let mut bindings = Bindings::new();
        let mut seen = BTreeSet::new();
        for InputShape { name, extents } in &self.shape {
            if !seen.insert(name) {
                return Err(Failure::input(format!("--shape: got `{name}` twice, wanted it once")));
            }
            let names: Vec<String> =
                model.graph.inputs.iter().map(|i| format!("`{}`", i.info.name)).collect();
            let Some(at) = model.graph.inputs.iter().position(|i| i.info.name == *name) else {
                let wanted = names.join(", ");
                return Err(Failure::input(format!("--shape: got name `{name}`, wanted one of {wanted}")));
            };
            let ty = &model.graph.inputs[at].info.ty;
            let unfit = || {
                let got: Vec<String> = extents.iter().map(usize::to_string).collect();
                Failure::input(format!("--shape: input `{name}`: got [{}], wanted {ty}", got.join(",")))
            };
            let ValueType::Tensor(t) = ty else { return Err(unfit()) };
            let mut given = t.clone();
            if let Some(dims) = &t.shape {
                if dims.len() != extents.len() {
                    return Err(unfit());
                }
                for (dim, n) in dims.iter().zip(extents) {
                    let fits = match dim {
                        Dim::Known(known) => known == n,
                        Dim::Unknown => true,
                        // what is not a plain name is checked when the names have their extents
                        Dim::Sym(_) => match symbol(dim) {
                            Some(symbol) => *bindings.entry(symbol).or_insert(*n) == *n,
                            None => true,
                        },
                    };
                    if !fits {
                        return Err(unfit());
                    }
                }
            }
            given.shape = Some(extents.iter().copied().map(Dim::Known).collect());
            set(model, at, given.into());
        }
        if !bindings.is_empty() {
            infer::bind_symbols(&mut model.graph, &bindings);
        }
        Ok(())
    }
}

/// The name that a dimension is.
fn symbol(dim: &Dim) -> Option<String> {
    let Dim::Sym(e) = dim else { return None };
    let mut names = vec![];
    e.visit_symbols(&mut |name| names.push(name.to_string()));
    names.pop().filter(|name| Dim::symbol(name) == *dim)
}

fn set(model: &mut Model, at: usize, ty: ValueType) {
    let Some(input) = model.graph.inputs.get_mut(at) else { return };
    input.info.ty = ty.clone();
    let value = ValueId { node: input.node, output: 0 };
    model.graph.set_ty(value, ty);
}

/// Takes extents of required inputs that have neither a value nor a name as 1, and says so: for random inputs.
pub fn default_extents(model: &mut Model) {
    let required: BTreeSet<String> = model.required_inputs().map(|i| i.name.clone()).collect();
    let mut taken: Vec<String> = vec![];
    for at in 0..model.graph.inputs.len() {
        let info = model.graph.inputs[at].info.clone();
        if !required.contains(&info.name) {
            continue;
        }
        let mut ty = info.ty.clone();
        let mut unknown = 0;
        ty.for_each_dim(&mut |dim| {
            if *dim == Dim::Unknown {
                *dim = Dim::Known(1);
                unknown += 1;
            }
        });
        if unknown > 0 {
            taken.push(format!("`{}` {}", info.name, info.ty));
            set(model, at, ty);
        }
    }
    if !taken.is_empty() {
        note(&format!("extents `?` are taken as 1, --shape NAME=N,N,… gives others: {}", taken.join(", ")));
    }
}
