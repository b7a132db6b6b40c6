//! What `--help` says, as snapshots (`INSTA_UPDATE=always cargo test -p fcc --test help` takes new ones).
mod common;

#[test]
fn help_of_every_command() {
    let commands = [
        "",
        "rewrite",
        "run",
        "bench",
        "profile",
        "explain",
        "test",
        "print",
        "summary",
        "rules",
        "completions",
    ];
    for command in commands {
        let args = [command, "--help"];
        let answer = common::fcc(args.iter().filter(|a| !a.is_empty())).ok();
        let name = if command.is_empty() { "fcc" } else { command };
        insta::assert_snapshot!(name, answer.stdout);
    }
}
