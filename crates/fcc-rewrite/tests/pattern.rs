//! Patterns of several nodes and values, and registries that a caller adds to.
mod common;
use common::{Rng, assert_same, inputs, ops, parse};
use fcc_ir::attr::Attrs;
use fcc_ir::{Model, Op, Tensor};
use fcc_rewrite::pattern::{PatternRule, absent, any, constant, num, op, op_in, op_named};
use fcc_rewrite::registry::{Pipeline, Step};
use fcc_rewrite::{Declined, Options, Registry, Report};
use std::f64::consts::SQRT_2;

fn apply(model: &Model, rule: PatternRule) -> (Model, Report) {
    let mut registry = Registry::empty();
    registry.add_rule(rule).unwrap();
    let name = registry.names().next().unwrap().to_string();
    let mut copy = model.clone();
    let report = fcc_rewrite::run(&mut copy, &registry.passes(&name).unwrap(), Options::default()).unwrap();
    (copy, report)
}

fn gelu() -> PatternRule {
    let x = any("x");
    let erf = op(Op::Erf, [&x / SQRT_2]).or(op(Op::Erf, [&x * (1.0 / SQRT_2)]));
    let doc = "`x * 0.5 * (1 + Erf(x / sqrt(2))) => Gelu(x)`";
    PatternRule::new("gelu", doc, &x * 0.5 * (erf + 1.0))
        .build(|m, b| b.op("Gelu", "gelu", &[m.value("x")?], Attrs::new()))
}

fn of_x(body: &str) -> Model {
    parse(&format!(
        r#"<ir_version: 9, opset_import: ["" : 20]>
        main (float[2,3] x) => (y) <float half = {{0.5}}, float one = {{1}}, float root = {{1.4142135}}, float inv = {{0.70710677}}> {{ {body} }}"#
    ))
}

#[test]
fn gelu_is_found_in_every_order_and_grouping() {
    let erf = ["e = Div(x, root)  f = Erf(e)", "e = Mul(inv, x)  f = Erf(e)", "e = Mul(x, inv)  f = Erf(e)"];
    let sum = ["s = Add(f, one)", "s = Add(one, f)"];
    let product = [
        "h = Mul(x, half)  y = Mul(h, s)",
        "h = Mul(x, s)  y = Mul(h, half)",
        "h = Mul(s, half)  y = Mul(x, h)",
        "h = Mul(half, s)  y = Mul(h, x)",
        "h = Mul(s, x)  y = Mul(half, h)",
    ];
    for erf in erf {
        for sum in sum {
            for product in product {
                let (made, report) = apply(&of_x(&format!("{erf} {sum} {product}")), gelu());
                assert_eq!(ops(&made), ["Gelu"], "{erf} {sum} {product}\n{report}");
            }
        }
    }
}

#[test]
fn a_near_miss_says_which_value_is_in_the_way() {
    let cases = [
        ("e = Div(x, one)  f = Erf(e)  s = Add(f, one)  h = Mul(x, half)  y = Mul(h, s)", "constant `one`"),
        (
            "e = Div(x, root)  f = Erf(e)  s = Add(f, half)  h = Mul(x, half)  y = Mul(h, s)",
            "constant `half`",
        ),
        ("n = Neg(x)  e = Div(n, root)  f = Erf(e)  s = Add(f, one)  h = Mul(x, half)  y = Mul(h, s)", "`n`"),
    ];
    for (body, what) in cases {
        let (made, report) = apply(&of_x(body), gelu());
        assert!(!ops(&made).contains(&"Gelu".to_string()), "{body}");
        let reasons: Vec<String> =
            report.rows.iter().flat_map(|r| &r.reason).map(Declined::to_string).collect();
        assert!(reasons.iter().any(|r| r.contains(what)), "{body}: {reasons:?}");
    }
}

#[test]
fn a_product_of_other_things_is_no_candidate() {
    let (_, report) = apply(&of_x("h = Mul(x, half)  y = Mul(h, x)"), gelu());
    assert!(report.rows.is_empty(), "{report}");
}

