//! `Gemm`: `alpha * A' * B' + beta * C`. <https://onnx.ai/onnx/operators/onnx__Gemm.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::broadcast;
use crate::ops::matmul;
use crate::ops::numeric::{Num, with_num};
use crate::{DType, Dim, Error, OpNode, Result, TensorType, Value};

/// `Gemm`.
pub struct Gemm;

/// The attributes of a `Gemm`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(non_snake_case)]
pub struct GemmParams {
    /// A is given as `[K, M]`.
    pub transA: bool,
    /// B is given as `[N, K]`.
    pub transB: bool,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of C.
    pub beta: f32,
}

/// Reads the attributes.
pub fn params(node: &OpNode) -> Result<GemmParams> {
    Ok(GemmParams {
        transA: node.attrs.flag("transA", false)?,
        transB: node.attrs.flag("transB", false)?,
        alpha: node.attrs.float_or("alpha", 1.0)?,
        beta: node.attrs.float_or("beta", 1.0)?,
    })
}

/// Rows and columns of a matrix, exchanged if it is given transposed. Errors on another rank.
fn matrix<T: Clone>(name: &str, shape: &[T], transposed: bool) -> Result<(T, T)> {
    match (shape, transposed) {
        ([r, c], false) | ([c, r], true) => Ok((r.clone(), c.clone())),
        _ => Err(Error::mismatch(format!("rank of {name}"), shape.len(), 2)),
    }
}

/// `(M, K, N)` of a product of these shapes. Errors where they do not fit.
pub fn extents(p: GemmParams, a: &[usize], b: &[usize]) -> Result<(usize, usize, usize)> {
    let ((m, k), (k2, n)) = (matrix("A", a, p.transA)?, matrix("B", b, p.transB)?);
    if k != k2 {
        return Err(Error::mismatch("inner extent of B", k2, format!("{k} as of A")));
    }
    Ok((m, k, n))
}

impl Operator for Gemm {
    fn schema(&self) -> Schema {
        Schema { name: "Gemm", domain: "", since: &[1, 6, 7, 9, 11, 13], inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.need_one_dtype(3)?;
        let p = params(cx.node)?;
        let dtype = if cx.dtype(0)? == DType::Undefined { cx.dtype(1)? } else { cx.dtype(0)? };
        let a = cx.shape(0)?.map(|s| matrix("A", s, p.transA)).transpose()?;
        let b = cx.shape(1)?.map(|s| matrix("B", s, p.transB)).transpose()?;
        if let (Some((_, ka)), Some((kb, _))) = (&a, &b)
            && !ka.compatible(kb)
        {
            return Err(Error::mismatch("inner extent of B", kb, format!("{ka} as of A")));
        }
        let m = a.map_or(Dim::Unknown, |a| a.0);
        let n = b.map_or(Dim::Unknown, |b| b.1);
        // before opset 7 C is broadcast as attributes say
        if cx.version() >= 7 {
            cx.need_stretch(2, &[m.clone(), n.clone()])?;
        }
        Ok(vec![TensorType::new(dtype, [m, n]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(3)?;
        let (a, b, c) = (cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?);
        let p = params(cx.node)?;
        let (m, k, n) = extents(p, a.shape(), b.shape())?;
        let c = c.map(|c| c.reshaped(broadcast::legacy_shape(cx.node, 2, c.shape(), 1)?)).transpose()?;
        if let Some(c) = &c
            && broadcast::shape(&[c.shape(), &[m, n]]).ok().as_deref() != Some(&[m, n])
        {
            let wanted = format!("broadcastable to [{m}, {n}]");
            return Err(Error::mismatch("shape of C", format!("{:?}", c.shape()), wanted));
        }
        with_num!(a.dtype(), T => {
            let (x, y) = (T::load(a)?, T::load(b)?);
            let scaled = |v: T, by: f32| if by == 1.0 { v } else { v.scaled(by) };
            let (sa, sb) = (if p.transA { [1, m] } else { [k, 1] }, if p.transB { [1, k] } else { [n, 1] });
            let mut z = vec![T::ZERO; m * n];
            matmul::product(&x, sa, &y, sb, (m, k, n), &mut z);
            z.iter_mut().for_each(|v| *v = scaled(*v, p.alpha));
            if let Some(c) = &c {
                let values = T::load(c)?;
                let f = |v: T, c: T| v.plus(scaled(c, p.beta));
                z = broadcast::map2((&z, &[m, n]), (&values[..], c.shape()), &[m, n], f);
            }
            Ok(vec![T::store(a.dtype(), vec![m, n], z)?.into()])
        })
    }
}

/// Scaling by a float attribute.
trait Scaled: Num {
    fn scaled(self, by: f32) -> Self;
}
impl Scaled for f32 {
    fn scaled(self, by: f32) -> f32 {
        self * by
    }
}
macro_rules! scaled { ($($t:ty)*) => { $(
    impl Scaled for $t { fn scaled(self, by: f32) -> Self { Self::from_f64(self.to_f64() * f64::from(by)) } }
)* } }
scaled! { f64 u8 i8 u16 i16 u32 i32 u64 i64 }

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn operands_may_be_transposed_and_scaled() {
        let t = |shape: &[usize], v: &[f32]| Some(Tensor::new(shape, v.to_vec()).unwrap());
        let attrs =
            Attrs::new().with("transA", 1i64).with("transB", 1i64).with("alpha", 2f32).with("beta", 0.5f32);
        // A' = [[1, 3], [2, 4]], B' = [[1], [10]]
        let inputs = [t(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), t(&[1, 2], &[1.0, 10.0]), t(&[1], &[8.0])];
        let y = eval1("Gemm", 13, attrs.clone(), &inputs).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap()[..], [66.0, 88.0]);
        let wide = [inputs[0].clone(), inputs[1].clone(), t(&[3], &[0.0; 3])];
        assert!(eval1("Gemm", 13, attrs, &wide).is_err(), "C must fit the product");
    }
}
