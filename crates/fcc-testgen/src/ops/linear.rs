//! Products: MatMul, Gemm, Conv and their kin, Einsum; and the chains around them that are compiled as one step.
use super::Make;
use super::elementwise::floats;
use crate::build::Build;
use crate::draw::{self, once_in, one, within};
use crate::pb::{Attrs, attrs};
use fcc_ir::{DType, Op};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::Conv, conv),
    (Op::ConvTranspose, conv_transpose),
    (Op::Einsum, einsum),
    (Op::Gemm, gemm),
    (Op::MatMul, matmul),
];

/// Types of products: those that are compiled most often.
fn types(b: &mut Build) -> &'static [DType] {
    if b.opset >= 9 && once_in(&mut b.r, 6) {
        return &[DType::I32, DType::I64, DType::U32, DType::U64];
    }
    if once_in(&mut b.r, 2) { &[DType::F32] } else { floats(b) }
}

fn matmul(b: &mut Build, op: Op) -> Option<()> {
    let types = types(b);
    let x = b.ranked(types, 1, 4);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let k = *shape.last()?;
    let n = if once_in(&mut b.r, 2) { draw::row(&mut b.r) } else { draw::extent(&mut b.r) };
    let batch = &shape[..shape.len().saturating_sub(2)];
    let mut other = if once_in(&mut b.r, 2) { vec![] } else { draw::broadcast_of(&mut b.r, batch) };
    if once_in(&mut b.r, 8) {
        other.insert(0, 2);
        other.resize(other.len().max(batch.len()), 1);
    }
    match b.r.below(8) {
        0 => other = vec![k],
        _ => other.extend([k, n]),
    }
    let y = if once_in(&mut b.r, 2) { b.weight_of(dtype, &other) } else { b.operand(dtype, &other) };
    if once_in(&mut b.r, 6) && shape.len() == 2 && other.len() == 2 && once_in(&mut b.r, 2) {
        // the weight on the left
        let m = draw::extent(&mut b.r);
        let w = b.weight_of(dtype, &[m, shape[0]]);
        return b.node1(op, &[&w, &x], attrs()).map(drop);
    }
    b.node1(op, &[&x, &y], attrs()).map(drop)
}

fn gemm(b: &mut Build, op: Op) -> Option<()> {
    let types = if b.opset < 9 { floats(b) } else { types(b) };
    let x = b.ranked(types, 2, 2);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let trans_a = once_in(&mut b.r, 4);
    let trans_b = once_in(&mut b.r, 2);
    let (m, k) = if trans_a { (shape[1], shape[0]) } else { (shape[0], shape[1]) };
    let n = if once_in(&mut b.r, 2) { draw::row(&mut b.r) } else { draw::extent(&mut b.r) };
    let w = b.weight_of(dtype, &if trans_b { [n, k] } else { [k, n] });
    let c = if b.opset >= 11 && once_in(&mut b.r, 4) {
        String::new()
    } else {
        let full = vec![m, n];
        let small = if b.opset < 7 { full } else { draw::broadcast_of(&mut b.r, &full) };
        if once_in(&mut b.r, 2) { b.weight_of(dtype, &small) } else { b.operand(dtype, &small) }
    };
    let scale = [1.0f32, 1.0, 2.0, 0.5, -1.0, 0.0];
    let (alpha, beta) = (*one(&mut b.r, &scale), *one(&mut b.r, &scale));
    let whole = !dtype.is_float();
    let a = attrs().when(!whole && once_in(&mut b.r, 2), |a| a.float("alpha", alpha));
    let a = a.when(!whole && once_in(&mut b.r, 2), |a| a.float("beta", beta));
    let a = a.when(trans_a, |a| a.int("transA", 1)).when(trans_b, |a| a.int("transB", 1));
    b.node1(op, &[&x, &w, &c], a).map(drop)
}

/// A window over `rank` extents: attributes, the extents it spans, and how it steps.
pub(super) struct Window {
    pub attrs: Attrs,
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
}

/// Draws a window that fits an image of these extents.
pub(super) fn window(b: &mut Build, image: &[usize], dilates: bool) -> Window {
    let rank = image.len();
    let kernel: Vec<usize> =
        image.iter().map(|n| (*one(&mut b.r, &[1, 1, 2, 3, 3, 3, 5, 7])).min((*n).max(1))).collect();
    let kernel = if once_in(&mut b.r, 12) { image.iter().map(|n| (*n).max(1)).collect() } else { kernel };
    let same = once_in(&mut b.r, 3);
    let draw = |b: &mut Build, from: &[i64]| -> Vec<i64> {
        let v = *one(&mut b.r, from);
        (0..rank).map(|_| if same { v } else { *one(&mut b.r, from) }).collect()
    };
    let strides = draw(b, &[1, 1, 1, 2, 2, 3]);
    let mut dilations = if dilates { draw(b, &[1, 1, 1, 1, 2, 3]) } else { vec![1; rank] };
    for i in 0..rank {
        // the span must fit the image with its padding
        if (kernel[i] as i64 - 1) * dilations[i] + 1 > image[i].max(1) as i64 {
            dilations[i] = 1;
        }
    }
    let mut pads = vec![0i64; 2 * rank];
    for (i, p) in pads.iter_mut().enumerate() {
        *p = b.r.below(kernel[i % rank] as u64) as i64;
    }
    if same {
        (0..rank).for_each(|i| pads[i + rank] = pads[i]);
    }
    let auto = *one(&mut b.r, &["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"]);
    let is_auto = once_in(&mut b.r, 6);
    let ints = |v: &[usize]| v.iter().map(|n| *n as i64).collect::<Vec<_>>();
    let attrs = attrs()
        .ints("kernel_shape", &ints(&kernel))
        .when(strides.iter().any(|s| *s != 1) || once_in(&mut b.r, 2), |a| a.ints("strides", &strides))
        .when(dilations.iter().any(|d| *d != 1), |a| a.ints("dilations", &dilations))
        .when(is_auto, |a| a.str("auto_pad", auto))
        .when(!is_auto && once_in(&mut b.r, 2), |a| a.ints("pads", &pads));
    Window { attrs, kernel, strides: strides.iter().map(|s| *s as usize).collect() }
}

