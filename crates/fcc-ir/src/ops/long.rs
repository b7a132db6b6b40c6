//! Operators that would run for hours on small inputs end when their time is over.
use super::testing::{node, node_in};
use crate::attr::Attrs;
use crate::interp::eval_op;
use crate::{Error, RunLimits, Stopped, Tensor, Value};
use std::time::{Duration, Instant};

/// Begins an operator and takes its time away while it runs. Without a look at the limits in its loops, this is a test
/// that does not end.
fn stops(domain: &str, op_type: &str, version: i64, attrs: Attrs, inputs: Vec<Tensor>) {
    let op = if domain.is_empty() {
        node(op_type, version, attrs, inputs.len())
    } else {
        node_in(domain, op_type, version, attrs, inputs.len())
    };
    let inputs: Vec<Option<Value>> = inputs.into_iter().map(|t| Some(t.into())).collect();
    let limits =
        RunLimits { deadline: Some(Instant::now() + Duration::from_millis(200)), ..RunLimits::default() };
    let made = limits.within(|| eval_op(&op, &[], &inputs, &[], &[true]));
    let stopped = matches!(made, Err(Error::Stopped(Stopped::Deadline { .. })));
    assert!(stopped, "{op_type}: {:?}", made.map(|values| values.len()));
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::new(shape, vec![0f32; shape.iter().product()]).unwrap()
}

fn bytes(shape: &[usize]) -> Tensor {
    Tensor::new(shape, vec![0u8; shape.iter().product()]).unwrap()
}

#[test]
fn sums_over_many_axes() {
    let letters: Vec<String> = ('a'..='j').map(String::from).collect();
    let attrs = Attrs::new().with("equation", format!("{}->", letters.join(",")).as_str());
    stops("", "Einsum", 12, attrs, vec![zeros(&[64]); 10]);
}

#[test]
fn products() {
    let square = || zeros(&[4096, 4096]);
    stops("", "MatMul", 13, Attrs::new(), vec![square(), square()]);
    stops("", "Gemm", 13, Attrs::new().with("transB", 1i64), vec![square(), square()]);
    stops("", "MatMulInteger", 10, Attrs::new(), vec![bytes(&[4096, 4096]), bytes(&[4096, 4096])]);
    let wide = || zeros(&[1, 16, 1024, 256]);
    stops("", "Attention", 23, Attrs::new(), vec![wide(), wide(), wide()]);
    stops("", "Det", 22, Attrs::new(), vec![eye(4096)]);
}

fn eye(n: usize) -> Tensor {
    let mut values = vec![0f32; n * n];
    values.iter_mut().step_by(n + 1).for_each(|v| *v = 1.0);
    Tensor::new([n, n], values).unwrap()
}

#[test]
fn convolutions() {
    let (x, w) = (|| zeros(&[1, 64, 512, 512]), || zeros(&[64, 64, 31, 31]));
    stops("", "Conv", 11, Attrs::new(), vec![x(), w()]);
    stops("", "ConvTranspose", 11, Attrs::new(), vec![x(), w()]);
    stops("", "ConvInteger", 10, Attrs::new(), vec![bytes(&[1, 64, 512, 512]), bytes(&[64, 64, 31, 31])]);
    // one window at a time is long enough
    let attrs = Attrs::new().with("kernel_shape", vec![255i64, 255]);
    stops("", "AveragePool", 11, attrs.clone(), vec![zeros(&[1, 1, 1000, 1000])]);
    stops("", "MaxPool", 11, attrs.clone(), vec![zeros(&[1, 1, 1000, 1000])]);
    stops("", "LpPool", 11, attrs, vec![zeros(&[1, 1, 1000, 1000])]);
}

#[test]
fn recurrent_layers() {
    let (steps, hidden) = (30_000, 1024);
    for (op, gates) in [("RNN", 1), ("GRU", 3), ("LSTM", 4)] {
        let attrs = Attrs::new().with("hidden_size", hidden as i64);
        let (x, w) = (zeros(&[steps, 1, 1]), zeros(&[1, gates * hidden, 1]));
        stops("", op, 14, attrs, vec![x, w, zeros(&[1, gates * hidden, hidden])]);
    }
}

