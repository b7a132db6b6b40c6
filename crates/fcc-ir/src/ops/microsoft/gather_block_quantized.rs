//! `GatherBlockQuantized`: rows of a table that is quantised in blocks, as floats.
use super::{DOMAIN, Shapes, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, axis, unsupported_dtype};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value, convert};

/// `GatherBlockQuantized`: inputs data (int4, uint4, or bytes that hold elements of 2, 4 or 8 bits along the last axis),
/// indices, scales, zero_points. An index outside of the axis gives zeros.
pub struct GatherBlockQuantized;

/// The attributes.
#[derive(Debug, Clone, Copy)]
struct Params {
    gather: usize,
    quantize: usize,
    block: usize,
    /// Elements in a byte of the data, 1 where they have a type of their own.
    per_byte: usize,
    bits: usize,
}

impl Params {
    fn new(node: &OpNode, data: DType, rank: usize) -> Result<Params> {
        let bits = match (data, node.attrs.int_or("bits", 4)?) {
            (DType::I4 | DType::U4, _) => 4,
            (DType::U8, bits @ (2 | 4 | 8)) => bits as usize,
            (DType::U8, other) => return Err(Error::mismatch("attribute `bits`", other, "2, 4 or 8")),
            (other, _) => return Err(unsupported_dtype(other)),
        };
        let block = node.attrs.int_or("block_size", 128)?;
        let fits = usize::try_from(block).ok().filter(|b| *b >= 16 && b.is_power_of_two());
        let block = fits
            .ok_or_else(|| Error::mismatch("attribute `block_size`", block, "a power of two from 16 on"))?;
        let gather = axis(node.attrs.int_or("gather_axis", 0)?, rank)?;
        let quantize = axis(node.attrs.int_or("quantize_axis", 1)?, rank)?;
        if data == DType::U8 && (gather != 0 || quantize + 1 != rank) {
            let wanted = "the first and the last axis for bytes";
            return Err(Error::mismatch(
                "`gather_axis` and `quantize_axis`",
                format!("{gather} and {quantize}"),
                wanted,
            ));
        }
        Ok(Params { gather, quantize, block, per_byte: if data == DType::U8 { 8 / bits } else { 1 }, bits })
    }
    /// The data's extents in elements. Errors on scales or zero points of other shapes.
    fn check(self, shapes: &Shapes) -> Result<Vec<usize>> {
        let mut data = shapes.need(0, "data")?.to_vec();
        let last = data.len() - 1;
        let elements = data[last].checked_mul(self.per_byte);
        data[last] = elements.ok_or_else(|| wrong_shape("data", &data, "extents that fit"))?;
        let mut blocks = data.clone();
        blocks[self.quantize] = data[self.quantize].div_ceil(self.block);
        shapes.need(2, "scales")?;
        shapes.fit(2, "scales", &blocks)?;
        blocks[last] = blocks[last].div_ceil(self.per_byte);
        shapes.fit(3, "zero_points", &blocks)?;
        Ok(data)
    }
    /// The elements, `columns` of them in each row of bytes.
    fn elements(self, t: &Tensor, columns: usize) -> Result<Vec<i64>> {
        if t.dtype() != DType::U8 {
            return Ok(convert::to_f64s(t)?.into_iter().map(|v| v as i64).collect());
        }
        let mask = (1u16 << self.bits) - 1;
        let part = |byte: u8, i: usize| i64::from(u16::from(byte) >> (i * self.bits) & mask);
        let rows = t.as_slice::<u8>()?;
        let rows = rows.chunks(columns.div_ceil(self.per_byte).max(1));
        Ok(rows
            .flat_map(|row| (0..columns).map(move |c| part(row[c / self.per_byte], c % self.per_byte)))
            .collect())
    }
}

