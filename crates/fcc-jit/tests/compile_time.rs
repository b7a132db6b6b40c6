//! Compiling takes time in proportion to the model: a part that is quadratic makes the longer chain stand out.
use fcc_jit::{Options, compile};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// The layers of the short chain, and how many times as many the long one has.
const SHORT: usize = 200;
const TIMES: usize = 8;

/// `Softmax` layers whose results all live to the end, where each is added up.
fn chain(layers: usize) -> String {
    let mut body = String::new();
    for i in 0..layers {
        let before = if i == 0 { "x".to_string() } else { format!("s{}", i - 1) };
        let _ = writeln!(body, "  s{i} = Softmax ({before})");
    }
    for i in (0..layers).rev() {
        let before = if i + 1 == layers { format!("s{i}") } else { format!("z{}", i + 1) };
        let _ = writeln!(body, "  a{i} = Add ({before}, s{i})");
        let _ = writeln!(body, "  z{i} = Softmax (a{i})");
    }
    format!(
        "<ir_version: 8, opset_import: [\"\" : 17]>\nchain (float[4,16] x) => (float[4,16] z0)\n{{\n{body}}}\n"
    )
}

/// The least of three tries, from text to plan.
fn time(layers: usize) -> Duration {
    let text = chain(layers);
    let once = || {
        let start = Instant::now();
        let model = fcc_ir::text::parse(&text).expect("text");
        fcc_ir::verify::verify(&model).expect("valid");
        let compiled = compile(&model, &Options::with_threads(1)).expect("compiles");
        let types = [Some(compiled.inputs()[0].ty.clone())];
        assert_eq!(compiled.plan(&types).expect("a plan").step_count(), 3 * layers);
        start.elapsed()
    };
    (0..3).map(|_| once()).min().expect("three")
}

#[test]
fn compiling_is_linear_in_the_number_of_layers() {
    let (short, long) = (time(SHORT), time(SHORT * TIMES));
    // quadratic would be TIMES * TIMES; a machine that others use may double a time
    let most = short * (TIMES * 3) as u32;
    assert!(
        long < most,
        "{SHORT} layers took {short:?}, {TIMES} times as many {long:?}, wanted below {most:?}"
    );
}
