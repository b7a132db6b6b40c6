//! Plans as text: one line a step.
use super::{Action, Arg, At, Output, Plan, Src};
use fcc_ir::printable;
use std::fmt;

impl fmt::Display for Src {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Src::Slot(i, _) => write!(f, "%{i}"),
            Src::Const(i, _) => write!(f, "#{i}"),
            Src::Bytes(arg, dtype, shape) => write!(f, "{arg}: {dtype}{shape:?}"),
        }
    }
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Slot(i) => write!(f, "%{i}"),
            At::Const(i) => write!(f, "#{i}"),
            At::Arena => write!(f, "@{}+{}", self.offset, self.bytes),
            At::Output(i) => write!(f, "out{i}"),
            At::Buffer(i) => write!(f, "buffer{i}"),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Value(src) => write!(f, "{src}"),
            Output::Made { arg, dtype, shape, .. } => write!(f, "{arg}: {dtype}{shape:?}"),
        }
    }
}

fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.interpreted {
            return writeln!(f, "interpret everything: {}", printable(why));
        }
        for step in &self.steps {
            match &step.action {
                Action::Interpret(i) => {
                    let made = i.outputs.iter().flatten().map(|(slot, ty)| format!("%{slot}: {ty}"));
                    let read = i.inputs.iter().map(|s| s.as_ref().map_or("_".into(), |s| s.to_string()));
                    let how = if i.bodies.is_empty() { "interpret " } else { "" };
                    write!(f, "{} = {how}{} {}", list(made), printable(&i.op.op_type), list(read))?;
                    if !i.captures.is_empty() {
                        write!(f, " captures {}", list(&i.captures))?;
                    }
                }
                Action::Host(h) => {
                    write!(f, "{}: {} {}", h.host.name(), list(&h.reads), h.write)?;
                }
                Action::Run(r) => {
                    write!(f, "{}: {}", step.info.kernel, list(&r.args))?;
                    if step.info.tasks > 1 && !self.alone {
                        write!(f, " in {} tasks", step.info.tasks)?;
                    }
                }
            }
            writeln!(f, "  // {}", printable(&step.info.place))?;
        }
        writeln!(f, "arena of {} bytes", self.arena_bytes)?;
        writeln!(f, "outputs {}", list(&self.outputs))?;
        if self.tail.is_some() {
            writeln!(f, "then a region whose shapes depend on data")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
