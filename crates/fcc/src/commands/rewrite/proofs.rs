//! `--prove`: the proofs of the rewrites of linear layers.
use super::super::Failure;
use super::super::out::{Out, complain, grouped};
use fcc_rewrite::prove::{self, Method, PROBES, Proof};
use fcc_rewrite::{Outcome, Report, Row, Site};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

/// What was proved, and the first proof that failed.
#[derive(Default)]
pub struct Proofs {
    made: Vec<Proof>,
    /// Rules that replace linear nodes, of those that matched.
    linear: BTreeSet<String>,
    failed: Option<String>,
}

impl Proofs {
    /// Proves the rewrite of a match. Errors where the two layers differ, which ends the run.
    pub fn add(&mut self, site: &Site<'_>) -> fcc_ir::Result<()> {
        if site.rule.traits().linear {
            self.linear.insert(site.rule.name().into());
        }
        match prove::prove(site) {
            Ok(proof) => {
                self.made.extend(proof);
                Ok(())
            }
            Err(e) if e.is_stopped() => Err(e),
            Err(e) => {
                self.failed = Some(e.to_string());
                Err(e)
            }
        }
    }

    /// Why a proof failed.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Says which layer was proved and how; errs if one could not be.
    pub fn tell(&self, out: &mut Out, report: &Report, quiet: bool) -> Result<(), Failure> {
        let mut unproved = false;
        for row in self.linear(report) {
            match self.of(row) {
                Some(_) if quiet => {}
                Some(proof) => {
                    out.line(format_args!("proved: {} ({}): {}", place(row), row.rule, how(proof)))?
                }
                None => {
                    unproved = true;
                    let why = "got an input of unknown rank, wanted a known one";
                    complain(&format!("proof: {} ({}): {why}", place(row), row.rule));
                }
            }
        }
        if unproved { Err(Failure::Check) } else { Ok(()) }
    }

    /// One object for each linear layer that was rewritten; `proof` is null where none was possible.
    pub fn as_json(&self, report: &Report) -> Json {
        let rows = self.linear(report).map(|row| {
            json!({ "graph": row.graph, "node": row.node, "rule": row.rule,
                "proof": self.of(row).map(|p| json!({ "method": p.method, "coefficients": p.coefficients })) })
        });
        rows.collect()
    }

    /// The rows of linear layers that were rewritten.
    fn linear<'a>(&'a self, report: &'a Report) -> impl Iterator<Item = &'a Row> {
        let rows = report.rows.iter().filter(|r| r.outcome == Outcome::Rewritten);
        rows.filter(|r| self.linear.contains(&r.rule))
    }

    fn of(&self, row: &Row) -> Option<&Proof> {
        self.made.iter().rfind(|p| (&p.rule, &p.graph, &p.node) == (&row.rule, &row.graph, &row.node))
    }
}

fn place(row: &Row) -> String {
    if row.graph.is_empty() { row.node.clone() } else { format!("{}: {}", row.graph, row.node) }
}

fn how(proof: &Proof) -> String {
    let n = grouped(usize::try_from(proof.coefficients).unwrap_or(usize::MAX));
    match proof.method {
        Method::Basis => format!("all {n} coefficients are equal"),
        Method::Probes => format!("equal on {PROBES} exact integer vectors, of {n} coefficients"),
    }
}
