//! The generator itself, and a fixed part of its cases.
use fcc_ir::Op;
use fcc_testgen::{Options, case, case_of, guarded, open, operators, ops, shrink};
use std::collections::BTreeSet;

/// Cases of the fixed part: as many as a debug build runs in some seconds.
const CASES: u64 = 150;

#[test]
fn every_operator_has_one_generator_or_a_reason() {
    let made: Vec<Op> = ops::all().iter().map(|m| m.op).collect();
    let distinct: BTreeSet<Op> = made.iter().copied().collect();
    assert_eq!(made.len(), distinct.len(), "an operator stands in two tables");
    for op in Op::ALL {
        let name = op.schema().unwrap().name;
        let reason = ops::reason(*op);
        assert!(
            made.contains(op) != reason.is_some(),
            "{name}: a generator or a reason, not both: {reason:?}"
        );
    }
}

#[test]
fn every_generator_makes_its_operator() {
    for maker in ops::all() {
        let schema = maker.op.schema().unwrap();
        let mut refused = vec![];
        let found = (0..60).any(|number| {
            // the newest opset, and the one before the operator was changed last
            let changed = *schema.since.last().unwrap();
            let opset = match (schema.domain, number % 3) {
                ("", 0) => (changed - 1).max(schema.since[0]),
                ("", 1) => schema.since[number as usize / 3 % schema.since.len()],
                _ => 28,
            };
            let (case, made) = case_of(&maker, number, opset);
            refused.extend(made.refused);
            operators(&case.model).contains_key(schema.name)
        });
        assert!(found, "{}: never made; {refused:?}", schema.name);
    }
}

#[test]
fn a_case_is_its_number() {
    for number in 0..20 {
        let (a, b) = (case(number).0, case(number).0);
        assert_eq!(a.model, b.model);
        assert_eq!(format!("{:?}", a.inputs), format!("{:?}", b.inputs));
    }
    assert_ne!(case(1).0.model, case(2).0.model);
}

#[test]
fn the_fixed_part_holds() {
    let failures: Vec<String> = (0..CASES)
        .filter_map(|number| {
            let found = guarded(&case(number).0, &Options { number, ..Options::default() });
            found.err().filter(|f| !open::is_open(f)).map(|f| format!("case {number}: {}: {}", f.kind, f.why))
        })
        .collect();
    assert!(failures.is_empty(), "{}\nagain: cargo xtask fuzz graphs --only N", failures.join("\n"));
}

/// The first case with several nodes, one of which is this operator.
fn with(op: &str) -> fcc_testgen::Case {
    let cases = (0..).map(|number| case(number).0);
    let fits = |c: &fcc_testgen::Case| {
        let found = operators(&c.model);
        found.contains_key(op) && found.values().sum::<usize>() > 4
    };
    cases.into_iter().find(fits).unwrap()
}

#[test]
fn a_failing_case_shrinks_to_the_node_that_fails() {
    let fails = |c: &fcc_testgen::Case| operators(&c.model).contains_key("Add");
    let small = shrink(&with("Add"), 500, &mut |c| {
        fails(c) && guarded(c, &Options { only: Some("none".into()), number: 0 }).is_ok()
    });
    let graph = small.model.graph.as_ref().unwrap();
    assert!(fails(&small));
    assert_eq!((graph.node.len(), graph.output.len()), (1, 1), "{graph:?}");
    let elems: usize = small.inputs.values().map(|v| v.as_tensor().unwrap().len()).sum();
    assert!(elems <= 4, "{elems} elements are left");
}

#[test]
fn a_written_case_is_read_back() {
    let folder = std::env::temp_dir().join(format!("fcc-testgen-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for number in 0..10 {
        let (case, _) = case(number);
        let path = folder.join(format!("{number}.onnxtxt"));
        fcc_testgen::write(&case, &path).unwrap();
        let again = fcc_testgen::read(&path).unwrap();
        assert_eq!(format!("{:?}", again.inputs), format!("{:?}", case.inputs));
        assert_eq!(operators(&again.model), operators(&case.model));
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A case that was found and shrunk: the model and its inputs as text.
fn found(model: &str, inputs: &str) -> fcc_testgen::Case {
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("fcc-testgen-found-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("found.onnxtxt");
    let head =
        |opset: u32| format!("<ir_version: 10, opset_import: [\"\" : {opset}, \"com.microsoft\" : 1]>\n");
    std::fs::write(&path, head(22) + model).unwrap();
    std::fs::write(folder.join("found.inputs.onnxtxt"), head(22) + inputs).unwrap();
    let case = fcc_testgen::read(&path).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    case
}

fn holds(model: &str, inputs: &str) {
    let failure = guarded(&found(model, inputs), &Options::default()).err();
    assert_eq!(failure, None, "{model}");
}

/// A function may flush a denormal number, and 0 / 0 is NaN.
#[test]
fn a_quotient_of_flushed_numbers_is_no_failure() {
    holds(
        "main (float[1,2,1,7] x) => (y) { s = Sigmoid (x) y = Div (s, s) }",
        "inputs () => (float[1,2,1,7] x) <
           float[1,2,1,7] x = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -100.0}
         > { }",
    );
}

/// A product that overflows when it is rounded and not when it is fused with its sum, two nodes behind the number.
#[test]
fn a_fused_product_that_does_not_overflow_is_no_failure() {
    let case = found(
        "main (float[1,2,9,8] x) => (y) <
           float[8,2] w = {1.5, 6.875, 3.5, inf, 0.5, 1e-45, -0.0, 0.25, 7.5, -5.625, 5.0, -0.0, 5.5, -8.25, inf, -6.5}
         > { p = LpPool <kernel_shape = [7, 1], p = 1> (x) y = MatMul (p, w) }",
        &format!(
            "inputs () => (float[1,2,9,8] x) < float[1,2,9,8] x = {{{}4.5, 1.25, -5.5, -3.5, 3.4028235e38, 6.5{}}} > {{ }}",
            "0.0, ".repeat(120),
            ", 0.0".repeat(18)
        ),
    );
    // 1.25 * inf + 3.4e38 * -5.625: NaN if the product overflows, else infinity
    let (_, bounds) = fcc_testgen::expected(&case).unwrap();
    assert!([7, 9, 11].iter().all(|&i| bounds[0][0][i] == f64::INFINITY), "{bounds:?}");
    assert_eq!(guarded(&case, &Options::default()).err(), None);
}

/// Tokens of which there are none: a product, and no Conv.
#[test]
fn a_run_without_tokens_is_no_failure_of_the_rewrite() {
    holds(
        "main (float[N,1,T,3] x) => (y) <float[3,2] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}> { y = MatMul (x, w) }",
        "inputs () => (float[6,1,0,3] x) <float[6,1,0,3] x = {}> { }",
    );
}
