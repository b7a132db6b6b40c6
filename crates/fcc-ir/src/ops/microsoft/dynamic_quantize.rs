//! `com.microsoft`: `DynamicQuantizeLSTM`, `DynamicQuantizeMatMul`, `MatMulIntegerToFloat`: what ONNX Runtime's dynamic
//! quantisation writes. Floats are quantised to uint8 with the scale and zero point of `DynamicQuantizeLinear`, products
//! are exact int32 sums, scaled afterwards.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>
use super::DOMAIN;
use crate::convert;
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::integer::{along, matmul_sums};
use crate::ops::quantize::{dynamic_range, saturate};
use crate::ops::recurrent::{self, Activation, Cell, RecurrentParams, fits, sequence_lengths};
use crate::ops::{broadcast, matmul};
use crate::{DType, Error, Result, Tensor, Value};

/// `DynamicQuantizeLSTM`: an `LSTM` whose W and R are 8-bit and transposed (`[directions, input, 4 * hidden]`). X is
/// quantised once for each direction, the hidden state of the whole batch at each step.
pub struct DynamicQuantizeLSTM;
/// `DynamicQuantizeMatMul`: `A` quantised, times 8-bit `B`, scaled back to float, plus a bias.
pub struct DynamicQuantizeMatMul;
/// `MatMulIntegerToFloat`: 8-bit `A` times 8-bit `B`, scaled to float, plus a bias.
pub struct MatMulIntegerToFloat;

/// A matrix `[rows, columns]` of one direction: elements less their zero points, and the scale of each column.
struct Matrix {
    columns: usize,
    values: Vec<i32>,
    scales: Vec<f32>,
}

impl Matrix {
    /// Each direction's matrix of an 8-bit `[directions, rows, columns]`; scale and zero point have one element for each
    /// direction, or one for each of its columns.
    fn directions(cx: &EvalCtx<'_>, at: usize, scale: usize) -> Result<Vec<Matrix>> {
        let t = cx.tensor(at)?;
        let &[directions, _, columns] = t.shape() else {
            return Err(Error::mismatch(format!("rank of input {at}"), t.rank(), 3));
        };
        let (scales, zeros) = (cx.tensor(scale)?, cx.tensor(scale + 1)?);
        let per_column = |t: &Tensor, at: usize| match t.shape() {
            [d] if *d == directions => Ok(false),
            [d, 1] if *d == directions => Ok(false),
            [d, c] if *d == directions && *c == columns => Ok(true),
            other => {
                let wanted = format!("[{directions}] or [{directions}, {columns}]");
                Err(Error::mismatch(format!("shape of input {at}"), format!("{other:?}"), wanted))
            }
        };
        let (wide_scale, wide_zero) = (per_column(scales, scale)?, per_column(zeros, scale + 1)?);
        let (scales, zeros) = (convert::to_f32s(scales)?, convert::to_f64s(zeros)?);
        let values = crate::ops::integer::bytes(t)?;
        let of = |d: usize| {
            let at = |wide: bool, c: usize| if wide { d * columns + c } else { d };
            let each = values.len() / directions.max(1);
            let elements = values[d * each..][..each].iter().enumerate();
            Matrix {
                columns,
                values: elements.map(|(i, v)| v - zeros[at(wide_zero, i % columns.max(1))] as i32).collect(),
                scales: (0..columns).map(|c| scales[at(wide_scale, c)]).collect(),
            }
        };
        Ok((0..directions).map(of).collect())
    }
    /// `rows · matrix` in floats, by way of `rows` quantised together: `[rows, columns]`.
    fn product(&self, rows: &[f32], width: usize) -> Vec<f32> {
        let (scale, zero) = dynamic_range(rows);
        let quantised = rows
            .iter()
            .map(|v| saturate(f64::from(*v / scale), f64::from(zero), (0, 255)) as i32 - i32::from(zero));
        let quantised: Vec<i32> = quantised.collect();
        let factors: Vec<f32> = self.scales.iter().map(|s| scale * s).collect();
        let mut out = Vec::with_capacity(rows.len() / width.max(1) * self.columns);
        for row in quantised.chunks_exact(width.max(1)) {
            let mut sums = vec![0i32; self.columns];
            for (x, line) in watched(row.iter().zip(self.values.chunks_exact(self.columns.max(1)))) {
                if *x != 0 {
                    sums.iter_mut().zip(line).for_each(|(s, w)| *s = s.wrapping_add(x * w));
                }
            }
            out.extend(sums.iter().zip(&factors).map(|(s, f)| *s as f32 * f));
        }
        out
    }
}