#[test]
fn a_call_of_a_function_of_the_operators_name_is_no_match() {
    // the opset has Relu and no Gelu: the first is the operator, the second a call
    let model = parse(
        r#"<ir_version: 9, opset_import: ["" : 17]>
        main (float[2] x) => (y, z) { a = Relu(x)  y = Relu(a)  b = Gelu(x)  z = Gelu(b) }
        <domain: "", opset_import: ["" : 17]> Relu (v) => (w) { w = Neg(v) }
        <domain: "", opset_import: ["" : 17]> Gelu (v) => (w) { w = Neg(v) }"#,
    );
    let twice = |o| op(o, [op(o, [any("x")])]);
    let rule = PatternRule::new("twice", "`f(f(x)) => Relu(x)`", twice(Op::Gelu).or(twice(Op::Relu)))
        .build(|m, b| b.op("Relu", "relu", &[m.value("x")?], Attrs::new()));
    let (made, report) = apply(&model, rule);
    assert_eq!(ops(&made), ["Relu", "Gelu", "Gelu"], "{report}");
}

/// `MatMul(x, v), MatMul(x, w) => Split(MatMul(x, [v w]))`
fn merge_products() -> PatternRule {
    let x = any("x");
    let product = |w: &str| op(Op::MatMul, [x.clone(), constant(w)]);
    PatternRule::new("merge-products", "`x @ v, x @ w => Split(x @ [v w])`", product("v"))
        .root(product("w"))
        .check(|_, m| match (m.tensor("v")?.shape(), m.tensor("w")?.shape()) {
            ([a, _], [b, _]) if a == b => Ok(()),
            (a, b) => Err(Declined::new("weights", format!("{a:?} and {b:?}"), "matrices of as many rows")),
        })
        .build_all(|m, b| {
            let (v, w) = (m.tensor("v")?, m.tensor("w")?);
            let (rows, n, k) = (v.shape()[0], v.shape()[1], w.shape()[1]);
            let (p, q) = (v.as_slice::<f32>()?.to_vec(), w.as_slice::<f32>()?.to_vec());
            let joined: Vec<f32> =
                (0..rows).flat_map(|r| [&p[r * n..(r + 1) * n], &q[r * k..(r + 1) * k]].concat()).collect();
            let joined = b.constant("joined", Tensor::new([rows, n + k], joined)?)?;
            let y = b.matmul(m.value("x")?, joined)?;
            let (n, k) = (n as i64, k as i64);
            Ok(vec![b.slice(y, &[0], &[n], &[1], &[1])?, b.slice(y, &[n], &[n + k], &[1], &[1])?])
        })
}

#[test]
fn two_products_that_share_an_input_become_one() {
    for outputs in ["p, q", "q, p", "q, p, z"] {
        let text = format!(
            r#"<ir_version: 9, opset_import: ["" : 17]>
            main (float[N,2] x) => ({outputs}) <float[2,3] v = {{1,2,3,4,5,6}}, float[2,2] w = {{-1,-2,-3,7}}> {{
                p = MatMul(x, v)
                z = Neg(p)
                q = MatMul(x, w)
            }}"#
        );
        let model = parse(&text);
        let (made, report) = apply(&model, merge_products());
        assert_eq!(ops(&made).iter().filter(|o| *o == "MatMul").count(), 1, "{report}");
        let mut rng = Rng::new(7);
        for n in [0, 1, 3] {
            assert_same(&model, &made, &inputs(&model, &mut rng, &[("N", n)]));
        }
    }
}

#[test]
fn products_that_lead_to_each_other_are_not_joined() {
    // the second product's input is the first's result, and both read y
    let model = parse(
        r#"<ir_version: 9, opset_import: ["" : 17]>
        main (float[2,2] x) => (q) <float[2,2] v = {1,2,3,4}> {
            p = Add(x, v)
            q = Add(p, v)
        }"#,
    );
    let rule = PatternRule::new("both", "`a + v, b + v`", op(Op::Add, [any("a"), constant("v")]))
        .root(op(Op::Add, [any("b"), constant("v")]))
        .build_all(|m, b| {
            let v = m.value("v")?;
            Ok(vec![b.add(m.value("a")?, v)?, b.add(m.value("b")?, v)?])
        });
    let (made, report) = apply(&model, rule);
    let reason = report.rows[0].reason.as_ref().unwrap().to_string();
    assert!(reason.contains("none of them leads to"), "{reason}");
    assert_eq!(ops(&made), ["Add", "Add"]);
}

