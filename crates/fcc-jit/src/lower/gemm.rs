//! `Gemm` and `MatMul`.
use super::{Cx, Lowered};
use crate::declined::Declined;
use crate::plan::ir::{GemmNode, Kind};
use fcc_ir::Tensor;

pub(super) fn gemm(cx: &mut Cx<'_>) -> Lowered {
    let (a, b, y) = (cx.f32(0)?, cx.f32(1)?, cx.only_out()?);
    let p = fcc_ir::ops::gemm::params(cx.op)?;
    let (m, k, n) = fcc_ir::ops::gemm::extents(p, &a, &b)?;
    if k == 0 {
        return Err(Declined::new("columns of A", 0, "at least 1"));
    }
    if cx.shape(y) != [m, n] {
        return Err(cx.other_shape(y));
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
                let values = t.as_slice::<f32>()?;
                let values: Vec<f32> = if row { values.into_owned() } else { vec![values[0]; n] };
                let scaled = values.iter().map(|v| v * p.beta).collect();
                let name = format!("{}.bias", cx.program.val(y).name);
                inputs.push(Some(cx.program.constant(name, Tensor::new(vec![n], scaled)?)));
                node.bias = true;
            }
            _ if row || shape == [m, n] => {
                inputs.push(Some(c));
                node.residual = Some(p.beta);
            }
            _ => {
                return Err(Declined::new(
                    "input 2",
                    format!("shape {shape:?}"),
                    format!("one row of {n}, one constant value, or {m} rows"),
                ));
            }
        }
    }
    cx.push(Kind::Gemm(node), inputs, y);
    Ok(())
}

pub(super) fn matmul(cx: &mut Cx<'_>) -> Lowered {
    let (a, b, y) = (cx.f32(0)?, cx.f32(1)?, cx.only_out()?);
    if a.len() < 2 || b.len() < 2 || a.last() == Some(&0) || cx.shape(y).len() != a.len().max(b.len()) {
        return Err(Declined::new(
            "inputs",
            format!("shapes {a:?} and {b:?}"),
            "matrices, with one column of A or more",
        ));
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
    Ok(())
}
