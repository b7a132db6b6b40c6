//! `--tune`: the file of choices as the command line reads and writes it.
mod common;
use common::{fcc, names, text_file};
use std::path::Path;

const NET: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
g (float[batch,8] x) => (float[batch,4] y)
<float[8,4] w = {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,-1,-2,-3,-4,-5,-6,-7,-8,1,0,1,0,1,0,1,0}>
{ y = MatMul (x, w) }"#;

/// `fcc COMMAND MODEL --tune FILE …` on one thread.
fn tuned(command: &str, model: &Path, file: &Path, more: &[&str]) -> common::Answer {
    let (model, file) = (model.to_str().unwrap(), file.to_str().unwrap());
    let args = [command, model, "--random", "1", "--set", "batch=3", "--threads", "1", "--tune", file];
    fcc(args.iter().chain(more))
}

#[test]
fn the_file_is_made_once_and_used_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (text_file(dir.path(), "net.onnxtxt", NET), dir.path().join("choices.txt"));
    let plain =
        fcc(["run", model.to_str().unwrap(), "--random", "1", "--set", "batch=3", "--threads", "1"]).ok();
    let first = tuned("run", &model, &file, &[]).ok();
    assert_eq!((first.stdout, first.stderr), (plain.stdout, String::new()));
    assert_eq!(names(dir.path()), ["choices.txt", "net.onnxtxt"]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(&format!("fcc choices {}\nmachine ", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(text.contains(" 1 f32 | plan of 1 operators "), "{text}");
    assert!(text.contains(" 1 f32 | gemm 3x4x8 | direct "), "{text}");
    for (command, more) in [("bench", &["--runs", "1"][..]), ("profile", &["--runs", "1"]), ("explain", &[])]
    {
        tuned(command, &model, &file, more).ok();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "{command}");
    }
    let explained = tuned("explain", &model, &file, &[]).ok().stdout;
    assert!(explained.contains("\ntuned, each problem once\n"), "{explained}");
    let json = tuned("explain", &model, &file, &["--json"]).ok().json();
    let step = &json["steps"][0];
    assert!(step["why"].as_str().unwrap().starts_with("tuned: "), "{step}");
    assert!(step["tuned"]["way"].as_str().unwrap().starts_with("direct "), "{step}");
}

#[test]
fn another_size_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (text_file(dir.path(), "net.onnxtxt", NET), dir.path().join("choices.txt"));
    tuned("run", &model, &file, &[]).ok();
    let before = std::fs::read_to_string(&file).unwrap();
    let args = ["run", model.to_str().unwrap(), "--random", "1", "--set", "batch=5", "--threads", "1"];
    fcc(args.iter().chain(&["--tune", file.to_str().unwrap()])).ok();
    let after = std::fs::read_to_string(&file).unwrap();
    assert!(after.contains("gemm 5x4x8") && before.lines().all(|l| after.lines().any(|a| a == l)), "{after}");
}

#[test]
fn files_that_do_not_fit_are_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (text_file(dir.path(), "net.onnxtxt", NET), dir.path().join("choices.txt"));
    tuned("run", &model, &file, &[]).ok();
    let text = std::fs::read_to_string(&file).unwrap();
    let machine = text.lines().nth(1).unwrap();
    for (damaged, why) in [
        (text.replace(machine, "machine PDP-11"), "machine of the choices: got `PDP-11`, wanted "),
        (text.replacen(env!("CARGO_PKG_VERSION"), "0.0.1", 1), "version of the choices: got "),
        (text.replace(" | direct ", " | indirect "), "line 4: got choice `indirect "),
        ("not a table\n".into(), "line 1: got `not a table`, wanted `fcc choices "),
        (String::new(), "line 1: got ``"),
    ] {
        std::fs::write(&file, &damaged).unwrap();
        let refusal = tuned("run", &model, &file, &[]).refusal();
        let message =
            refusal.strip_prefix(&format!("{}: ", file.display())).unwrap_or_else(|| panic!("{refusal}"));
        assert!(message.starts_with(why), "{message}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), damaged);
    }
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(
        tuned("run", &model, &file, &[]).refusal().ends_with("got bytes that are not UTF-8, wanted text")
    );
    // the model itself is no table, and is not written over
    let model_file = tuned("run", &model, &model, &[]).refusal();
    assert!(model_file.contains("--tune: got a file that is read, wanted another"), "{model_file}");
    assert_eq!(std::fs::read_to_string(&model).unwrap(), NET);
}

#[test]
fn a_choice_that_cannot_be_built_is_measured_again() {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (text_file(dir.path(), "net.onnxtxt", NET), dir.path().join("choices.txt"));
    tuned("run", &model, &file, &[]).ok();
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|l| l.contains("gemm")).unwrap();
    let fields: Vec<&str> = line.split(" | ").collect();
    let bad = line.replacen(fields[2], "direct 99x1x2 chunk 8 blocks 1 ahead 0", 1);
    std::fs::write(&file, text.replace(line, &bad)).unwrap();
    // without time the default is used, and the reason shown
    let explained = tuned("explain", &model, &file, &["--tune-seconds", "0"]).ok().stdout;
    assert!(explained.contains("is declined: got a tile of 99x1 pixels by 2 vectors"), "{explained}");
    assert!(std::fs::read_to_string(&file).unwrap().contains("99x1x2"));
    let mended = tuned("run", &model, &file, &[]).ok();
    assert!(
        mended.stderr.contains("is declined: got a tile of 99x1 pixels by 2 vectors"),
        "{}",
        mended.stderr
    );
    assert!(!std::fs::read_to_string(&file).unwrap().contains("99x1x2"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (text_file(dir.path(), "net.onnxtxt", NET), dir.path().join("choices.txt"));
    let missing = tuned("run", &model, &file, &["--tune-seconds", "0"]).refusal();
    assert_eq!(missing, format!("{}: got no such file, wanted one that has been tuned", file.display()));
    let plain = tuned("run", &model, &file, &["--engine", "interpreter"]).refusal();
    assert!(plain.starts_with("--tune: got --engine interpreter, wanted jit"), "{plain}");
    let folder = tuned("run", &model, dir.path(), &[]).refusal();
    assert!(folder.starts_with(&format!("{}: ", dir.path().display())), "{folder}");
    let limit = tuned("run", &model, &file, &["--tune-seconds", "1e9"]).refusal();
    assert!(limit.contains("wanted 0 to 86400 seconds"), "{limit}");
    assert_eq!(names(dir.path()), ["net.onnxtxt"]);
}
