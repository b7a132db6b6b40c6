//! Draws of extents, shapes and elements.
use fcc_ir::convert::{Narrowing, from_f64s, from_i64s};
use fcc_ir::random::Random;
use fcc_ir::{DType, Tensor};

/// What elements are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Small integers, in floats too: sums and products are exact.
    Small,
    /// Floats of some magnitude; integers of a wider range.
    Real,
    /// Among them NaN, infinities, denormal numbers, -0, the greatest and the least of the type.
    Special,
}

/// Extents that fill one, two, three vectors of each instruction set, and their neighbours.
const ROWS: &[usize] = &[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 20, 23, 24, 25, 31, 32, 33, 35, 40, 47, 48,
    49, 64, 65,
];

/// Whether something of this chance happens: once in `n`.
pub fn once_in(r: &mut Random, n: u64) -> bool {
    r.below(n) == 0
}

/// One of these.
pub fn one<'a, T>(r: &mut Random, from: &'a [T]) -> &'a T {
    &from[r.below(from.len() as u64) as usize]
}

/// A number of `least..=most`.
pub fn within(r: &mut Random, least: usize, most: usize) -> usize {
    least + r.below((most.max(least) - least + 1) as u64) as usize
}

/// A small extent, of a dimension that is no row.
pub fn extent(r: &mut Random) -> usize {
    *one(r, &[1, 1, 2, 2, 3, 3, 4, 5, 6, 7])
}

/// An extent for the last dimension.
pub fn row(r: &mut Random) -> usize {
    *one(r, ROWS)
}

/// A shape of this rank with few elements; `zeros`: extents may be 0.
pub fn shape(r: &mut Random, rank: usize, zeros: bool) -> Vec<usize> {
    let mut shape: Vec<usize> = (0..rank).map(|_| extent(r)).collect();
    if let Some(last) = shape.last_mut() {
        *last = row(r);
    }
    if rank > 1 && once_in(r, 4) {
        let (i, j) = (within(r, 0, rank - 1), rank - 1);
        shape.swap(i, j);
    }
    while shape.iter().product::<usize>() > 3000 {
        let most = (0..rank).max_by_key(|i| shape[*i]).unwrap_or(0);
        shape[most] = shape[most].div_ceil(2);
    }
    if zeros && rank > 0 && once_in(r, 8) {
        let i = within(r, 0, rank - 1);
        shape[i] = 0;
    }
    shape
}

/// A rank of 0 to 6, the middle ones most often.
pub fn rank(r: &mut Random) -> usize {
    *one(r, &[0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 6])
}

/// A shape that broadcasts with `shape` to `shape`: fewer dimensions, ones here and there, a scalar.
pub fn broadcast_of(r: &mut Random, shape: &[usize]) -> Vec<usize> {
    let ones = |keep: &dyn Fn(usize) -> bool| -> Vec<usize> {
        shape.iter().enumerate().map(|(i, n)| if keep(i) { *n } else { 1 }).collect()
    };
    let rank = shape.len();
    match r.below(9) {
        0 | 1 => shape.to_vec(),
        2 => vec![],
        3 => vec![1; within(r, 0, rank)],
        // [N,1,1], [C,1,1]: one dimension, and all after it as ones
        4 if rank > 0 => {
            let at = within(r, 0, rank - 1);
            ones(&|i| i == at)[if once_in(r, 2) { at } else { 0 }..].to_vec()
        }
        5 if rank > 0 => shape[within(r, 0, rank - 1)..].to_vec(),
        6 if rank > 0 => {
            let inner = within(r, 0, rank);
            ones(&|i| i < inner)
        }
        _ => {
            let bits = r.bits();
            let from = if once_in(r, 3) { within(r, 0, rank) } else { 0 };
            ones(&|i| bits >> i & 1 == 1)[from..].to_vec()
        }
    }
}

/// A tensor of this type and shape.
pub fn tensor(r: &mut Random, values: Values, dtype: DType, shape: impl Into<Vec<usize>>) -> Tensor {
    let shape = shape.into();
    let n: usize = shape.iter().product();
    let drawn = match dtype {
        DType::Bool | DType::String | DType::F6E2M3 | DType::F6E3M2 => r.tensor(dtype, shape),
        DType::C64 | DType::C128 => r.tensor(dtype, shape),
        // a type of powers of two
        DType::F8E8M0 => {
            let v = (0..n).map(|_| f64::from(2f32.powi(r.below(7) as i32 - 3))).collect();
            from_f64s(dtype, shape, v, Narrowing::default())
        }
        float if float.is_float() => {
            let scale = *one(r, &[0.01, 1.0, 1.0, 1.0, 10.0]);
            let v = (0..n).map(|_| float_of(r, values, scale, dtype)).collect();
            from_f64s(dtype, shape, v, Narrowing::default())
        }
        int => {
            let v = (0..n).map(|_| int_of(r, values, int)).collect();
            from_i64s(int, shape, v)
        }
    };
    drawn.expect("every type is drawn")
}

fn float_of(r: &mut Random, values: Values, scale: f64, dtype: DType) -> f64 {
    match values {
        Values::Small => r.below(9) as f64 - 4.0,
        Values::Special if once_in(r, 4) => {
            let (most, tiny) = match dtype {
                DType::F64 => (f64::MAX, 5e-324),
                DType::F16 => (65504.0, 6e-8),
                _ => (f64::from(f32::MAX), 1e-45),
            };
            let special =
                [f64::NAN, f64::INFINITY, -f64::INFINITY, 0.0, -0.0, most, -most, tiny, -tiny * 3.0];
            *one(r, &special)
        }
        _ => (r.unit() * 2.0 - 1.0) * scale,
    }
}

fn int_of(r: &mut Random, values: Values, dtype: DType) -> i64 {
    let signed = matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::I4 | DType::I2);
    let bits = dtype.bits() as u32;
    let (least, most) = if signed {
        (-1i64 << (bits - 1), (1i64 << (bits - 1)).wrapping_sub(1))
    } else {
        (0, if bits == 64 { -1 } else { (1i64 << bits) - 1 })
    };
    match values {
        Values::Small if bits <= 2 => r.below(1 << bits) as i64 + least,
        Values::Small if signed => r.below(9) as i64 - 4,
        Values::Small => r.below(9) as i64,
        Values::Special if once_in(r, 4) => {
            *one(r, &[least, most, 0, 1, most.wrapping_sub(1), least.wrapping_add(1)])
        }
        _ if bits <= 8 => r.below(1 << bits) as i64 + least,
        _ if signed => r.below(201) as i64 - 100,
        _ => r.below(200) as i64,
    }
}
