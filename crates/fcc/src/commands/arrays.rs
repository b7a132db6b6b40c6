//! Values of any kind as named arrays, and on one line.
use fcc_ir::convert::to_f64s;
use fcc_ir::ops::movement::concat;
use fcc_ir::{DType, Result, Tensor, Value};

/// A value as arrays by name.
///
/// A tensor is `name`; a sequence is `name.0`, `name.1`, …; an empty optional is left out. A map is `name.keys` `[N]` and
/// `name.values` `[N]` where each value is a scalar of one type, else `name.values.0`, `name.values.1`, … in the order of
/// the keys.
pub(crate) fn of(name: &str, value: &Value) -> Result<Vec<(String, Tensor)>> {
    let mut arrays = vec![];
    collect(name, value, &mut arrays)?;
    Ok(arrays)
}

fn collect(name: &str, value: &Value, arrays: &mut Vec<(String, Tensor)>) -> Result<()> {
    let numbered = |name: &str, items: &[Value], arrays: &mut Vec<_>| {
        items.iter().enumerate().try_for_each(|(i, item)| collect(&format!("{name}.{i}"), item, arrays))
    };
    match value {
        Value::Tensor(t) => arrays.push((name.into(), t.clone())),
        Value::Sequence(_, items) => numbered(name, items, arrays)?,
        Value::Optional(_, Some(held)) => collect(name, held, arrays)?,
        Value::Optional(_, None) => {}
        Value::Map(keys, values) => {
            arrays.push((format!("{name}.keys"), keys.clone()));
            let name = format!("{name}.values");
            match scalars(values)? {
                Some(values) => arrays.push((name, values)),
                None => numbered(&name, values, arrays)?,
            }
        }
    }
    Ok(())
}

/// Scalars of one type as one vector.
fn scalars(values: &[Value]) -> Result<Option<Tensor>> {
    let scalar = |v: &Value| v.as_tensor().ok().filter(|t| t.rank() == 0).cloned();
    let Some(all) = values.iter().map(scalar).collect::<Option<Vec<Tensor>>>() else { return Ok(None) };
    if all.is_empty() || all.iter().any(|t| t.dtype() != all[0].dtype()) {
        return Ok(None);
    }
    let all = all.iter().map(|t| t.reshaped([1])).collect::<Result<Vec<_>>>()?;
    concat(&all.iter().collect::<Vec<_>>(), 0).map(Some)
}

/// The first `shown` elements of each list: `[{"no": 0.25, "yes": 0.75}, …]`. A tensor that is no scalar is its type.
pub(crate) fn brief(value: &Value, shown: usize, number: &dyn Fn(f64) -> String) -> String {
    let list = |n: usize, one: &dyn Fn(usize) -> String| {
        let mut items: Vec<String> = (0..n.min(shown)).map(one).collect();
        items.extend((n > shown).then(|| "…".to_string()));
        items.join(", ")
    };
    match value {
        Value::Tensor(t) if t.rank() == 0 => element(t, 0, number),
        Value::Tensor(t) => t.tensor_type().to_string(),
        Value::Sequence(_, items) => format!("[{}]", list(items.len(), &|i| brief(&items[i], shown, number))),
        Value::Optional(_, held) => held.as_ref().map_or("nothing".into(), |v| brief(v, shown, number)),
        Value::Map(keys, values) => {
            let entry =
                |i: usize| format!("{}: {}", element(keys, i, number), brief(&values[i], shown, number));
            format!("{{{}}}", list(values.len(), &entry))
        }
    }
}

fn element(t: &Tensor, i: usize, number: &dyn Fn(f64) -> String) -> String {
    match t.dtype() {
        DType::String => {
            let text =
                t.as_strings().ok().and_then(|s| s.get(i)).map(|s| String::from_utf8_lossy(s).into_owned());
            format!("{:?}", text.unwrap_or_default())
        }
        DType::I64 => t.to_i64s().ok().and_then(|v| v.get(i).copied()).unwrap_or_default().to_string(),
        _ => to_f64s(t).ok().and_then(|v| v.get(i).copied()).map_or("?".into(), number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fcc_ir::ValueType;

    fn maps() -> Value {
        let keys = Tensor::from_strings([2], ["no", "y\u{1b}s"]).unwrap();
        let map = |a: f32, b: f32| {
            Value::Map(keys.clone(), vec![Tensor::scalar(a).into(), Tensor::scalar(b).into()])
        };
        Value::Sequence(ValueType::Unknown, vec![map(0.25, 0.75), map(1.0, 0.0)])
    }

    #[test]
    fn a_sequence_of_maps_is_keys_and_values_of_each() {
        let arrays = of("z", &maps()).unwrap();
        let names: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["z.0.keys", "z.0.values", "z.1.keys", "z.1.values"]);
        assert_eq!(arrays[1].1, Tensor::new([2], vec![0.25f32, 0.75]).unwrap());
        let mixed = Value::Map(
            Tensor::from_i64s(vec![5, 6]),
            vec![Tensor::scalar(1i64).into(), Tensor::new([1], vec![2.0f32]).unwrap().into()],
        );
        let names: Vec<String> = of("m", &mixed).unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["m.keys", "m.values.0", "m.values.1"]);
    }

    #[test]
    fn one_line_shows_the_first_of_each_list_and_no_control_character() {
        let line = brief(&maps(), 1, &|v| v.to_string());
        assert_eq!(line, r#"[{"no": 0.25, …}, …]"#);
        assert!(brief(&maps(), 8, &|v| v.to_string()).contains(r#""y\u{1b}s": 0.75"#));
    }
}