/// One direction of a layer.
struct Direction<'a> {
    hidden: usize,
    /// Both biases of each gate, summed.
    bias: Option<Vec<f32>>,
    peephole: Option<&'a [f32]>,
    activations: &'a [Activation],
    params: &'a RecurrentParams,
}

impl Direction<'_> {
    /// New states of one sequence from the sums `W x + R h` of its gates i, o, f, c.
    fn step(&self, gates: &[f32], h: &mut [f32], c: &mut [f32]) {
        let n = self.hidden;
        let clip = |v: f32| self.params.clip.map_or(v, |bound| v.clamp(-bound, bound));
        let f = |which: usize, v: f32| self.activations[which].apply(clip(v));
        for u in 0..n {
            let gate = |g: usize| gates[g * n + u] + self.bias.as_ref().map_or(0.0, |b| b[g * n + u]);
            let peep = |g: usize, c: f32| self.peephole.map_or(0.0, |p| p[g * n + u] * c);
            let i = f(0, gate(0) + peep(0, c[u]));
            let forget = if self.params.input_forget { 1.0 - i } else { f(0, gate(2) + peep(2, c[u])) };
            c[u] = forget * c[u] + i * f(1, gate(3));
            let o = f(0, gate(1) + peep(1, c[u]));
            h[u] = o * self.activations[2].apply(c[u]);
        }
    }
}

impl Operator for DynamicQuantizeLSTM {
    fn schema(&self) -> Schema {
        let (inputs, outputs) = ((12, 12), (0, 3));
        Schema { name: "DynamicQuantizeLSTM", domain: DOMAIN, since: &[1], inputs, outputs }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        // R is transposed: its hidden extent is the second, where `LSTM` has it last
        let mut inputs = cx.inputs.to_vec();
        if let Some(Some(Fact { ty: crate::ValueType::Tensor(r), .. })) = inputs.get_mut(2)
            && let Some(shape) = r.shape.as_mut()
            && shape.len() == 3
        {
            shape[2] = shape[1].clone();
        }
        recurrent::LSTM.infer(&InferCtx { inputs: &inputs, ..*cx })
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let p = recurrent::params(cx.node, Cell::Lstm)?;
        if p.batch_first {
            return Err(Error::unsupported("DynamicQuantizeLSTM with `layout` 1"));
        }
        let (w, r) = (Matrix::directions(cx, 1, 8)?, Matrix::directions(cx, 2, 10)?);
        let (&[steps, batch, input], &[dirs, hidden, _]) = (cx.tensor(0)?.shape(), cx.tensor(2)?.shape())
        else {
            return Err(Error::mismatch("rank of X", cx.tensor(0)?.rank(), 3));
        };
        fits("W", cx.opt_tensor(1)?, &[p.reverse.len(), input, 4 * hidden])?;
        fits("R", cx.opt_tensor(2)?, &[p.reverse.len(), hidden, 4 * hidden])?;
        fits("B", cx.opt_tensor(3)?, &[dirs, 8 * hidden])?;
        fits("initial_h", cx.opt_tensor(5)?, &[dirs, batch, hidden])?;
        fits("initial_c", cx.opt_tensor(6)?, &[dirs, batch, hidden])?;
        fits("P", cx.opt_tensor(7)?, &[dirs, 3 * hidden])?;
        let floats = |i: usize| cx.opt_tensor(i)?.map(|t| t.as_slice::<f32>()).transpose();
        let (x, b, peepholes) = (cx.tensor(0)?.as_slice::<f32>()?, floats(3)?, floats(7)?);
        let lengths = sequence_lengths(cx.opt_tensor(4)?, steps, batch)?;
        let state = |given: Option<std::borrow::Cow<'_, [f32]>>| {
            given.map_or_else(|| vec![0.0; dirs * batch * hidden], |v| v.into_owned())
        };
        let (mut h, mut c) = (state(floats(5)?), state(floats(6)?));
        let mut y = vec![0f32; steps * dirs * batch * hidden];
        let longest = lengths.iter().copied().max().unwrap_or(0);
        for d in 0..dirs {
            let direction = Direction {
                hidden,
                bias: b.as_ref().map(|b| {
                    let (w, r) = b[d * 8 * hidden..][..8 * hidden].split_at(4 * hidden);
                    w.iter().zip(r).map(|(w, r)| w + r).collect()
                }),
                peephole: peepholes.as_ref().map(|p| &p[d * 3 * hidden..][..3 * hidden]),
                activations: &p.activations[d],
                params: &p,
            };
            let of_x = w[d].product(&x[..longest * batch * input], input);
            let (h, c) = (
                &mut h[d * batch * hidden..][..batch * hidden],
                &mut c[d * batch * hidden..][..batch * hidden],
            );
            for t in watched(0..longest) {
                let of_h = r[d].product(h, hidden);
                for s in (0..batch).filter(|s| t < lengths[*s]) {
                    let at = if p.reverse[d] { lengths[s] - 1 - t } else { t };
                    let terms = of_x[(at * batch + s) * 4 * hidden..].iter();
                    let gates: Vec<f32> =
                        terms.zip(&of_h[s * 4 * hidden..][..4 * hidden]).map(|(x, h)| x + h).collect();
                    let (h, c) = (&mut h[s * hidden..][..hidden], &mut c[s * hidden..][..hidden]);
                    direction.step(&gates, h, c);
                    y[((at * dirs + d) * batch + s) * hidden..][..hidden].copy_from_slice(h);
                }
            }
        }
        for s in (0..dirs * batch).filter(|s| lengths[s % batch] == 0) {
            // a sequence without steps has no last state
            h[s * hidden..][..hidden].fill(0.0);
            c[s * hidden..][..hidden].fill(0.0);
        }
        let outputs = [
            Tensor::new([steps, dirs, batch, hidden], y)?,
            Tensor::new([dirs, batch, hidden], h)?,
            Tensor::new([dirs, batch, hidden], c)?,
        ];
        Ok(outputs.into_iter().take(cx.wanted.len()).map(Value::from).collect())
    }
}

