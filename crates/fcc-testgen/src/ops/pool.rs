//! Windows over images without weights, and operators of images.
use super::elementwise::floats;
use super::linear::{image, window};
use super::{FLOATS, Make};
use crate::build::Build;
use crate::draw::{self, once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::AffineGrid, affine_grid),
    (Op::AveragePool, average_pool),
    (Op::CenterCropPad, center_crop_pad),
    (Op::Col2Im, col2im),
    (Op::DeformConv, deform_conv),
    (Op::GlobalAveragePool, global),
    (Op::GlobalLpPool, global_lp),
    (Op::GlobalMaxPool, global),
    (Op::GridSample, grid_sample),
    (Op::LRN, lrn),
    (Op::LpPool, lp_pool),
    (Op::MaxPool, max_pool),
    (Op::MaxRoiPool, max_roi_pool),
    (Op::MaxUnpool, max_unpool),
    (Op::NonMaxSuppression, nms),
    (Op::Resize, resize),
    (Op::RoiAlign, roi_align),
    (Op::Upsample, upsample),
];

fn global(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = image(b, types);
    b.node1(op, &[&x], attrs()).map(drop)
}

fn global_lp(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = image(b, types);
    let p = *one(&mut b.r, &[1, 2, 3]);
    let a = if b.opset < 2 { attrs().float("p", p as f32) } else { attrs().int("p", p) };
    b.node1(op, &[&x], a).map(drop)
}

fn average_pool(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = image(b, types);
    let shape = b.shape(&x);
    let w = window(b, &shape[2..], b.opset >= 19);
    let a = w.attrs.when(b.opset >= 10 && once_in(&mut b.r, 3), |a| a.int("ceil_mode", 1));
    let a = a.when(b.opset >= 7 && once_in(&mut b.r, 2), |a| a.int("count_include_pad", 1));
    b.node1(op, &[&x], a).map(drop)
}

fn lp_pool(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = image(b, types);
    let shape = b.shape(&x);
    let w = window(b, &shape[2..], b.opset >= 18);
    let p = *one(&mut b.r, &[1, 2, 3]);
    let a = if b.opset < 2 { w.attrs.float("p", p as f32) } else { w.attrs.int("p", p) };
    let a = a.when(b.opset >= 18 && once_in(&mut b.r, 3), |a| a.int("ceil_mode", 1));
    b.node1(op, &[&x], a).map(drop)
}

fn max_pool(b: &mut Build, op: Op) -> Option<()> {
    let types = if b.opset >= 12 && once_in(&mut b.r, 4) { &[DType::I8, DType::U8][..] } else { floats(b) };
    let x = image(b, types);
    let shape = b.shape(&x);
    let w = window(b, &shape[2..], b.opset >= 10);
    let a = w.attrs.when(b.opset >= 10 && once_in(&mut b.r, 3), |a| a.int("ceil_mode", 1));
    let outputs = if b.opset >= 8 && once_in(&mut b.r, 3) { 2 } else { 1 };
    let a = a.when(outputs == 2 && once_in(&mut b.r, 2), |a| a.int("storage_order", 1));
    b.node(op, &[&x], a, outputs).map(drop)
}

fn max_unpool(b: &mut Build, op: Op) -> Option<()> {
    let types = &floats(b)[..2];
    let x = image(b, types);
    let shape = b.shape(&x);
    let w = window(b, &shape[2..], false);
    let pooled = b.node(Op::MaxPool, &[&x], w.attrs.clone(), 2)?;
    let mut a = w.attrs;
    a.0.retain(|a| matches!(a.name(), "kernel_shape" | "strides" | "pads"));
    let shape: Vec<i64> = b.shape(&x).iter().map(|n| *n as i64).collect();
    let shape = b.ints(&shape);
    b.node1(op, &[&pooled[0], &pooled[1], &shape], a).map(drop)
}

fn lrn(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = image(b, types);
    let a =
        attrs().int("size", *one(&mut b.r, &[1, 3, 5])).when(once_in(&mut b.r, 2), |a| a.float("bias", 2.0));
    b.node1(op, &[&x], a.float("alpha", 0.01).float("beta", 0.75)).map(drop)
}

