//! `fcc completions`: the script that makes a shell complete fcc's options.
use super::Failure;
use super::out::Out;
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc completions bash > ~/.local/share/bash-completion/completions/fcc
  fcc completions zsh > ~/.zfunc/_fcc
  fcc completions fish > ~/.config/fish/completions/fcc.fish")]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args, mut command: clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "fcc", &mut script);
    let mut out = Out::new();
    out.raw(&String::from_utf8_lossy(&script))?;
    out.finish()
}
