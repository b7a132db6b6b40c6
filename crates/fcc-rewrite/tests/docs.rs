//! `docs/rules/` is what the rules say of themselves. `FCC_BLESS=1 cargo test -p fcc-rewrite --test docs` writes it.
use fcc_rewrite::Registry;
use fcc_rewrite::passes::{Pass, PassKind};
use fcc_rewrite::registry::{DEFAULT, NONE};
use std::collections::BTreeMap;
use std::path::Path;

/// One page: the rule's own documentation under its name.
fn page(name: &str, doc: &str) -> String {
    let body: Vec<&str> = doc.trim().lines().map(|l| l.strip_prefix(' ').unwrap_or(l)).collect();
    let body = body.join("\n").replace("\n# ", "\n## ");
    format!("# {name}\n\n{}\n", body.trim())
}

/// The list of rules and groups, and the report's fields.
fn index() -> String {
    let mut text =
        String::from("# Rules\n\n`fcc rules NAME` prints a page; `fcc rewrite --rule NAME` applies it.\n\n");
    let registry = Registry::builtin();
    for r in registry.rules() {
        let law = r.doc().trim().lines().next().unwrap_or_default().trim();
        text += &format!("- [{0}]({0}.md): {law}\n", r.name());
    }
    text += "\n## Pipelines\n\n";
    for pipeline in registry.pipelines().filter(|p| p.name != DEFAULT) {
        let steps: Vec<String> = registry.passes(&pipeline.name).unwrap().iter().map(step).collect();
        text += &format!("- `{}`: {}\n", pipeline.name, steps.join("; then "));
    }
    let default: Vec<String> = registry.passes(DEFAULT).unwrap().into_iter().map(|p| p.name).collect();
    text += &format!("\nWithout `--rule` (`{DEFAULT}`): {}.\n", default.join(", "));
    text + include_str!("report.md")
}

/// What a pass does, in words.
fn step(pass: &Pass) -> String {
    match &pass.kind {
        PassKind::RemoveUnused => "what no output needs is removed".into(),
        PassKind::Rules { rules, repeat } => {
            let names: Vec<&str> = rules.iter().map(|r| r.name()).collect();
            format!("{}{}", names.join(", else "), if *repeat { ", until nothing changes" } else { "" })
        }
    }
}

#[test]
fn pages_are_what_the_rules_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules");
    let mut want: BTreeMap<String, String> =
        Registry::builtin().rules().map(|r| (format!("{}.md", r.name()), page(r.name(), r.doc()))).collect();
    want.insert("README.md".into(), index());
    if std::env::var_os("FCC_BLESS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in &want {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().to_string();
        found.insert(name, std::fs::read_to_string(path).unwrap());
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    for (name, text) in &want {
        assert_eq!(&found[name], text, "docs/rules/{name}: bless with FCC_BLESS=1");
    }
}

#[test]
fn every_rule_says_its_law_what_why_an_example_and_when_it_declines() {
    for r in Registry::builtin().rules() {
        let doc = r.doc();
        let law = doc.trim().lines().next().unwrap();
        assert!(law.contains('`') && law.contains("=>"), "{}: {law}", r.name());
        for part in ["# What", "# Why", "# Example", "# Declines"] {
            assert!(doc.contains(part), "{} has no {part}", r.name());
        }
    }
}

#[test]
fn names_are_unique_and_each_names_a_pass() {
    let registry = Registry::builtin();
    let mut all: Vec<&str> = registry.names().collect();
    all.sort_unstable();
    assert!(all.windows(2).all(|w| w[0] != w[1]), "{all:?}");
    assert!(all.iter().all(|n| registry.passes(n).is_ok_and(|p| !p.is_empty())));
    assert!(registry.passes(NONE).unwrap().is_empty() && registry.passes("no-such-rule").is_err());
}
