//! `fuzz`: generated graphs and broken models, until the time is over.
//!
//! A case is its number: the same number makes the same case. Cases run in a child process with a limit of memory,
//! because what is looked for may end it: a panic, an overflow of the stack, a read outside of an operand, an allocation
//! without bound, a hang. The first broken model that breaks fcc ends the run; generated graphs go on behind a find, with
//! a new child where the old one was ended.
mod broken;
mod corpus;
mod graphs;
mod mutate;
mod voices;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Which cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Valid graphs, computed by every engine and rewritten by every rule.
    Graphs,
    /// Broken models of the seeds.
    Broken,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Graphs => "graphs",
            Kind::Broken => "broken",
        }
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The kind; both, for half of the time each, if none is given.
    pub kind: Option<Kind>,
    /// How long, in seconds.
    pub seconds: u64,
    /// Number of the first case.
    pub first: u64,
    /// At most how many cases.
    pub cases: u64,
    /// Run this case alone, in this process, and write it to `target/fuzz`.
    pub only: Option<u64>,
    /// Run the case of this file alone, in this process.
    pub file: Option<PathBuf>,
    /// Write the cases to this folder, with what fcc computes, and compare nothing.
    pub write: Option<PathBuf>,
    /// Run the cases of the corpus first.
    pub corpus: bool,
    /// Run cases in this process, telling the number of each before it runs: what the child does.
    pub child: bool,
}

/// A case that takes longer has hung. Debug builds on a busy machine are slow.
const CASE_SECONDS: u64 = 60;
/// Memory of the child.
const CHILD_KIB: u64 = 4 << 20;
/// So many cases of generated graphs may end the child.
const MOST_ENDS: usize = 200;
/// At most so many cases are written.
const MOST_WRITTEN: u64 = 100_000;
/// How often a case that ends the process is run while it shrinks.
const SHRINKS: usize = 150;

/// Runs cases. Errors name what broke fcc and how to run it again.
pub fn run(options: &Options) -> Result<String, String> {
    let Some(kind) = options.kind else {
        let half =
            |kind| Options { kind: Some(kind), seconds: options.seconds.div_ceil(2), ..options.clone() };
        return Ok(format!("{}\n{}", run(&half(Kind::Graphs))?, run(&half(Kind::Broken))?));
    };
    if let Some(file) = &options.file {
        return graphs::file(file, options.only.unwrap_or(0));
    }
    if let Some(folder) = &options.write {
        return voices::write(folder, options.first, options.cases.min(MOST_WRITTEN));
    }
    match (kind, options.only) {
        (Kind::Graphs, Some(number)) => return graphs::only(number),
        (Kind::Broken, Some(number)) => {
            let case = mutate::case(&corpus::read()?, number);
            println!("{}", write(number, &case)?.display());
            return broken::check(&case).map(|what| format!("case {number}: {what}"));
        }
        (Kind::Graphs, None) if options.child => {
            graphs::child(options)?;
        }
        (Kind::Broken, None) if options.child => {
            let corpus = corpus::read()?;
            for number in options.first.. {
                println!("{number}");
                let case = mutate::case(&corpus, number);
                broken::check(&case).map_err(|why| format!("case {number}: {why}"))?;
            }
        }
        _ => {}
    }
    match kind {
        Kind::Graphs => watch_graphs(options),
        Kind::Broken => watch_broken(options),
    }
}

/// How a child ended.
enum End {
    /// The time or the number of cases is reached.
    Done,
    /// A case took too long.
    Hung,
    /// It ended itself.
    Ended(ExitStatus),
}

/// A child and what it says.
struct Watched {
    child: Child,
    said: Receiver<String>,
    /// The case that runs.
    last: u64,
    since: Instant,
}

impl Watched {
    fn start(kind: Kind, options: &Options, first: u64) -> Result<Watched, String> {
        let mut child = start(kind, first, options.corpus)?;
        let said = lines(&mut child)?;
        Ok(Watched { child, said, last: first, since: Instant::now() })
    }
    /// Waits until the child ends, or ends it; `say` gets what is no number.
    fn wait(&mut self, end: Instant, beyond: u64, say: &mut dyn FnMut(&str)) -> Result<End, String> {
        loop {
            match self.said.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => match line.strip_prefix("again ").unwrap_or(&line).parse::<u64>() {
                    Ok(number) if number < beyond => (self.last, self.since) = (number, Instant::now()),
                    Ok(_) => return self.kill().map(|()| End::Done),
                    Err(_) => {
                        self.since = Instant::now();
                        say(&line);
                    }
                },
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().map_err(|e| format!("waiting for the cases: {e}"))?;
                    return Ok(End::Ended(status));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.since.elapsed() > Duration::from_secs(CASE_SECONDS) {
                return self.kill().map(|()| End::Hung);
            }
            if Instant::now() > end {
                return self.kill().map(|()| End::Done);
            }
        }
    }
    fn kill(&mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map_err(|e| format!("ending the cases: {e}"))?;
        Ok(())
    }
}

