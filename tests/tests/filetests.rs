//! Runs `tests/filetests/*.onnxtxt`: a model in ONNX's text syntax, under a header that says what to do with it.
//!
//! The header's lines start with `#` and hold one command each (other lines are for the reader):
//! - `# rewrite: NAME...`: runs these passes; the snapshot holds the rewritten graph and the report;
//! - `# limit: growth BYTES` or `# limit: folded BYTES`: limits of the rewrite;
//! - `# sizes: N=1 H=5, N=3 H=8`: values of the symbols, one run each (without it: each symbol 2, then 3);
//! - `# rounded`: weights are no small integers, so the bit-exact run before and after is left out;
//! - `# opaque`: the model cannot run, so nothing is run.
//!
//! Every rewritten model is run before and after on small integers and compared bit by bit, compared with the
//! original by `fcc_rewrite::verify`, and each rewrite of a linear node is proved. `INSTA_UPDATE=always` blesses.
use fcc_ir::interp::{self, Values};
use fcc_ir::text::{PrintOptions, parse, print};
use fcc_ir::{Bindings, DType, Dim, Model, Tensor, Value};
use fcc_rewrite::{Options, Report, passes, prove, verify};
use std::path::{Path, PathBuf};

/// What a file's header asks for.
#[derive(Default)]
struct Header {
    rewrite: Vec<String>,
    limits: fcc_rewrite::Limits,
    sizes: Vec<Bindings>,
    rounded: bool,
    opaque: bool,
}

fn header(text: &str) -> Header {
    let mut header = Header::default();
    for line in text.lines().take_while(|l| l.starts_with('#')) {
        let line = line.trim_start_matches('#').trim();
        let (command, rest) = line.split_once(':').unwrap_or((line, ""));
        match command {
            "rewrite" => header.rewrite = rest.split_whitespace().map(String::from).collect(),
            "limit" => match rest.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["growth", n] => header.limits.growth_bytes = n.parse().unwrap(),
                ["folded", n] => header.limits.folded_bytes = n.parse().unwrap(),
                other => panic!("limit {other:?}"),
            },
            "sizes" => header.sizes = rest.split(',').map(bindings).collect(),
            "rounded" => header.rounded = true,
            "opaque" => header.opaque = true,
            _ => {}
        }
    }
    assert!(!header.rewrite.is_empty(), "no `# rewrite:` in the header");
    header
}

fn bindings(text: &str) -> Bindings {
    let one = |pair: &str| pair.split_once('=').map(|(s, n)| (s.to_string(), n.parse().unwrap()));
    text.split_whitespace().map(|p| one(p).unwrap_or_else(|| panic!("{p}"))).collect()
}

fn symbols(model: &Model) -> Vec<String> {
    let mut found = vec![];
    for info in model.required_inputs() {
        for dim in info.ty.as_tensor().and_then(|t| t.shape.as_ref()).into_iter().flatten() {
            if let Dim::Sym(e) = dim {
                e.visit_symbols(&mut |s| found.push(s.to_string()));
            }
        }
    }
    found
}

/// Inputs of the integers -4..=4.
fn integers(model: &Model, bindings: &Bindings, seed: u64) -> Values {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % 9) as f64 - 4.0
    };
    let of = |info: &fcc_ir::ValueInfo, next: &mut dyn FnMut() -> f64| {
        let ty = info.ty.as_tensor().unwrap();
        let dims = ty.shape.as_ref().unwrap();
        let shape: Vec<usize> = dims.iter().map(|d| d.bind(bindings).known().unwrap_or(1)).collect();
        let n: usize = shape.iter().product();
        let v: Vec<f64> = (0..n).map(|_| next()).collect();
        use fcc_ir::half::{bf16, f16};
        match ty.dtype {
            DType::F32 => Tensor::new(shape, v.iter().map(|v| *v as f32).collect()),
            DType::F64 => Tensor::new(shape, v),
            DType::F16 => Tensor::new(shape, v.iter().map(|v| f16::from_f64(*v)).collect()),
            DType::BF16 => Tensor::new(shape, v.iter().map(|v| bf16::from_f64(*v)).collect()),
            DType::Bool => Tensor::from_bools(shape, v.iter().map(|v| *v > 0.0)),
            DType::I64 => Tensor::new(shape, v.iter().map(|v| *v as i64).collect()),
            other => panic!("inputs of type {other}"),
        }
    };
    model.required_inputs().map(|i| (i.name.clone(), Value::from(of(i, &mut next).unwrap()))).collect()
}

