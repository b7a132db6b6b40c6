//! `OneHotEncoder`. <https://onnx.ai/onnx/operators/onnx_aionnxml_OneHotEncoder.html>
use super::classes::Classes;
use crate::convert::{Wide, widen};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::movement::new_elems;
use crate::{Bytes, DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};
use std::collections::HashMap;

/// `OneHotEncoder`: each element becomes a row with a 1 at its category.
pub struct OneHotEncoder;

fn categories(node: &OpNode) -> Result<Classes> {
    Classes::of(node, "cats_strings", "cats_int64s")
}

/// The elements as integers, floats without their fraction; `None` where no int64 is meant.
fn whole(x: &Tensor) -> Result<Vec<Option<i64>>> {
    let of_float = |v: f64| (v >= -(2f64.powi(63)) && v < 2f64.powi(63)).then_some(v as i64);
    Ok(match widen(x)? {
        Wide::Float(v) => v.into_iter().map(of_float).collect(),
        Wide::Int(v) => v.into_iter().map(Some).collect(),
        Wide::UInt(v) => v.into_iter().map(|v| i64::try_from(v).ok()).collect(),
    })
}

impl Operator for OneHotEncoder {
    fn schema(&self) -> Schema {
        super::schema("OneHotEncoder", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let cats = categories(cx.node)?;
        let dtype = cx.dtype(0)?;
        if dtype != DType::Undefined && (dtype == DType::String) != (cats.dtype() == DType::String) {
            return Err(Error::mismatch(
                "element type of X",
                dtype,
                format!("that of categories of {}", cats.dtype()),
            ));
        }
        let shape = cx.shape(0)?.map(|s| [&s[..], &[Dim::Known(cats.len())]].concat());
        Ok(vec![TensorType { dtype: DType::F32, shape }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, cats) = (cx.tensor(0)?, categories(cx.node)?);
        // of equal categories the last one counts
        let found: Vec<Option<usize>> = match &cats {
            Classes::Strings(cats) => {
                let places: HashMap<&Bytes, usize> = cats.iter().zip(0..).collect();
                x.as_strings()?.iter().map(|s| places.get(s).copied()).collect()
            }
            Classes::Ints(cats) => {
                let places: HashMap<i64, usize> = cats.iter().copied().zip(0..).collect();
                whole(x)?.into_iter().map(|v| places.get(&v?).copied()).collect()
            }
        };
        if !cx.node.attrs.flag("zeros", true)?
            && let Some(i) = found.iter().position(Option::is_none)
        {
            return Err(Error::mismatch(format!("element {i} of X"), "no category", "one of those listed"));
        }
        let shape = [x.shape(), &[cats.len()]].concat();
        let mut y = vec![0.0f32; new_elems(&shape)?];
        for (row, found) in y.chunks_exact_mut(cats.len()).zip(found) {
            if let Some(place) = found {
                row[place] = 1.0;
            }
        }
        Ok(vec![Tensor::new(shape, y)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StringList;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    #[test]
    fn a_one_at_the_category() {
        let run = |attrs, x: Tensor| eval_ml("OneHotEncoder", 1, attrs, &[x]);
        let ints = || Attrs::new().with("cats_int64s", vec![3i64, -1]);
        let x = Tensor::new([2, 2], vec![3.9f32, -1.0, 0.0, f32::NAN]).unwrap();
        let wanted = Tensor::new([2, 2, 2], vec![1.0f32, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!(run(ints(), x.clone()).unwrap()[0].as_tensor().unwrap(), &wanted);
        assert!(run(ints().with("zeros", 0i64), x.clone()).is_err());
        let cats: StringList = ["a", "b"].into_iter().collect();
        let texts = Tensor::from_strings([1], ["b"]).unwrap();
        let attrs = Attrs::new().with("cats_strings", cats);
        let y = run(attrs.clone().with("zeros", 0i64), texts.clone()).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::new([1, 2], vec![0.0f32, 1.0]).unwrap());
        for (attrs, x) in
            [(attrs.clone(), x.clone()), (ints(), texts), (attrs.with("cats_int64s", vec![1i64]), x)]
        {
            assert!(run(attrs, x).is_err());
        }
    }
}
