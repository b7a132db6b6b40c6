//! `Gemm`, and `MatMul` with or without `Add`, read as one thing: a product with a constant matrix and a bias.
use crate::builder::Builder;
use crate::context::{Cx, dims_text};
use crate::rule::Declined;
use crate::weights::{permute, scalar, scaled_exactly, spread};
use fcc_ir::ops::gemm;
use fcc_ir::{DType, Dim, Error, NodeId, OpNode, Result, Tensor, ValueId};

/// `y = alpha * (x @ w) + bias`, or `w @ x` where the weight stands on the left.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// The operand that is not constant.
    pub x: ValueId,
    /// Rank of `x`.
    pub x_rank: usize,
    /// The weight as stored: `[M,K]` or `[K,M]`.
    pub w: Tensor,
    /// Whether the weight is stored as `[M,K]`.
    pub w_is_mk: bool,
    /// Features in.
    pub k: usize,
    /// Features out.
    pub m: usize,
    /// `transA`: `x` is `[K,N]`.
    pub x_is_transposed: bool,
    /// `w @ x`: the features are the last axis of x but one.
    pub weight_is_left: bool,
    /// The weight is a vector: y has no axis of features.
    pub weight_is_vector: bool,
    /// Factor of the product.
    pub alpha: f32,
    /// What is added.
    pub bias: Option<Bias>,
    /// The value that holds the whole: the Gemm's, the MatMul's or the Add's.
    pub out: ValueId,
}

/// What a linear node adds to the product.
#[derive(Debug, Clone)]
pub(crate) struct Bias {
    pub value: ValueId,
    pub beta: f32,
    /// The constant, if it is one.
    pub constant: Option<Tensor>,
    /// Whether it is a constant that holds one element for each feature, or one for all.
    pub by_feature: bool,
}

/// Reads a Gemm or a MatMul (the pattern looked at its name). Errs where it is not linear in one operand.
pub(crate) fn linear(cx: &Cx<'_>, node: NodeId) -> Result<Linear, Declined> {
    let Some(op) = cx.graph().op(node) else {
        return Err(Declined::new("node", cx.graph().place(node), "Gemm or MatMul"));
    };
    let linear = if op.op_type == "Gemm" { gemm(cx, node, op)? } else { matmul(cx, node)? };
    if linear.k == 0 || linear.m == 0 {
        return Err(Declined::new("weight", format!("{:?}", linear.w.shape()), "at least one element"));
    }
    if let Some(Bias { constant: Some(t), beta, .. }) = &linear.bias
        && scaled_exactly(t, *beta).is_none()
    {
        return Err(Declined::new("beta", beta, "a factor whose product with the constant C is exact"));
    }
    match linear.w.dtype() {
        DType::F32 | DType::F64 | DType::F16 => Ok(linear),
        DType::BF16 if cx.opset() >= 22 => Ok(linear),
        other => Err(Declined::new("element type of the weight", other, "one that Conv takes in this opset")),
    }
}

fn gemm(cx: &Cx<'_>, node: NodeId, op: &OpNode) -> Result<Linear, Declined> {
    let (a, b) = (cx.input(node, 0)?, cx.input(node, 1)?);
    if cx.constant(a).is_some() && cx.constant(b).is_none() {
        return Err(Declined::new("constant operand", "A", "B"));
    }
    let w = cx.need_constant(b, "weight")?;
    let params = gemm::params(op)?;
    let w_is_mk = params.transB;
    let &[d0, d1] = w.shape() else {
        return Err(Declined::new("rank of the weight", w.rank(), 2));
    };
    let (m, k) = if w_is_mk { (d0, d1) } else { (d1, d0) };
    let bias = cx.graph().input(node, 2).map(|value| {
        let constant = cx.constant(value);
        let by_feature = constant.as_ref().is_some_and(|t| is_by_feature(t.shape(), m, 2, 1));
        Bias { value, beta: params.beta, constant, by_feature }
    });
    Ok(Linear {
        x: a,
        x_rank: 2,
        w,
        w_is_mk,
        k,
        m,
        x_is_transposed: params.transA,
        weight_is_left: false,
        weight_is_vector: false,
        alpha: params.alpha,
        bias,
        out: cx.out(node),
    })
}

