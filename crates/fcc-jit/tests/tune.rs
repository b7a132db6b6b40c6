//! Tables of choices: their text, what they do to plans, and that no choice changes a result.
mod common;

use common::net::{Net, Within, attrs, close, run_guarded};
use fcc_ir::Model;
use fcc_ir::interp::{self, Values};
use fcc_jit::choices::{Choice, Key, Way, machine};
use fcc_jit::tune::{candidates, tune};
use fcc_jit::{Choices, Isa, Options, Precision, compile};
use std::sync::Arc;
use std::time::Duration;

/// Levels of which a plan may be.
fn levels() -> Vec<Isa> {
    [Isa::Avx2, Isa::Avx512].into_iter().filter(|i| *i <= Isa::detect()).collect()
}

fn options(isa: Isa, threads: usize, choices: &Choices) -> Options {
    let mut options = Options::with_threads(threads);
    options.isa = isa;
    options.choices = Some(Arc::new(choices.clone()));
    options
}

fn choice(way: &str) -> Choice {
    let way = way.parse().expect("a way");
    Choice { way, ns: 1000, estimate: way, estimate_ns: 2000, line: 0 }
}

fn conv(pads: i64, stride: i64) -> fcc_ir::attr::Attrs {
    attrs([("pads", vec![pads; 4].into()), ("strides", vec![stride; 2].into())])
}

/// Convolutions of several kinds with H != W, odd channels, a residual and an activation; exact on integers.
fn convolutions() -> (Model, Values) {
    let mut net = Net::new();
    let x = net.input(&[1, 35, 9, 7]);
    let (w, b) = (net.weight(&[35, 35, 3, 3]), net.weight(&[35]));
    let y = net.node("Conv", &[x, w, b], conv(1, 1));
    let y = net.op("Add", &[y, x]);
    let y = net.op("Relu", &[y]);
    let w = net.weight(&[40, 35, 1, 1]);
    let flat = net.node("Conv", &[y, w], conv(0, 1));
    let w = net.weight(&[19, 35, 3, 3]);
    let strided = net.node("Conv", &[y, w], conv(1, 2));
    // three channels fit in half a vector of either level
    let w = net.weight(&[3, 35, 3, 3]);
    let narrow = net.node("Conv", &[y, w], conv(1, 1));
    net.model(&[flat, strided, narrow])
}

/// Products with packed and computed B, batched and not.
fn products() -> (Model, Values) {
    let mut net = Net::new();
    let x = net.input(&[3, 29, 37]);
    let (w, b) = (net.weight(&[37, 50]), net.weight(&[50]));
    let y = net.op("MatMul", &[x, w]);
    let y = net.op("Add", &[y, b]);
    let z = net.input(&[3, 50, 21]);
    let z = net.op("MatMul", &[y, z]);
    let one = net.input(&[1, 37]);
    let one = net.op("MatMul", &[one, w]);
    net.model(&[y, z, one])
}

fn check(model: &Model, inputs: &Values, options: &Options, within: Within, place: &str) {
    let want = interp::run(model, inputs).expect("interpreted");
    let compiled = compile(model, options).expect("compiled");
    let got = run_guarded(&compiled, inputs).expect("run");
    for (name, want) in &want {
        let place = format!("{name}: {place}");
        close(got[name].as_tensor().unwrap(), want.as_tensor().unwrap(), within, &place);
    }
}

/// Each way of each problem, one at a time, and that the plan takes it.
fn every_candidate(precision: Precision, within: Within) -> usize {
    let mut tried = 0;
    for (model, inputs) in [convolutions(), products()] {
        for (isa, threads) in levels().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
            let mut options = options(isa, threads, &Choices::new());
            options.precision = precision;
            for (key, ways) in candidates(&model, &options, &inputs).expect("candidates") {
                // all of a few, some of many
                let step = ways.len().div_ceil(12).max(1);
                for way in ways.into_iter().skip(tried % step).step_by(step) {
                    let mut choices = Choices::new();
                    choices.insert(key.clone(), Choice { way, ..choice("lanes pixels") });
                    options.choices = Some(Arc::new(choices));
                    let place = format!("{isa} {threads} {}: {way}", key.problem);
                    let plan = compile(&model, &options).unwrap().plan_for(&inputs).unwrap();
                    let reasons: Vec<&str> = plan.steps().filter_map(|s| s.why.as_deref()).collect();
                    assert!(reasons.iter().all(|r| !r.contains("declined")), "{place}: {reasons:?}");
                    let taken = plan.steps().any(|s| s.tuned.is_some_and(|c| c.way == way));
                    // the lanes of channels are another problem's kernel, a plan no kernel's
                    let shown = matches!(way, Way::Sums { .. }) || way.to_string() == "lanes pixels";
                    assert!(taken || !shown, "{place}");
                    check(&model, &inputs, &options, within, &place);
                    tried += 1;
                }
            }
        }
    }
    tried
}