impl Operator for GatherBlockQuantized {
    fn schema(&self) -> Schema {
        Schema { name: "GatherBlockQuantized", domain: DOMAIN, since: &[1], inputs: (3, 4), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (data, dtype) = (cx.dtype(0)?, cx.dtype(2)?);
        let (Some(x), Some(indices)) = (cx.shape(0)?, cx.shape(1)?) else {
            return Ok(vec![TensorType::unranked(dtype).into()]);
        };
        if data == DType::Undefined {
            return Ok(vec![TensorType::unranked(dtype).into()]);
        }
        let p = Params::new(cx.node, data, x.len())?;
        if let Some(shapes) = Shapes::fixed(cx)? {
            p.check(&shapes)?;
        }
        let mut shape = x.clone();
        if let Some(last) = shape.last_mut() {
            *last = last.mul(&Dim::Known(p.per_byte));
        }
        shape.splice(p.gather..=p.gather, indices.iter().cloned());
        Ok(vec![TensorType::new(dtype, shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (data, scales) = (cx.tensor(0)?, cx.tensor(2)?);
        let p = Params::new(cx.node, data.dtype(), data.rank())?;
        let shape = p.check(&Shapes::of(cx)?)?;
        let last = shape.len() - 1;
        let blocks = shape[p.quantize].div_ceil(p.block);
        let columns = if p.quantize == last { blocks } else { shape[last] };
        let values = p.elements(data, shape[last])?;
        let middle = if data.dtype() == DType::U8 { 1 << (p.bits - 1) } else { 0 };
        let zeros = match cx.opt_tensor(3)? {
            Some(z) if z.dtype() != data.dtype() => {
                return Err(Error::mismatch("element type of `zero_points`", z.dtype(), data.dtype()));
            }
            Some(z) => p.elements(z, columns)?,
            None => vec![middle; scales.len()],
        };
        let factors = convert::to_f32s(scales)?;
        let indices = cx.tensor(1)?;
        let inner = |at: usize| shape[at + 1..].iter().product::<usize>();
        let (gather_inner, quantize_inner) = (inner(p.gather), inner(p.quantize));
        let outer: usize = shape[..p.gather].iter().product();
        let value = |i: usize| {
            let (rest, inner) = (i / quantize_inner, i % quantize_inner);
            let (rest, at) = (rest / shape[p.quantize], rest % shape[p.quantize]);
            let block = (rest * blocks + at / p.block) * quantize_inner + inner;
            (values[i] - zeros[block]) as f32 * factors[block]
        };
        let extent = shape[p.gather];
        let given = indices.to_i64s()?;
        let mut y = vec![];
        for o in 0..outer {
            for &index in &given {
                cx.check()?;
                let index = if index < 0 { index.saturating_add_unsigned(extent as u64) } else { index };
                match usize::try_from(index).ok().filter(|i| *i < extent) {
                    Some(i) => {
                        y.extend((0..gather_inner).map(|j| value((o * extent + i) * gather_inner + j)))
                    }
                    None => y.resize(y.len() + gather_inner, 0.0),
                }
            }
        }
        let mut out = shape;
        out.splice(p.gather..=p.gather, indices.shape().iter().copied());
        Ok(vec![convert::from_f32s(scales.dtype(), out, y)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;

    #[test]
    fn rows_of_blocks_are_gathered_as_floats() {
        // two rows of 32 elements of 4 bits: 9 and 11
        let data = Some(Tensor::new([2, 16], [[0x99u8; 16], [0xbb; 16]].concat()).unwrap());
        let scales = Some(Tensor::new([2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap());
        let attrs = || Attrs::new().with("block_size", 16i64);
        let run = |attrs: Attrs, indices: Vec<i64>, zeros: Option<Tensor>| {
            let inputs = [data.clone(), Some(Tensor::from_i64s(indices)), scales.clone(), zeros];
            let y = eval_in(DOMAIN, "GatherBlockQuantized", attrs, &inputs, 1)?;
            let y = convert::to_f32s(y[0].as_tensor()?)?;
            Ok::<_, Error>(y.chunks(16).map(|c| c[0]).collect::<Vec<_>>())
        };
        // less 8; an index from the end, and one that is outside
        assert_eq!(run(attrs(), vec![-1, 0, 2], None).unwrap(), [9.0, 12.0, 1.0, 2.0, 0.0, 0.0]);
        let zeros = Some(Tensor::new([2, 1], vec![0x19u8, 0xb0]).unwrap());
        assert_eq!(run(attrs(), vec![0, 1], zeros).unwrap(), [0.0, 16.0, 33.0, 0.0]);
        assert!(run(attrs().with("gather_axis", 1i64), vec![0], None).is_err());
        assert!(run(attrs().with("bits", 3i64), vec![0], None).is_err());
        assert!(run(Attrs::new(), vec![0], None).is_err(), "one block has one scale");
    }

    #[test]
    fn nibbles_of_their_own_type_take_any_axes() {
        // [16, 2] along the first axis in one block: element (r, c) is r % 4 + c
        let elems = (0..32).map(|i| i / 2 % 4 + i % 2).collect();
        let data = Some(convert::from_i64s(DType::I4, [16, 2], elems).unwrap());
        let scales = Some(Tensor::new([1, 2], vec![1f32, 10.0]).unwrap());
        let attrs =
            Attrs::new().with("block_size", 16i64).with("quantize_axis", 0i64).with("gather_axis", 1i64);
        let inputs = [data, Some(Tensor::scalar(1i64)), scales];
        let y = eval_in(DOMAIN, "GatherBlockQuantized", attrs, &inputs, 1).unwrap();
        let y = y[0].as_tensor().unwrap();
        assert_eq!(
            (y.shape(), &y.as_slice::<f32>().unwrap()[..4]),
            (&[16][..], &[10.0, 20.0, 30.0, 40.0][..])
        );
    }
}
