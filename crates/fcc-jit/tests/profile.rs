//! What plans and profiles say of their steps.
use fcc_ir::attr::Attrs;
use fcc_ir::interp::Values;
use fcc_ir::op::default_opsets;
use fcc_ir::{DType, Dim, Graph, Model, NewNode, Tensor, ValueId, ValueInfo, ValueType};
use fcc_jit::peak::Peak;
use fcc_jit::pool::Pool;
use fcc_jit::{CompiledModel, Isa, Options, StepInfo, Work, compile};
use std::time::Duration;

fn ints(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| ((i * 7 + 3) % 5) as f32 - 2.0).collect::<Vec<f32>>())
        .expect("a tensor")
}

/// An operator whose node and value have this name.
fn op(g: &mut Graph, name: &str, op_type: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
    let inputs = inputs.iter().copied().map(Some).collect();
    let node = NewNode { op_type, domain: "", name: name.into(), inputs, outputs: vec![name.into()], attrs };
    ValueId { node: g.add_op(node).expect("a node"), output: 0 }
}

/// A convolution with its activation, one that Winograd may do, an operator without a kernel, and what depends on its
/// shape.
fn model() -> Model {
    let mut g = Graph::new("g", default_opsets(17));
    let x = ValueType::tensor(DType::F32, [2, 3, 9, 8].map(Dim::Known));
    let x = g.add_input(ValueInfo::new("x", x)).expect("x");
    let w0 = g.add_constant("w0", ints(&[32, 3, 3, 3])).expect("w0");
    let w1 = g.add_constant("w1", ints(&[32, 32, 3, 3])).expect("w1");
    let pads = || Attrs::new().with("pads", vec![1, 1, 1, 1]);
    let first = op(&mut g, "first", "Conv", &[x, w0], pads());
    let act = op(&mut g, "act", "Relu", &[first], Attrs::new());
    let second = op(&mut g, "second", "Conv", &[act, w1], pads());
    let places = op(&mut g, "places", "NonZero", &[second], Attrs::new());
    let turn = op(&mut g, "turn", "Transpose", &[places], Attrs::new());
    g.add_output(turn, ValueInfo::new("turn", ValueType::Unknown));
    Model::new(g)
}

fn prepared(threads: usize) -> (CompiledModel, Values) {
    let compiled = compile(&model(), &Options::with_threads(threads)).expect("compiles");
    (compiled, Values::from([("x".to_string(), ints(&[2, 3, 9, 8]).into())]))
}

fn step<'a>(steps: &'a [&'a StepInfo], node: &str) -> &'a StepInfo {
    let of = |s: &&&StepInfo| {
        s.nodes.iter().any(|n| n.name == node) && !matches!(s.work, Work::Reorder { .. } | Work::Border)
    };
    steps.iter().find(of).unwrap_or_else(|| panic!("no step of {node}"))
}

#[test]
fn steps_say_what_they_compute_and_why() {
    let (compiled, values) = prepared(1);
    let plan = compiled.plan_for(&values).expect("a plan");
    let steps: Vec<&StepInfo> = plan.steps().collect();
    if Isa::detect() == Isa::Baseline {
        return;
    }
    let first = step(&steps, "first");
    assert_eq!(first.ops(), "Conv+Relu");
    assert_eq!(first.output, "float[2,32,9,8]");
    assert_eq!(first.flops, 2 * 2 * 32 * 72 * 27);
    assert_eq!(
        first.why.as_deref(),
        Some("direct: no Winograd for kernel 1x3x3, dilations 1x1x1, group 1, input in blocks of 1")
    );
    let second = step(&steps, "second");
    assert!(second.why.as_deref().is_some_and(|w| w.starts_with("Winograd 2x2: ")), "{:?}", second.why);
    let left = step(&steps, "places");
    let Work::Interpret { why } = &left.work else { panic!("{left:?}") };
    assert_eq!((why.what.as_str(), why.got.as_str()), ("value `places`", "int64[4,?]"));
    assert!(plan.is_cut(), "what follows NonZero is compiled in the run");
    let reorders = steps.iter().filter(|s| matches!(s.work, Work::Reorder { .. })).count();
    assert!(reorders >= 1, "NonZero reads row-major what the convolution makes in blocks");
    let info = plan.info();
    assert_eq!(info.nodes, 4, "the fifth is behind the cut");
    assert_eq!(info.arena_bytes, plan.arena_bytes());
    assert!(info.packed_bytes >= 4 * 32 * 9 * (3 + 32));
    let most = steps.iter().map(|s| s.arena_in_use_bytes).max().unwrap_or(0);
    assert!(most > 0 && most <= plan.arena_bytes(), "{most} of {}", plan.arena_bytes());
}

#[test]
fn a_profile_covers_all_regions_in_order() {
    let (compiled, values) = prepared(1);
    compiled.run(&values).expect("runs");
    let (outputs, profile) = compiled.run_profiled(&values, false).expect("runs");
    assert_eq!(outputs, compiled.run(&values).expect("runs"));
    let names: Vec<&str> =
        profile.steps.iter().flat_map(|s| &s.info.nodes).map(|n| n.name.as_str()).collect();
    let at =
        |name: &str| names.iter().position(|n| *n == name).unwrap_or_else(|| panic!("{name} in {names:?}"));
    assert!(at("second") < at("places") && at("places") < at("turn"), "{names:?}");
    for pair in profile.steps.windows(2) {
        assert!(pair[0].start + pair[0].time <= pair[1].start, "steps follow one another");
    }
    assert!(profile.steps.iter().all(|s| s.tasks.is_empty()), "nobody asked for tasks");
}

#[test]
fn tasks_are_timed_inside_their_step_on_the_threads_of_the_pool() {
    let (compiled, values) = prepared(2);
    let mut threads = std::collections::BTreeSet::new();
    // A thread takes over the tasks of one that is late, so a single run may well be one thread's
    // work; over many runs both must be seen.
    for _ in 0..1000 {
        let (_, profile) = compiled.run_profiled(&values, true).expect("runs");
        for step in profile.steps.iter().filter(|s| !s.info.is_interpreted()) {
            assert_eq!(step.tasks.len(), step.info.tasks, "{}", step.info.kernel);
            for (i, span) in step.tasks.iter().enumerate() {
                assert_eq!(span.task, i);
                assert!(span.start >= step.start && span.start + span.time <= step.start + step.time);
                threads.insert(span.thread);
            }
        }
        if Isa::detect() == Isa::Baseline || threads.len() == 2 {
            break;
        }
    }
    if Isa::detect() != Isa::Baseline {
        assert_eq!(threads, std::collections::BTreeSet::from([0, 1]));
    }
}

#[test]
fn a_model_without_kernels_says_why_each_node_is_interpreted() {
    let options = {
        let mut o = Options::with_threads(1);
        o.kernels = false;
        o
    };
    let compiled = compile(&model(), &options).expect("compiles");
    let (_, values) = prepared(1);
    let plan = compiled.plan_for(&values).expect("a plan");
    let whys: Vec<String> = plan
        .steps()
        .map(|s| match &s.work {
            Work::Interpret { why } => why.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(whys, vec!["kernels: got switched off, need on"; 4]);
}

#[test]
fn the_peak_is_measured_on_all_threads() {
    let Ok(peak) = Peak::new(Isa::Avx512, 2) else { return };
    let rate = peak.gflops(&Pool::new(2), Duration::from_millis(5)).expect("runs");
    assert!(rate > 0.1, "{rate}");
}
