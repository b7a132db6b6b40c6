//! Seeded input values: the same seed gives the same values on every machine.
use crate::convert::{Narrowing, from_f64s, from_i64s};
use crate::{At, DType, Dim, Error, Graph, NodeKind, Result, Tensor, Value, ValueType};
use crate::{interp::Values, ops::movement::new_elems_of};
use bytes::Bytes;

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

/// A small generator of pseudo-random numbers (SplitMix64); not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }
    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// A number in `0..n`; 0 for `n == 0`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }
    /// A tensor: floats uniform in `[-1, 1)`, integers of 8 bits and fewer over their whole range, wider integers
    /// in `0..4` (they are often indices), truth values even, strings of one letter. Errors as [`new_elems_of`].
    pub fn tensor(&mut self, dtype: DType, shape: impl Into<Vec<usize>>) -> Result<Tensor> {
        let shape = shape.into();
        let n = new_elems_of(dtype, &shape)?;
        crate::limits::reserve(dtype.byte_len(n).unwrap_or(n))?;
        let mut ints = |least: i64, count: u64| -> Vec<i64> {
            (0..n).map(|_| least + self.below(count) as i64).collect()
        };
        match dtype {
            DType::Bool => Tensor::from_bools(shape, ints(0, 2).into_iter().map(|v| v == 1)),
            DType::String => {
                let letters = ints(i64::from(b'a'), 26);
                let text = |v: i64| Bytes::from_static(&LETTERS[(v - i64::from(b'a')) as usize..][..1]);
                Tensor::from_strings(shape, letters.into_iter().map(text))
            }
            DType::I8 => from_i64s(dtype, shape, ints(-128, 256)),
            DType::U8 => from_i64s(dtype, shape, ints(0, 256)),
            DType::I4 => from_i64s(dtype, shape, ints(-8, 16)),
            DType::U4 => from_i64s(dtype, shape, ints(0, 16)),
            DType::I2 => from_i64s(dtype, shape, ints(-2, 4)),
            DType::U2 => from_i64s(dtype, shape, ints(0, 4)),
            DType::I16 | DType::U16 | DType::I32 | DType::U32 | DType::I64 | DType::U64 => {
                from_i64s(dtype, shape, ints(0, 4))
            }
            DType::F32 => {
                Tensor::new(shape, (0..n).map(|_| (self.unit() * 2.0 - 1.0) as f32).collect::<Vec<_>>())
            }
            DType::C64 => {
                let parts: Vec<f32> = (0..2 * n).map(|_| (self.unit() * 2.0 - 1.0) as f32).collect();
                Tensor::from_bytes(dtype, shape, bytemuck::cast_slice(&parts).to_vec().into())
            }
            DType::C128 => {
                let parts: Vec<f64> = (0..2 * n).map(|_| self.unit() * 2.0 - 1.0).collect();
                Tensor::from_bytes(dtype, shape, bytemuck::cast_slice(&parts).to_vec().into())
            }
            // every code is a finite number
            DType::F6E2M3 | DType::F6E3M2 => {
                let codes: Vec<u8> = ints(0, 64).into_iter().map(|v| v as u8).collect();
                Tensor::from_unpacked_bits(dtype, shape, &codes)
            }
            float if float.is_float() => {
                let values = (0..n).map(|_| self.unit() * 2.0 - 1.0).collect();
                from_f64s(float, shape, values, Narrowing::default())
            }
            other => Err(crate::op::unsupported_dtype(other)),
        }
    }
}

/// A value for each required input of a graph, as [`Random::tensor`]; each input's values depend on the seed and
/// its place alone.
///
/// Errors where a dimension is not fixed (bind symbols first: [`crate::infer::bind_symbols`]), naming the input.
pub fn random_inputs(graph: &Graph, seed: u64) -> Result<Values> {
    let mut values = Values::new();
    for (i, input) in graph.inputs.iter().enumerate() {
        if !matches!(graph.node(input.node).kind, NodeKind::Input) {
            continue;
        }
        let mut random = Random::new(Random::new(seed).bits() ^ i as u64);
        let name = &input.info.name;
        let value = random_value(&mut random, &input.info.ty).at(|| format!("input `{name}`"))?;
        values.insert(name.clone(), value);
    }
    Ok(values)
}

fn random_value(random: &mut Random, ty: &ValueType) -> Result<Value> {
    match ty {
        ValueType::Tensor(t) => {
            let dims = t.shape.as_ref().ok_or_else(|| Error::mismatch("shape", ty, "a known rank"))?;
            let extent = |dim: &Dim| match dim {
                Dim::Known(n) => Ok(*n),
                Dim::Sym(_) => {
                    Err(Error::mismatch(format!("dimension `{dim}`"), "no value", "one: --set NAME=N"))
                }
                Dim::Unknown => Err(Error::mismatch("dimension `?`", "no value", "a fixed or named one")),
            };
            let shape = dims.iter().map(extent).collect::<Result<Vec<_>>>()?;
            Ok(random.tensor(t.dtype, shape)?.into())
        }
        ValueType::Sequence(elem) => {
            let items = (0..2).map(|_| random_value(random, elem)).collect::<Result<_>>()?;
            Ok(Value::Sequence((**elem).clone(), items))
        }
        ValueType::Optional(elem) => {
            Ok(Value::Optional((**elem).clone(), Some(Box::new(random_value(random, elem)?))))
        }
        other => Err(Error::unsupported(format!("random values of type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ValueInfo;

    #[test]
    fn every_element_type_is_drawn_and_seeded() {
        for &dtype in DType::ALL.iter().filter(|d| **d != DType::Undefined) {
            let draw = |seed| Random::new(seed).tensor(dtype, [4, 5]).unwrap();
            assert_eq!(draw(1), draw(1), "{dtype}");
            assert_ne!(draw(1), draw(2), "{dtype}");
            assert_eq!(draw(1).dtype(), dtype);
        }
    }

    #[test]
    fn floats_have_both_signs_and_stay_inside() {
        let t = Random::new(7).tensor(DType::F32, [1000]).unwrap();
        let v = t.as_slice::<f32>().unwrap();
        assert!(v.iter().all(|v| (-1.0..1.0).contains(v)));
        assert!((300..700).contains(&v.iter().filter(|v| **v < 0.0).count()));
    }

    #[test]
    fn unbound_symbols_are_named() {
        let mut g = Graph::new("g", crate::op::default_opsets(17));
        g.add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, [Dim::symbol("batch")]))).unwrap();
        let error = random_inputs(&g, 0).unwrap_err().to_string();
        assert_eq!(error, "input `x`: dimension `batch`: got no value, wanted one: --set NAME=N");
    }
}
