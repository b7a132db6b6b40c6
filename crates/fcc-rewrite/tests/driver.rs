//! The driver: order, limits, hooks, bisection, the report.
mod common;
use common::{Net, assert_same, count, parse, rewrite, rewrite_with};
use fcc_ir::attr::Attrs;
use fcc_ir::interp::Values;
use fcc_ir::{Model, Tensor};
use fcc_rewrite::{Moment, Options, Outcome, Registry, Report, passes};

fn two_layers() -> Model {
    let mut net = Net::new(17, 5);
    let x = net.input("x", &[None, Some(3)]);
    let (w1, w2) = (net.weight("w1", &[3, 4]), net.weight("w2", &[4, 2]));
    let h = net.op("Gemm", "fc1", &[x, w1], Attrs::new());
    let y = net.op("MatMul", "fc2", &[h, w2], Attrs::new());
    net.output(y)
}

#[test]
fn passes_run_in_the_order_given_and_are_shown_before_and_after() {
    let mut seen: Vec<String> = vec![];
    let mut hook = |moment: Moment, number: usize, name: &str, model: &Model| {
        let before = if moment == Moment::Before { "before" } else { "after" };
        seen.push(format!("{before} {number} {name}: {}", common::ops(model).join(" ")));
    };
    let options = Options { hook: Some(&mut hook), ..Options::default() };
    rewrite_with(&two_layers(), &["linear-to-pointwise-conv", "pointwise-conv-to-matmul"], options);
    assert_eq!(
        seen,
        [
            "before 0 linear-to-pointwise-conv: Gemm MatMul",
            "after 0 linear-to-pointwise-conv: Unsqueeze Conv Flatten Unsqueeze Conv Flatten",
            "before 1 cancel-layouts: Unsqueeze Conv Flatten Unsqueeze Conv Flatten",
            "after 1 cancel-layouts: Unsqueeze Conv Conv Flatten",
            "before 2 pointwise-conv-to-matmul: Unsqueeze Conv Conv Flatten",
            "after 2 pointwise-conv-to-matmul: Unsqueeze Flatten MatMul Unsqueeze Flatten MatMul Unsqueeze Flatten",
        ]
    );
}

#[test]
fn stopping_after_a_number_of_rewrites_leaves_the_rest() {
    let (model, report) = rewrite_with(
        &two_layers(),
        &["linear-to-pointwise-conv"],
        Options { stop_after: Some(1), ..Options::default() },
    );
    assert_eq!((count(&model, "Conv"), count(&model, "MatMul")), (1, 1));
    assert_eq!(report.rows.iter().filter_map(|r| r.number).collect::<Vec<_>>(), [1]);
}

#[test]
fn bisection_names_the_rewrite_that_does_it() {
    let steps = passes::named("linear-to-pointwise-conv").unwrap();
    let mut good = |model: &Model| Ok(count(model, "MatMul") == 1);
    let row = passes::bisect(&two_layers(), &steps, &Default::default(), &mut good).unwrap().unwrap();
    assert_eq!((row.node.as_str(), row.number), ("fc2", Some(2)));
    let mut always = |_: &Model| Ok(true);
    assert_eq!(passes::bisect(&two_layers(), &steps, &Default::default(), &mut always).unwrap(), None);
    let mut never = |_: &Model| Ok(false);
    assert!(passes::bisect(&two_layers(), &steps, &Default::default(), &mut never).is_err());
}

#[test]
fn the_report_is_read_back_from_its_json() {
    let (_, report) = rewrite(&two_layers(), &["linear-to-conv"]);
    let again: Report = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(again, report);
    insta::assert_snapshot!(report.to_json());
}

#[test]
fn a_rule_that_finds_nothing_to_do_changes_nothing() {
    let model = parse(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"#,
    );
    let text = |m: &Model| fcc_ir::text::print(m, &fcc_ir::text::PrintOptions::whole());
    for name in passes::names() {
        let (same, report) = rewrite(&model, &[&name]);
        assert_eq!(text(&same), text(&model), "{name}");
        assert!(report.rows.is_empty(), "{name}: {report}");
    }
}

