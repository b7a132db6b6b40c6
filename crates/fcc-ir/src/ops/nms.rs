//! `NonMaxSuppression`. <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Dim, Error, Result, Tensor, TensorType, Value};

/// `NonMaxSuppression`.
pub struct NonMaxSuppression;

/// A box as `[y1, x1, y2, x2]` with y1 <= y2 and x1 <= x2.
type Corners = [f32; 4];

fn corners(b: &[f32], center: bool) -> Corners {
    let &[p, q, r, s] = b else { return [0.0; 4] };
    if center {
        // x_center, y_center, width, height
        [q - s / 2.0, p - r / 2.0, q + s / 2.0, p + r / 2.0]
    } else {
        // any two opposite corners
        [p.min(r), q.min(s), p.max(r), q.max(s)]
    }
}

/// Intersection over union; 0 where the union is empty.
fn iou(a: &Corners, b: &Corners) -> f32 {
    let area = |c: &Corners| (c[2] - c[0]) * (c[3] - c[1]);
    let height = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let width = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let both = height * width;
    let union = area(a) + area(b) - both;
    if union > 0.0 { both / union } else { 0.0 }
}

fn one_float(t: Option<&Tensor>) -> Result<Option<f32>> {
    let Some(t) = t.filter(|t| !t.is_empty()) else { return Ok(None) };
    Ok(t.as_slice::<f32>()?.first().copied())
}

impl Operator for NonMaxSuppression {
    fn schema(&self) -> Schema {
        Schema { name: "NonMaxSuppression", domain: "", since: &[10, 11], inputs: (2, 5), outputs: (1, 1) }
    }
    fn infer(&self, _: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![TensorType::new(DType::I64, [Dim::Unknown, Dim::Known(3)]).into()])
    }
    /// Rows `[batch, class, box]`, for each class by falling score.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (boxes, scores) = (cx.tensor(0)?, cx.tensor(1)?);
        let (&[batches, n, 4], &[score_batches, classes, score_n]) = (boxes.shape(), scores.shape()) else {
            let got = format!("{} and {}", boxes.tensor_type(), scores.tensor_type());
            return Err(Error::mismatch("boxes and scores", got, "[batch, n, 4] and [batch, class, n]"));
        };
        if (batches, n) != (score_batches, score_n) {
            let wanted = format!("[{batches}, classes, {n}]");
            return Err(Error::mismatch("scores", scores.tensor_type(), wanted));
        }
        let most = match cx.opt_tensor(2)?.filter(|t| !t.is_empty()) {
            Some(t) => usize::try_from(t.to_i64s()?[0]).unwrap_or(0),
            None => 0,
        };
        let iou_threshold = one_float(cx.opt_tensor(3)?)?.unwrap_or(0.0);
        let score_threshold = one_float(cx.opt_tensor(4)?)?;
        let center = cx.node.attrs.flag("center_point_box", false)?;
        let (boxes, scores) = (boxes.as_slice::<f32>()?, scores.as_slice::<f32>()?);
        let mut out: Vec<i64> = vec![];
        for batch in 0..batches {
            let boxes: Vec<Corners> =
                boxes[batch * n * 4..][..n * 4].chunks(4).map(|b| corners(b, center)).collect();
            for class in watched(0..classes) {
                let scores = &scores[(batch * classes + class) * n..][..n];
                let mut order: Vec<usize> =
                    (0..n).filter(|&i| score_threshold.is_none_or(|t| scores[i] > t)).collect();
                order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                let mut kept: Vec<usize> = vec![];
                for i in watched(order) {
                    if kept.len() >= most {
                        break;
                    }
                    if kept.iter().all(|&k| iou(&boxes[k], &boxes[i]) <= iou_threshold) {
                        kept.push(i);
                    }
                }
                out.extend(kept.iter().flat_map(|&i| [batch as i64, class as i64, i as i64]));
            }
        }
        Ok(vec![Tensor::new([out.len() / 3, 3], out)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_in_any_order_and_empty_boxes() {
        let a = corners(&[1., 1., 0., 0.], false);
        assert_eq!(iou(&a, &corners(&[0., 0.5, 1., 1.5], false)), 1.0 / 3.0);
        assert_eq!(iou(&[0.; 4], &[0.; 4]), 0.0);
        assert_eq!(corners(&[1., 2., 2., 4.], true), [0., 0., 4., 2.]);
    }
}
