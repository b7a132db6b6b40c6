//! `ConvTranspose`. <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::conv::{AutoPad, Window, group, indices, list};
use crate::ops::movement::new_elems;
use crate::ops::numeric::{Num, Real, with_real};
use crate::{At, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `ConvTranspose`.
pub struct ConvTranspose;

/// A transposed convolution of known shapes: x `[N, C, spatial…]`, w `[C, M/group, kernel…]`, y `[N, M, out…]`.
///
/// `y[n, m, i * stride + k * dilation - pad_begin] += x[n, c, i] * w[c, m, k]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvTransposeProblem {
    /// Batch.
    pub n: usize,
    /// Input channels.
    pub c: usize,
    /// Output channels.
    pub m: usize,
    /// Groups.
    pub group: usize,
    /// Input extents along the spatial axes.
    pub spatial: Vec<usize>,
    /// The window. Its `pads` are superseded by `pad_begin`.
    pub window: Window,
    /// Elements cut from the beginning along each spatial axis; negative ones are added.
    pub pad_begin: Vec<i64>,
    /// Output extents along the spatial axes.
    pub out: Vec<usize>,
}

struct Attributes {
    window: Window,
    output_padding: Vec<usize>,
    output_shape: Option<Vec<usize>>,
}

fn attributes(node: &OpNode, kernel: Option<&[usize]>) -> Result<Attributes> {
    let window = Window::parse(node, kernel)?;
    let n = window.rank();
    let output_shape = match node.attrs.ints("output_shape")? {
        // some exporters write the batch and channels, too
        Some(s) if s.len() == n + 2 => Some(s[2..].iter().map(|v| extent(*v)).collect::<Result<_>>()?),
        Some(_) => Some(list(node, "output_shape", n, 1, 0)?),
        None => None,
    };
    Ok(Attributes { output_padding: list(node, "output_padding", n, 0, 0)?, window, output_shape })
}

fn extent(v: i64) -> Result<usize> {
    usize::try_from(v).map_err(|_| Error::mismatch("attribute `output_shape`", v, "extents"))
}

fn overflow() -> Error {
    Error::invalid("extent of the output overflows")
}

impl Attributes {
    /// Extent along an axis before anything is cut: `stride * (in - 1) + output_padding + span`.
    fn full(&self, axis: usize, input: usize) -> Result<i64> {
        let reach = input.saturating_sub(1).checked_mul(self.window.strides[axis]).ok_or_else(overflow)?;
        let full = reach
            .checked_add(self.output_padding[axis])
            .and_then(|r| r.checked_add(self.window.span(axis).ok()?));
        full.and_then(|f| i64::try_from(f).ok()).ok_or_else(overflow)
    }
    /// What is cut at the beginning, and the output extent.
    fn geometry(&self, axis: usize, input: usize) -> Result<(i64, usize)> {
        let (w, full) = (&self.window, self.full(axis, input)?);
        let wanted = match (&self.output_shape, w.auto_pad) {
            (Some(shape), _) => Some(shape[axis]),
            (None, AutoPad::SameUpper | AutoPad::SameLower) => {
                Some(input.checked_mul(w.strides[axis]).ok_or_else(overflow)?)
            }
            (None, AutoPad::NotSet | AutoPad::Valid) => None,
        };
        if let Some(out) = wanted {
            let total = full - i64::try_from(out).map_err(|_| overflow())?;
            let half = total.div_euclid(2);
            return Ok((if w.auto_pad == AutoPad::SameUpper { half } else { total - half }, out));
        }
        let pads = (w.pads[axis] as i64).checked_add(w.pads[w.rank() + axis] as i64).ok_or_else(overflow)?;
        let out = usize::try_from(full - pads).map_err(|_| {
            Error::mismatch(format!("padding along spatial axis {axis}"), pads, format!("at most {full}"))
        })?;
        Ok((w.pads[axis] as i64, out))
    }
    fn out_dim(&self, axis: usize, input: &Dim) -> Result<Dim> {
        if let Dim::Known(n) = input {
            return Ok(Dim::Known(self.geometry(axis, *n)?.1));
        }
        let (w, stride) = (&self.window, Dim::Known(self.window.strides[axis]));
        Ok(match (&self.output_shape, w.auto_pad) {
            (Some(shape), _) => Dim::Known(shape[axis]),
            (None, AutoPad::SameUpper | AutoPad::SameLower) => input.mul(&stride),
            (None, AutoPad::NotSet | AutoPad::Valid) => {
                // the fixed part of the extent, as for an input of extent 1
                let fixed = self.full(axis, 1)? - (w.pads[axis] as i64) - (w.pads[w.rank() + axis] as i64);
                input.mul(&stride).offset(fixed - w.strides[axis] as i64)
            }
        })
    }
}