fn resize(b: &mut Build, op: Op) -> Option<()> {
    let types: &[DType] = if once_in(&mut b.r, 4) {
        &[DType::F32, DType::F64, DType::F16, DType::U8, DType::I32]
    } else {
        &[DType::F32]
    };
    let x = image(b, types);
    let shape = b.shape(&x);
    let modes: &[&str] = if b.opset >= 11 { &["nearest", "linear", "cubic"] } else { &["nearest", "linear"] };
    let mode = *one(&mut b.r, modes);
    let mut scales = vec![1.0f32; shape.len()];
    for s in &mut scales[2..] {
        *s = *one(&mut b.r, &[1.0, 2.0, 2.0, 3.0, 0.5, 1.5, 0.75]);
    }
    let a = attrs().when(mode != "nearest" || once_in(&mut b.r, 2), |a| a.str("mode", mode));
    let held = |b: &mut Build, v: &[f32]| Tensor::new(vec![v.len()], v.to_vec()).ok().map(|t| b.constant(t));
    if b.opset < 11 {
        let s = held(b, &scales)?;
        return b.node1(op, &[&x, &s], a).map(drop);
    }
    let by_size = once_in(&mut b.r, 2);
    let ways = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"];
    let ways = if b.opset < 19 { &ways[..4] } else { &ways[..] };
    let way = *one(&mut b.r, ways);
    let rounding = *one(&mut b.r, &["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]);
    let a = a.when(!once_in(&mut b.r, 3), |a| a.str("coordinate_transformation_mode", way));
    let a = a.when(mode == "nearest" && once_in(&mut b.r, 2), |a| a.str("nearest_mode", rounding));
    let a = a.when(mode == "cubic" && once_in(&mut b.r, 2), |a| a.float("cubic_coeff_a", -0.5));
    let a = a.when(mode == "cubic" && once_in(&mut b.r, 2), |a| a.int("exclude_outside", 1));
    let a = a.when(b.opset >= 18 && once_in(&mut b.r, 4) && mode != "nearest", |a| a.int("antialias", 1));
    let sizes: Vec<i64> =
        shape.iter().zip(&scales).map(|(n, s)| ((*n as f32) * s).floor().max(1.0) as i64).collect();
    let roi = if b.opset < 13 { held(b, &[])? } else { String::new() };
    if by_size {
        let none = if b.opset < 13 { held(b, &[])? } else { String::new() };
        let sizes = b.ints(&sizes);
        return b.node1(op, &[&x, &roi, &none, &sizes], a).map(drop);
    }
    let s = held(b, &scales)?;
    b.node1(op, &[&x, &roi, &s], a).map(drop)
}

fn upsample(b: &mut Build, op: Op) -> Option<()> {
    if b.opset >= 10 {
        return None;
    }
    let x = b.ranked(&[DType::F32], 4, 4);
    let (h, w) = (*one(&mut b.r, &[1.0f32, 2.0, 3.0]), *one(&mut b.r, &[1.0f32, 2.0, 1.5]));
    let mode = *one(&mut b.r, if b.opset < 7 { &["nearest", "bilinear"] } else { &["nearest", "linear"] });
    let a = attrs().str("mode", mode);
    match b.opset {
        ..7 => b.node1(op, &[&x], a.float("height_scale", h).float("width_scale", w)).map(drop),
        7..9 => b.node1(op, &[&x], a.floats("scales", &[1.0, 1.0, h, w])).map(drop),
        _ => {
            let s = b.constant(Tensor::new(vec![4], vec![1.0, 1.0, h, w]).ok()?);
            b.node1(op, &[&x, &s], a).map(drop)
        }
    }
}

fn grid_sample(b: &mut Build, op: Op) -> Option<()> {
    let most = if b.opset >= 20 { 5 } else { 4 };
    let x = b.ranked(&[DType::F32, DType::F64], 4, most);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let out: Vec<usize> = shape[2..].iter().map(|_| within(&mut b.r, 1, 4)).collect();
    let grid: Vec<usize> = [shape[0]].into_iter().chain(out).chain([shape.len() - 2]).collect();
    let grid = b.operand(dtype, &grid);
    let modes: &[&str] = match (b.opset, shape.len()) {
        (20.., 4) => &["linear", "nearest", "cubic"],
        (20.., _) => &["linear", "nearest"],
        _ => &["bilinear", "nearest", "bicubic"],
    };
    let mode = *one(&mut b.r, modes);
    let padding = *one(&mut b.r, &["zeros", "border", "reflection"]);
    let a = attrs().str("mode", mode).when(once_in(&mut b.r, 2), |a| a.str("padding_mode", padding));
    let a = a.when(once_in(&mut b.r, 2), |a| a.int("align_corners", 1));
    b.node1(op, &[&x, &grid], a).map(drop)
}

fn affine_grid(b: &mut Build, op: Op) -> Option<()> {
    let dtype = b.one_type(FLOATS);
    let d = within(&mut b.r, 2, 3);
    let n = within(&mut b.r, 1, 2);
    let theta = b.operand(dtype, &[n, d, d + 1]);
    let size: Vec<i64> =
        [n, 2].into_iter().chain((0..d).map(|_| within(&mut b.r, 1, 5))).map(|n| n as i64).collect();
    let size = b.ints(&size);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.int("align_corners", 1));
    b.node1(op, &[&theta, &size], a).map(drop)
}

fn center_crop_pad(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(super::NUMBERS, 1, 4);
    let shape = b.shape(&x);
    let axes = super::movement::axes(b, shape.len(), 1);
    let to: Vec<i64> = axes.iter().map(|_| within(&mut b.r, 1, 9) as i64).collect();
    let to = b.ints(&to);
    b.node1(op, &[&x, &to], attrs().ints("axes", &axes)).map(drop)
}

fn col2im(b: &mut Build, op: Op) -> Option<()> {
    let dtype = b.one_type(FLOATS);
    let (h, w) = (within(&mut b.r, 2, 6), within(&mut b.r, 2, 6));
    let (kh, kw) = (within(&mut b.r, 1, h), within(&mut b.r, 1, w));
    let (n, c) = (within(&mut b.r, 1, 2), within(&mut b.r, 1, 3));
    let x = b.operand(dtype, &[n, c * kh * kw, (h - kh + 1) * (w - kw + 1)]);
    let (image, block) = (b.ints(&[h as i64, w as i64]), b.ints(&[kh as i64, kw as i64]));
    b.node1(op, &[&x, &image, &block], attrs()).map(drop)
}

fn deform_conv(b: &mut Build, op: Op) -> Option<()> {
    let dtype = b.one_type(&[DType::F32, DType::F64]);
    let [h, w] = [0; 2].map(|_| within(&mut b.r, 3, 6));
    let [n, c, m] = [0; 3].map(|_| within(&mut b.r, 1, 3));
    let x = b.operand(dtype, &[n, c, h, w]);
    let weight = b.weight_of(dtype, &[m, c, 2, 2]);
    let offset = b.operand(dtype, &[n, 8, h - 1, w - 1]);
    let bias = if once_in(&mut b.r, 2) { b.weight_of(dtype, &[m]) } else { String::new() };
    let mask = if once_in(&mut b.r, 2) { b.operand(dtype, &[n, 4, h - 1, w - 1]) } else { String::new() };
    b.node1(op, &[&x, &weight, &offset, &bias, &mask], attrs()).map(drop)
}

/// Boxes as corners within an image of these extents, or as they are drawn.
fn boxes(b: &mut Build, n: usize, size: f32) -> Option<String> {
    let v: Vec<f32> = (0..n)
        .flat_map(|_| {
            let [x, y, w, h] = [0; 4].map(|_| (b.r.unit() as f32) * size / 2.0);
            [x, y, x + w, y + h]
        })
        .collect();
    Tensor::new(vec![n, 4], v).ok().map(|t| b.fresh(t))
}

fn roi_align(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 4, 4);
    let shape = b.shape(&x);
    let n = within(&mut b.r, 1, 3);
    let rois = boxes(b, n, shape[2].max(1) as f32)?;
    let at: Vec<i64> = (0..n).map(|_| b.r.below(shape[0].max(1) as u64) as i64).collect();
    let at = b.ints(&at);
    let mode = *one(&mut b.r, &["avg", "max"]);
    let a = attrs().int("output_height", 2).int("output_width", 3).str("mode", mode);
    let a = a.when(once_in(&mut b.r, 2), |a| a.int("sampling_ratio", 2).float("spatial_scale", 0.5));
    let a = a.when(b.opset >= 16 && once_in(&mut b.r, 2), |a| {
        a.str("coordinate_transformation_mode", "output_half_pixel")
    });
    b.node1(op, &[&x, &rois, &at], a).map(drop)
}

