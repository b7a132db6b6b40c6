//! Transposed convolutions against plain loops, at every level.

mod common;
use common::{Rng, from_layout, levels, run, to_layout};
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::conv_transpose::ConvTranspose;
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;

/// Scatters each input into the output, as the operator is defined.
fn reference(t: &ConvTranspose, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
    let (i, o, k) = (t.x.spatial, t.y.spatial, t.kernel);
    let (icg, ocg) = (t.x.c / t.group, t.y.c / t.group);
    let (ni, no, nk) =
        (i.iter().product::<usize>(), o.iter().product::<usize>(), k.iter().product::<usize>());
    let mut y = vec![0.0; t.y.n * t.y.c * no];
    for (p, v) in y.iter_mut().enumerate() {
        *v = bias.get(p / no % t.y.c).copied().unwrap_or(0.0);
    }
    for n in 0..t.x.n {
        for c in 0..t.x.c {
            for at in 0..ni {
                let at = [at / (i[1] * i[2]), at / i[2] % i[1], at % i[2]];
                let v = x[(n * t.x.c + c) * ni + (at[0] * i[1] + at[1]) * i[2] + at[2]];
                for tap in 0..nk {
                    let kk = [tap / (k[1] * k[2]), tap / k[2] % k[1], tap % k[2]];
                    let q = [0, 1, 2].map(|d| {
                        (at[d] * t.strides[d] + kk[d] * t.dilations[d]) as i64 - t.pads_begin[d] as i64
                    });
                    if (0..3).all(|d| q[d] >= 0 && q[d] < o[d] as i64) {
                        for j in 0..ocg {
                            let m = c / icg * ocg + j;
                            let to = (n * t.y.c + m) * no
                                + (q[0] as usize * o[1] + q[1] as usize) * o[2]
                                + q[2] as usize;
                            y[to] += v * w[(c * ocg + j) * nk + tap];
                        }
                    }
                }
            }
        }
    }
    if t.activation.is_some() {
        y.iter_mut().for_each(|v| *v = v.max(0.0));
    }
    y
}

#[test]
fn any_stride_dilation_and_padding() {
    let mut rng = Rng(31);
    for isa in levels() {
        let (mut done, mut declined) = (0, 0);
        while done < 100 {
            let rank = rng.range(1, 3);
            let grouped = rng.below(6) == 0;
            let cb = isa.lanes();
            let (c, m, group) =
                if grouped { (2 * cb, 4 * cb, 2) } else { (rng.range(1, 40), rng.range(1, 40), 1) };
            let (mut input, mut kernel, mut strides, mut dilations, mut begin, mut out) =
                ([1; 3], [1; 3], [1; 3], [1; 3], [0; 3], [1; 3]);
            for d in 3 - rank..3 {
                input[d] = rng.range(1, if rank == 3 { 5 } else { 11 });
                kernel[d] = rng.range(1, 5);
                strides[d] = rng.range(1, 3);
                dilations[d] = rng.range(1, 2);
                let full = (input[d] - 1) * strides[d] + (kernel[d] - 1) * dilations[d] + 1;
                begin[d] = rng.below(3.min(full));
                let end = rng.below(3.min(full - begin[d]));
                out[d] = full - begin[d] - end + rng.below(strides[d]);
            }
            let n = rng.range(1, 2);
            let mut t = ConvTranspose {
                x: BlockedLayout::blocked(n, c, input, cb),
                y: BlockedLayout::blocked(n, m, out, cb).with_halo([
                    (0, 0),
                    (rng.below(2), 1),
                    (rng.below(2), rng.below(2)),
                ]),
                kernel,
                strides,
                dilations,
                pads_begin: begin,
                group,
                bias: rng.below(2) == 0,
                activation: (rng.below(2) == 0).then_some(Activation::Relu),
            };
            let extra = rng.below(2);
            t.x.halo = t.halo().map(|(b, a)| (b + extra, a + extra));
            let threads = rng.range(1, 2);
            let mut code = Code::new(isa).expect("code");
            let kernel = match t.build(code.emitter(), threads) {
                Ok(kernel) => kernel,
                Err(e) => {
                    assert!(e.to_string().contains("without input"), "{t:?}: {e}");
                    declined += 1;
                    continue;
                }
            };
            code.finalize().expect("finalize");
            done += 1;
            let x = rng.ints(n * c * input.iter().product::<usize>());
            let w = rng.ints(c * m / group * t.kernel.iter().product::<usize>());
            let mut bias = rng.ints(if t.bias { m } else { 0 });
            let want = reference(&t, &x, &w, &bias);
            let mut packed = vec![f32::NAN; t.packed_elems(isa)];
            t.pack_weights(isa, &w, &mut packed).expect("pack");
            let mut buffers = vec![to_layout(&t.x, &x), packed];
            if t.bias {
                bias.resize(t.bias_elems(isa), f32::NAN);
                buffers.push(bias);
            }
            buffers.push(vec![f32::NAN; t.y.bytes() / 4]);
            run(&code, &kernel, &Pool::new(threads), &mut buffers);
            let got = from_layout(&t.y, &buffers.pop().expect("y"));
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!(g == w, "{} {t:?}: element {i} is {g}, not {w}", kernel.name);
            }
        }
        assert!(declined < 400, "{declined} declined");
    }
}
