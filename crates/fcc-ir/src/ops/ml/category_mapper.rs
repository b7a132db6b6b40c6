//! `CategoryMapper`. <https://onnx.ai/onnx/operators/onnx_aionnxml_CategoryMapper.html>
use crate::attr::AttrValue;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Bytes, DType, Error, OpNode, Result, StringList, Tensor, TensorType, Value};
use std::collections::HashMap;

/// `CategoryMapper`: strings to integers, or integers to strings.
pub struct CategoryMapper;

fn categories(node: &OpNode) -> Result<(&StringList, &[i64])> {
    let missing = |name: &str| Error::mismatch(format!("attribute `{name}`"), "none", "a list");
    let strings = node.attrs.strings("cats_strings")?.ok_or_else(|| missing("cats_strings"))?;
    let numbers = node.attrs.ints("cats_int64s")?.ok_or_else(|| missing("cats_int64s"))?;
    super::need_len("cats_int64s", numbers.len(), strings.len())?;
    Ok((strings, numbers))
}

impl Operator for CategoryMapper {
    fn schema(&self) -> Schema {
        super::schema("CategoryMapper", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        categories(cx.node)?;
        let dtype = match cx.dtype(0)? {
            DType::String => DType::I64,
            DType::I64 => DType::String,
            DType::Undefined => DType::Undefined,
            other => return Err(Error::mismatch("element type of X", other, "string or int64")),
        };
        Ok(vec![TensorType { dtype, shape: cx.shape(0)?.cloned() }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, (strings, numbers)) = (cx.tensor(0)?, categories(cx.node)?);
        // of equal keys the last one counts
        if x.dtype() == DType::String {
            let default = cx.node.attrs.int_or("default_int64", -1)?;
            let map: HashMap<&Bytes, i64> = strings.iter().zip(numbers.iter().copied()).collect();
            let y = x.as_strings()?.iter().map(|s| map.get(s).copied().unwrap_or(default));
            return Ok(vec![Tensor::new(x.shape(), y.collect::<Vec<_>>())?.into()]);
        }
        let default = match cx.node.attrs.get("default_string") {
            Some(AttrValue::String(s)) => s.clone(),
            _ => Bytes::from_static(b"_Unused"),
        };
        let map: HashMap<i64, &Bytes> = numbers.iter().copied().zip(strings.iter()).collect();
        let x64 = x.as_slice::<i64>()?;
        let y = x64.iter().map(|v| map.get(v).copied().unwrap_or(&default).clone());
        Ok(vec![Tensor::from_strings(x.shape(), y)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    #[test]
    fn maps_both_ways_and_knows_what_is_missing() {
        let cats: StringList = ["a", "b"].into_iter().collect();
        let attrs = Attrs::new().with("cats_strings", cats).with("cats_int64s", vec![7i64, -2]);
        let texts = Tensor::from_strings([1, 3], ["b", "?", "a"]).unwrap();
        let y = eval_ml("CategoryMapper", 1, attrs.clone(), &[texts]).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::new([1, 3], vec![-2i64, -1, 7]).unwrap());
        let numbers = Tensor::from_i64s(vec![7, 0]);
        let y = eval_ml(
            "CategoryMapper",
            1,
            attrs.clone().with("default_string", "d"),
            std::slice::from_ref(&numbers),
        )
        .unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::from_strings([2], ["a", "d"]).unwrap());
        let short = attrs.with("cats_int64s", vec![7i64]);
        assert!(eval_ml("CategoryMapper", 1, short, &[numbers]).is_err());
    }
}
