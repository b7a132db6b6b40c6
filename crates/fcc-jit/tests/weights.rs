//! Weights in a mapped file: at any alignment, let go of once they are packed, and read again.
mod common;
use common::net::{Net, Within, attrs, close, run_guarded};
use fcc_ir::interp::{self, Values};
use fcc_ir::{Model, NodeKind, ValueId};
use fcc_jit::{Isa, Options, Release, compile};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Enough columns and rows that weights are let go of while the rest is still to be packed.
const WIDE: usize = 1100;

/// Layers of every kind that packs weights; some weights belong to two of them, and one is an output too.
fn model() -> (Model, Values) {
    let mut net = Net::new();
    let image = net.input(&[1, 16, 9, 7]);
    let pads = || attrs([("pads", vec![1, 1, 1, 1].into())]);
    let w = net.weight(&[16, 16, 3, 3]);
    let a = net.node("Conv", &[image, w], pads());
    let a = net.node("Conv", &[a, w], pads());
    let w = net.weight(&[16, 16, 1, 1]);
    let b = net.op("Conv", &[image, w]);
    let w = net.weight(&[16, 1, 3, 3]);
    let c = net.node("Conv", &[image, w], pads().with("group", 16));
    let w = net.weight(&[2, 16, 3, 3]);
    let d = net.node("Conv", &[image, w], pads());
    let w = net.weight(&[16, 5, 3, 3]);
    let e = net.op("ConvTranspose", &[image, w]);
    // the same matrix as it is and transposed, and as a value that is returned
    let x = net.input(&[1, WIDE]);
    let w = net.weight(&[WIDE, WIDE]);
    let f = net.op("MatMul", &[x, w]);
    let g = net.node("Gemm", &[x, w], attrs([("transB", 1.into())]));
    let many = net.input(&[5, 33]);
    let wt = net.weight(&[21, 33]);
    let h = net.node("Gemm", &[many, wt], attrs([("transB", 1.into()), ("alpha", 2.0.into())]));
    let outputs = [a, b, c, d, e, f, g, h, wt];
    net.model(&outputs)
}

/// Where the constants of a model lie: their addresses modulo the size of an f32.
fn alignments(model: &Model) -> BTreeSet<usize> {
    let constant = |id| match &model.graph.node(id).kind {
        NodeKind::Constant(c) => Some(c.tensor.bytes().as_ptr() as usize % 4),
        _ => None,
    };
    model.graph.topological().expect("an order").into_iter().filter_map(constant).collect()
}

/// Writes the model so that its weights begin `shift` bytes further on, and reads it from there.
fn through_file(model: &Model, folder: &Path, shift: usize, external: bool) -> Model {
    let mut model = model.clone();
    model.graph.name = "n".repeat(shift + 1);
    let path = folder.join(format!("{shift}.onnx"));
    let options = fcc_onnx::SaveOptions { external_data: external, ..Default::default() };
    fcc_onnx::save(&model, &path, &options).expect("saved");
    fcc_onnx::load(&path, &Default::default()).expect("loaded")
}

fn compare(got: &Values, want: &Values, place: &str) {
    assert_eq!(got.len(), want.len());
    for (name, want) in want {
        let (got, want) = (got[name].as_tensor().expect("a tensor"), want.as_tensor().expect("a tensor"));
        close(got, want, Within::Exact, &format!("{name}, {place}"));
    }
}

#[test]
fn weights_are_read_at_every_alignment_and_again_after_they_were_let_go() {
    let (original, inputs) = model();
    let want = interp::run(&original, &inputs).expect("runs");
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = BTreeSet::new();
    for (shift, external) in [(0, false), (1, false), (2, false), (3, false), (4, true)] {
        let model = through_file(&original, folder.path(), shift, external);
        seen.extend(alignments(&model));
        for isa in [Isa::Baseline, Isa::Avx2, Isa::Avx512] {
            for threads in [1, 2] {
                let place = format!("{isa}, {threads} threads, shift {shift}, external {external}");
                let released = Arc::new(AtomicUsize::new(0));
                let count = released.clone();
                let mut options = Options::with_threads(threads);
                options.isa = isa;
                options.release = Some(Release::new(move |bytes| {
                    count.fetch_add(bytes.len(), Ordering::Relaxed);
                    fcc_onnx::release(bytes);
                }));
                // each round reads what the round before let go of
                let compiled = compile(&model, &options).expect("compiles");
                compare(&run_guarded(&compiled, &inputs).expect("runs"), &want, &place);
                assert!(released.load(Ordering::Relaxed) >= 2 * 4 * WIDE * WIDE, "{place}");
            }
        }
        compare(&interp::run(&model, &inputs).expect("runs"), &want, "interpreted after all");
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 3]), "alignments that were tried");
}

#[test]
fn large_weights_are_let_go_piece_by_piece_each_byte_once_before_the_end() {
    for trans in [0, 1] {
        let mut net = Net::new();
        let x = net.input(&[1, WIDE]);
        let w = net.weight(&[WIDE, WIDE]);
        let y: ValueId = net.node("Gemm", &[x, w], attrs([("transB", trans.into())]));
        let (model, inputs) = net.model(&[y]);
        let runs = Arc::new(Mutex::new(vec![]));
        let (heard, mut options) = (runs.clone(), Options::with_threads(1));
        options.release = Some(Release::new(move |bytes| {
            let start = bytes.as_ptr() as usize;
            heard.lock().expect("not poisoned").push(start..start + bytes.len());
        }));
        compile(&model, &options).expect("compiles").run(&inputs).expect("runs");
        let mut runs = runs.lock().expect("not poisoned").clone();
        // at last the whole
        let whole = runs.pop().expect("told");
        assert_eq!(whole.len(), 4 * WIDE * WIDE);
        assert!(runs.len() >= 2, "{} pieces", runs.len());
        let mut next = whole.start;
        for run in runs {
            assert_eq!(run.start, next);
            next = run.end;
        }
        assert_eq!(next, whole.end);
    }
}
