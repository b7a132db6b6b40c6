//! `Normalizer`. <https://onnx.ai/onnx/operators/onnx_aionnxml_Normalizer.html>
use super::real::reals;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Normalizer`: each row is divided by its norm.
pub struct Normalizer;

/// What a row is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// The greatest element, whatever the sizes of the negative ones.
    Max,
    /// The sum of the absolute values.
    L1,
    /// The root of the sum of squares.
    L2,
}

impl Norm {
    /// The attribute `norm`, MAX if it is absent.
    pub fn parse(node: &OpNode) -> Result<Norm> {
        Ok(match node.attrs.str_or("norm", "MAX")? {
            "MAX" => Norm::Max,
            "L1" => Norm::L1,
            "L2" => Norm::L2,
            other => return Err(Error::mismatch("attribute `norm`", other, "MAX, L1 or L2")),
        })
    }
    /// Divides a row by its norm; one whose norm is 0 stays as it is.
    pub fn divide(self, row: &mut [f32]) {
        let norm = match self {
            Norm::Max => row.iter().fold(f32::MIN, |m, v| if *v > m { *v } else { m }),
            Norm::L1 => row.iter().fold(0.0, |sum, v| sum + v.abs()),
            Norm::L2 => row.iter().fold(0.0, |sum, v| sum + v * v).sqrt(),
        };
        if norm != 0.0 {
            row.iter_mut().for_each(|v| *v /= norm);
        }
    }
}

impl Operator for Normalizer {
    fn schema(&self) -> Schema {
        super::schema("Normalizer", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Norm::parse(cx.node)?;
        super::row_dims(cx)?;
        Ok(vec![TensorType { dtype: DType::F32, shape: cx.shape(0)?.cloned() }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (norm, (_, features)) = (Norm::parse(cx.node)?, super::rows(x.shape())?);
        let mut y = reals::<f32>(x)?;
        y.chunks_exact_mut(features.max(1)).for_each(|row| norm.divide(row));
        Ok(vec![Tensor::new(x.shape(), y)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    #[test]
    fn each_norm_by_hand_and_a_row_of_zeros() {
        let run = |norm: &str, x: Tensor| eval_ml("Normalizer", 1, Attrs::new().with("norm", norm), &[x]);
        let x = || Tensor::new([2, 2], vec![3i32, -4, 0, 0]).unwrap();
        for (norm, y) in [("L1", [3.0 / 7.0, -4.0 / 7.0]), ("L2", [0.6, -0.8]), ("MAX", [1.0, -4.0 / 3.0f32])]
        {
            let wanted = Tensor::new([2, 2], vec![y[0], y[1], 0.0, 0.0]).unwrap();
            assert_eq!(run(norm, x()).unwrap()[0].as_tensor().unwrap(), &wanted, "{norm}");
        }
        let double = Tensor::new([2], vec![1.0f64, 3.0]).unwrap();
        assert_eq!(
            run("L1", double).unwrap()[0].as_tensor().unwrap(),
            &Tensor::new([2], vec![0.25f32, 0.75]).unwrap()
        );
        assert!(run("L3", x()).is_err());
        assert!(run("L1", x().reshaped([1, 2, 2]).unwrap()).is_err());
    }
}