#[test]
fn the_budget_counts_all_rewrites_of_the_run_together() {
    let mut net = Net::new(17, 5);
    let x = net.input("x", &[Some(1), Some(1), Some(8), Some(8)]);
    let (w1, w2) = (net.weight("w1", &[1, 1, 3, 3]), net.weight("w2", &[1, 1, 3, 3]));
    let h = net.op("Conv", "conv1", &[x, w1], Attrs::new());
    let y = net.op("Conv", "conv2", &[h, w2], Attrs::new());
    let model = net.output(y);
    // 64 x 36 and 36 x 16 elements of 4 bytes
    let sizes = [(64 * 36 - 9) * 4, (36 * 16 - 9) * 4];
    for (limit, rewritten) in
        [(sizes[0] + sizes[1], 2), (sizes[0] + sizes[1] - 1, 1), (sizes[0] - 1, 1), (0, 0)]
    {
        let limits = fcc_rewrite::Limits { growth_bytes: limit, ..Default::default() };
        let (_, report) =
            rewrite_with(&model, &["conv-to-toeplitz-gemm"], Options { limits, ..Options::default() });
        let done = report.rows.iter().filter(|r| r.outcome == Outcome::Rewritten).count();
        assert_eq!(done, rewritten, "{limit}\n{report}");
    }
}

#[test]
fn a_weight_of_another_rank_or_a_bias_of_another_length_is_declined_or_refused() {
    let text = |shape: &str| {
        format!(
            r#"<ir_version: 8, opset_import: ["" : 17]>
            main (float[N,1,4] x) => (y) <float{shape} w = {{1, 2}}, float[3] b = {{1, 2, 3}}> {{
                y = Conv(x, w, b)
            }}"#
        )
    };
    for shape in ["[1,1,2,1]", "[2]", "[1,2]", "[1,2,1]", "[2,1,1]"] {
        let mut model = fcc_ir::text::parse(&text(shape)).unwrap();
        for name in ["conv-to-im2col-gemm", "conv-to-toeplitz-gemm", "pointwise-conv-to-matmul"] {
            match fcc_rewrite::run(&mut model, &passes::named(name).unwrap(), Options::default()) {
                Err(e) => assert!(e.to_string().contains("Conv"), "{shape}: {e}"),
                Ok(report) => {
                    assert_eq!(report.rows[0].outcome, Outcome::Declined, "{shape}\n{report}");
                }
            }
        }
    }
}

#[test]
fn a_rule_is_left_out_of_every_pass_that_holds_it() {
    let names = |passes: &[passes::Pass]| -> Vec<String> {
        let rules = |p: &passes::Pass| match &p.kind {
            passes::PassKind::Rules { rules, .. } => {
                rules.iter().map(|r| r.name().to_string()).collect::<Vec<_>>().join(" ")
            }
            passes::PassKind::RemoveUnused => String::new(),
        };
        passes.iter().map(|p| format!("{}: {}", p.name, rules(p))).collect()
    };
    let registry = Registry::builtin();
    let all = registry.passes("default").unwrap();
    let less = registry.without(&all, "linear-to-full-kernel-conv").unwrap();
    assert!(
        names(&less).contains(&"linear-to-conv: linear-to-pointwise-conv".to_string()),
        "{:?}",
        names(&less)
    );
    let less = registry.without(&all, "fold-constants").unwrap();
    assert!(!names(&less).iter().any(|n| n.contains("fold-constants")), "{:?}", names(&less));
    assert_eq!(names(&less).len(), names(&all).len());
    // a group is all of its passes
    let less = registry.without(&all, "clean-up").unwrap();
    assert_eq!(
        less.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
        ["linear-to-conv", "cancel-layouts"]
    );
    assert!(registry.without(&all, "conv-to-im2col-gemm").is_none() && registry.without(&all, "x").is_none());
}

#[test]
fn a_kernel_larger_than_the_target_takes_is_declined_with_its_extents() {
    let mut net = Net::new(17, 5);
    let x = net.input("x", &[None, Some(2), Some(5), Some(3)]);
    let f = net.op("Flatten", "flat", &[x], Attrs::new());
    let w = net.weight("w", &[30, 4]);
    let y = net.op("Gemm", "fc", &[f, w], Attrs::new());
    let model = net.output(y);
    for (kernel, kernels) in [(5, "[5,3]"), (4, "[1,1]")] {
        let limits = fcc_rewrite::Limits { kernel, ..Default::default() };
        let (rewritten, report) =
            rewrite_with(&model, &["linear-to-conv"], Options { limits, ..Options::default() });
        let text =
            fcc_ir::text::print(&rewritten, &fcc_ir::text::PrintOptions::readable()).replace(", ", ",");
        assert!(text.contains(&format!("kernel_shape = {kernels}")), "{text}");
        let declined = report.rows.iter().flat_map(|r| &r.tried).map(|t| t.reason.to_string());
        let want = ["kernel_shape: got [5, 3], need at most 4 in each direction"];
        assert_eq!(declined.collect::<Vec<_>>(), if kernel == 4 { &want[..] } else { &[] });
    }
}