/// Runs broken models; the first that breaks fcc is an error.
fn watch_broken(options: &Options) -> Result<String, String> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let beyond = options.first.saturating_add(options.cases);
    let mut watched = Watched::start(Kind::Broken, options, options.first)?;
    let ended = watched.wait(end, beyond, &mut |line| println!("{line}"))?;
    let last = watched.last;
    let again = format!("again, and its input: cargo xtask fuzz broken --only {last}");
    match ended {
        End::Done => Ok(format!("{} broken models from number {}", last - options.first + 1, options.first)),
        End::Hung => Err(format!("case {last} took more than {CASE_SECONDS} s\n{again}")),
        End::Ended(status) => Err(format!("case {last} ended the process: {status}\n{again}")),
    }
}

/// Runs generated graphs, behind every find too. An error if there was one.
fn watch_graphs(options: &Options) -> Result<String, String> {
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let beyond = options.first.saturating_add(options.cases);
    let (mut finds, mut alike, mut open, mut ends, mut first) = (0, 0, 0, 0, options.first);
    let mut options = options.clone();
    loop {
        let mut watched = Watched::start(Kind::Graphs, &options, first)?;
        let ended = watched.wait(end, beyond, &mut |line| {
            if line.starts_with("find ") {
                finds += 1;
            }
            if line.starts_with("alike ") {
                alike += 1;
            } else if line.starts_with("open ") {
                open += 1;
            } else {
                println!("{line}");
            }
        })?;
        let last = watched.last;
        let why = match ended {
            End::Done => {
                let count = last + 1 - options.first;
                let said = format!(
                    "{count} graphs from number {}: {finds} finds, {alike} like them, {open} known and open",
                    options.first
                );
                return if finds + alike == 0 { Ok(said) } else { Err(said) };
            }
            End::Hung => format!("takes more than {CASE_SECONDS} s"),
            End::Ended(status) => format!("ends the process: {status}"),
        };
        (finds, ends) = (finds + 1, ends + 1);
        if ends > MOST_ENDS {
            return Err(format!("{ends} graphs ended the process, the last one is {last}"));
        }
        println!("case {last} {why}");
        ended_by(last, &why)?;
        (first, options.corpus) = (last + 1, false);
        if first >= beyond {
            return Err(format!(
                "{} graphs from number {}: {finds} finds",
                first - options.first,
                options.first
            ));
        }
    }
}

/// Makes a graph that ends the process small, each attempt in a process of its own, and keeps it.
fn ended_by(number: u64, why: &str) -> Result<(), String> {
    let (case, _) = fcc_testgen::case(number);
    let kind = if why.starts_with("takes") { "hang" } else { "end" };
    let path = Path::new(graphs::FOLDER).join(format!("attempt-{number}.onnxtxt"));
    let mut fails = |case: &fcc_testgen::Case| {
        if fcc_testgen::write(case, &path).is_err() {
            return false;
        }
        let run = limited(&[
            "fuzz",
            "graphs",
            "--only",
            &number.to_string(),
            "--file",
            &path.display().to_string(),
        ]);
        let Ok(mut child) = run.and_then(|mut c| {
            c.stderr(Stdio::null()).stdout(Stdio::null()).spawn().map_err(|e| e.to_string())
        }) else {
            return false;
        };
        let since = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return status.code().is_none_or(|c| c > 1),
                Ok(None) if since.elapsed() > Duration::from_secs(20) => {
                    let _ = child.kill().and_then(|()| child.wait());
                    return kind == "hang";
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(_) => return false,
            }
        }
    };
    let budget = if kind == "hang" { 12 } else { SHRINKS };
    let small = if fails(&case) { fcc_testgen::shrink(&case, budget, &mut fails) } else { case };
    if let Some(path) = graphs::keep(number, kind, why, &small)? {
        println!("find {number} {why} {}", path.display());
    }
    for ending in ["onnxtxt", "inputs.onnxtxt", "onnx"] {
        let _ = std::fs::remove_file(path.with_extension(ending));
    }
    Ok(())
}

/// This program with these arguments, with a limit of memory where the shell knows one.
fn limited(args: &[&str]) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let limited = format!("ulimit -v {CHILD_KIB} 2>/dev/null; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &limited]).arg(program).args(args);
    Ok(command)
}

/// The child.
fn start(kind: Kind, first: u64, corpus: bool) -> Result<Child, String> {
    let first = first.to_string();
    let mut args = vec!["fuzz", kind.name(), "--child", "--first", &first];
    args.extend(corpus.then_some("--corpus"));
    limited(&args)?.stdout(Stdio::piped()).spawn().map_err(|e| format!("starting the cases: {e}"))
}

/// The lines that the child says.
fn lines(child: &mut Child) -> Result<Receiver<String>, String> {
    let stdout = child.stdout.take().ok_or("the cases have no output")?;
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

/// Writes a broken model where it can be looked at.
fn write(number: u64, case: &mutate::Case) -> Result<PathBuf, String> {
    let folder = PathBuf::from(graphs::FOLDER);
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let (ending, bytes) = match case {
        mutate::Case::Text(text) => ("onnxtxt", text.clone().into_bytes()),
        mutate::Case::Bytes(bytes) => ("onnx", bytes.clone()),
        mutate::Case::Model(model) => {
            let text = fcc_ir::text::print(model, &fcc_ir::text::PrintOptions::whole());
            ("onnxtxt", text.into_bytes())
        }
    };
    let path = folder.join(format!("broken-{number}.{ending}"));
    std::fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}
