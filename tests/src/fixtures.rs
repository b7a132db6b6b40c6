//! The files of `fixtures/`: models, and the held-out digits.
use fcc_ir::convert::to_f32s;
use fcc_ir::{Model, Result, Tensor, Value};
use std::path::PathBuf;

/// A path in `fixtures/`.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

/// A model of `fixtures/`. Panics if it cannot be read.
pub fn model(name: &str) -> Model {
    fcc_onnx::load(path(name), &fcc_onnx::LoadOptions::default()).expect("a model of fixtures/")
}

/// The held-out digits: the input `image` float `[500, 1, 28, 28]` in 0 to 1, and what each one is.
pub struct Digits {
    /// The pixels.
    pub image: Tensor,
    /// The digit, 0 to 9.
    pub labels: Vec<usize>,
}

/// Reads the held-out digits. Panics if they cannot be read.
pub fn digits() -> Digits {
    let arrays = fcc_onnx::read_npz(path("mnist_test.npz")).expect("mnist_test.npz");
    let array = |name: &str| &arrays.iter().find(|(key, _)| key == name).expect("images and labels").1;
    let pixels: Vec<f32> = to_f32s(array("images")).expect("uint8").iter().map(|p| p / 255.0).collect();
    let labels = to_f32s(array("labels")).expect("uint8").iter().map(|&l| l as usize).collect();
    Digits { image: Tensor::new(array("images").shape().to_vec(), pixels).expect("as many pixels"), labels }
}

/// The most likely class of each row of logits `[N, 10]`.
pub fn answers(logits: &Value) -> Result<Vec<usize>> {
    let values = to_f32s(logits.as_tensor()?)?;
    let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
    Ok(values.chunks_exact(10).filter_map(best).collect())
}