#[test]
fn a_model_whose_values_attributes_name_is_refused() {
    let mut model = fcc_ir::text::parse(
        r#"<ir_version: 8, opset_import: ["" : 17, "ai.onnx.preview.training" : 1]>
        main (float a, float b) => (float c, float da) {
            e = Identity(a)
            c = Add(e, b)
            [grad] da = ai.onnx.preview.training.Gradient<xs = ["e"], y = "c">(e)
        }"#,
    )
    .unwrap();
    let why =
        fcc_rewrite::run(&mut model, &passes::named("default").unwrap(), Options::default()).unwrap_err();
    assert!(why.to_string().contains("grad") && why.to_string().contains("in its attributes"), "{why}");
}

#[test]
fn an_operator_that_is_not_known_is_no_dead_code() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17, "com.foo" : 1, "d" : 1]>
        g (float[N,3] x) => (float[N,3] y) {
          h = Neg (x)  = com.foo.Sink (h)
          dead = Exp (x)
          called = d.writes (x)
          s = com.foo.Source (x)
          shape = Shape (s)
          z = ConstantOfShape (shape)
          y = Abs (x)
        }
        <domain: "d", opset_import: ["" : 17, "com.foo" : 1]> writes (x) => (y) { y = com.foo.Log (x) }"#;
    let (model, _) = rewrite(&parse(text), &["clean-up", "linear-to-conv", "clean-up"]);
    let kept = common::ops(&model);
    assert_eq!(kept, ["Neg", "Sink", "writes", "Source", "Abs"]);
}

#[test]
fn what_only_a_replaced_node_read_stays_if_it_is_not_known() {
    // the file declares the shape, so that Shape is a constant and nothing reads `s` any more
    let text = r#"<ir_version: 8, opset_import: ["" : 17, "com.foo" : 1]>
        g (float[2,3] x) => (float[2,3] y) <float[2,3] s> {
          s = com.foo.Source (x)
          shape = Shape (s)
          y = Reshape (x, shape)
        }"#;
    let (model, _) = rewrite(&parse(text), &["fold-constants", "remove-unused"]);
    assert_eq!(common::ops(&model), ["Source", "Reshape"]);
}

#[test]
fn a_function_that_bears_an_operators_name_changes_nothing() {
    let text = |overload: &str| {
        format!(
            r#"<ir_version: 10, opset_import: ["" : 17]>
            g (float[2,3] x) => (float[2,4] y) <float[3,4] w = {{1,2,3,4,5,6,7,8,9,10,11,12}}> {{ y = Gemm{overload} (x, w) }}
            <domain: "", opset_import: ["" : 17]> Gemm (x, w) => (y) {{ h = MatMul (x, w) y = Neg (h) }}
            <domain: "", overload: "mine", opset_import: ["" : 17]> Gemm (x, w) => (y) {{ h = MatMul (x, w) y = Neg (h) }}"#
        )
    };
    // run and rewritten as the operator
    let model = parse(&text(""));
    let (rewritten, _) = rewrite(&model, &["linear-to-pointwise-conv"]);
    assert_eq!(count(&rewritten, "Conv"), 1);
    let inputs = common::inputs(&model, &mut common::Rng::new(3), &[]);
    common::assert_same(&model, &rewritten, &inputs);
    // run as the function, and no candidate
    let model = parse(&text(":mine"));
    let (rewritten, report) = rewrite(&model, &["linear-to-pointwise-conv"]);
    assert_eq!(common::ops(&rewritten), ["Gemm"]);
    assert!(report.rows.iter().all(|r| r.graph.starts_with("function")), "{report}");
    common::assert_same(&model, &rewritten, &inputs);
}

#[test]
fn a_declared_shape_is_no_law_where_the_axes_come_with_the_run() {
    // the file says [1,2,3]; with axis 1 it is [2,1,3]
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x, int64[1] axis) => (y, z) <float[1,2,3] u, float[2,3] v, float[2,3] y> {
          u = Unsqueeze (x, axis)
          flat = Constant <value_ints = [6]> ()
          v = Reshape (u, flat)
          y = Neg (v)
          s = Unsqueeze (x, axis)
          z = Transpose <perm = [0,2,1]> (s)
        }"#;
    let model = parse(text);
    let (rewritten, _) = rewrite(&model, &["clean-up", "linear-to-conv", "clean-up"]);
    for axis in [0i64, 1, 2] {
        let mut inputs = common::inputs(&model, &mut common::Rng::new(7), &[]);
        inputs.insert("axis".into(), fcc_ir::Tensor::from_i64s([axis]).into());
        common::assert_same(&model, &rewritten, &inputs);
    }
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        g (float[6] x, int64[1] axis) => (y) <float[1,6] u, float[6,1] v> {
          u = Unsqueeze (x, axis)
          back = Constant <value_ints = [-1]> ()
          axes = Constant <value_ints = [1]> ()
          f = Reshape (u, back)
          v = Unsqueeze (f, axis)
          y = Abs (v)
        }"#;
    let model = parse(text);
    let (rewritten, _) = rewrite(&model, &["merge-reshapes"]);
    for axis in [0i64, 1] {
        let mut inputs = common::inputs(&model, &mut common::Rng::new(7), &[]);
        inputs.insert("axis".into(), fcc_ir::Tensor::from_i64s([axis]).into());
        common::assert_same(&model, &rewritten, &inputs);
    }
}

