//! `MatMulNBits`: A times a matrix of 2, 4 or 8 bits that is quantised in blocks along K.
use super::{DOMAIN, Shapes, count, extent, rows_of, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::matmul;
use crate::ops::numeric::{Num, with_real};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value, convert};

/// `MatMulNBits`: inputs A, B, scales, zero_points, g_idx, bias.
pub struct MatMulNBits;

/// The extents: B is `[n, blocks, block * bits / 8]` bytes, low bits first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Problem {
    n: usize,
    k: usize,
    bits: usize,
    /// Elements of a block.
    block: usize,
    /// Blocks of a row, the last of which may be padded.
    blocks: usize,
}

impl Problem {
    /// Reads the attributes.
    fn of(node: &OpNode) -> Result<Problem> {
        let (n, k, block) = (count(node, "N")?, count(node, "K")?, count(node, "block_size")?);
        if block < 16 || !block.is_power_of_two() {
            return Err(Error::mismatch("attribute `block_size`", block, "a power of two from 16 on"));
        }
        let bits = match node.attrs.int_or("bits", 4)? {
            2 => 2,
            4 => 4,
            8 => 8,
            other => return Err(Error::mismatch("attribute `bits`", other, "2, 4 or 8")),
        };
        if node.attrs.int_or("weight_prepacked", 0)? != 0 {
            return Err(Error::unsupported(format!("{DOMAIN}.MatMulNBits with `weight_prepacked`")));
        }
        Ok(Problem { n, k, bits, block, blocks: k.div_ceil(block) })
    }
    /// Bytes of packed zero points of a row.
    fn zero_bytes(self) -> usize {
        (self.blocks * self.bits).div_ceil(8)
    }
    /// Errors where shapes do not fit; zero points are packed where they are bytes.
    fn check(self, shapes: &Shapes, packed: bool) -> Result<()> {
        let a = shapes.need(0, "A")?;
        if a.last() != Some(&self.k) {
            return Err(wrong_shape("A", a, format!("a last extent of {}", self.k)));
        }
        shapes.need(1, "B")?;
        shapes.fit(1, "B", &[self.n, self.blocks, self.block * self.bits / 8])?;
        shapes.need(2, "scales")?;
        let zeros = if packed { self.zero_bytes() } else { self.blocks };
        for (i, name, columns) in [(2, "scales", self.blocks), (3, "zero_points", zeros)] {
            match shapes.get(i) {
                Some(s) if s != [self.n, columns] && s != [self.n * columns] => {
                    return Err(wrong_shape(name, s, format!("[{}, {columns}]", self.n)));
                }
                _ => {}
            }
        }
        if let Some(g) = shapes.get(4)
            && g != [self.k]
            && g != [self.blocks * self.block]
        {
            return Err(wrong_shape("g_idx", g, format!("[{}]", self.k)));
        }
        shapes.fit(5, "bias", &[self.n])
    }
    /// Element `i` of packed bytes.
    fn unpack(self, bytes: &[u8], i: usize) -> u8 {
        let bit = i * self.bits;
        let mask = ((1u16 << self.bits) - 1) as u8;
        bytes[bit / 8] >> (bit % 8) & mask
    }
    /// The zero point of each block of each row.
    fn zeros(self, given: Option<&Tensor>) -> Result<Vec<f64>> {
        let Some(t) = given else { return Ok(vec![f64::from(1u8 << (self.bits - 1)); self.n * self.blocks]) };
        if t.dtype() != DType::U8 {
            return convert::to_f64s(t);
        }
        let bytes = t.as_slice::<u8>()?;
        let rows = bytes.chunks_exact(self.zero_bytes().max(1));
        Ok(rows.flat_map(|row| (0..self.blocks).map(|b| f64::from(self.unpack(row, b)))).collect())
    }
}