fn max_roi_pool(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 4, 4);
    let shape = b.shape(&x);
    let n = within(&mut b.r, 1, 3);
    let v: Vec<f32> = (0..n)
        .flat_map(|_| {
            let [x, y] = [3, 2].map(|i| b.r.below(shape[i].max(1) as u64) as f32);
            [b.r.below(shape[0].max(1) as u64) as f32, x, y, x + 2.0, y + 1.0]
        })
        .collect();
    let rois = Tensor::new(vec![n, 5], v).ok().map(|t| b.fresh(t))?;
    b.node1(op, &[&x, &rois], attrs().ints("pooled_shape", &[2, 2])).map(drop)
}

fn nms(b: &mut Build, op: Op) -> Option<()> {
    let (batch, classes, n) = (within(&mut b.r, 1, 2), within(&mut b.r, 1, 2), within(&mut b.r, 1, 9));
    let mut all = vec![];
    for _ in 0..batch * n {
        let [x, y, w, h] = [0; 4].map(|_| b.r.unit() as f32);
        all.extend([x, y, x + w, y + h]);
    }
    let boxes = b.fresh(Tensor::new(vec![batch, n, 4], all).ok()?);
    let scores = draw::tensor(&mut b.r, draw::Values::Real, DType::F32, vec![batch, classes, n]);
    let scores = b.fresh(scores);
    let most = b.constant(Tensor::from_i64s(vec![3]));
    let mut number = |v: f32| Tensor::new(vec![1], vec![v]).ok().map(|t| b.constant(t)).unwrap_or_default();
    let (iou, score) = (number(0.4), number(0.1));
    let a = attrs().when(once_in(&mut b.r, 3), |a| a.int("center_point_box", 1));
    b.node1(op, &[&boxes, &scores, &most, &iou, &score], a).map(drop)
}
