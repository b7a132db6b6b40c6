//! The dense operators of `ai.onnx.ml`: scalers, normalisers and linear models, row by row.
use super::{HostOp, elems, elems_mut, input};
use fcc_ir::ops::ml::linear::Linear;
use fcc_ir::ops::ml::normalizer::Norm;
use fcc_ir::ops::ml::scaler::Affine;
use fcc_ir::{DType, Error, Result};
use std::borrow::Cow;

/// The elements of an input as floats.
fn floats(bytes: &[u8], dtype: DType) -> Result<Cow<'_, [f32]>> {
    Ok(match dtype {
        DType::F32 => elems::<f32>(bytes),
        DType::F64 => elems::<f64>(bytes).iter().map(|v| *v as f32).collect(),
        DType::I32 => elems::<i32>(bytes).iter().map(|v| *v as f32).collect(),
        DType::I64 => elems::<i64>(bytes).iter().map(|v| *v as f32).collect(),
        other => return Err(Error::unsupported(format!("element type {other} in a compiled step"))),
    })
}

/// Whether there are steps here for inputs of this type.
pub(crate) fn takes(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::I32 | DType::I64)
}

/// `Scaler`.
#[derive(Debug)]
pub(crate) struct Scale {
    pub affine: Affine,
    /// The input's type.
    pub dtype: DType,
}

impl HostOp for Scale {
    fn name(&self) -> String {
        format!("Scaler of {}", self.dtype)
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let (x, out) = (input(inputs, 0)?, elems_mut::<f32>(output)?);
        if self.dtype == DType::F64 {
            let x = elems::<f64>(x);
            out.iter_mut().zip(x.iter()).enumerate().for_each(|(i, (o, x))| *o = self.affine.apply(i, *x));
        } else {
            let x = floats(x, self.dtype)?;
            out.iter_mut().zip(x.iter()).enumerate().for_each(|(i, (o, x))| *o = self.affine.apply(i, *x));
        }
        Ok(())
    }
}

/// `Normalizer`.
#[derive(Debug)]
pub(crate) struct Normalise {
    pub norm: Norm,
    pub features: usize,
    /// The input's type.
    pub dtype: DType,
}

impl HostOp for Normalise {
    fn name(&self) -> String {
        format!("Normalizer {:?} of rows of {}", self.norm, self.features)
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let out = elems_mut::<f32>(output)?;
        out.copy_from_slice(&floats(input(inputs, 0)?, self.dtype)?);
        out.chunks_exact_mut(self.features).for_each(|row| self.norm.divide(row));
        Ok(())
    }
}

/// Scores of a linear model, or the numbers of the classes or their labels.
#[derive(Debug)]
pub(crate) struct LinearRows {
    pub linear: Linear,
    pub features: usize,
    /// The input's type.
    pub dtype: DType,
    /// `None`: scores. Else classes, as labels if there are integers.
    pub classes: Option<Option<Vec<i64>>>,
}

impl HostOp for LinearRows {
    fn name(&self) -> String {
        let what = if self.classes.is_some() { "classes" } else { "scores" };
        format!("{what} of a linear model of {} features", self.features)
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let x = floats(input(inputs, 0)?, self.dtype)?;
        let rows = x.chunks_exact(self.features);
        match &self.classes {
            None => {
                let out = elems_mut::<f32>(output)?;
                for (x, out) in rows.zip(out.chunks_exact_mut(self.linear.columns())) {
                    self.linear.row(x, out);
                }
            }
            Some(labels) => {
                let mut unused = vec![0.0; self.linear.columns()];
                for (x, out) in rows.zip(elems_mut::<i64>(output)?) {
                    let class = self.linear.row(x, &mut unused);
                    *out = labels.as_ref().map_or(class as i64, |l| l[class]);
                }
            }
        }
        Ok(())
    }
}