fn matmul(cx: &Cx<'_>, node: NodeId) -> Result<Linear, Declined> {
    let (a, b) = (cx.input(node, 0)?, cx.input(node, 1)?);
    let weight_is_left = cx.constant(b).is_none() && cx.constant(a).is_some();
    let (x, weight) = if weight_is_left { (b, a) } else { (a, b) };
    let w = cx.need_constant(weight, "weight")?;
    let x_rank = cx.need_shape(x)?.len();
    let (matrix, weight_is_vector) = match w.shape() {
        [k] => (vec![*k, 1], true),
        [ones @ .., r, c] if ones.iter().all(|d| *d == 1) && w.rank() <= x_rank.max(2) => {
            (vec![*r, *c], false)
        }
        other => {
            return Err(Declined::new("shape of the weight", format!("{other:?}"), "a vector or a matrix"));
        }
    };
    // a vector on the left is a row: [1,K]
    let matrix = if weight_is_left && weight_is_vector { vec![1, matrix[0]] } else { matrix };
    let w = w.reshaped(matrix)?;
    let (m, k) = if weight_is_left { (w.shape()[0], w.shape()[1]) } else { (w.shape()[1], w.shape()[0]) };
    let mut linear = Linear {
        x,
        x_rank,
        w,
        w_is_mk: weight_is_left,
        k,
        m,
        x_is_transposed: false,
        // for a vector x both sides are the same product
        weight_is_left: weight_is_left && x_rank > 1,
        weight_is_vector,
        alpha: 1.0,
        bias: None,
        out: cx.out(node),
    };
    if let Some((out, bias)) = added_bias(cx, &linear) {
        linear.out = out;
        linear.bias = Some(bias);
    }
    Ok(linear)
}

/// The `Add` that follows a MatMul and adds a constant by feature, in either operand order.
fn added_bias(cx: &Cx<'_>, linear: &Linear) -> Option<(ValueId, Bias)> {
    let (add, slot) = cx.only_user(linear.out)?;
    let op = cx.op(add, "Add")?;
    if linear.weight_is_vector || slot > 1 {
        return None;
    }
    let value = cx.graph().input(add, 1 - slot)?;
    let t = cx.constant(value)?;
    let from_end = if linear.weight_is_left { 2 } else { 1 };
    if !is_by_feature(t.shape(), linear.m, linear.x_rank, from_end) {
        return None;
    }
    // before opset 7 broadcasting is asked for, and its axis counts from the left
    let broadcasts = op.version >= 7
        || (slot == 0 && t.shape() == [linear.m] && from_end == 1 && op.attrs.get("axis").is_none())
        || t.rank() == linear.x_rank;
    broadcasts.then_some((cx.out(add), Bias { value, beta: 1.0, constant: Some(t), by_feature: true }))
}

/// Whether a shape that is broadcast to rank `rank` varies at most along the axis of the `m` features, which is
/// `from_end` axes from the end, and does not widen the result.
fn is_by_feature(shape: &[usize], m: usize, rank: usize, from_end: usize) -> bool {
    shape.len() <= rank
        && shape.iter().rev().enumerate().all(|(i, &d)| d == 1 || (i + 1 == from_end && d == m))
}

/// `factor * t`, which `linear` found to be exact.
fn scaled(t: &Tensor, factor: f32) -> Result<Tensor> {
    scaled_exactly(t, factor).ok_or_else(|| Error::mismatch("factor", factor, "one whose products are exact"))
}

