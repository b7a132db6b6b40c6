//! tract: optimised for the shapes of the inputs, its state reused.
use crate::peer::Peer;
use anyhow::{Context, Result, bail};
use fcc_ir::{Bytes, DType, Tensor};
use tract_onnx::prelude::*;

/// A model in tract.
pub struct Tract {
    state: TypedSimpleState,
    inputs: TVec<TValue>,
    names: Vec<String>,
    made: TVec<TValue>,
}

impl Tract {
    /// Loads the model. Where tract refuses what the file says of its inner values and outputs, it is loaded without
    /// that; the time of the first try is then part of loading.
    pub fn load(path: &str, inputs: &[(String, Tensor)], threads: usize) -> Result<Tract> {
        if threads > 1 {
            multithread::set_default_executor(multithread::Executor::multithread(threads));
        }
        Tract::prepare(path, inputs, false)
            .or_else(|first| Tract::prepare(path, inputs, true).map_err(|_| first))
    }

    fn prepare(path: &str, inputs: &[(String, Tensor)], ignore_types: bool) -> Result<Tract> {
        let onnx = tract_onnx::onnx()
            .with_ignore_value_info(ignore_types)
            .with_ignore_output_shapes(ignore_types)
            .with_ignore_output_types(ignore_types);
        let mut model = onnx.model_for_path(path)?;
        let mut given = tvec![];
        for (slot, outlet) in model.input_outlets()?.to_vec().into_iter().enumerate() {
            let name = model.node(outlet.node).name.clone();
            let found = inputs.iter().find(|(n, _)| *n == name);
            let (_, tensor) = found.with_context(|| format!("no input `{name}`"))?;
            let value = to_tract(tensor)?;
            let fact = InferenceFact::dt_shape(value.datum_type(), value.shape());
            model.set_input_fact(slot, fact)?;
            given.push(value.into_tvalue());
        }
        let outlets = model.output_outlets()?.to_vec();
        let name = |o: &OutletId| {
            let label = model.outlet_label(*o);
            label.map_or_else(|| model.node(o.node).name.clone(), str::to_string)
        };
        let names = outlets.iter().map(name).collect();
        let state = model.into_optimized()?.into_runnable()?.spawn()?;
        Ok(Tract { state, inputs: given, names, made: tvec![] })
    }
}

impl Peer for Tract {
    fn run(&mut self) -> Result<()> {
        self.made = self.state.run(self.inputs.clone())?;
        Ok(())
    }
    fn outputs(&self) -> Result<Vec<(String, Tensor)>> {
        let named = self.names.iter().zip(&self.made);
        named.map(|(name, value)| Ok((name.clone(), from_tract(value)?))).collect()
    }
}

/// The element types that the models of the table have at their ends.
const TYPES: [(DType, DatumType); 7] = [
    (DType::F32, DatumType::F32),
    (DType::F64, DatumType::F64),
    (DType::I32, DatumType::I32),
    (DType::I64, DatumType::I64),
    (DType::I8, DatumType::I8),
    (DType::U8, DatumType::U8),
    (DType::Bool, DatumType::Bool),
];

fn to_tract(t: &Tensor) -> Result<tract_onnx::prelude::Tensor> {
    let Some((_, dtype)) = TYPES.iter().find(|(ours, _)| *ours == t.dtype()) else {
        bail!("tract: got an input of {}, wanted one of the common types", t.dtype());
    };
    let mut made = tract_onnx::prelude::Tensor::zero_dt(*dtype, t.shape())?;
    made.as_bytes_mut().copy_from_slice(t.bytes());
    Ok(made)
}

fn from_tract(t: &TValue) -> Result<Tensor> {
    let Some((dtype, _)) = TYPES.iter().find(|(_, theirs)| *theirs == t.datum_type()) else {
        bail!("tract: got an output of {:?}, wanted one of the common types", t.datum_type());
    };
    Ok(Tensor::from_bytes(*dtype, t.shape(), Bytes::copy_from_slice(t.as_bytes()))?)
}