#[test]
fn what_onnx_runtime_runs_it_runs_after_the_rewrite() {
    let reason = |text: &str, rule: &str| {
        let (model, report) = rewrite_with(&parse(text), &[rule], Options::default());
        let row = report.rows.iter().find(|r| r.rule == rule).unwrap();
        (common::ops(&model).join(" "), row.reason.as_ref().map(|r| r.to_string()).unwrap_or_default())
    };
    let product = |ty: &str| {
        format!(
            r#"<ir_version: 8, opset_import: ["" : 17]>
            g ({ty}[N,2] x) => (y) <{ty}[2,3] w = {{1, 2, 3, 4, 5, 6}}> {{ y = MatMul (x, w) }}"#
        )
    };
    let wanted = |got: &str| {
        format!("kernels of ONNX Runtime: got no {got}, need one for each node of the replacement")
    };
    for rule in ["linear-to-pointwise-conv", "linear-to-full-kernel-conv"] {
        let flat = r#"<ir_version: 8, opset_import: ["" : 17]>
            g (double[N,2,3] x) => (y) <double[6,1] w = {1, 2, 3, 4, 5, 6}> { f = Flatten (x) y = MatMul (f, w) }"#;
        let (ops, why) = reason(flat, rule);
        assert_eq!((ops.as_str(), why), ("Flatten MatMul", wanted("Conv of double in opset 17")));
        assert!(reason(&flat.replace("double", "float"), rule).0.contains("Conv"));
    }
    // ONNX Runtime has no product of bfloat16 either: nothing is lost
    let (ops, _) = reason(&product("bfloat16").replace("17", "22"), "linear-to-pointwise-conv");
    assert!(ops.contains("Conv"), "{ops}");
    let conv = |bias: &str, opset: i64| {
        format!(
            r#"<ir_version: 4, opset_import: ["" : {opset}]>
            g (float[N,1,3] x) => (y) <float[1,1,2] w = {{2, 2}}, float[1] b = {{-1}}> {{ y = Conv (x, w{bias}) }}"#
        )
    };
    let (ops, why) = reason(&conv(", b", 6), "conv-to-toeplitz-gemm");
    assert_eq!((ops.as_str(), why), ("Conv", wanted("Add of float in opset 6")));
    assert!(reason(&conv("", 6), "conv-to-toeplitz-gemm").0.contains("MatMul"));
    assert!(reason(&conv(", b", 7), "conv-to-toeplitz-gemm").0.contains("Gemm"));
}

#[test]
fn a_body_that_captures_two_values_which_become_one_is_kept() {
    // either may be captured first
    for sum in ["Add(a, b)", "Add(b, a)"] {
        let model = parse(&format!(
            r#"<ir_version: 8, opset_import: ["" : 17]>
            main (bool c, float[2] x) => (y) {{
                a = Relu(x)
                b = Identity(a)
                y = If(c) <
                    then_branch = t () => (float[2] p) {{ p = {sum} }},
                    else_branch = e () => (float[2] q) {{ n = Neg(b)  q = Add(n, a) }}
                >
            }}"#
        ));
        a_body_stays(&model);
    }
}

fn a_body_stays(model: &Model) {
    let (rewritten, report) = rewrite(model, &["clean-up", "clean-up"]);
    assert_eq!(count(&rewritten, "Identity"), 0, "{report}");
    let text = fcc_ir::text::print(&rewritten, &fcc_ir::text::PrintOptions::whole());
    let again = parse(&text);
    for c in [true, false] {
        let x = Tensor::new([2], vec![-1f32, 3.0]).unwrap();
        let c = Tensor::from_bools([], [c]).unwrap();
        let inputs = Values::from([("c".to_string(), c.into()), ("x".to_string(), x.into())]);
        assert_same(model, &rewritten, &inputs);
        assert_same(model, &again, &inputs);
    }
}
