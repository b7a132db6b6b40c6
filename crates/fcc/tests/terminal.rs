//! What a model calls its things reaches a terminal only as printable text.
mod common;
use common::{fcc, text_file};
use fcc_ir::is_hidden;

/// Names, symbols, an operator and texts that colour, reorder, hide, ring, and forge a line of fcc's.
const HOSTILE: &str = r#"<ir_version: 8, opset_import: ["" : 17, b"d\x1b[31m" : 1], producer_name: b"p\xe2\x80\xaer",
  doc_string: b"\x1b]0;title\x07", metadata_props: [b"k\xe2\x80\x8b" : b"v\x0dx"]>
b"g\x1b[2J" (float[b"batch\xe2\x80\xae\x1b[1m", 2] b"x\xe2\x80\xae\x07") => (float[b"batch\xe2\x80\xae\x1b[1m", 2] b"y\x0aFORGED") <
  float[2,2] b"w\xc2\x9b" = {1.0, 2.0, 3.0, 4.0}
> {
  [b"n\x0aFORGED\xe2\x81\xa6"] b"h\xef\xbb\xbf" = MatMul (b"x\xe2\x80\xae\x07", b"w\xc2\x9b")
  [b"c\x09d\xd8\x9c"] b"t\xe2\x80\x8f" = CumSum (b"h\xef\xbb\xbf", b"axis\x7f")
  b"axis\x7f" = Constant <value_int = 1> ()
  [b"r\xf3\xa0\x81\x81"] b"y\x0aFORGED" = Relu (b"t\xe2\x80\x8f")
}
"#;

/// Every character is printable, and no line is one that the model made up.
fn check(what: &str, text: &str) {
    let hidden: Vec<char> = text.chars().filter(|c| *c != '\n' && is_hidden(*c)).collect();
    assert!(hidden.is_empty(), "{what}: {hidden:?} in {text}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")), "{what}: {text}");
}

#[test]
fn every_command_prints_printable_text() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "m.onnxtxt", HOSTILE);
    let model = model.to_str().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (out, report, trace) = (at("out.onnx"), at("report.json"), at("trace.json"));
    let set = ["--set", "batch\u{202e}\u{1b}[1m=2"];
    let random = |args: &[&'static str]| -> Vec<String> {
        let mut all = vec![args[0].to_string(), model.to_string()];
        all.extend(args[1..].iter().chain(&["--random", "1"]).chain(&set).map(|a| a.to_string()));
        all
    };
    let plain = |args: &[&str]| -> Vec<String> { args.iter().map(|a| a.to_string()).collect() };
    let commands = [
        plain(&["print", model]),
        plain(&["print", model, "--constants"]),
        plain(&["summary", model]),
        random(&["run", "--engine", "interpreter"]),
        random(&["run"]),
        random(&["explain"]),
        random(&["explain", "--plan"]),
        random(&["profile", "--runs", "1"]),
        random(&["bench", "--runs", "1"]),
        plain(&["rewrite", model, "-o", &out, "--report", &report, "--prove"]),
        plain(&["rewrite", model, "-o", &out, "--rule", "linear-to-pointwise-conv", "--verify"]),
        // errors
        plain(&["run", model, "--random", "1"]),
        plain(&["run", model]),
        plain(&["run", model, "--input", "x\u{1b}=a.npy"]),
        plain(&["summary", model, "--set", "nosuch\u{202e}=1"]),
        plain(&["summary", &at("no\u{1b}such\nFORGED.onnx")]),
        plain(&["no\u{1b}command"]),
    ];
    for (n, args) in commands.iter().enumerate() {
        let answer = fcc(args);
        check(&format!("{args:?}"), &answer.stdout);
        check(&format!("{args:?}"), &answer.stderr);
        assert_eq!(answer.code, if n < 11 { 0 } else { 2 }, "{args:?}: {}{}", answer.stdout, answer.stderr);
    }
    // as JSON, the names are whole
    for args in [
        plain(&["summary", model, "--json"]),
        random(&["explain", "--json"]),
        random(&["profile", "--runs", "1", "--json"]),
        plain(&["rewrite", model, "-o", &out, "--json"]),
    ] {
        let answer = fcc(&args).ok();
        check(&format!("{args:?}"), &answer.stdout);
        assert!(answer.json().to_string().contains("FORGED"), "{args:?}: {}", answer.stdout);
    }
    let mut traced = random(&["profile", "--runs", "1", "--trace"]);
    traced.insert(5, trace.clone());
    fcc(traced).ok();
    for file in [report, trace] {
        let text = std::fs::read_to_string(file).unwrap();
        check("a file", &text);
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().to_string().contains("FORGED"));
    }
}

#[test]
fn printed_models_are_printable_and_read_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "m.onnxtxt", HOSTILE);
    let text = fcc(["print", model.to_str().unwrap(), "--constants"]).ok().stdout;
    check("print", &text);
    let (first, second) = (fcc_ir::text::parse(HOSTILE).unwrap(), fcc_ir::text::parse(&text).unwrap());
    fcc_ir::text::same(&first, &second).unwrap();
    assert_eq!(second.producer_name, "p\u{202e}r");
}