#[test]
fn every_candidate_computes_what_the_interpreter_does() {
    let tried = every_candidate(Precision::F32, Within::Exact);
    assert!(tried >= 100 * levels().len(), "{tried} of {:?}", levels());
}

#[test]
fn every_candidate_of_fast_stays_near() {
    let tried = every_candidate(Precision::Fast, Within::Relative(1e-4));
    assert!(tried >= 100 * levels().len(), "{tried} of {:?}", levels());
}

/// A table with a way for each problem of a model, none of them the first that the tuner tries.
fn table(model: &Model, inputs: &Values, isa: Isa) -> Choices {
    let mut choices = Choices::new();
    for (key, ways) in candidates(model, &options(isa, 2, &choices), inputs).expect("candidates") {
        let way = *ways.last().expect("a way");
        let estimate = ways[0];
        choices.insert(key, Choice { way, ns: 1_234_567, estimate, estimate_ns: 7, line: 0 });
    }
    choices
}

#[test]
fn the_text_is_read_back() {
    for isa in levels() {
        let choices = [convolutions(), products()].iter().fold(Choices::new(), |mut all, (m, i)| {
            table(m, i, isa).iter().for_each(|(k, c)| all.insert(k.clone(), *c));
            all
        });
        let text = choices.to_string();
        let read: Choices = text.parse().expect("its own text");
        assert_eq!(read.to_string(), text);
        assert_eq!(read.len(), choices.len());
        for (n, (key, c)) in choices.iter().enumerate() {
            let line = 4 + n;
            assert_eq!(read.get(key), Some(&Choice { line, ..*c }), "{text}");
            assert!(text.lines().nth(line - 1).is_some_and(|l| l.contains(&key.problem)));
        }
    }
}

#[test]
fn a_table_gives_the_same_plan_each_time() {
    let (model, inputs) = convolutions();
    for isa in levels() {
        let text = table(&model, &inputs, isa).to_string();
        let plan = |choices: &Choices| {
            compile(&model, &options(isa, 2, choices)).unwrap().plan_for(&inputs).unwrap().to_string()
        };
        let [one, two] = [text.clone(), text].map(|t| plan(&t.parse().expect("a table")));
        assert_eq!(one, two);
        assert_ne!(one, plan(&Choices::new()));
    }
}

/// The key of the problem whose name begins so.
fn key(model: &Model, inputs: &Values, isa: Isa, begins: &str) -> Key {
    let all = candidates(model, &options(isa, 1, &Choices::new()), inputs).expect("candidates");
    all.into_iter().map(|(k, _)| k).find(|k| k.problem.starts_with(begins)).expect("the problem")
}

fn product_of_32() -> (Model, Values) {
    let mut net = Net::new();
    let x = net.input(&[32, 32]);
    let w = net.weight(&[32, 32]);
    let y = net.op("MatMul", &[x, w]);
    net.model(&[y])
}