impl Linear {
    /// The weight as `[M, view…]` with its axes of features in the order `order`, times alpha if that is exact.
    ///
    /// `view` splits K as the features lie in memory; `order[i]` is the axis of `view` that comes i-th.
    /// The flag says whether alpha is in the weight.
    pub fn kernel(
        &self,
        b: &mut Builder<'_>,
        view: &[usize],
        order: &[usize],
        trailing_ones: usize,
    ) -> Result<(ValueId, bool), Declined> {
        let folded = scaled_exactly(&self.w, self.alpha);
        let alpha = if folded.is_some() { self.alpha } else { 1.0 };
        let n = view.len();
        let (shape, perm): (Vec<usize>, Vec<usize>) = if self.w_is_mk {
            let shape = [&[self.m], view].concat();
            (shape, std::iter::once(0).chain(order.iter().map(|o| o + 1)).collect())
        } else {
            let shape = [view, &[self.m]].concat();
            (shape, std::iter::once(n).chain(order.iter().copied()).collect())
        };
        let key = format!("kernel {shape:?} {perm:?} x{trailing_ones} alpha {alpha}");
        let value = b.derived(&self.w, &key, "kernel", |_| {
            let scaled = folded.clone().unwrap_or_else(|| self.w.clone());
            let t = permute(&scaled.reshaped(shape.clone())?, &perm)?;
            let full = [t.shape(), &vec![1; trailing_ones]].concat();
            t.reshaped(full)
        })?;
        Ok((value, folded.is_some()))
    }

    /// A constant bias as a vector `[M]`, if it is one by feature.
    fn channel_bias(&self, b: &mut Builder<'_>) -> Result<Option<ValueId>, Declined> {
        let Some(Bias { value, beta, constant: Some(t), by_feature: true }) = &self.bias else {
            return Ok(None);
        };
        if t.shape() == [self.m] && *beta == 1.0 {
            return Ok(Some(*value));
        }
        let key = format!("bias [{}] beta {beta}", self.m);
        b.derived(t, &key, "bias", |t| spread(&scaled(t, *beta)?, self.m)).map(Some)
    }

    /// `conv` computes the product from `(weight, bias)`, in the layout of y; this adds what the Conv cannot hold:
    /// a factor that would have to be rounded, and a bias that is not one by feature.
    pub fn with_rest(
        &self,
        b: &mut Builder<'_>,
        alpha_is_in: bool,
        conv: impl FnOnce(&mut Builder<'_>, Option<ValueId>) -> Result<ValueId, Declined>,
    ) -> Result<ValueId, Declined> {
        let channel = if alpha_is_in { self.channel_bias(b)? } else { None };
        let mut y = conv(b, channel)?;
        if !alpha_is_in {
            let alpha = b.constant("alpha", scalar(self.w.dtype(), self.alpha)?)?;
            y = b.mul(y, alpha)?;
        }
        let Some(bias) = self.bias.as_ref().filter(|_| channel.is_none()) else { return Ok(y) };
        let value = match &bias.constant {
            _ if bias.beta == 1.0 => bias.value,
            Some(t) => b.derived(t, &format!("beta {}", bias.beta), "bias", |t| scaled(t, bias.beta))?,
            None => {
                let beta = b.constant("beta", scalar(self.w.dtype(), bias.beta)?)?;
                b.mul(bias.value, beta)?
            }
        };
        b.add(y, value)
    }

    /// What the replacement reads of the graph: `x` and a bias that is not constant.
    pub fn sources(&self, x: ValueId) -> Vec<ValueId> {
        let bias = self.bias.as_ref().filter(|b| b.constant.is_none()).map(|b| b.value);
        [Some(x), bias].into_iter().flatten().collect()
    }

    /// Errs unless x is `[N, K]` with the features last, as Gemm without transA has it.
    pub fn need_rows(&self, cx: &Cx<'_>) -> Result<(), Declined> {
        if self.weight_is_left {
            return Err(Declined::new("constant operand", "the left one", "the right one"));
        }
        if self.x_is_transposed {
            return Err(Declined::new("transA", 1, 0));
        }
        if self.x_rank != 2 {
            let shape = cx.shape(self.x).map_or("?".into(), |s: &Vec<Dim>| dims_text(s));
            return Err(Declined::new("shape of x", shape, "[N, features]"));
        }
        Ok(())
    }
}
