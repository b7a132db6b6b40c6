//! `fcc print`: a model as ONNX text.
use super::Failure;
use super::common::{ModelArg, SetArg};
use super::files::CommandFiles;
use super::out::{Out, warn};
use fcc_ir::infer::infer;
use fcc_ir::text::{PrintOptions, print};

/// Print a model as ONNX text
///
/// The text is ONNX's own syntax. Large constants stand as their type and a hash of their data; with --constants
/// everything is printed whole, and onnx.parser in Python and fcc itself (as a file named .onnxtxt) read it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc print model.onnx | less
  fcc print model.onnx --constants > model.onnxtxt
  fcc rewrite model.onnxtxt --rule none -o again.onnx")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// Print constants, value_info, doc strings and metadata whole
    #[arg(long)]
    constants: bool,
    #[command(flatten)]
    set: SetArg,
}

/// Prints the text.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut model = args.model.load(&mut CommandFiles::default())?;
    args.set.apply(&mut model)?;
    let functions = std::mem::take(&mut model.functions);
    let mut typed = model.graph.clone();
    match infer(&mut typed, &functions) {
        Ok(_) => model.graph = typed,
        Err(e) => warn(&format!("{}: types are as declared: {e}", args.model.name().display())),
    }
    model.functions = functions;
    let options = if args.constants {
        PrintOptions { types: true, ..PrintOptions::whole() }
    } else {
        PrintOptions::readable()
    };
    let mut out = Out::new();
    out.raw(&print(&model, &options))?;
    out.finish()
}
