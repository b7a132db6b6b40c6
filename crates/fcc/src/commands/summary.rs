//! `fcc summary`: layers, output shapes, parameters, operations, memory.
use super::Failure;
use super::common::{ModelArg, SetArg};
use super::files::CommandFiles;
use super::out::{Out, grouped, table};
use fcc_ir::summary::{Summary, summary};
use fcc_ir::{Dim, ValueType};
use serde_json::{Value as Json, json};

/// Show the layers of a model: output shapes, parameters, FLOPs, memory
///
/// FLOPs count a multiplication with its addition as two. Numbers that depend on a symbolic dimension are shown as
/// expressions; give it a value with --set.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc summary model.onnx
  fcc summary model.onnx --set batch=1 --json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    set: SetArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the table.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut model = args.model.load(&mut CommandFiles::default())?;
    args.set.apply(&mut model)?;
    let summary = summary(&model).map_err(|e| Failure::from(e).in_file(args.model.name()))?;
    let mut out = Out::new();
    if args.json {
        out.json(&as_json(&summary))?;
    } else {
        for line in lines(&summary) {
            out.line(line)?;
        }
    }
    out.finish()
}

/// `[batch,10]`, the element type before it where it is not float.
fn shape_text(ty: &ValueType) -> String {
    match ty.as_tensor() {
        Some(t) if t.shape.as_ref().is_some_and(Vec::is_empty) => format!("{}[]", t.dtype),
        Some(t) if t.shape.is_some() && t.dtype == fcc_ir::DType::F32 => {
            ty.to_string().replacen("float", "", 1)
        }
        Some(t) if t.shape.is_none() => format!("{}[?]", t.dtype),
        _ => ty.to_string(),
    }
}

fn dim_text(dim: &Dim) -> String {
    dim.known().map_or_else(|| dim.to_string(), grouped)
}

/// `Input size: 3.06 MB`, in bytes where the size depends on a symbol.
fn size_line(what: &str, bytes: &Dim) -> String {
    match bytes.known() {
        Some(n) => format!("{what}: {:.2} MB", n as f64 / (1 << 20) as f64),
        None if *bytes == Dim::Unknown => format!("{what}: not known"),
        None => format!("{what}: {bytes} bytes"),
    }
}

fn lines(s: &Summary) -> Vec<String> {
    let rows: Vec<Vec<String>> = s
        .layers
        .iter()
        .map(|layer| {
            let shapes: Vec<String> = layer.outputs.iter().map(shape_text).collect();
            vec![
                format!("{} ({})", layer.name, layer.op),
                shapes.join(" "),
                grouped(layer.parameters),
                dim_text(&layer.flops),
            ]
        })
        .collect();
    let head = ["Layer (type)", "Output shape", "Parameters", "FLOPs"];
    let body = table(&head, &rows, &[false, false, true, true]);
    let width = body.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    let values = |name: &str, values: &[(String, ValueType)]| {
        let texts: Vec<String> = values.iter().map(|(n, ty)| format!("{n} {ty}")).collect();
        format!("{name}: {}", texts.join(", "))
    };
    let mut lines = vec![values("Inputs", &s.inputs), values("Outputs", &s.outputs), "-".repeat(width)];
    lines.extend(body.iter().take(1).cloned());
    lines.push("=".repeat(width));
    lines.extend(body.into_iter().skip(1));
    lines.push("=".repeat(width));
    lines.push(format!("Parameters: {}", grouped(s.parameters)));
    if s.buffers > 0 {
        lines.push(format!("Running means and variances: {}", grouped(s.buffers)));
    }
    let unknown = match s.flops_unknown {
        0 => String::new(),
        n => format!(" (without {n} layers whose number is not known)"),
    };
    lines.push(format!("FLOPs: {}{unknown}", dim_text(&s.flops)));
    lines.push("-".repeat(width));
    lines.push(size_line("Input size", &s.input_bytes));
    lines.push(size_line("Activations size", &s.activation_bytes));
    lines.push(size_line("Parameters size", &Dim::Known(s.weight_bytes)));
    let total = s.input_bytes.add(&s.activation_bytes).add(&Dim::Known(s.weight_bytes));
    lines.push(size_line("Total size", &total));
    lines.push("-".repeat(width));
    lines
}

/// A number, the expression as a string, or null.
fn dim_json(dim: &Dim) -> Json {
    match dim {
        Dim::Known(n) => json!(n),
        Dim::Sym(e) => json!(e.to_string()),
        Dim::Unknown => Json::Null,
    }
}

fn as_json(s: &Summary) -> Json {
    let layers: Vec<Json> = s
        .layers
        .iter()
        .map(|l| {
            json!({
                "name": l.name,
                "op": l.op,
                "outputs": l.outputs.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "parameters": l.parameters,
                "buffers": l.buffers,
                "flops": dim_json(&l.flops),
            })
        })
        .collect();
    let values = |values: &[(String, ValueType)]| -> Vec<Json> {
        values.iter().map(|(name, ty)| json!({ "name": name, "type": ty.to_string() })).collect()
    };
    json!({
        "inputs": values(&s.inputs),
        "outputs": values(&s.outputs),
        "layers": layers,
        "parameters": s.parameters,
        "buffers": s.buffers,
        "flops": dim_json(&s.flops),
        "flops_unknown": s.flops_unknown,
        "input_bytes": dim_json(&s.input_bytes),
        "activation_bytes": dim_json(&s.activation_bytes),
        "weight_bytes": s.weight_bytes,
    })
}
