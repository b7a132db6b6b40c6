//! `EmbedLayerNormalization`: the layer normalisation of the sum of word, position and segment embeddings.
use super::normalization::normalize;
use super::{DOMAIN, Shapes, epsilon, extent, rows_of, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_real};
use crate::{DType, Error, Result, Tensor, TensorType, Value};

/// `EmbedLayerNormalization`: inputs input_ids, segment_ids, word_embedding, position_embedding, segment_embedding,
/// gamma, beta, mask, position_ids; outputs the normalised sum, the number of ones in each row of the mask, the sum.
pub struct EmbedLayerNormalization;

/// `[batch, sequence, hidden]`. Errors where shapes do not fit.
fn extents(shapes: &Shapes) -> Result<[usize; 3]> {
    let ids = shapes.need(0, "input_ids")?;
    let &[batch, sequence] = ids else { return Err(Error::mismatch("rank of `input_ids`", ids.len(), 2)) };
    let words = shapes.need(2, "word_embedding")?;
    let &[_, hidden] = words else {
        return Err(Error::mismatch("rank of `word_embedding`", words.len(), 2));
    };
    for (i, name) in [(1, "segment_ids"), (7, "mask")] {
        shapes.fit(i, name, ids)?;
    }
    if shapes.get(1).is_some() {
        shapes.need(4, "segment_embedding")?;
    }
    shapes.need(3, "position_embedding")?;
    for (i, name) in [(3, "position_embedding"), (4, "segment_embedding")] {
        match shapes.get(i) {
            None | Some([_, _]) if shapes.get(i).is_none_or(|s| s[1] == hidden) => {}
            Some(other) => return Err(wrong_shape(name, other, format!("[rows, {hidden}]"))),
            None => {}
        }
    }
    for (i, name) in [(5, "gamma"), (6, "beta")] {
        shapes.need(i, name)?;
        shapes.fit(i, name, &[hidden])?;
    }
    match shapes.get(8) {
        Some([b, s]) if (*b == batch || *b == 1) && *s == sequence => {}
        Some(other) => {
            let wanted = format!("[{batch}, {sequence}] or [1, {sequence}]");
            return Err(wrong_shape("position_ids", other, wanted));
        }
        None => {}
    }
    Ok([batch, sequence, hidden])
}

