//! rten: weights packed when the model is loaded, run inside its own thread pool.
//!
//! Its pool takes the number of threads from the environment (`RTEN_NUM_THREADS`), which ../run.py sets. It has no
//! 64-bit integers and no booleans: both are i32 in it, at its ends too.
use crate::peer::Peer;
use anyhow::{Context, Result, bail};
use fcc_ir::{DType, Tensor};
use rten::{Model, ModelOptions, NodeId, Value, ValueOrView};
use rten_tensor::{AsView, Layout};

/// A model in rten.
pub struct Rten {
    model: Model,
    inputs: Vec<(NodeId, Value)>,
    outputs: Vec<NodeId>,
    made: Vec<Value>,
}

impl Rten {
    /// Loads the model and packs its weights.
    pub fn load(path: &str, inputs: &[(String, Tensor)]) -> Result<Rten> {
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(true);
        let model = options.load_file(path)?;
        let mut given = vec![];
        for id in model.input_ids().to_vec() {
            let name = model.node_info(id).and_then(|n| n.name()).context("an input without a name")?;
            if let Some((_, tensor)) = inputs.iter().find(|(n, _)| n == name) {
                given.push((id, to_rten(tensor)?));
            }
        }
        let outputs = model.output_ids().to_vec();
        Ok(Rten { model, inputs: given, outputs, made: vec![] })
    }
}

impl Peer for Rten {
    fn run(&mut self) -> Result<()> {
        let (model, inputs, outputs) = (&self.model, &self.inputs, &self.outputs);
        let run = || {
            let views = inputs.iter().map(|(id, v)| (*id, ValueOrView::from(v))).collect();
            model.run(views, outputs, None)
        };
        self.made = rten::thread_pool().run(run)?;
        Ok(())
    }
    fn outputs(&self) -> Result<Vec<(String, Tensor)>> {
        let named = self.outputs.iter().zip(&self.made);
        named
            .map(|(id, value)| {
                let name =
                    self.model.node_info(*id).and_then(|n| n.name()).context("an output without a name")?;
                Ok((name.to_string(), from_rten(value)?))
            })
            .collect()
    }
}

fn to_rten(t: &Tensor) -> Result<Value> {
    let shape = t.shape();
    let narrow = |v: i64| i32::try_from(v).context("rten: got an integer beyond 32 bits");
    Ok(match t.dtype() {
        DType::F32 => Value::from_shape(shape, t.as_slice::<f32>()?.into_owned())?,
        DType::I32 => Value::from_shape(shape, t.as_slice::<i32>()?.into_owned())?,
        DType::U8 => Value::from_shape(shape, t.as_slice::<u8>()?.into_owned())?,
        DType::I8 => Value::from_shape(shape, t.as_slice::<i8>()?.into_owned())?,
        DType::Bool => {
            Value::from_shape(shape, t.as_bools()?.into_iter().map(i32::from).collect::<Vec<_>>())?
        }
        DType::I64 => {
            let narrowed: Result<Vec<i32>> = t.to_i64s()?.into_iter().map(narrow).collect();
            Value::from_shape(shape, narrowed?)?
        }
        other => bail!("rten: got an input of {other}, wanted float or integers"),
    })
}

fn from_rten(value: &Value) -> Result<Tensor> {
    Ok(match value {
        Value::FloatTensor(t) => Tensor::new(t.shape().as_ref(), t.to_vec())?,
        Value::Int32Tensor(t) => Tensor::new(t.shape().as_ref(), t.to_vec())?,
        Value::Int8Tensor(t) => Tensor::new(t.shape().as_ref(), t.to_vec())?,
        Value::UInt8Tensor(t) => Tensor::new(t.shape().as_ref(), t.to_vec())?,
        _ => bail!("rten: got an output that is no tensor of a common type"),
    })
}