impl ConvTransposeProblem {
    /// Checks a node against the shapes of x, w and b. Errors name what does not fit.
    pub fn new(node: &OpNode, x: &[usize], w: &[usize], b: Option<&[usize]>) -> Result<ConvTransposeProblem> {
        let (&[n, c, ref spatial @ ..], &[c2, mg, ref kernel @ ..]) = (x, w) else {
            let ranks = format!("{} and {}", x.len(), w.len());
            return Err(Error::mismatch("ranks of x and w", ranks, "at least 3"));
        };
        if spatial.len() != kernel.len() || spatial.is_empty() {
            return Err(Error::mismatch("rank of w", w.len(), format!("{} as of x", x.len())));
        }
        let group = group(node)?;
        if c != c2 || c % group != 0 {
            return Err(Error::mismatch(
                "channels of w",
                c2,
                format!("{c} of x, a multiple of {group} groups"),
            ));
        }
        let m = mg.checked_mul(group).ok_or_else(overflow)?;
        if let Some(b) = b.filter(|b| **b != [m]) {
            return Err(Error::mismatch("shape of b", format!("{b:?}"), format!("[{m}]")));
        }
        let attributes = attributes(node, Some(kernel))?;
        let mut problem = ConvTransposeProblem {
            n,
            c,
            m,
            group,
            spatial: spatial.to_vec(),
            pad_begin: vec![],
            out: vec![],
            window: attributes.window.clone(),
        };
        for (axis, extent) in spatial.iter().enumerate() {
            let (pad, out) = attributes.geometry(axis, *extent)?;
            problem.pad_begin.push(pad);
            problem.out.push(out);
        }
        new_elems(&problem.out_shape()).at(|| "output")?;
        Ok(problem)
    }
    /// Shape of y.
    pub fn out_shape(&self) -> Vec<usize> {
        [self.n, self.m].into_iter().chain(self.out.iter().copied()).collect()
    }
    /// Linear index of the output place that an input place reaches through a tap, if it is kept.
    fn output_offset(&self, place: &[usize], tap: &[usize]) -> Option<usize> {
        let mut offset = 0;
        for (i, extent) in self.out.iter().enumerate() {
            let at = place[i] * self.window.strides[i] + tap[i] * self.window.dilations[i];
            let at =
                usize::try_from(i64::try_from(at).ok()? - self.pad_begin[i]).ok().filter(|a| a < extent)?;
            offset = offset * extent + at;
        }
        Some(offset)
    }
}

/// Every input element adds its multiple of the kernel to the output.
fn scatter<T: Real>(p: &ConvTransposeProblem, x: &[T], w: &[T], b: Option<&[T]>) -> Vec<T> {
    let (cg, mg) = (p.c / p.group, p.m / p.group);
    let (in_size, out_size): (usize, usize) = (p.spatial.iter().product(), p.out.iter().product());
    let taps = indices(&p.window.kernel_shape);
    let mut y = vec![T::ZERO; p.n * p.m * out_size];
    for (place_number, place) in watched(indices(&p.spatial).iter().enumerate()) {
        let reached = taps.iter().enumerate().filter_map(|(k, tap)| Some((k, p.output_offset(place, tap)?)));
        let reached: Vec<(usize, usize)> = reached.collect();
        for n in 0..p.n {
            for c in 0..p.c {
                let value = x[(n * p.c + c) * in_size + place_number];
                for m in watched(0..mg) {
                    let wm = &w[(c * mg + m) * taps.len()..][..taps.len()];
                    let ym = &mut y[(n * p.m + c / cg * mg + m) * out_size..][..out_size];
                    for &(k, o) in &reached {
                        ym[o] += value * wm[k];
                    }
                }
            }
        }
    }
    if let Some(b) = b {
        y.iter_mut().enumerate().for_each(|(i, v)| *v += b[i / out_size % p.m]);
    }
    y
}

