//! Generated graphs: cases one after the other, what they find as small files, what they reach as a corpus.
use super::Options;
use fcc_testgen::{Case, Failure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where finds and the corpus stand.
pub const FOLDER: &str = "target/fuzz";
/// How often a case is checked while it shrinks.
const SHRINKS: usize = 600;
/// Finds that look alike are made small so often.
const ALIKE: usize = 2;

fn options(number: u64) -> fcc_testgen::Options {
    fcc_testgen::Options { number, ..Default::default() }
}

/// Runs one case in this process. An error names the law that does not hold.
pub fn only(number: u64) -> Result<String, String> {
    let (case, made) = fcc_testgen::case(number);
    let path = Path::new(FOLDER).join(format!("case-{number}.onnxtxt"));
    fs::create_dir_all(FOLDER).map_err(|e| format!("{FOLDER}: {e}"))?;
    fcc_testgen::write(&case, &path)?;
    for (op, why) in &made.refused {
        println!("left out: {op}: {why}");
    }
    judged(&case, number).map(|()| format!("case {number} holds: {}", path.display()))
}

/// Runs the case of a file.
pub fn file(path: &Path, number: u64) -> Result<String, String> {
    let case = fcc_testgen::read(path)?;
    judged(&case, number).map(|()| format!("{} holds", path.display()))
}

fn judged(case: &Case, number: u64) -> Result<(), String> {
    match fcc_testgen::guarded(case, &options(number)) {
        Ok(_) => Ok(()),
        Err(Failure { kind, why }) => Err(format!("{kind}: {why}")),
    }
}

/// Runs cases in this process, telling the number of each before it runs and what each finds: what the child does.
pub fn child(options: &Options) -> Result<(), String> {
    fs::create_dir_all(FOLDER).map_err(|e| format!("{FOLDER}: {e}"))?;
    let mut run = Run { seen: read_corpus().into_values().flatten().collect(), alike: BTreeMap::new() };
    if options.corpus {
        for number in read_corpus().into_keys() {
            println!("again {number}");
            run.case(number)?;
        }
    }
    for number in options.first.. {
        println!("{number}");
        run.case(number)?;
    }
    Ok(())
}

/// The numbers of the corpus, and what each was the first to reach.
fn read_corpus() -> BTreeMap<u64, BTreeSet<String>> {
    let text = fs::read_to_string(Path::new(FOLDER).join("corpus.txt")).unwrap_or_default();
    let entry = |line: &str| {
        let (number, words) = line.split_once('\t')?;
        Some((number.parse().ok()?, words.split('\t').map(String::from).collect()))
    };
    text.lines().filter_map(entry).collect()
}

struct Run {
    seen: BTreeSet<String>,
    alike: BTreeMap<String, usize>,
}

impl Run {
    fn case(&mut self, number: u64) -> Result<(), String> {
        let (case, _) = fcc_testgen::case(number);
        match fcc_testgen::guarded(&case, &options(number)) {
            Ok(seen) => {
                let new: Vec<String> = seen.into_iter().filter(|w| !self.seen.contains(w)).collect();
                if !new.is_empty() {
                    append("corpus.txt", &format!("{number}\t{}", new.join("\t")))?;
                    self.seen.extend(new);
                }
                Ok(())
            }
            Err(failure) if fcc_testgen::open::is_open(&failure) => {
                println!("open {}", failure.kind);
                Ok(())
            }
            Err(failure) => self.find(number, &case, &failure),
        }
    }

    fn find(&mut self, number: u64, case: &Case, failure: &Failure) -> Result<(), String> {
        let looks: String = format!("{failure:?}").chars().filter(|c| !c.is_ascii_digit()).take(90).collect();
        let alike = self.alike.entry(looks).or_default();
        *alike += 1;
        if *alike > ALIKE {
            println!("alike {}", failure.kind);
            return Ok(());
        }
        let mut how = options(number);
        how.only = Some(failure.kind.clone());
        let fails = &mut |c: &Case| fcc_testgen::guarded(c, &how).is_err_and(|f| f.kind == failure.kind);
        let small = if fails(case) { fcc_testgen::shrink(case, SHRINKS, fails) } else { case.clone() };
        let why = fcc_testgen::guarded(&small, &how).err().map_or(failure.why.clone(), |f| f.why);
        match keep(number, &failure.kind, &why, &small)? {
            Some(path) => println!("find {number} {}: {why} {}", failure.kind, path.display()),
            None => println!("alike {}", failure.kind),
        }
        Ok(())
    }
}

/// Writes a find, unless one of the same law and operators is there already.
pub fn keep(number: u64, kind: &str, why: &str, case: &Case) -> Result<Option<PathBuf>, String> {
    let operators: Vec<String> = fcc_testgen::operators(&case.model).into_keys().collect();
    let name = format!("{kind} {}", operators.join(" "));
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = name.chars().map(word).take(120).collect();
    let path = Path::new(FOLDER).join(format!("{name}.onnxtxt"));
    if path.exists() || path.with_extension("onnx").exists() {
        return Ok(None);
    }
    fcc_testgen::write(case, &path)?;
    let again = format!("cargo xtask fuzz graphs --file {} --only {number}", path.display());
    append("finds.txt", &format!("{number}\t{kind}\t{}\t{again}", why.replace(['\n', '\t'], " ")))?;
    Ok(Some(path))
}

fn append(name: &str, line: &str) -> Result<(), String> {
    let path = Path::new(FOLDER).join(name);
    let said = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(said)?;
    writeln!(file, "{line}").map_err(said)
}
