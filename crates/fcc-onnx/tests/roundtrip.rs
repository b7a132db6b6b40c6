//! A model that nothing changed is written as it was read: the same protobuf message, field for field.
use std::path::{Path, PathBuf};

use fcc_onnx::proto::{GraphProto, ModelProto, TensorProto};
use fcc_onnx::{LoadOptions, SaveOptions, load, save, to_bytes};
use prost::Message;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn models_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = entry.path();
        // the entry's own type: a link to a folder may lead back here
        if entry.file_type().unwrap().is_dir() {
            models_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            found.push(path);
        }
    }
}

/// Two ways to write the same bytes of a tensor count as one where a file uses external data.
fn inline(tensor: &mut TensorProto) {
    tensor.external_data.clear();
    tensor.data_location = None;
}

fn for_each_tensor(graph: &mut GraphProto, f: &mut impl FnMut(&mut TensorProto)) {
    graph.initializer.iter_mut().for_each(&mut *f);
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(&mut *f);
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(|g| for_each_tensor(g, f));
        }
    }
}

fn first_difference(a: &ModelProto, b: &ModelProto) -> String {
    let (ga, gb) = (a.graph.as_ref().unwrap(), b.graph.as_ref().unwrap());
    for (x, y) in ga.node.iter().zip(&gb.node) {
        if x.encode_to_vec() != y.encode_to_vec() {
            return format!("node {x:?}\nagainst {y:?}");
        }
    }
    for (x, y) in ga.initializer.iter().zip(&gb.initializer) {
        if x.encode_to_vec() != y.encode_to_vec() {
            return format!("initializer {:?} {:?} against {:?} {:?}", x.name, x.dims, y.name, y.dims);
        }
    }
    for (x, y) in [(&ga.input, &gb.input), (&ga.output, &gb.output), (&ga.value_info, &gb.value_info)] {
        if x != y {
            return format!("{:?}", x.iter().zip(y).find(|(p, q)| p != q));
        }
    }
    let bare = |m: &ModelProto| ModelProto { graph: None, ..m.clone() };
    format!("{:?}\nagainst {:?}", bare(a), bare(b))
}

/// Checks one file; `external` in a second pass. Returns why it differs.
fn check(path: &Path, out: &Path) -> Result<(), String> {
    let original = ModelProto::decode(std::fs::read(path).unwrap().as_slice()).map_err(|e| e.to_string())?;
    let model = load(path, &LoadOptions::default()).map_err(|e| e.to_string())?;
    let external = original.graph.iter().flat_map(|g| &g.initializer).any(|t| !t.external_data.is_empty());
    let bytes = to_bytes(&model).map_err(|e| e.to_string())?;
    if !external && bytes != original.encode_to_vec() {
        return Err(first_difference(&original, &ModelProto::decode(&*bytes).unwrap()));
    }
    if bytes.len() < 2048 {
        return Ok(()); // nothing in it is large: two thousand such files need not go through the disk
    }
    save(&model, out, &SaveOptions::default()).map_err(|e| e.to_string())?;
    let written = ModelProto::decode(std::fs::read(out).unwrap().as_slice()).unwrap();
    if written.encode_to_vec() != bytes {
        return Err("save and to_bytes differ".into());
    }
    let options = SaveOptions { external_data: true, ..Default::default() };
    save(&model, out, &options).map_err(|e| e.to_string())?;
    let again = load(out, &LoadOptions::default()).map_err(|e| e.to_string())?;
    let (mut a, mut b) =
        (ModelProto::decode(&*bytes).unwrap(), ModelProto::decode(&*to_bytes(&again).unwrap()).unwrap());
    let mut large = 0;
    for m in [&mut a, &mut b] {
        for_each_tensor(m.graph.as_mut().unwrap(), &mut |t| {
            inline(t);
            // typed fields move to raw data when they move to another file
            if let Some(raw) = &t.raw_data {
                large += usize::from(raw.len() >= 1024);
            }
            if !t.float_data.is_empty() {
                t.raw_data =
                    Some(t.float_data.drain(..).flat_map(f32::to_le_bytes).collect::<Vec<_>>().into());
            }
            if !t.int64_data.is_empty() {
                t.raw_data =
                    Some(t.int64_data.drain(..).flat_map(i64::to_le_bytes).collect::<Vec<_>>().into());
            }
        });
    }
    if a.encode_to_vec() != b.encode_to_vec() {
        return Err(format!("through external data: {}", first_difference(&a, &b)));
    }
    let data = out.with_extension("onnx.data");
    if data.exists() != (large > 0) && large > 0 {
        return Err("large tensors stayed in the model file".into());
    }
    let _ = std::fs::remove_file(data);
    Ok(())
}

fn check_all(paths: &[PathBuf]) {
    let dir = tempfile::tempdir().unwrap();
    let failed: Vec<String> = paths
        .iter()
        .filter_map(|path| {
            check(path, &dir.path().join("out.onnx")).err().map(|e| format!("{}: {e}", path.display()))
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        paths.len(),
        failed[..failed.len().min(20)].join("\n")
    );
}

#[test]
fn fixtures_come_back_as_they_were() {
    let mut paths = vec![];
    models_below(&root().join("fixtures"), &mut paths);
    assert!(paths.len() >= 2, "{paths:?}");
    check_all(&paths);
}

/// Real models, the light models and the models of the ONNX node tests.
#[test]
#[ignore = "needs the models that scripts/setup fetches"]
fn cached_models_come_back_as_they_were() {
    let cache = std::env::var_os("FCC_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from);
    let mut paths = vec![];
    for part in ["models", "node", "simple"] {
        models_below(&cache.join(part), &mut paths);
    }
    assert!(paths.len() > 1800, "{} models in {}", paths.len(), cache.display());
    check_all(&paths);
}