#[test]
fn a_saved_choice_is_the_kernel_and_its_reason() {
    let (model, inputs) = product_of_32();
    for isa in levels() {
        let key = key(&model, &inputs, isa, "gemm 32x32x32");
        for (rows, vectors) in [(3, 1), (2, 2)] {
            let mut choices = Choices::new();
            let way = format!("direct {rows}x1x{vectors} chunk 32 blocks 1 ahead 0");
            let estimate = "direct 6x1x2 chunk 32 blocks 1 ahead 0".parse().unwrap();
            choices.insert(key.clone(), Choice { estimate, ..choice(&way) });
            let options = options(isa, 1, &choices);
            let plan = compile(&model, &options).unwrap().plan_for(&inputs).unwrap();
            let step = plan.steps().next().expect("a step");
            assert!(step.kernel.ends_with(&format!("{isa} {rows}x{vectors}")), "{}", step.kernel);
            let why = format!("tuned: 1.0 µs against 2.0 of the estimate's {estimate}");
            assert_eq!(step.why.as_deref(), Some(why.as_str()));
            check(&model, &inputs, &options, Within::Exact, &way);
        }
    }
}

#[test]
fn what_the_generator_cannot_build_is_declined_with_its_line() {
    let (model, inputs) = convolutions();
    for isa in levels() {
        let conv = key(&model, &inputs, isa, "conv 1x35x1x9x7");
        for (way, why) in [
            ("direct 4x7x2 chunk 1 blocks 1 ahead 0", "got a tile of 4x7 pixels by 2 vectors"),
            (
                "winograd 4x4 2x2x1 chunk 1 blocks 1 ahead 0",
                "got 4 outputs along a kernel of 3, wanted what f32 allows",
            ),
            ("winograd 2x2 2x2x2 chunk 7 blocks 1 ahead 0", "got "),
            ("lanes pixels", "got `lanes pixels`, wanted an algorithm"),
            ("plan avx2", "got `plan avx2`, wanted an algorithm"),
        ] {
            let mut choices = Choices::new();
            choices.insert(conv.clone(), choice(way));
            let choices: Choices = choices.to_string().parse().expect("a table");
            let options = options(isa, 1, &choices);
            let plan = compile(&model, &options).unwrap().plan_for(&inputs).unwrap();
            let declined = format!("the tuned choice of line 4, `{way}`, is declined: {why}");
            let reasons: Vec<&str> = plan.steps().filter_map(|s| s.why.as_deref()).collect();
            assert!(reasons.iter().any(|r| r.starts_with(&declined)), "{declined}: {reasons:?}");
            check(&model, &inputs, &options, Within::Exact, way);
        }
    }
}

#[test]
fn tables_of_other_machines_and_versions_are_refused() {
    let text = Choices::new().to_string();
    assert!(text.parse::<Choices>().expect("an empty table").is_empty());
    let refusal = |text: String| text.parse::<Choices>().expect_err("refused").to_string();
    let here = machine();
    let other = refusal(text.replace(&here, "PDP-11"));
    assert_eq!(other, format!("machine of the choices: got `PDP-11`, wanted `{here}`"));
    let version = env!("CARGO_PKG_VERSION");
    let other = refusal(text.replacen(version, "9.9.9", 1));
    let want = format!("version of the choices: got `fcc choices 9.9.9`, wanted `fcc choices {version}`");
    assert_eq!(other, want);
    assert_eq!(refusal(String::new()), format!("line 1: got ``, wanted `fcc choices {version}`"));
}

#[test]
fn damaged_lines_are_named() {
    let head = Choices::new().to_string();
    let good = "avx2 2 f32 | gemm 1x1x1 | lanes pixels | 1.000 | lanes channels | 2.000";
    assert_eq!(format!("{head}{good}\n").parse::<Choices>().expect("a table").len(), 1);
    let cases = [
        (good.replace(" | lanes channels", ""), "got 5 fields between ` | `, wanted 6"),
        (good.replace("avx2", "avx3"), "instruction set \"avx3\" is none of"),
        (good.replace("f32", "f33"), "precision \"f33\" is none of"),
        (good.replace("avx2 2", "avx2 0"), "wanted a number of threads"),
        (good.replace("avx2 2", "avx2"), "wanted a level, threads and a precision"),
        (good.replace("1.000", "1.0"), "got time `1.0`, wanted µs"),
        (good.replace("1.000", "-1.000"), "got time `-1.000`, wanted µs"),
        (good.replace("2.000", "99999999999999999999.000"), "wanted µs"),
        (good.replace("lanes pixels", "lanes of grass"), "got choice `lanes of grass`"),
        (good.replace("lanes pixels", "direct 0x1x1 chunk 1 blocks 1 ahead 0"), "got a size of 0"),
        (good.replace("lanes pixels", "direct 1x1x1 chunk 1 blocks 1 ahead 99999999"), "bytes ahead"),
        (good.replace("lanes pixels", "winograd 1x1 1x1x1 chunk 1 blocks 1 ahead 0"), "got choice `winograd"),
        (good.replace("gemm 1x1x1", ""), "got an empty problem"),
        (format!("{good}\n{good}"), "line 5: got a problem that stands above, wanted each once"),
    ];
    for (line, why) in cases {
        let error = format!("{head}{line}\n").parse::<Choices>().expect_err(&line).to_string();
        assert!(error.starts_with("line ") && error.contains(why), "{line}: {error}");
    }
}