impl Operator for EmbedLayerNormalization {
    fn schema(&self) -> Schema {
        let (inputs, outputs) = ((7, 9), (1, 3));
        Schema { name: "EmbedLayerNormalization", domain: DOMAIN, since: &[1], inputs, outputs }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        epsilon(cx.node, 1e-12)?;
        if let Some(shapes) = Shapes::fixed(cx)? {
            extents(&shapes)?;
        }
        let batch = extent(cx, 0, 0)?;
        let sum = TensorType::new(cx.dtype(2)?, [batch.clone(), extent(cx, 0, 1)?, extent(cx, 2, 1)?]);
        let counts = TensorType::new(DType::I32, [batch]);
        Ok([sum.clone(), counts, sum].into_iter().take(cx.n_outputs).map(Fact::from).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let [batch, sequence, hidden] = extents(&Shapes::of(cx)?)?;
        let (words, positions) = (cx.tensor(2)?, cx.tensor(3)?);
        let rows = |i: usize, table: usize, name: &str| -> Result<Option<Vec<usize>>> {
            let Some(ids) = cx.opt_tensor(i)? else { return Ok(None) };
            Ok(Some(rows_of(name, &ids.to_i64s()?, cx.tensor(table)?.shape()[0])?))
        };
        let word_rows = rows(0, 2, "input_ids")?.unwrap_or_default();
        // without ids, a table of segments gives its first row
        let segment_rows = match (rows(1, 4, "segment_ids")?, cx.opt_tensor(4)?) {
            (None, Some(table)) => rows_of("segment", &vec![0; word_rows.len()], table.shape()[0])?,
            (rows, _) => rows.unwrap_or_default(),
        };
        let position_rows = match rows(8, 3, "position_ids")? {
            Some(rows) => rows,
            None if word_rows.is_empty() => vec![],
            None => {
                let places: Vec<i64> = (0..sequence as i64).collect();
                rows_of("position", &places, positions.shape()[0])?
            }
        };
        let epsilon = epsilon(cx.node, 1e-12)?;
        let dtype = words.dtype();
        with_real!(dtype, T => {
            let (words, positions) = (T::load(words)?, T::load(positions)?);
            let segments = cx.opt_tensor(4)?.map(T::load).transpose()?;
            let (gamma, beta) = (T::load(cx.tensor(5)?)?, T::load(cx.tensor(6)?)?);
            let mut sum = Vec::with_capacity(batch * sequence * hidden);
            for (t, word) in word_rows.iter().enumerate() {
                let position = position_rows[t % position_rows.len()];
                for c in 0..hidden {
                    let mut v = words[word * hidden + c] + positions[position * hidden + c];
                    if let Some(table) = &segments {
                        v += table[segment_rows[t] * hidden + c];
                    }
                    sum.push(v);
                }
            }
            let mut y = sum.clone();
            for row in y.chunks_mut(hidden.max(1)) {
                normalize(row, true, epsilon);
                row.iter_mut().zip(gamma.iter().zip(&*beta)).for_each(|(v, (g, b))| *v = *v * *g + *b);
            }
            let counts = match cx.opt_tensor(7)? {
                None => vec![0i32; batch],
                Some(mask) => {
                    let mask = mask.to_i64s()?;
                    let ones = |b: usize| mask[b * sequence..][..sequence].iter().filter(|m| **m == 1).count();
                    (0..batch).map(|b| ones(b) as i32).collect()
                }
            };
            let shape = [batch, sequence, hidden];
            let outputs = [T::store(dtype, shape, y)?, Tensor::new([batch], counts)?, T::store(dtype, shape, sum)?];
            Ok(outputs.into_iter().take(cx.wanted.len()).map(Value::from).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;
    use crate::{Result, Tensor, Value};

    fn run(ids: &[i32], segments: Option<[i32; 2]>, positions: Option<[i32; 2]>) -> Result<Vec<Value>> {
        let f = |shape: &[usize], v: &[f32]| Some(Tensor::new(shape, v.to_vec()).unwrap());
        let i = |v: &[i32]| Some(Tensor::new([1, 2], v.to_vec()).unwrap());
        let inputs = [
            i(ids),
            segments.and_then(|s| i(&s)),
            f(&[3, 2], &[1.0, 2.0, 3.0, 5.0, 0.0, 0.0]),
            f(&[2, 2], &[0.0, 1.0, 1.0, 0.0]),
            f(&[2, 2], &[10.0, 0.0, 0.0, 20.0]),
            f(&[2], &[1.0, 2.0]),
            f(&[2], &[0.5, 0.0]),
            i(&[1, 2]),
            positions.and_then(|p| i(&p)),
        ];
        let attrs = Attrs::new().with("epsilon", 0f32);
        eval_in("com.microsoft", "EmbedLayerNormalization", attrs, &inputs, 3)
    }

    #[test]
    fn words_positions_and_segments_are_added_and_normalised() {
        let outputs = run(&[1, 0], Some([1, 0]), Some([1, 0])).unwrap();
        let floats = |i: usize| outputs[i].as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec();
        // [3, 5] + [1, 0] + [0, 20] and [1, 2] + [0, 1] + [10, 0]
        assert_eq!(floats(2), [4.0, 25.0, 11.0, 3.0]);
        assert_eq!(floats(0), [-0.5, 2.0, 1.5, -2.0]);
        assert_eq!(outputs[1].as_tensor().unwrap().as_slice::<i32>().unwrap()[..], [1]);
        // without segments' ids and positions: the first segment
        let plain = run(&[1, 0], None, None).unwrap();
        assert_eq!(plain[2].as_tensor().unwrap().as_slice::<f32>().unwrap()[..], [13.0, 6.0, 12.0, 2.0]);
    }

    #[test]
    fn ids_outside_of_their_table_are_refused() {
        assert!(run(&[3, 0], None, None).is_err());
        assert!(run(&[-1, 0], None, None).is_err());
        assert!(run(&[0, 0], Some([2, 0]), None).is_err());
        assert!(run(&[0, 0], None, Some([0, 2])).is_err());
    }
}
