//! `RotaryEmbedding`. <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{Error, OpNode, Result, Tensor, Value};

/// `RotaryEmbedding`.
pub struct RotaryEmbedding;

/// A rotation of known shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotaryProblem {
    /// Batch.
    pub batch: usize,
    /// Tokens.
    pub sequence: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of a head.
    pub head_size: usize,
    /// Leading elements of a head that are rotated, even.
    pub rotated: usize,
    /// Pairs are neighbours; otherwise the halves of the rotated elements.
    pub interleaved: bool,
    /// x is `[batch, sequence, heads * head_size]`; otherwise `[batch, heads, sequence, head_size]`.
    pub packed: bool,
}

impl RotaryProblem {
    /// Checks a node against the shape of x. Errors name what does not fit.
    pub fn new(node: &OpNode, x: &[usize]) -> Result<RotaryProblem> {
        let extent = |name: &str| {
            let v = node.attrs.int_or(name, 0)?;
            usize::try_from(v).map_err(|_| Error::mismatch(format!("attribute `{name}`"), v, "at least 0"))
        };
        let given_heads = extent("num_heads")?;
        let (batch, sequence, heads, head_size, packed) = match *x {
            [b, h, s, d] => (b, s, h, d, false),
            [b, s, hidden] if given_heads > 0 && hidden % given_heads == 0 => {
                (b, s, given_heads, hidden / given_heads, true)
            }
            [_, _, hidden] => {
                return Err(Error::mismatch(
                    "attribute `num_heads`",
                    given_heads,
                    format!("a divisor of {hidden}"),
                ));
            }
            _ => return Err(Error::mismatch("rank of x", x.len(), "3 or 4")),
        };
        let rotated = match extent("rotary_embedding_dim")? {
            0 => head_size,
            r => r,
        };
        if rotated > head_size || rotated % 2 != 0 {
            let wanted = format!("an even number up to {head_size}");
            return Err(Error::mismatch("rotated elements of a head", rotated, wanted));
        }
        let interleaved = node.attrs.flag("interleaved", false)?;
        Ok(RotaryProblem { batch, sequence, heads, head_size, rotated, interleaved, packed })
    }
    fn offset(&self, b: usize, s: usize, h: usize) -> usize {
        let row = if self.packed {
            (b * self.sequence + s) * self.heads + h
        } else {
            (b * self.heads + h) * self.sequence + s
        };
        row * self.head_size
    }
    /// Turns x in place; `rows` names the row of the caches for each token `[batch, sequence]`.
    pub(crate) fn rotate<T: Real>(&self, x: &mut [T], rows: &[usize], cos: &[T], sin: &[T]) {
        let half = self.rotated / 2;
        for b in 0..self.batch {
            for s in watched(0..self.sequence) {
                let row = rows[b * self.sequence + s] * half;
                for h in 0..self.heads {
                    let head = &mut x[self.offset(b, s, h)..][..self.head_size];
                    for i in 0..half {
                        let (one, two) = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, half + i) };
                        let (re, im, c, s) = (head[one], head[two], cos[row + i], sin[row + i]);
                        head[one] = c * re - s * im;
                        head[two] = s * re + c * im;
                    }
                }
            }
        }
    }
    /// The row of the caches for each token `[batch, sequence]`.
    fn rows(&self, cache: &Tensor, positions: Option<&Tensor>) -> Result<Vec<usize>> {
        let half = self.rotated / 2;
        let tokens = self.batch * self.sequence;
        let bad =
            |wanted: String| Error::mismatch("shape of a cache", format!("{:?}", cache.shape()), wanted);
        let Some(positions) = positions else {
            return match cache.shape() {
                [b, s, d] if (*b, *s, *d) == (self.batch, self.sequence, half) => Ok((0..tokens).collect()),
                _ => Err(bad(format!("[{}, {}, {half}]", self.batch, self.sequence))),
            };
        };
        let [rows, d] = cache.shape() else { return Err(bad(format!("[rows, {half}]"))) };
        if *d != half {
            return Err(bad(format!("[{rows}, {half}]")));
        }
        let row = |p: i64| {
            usize::try_from(p)
                .ok()
                .filter(|p| p < rows)
                .ok_or_else(|| Error::mismatch("position", p, format!("0..{rows}")))
        };
        let found = positions.to_i64s()?.into_iter().map(row).collect::<Result<Vec<_>>>()?;
        if found.len() != tokens {
            let wanted = format!("[{}, {}]", self.batch, self.sequence);
            return Err(Error::mismatch(
                "shape of the positions",
                format!("{:?}", positions.shape()),
                wanted,
            ));
        }
        Ok(found)
    }
}

impl Operator for RotaryEmbedding {
    fn schema(&self) -> Schema {
        Schema { name: "RotaryEmbedding", domain: "", since: &[23], inputs: (3, 4), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, cos, sin) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let p = RotaryProblem::new(cx.node, x.shape())?;
        if cos.shape() != sin.shape() {
            let wanted = format!("{:?} as cos_cache", cos.shape());
            return Err(Error::mismatch("shape of sin_cache", format!("{:?}", sin.shape()), wanted));
        }
        let rows = p.rows(cos, cx.opt_tensor(3)?)?;
        with_real!(x.dtype(), T => {
            let mut y = T::load(x)?.into_owned();
            p.rotate(&mut y, &rows, &T::load(cos)?, &T::load(sin)?);
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}