#[test]
fn what_is_quadratic() {
    stops("", "DFT", 17, Attrs::new(), vec![zeros(&[1, 1 << 20, 1])]);
    let step = Tensor::scalar(1i64);
    stops("", "STFT", 17, Attrs::new(), vec![zeros(&[1, 11_000, 1]), step, zeros(&[10_000])]);
    stops("", "LRN", 13, Attrs::new().with("size", 1_000_001i64), vec![zeros(&[1, 30_000, 100])]);
    // boxes that do not meet: each is held against all that were kept
    let n = 300_000;
    let boxes: Vec<f32> = (0..n).flat_map(|i| [0.0, i as f32, 0.5, i as f32 + 0.5]).collect();
    let inputs = vec![
        Tensor::new([1, n, 4], boxes).unwrap(),
        zeros(&[1, 1, n]),
        Tensor::scalar(n as i64),
        Tensor::scalar(0.5f32),
    ];
    stops("", "NonMaxSuppression", 11, Attrs::new(), inputs);
}

#[test]
fn samples_without_number() {
    let attrs = Attrs::new().with("sampling_ratio", 1_000_000i64);
    let rois = Tensor::new([1, 4], vec![0f32, 0., 4., 4.]).unwrap();
    let inputs = vec![zeros(&[1, 1, 8, 8]), rois, Tensor::from_i64s([0])];
    stops("", "RoiAlign", 16, attrs, inputs);
}

#[test]
fn passes_over_large_tensors() {
    // a pass that is begun ends early: here each is too short to be caught, so the time is over before
    let over = RunLimits { deadline: Some(Instant::now()), ..RunLimits::default() };
    over.within(|| {
        let f = super::numeric::each(&[1f32; 4096], |v| *v);
        assert!(f.is_empty());
        let mut seen = 0;
        super::broadcast::for_each(&[8, 8], [&[8, 1]], |[_]| seen += 1);
        assert_eq!(seen, 0);
        let error = super::movement::select(&zeros(&[4, 4]), &[vec![0, 4], vec![0, 1]]).unwrap_err();
        assert!(error.is_stopped(), "{error}");
    });
}

#[test]
fn room_is_asked_for_before_it_is_taken() {
    let limits = RunLimits { memory_bytes: Some(1 << 20), ..RunLimits::default() };
    let run = |op: &str, attrs: Attrs, inputs: Vec<Tensor>| {
        let node = node(op, 13, attrs, inputs.len());
        let inputs: Vec<Option<Value>> = inputs.into_iter().map(|t| Some(t.into())).collect();
        limits.within(|| eval_op(&node, &[], &inputs, &[], &[true]).map(|_| ()))
    };
    let asked = |error: Error| match error.stopped() {
        Some(Stopped::Memory { asked_bytes, .. }) => asked_bytes,
        other => panic!("{other:?}"),
    };
    // a GiB is never made: the shape tells
    let shape = Tensor::from_i64s([1 << 14, 1 << 14]);
    assert_eq!(asked(run("ConstantOfShape", Attrs::new(), vec![shape]).unwrap_err()), 1 << 30);
    // how many there are is known from the data only
    let ones = Tensor::from_bools([1 << 18], std::iter::repeat_n(true, 1 << 18)).unwrap();
    assert!(asked(run("NonZero", Attrs::new(), vec![ones]).unwrap_err()) >= 2 << 20);
    // what an operator computes in is wider than what it makes
    let narrow = Tensor::new([1 << 18], vec![0i8; 1 << 18]).unwrap();
    const UINT8: i64 = 2;
    let attrs = Attrs::new().with("to", UINT8);
    assert_eq!(asked(run("Cast", attrs, vec![narrow]).unwrap_err()), 2 << 20);
    assert!(run("Relu", Attrs::new(), vec![zeros(&[1 << 17])]).is_ok());
}
