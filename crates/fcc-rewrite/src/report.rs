//! What a run of passes did: one row for each candidate node, as a table and as JSON.
use crate::rule::Declined;
use fcc_ir::printable;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Bytes and elements of constants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Bytes.
    pub bytes: u64,
    /// Elements.
    pub elements: u64,
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The rule's replacement stands in its place.
    Rewritten,
    /// It is as it was.
    Declined,
}

/// A rule of the same pass that declined before another rule rewrote or declined too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The rule.
    pub rule: String,
    /// Why it declined.
    pub reason: Declined,
}

/// One candidate node of one pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The pass.
    pub pass: String,
    /// The rule that rewrote it, or the last one that declined.
    pub rule: String,
    /// The graph: empty for the main graph, else the path of owners, `if1.then_branch` or `function f`.
    pub graph: String,
    /// Name of the node, or of its first output where it has none.
    pub node: String,
    /// Operator of the node.
    pub op: String,
    /// Rewritten or declined.
    pub outcome: Outcome,
    /// Number of this rewrite in the run, counted from 1: what `stop_after` and bisection speak of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub number: Option<u64>,
    /// Why the rule declined.
    pub reason: Option<Declined>,
    /// Rules of the pass that declined before.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub tried: Vec<Attempt>,
    /// Constants that the replaced nodes read, or the candidate reads.
    pub before: Size,
    /// Constants that the new nodes read.
    pub after: Option<Size>,
    /// Names of the nodes that stand in its place.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub made: Vec<String>,
}

/// The whole of a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassSummary {
    /// The pass.
    pub pass: String,
    /// Candidates rewritten.
    pub rewritten: usize,
    /// Candidates left alone.
    pub declined: usize,
    /// Operators of the model before, subgraphs and functions included.
    pub nodes_before: usize,
    /// Operators after.
    pub nodes_after: usize,
    /// Constants before.
    pub constants_before: Size,
    /// Constants after.
    pub constants_after: Size,
}

/// What a run of passes did. Field names are stable: `--report` writes this as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One summary for each pass, in order.
    pub passes: Vec<PassSummary>,
    /// One row for each candidate, by pass and by place in the file.
    pub rows: Vec<Row>,
}

impl Report {
    /// Rows of what was rewritten by a rule.
    pub fn rewritten<'a>(&'a self, rule: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |r| r.rule == rule && r.outcome == Outcome::Rewritten)
    }
    /// Rows of what was declined by a rule.
    pub fn declined<'a>(&'a self, rule: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |r| r.rule == rule && r.outcome == Outcome::Declined)
    }
    /// The report as JSON, indented, with a final newline.
    pub fn to_json(&self) -> String {
        // strings, numbers and lists only: serialisation has no way to fail
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
    /// The report as a table for a terminal: one line a candidate, then one line a pass.
    pub fn to_table(&self) -> String {
        self.to_string()
    }
}

/// Bytes as people read them: `1.5 MiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let graph = if self.graph.is_empty() { String::new() } else { format!("{}: ", self.graph) };
        let size = match self.after {
            Some(after) => format!("{} -> {}", bytes_text(self.before.bytes), bytes_text(after.bytes)),
            None => bytes_text(self.before.bytes),
        };
        let mut what = match (&self.reason, self.made.as_slice()) {
            (Some(reason), _) => format!("declined: {reason}"),
            (None, []) => "removed".into(),
            (None, made) if made.len() > 12 => {
                format!("-> {} … ({} nodes)", made[..3].join(", "), made.len())
            }
            (None, made) => format!("-> {}", made.join(", ")),
        };
        for t in &self.tried {
            let _ = write!(what, " ({} declined: {})", t.rule, t.reason);
        }
        [self.rule.clone(), format!("{graph}{}", self.node), self.op.clone(), size, what]
            .map(|cell| printable(&cell).into_owned())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["rule", "node", "operator", "constants", "result"].map(String::from);
        let rows: Vec<[String; 5]> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let mut width = [0usize; 4];
        for row in &rows {
            for (w, cell) in width.iter_mut().zip(row) {
                *w = (*w).max(cell.chars().count());
            }
        }
        if rows.len() > 1 {
            for row in &rows {
                for (w, cell) in width.iter().zip(row) {
                    write!(f, "{cell:w$}  ", w = *w)?;
                }
                writeln!(f, "{}", row[4])?;
            }
        }
        let active = self.passes.iter().filter(|p| p.rewritten + p.declined > 0);
        for p in active {
            writeln!(
                f,
                "{}: {} rewritten, {} declined; {} -> {} nodes, constants {} -> {}",
                p.pass,
                p.rewritten,
                p.declined,
                p.nodes_before,
                p.nodes_after,
                bytes_text(p.constants_before.bytes),
                bytes_text(p.constants_after.bytes),
            )?;
        }
        Ok(())
    }
}
