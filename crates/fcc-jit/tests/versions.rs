//! Operators as older opsets state them, lowered as the interpreter reads them.
mod common;

use common::net::{Within, check, run_guarded};
use fcc_ir::interp::Values;
use fcc_ir::text::parse;
use fcc_ir::{Tensor, Value};

fn agrees(text: &str, inputs: &[(&str, &[usize])]) {
    let model = parse(text).unwrap();
    let value = |shape: &[usize]| {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| ((i * 7 + 3) % 19) as f32 - 9.0).collect();
        Value::Tensor(Tensor::new(shape, values).unwrap())
    };
    let inputs: Values = inputs.iter().map(|(name, shape)| (name.to_string(), value(shape))).collect();
    check(&model, &inputs, Within::Exact);
}

#[test]
fn split_takes_its_parts_from_the_attribute() {
    for (version, parts) in [(2, [7, 4, 4]), (11, [7, 4, 4]), (11, [5, 5, 5]), (11, [1, 13, 1])] {
        let [p, q, r] = parts;
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : {version}]>
             g (float[10,15] x) => (float[10,{p}] a, float[10,{q}] b, float[10,{r}] c) {{
                a, b, c = Split<axis=1, split=[{p},{q},{r}]>(x)
             }}"
        );
        agrees(&text, &[("x", &[10, 15])]);
    }
}

#[test]
fn pads_of_version_1_have_another_name() {
    let text = "<ir_version: 3, opset_import: [\"\" : 1]>
        g (float[2,3] x) => (float[2,6] y) { y = Pad<paddings=[0,1,0,2], value=5.0>(x) }";
    agrees(text, &[("x", &[2, 3])]);
}

#[test]
fn slopes_of_version_6_belong_to_channels() {
    // as many channels as columns: the newer broadcasting would fit too
    let text = "<ir_version: 3, opset_import: [\"\" : 6]>
        g (float[2,3,5,3] x, float[3] s) => (float[2,3,5,3] y) { y = PRelu(x, s) }";
    let model = parse(text).unwrap();
    let x: Vec<f32> = (0..90).map(|i| ((i * 7 + 3) % 19) as f32 - 9.0).collect();
    let inputs = Values::from([
        ("x".into(), Value::Tensor(Tensor::new([2, 3, 5, 3], x).unwrap())),
        ("s".into(), Value::Tensor(Tensor::new([3], vec![2f32, 3.0, 5.0]).unwrap())),
    ]);
    let want = fcc_ir::interp::run(&model, &inputs).unwrap();
    let compiled = fcc_jit::compile(&model, &fcc_jit::Options::with_threads(1)).unwrap();
    assert_eq!(run_guarded(&compiled, &inputs).unwrap(), want);
}