impl Operator for ConvTranspose {
    fn schema(&self) -> Schema {
        Schema { name: "ConvTranspose", domain: "", since: &[1, 11, 22], inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.need_one_dtype(3)?;
        let dtype = cx.dtype(0)?;
        let (Some(x), Some(w)) = (cx.shape(0)?, cx.shape(1)?) else {
            return Ok(vec![TensorType::unranked(dtype).into()]);
        };
        let ([n, _, spatial @ ..], [_, mg, kernel @ ..]) = (&x[..], &w[..]) else {
            let ranks = format!("{} and {}", x.len(), w.len());
            return Err(Error::mismatch("ranks of x and w", ranks, "at least 3"));
        };
        if spatial.len() != kernel.len() {
            return Err(Error::mismatch("rank of w", w.len(), format!("{} as of x", x.len())));
        }
        let mut out = vec![n.clone(), mg.mul(&Dim::Known(group(cx.node)?))];
        let kernel: Option<Vec<usize>> = kernel.iter().map(Dim::known).collect();
        if kernel.is_none() && cx.node.attrs.ints("kernel_shape")?.is_none() {
            out.extend(spatial.iter().map(|_| Dim::Unknown));
            return Ok(vec![TensorType::new(dtype, out).into()]);
        }
        let attributes = attributes(cx.node, kernel.as_deref())?;
        for (axis, extent) in spatial.iter().enumerate() {
            out.push(attributes.out_dim(axis, extent)?);
        }
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(3)?;
        let (x, w, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?);
        let p = ConvTransposeProblem::new(cx.node, x.shape(), w.shape(), b.map(Tensor::shape))?;
        with_real!(x.dtype(), T => {
            let b = b.map(T::load).transpose()?;
            let y = scatter(&p, &T::load(x)?, &T::load(w)?, b.as_deref());
            Ok(vec![T::store(x.dtype(), p.out_shape(), y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer};
    use crate::{DType, ValueType};

    #[test]
    fn extents_follow_stride_padding_and_wishes() {
        let extent = |attrs: Attrs| {
            let t = |shape: &[usize]| Some(Tensor::new(shape, vec![1f32; shape.iter().product()]).unwrap());
            let y = eval1("ConvTranspose", 11, attrs.clone(), &[t(&[1, 1, 2]), t(&[1, 1, 3])])
                .unwrap()
                .shape()[2];
            let x = ValueType::tensor(DType::F32, [Dim::Known(1), Dim::Known(1), Dim::symbol("L")]);
            let w = ValueType::tensor(DType::F32, [1usize, 1, 3]);
            let fact =
                infer("ConvTranspose", 11, attrs, &[Some(x.into()), Some(w.into())], 1).unwrap().remove(0);
            let symbolic = fact.ty.as_tensor().unwrap().shape.as_ref().unwrap()[2].clone();
            assert_eq!(symbolic.bind(&[("L".to_string(), 2)].into()), Dim::Known(y));
            y
        };
        let stride = |s: i64| Attrs::new().with("strides", vec![s]);
        assert_eq!(extent(stride(1)), 4);
        assert_eq!(extent(stride(2)), 5);
        assert_eq!(extent(stride(2).with("pads", vec![1i64, 1])), 3);
        assert_eq!(extent(stride(2).with("output_padding", vec![1i64])), 6);
        assert_eq!(extent(stride(2).with("auto_pad", "SAME_UPPER")), 4);
        assert_eq!(extent(stride(2).with("output_shape", vec![8i64])), 8);
    }

    #[test]
    fn kernels_overlap() {
        let t = |shape: &[usize], v: &[f32]| Some(Tensor::new(shape, v.to_vec()).unwrap());
        let inputs = [t(&[1, 1, 2], &[1.0, 2.0]), t(&[1, 1, 2], &[10.0, 1.0]), t(&[1], &[0.5])];
        let y = eval1("ConvTranspose", 11, Attrs::new(), &inputs).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap()[..], [10.5, 21.5, 2.5]);
    }
}