#[test]
fn single_use_attributes_and_absent_inputs_are_conditions() {
    let model = parse(
        r#"<ir_version: 9, opset_import: ["" : 17, "com.foo" : 1]>
        main (float[2,3] x, float high) => (y, z, c, d, f) {
            a = Transpose<perm = [1, 0]>(x)
            y = Neg(a)
            z = Abs(a)
            b = Transpose(x)
            c = Neg(b)
            e = Clip(x, , high)
            d = Neg(e)
            g = com.foo.Bar(x)
            f = Neg(g)
        }"#,
    );
    let fires = |inner| {
        let rule =
            PatternRule::new("r", "`Neg(f(x)) => Mul(f(x), -1)`", op(Op::Neg, [inner])).build(|m, b| {
                let minus = b.constant("minus", Tensor::scalar(-1f32))?;
                b.mul(m.value("inner")?, minus)
            });
        let (made, _) = apply(&model, rule);
        ops(&made).iter().filter(|o| *o == "Mul").count()
    };
    let transpose = || op(Op::Transpose, [any("x")]).named("inner");
    assert_eq!(fires(transpose()), 2);
    assert_eq!(fires(transpose().once()), 1);
    assert_eq!(fires(transpose().attr("perm", vec![1i64, 0])), 1);
    assert_eq!(fires(transpose().attr_default("perm", vec![1i64, 0])), 2);
    assert_eq!(fires(op(Op::Clip, [any("x"), absent(), any("high")]).named("inner")), 1);
    assert_eq!(fires(op(Op::Clip, [any("x"), any("low"), any("high")]).named("inner")), 0);
    assert_eq!(fires(op(Op::Clip, [any("x"), absent()]).named("inner")), 0);
    assert_eq!(fires(op_named("com.foo", "Bar", [any("x")]).named("inner")), 1);
    assert_eq!(fires(op_in([Op::Transpose, Op::Clip], [any("x"), absent(), any("high")]).named("inner")), 1);
}

#[test]
fn numbers_match_within_the_rounding_of_their_type_and_only_one_element() {
    let matches = |constant: &str| {
        let model = parse(&format!(
            r#"<ir_version: 9, opset_import: ["" : 17]> main (float[2,3] x) => (y) <{constant}> {{ y = Mul(x, c) }}"#
        ));
        let rule = PatternRule::new("r", "`x * 0.1 => -x`", any("x") * num(0.1))
            .build(|m, b| b.op("Neg", "neg", &[m.value("x")?], Attrs::new()));
        ops(&apply(&model, rule).0) == ["Neg"]
    };
    assert!(matches("float c = {0.1}") && matches("float[1] c = {0.1}") && matches("float[1,1] c = {0.1}"));
    assert!(!matches("float c = {0.10001}") && !matches("float[3] c = {0.1, 0.1, 0.1}"));
    // a constant that widens the result is not the same product
    assert!(!matches("float[1,1,1] c = {0.1}"));
}

#[test]
fn long_chains_of_equal_operators_end() {
    let mut body = String::from("a0 = Add(x, x) ");
    for i in 1..400 {
        body += &format!("a{i} = Add(a{}, a{}) ", i - 1, i - 1);
    }
    let (made, _) = apply(&of_x(&format!("{body} y = Mul(a399, a398)")), {
        let (a, b, c, d) = (any("a"), any("b"), any("c"), any("d"));
        let five = &a + &b + &c + &d + op(Op::Erf, [any("e")]);
        PatternRule::new("r", "`never => x`", five).build(|m, _| m.value("a"))
    });
    assert_eq!(ops(&made).len(), 401);
}

#[test]
fn a_registry_holds_each_name_once_and_pipelines_name_what_it_holds() {
    let mut registry = Registry::builtin();
    registry.add_rule(gelu()).unwrap();
    assert!(registry.add_rule(gelu()).is_err());
    let pipeline = |name: &str, steps| Pipeline { name: name.into(), steps };
    let mine = pipeline("mine", vec![Step::once(&["gelu"]), Step::Pipeline("clean-up".into())]);
    registry.add_pipeline(mine.clone()).unwrap();
    for bad in [
        mine,
        pipeline("itself", vec![Step::Pipeline("itself".into())]),
        pipeline("unknown", vec![Step::repeat(&["no-such-rule"])]),
        pipeline("none", vec![]),
        pipeline("gelu", vec![]),
    ] {
        assert!(registry.add_pipeline(bad.clone()).is_err(), "{bad:?}");
    }
    let passes = registry.passes("mine").unwrap();
    assert_eq!(
        passes.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
        ["mine", "clean-up", "remove-unused"]
    );
    let left = registry.without(&passes, "gelu").unwrap();
    assert_eq!(left.len(), 2);
    let why = registry.passes_of(&["clean-up", "nothing"]).err().unwrap().to_string();
    assert!(why.contains("`nothing`") && why.contains("gelu") && why.contains("mine"), "{why}");
}
