//! `DepthToSpace` and `SpaceToDepth`. <https://onnx.ai/onnx/operators/onnx__DepthToSpace.html>,
//! <https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html>
use super::transpose::transpose;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, OpNode, Result, TensorType, Value};

/// `DepthToSpace`.
pub struct DepthToSpace;
/// `SpaceToDepth`.
pub struct SpaceToDepth;

/// Which part of the channel axis the blocks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Depth-column-row: channels `[b, b, C/b²]`.
    Dcr,
    /// Column-row-depth: channels `[C/b², b, b]`.
    Crd,
}

/// `mode`, DCR by default.
pub fn mode(node: &OpNode) -> Result<Mode> {
    match node.attrs.str_or("mode", "DCR")? {
        "DCR" => Ok(Mode::Dcr),
        "CRD" => Ok(Mode::Crd),
        other => Err(Error::mismatch("attribute `mode`", other, "DCR or CRD")),
    }
}

/// `blocksize`, at least 1.
pub fn block_size(node: &OpNode) -> Result<usize> {
    let b = node.attrs.need_int("blocksize")?;
    let fits = |b: &usize| *b > 0 && b.checked_mul(*b).is_some();
    usize::try_from(b)
        .ok()
        .filter(fits)
        .ok_or_else(|| Error::mismatch("attribute `blocksize`", b, "at least 1"))
}

fn divided(what: &str, n: usize, by: usize) -> Result<usize> {
    if n.is_multiple_of(by) {
        Ok(n / by)
    } else {
        Err(Error::mismatch(what, n, format!("a multiple of {by}")))
    }
}

fn divide_dim(what: &str, d: &Dim, by: usize) -> Result<Dim> {
    match d {
        Dim::Known(n) => Ok(Dim::Known(divided(what, *n, by)?)),
        d => Ok(d.floor_div(&Dim::Known(by))),
    }
}

fn four<T>(x: &[T]) -> Result<&[T; 4]> {
    x.try_into().map_err(|_| Error::mismatch("rank", x.len(), "4"))
}

impl Operator for DepthToSpace {
    fn schema(&self) -> Schema {
        Schema { name: "DepthToSpace", domain: "", since: &[1, 11, 13, 28], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (dtype, b) = (cx.dtype(0)?, block_size(cx.node)?);
        let Some(x) = cx.shape(0)? else {
            return Ok(vec![TensorType::new(dtype, vec![Dim::Unknown; 4]).into()]);
        };
        let [n, c, h, w] = four(x)?;
        let by = Dim::Known(b);
        let out = [n.clone(), divide_dim("channels", c, b * b)?, h.mul(&by), w.mul(&by)];
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let b = block_size(cx.node)?;
        let &[n, c, h, w] = four(x.shape())?;
        let c = divided("channels", c, b * b)?;
        let y = match mode(cx.node)? {
            Mode::Dcr => transpose(&x.reshaped([n, b, b, c, h, w])?, &[0, 3, 4, 1, 5, 2])?,
            Mode::Crd => transpose(&x.reshaped([n, c, b, b, h, w])?, &[0, 1, 4, 2, 5, 3])?,
        };
        Ok(vec![y.reshaped([n, c, h * b, w * b])?.into()])
    }
}

impl Operator for SpaceToDepth {
    fn schema(&self) -> Schema {
        Schema { name: "SpaceToDepth", domain: "", since: &[1, 13, 28], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (dtype, b) = (cx.dtype(0)?, block_size(cx.node)?);
        let Some(x) = cx.shape(0)? else {
            return Ok(vec![TensorType::new(dtype, vec![Dim::Unknown; 4]).into()]);
        };
        let [n, c, h, w] = four(x)?;
        let by = Dim::Known(b * b);
        let out = [n.clone(), c.mul(&by), divide_dim("height", h, b)?, divide_dim("width", w, b)?];
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let b = block_size(cx.node)?;
        let &[n, c, h, w] = four(x.shape())?;
        let (h, w) = (divided("height", h, b)?, divided("width", w, b)?);
        let y = match mode(cx.node)? {
            Mode::Dcr => transpose(&x.reshaped([n, c, h, b, w, b])?, &[0, 3, 5, 1, 2, 4])?,
            Mode::Crd => transpose(&x.reshaped([n, c, h, b, w, b])?, &[0, 1, 3, 5, 2, 4])?,
        };
        Ok(vec![y.reshaped([n, c * b * b, h, w])?.into()])
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn each_undoes_the_other() {
        let x = Tensor::new(vec![1, 8, 1, 2], (0..16u8).collect()).unwrap();
        let attrs = Attrs::new().with("blocksize", 2i64);
        let y = eval1("DepthToSpace", 13, attrs.clone(), &[Some(x.clone())]).unwrap();
        assert_eq!(y.shape(), [1, 2, 2, 4]);
        assert_eq!(y.bytes()[..8], [0, 4, 1, 5, 8, 12, 9, 13]);
        assert_eq!(eval1("SpaceToDepth", 13, attrs.clone(), &[Some(y)]).unwrap(), x);
        let crd = eval1("DepthToSpace", 13, attrs.with("mode", "CRD"), &[Some(x)]).unwrap();
        assert_eq!(crd.bytes()[..8], [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