/// An image `[N, C, ...]` of these types with one to three dimensions of pixels.
pub(super) fn image(b: &mut Build, types: &[DType]) -> String {
    let most = if once_in(&mut b.r, 5) { 5 } else { 4 };
    b.any(
        types,
        |s| (3..=most).contains(&s.len()),
        |r, zeros| {
            let rank = *one(r, &[1, 2, 2, 2, 2, 3]);
            let mut shape = vec![*one(r, &[1, 1, 1, 2, 3]), *one(r, &[1, 2, 3, 4, 6, 8, 12, 16, 17, 24, 32])];
            for _ in 0..rank {
                shape.push(*one(r, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17]));
            }
            while shape.iter().product::<usize>() > 4000 {
                let most = (1..shape.len()).max_by_key(|i| shape[*i]).unwrap_or(1);
                shape[most] = shape[most].div_ceil(2);
            }
            if zeros && once_in(r, 5) {
                shape[0] = 0;
            }
            shape
        },
    )
}

/// A divisor of the channels.
pub(super) fn groups(b: &mut Build, channels: usize) -> usize {
    let divisors: Vec<usize> = (1..=channels.max(1)).filter(|d| channels.is_multiple_of(*d)).collect();
    if once_in(&mut b.r, 2) {
        1
    } else if once_in(&mut b.r, 2) {
        channels.max(1)
    } else {
        *one(&mut b.r, &divisors)
    }
}

fn conv(b: &mut Build, op: Op) -> Option<()> {
    let types = if once_in(&mut b.r, 4) { floats(b) } else { &[DType::F32] };
    let x = image(b, types);
    conv_of(b, op, &x).map(drop)
}

/// A Conv of a value, with what follows one in models as often as not.
pub(super) fn conv_of(b: &mut Build, op: Op, x: &str) -> Option<String> {
    let (dtype, shape) = (b.dtype(x), b.shape(x));
    let w = window(b, &shape[2..], true);
    let g = groups(b, shape[1]);
    let per = *one(&mut b.r, &[1, 1, 2, 3, 4, 5, 8, 16]);
    let m = g * if g > 8 { 1 + per % 2 } else { per };
    let weight: Vec<usize> = [m, shape[1] / g].into_iter().chain(w.kernel).collect();
    let weight = b.weight_of(dtype, &weight);
    let bias = if once_in(&mut b.r, 2) { b.weight_of(dtype, &[m]) } else { String::new() };
    b.node1(op, &[x, &weight, &bias], w.attrs.when(g != 1, |a| a.int("group", g as i64)))
}

fn conv_transpose(b: &mut Build, op: Op) -> Option<()> {
    let types = if once_in(&mut b.r, 4) { floats(b) } else { &[DType::F32] };
    let x = image(b, types);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let w = window(b, &shape[2..], true);
    let g = groups(b, shape[1]);
    let m = *one(&mut b.r, &[1, 2, 3, 4, 8]);
    let weight: Vec<usize> = [shape[1], m].into_iter().chain(w.kernel.iter().copied()).collect();
    let weight = b.weight_of(dtype, &weight);
    let bias = if once_in(&mut b.r, 2) { b.weight_of(dtype, &[m * g]) } else { String::new() };
    let extra: Vec<i64> = w.strides.iter().map(|s| b.r.below(*s as u64) as i64).collect();
    let a = w.attrs.when(g != 1, |a| a.int("group", g as i64));
    let a = a.when(once_in(&mut b.r, 4), |a| a.ints("output_padding", &extra));
    b.node1(op, &[&x, &weight, &bias], a).map(drop)
}

fn einsum(b: &mut Build, op: Op) -> Option<()> {
    let forms = [
        "ij,jk->ik",
        "bij,bjk->bik",
        "ij->ji",
        "ii->i",
        "ij->",
        "i,j->ij",
        "ij,ij->",
        "bhid,bhjd->bhij",
        "bhij,bhjd->bhid",
        "...ij,...jk->...ik",
        "ij,jk",
        "i,i",
        "ijk,ilm,njm,nlk->",
        "b...d,b...d->b...",
    ];
    let form = *one(&mut b.r, &forms);
    let dtype = b.one_type(&[DType::F32, DType::F64, DType::I32, DType::F16]);
    let mut sizes = std::collections::BTreeMap::new();
    let long = form.len() > 16;
    let dots: Vec<usize> = (0..within(&mut b.r, 0, 2)).map(|_| within(&mut b.r, 1, 3)).collect();
    let inputs: Vec<String> = form
        .split("->")
        .next()?
        .split(',')
        .map(|term| {
            let mut shape = vec![];
            let plain = term.replace("...", ".");
            for c in plain.chars() {
                if c == '.' {
                    shape.extend(&dots);
                } else {
                    let drawn = if long { within(&mut b.r, 1, 4) } else { draw::extent(&mut b.r) };
                    shape.push(*sizes.entry(c).or_insert(drawn));
                }
            }
            b.operand(dtype, &shape)
        })
        .collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    b.node1(op, &inputs, attrs().str("equation", form)).map(drop)
}
