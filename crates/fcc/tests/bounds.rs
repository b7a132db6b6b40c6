//! Small hostile files (`docs/limits.md`): every command ends with an answer or one line of error in a process that may
//! have 4 GiB of address space. Without its bound each of these aborts, panics, or does not end.
mod common;
use common::text_file;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

const HEAD: &str = "<ir_version: 9, opset_import: [\"\" : 20, \"com.foo\" : 1]>\n";

/// Runs `fcc COMMAND` in a process with 4 GiB of address space. Panics unless it answers: exit code 0 or 1, or 2 with
/// one line.
fn answers(arguments: &[&str]) -> String {
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 4194304; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_fcc")])
        .args(arguments)
        .output()
        .expect("sh starts");
    let answer = common::answer(&output, &arguments.join(" "));
    assert!(answer.code <= 2, "{arguments:?}: {}", answer.stderr);
    assert!(answer.stderr.len() < 5000, "{arguments:?}: {} bytes of errors", answer.stderr.len());
    answer.stdout + &answer.stderr
}

/// What every command says of a model, `rewrite` last.
fn all_commands(folder: &Path, source: &str) -> Vec<String> {
    let path = text_file(folder, "m.onnxtxt", &format!("{HEAD}{source}"));
    let (path, out) = (path.to_str().unwrap(), folder.join("out.onnx"));
    let set = ["--set", "N=7"];
    let with_set = |first: &[&'static str]| -> Vec<String> {
        let mut all: Vec<String> = first.iter().map(|s| s.to_string()).collect();
        all.insert(1, path.to_string());
        if source.contains("[N") {
            all.extend(set.map(String::from));
        }
        all
    };
    let calls = [
        with_set(&["print"]),
        with_set(&["summary"]),
        with_set(&["explain", "--random", "1"]),
        with_set(&["run", "--random", "1"]),
        vec!["rewrite".into(), path.into(), "-o".into(), out.to_str().unwrap().into()],
    ];
    let strs = |call: &Vec<String>| answers(&call.iter().map(String::as_str).collect::<Vec<_>>());
    calls.iter().map(strs).collect()
}

fn last(source: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    all_commands(folder.path(), source).pop().unwrap()
}

#[test]
fn vectors_and_texts_that_double() {
    let mut body = String::from("s = Shape(x) c0 = Concat<axis = 0>(s, s)\n");
    (0..34).for_each(|i| writeln!(body, "c{} = Concat<axis = 0>(c{i}, c{i})", i + 1).unwrap());
    last(&format!("g (float[N] x) => (y) {{ {body} y = Identity(c34) }}"));
    let mut body = String::from("c0 = Constant<value_string = \"abcdefgh\">()\n");
    (0..34).for_each(|i| writeln!(body, "c{} = StringConcat(c{i}, c{i})", i + 1).unwrap());
    last(&format!("g () => (y) {{ {body} y = Identity(c34) }}"));
}

#[test]
fn shared_expressions_and_products_of_sums() {
    let mut body = String::from("h = Shape(x) one = Constant<value_ints = [1]>() d0 = Add(h, one)\n");
    for i in 0..60 {
        writeln!(body, "e{i} = Add(d{i}, one) d{} = Div(d{i}, e{i})", i + 1).unwrap();
    }
    last(&format!("g (float[N] x) => (y) {{ {body} y = Identity(d60) }}"));
    let inputs: Vec<String> = (0..40).map(|i| format!("float[N{i}] x{i}")).collect();
    let mut body = String::from("one = Constant<value_ints = [1]>() p0 = Identity(one)\n");
    for i in 0..40 {
        writeln!(body, "s{i} = Shape(x{i}) t{i} = Add(s{i}, one) p{} = Mul(p{i}, t{i})", i + 1).unwrap();
    }
    let source = format!("g ({}) => (y) {{ {body} y = Identity(p40) }}", inputs.join(", "));
    let folder = tempfile::tempdir().unwrap();
    let path = text_file(folder.path(), "m.onnxtxt", &format!("{HEAD}{source}"));
    for command in ["print", "summary"] {
        assert!(answers(&[command, path.to_str().unwrap()]).len() < 200_000);
    }
}

