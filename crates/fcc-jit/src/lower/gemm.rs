//! `Gemm` and `MatMul`.
use super::Cx;
use crate::plan::ir::{GemmNode, Kind};
use fcc_ir::Tensor;

pub(super) fn gemm(cx: &mut Cx<'_>) -> Option<()> {
    let (a, b, y) = (cx.f32(0)?, cx.f32(1)?, cx.only_out()?);
    let p = fcc_ir::ops::gemm::params(cx.op).ok()?;
    let (m, k, n) = fcc_ir::ops::gemm::extents(p, &a, &b).ok()?;
    if k == 0 || cx.shape(y) != [m, n] {
        return None;
    }
    let mut node = GemmNode {
        trans_a: p.transA,
        trans_b: p.transB,
        alpha: p.alpha,
        bias: false,
        residual: None,
        activation: None,
    };
    let mut inputs = vec![cx.input(0), cx.input(1)];
    if let Some(c) = cx.input(2)
        && p.beta != 0.0
    {
        let shape = cx.f32(2)?;
        let row = shape == [n] || shape == [1, n];
        match cx.constant(2).cloned() {
            Some(t) if row || t.len() == 1 => {
                let values = t.as_slice::<f32>().ok()?;
                let values: Vec<f32> = if row { values.into_owned() } else { vec![values[0]; n] };
                let scaled = values.iter().map(|v| v * p.beta).collect();
                let name = format!("{}.bias", cx.program.val(y).name);
                inputs.push(Some(cx.program.constant(name, Tensor::new(vec![n], scaled).ok()?)));
                node.bias = true;
            }
            _ if row || shape == [m, n] => {
                inputs.push(Some(c));
                node.residual = Some(p.beta);
            }
            _ => return None,
        }
    }
    cx.push(Kind::Gemm(node), inputs, y);
    Some(())
}

pub(super) fn matmul(cx: &mut Cx<'_>) -> Option<()> {
    let (a, b, y) = (cx.f32(0)?, cx.f32(1)?, cx.only_out()?);
    let k = *a.last()?;
    if a.len() < 2 || b.len() < 2 || k == 0 || cx.shape(y).len() != a.len().max(b.len()) {
        return None;
    }
    let node = GemmNode {
        trans_a: false,
        trans_b: false,
        alpha: 1.0,
        bias: false,
        residual: None,
        activation: None,
    };
    let inputs = vec![cx.input(0), cx.input(1)];
    cx.push(Kind::Gemm(node), inputs, y);
    Some(())
}
