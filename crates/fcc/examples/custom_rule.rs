//! A rule of one's own: `x * 0.5 * (1 + Erf(x / sqrt(2)))`, as exporters write GELU, becomes one `Gelu`.
//!
//! `cargo run --release -p fcc --example custom_rule -- MODEL.onnx OUT.onnx`
use fcc::pattern::{PatternRule, any, op};
use fcc::{Op, Registry};

/// The rule: a law, what it finds, what it builds.
pub fn gelu() -> PatternRule {
    let x = any("x");
    let erf = op(Op::Erf, [&x / std::f64::consts::SQRT_2]);
    PatternRule::new("my-gelu", "`x * 0.5 * (1 + Erf(x / sqrt(2))) => Gelu(x)`", &x * 0.5 * (1.0 + erf))
        .build(|m, b| {
            b.need_opset(20, "Gelu")?;
            b.op("Gelu", "gelu", &[m.value("x")?], Default::default())
        })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = std::env::args().skip(1);
    let (Some(from), Some(to)) = (files.next(), files.next()) else {
        return Err("usage: custom_rule MODEL.onnx OUT.onnx".into());
    };
    let mut registry = Registry::builtin();
    registry.add_rule(gelu())?;
    let mut model = fcc::load(from)?;
    println!("{}", fcc::rewrite_with(&mut model, &registry, &["my-gelu", "clean-up"])?);
    Ok(fcc::save(&model, to)?)
}
