//! `fuzz`: broken models of a seed, until the time is over or one of them breaks fcc.
//!
//! A case is its number: the same number makes the same case. Cases run in a child process with a limit of memory,
//! because what is looked for may end it: a panic, an overflow of the stack, an allocation without bound, a hang.
mod case;
mod corpus;
mod mutate;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What to run.
pub struct Options {
    /// How long, in seconds.
    pub seconds: u64,
    /// Number of the first case.
    pub first: u64,
    /// At most how many cases.
    pub cases: u64,
    /// Run this case alone, in this process, and write it to `target/fuzz`.
    pub only: Option<u64>,
    /// Run cases in this process, telling the number of each before it runs: what the child does.
    pub child: bool,
}

/// A case that takes longer has hung. Debug builds on a busy machine are slow.
const CASE_SECONDS: u64 = 60;
/// Memory of the child.
const CHILD_KIB: u64 = 4 << 20;

/// Runs cases. Errors name the first one that broke fcc and how to run it again.
pub fn run(options: &Options) -> Result<String, String> {
    let corpus = corpus::read()?;
    if let Some(number) = options.only {
        let case = mutate::case(&corpus, number);
        let path = write(number, &case)?;
        println!("{}", path.display());
        return case::check(&case).map(|what| format!("case {number}: {what}"));
    }
    if options.child {
        for number in options.first.. {
            println!("{number}");
            let case = mutate::case(&corpus, number);
            case::check(&case).map_err(|why| format!("case {number}: {why}"))?;
        }
    }
    watch(options)
}

/// Runs the child until the time is over, and says how it ended if it ended before.
fn watch(options: &Options) -> Result<String, String> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut child = start(options.first)?;
    let numbers = numbers(&mut child)?;
    let mut last = options.first;
    let mut since = Instant::now();
    loop {
        match numbers.recv_timeout(Duration::from_millis(100)) {
            Ok(number) if number - options.first < options.cases => (last, since) = (number, Instant::now()),
            Ok(_) => {
                child.kill().and_then(|()| child.wait()).map_err(|e| format!("ending the cases: {e}"))?;
                return Ok(format!("{} cases from number {}", options.cases, options.first));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().map_err(|e| format!("waiting for the cases: {e}"))?;
                return Err(format!("case {last} ended the process: {status}\n{}", again(last)));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        let hangs = since.elapsed() > Duration::from_secs(CASE_SECONDS);
        if hangs || Instant::now() > end {
            child.kill().and_then(|()| child.wait()).map_err(|e| format!("ending the cases: {e}"))?;
            if hangs {
                return Err(format!("case {last} took more than {CASE_SECONDS} s\n{}", again(last)));
            }
            return Ok(format!("{} cases from number {}", last - options.first + 1, options.first));
        }
    }
}

fn again(number: u64) -> String {
    format!("again, and its input: cargo run -p xtask -- fuzz --only {number}")
}

/// This program again, as the child, with a limit of memory where the shell knows one.
fn start(first: u64) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let limited = format!("ulimit -v {CHILD_KIB} 2>/dev/null; exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &limited])
        .arg(program)
        .args(["fuzz", "--child", "--first", &first.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("starting the cases: {e}"))
}

/// The numbers that the child tells.
fn numbers(child: &mut Child) -> Result<Receiver<u64>, String> {
    let stdout = child.stdout.take().ok_or("the cases have no output")?;
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Ok(number) = line.parse()
                && send.send(number).is_err()
            {
                return;
            }
        }
    });
    Ok(receive)
}

/// Writes a case where it can be looked at.
fn write(number: u64, case: &mutate::Case) -> Result<PathBuf, String> {
    let folder = PathBuf::from("target/fuzz");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let (ending, bytes) = match case {
        mutate::Case::Text(text) => ("onnxtxt", text.clone().into_bytes()),
        mutate::Case::Bytes(bytes) => ("onnx", bytes.clone()),
        mutate::Case::Model(model) => {
            let text = fcc_ir::text::print(model, &fcc_ir::text::PrintOptions::whole());
            ("onnxtxt", text.into_bytes())
        }
    };
    let path = folder.join(format!("{number}.{ending}"));
    std::fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}