impl Operator for MatMulNBits {
    fn schema(&self) -> Schema {
        Schema { name: "MatMulNBits", domain: DOMAIN, since: &[1], inputs: (3, 6), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let p = Problem::of(cx.node)?;
        let packed = cx.has(3) && cx.dtype(3)? == DType::U8;
        let zeros_known = !cx.has(3) || cx.dtype(3)? != DType::Undefined;
        if let Some(shapes) = Shapes::fixed(cx)?
            && zeros_known
        {
            p.check(&shapes, packed)?;
        }
        let dtype = cx.dtype(0)?;
        let Some(a) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        if a.is_empty() || !extent(cx, 0, a.len() - 1)?.compatible(&Dim::Known(p.k)) {
            return Err(Error::mismatch("type of `A`", cx.ty(0)?, format!("a last extent of {}", p.k)));
        }
        let shape = a[..a.len() - 1].iter().cloned().chain([Dim::Known(p.n)]);
        Ok(vec![TensorType::new(dtype, shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let p = Problem::of(cx.node)?;
        let (a, b, scales, zeros) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?, cx.opt_tensor(3)?);
        p.check(&Shapes::of(cx)?, zeros.is_some_and(|z| z.dtype() == DType::U8))?;
        let groups = match cx.opt_tensor(4)? {
            None => (0..p.k).map(|k| k / p.block).collect(),
            Some(g) => rows_of("g_idx", &g.to_i64s()?[..p.k], p.blocks)?,
        };
        let (zeros, bytes) = (p.zeros(zeros)?, b.as_slice::<u8>()?);
        let row_bytes = p.blocks * p.block * p.bits / 8;
        with_real!(a.dtype(), T => {
            let scales = T::load(scales)?;
            let mut w: Vec<T> = Vec::with_capacity(p.n * p.k);
            for row in 0..p.n {
                cx.check()?;
                let bytes = &bytes[row * row_bytes..][..row_bytes];
                w.extend(groups.iter().enumerate().map(|(k, group)| {
                    let at = row * p.blocks + group;
                    T::from_f64(f64::from(p.unpack(bytes, k)) - zeros[at]) * scales[at]
                }));
            }
            let rows = a.len() / p.k;
            let mut y = vec![T::ZERO; rows * p.n];
            matmul::product(&T::load(a)?, [p.k, 1], &w, [1, p.k], (rows, p.k, p.n), &mut y);
            if let Some(bias) = cx.opt_tensor(5)? {
                let bias = T::load(bias)?;
                y.iter_mut().zip(bias.iter().cycle()).for_each(|(y, b)| *y += *b);
            }
            let mut shape = a.shape().to_vec();
            shape.pop();
            shape.push(p.n);
            Ok(vec![T::store(a.dtype(), shape, y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;

    /// One row of 20 elements in two blocks of 16, all of them 1 above their zero point but the first, which is
    /// on it.
    fn run(bits: i64, zeros: Option<Tensor>, extra: [Option<Tensor>; 2]) -> Result<Vec<f32>> {
        let attrs =
            Attrs::new().with("N", 1i64).with("K", 20i64).with("block_size", 16i64).with("bits", bits);
        let zero = if zeros.is_some() { 1u8 } else { 1 << (bits - 1) };
        let per = 8 / bits as usize;
        let mut elems = [zero + 1; 32];
        elems[0] = zero;
        let byte = |c: &[u8]| c.iter().enumerate().fold(0u8, |b, (i, v)| b | v << (i * bits as usize));
        let bytes: Vec<u8> = elems.chunks(per).map(byte).collect();
        let b = Tensor::new([1, 2, 16 / per], bytes)?;
        let scales = Tensor::new([1, 2], vec![1f32, 10.0])?;
        let a = Tensor::new([1, 20], (0..20).map(|k| if k == 0 { 5f32 } else { 1.0 }).collect())?;
        let [group, bias] = extra;
        let inputs = [Some(a), Some(b), Some(scales), zeros, group, bias];
        Ok(eval_in(DOMAIN, "MatMulNBits", attrs, &inputs, 1)?[0].as_tensor()?.as_slice::<f32>()?.to_vec())
    }

    #[test]
    fn blocks_have_scales_and_zero_points() -> Result<()> {
        // 15 of the first block, 4 * 10 of the second
        for bits in [2, 4, 8] {
            assert_eq!(run(bits, None, [None, None])?, [55.0], "{bits} bits");
            let packed = match bits {
                2 => vec![0b01_01u8],
                4 => vec![0x11],
                _ => vec![1, 1],
            };
            let packed = Tensor::new([1, packed.len()], packed)?;
            assert_eq!(run(bits, Some(packed), [None, None])?, [55.0], "{bits} bits with zero points");
        }
        let zeros = Tensor::new([1, 2], vec![1f32, 0.5])?;
        let bias = Some(Tensor::new([1], vec![0.25f32])?);
        assert_eq!(run(4, Some(zeros), [None, bias])?, [15.0 + 4.0 * 15.0 + 0.25]);
        let group = Some(Tensor::new([20], (0..20).map(|k| i32::from(k < 4)).collect())?);
        // 3 * 10 + 16
        assert_eq!(run(4, None, [group, None])?, [46.0]);
        Ok(())
    }

    #[test]
    fn attributes_and_groups_outside_are_refused() {
        let group = Some(Tensor::new([20], vec![2i32; 20]).unwrap());
        assert!(run(4, None, [group, None]).is_err());
        assert!(run(4, Some(Tensor::new([1, 2], vec![1u8, 1]).unwrap()), [None, None]).is_err());
        let attrs = Attrs::new().with("N", 1i64).with("K", 20i64).with("block_size", 8i64);
        let one = Some(Tensor::new([1, 20], vec![0f32; 20]).unwrap());
        assert!(eval_in(DOMAIN, "MatMulNBits", attrs, &[one.clone(), one.clone(), one], 1).is_err());
    }
}
