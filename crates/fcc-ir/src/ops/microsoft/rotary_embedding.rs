//! `RotaryEmbedding` of `com.microsoft`: x, position_ids, cos_cache, sin_cache.
use super::{DOMAIN, Shapes, is_one, one_int, rows_of, share, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_real};
use crate::ops::rotary_embedding::RotaryProblem;
use crate::{Error, OpNode, Result, Value};

/// `RotaryEmbedding`: x is `[batch, sequence, hidden]` or `[batch, heads, sequence, head_size]`; the position of every
/// token, or of the first one.
pub struct RotaryEmbedding;

/// The problem of these shapes. Errors name what does not fit.
fn problem(node: &OpNode, shapes: &Shapes) -> Result<RotaryProblem> {
    let attr = |name: &str| {
        let v = node.attrs.int_or(name, 0)?;
        usize::try_from(v).map_err(|_| Error::mismatch(format!("attribute `{name}`"), v, "at least 0"))
    };
    let (given_heads, given_dim) = (attr("num_heads")?, attr("rotary_embedding_dim")?);
    if given_dim > 0 && given_heads == 0 {
        return Err(Error::mismatch("attribute `num_heads`", 0, "the heads, beside `rotary_embedding_dim`"));
    }
    let cos = shapes.need(2, "cos_cache")?;
    let &[_, half] = cos else { return Err(Error::mismatch("rank of `cos_cache`", cos.len(), 2)) };
    shapes.need(3, "sin_cache")?;
    shapes.fit(3, "sin_cache", cos)?;
    let x = shapes.need(0, "input")?;
    let (batch, sequence, heads, head_size, packed) = match *x {
        [b, h, s, d] => (b, s, h, d, false),
        [b, s, hidden] if given_heads > 0 => {
            (b, s, given_heads, share("last extent of `input`", hidden, given_heads)?, true)
        }
        [b, s, hidden] => {
            let size = half.saturating_mul(2);
            if size == 0 {
                return Err(wrong_shape("cos_cache", cos, "at least one column"));
            }
            (b, s, share("last extent of `input`", hidden, size)?, size, true)
        }
        _ => return Err(Error::mismatch("rank of `input`", x.len(), "3 or 4")),
    };
    let rotated = if given_dim > 0 { given_dim } else { head_size };
    if rotated > head_size || rotated % 2 != 0 || half != rotated / 2 {
        let wanted = format!("half of {rotated} rotated elements of a head of {head_size} as columns");
        return Err(wrong_shape("cos_cache", cos, wanted));
    }
    let positions = shapes.need(1, "position_ids")?;
    if !matches!(positions, [] | [1]) && positions != [batch, sequence] {
        return Err(wrong_shape("position_ids", positions, format!("[1] or [{batch}, {sequence}]")));
    }
    let interleaved = is_one(node, "interleaved", false)?;
    Ok(RotaryProblem { batch, sequence, heads, head_size, rotated, interleaved, packed })
}

impl Operator for RotaryEmbedding {
    fn schema(&self) -> Schema {
        Schema { name: "RotaryEmbedding", domain: DOMAIN, since: &[1], inputs: (4, 4), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(shapes) = Shapes::fixed(cx)? {
            problem(cx.node, &shapes)?;
        }
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let p = problem(cx.node, &Shapes::of(cx)?)?;
        let (x, positions, cos, sin) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?, cx.tensor(3)?);
        let ids = if positions.rank() == 2 {
            positions.to_i64s()?
        } else {
            let first = one_int(positions, "position_ids")?;
            let sequence = 0..p.sequence as i64;
            (0..p.batch).flat_map(|_| sequence.clone().map(|s| first.saturating_add(s))).collect()
        };
        let rows = rows_of("position_ids", &ids, cos.shape()[0])?;
        with_real!(x.dtype(), T => {
            let mut y = T::load(x)?.into_owned();
            p.rotate(&mut y, &rows, &T::load(cos)?, &T::load(sin)?);
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;
    use crate::{Result, Tensor, Value};

    fn run(attrs: Attrs, x: &[usize], positions: Tensor) -> Result<Vec<Value>> {
        let n: usize = x.iter().product();
        let x = Tensor::new(x, (0..n).map(|v| v as f32).collect()).unwrap();
        // position p turns by p quarters
        let cos = Tensor::new([3, 1], vec![1f32, 0.0, -1.0]).unwrap();
        let sin = Tensor::new([3, 1], vec![0f32, 1.0, 0.0]).unwrap();
        eval_in("com.microsoft", "RotaryEmbedding", attrs, &[x, positions, cos, sin].map(Some), 1)
    }

    #[test]
    fn heads_turn_by_the_position_of_their_token() {
        let values = |attrs, x: &[usize], positions| {
            let y = run(attrs, x, positions).unwrap();
            y[0].as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec()
        };
        // two heads of two elements, tokens at 1 and 2
        let two = [-1.0, 0.0, -3.0, 2.0, -4.0, -5.0, -6.0, -7.0];
        assert_eq!(values(Attrs::new(), &[1, 2, 4], Tensor::from_i64s([1])), two);
        let each = Tensor::new([1, 2], vec![1i64, 2]).unwrap();
        assert_eq!(values(Attrs::new(), &[1, 2, 4], each), two);
        // one head of four of which two turn
        let attrs = Attrs::new().with("num_heads", 1i64).with("rotary_embedding_dim", 2i64);
        assert_eq!(values(attrs, &[1, 1, 4], Tensor::from_i64s([1])), [-1.0, 0.0, 2.0, 3.0]);
    }

    #[test]
    fn positions_outside_of_the_caches_and_odd_heads_are_refused() {
        assert!(run(Attrs::new(), &[1, 2, 4], Tensor::from_i64s([2])).is_err());
        assert!(run(Attrs::new(), &[1, 2, 4], Tensor::from_i64s([-1])).is_err());
        assert!(run(Attrs::new(), &[1, 2, 3], Tensor::from_i64s([0])).is_err());
        assert!(run(Attrs::new(), &[1, 2, 4], Tensor::from_i64s([0, 1])).is_err());
        assert!(run(Attrs::new().with("num_heads", 1i64), &[1, 2, 4], Tensor::from_i64s([0])).is_err());
        assert!(
            run(Attrs::new().with("rotary_embedding_dim", 2i64), &[1, 2, 4], Tensor::from_i64s([0])).is_err()
        );
    }
}
