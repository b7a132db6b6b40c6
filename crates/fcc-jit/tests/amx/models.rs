//! Whole models at level AMX against the interpreter.

use crate::common::amx::{amx, caught};
use crate::common::net::{Net, Within, attrs, close, run_guarded};
use fcc_ir::attr::{AttrValue, Attrs};
use fcc_ir::interp::{self, Values};
use fcc_ir::{Model, Tensor, Value, ValueId};
use fcc_jit::{CompiledModel, Isa, Options, Precision, compile};

fn options(threads: usize, precision: Precision) -> Options {
    let mut options = Options::with_threads(threads);
    (options.isa, options.precision) = (Isa::Amx, precision);
    options
}

/// The kernels of the plan for these inputs, and the reasons.
fn plan(compiled: &CompiledModel, inputs: &Values) -> Vec<(String, String)> {
    let plan = compiled.plan_for(inputs).expect("plan");
    plan.steps().map(|s| (s.kernel.clone(), s.why.clone().unwrap_or_default())).collect()
}

fn uses_amx(steps: &[(String, String)]) -> usize {
    steps.iter().filter(|(kernel, why)| kernel.contains(" amx ") && why.contains("AMX, as asked for")).count()
}

/// Two convolutions of one value, a residual, a pool, a product.
fn network(net: &mut Net, reals: bool, x: Tensor) -> ValueId {
    let weight = |net: &mut Net, shape: &[usize]| {
        let t = if reals { net.reals(shape) } else { net.integers(shape) };
        net.constant(t)
    };
    let pads = || Attrs::new().with("pads", vec![1i64; 4]);
    let x = net.given(x);
    let (w, b) = (weight(net, &[36, 33, 3, 3]), weight(net, &[36]));
    let y = net.node("Conv", &[x, w, b], pads());
    let y = net.op("Relu", &[y]);
    let w = weight(net, &[36, 33, 1, 1]);
    let z = net.node("Conv", &[x, w], Attrs::new());
    let y = net.op("Add", &[y, z]);
    let y = net.node(
        "MaxPool",
        &[y],
        Attrs::new().with("kernel_shape", vec![2i64, 2]).with("strides", vec![2i64, 2]),
    );
    let flat = net.op("Flatten", &[y]);
    let (w, b) = (weight(net, &[7, 36 * 12]), weight(net, &[7]));
    net.node("Gemm", &[flat, w, b], attrs([("transB", AttrValue::Int(1))]))
}

#[test]
fn a_network_is_exact_on_integers() {
    if amx().is_none() {
        return;
    }
    for threads in [1, 2] {
        let mut net = Net::new();
        let x = net.integers(&[9, 33, 7, 9]);
        let y = network(&mut net, false, x);
        let (model, inputs) = net.model(&[y]);
        let want = interp::run(&model, &inputs).expect("interpreter");
        let compiled = compile(&model, &options(threads, Precision::F32)).expect("compile");
        let steps = plan(&compiled, &inputs);
        assert_eq!(uses_amx(&steps), 3, "{steps:?}");
        // both convolutions read the input in the same rows of tiles
        let regrouped = steps.iter().filter(|s| s.0.contains("rows of tiles")).count();
        assert_eq!(regrouped, 2, "{steps:?}");
        let before = caught();
        for _ in 0..2 {
            let got = run_guarded(&compiled, &inputs).expect("run");
            for (name, want) in &want {
                close(tensor(&got[name]), tensor(want), Within::Exact, name);
            }
        }
        assert!(amx() == Some(crate::common::amx::Amx::Hardware) || caught() > before);
    }
}

fn tensor(v: &Value) -> &Tensor {
    v.as_tensor().expect("a tensor")
}

#[test]
fn a_network_of_reals_is_near_in_both_precisions() {
    if amx().is_none() {
        return;
    }
    let mut net = Net::new();
    let x = net.reals(&[9, 33, 7, 9]);
    let y = network(&mut net, true, x);
    let (model, inputs) = net.model(&[y]);
    let want = interp::run(&model, &inputs).expect("interpreter");
    for (precision, products, within) in
        [(Precision::F32, "amx 6 products", 2e-6), (Precision::Fast, "amx 3 products", 6e-5)]
    {
        let compiled = compile(&model, &options(2, precision)).expect("compile");
        let steps = plan(&compiled, &inputs);
        assert_eq!(steps.iter().filter(|s| s.0.contains(products)).count(), 3, "{steps:?}");
        let got = run_guarded(&compiled, &inputs).expect("run");
        for (name, want) in &want {
            close(tensor(&got[name]), tensor(want), Within::Relative(within), name);
        }
    }
}

/// Runs a model whose one input is `x` at AVX-512 and at AMX, and compares bit for bit but for NaN: the flag has led to
/// plain kernels.
fn falls_back(make: &dyn Fn(&mut Net, Tensor) -> ValueId, x: Tensor) {
    let mut net = Net::new();
    let y = make(&mut net, x);
    let (model, inputs) = net.model(&[y]);
    let run = |options: &Options| compile(&model, options).expect("compile").run(&inputs).expect("run");
    let mut plain = options(1, Precision::F32);
    plain.isa = Isa::Avx512;
    let (want, got) = (run(&plain), run(&options(1, Precision::F32)));
    for (name, want) in &want {
        let bits = |t: &Value| -> Vec<u32> {
            let t = tensor(t).as_slice::<f32>().expect("floats");
            t.iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
        };
        assert_eq!(bits(&got[name]), bits(want), "{name}");
    }
}