#[test]
fn extents_around_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let huge = "4611686018427387904";
    let ops = [
        "y = Transpose(x)",
        "y = Relu(x)",
        "y = ReduceSum(x)",
        "y = Softmax(x)",
        "y = Concat<axis = 1>(x, x)",
        "y = MatMul(x, x)",
        "y = Flatten(x)",
        "y = CumSum(x, a) a = Constant<value_int = 1>()",
        "y = Pad<mode = \"reflect\">(x, p) p = Constant<value_ints = [0, 1, 0, 1]>()",
        "y = Pad<mode = \"wrap\">(x, p) p = Constant<value_ints = [0, 1099511627776, 0, 1]>()",
        "y = Resize(x, , s) s = Constant<value_floats = [1.0, 1000000000000.0]>()",
        "y = TopK(x, k) k = Constant<value_ints = [1]>()",
        "y = Tile(x, r) r = Constant<value_ints = [1099511627776, 1099511627776]>()",
        "y = NonZero(x)",
        "y = Einsum<equation = \"ij,kj->ik\">(x, x)",
    ];
    for shape in
        [format!("0,{huge}"), format!("{huge},0"), "1048576,0".into(), "0,1048576".into(), "2,3".into()]
    {
        for op in ops {
            all_commands(folder.path(), &format!("g (float[{shape}] x) => (y) {{ {op} }}"));
        }
    }
}

#[test]
fn sizes_out_of_all_proportion() {
    let folder = tempfile::tempdir().unwrap();
    let sources = [
        // seeded inputs
        "g (float[1099511627776] x) => (y) { y = Abs(x) }",
        "g (string[1073741824] x) => (y) { y = Identity(x) }",
        // what a node asks for
        "g () => (y) { s = Constant<value_ints = [1099511627776]>() y = ConstantOfShape(s) }",
        "g () => (y) { a = Constant<value_int = 0>() b = Constant<value_int = 4611686018427387904>()
           c = Constant<value_int = 1>() y = Range(a, b, c) }",
        "g (int64[2] x) => (y) { d = Constant<value_int = 1099511627776>() v = Constant<value_floats = [0.0, 1.0]>()
           y = OneHot(x, d, v) }",
        "g (float[1,1,3] x, float[1,1,2] w) => (y) { y = Conv<pads = [4611686018427387904, 0]>(x, w) }",
        "g (float[1,1,3] x) => (y) { y = MaxPool<kernel_shape = [1099511627776], pads = [1099511627776, 0]>(x) }",
        "g (float[1,3,1] x) => (y) { n = Constant<value_int = 4611686018427387904>() y = DFT(x, n) }",
        "g () => (y) { n = Constant<value_int = 1099511627776>() y = HannWindow(n) }",
        "g (float[2] x) => (y) { y = CenterCropPad<axes = [0]>(x, s) s = Constant<value_ints = [1099511627776]>() }",
    ];
    for source in sources {
        all_commands(folder.path(), source);
    }
}

#[test]
fn a_verification_is_bounded() {
    let unknown = last("g (float[n,h,w,c] x) => (float[n,h,w,c] y) { y = com.foo.Bar(x) }");
    assert!(unknown.contains("not verified: the original does not run"), "{unknown}");
    let large = last(
        "g (float[n,c,t,h,w] x) => (y) { k = Constant<value = float[2,4,1,1,1]{1,2,3,4,5,6,7,8}>() y = Conv(x, k) }",
    );
    assert!(large.contains("not verified"), "{large}");
    // inputs of 1 GiB and 8 bytes: only `rewrite`, the other commands would do as they are told
    let folder = tempfile::tempdir().unwrap();
    let path = text_file(
        folder.path(),
        "m.onnxtxt",
        &format!("{HEAD}g (double[134217729] x) => (y) {{ y = Abs(x) }}"),
    );
    let held =
        answers(&["rewrite", path.to_str().unwrap(), "-o", folder.path().join("o.onnx").to_str().unwrap()]);
    assert!(held.contains("a comparison in more than 1024 MiB"), "{held}");
}

#[test]
fn a_hundred_bodies_share_the_address_space() {
    let mut body = String::from("h0 = Relu(x)\n");
    for i in 0..60 {
        writeln!(
            body,
            "h{} = If(c) <then_branch = a{i} () => (p{i}) {{ p{i} = Relu(h{i}) }},
                          else_branch = b{i} () => (q{i}) {{ q{i} = Neg(h{i}) }}>",
            i + 1
        )
        .unwrap();
    }
    let said = all_commands(
        tempfile::tempdir().unwrap().path(),
        &format!("g (bool c, float[2] x) => (y) {{ {body} y = Relu(h60) }}"),
    );
    let interpreted = "reserving code memory";
    assert!(said.iter().all(|s| !s.contains(interpreted)), "{said:?}");
}

#[test]
fn a_message_is_no_list_of_a_million_numbers() {
    let said = last("g (int64[1048576] x) => (y) { y = ConstantOfShape(x) }");
    assert!(said.len() < 5000, "{} bytes", said.len());
}
