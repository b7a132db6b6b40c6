//! `StringConcat`, `StringSplit`, `StringNormalizer`, `RegexFullMatch`.
//! <https://onnx.ai/onnx/operators/onnx__StringConcat.html>, <https://onnx.ai/onnx/operators/onnx__StringSplit.html>,
//! <https://onnx.ai/onnx/operators/onnx__StringNormalizer.html>,
//! <https://onnx.ai/onnx/operators/onnx__RegexFullMatch.html>
use super::{broadcast, movement};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Bytes, DType, Dim, Error, Result, StringList, Tensor, TensorType, Value};

/// `StringConcat`.
pub struct StringConcat;
/// `StringSplit`.
pub struct StringSplit;
/// `StringNormalizer`.
pub struct StringNormalizer;
/// `RegexFullMatch`.
pub struct RegexFullMatch;

fn text(s: &Bytes) -> Result<&str> {
    let bad = |_| Error::mismatch("string", String::from_utf8_lossy(s), "UTF-8");
    std::str::from_utf8(s).map_err(bad)
}

impl Operator for StringConcat {
    fn schema(&self) -> Schema {
        Schema { name: "StringConcat", domain: "", since: &[20], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![match (cx.shape(0)?, cx.shape(1)?) {
            (Some(a), Some(b)) => TensorType::new(DType::String, broadcast::dims(&[a, b])?).into(),
            _ => TensorType::unranked(DType::String).into(),
        }])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        let out = broadcast::shape(&[a.shape(), b.shape()])?;
        let strides = [broadcast::strides(a.shape(), &out), broadcast::strides(b.shape(), &out)];
        let (a, b) = (a.as_strings()?, b.as_strings()?);
        let mut bytes = 0usize;
        broadcast::for_each(&out, [&strides[0], &strides[1]], |[i, j]| {
            bytes = bytes.saturating_add(a[i].len() + b[j].len());
        });
        movement::new_text([bytes])?;
        let mut joined = vec![];
        broadcast::for_each(&out, [&strides[0], &strides[1]], |[i, j]| {
            joined.push([&a[i][..], &b[j]].concat())
        });
        Ok(vec![Tensor::from_strings(out, joined)?.into()])
    }
}

/// The pieces of a string. Without a delimiter runs of white space separate, and none stand at the ends.
fn pieces<'a>(s: &'a str, delimiter: &str, most: Option<usize>) -> Vec<&'a str> {
    if !delimiter.is_empty() {
        return match most {
            Some(n) => s.splitn(n.saturating_add(1), delimiter).collect(),
            None => s.split(delimiter).collect(),
        };
    }
    let mut out = vec![];
    let mut rest = s.trim();
    while !rest.is_empty() {
        let end = if most.is_some_and(|n| out.len() >= n) { None } else { rest.find(char::is_whitespace) };
        let (head, tail) = rest.split_at(end.unwrap_or(rest.len()));
        out.push(head);
        rest = tail.trim_start();
    }
    out
}

impl Operator for StringSplit {
    fn schema(&self) -> Schema {
        Schema { name: "StringSplit", domain: "", since: &[20], inputs: (1, 1), outputs: (2, 2) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let shape = cx.shape(0)?.cloned();
        let split = shape.clone().map(|s| [s, vec![Dim::Unknown]].concat());
        let counts = TensorType { dtype: DType::I64, shape };
        Ok(vec![TensorType { dtype: DType::String, shape: split }.into(), counts.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let delimiter = cx.node.attrs.str_or("delimiter", "")?;
        let most = cx.node.attrs.int("maxsplit")?.and_then(|n| usize::try_from(n).ok());
        let split: Vec<Vec<&str>> =
            x.as_strings()?.iter().map(|s| Ok(pieces(text(s)?, delimiter, most))).collect::<Result<_>>()?;
        let longest = split.iter().map(Vec::len).max().unwrap_or(0);
        movement::new_elems(&[x.shape(), &[longest]].concat())?;
        let padded =
            split.iter().flat_map(|p| (0..longest).map(|i| p.get(i).copied().unwrap_or("").to_string()));
        let y = Tensor::from_strings([x.shape(), &[longest]].concat(), padded)?;
        let counts = split.iter().map(|p| p.len() as i64).collect::<Vec<_>>();
        Ok(vec![y.into(), Tensor::new(x.shape(), counts)?.into()])
    }
}

impl Operator for StringNormalizer {
    fn schema(&self) -> Schema {
        Schema { name: "StringNormalizer", domain: "", since: &[10], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let shape = match cx.shape(0)?.map(Vec::as_slice) {
            Some([_]) => Some(vec![Dim::Unknown]),
            Some([one, _]) => Some(vec![one.clone(), Dim::Unknown]),
            Some(other) => return Err(Error::mismatch("rank", other.len(), "1 or 2")),
            None => None,
        };
        Ok(vec![TensorType { dtype: DType::String, shape }.into()])
    }
    /// Drops stop words, then changes case; an empty result is one empty string.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let attrs = &cx.node.attrs;
        if !matches!(x.shape(), [_] | [1, _]) {
            return Err(Error::mismatch("shape", format!("{:?}", x.shape()), "[C] or [1, C]"));
        }
        let change: fn(&str) -> String = match attrs.str_or("case_change_action", "NONE")? {
            "LOWER" => str::to_lowercase,
            "UPPER" => str::to_uppercase,
            "NONE" => str::to_string,
            other => {
                return Err(Error::mismatch("attribute `case_change_action`", other, "LOWER, UPPER or NONE"));
            }
        };
        let exact = attrs.flag("is_case_sensitive", false)?;
        let key = |s: &str| if exact { s.to_string() } else { s.to_lowercase() };
        let stop: Vec<String> = attrs
            .strings("stopwords")?
            .into_iter()
            .flat_map(StringList::iter)
            .map(|s| Ok(key(text(s)?)))
            .collect::<Result<_>>()?;
        let mut kept = vec![];
        for s in x.as_strings()? {
            let s = text(s)?;
            if !stop.contains(&key(s)) {
                kept.push(change(s));
            }
        }
        if kept.is_empty() {
            kept.push(String::new());
        }
        let shape = if x.rank() == 1 { vec![kept.len()] } else { vec![1, kept.len()] };
        Ok(vec![Tensor::from_strings(shape, kept)?.into()])
    }
}

impl Operator for RegexFullMatch {
    fn schema(&self) -> Schema {
        Schema { name: "RegexFullMatch", domain: "", since: &[20], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![TensorType { dtype: DType::Bool, shape: cx.shape(0)?.cloned() }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let pattern = cx.node.attrs.str_or("pattern", "")?;
        let regex = regex::Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(|e| {
            Error::mismatch("attribute `pattern`", pattern, format!("a regular expression ({e})"))
        })?;
        let found =
            x.as_strings()?.iter().map(|s| Ok(regex.is_match(text(s)?))).collect::<Result<Vec<_>>>()?;
        Ok(vec![Tensor::from_bools(x.shape(), found)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_or_a_delimiter_separates() {
        assert_eq!(pieces("  a b   c ", "", None), ["a", "b", "c"]);
        assert_eq!(pieces("  a b   c d", "", Some(1)), ["a", "b   c d"]);
        assert_eq!(pieces("a,,b", ",", None), ["a", "", "b"]);
        assert_eq!(pieces("a,,b", ",", Some(1)), ["a", ",b"]);
        assert!(pieces("", "", None).is_empty());
    }
}
