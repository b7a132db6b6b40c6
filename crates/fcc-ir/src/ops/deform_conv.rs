//! `DeformConv`: a convolution whose taps are moved by an input. <https://onnx.ai/onnx/operators/onnx__DeformConv.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::conv::{self, ConvProblem, indices};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{Error, OpNode, Result, Tensor, Value};

/// `DeformConv`.
pub struct DeformConv;

/// Groups of input channels that share offsets.
pub fn offset_group(node: &OpNode) -> Result<usize> {
    let g = node.attrs.int_or("offset_group", 1)?;
    let found = usize::try_from(g).ok().filter(|g| *g > 0);
    found.ok_or_else(|| Error::mismatch("attribute `offset_group`", g, "at least 1"))
}

/// Linear interpolation at a point of a plane; what lies outside is zero.
fn sample<T: Real>(plane: &[T], extents: &[usize], at: &[T]) -> T {
    let mut sum = T::ZERO;
    for corner in 0..1usize << extents.len() {
        let (mut weight, mut offset, mut inside) = (T::ONE, 0, true);
        for (i, (extent, at)) in extents.iter().zip(at).enumerate() {
            let low = at.to_f64().floor();
            let rest = *at - T::from_f64(low);
            let (pixel, w) = if corner >> i & 1 == 1 { (low + 1.0, rest) } else { (low, T::ONE - rest) };
            weight *= w;
            inside &= pixel >= 0.0 && pixel < *extent as f64;
            if inside {
                offset = offset * extent + pixel as usize;
            }
        }
        if inside {
            sum += weight * plane[offset];
        }
    }
    sum
}

fn check(name: &str, t: &Tensor, wanted: &[usize]) -> Result<()> {
    if t.shape() == wanted {
        return Ok(());
    }
    Err(Error::mismatch(format!("shape of {name}"), format!("{:?}", t.shape()), format!("{wanted:?}")))
}

/// Offsets and mask of a deformable convolution.
struct Moves<'a, T> {
    groups: usize,
    offset: &'a [T],
    mask: Option<&'a [T]>,
}

fn run<T: Real>(p: &ConvProblem, x: &[T], w: &[T], b: Option<&[T]>, moves: &Moves<'_, T>) -> Vec<T> {
    let rank = p.spatial.len();
    let outs: Vec<usize> = p.axes.iter().map(|a| a.out).collect();
    let (places, taps) = (indices(&outs), indices(&p.window.kernel_shape));
    let in_size: usize = p.spatial.iter().product();
    let (cg, mg) = (p.c / p.group, p.m / p.group);
    let per_group = p.c / moves.groups;
    let mut y = vec![T::ZERO; p.n * p.m * places.len()];
    for n in 0..p.n {
        for (number, place) in watched(places.iter().enumerate()) {
            // the sample under each tap, for each channel
            let mut samples = Vec::with_capacity(p.c * taps.len());
            for c in 0..p.c {
                let plane = &x[(n * p.c + c) * in_size..][..in_size];
                let group = n * moves.groups + c / per_group;
                for (k, tap) in taps.iter().enumerate() {
                    let row = group * taps.len() + k;
                    let at: Vec<T> = (0..rank)
                        .map(|i| {
                            let fixed =
                                (place[i] * p.window.strides[i] + tap[i] * p.window.dilations[i]) as f64;
                            T::from_f64(fixed - p.axes[i].pad_begin as f64)
                                + moves.offset[(row * rank + i) * places.len() + number]
                        })
                        .collect();
                    let factor = moves.mask.map_or(T::ONE, |m| m[row * places.len() + number]);
                    samples.push(sample(plane, &p.spatial, &at) * factor);
                }
            }
            for m in watched(0..p.m) {
                let mut sum = b.map_or(T::ZERO, |b| b[m]);
                let inputs = &samples[m / mg * cg * taps.len()..][..cg * taps.len()];
                inputs.iter().zip(&w[m * cg * taps.len()..]).for_each(|(s, w)| sum += *s * *w);
                y[(n * p.m + m) * places.len() + number] = sum;
            }
        }
    }
    y
}

impl Operator for DeformConv {
    fn schema(&self) -> Schema {
        Schema { name: "DeformConv", domain: "", since: &[19, 22], inputs: (3, 5), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        offset_group(cx.node)?;
        Ok(vec![conv::infer(cx, 0, 1, Some(3), cx.dtype(0)?)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, w, offset) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let (b, mask, groups) = (cx.opt_tensor(3)?, cx.opt_tensor(4)?, offset_group(cx.node)?);
        let p = ConvProblem::new(cx.node, x.shape(), w.shape(), b.map(Tensor::shape))?;
        if p.c % groups != 0 {
            return Err(Error::mismatch("attribute `offset_group`", groups, format!("a divisor of {}", p.c)));
        }
        let taps: usize = p.window.kernel_shape.iter().product();
        let per_place =
            |n: usize| -> Vec<usize> { [p.n, n].into_iter().chain(p.axes.iter().map(|a| a.out)).collect() };
        check("offset", offset, &per_place(groups * taps * p.spatial.len()))?;
        if let Some(mask) = mask {
            check("mask", mask, &per_place(groups * taps))?;
        }
        with_real!(x.dtype(), T => {
            let (b, mask) = (b.map(T::load).transpose()?, mask.map(T::load).transpose()?);
            let offset = T::load(offset)?;
            let moves = Moves { groups, offset: &offset, mask: mask.as_deref() };
            let y = run(&p, &T::load(x)?, &T::load(w)?, b.as_deref(), &moves);
            Ok(vec![T::store(x.dtype(), p.out_shape(), y)?.into()])
        })
    }
}