/// The elements, with one zero for both.
fn elements(value: &Value) -> (Vec<usize>, DType, Vec<f64>) {
    use fcc_ir::half::{bf16, f16};
    let t = value.as_tensor().unwrap();
    let v = match t.dtype() {
        DType::F32 => t.as_slice::<f32>().unwrap().iter().map(|v| f64::from(*v) + 0.0).collect(),
        DType::F64 => t.as_slice::<f64>().unwrap().iter().map(|v| v + 0.0).collect(),
        DType::F16 => t.as_slice::<f16>().unwrap().iter().map(|v| v.to_f64() + 0.0).collect(),
        DType::BF16 => t.as_slice::<bf16>().unwrap().iter().map(|v| v.to_f64() + 0.0).collect(),
        DType::Bool => t.as_bools().unwrap().iter().map(|v| f64::from(u8::from(*v))).collect(),
        _ => t.to_i64s().unwrap().iter().map(|v| *v as f64).collect(),
    };
    (t.shape().to_vec(), t.dtype(), v)
}

fn check_runs(header: &Header, original: &Model, rewritten: &Model) {
    let names = symbols(original);
    let sizes = match header.sizes.as_slice() {
        [] if names.is_empty() => vec![Bindings::new()],
        [] => [2, 3].iter().map(|n| names.iter().map(|s| (s.clone(), *n)).collect()).collect(),
        given => given.to_vec(),
    };
    for (i, at) in sizes.iter().enumerate() {
        let given = integers(original, at, i as u64 + 1);
        let want = interp::run(original, &given).unwrap_or_else(|e| panic!("original at {at:?}: {e}"));
        let got = interp::run(rewritten, &given).unwrap_or_else(|e| panic!("rewritten at {at:?}: {e}"));
        assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
        for (name, want) in &want {
            let (want, got) = (elements(want), elements(&got[name]));
            assert_eq!((&want.0, want.1), (&got.0, got.1), "type of {name} at {at:?}");
            assert!(header.rounded || want.2 == got.2, "{name} at {at:?}: {want:?} became {got:?}");
        }
        let seen = want.values().any(|v| elements(v).2.iter().any(|v| *v != 0.0) || elements(v).2.is_empty());
        assert!(seen, "all outputs are 0 at {at:?}: the test sees nothing");
        let options = verify::Options { batches: vec![2], bindings: at.clone(), ..Default::default() };
        let found = verify::compare(original, rewritten, &options).unwrap();
        assert!(found.is_same(), "{found}");
    }
}

fn rewrite(header: &Header, original: &Model) -> (Model, Report) {
    let mut model = original.clone();
    let steps: Vec<passes::Pass> = header
        .rewrite
        .iter()
        .flat_map(|name| passes::named(name).unwrap_or_else(|| panic!("no pass {name}")))
        .collect();
    let mut on_match = |site: &fcc_rewrite::Site<'_>| prove::prove(site).map(|_| ());
    let limits = header.limits.clone();
    let options = Options { limits, on_match: Some(&mut on_match), ..Default::default() };
    let report = fcc_rewrite::run(&mut model, &steps, options).unwrap_or_else(|e| panic!("{e}"));
    (model, report)
}

fn check_file(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let header = header(&text);
    let original = parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let (rewritten, report) = rewrite(&header, &original);
    let printed = print(&rewritten, &PrintOptions::readable());
    let whole = print(&rewritten, &PrintOptions::whole());
    let again = parse(&whole).unwrap_or_else(|e| panic!("the rewritten model does not parse: {e}\n{whole}"));
    assert_eq!(print(&again, &PrintOptions::whole()), whole, "parse(print(model)) differs");
    if !header.opaque {
        check_runs(&header, &original, &rewritten);
    }
    let (second, _) = rewrite(&header, &original);
    assert_eq!(print(&second, &PrintOptions::readable()), printed, "a second run gives another model");
    let name = path.file_stem().unwrap().to_string_lossy().to_string();
    insta::with_settings!({
        snapshot_path => "../filetests/snapshots", prepend_module_to_snapshot => false, omit_expression => true
    }, {
        insta::assert_snapshot!(name, format!("{printed}\n{report}"));
    });
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests");
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "onnxtxt")).collect();
    files.sort();
    files
}

#[test]
fn every_file_is_rewritten_as_its_snapshot_says() {
    let mut failed = vec![];
    let files = files();
    for path in &files {
        if std::panic::catch_unwind(|| check_file(path)).is_err() {
            failed.push(path.file_name().unwrap().to_string_lossy().to_string());
        }
    }
    assert!(failed.is_empty(), "{} of {} files: {failed:?}", failed.len(), files.len());
}

#[test]
fn no_snapshot_is_without_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests/snapshots");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().to_string();
        let stem = name.trim_end_matches(".new").trim_end_matches(".snap").to_string();
        assert!(files().iter().any(|p| p.file_stem().unwrap().to_string_lossy() == stem), "{name}");
    }
}
