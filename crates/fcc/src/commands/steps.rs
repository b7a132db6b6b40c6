//! What commands say of the steps of a plan.
use fcc_jit::{StepInfo, Work};
use serde_json::{Value as Json, json};

/// A step as JSON.
pub fn as_json(step: &StepInfo) -> Json {
    let mut json = json!({
        "place": step.place,
        "op": step.ops(),
        "nodes": step.nodes.iter().map(|n| json!({ "name": n.name, "op_type": n.op_type })).collect::<Vec<_>>(),
        "kernel": step.kernel,
        "interpreted": step.is_interpreted(),
        "output": step.output,
        "why": step.why,
        "tuned": step.tuned.map(|c| json!({
            "way": c.way.to_string(), "ns": c.ns, "estimate": c.estimate.to_string(), "estimate_ns": c.estimate_ns,
        })),
        "flops": step.flops,
        "read_bytes": step.read_bytes,
        "written_bytes": step.written_bytes,
        "tasks": step.tasks,
        "arena_in_use_bytes": step.arena_in_use_bytes,
    });
    match &step.work {
        Work::Reorder { value, from, to } => {
            json["reorder"] = json!({ "value": value, "from": from, "to": to });
        }
        Work::Interpret { why } => json["why"] = json!(why.to_string()),
        Work::Compute | Work::Border => {}
    }
    json
}

/// What a step is there for, in a few words: ``Conv+Relu `conv1` ``, ``reorder for Conv `conv1` ``.
pub fn title(step: &StepInfo) -> String {
    let name = step.nodes.first().map_or("", |n| n.name.as_str());
    match &step.work {
        Work::Compute | Work::Interpret { .. } if step.nodes.is_empty() => step.place.clone(),
        Work::Compute | Work::Interpret { .. } => format!("{} `{name}`", step.ops()),
        Work::Reorder { .. } | Work::Border if step.nodes.is_empty() => {
            format!("{} for an output", step.ops())
        }
        Work::Reorder { .. } | Work::Border => {
            let op = step.nodes.first().map_or("", |n| n.op_type.as_str());
            format!("{} for {op} `{name}`", step.ops())
        }
    }
}

/// Bytes as MB with the digits that matter.
pub fn megabytes(bytes: u64) -> String {
    let mb = bytes as f64 / 1e6;
    if mb >= 100.0 {
        format!("{mb:.0}")
    } else if mb >= 1.0 {
        format!("{mb:.1}")
    } else {
        format!("{mb:.3}")
    }
}

/// A text cut to a number of characters.
pub fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