/// `sums * (a_scale * b_scale) + bias`; scales of a lie along rows, of b along columns.
pub(crate) fn scaled(
    sums: &[i32],
    shape: &[usize],
    a_scale: &Tensor,
    b_scale: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Value> {
    let fit = |t: &Tensor, axis: usize| {
        let own = along(t.shape(), shape, axis)?;
        match broadcast::shape(&[&own, shape]) {
            Ok(s) if s == shape => Ok((broadcast::strides(&own, shape), convert::to_f32s(t)?)),
            _ => {
                let wanted = format!("one fitting {shape:?}");
                Err(Error::mismatch("shape of a scale or bias", format!("{:?}", t.shape()), wanted))
            }
        }
    };
    let ((at, a), (bt, b)) = (fit(a_scale, 1)?, fit(b_scale, 0)?);
    let bias = bias.map(|c| fit(c, 0)).transpose()?;
    let none = vec![0; shape.len()];
    let mut out = Vec::with_capacity(sums.len());
    broadcast::for_each(shape, [&at, &bt, bias.as_ref().map_or(&none, |c| &c.0)], |[i, j, k]| {
        let y = sums[out.len()] as f32 * (a[i] * b[j]);
        out.push(bias.as_ref().map_or(y, |(_, c)| y + c[k]));
    });
    Ok(Tensor::new(shape, out)?.into())
}

impl Operator for DynamicQuantizeMatMul {
    fn schema(&self) -> Schema {
        let (inputs, outputs) = ((3, 5), (1, 1));
        Schema { name: "DynamicQuantizeMatMul", domain: DOMAIN, since: &[1], inputs, outputs }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![matmul::infer(cx, 0, 1, DType::F32)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let a = cx.tensor(0)?;
        let values = a.as_slice::<f32>()?;
        let (scale, zero) = dynamic_range(&values);
        let quantise = |v: &f32| saturate(f64::from(*v / scale), f64::from(zero), (0, 255)) as u8;
        let quantised = Tensor::new(a.shape(), values.iter().map(quantise).collect::<Vec<u8>>())?;
        let zero = Tensor::scalar(zero);
        let (sums, shape) = matmul_sums(&quantised, Some(&zero), cx.tensor(1)?, cx.opt_tensor(3)?)?;
        Ok(vec![scaled(&sums, &shape, &Tensor::scalar(scale), cx.tensor(2)?, cx.opt_tensor(4)?)?])
    }
}

impl Operator for MatMulIntegerToFloat {
    fn schema(&self) -> Schema {
        let (inputs, outputs) = ((4, 7), (1, 1));
        Schema { name: "MatMulIntegerToFloat", domain: DOMAIN, since: &[1], inputs, outputs }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![matmul::infer(cx, 0, 1, DType::F32)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (sums, shape) = matmul_sums(cx.tensor(0)?, cx.opt_tensor(4)?, cx.tensor(1)?, cx.opt_tensor(5)?)?;
        Ok(vec![scaled(&sums, &shape, cx.tensor(2)?, cx.tensor(3)?, cx.opt_tensor(6)?)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval_in, infer_in};

    fn t<T: crate::Elem>(shape: &[usize], v: Vec<T>) -> Option<Tensor> {
        Some(Tensor::new(shape, v).unwrap())
    }

    #[test]
    fn a_product_is_scaled_by_column_and_biased() {
        // a: scale 1, zero point 0
        let a = t(&[1, 2], vec![255f32, 1.0]);
        let inputs =
            [a, t(&[2, 2], vec![1i8, 2, 3, -4]), t(&[2], vec![1f32, 0.5]), None, t(&[2], vec![1f32, 2.0])];
        let y = eval_in("com.microsoft", "DynamicQuantizeMatMul", Attrs::new(), &inputs, 1).unwrap();
        let y = y[0].as_tensor().unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap()[..], [259.0, 255.0]);
    }

    #[test]
    fn an_lstm_of_exact_numbers_is_the_lstm() {
        // weights of scale 1/64, inputs that quantisation keeps: the only difference is the state's quantisation
        let (steps, batch, input, hidden) = (3, 2, 3, 2);
        let mut seed = 7u32;
        let mut next = |n: u32| {
            seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
            (seed >> 16) % n
        };
        let x: Vec<f32> = (0..steps * batch * input).map(|_| next(256) as f32 / 64.0 - 2.0).collect();
        let w: Vec<i8> = (0..2 * input * 4 * hidden).map(|_| next(64) as i8 - 32).collect();
        let r: Vec<i8> = (0..2 * hidden * 4 * hidden).map(|_| next(64) as i8 - 32).collect();
        let transposed = |m: &[i8], rows: usize| {
            let n = 4 * hidden;
            let at = |i: usize| {
                let (d, c, k) = (i / (rows * n), i / rows % n, i % rows);
                f32::from(m[(d * rows + k) * n + c]) / 64.0
            };
            (0..m.len()).map(at).collect::<Vec<f32>>()
        };
        let attrs = || Attrs::new().with("hidden_size", hidden as i64).with("direction", "bidirectional");
        let lens = t(&[2], vec![3i32, 2]);
        let (ws, zero) = (t(&[2], vec![1f32 / 64.0; 2]), t(&[2], vec![0i8; 2]));
        let plain = [
            t(&[steps, batch, input], x.clone()),
            t(&[2, 4 * hidden, input], transposed(&w, input)),
            t(&[2, 4 * hidden, hidden], transposed(&r, hidden)),
            None,
            lens.clone(),
        ];
        let quantised = [
            t(&[steps, batch, input], x),
            t(&[2, input, 4 * hidden], w),
            t(&[2, hidden, 4 * hidden], r),
            None,
            lens,
            None,
            None,
            None,
            ws.clone(),
            zero.clone(),
            ws,
            zero,
        ];
        let want = eval_in("", "LSTM", attrs(), &plain, 3).unwrap();
        let got = eval_in("com.microsoft", "DynamicQuantizeLSTM", attrs(), &quantised, 3).unwrap();
        for (w, g) in want.iter().zip(&got) {
            let (w, g) = (w.as_tensor().unwrap(), g.as_tensor().unwrap());
            assert_eq!(w.shape(), g.shape());
            let pairs = w
                .as_slice::<f32>()
                .unwrap()
                .into_owned()
                .into_iter()
                .zip(g.as_slice::<f32>().unwrap().into_owned());
            for (w, g) in pairs {
                assert!((w - g).abs() < 0.02, "{w} {g}");
            }
        }
    }

    #[test]
    fn an_lstm_takes_its_hidden_extent_from_the_second_dim_of_r() {
        let (steps, batch, input, hidden) = (5, 3, 7, 2);
        let fact =
            |dtype, shape: &[usize]| Some(Fact::from(crate::ValueType::tensor(dtype, shape.iter().copied())));
        let (x, w) = (fact(DType::F32, &[steps, batch, input]), fact(DType::I8, &[2, input, 4 * hidden]));
        let r = fact(DType::I8, &[2, hidden, 4 * hidden]);
        let (scale, zero) = (fact(DType::F32, &[2]), fact(DType::I8, &[2]));
        let inputs = [x, w, r, None, None, None, None, None, scale.clone(), zero.clone(), scale, zero];
        // with the attribute, and from R alone
        for attrs in [Attrs::new().with("hidden_size", hidden as i64), Attrs::new()] {
            let attrs = attrs.with("direction", "bidirectional");
            let facts = infer_in("com.microsoft", "DynamicQuantizeLSTM", attrs, &inputs, 3).unwrap();
            let shapes: Vec<_> =
                facts.iter().map(|f| f.ty.as_tensor().and_then(|t| t.known_shape()).unwrap()).collect();
            let state = vec![2, batch, hidden];
            assert_eq!(shapes, [vec![steps, 2, batch, hidden], state.clone(), state]);
        }
    }
}