/// Whatever became of the file: an error, or a table that changes no result.
#[test]
fn damaged_files_change_no_result() {
    let (model, inputs) = convolutions();
    let mut rng = common::Rng(99);
    for isa in levels() {
        let text = table(&model, &inputs, isa).to_string();
        let mut tables = 0;
        for _ in 0..400 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..rng.range(1, 3) {
                let at = rng.below(bytes.len());
                match rng.below(4) {
                    0 => bytes[at] = b"0123456789x| \n"[rng.below(14)],
                    1 => bytes[at] = (rng.next() >> 56) as u8,
                    2 => bytes.truncate(at.max(1)),
                    _ => drop(bytes.remove(at)),
                }
            }
            let Ok(damaged) = String::from_utf8(bytes) else { continue };
            let Ok(choices) = damaged.parse::<Choices>() else { continue };
            tables += 1;
            if tables % 8 == 0 {
                check(&model, &inputs, &options(isa, 2, &choices), Within::Exact, &damaged);
            }
        }
        assert!(tables > 40, "{tables}");
    }
}

#[test]
fn tuning_fills_the_table_once_and_changes_no_result() {
    let (model, inputs) = convolutions();
    for isa in levels() {
        for threads in [1, 2] {
            let empty = options(isa, threads, &Choices::new());
            let tuned = tune(&model, &empty, &inputs, None, &mut |_| {}).expect("tuned");
            assert_eq!((&tuned.notes[..], tuned.left, &tuned.replaced[..]), (&[][..], 0, &[][..]));
            // the plan, the lanes of the narrow convolution, and the other three at least
            assert!(tuned.measured >= 5 && tuned.choices.len() == tuned.measured, "{:?}", tuned.choices);
            let again = options(isa, threads, &tuned.choices);
            let second = tune(&model, &again, &inputs, None, &mut |_| {}).expect("tuned");
            assert_eq!((second.measured, second.choices), (0, tuned.choices));
            check(&model, &inputs, &again, Within::Exact, "tuned");
        }
    }
}

#[test]
fn without_time_nothing_is_measured() {
    let (model, inputs) = product_of_32();
    for isa in levels() {
        let options = options(isa, 1, &Choices::new());
        let tuned = tune(&model, &options, &inputs, Some(Duration::ZERO), &mut |_| {}).expect("tuned");
        assert_eq!((tuned.measured, tuned.left, tuned.choices.len()), (0, 2, 0));
    }
}

#[test]
fn a_choice_that_is_declined_is_measured_again() {
    let (model, inputs) = product_of_32();
    for isa in levels() {
        let key = key(&model, &inputs, isa, "gemm");
        // all else is decided: a plan of another level that happens to be faster would not ask for this problem
        let mut choices = Choices::new();
        for (other, ways) in candidates(&model, &options(isa, 1, &choices), &inputs).expect("candidates") {
            let way = match ways[0] {
                Way::Plan { .. } => Way::Plan { isa, alone: true },
                other => other,
            };
            choices.insert(other, Choice { way, ..choice("lanes pixels") });
        }
        choices.insert(key.clone(), choice("lanes pixels"));
        let tuned = tune(&model, &options(isa, 1, &choices), &inputs, None, &mut |_| {}).expect("tuned");
        assert_eq!(tuned.replaced.len(), 1, "{isa}: {tuned:?}");
        assert!(matches!(tuned.choices.get(&key).map(|c| c.way), Some(Way::Sums { .. })));
    }
}