fn one_convolution(net: &mut Net, x: Tensor) -> ValueId {
    let x = net.given(x);
    let w = net.reals(&[5, 40, 1, 3]);
    let w = net.constant(w);
    net.node("Conv", &[x, w], Attrs::new().with("pads", vec![0i64, 1, 0, 1]))
}

fn one_product(net: &mut Net, x: Tensor) -> ValueId {
    let x = net.given(x);
    let w = net.reals(&[40, 5]);
    let w = net.constant(w);
    net.op("MatMul", &[x, w])
}

#[test]
fn infinite_huge_and_tiny_values_are_what_plain_f32_makes_of_them() {
    if amx().is_none() {
        return;
    }
    let all = |v: f32, shape: &[usize]| Tensor::new(shape, vec![v; shape.iter().product()]).expect("tensor");
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, -3e38, 1e-30, 1e-38, -1e-42] {
        for one in [false, true] {
            let spoil = |t: Tensor| -> Tensor {
                let mut values = t.as_slice::<f32>().expect("floats").into_owned();
                values.iter_mut().step_by(if one { 157 } else { 1 }).for_each(|v| *v = value);
                Tensor::new(t.shape(), values).expect("tensor")
            };
            // a tiny value among others changes nothing: there the results are near, not equal
            if one && value.abs() < 1.0 {
                continue;
            }
            falls_back(&one_convolution, spoil(all(0.5, &[1, 40, 2, 9])));
            falls_back(&one_product, spoil(all(0.5, &[11, 40])));
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_for_plain_kernels() {
    if amx().is_none() {
        return;
    }
    for value in [f32::INFINITY, f32::NAN] {
        let mut net = Net::new();
        let x = net.input(&[1, 32, 3, 3]);
        let mut w = net.integers(&[4, 32, 1, 1]).as_slice::<f32>().expect("floats").into_owned();
        w[40] = value;
        let w = net.constant(Tensor::new([4, 32, 1, 1], w).expect("tensor"));
        let y = net.node("Conv", &[x, w], Attrs::new());
        let (model, inputs) = net.model(&[y]);
        let compiled = compile(&model, &options(1, Precision::F32)).expect("compile");
        let steps = plan(&compiled, &inputs);
        assert!(steps.iter().any(|s| s.1.contains("no AMX: weights that are not finite")), "{steps:?}");
        let (got, want) = (compiled.run(&inputs).expect("run"), interp::run(&model, &inputs).expect("run"));
        for (name, want) in &want {
            close(tensor(&got[name]), tensor(want), Within::Exact, name);
        }
    }
}

fn reason(make: &dyn Fn(&mut Net) -> ValueId) -> String {
    let mut net = Net::new();
    let y = make(&mut net);
    let (model, inputs): (Model, Values) = net.model(&[y]);
    let compiled = compile(&model, &options(1, Precision::F32)).expect("compile");
    plan(&compiled, &inputs).into_iter().map(|s| s.1).collect::<Vec<_>>().join("; ")
}

#[test]
fn what_tiles_do_not_do_says_why() {
    if amx().is_none() {
        return;
    }
    let few = reason(&|net| {
        let (x, w) = (net.input(&[1, 20, 5, 5]), net.weight(&[20, 20, 3, 3]));
        net.node("Conv", &[x, w], Attrs::new())
    });
    assert!(few.contains("no AMX: 20 input channels in a group, need 32"), "{few}");
    let one_row = reason(&|net| {
        let (x, w) = (net.input(&[1, 64]), net.weight(&[64, 10]));
        net.op("MatMul", &[x, w])
    });
    assert!(one_row.contains("no AMX: A of 1 rows and 64 columns, need 8 rows"), "{one_row}");
}

/// A network of convolutions and a text encoder against their AVX-512 plans; no run starts again for a flag.
#[test]
#[ignore = "needs the models of scripts/fetch_models.py"]
fn real_networks_stay_near_and_raise_no_flag() {
    if amx().is_none() {
        return;
    }
    let mut net = Net::new();
    let ids: Vec<i64> = (0..12).map(|_| (net.next() % 8192) as i64).collect();
    let cases = [
        ("light/light_squeezenet.onnx", 20, net.reals(&[1, 3, 224, 224])),
        ("encoder.onnx", 20, Tensor::new([1, 12], ids).expect("ids")),
    ];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/models");
    for (name, least, input) in cases {
        let model = fcc_onnx::load(folder.join(name), &Default::default()).expect("model");
        let graph = &model.graph;
        let given = |i: &&fcc_ir::GraphInput| matches!(graph.node(i.node).kind, fcc_ir::NodeKind::Input);
        let first = graph.inputs.iter().find(given).expect("an input");
        let inputs = Values::from([(first.info.name.clone(), Value::Tensor(input))]);
        let mut plain = options(2, Precision::F32);
        plain.isa = Isa::Avx512;
        let want = compile(&model, &plain).expect("compile").run(&inputs).expect("run");
        for (precision, within) in [(Precision::F32, 1e-5), (Precision::Fast, 1e-3)] {
            let compiled = compile(&model, &options(2, precision)).expect("compile");
            let steps = plan(&compiled, &inputs);
            assert!(uses_amx(&steps) >= least, "{name}: {steps:?}");
            let (got, profile) = compiled.run_profiled(&inputs, false).expect("run");
            assert_eq!(profile.steps.len(), steps.len(), "{name}: a run started again");
            for (output, want) in &want {
                close(
                    tensor(&got[output]),
                    tensor(want),
                    Within::Relative(within),
                    &format!("{name} {output}"),
                );
            }
            println!("{name}, {precision}: {} kernels of tiles in {} steps", uses_amx(&steps), steps.len());
        }
    }
}
