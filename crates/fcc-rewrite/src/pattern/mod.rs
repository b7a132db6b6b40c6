//! Patterns: expressions over operators and named variables.
//!
//! A pattern is written as the value that it describes. `&x * 0.5 * (1.0 + op(Op::Erf, [&x / SQRT_2]))` is GELU, in any
//! order of its factors and summands: operands of commutative operators are tried in each order, chains of an
//! associative operator in each grouping. The matcher knows once for all rules what is no match: a node that calls a
//! model's own function of the same name, a constant that callers may override, an input that is left out.
//!
//! ```
//! use fcc_ir::Op;
//! use fcc_rewrite::pattern::{PatternRule, any, op};
//!
//! let x = any("x");
//! let rule = PatternRule::new("relu-of-relu", "`Relu(Relu(x)) => Relu(x)`", op(Op::Relu, [op(Op::Relu, [x])]))
//!     .build(|m, b| b.op("Relu", "relu", &[m.value("x")?], Default::default()));
//! ```
mod matched;
mod matcher;
mod rule;

pub use matched::Matched;
pub use rule::PatternRule;

use fcc_ir::Op;
use fcc_ir::attr::AttrValue;
use std::ops::{Add, Div, Mul, Sub};
use std::sync::Arc;

/// An expression that describes values. Cheap to clone; a part may stand in several places.
#[derive(Clone)]
pub struct Pat(Arc<Kind>);

enum Kind {
    Any(String),
    Constant(String),
    Number(f64),
    Absent,
    Node(NodePat),
    Or(Vec<Pat>),
}

#[derive(Clone)]
struct NodePat {
    which: Which,
    inputs: Vec<Pat>,
    /// Which output of the node the value is.
    output: u32,
    attrs: Vec<AttrTest>,
    name: Option<String>,
    once: bool,
}

#[derive(Clone)]
enum Which {
    /// One of these operators.
    Known(Vec<Op>),
    /// An operator that fcc does not know: domain and name.
    Named(String, String),
}

#[derive(Clone)]
struct AttrTest {
    name: String,
    value: AttrValue,
    /// Whether the attribute may be left out.
    or_absent: bool,
}

/// Any value. In two places of a pattern, the same value (or constants that are equal).
pub fn any(name: &str) -> Pat {
    Pat(Arc::new(Kind::Any(name.into())))
}
/// A constant tensor that callers cannot override.
pub fn constant(name: &str) -> Pat {
    Pat(Arc::new(Kind::Constant(name.into())))
}
/// A constant of one element that is this number, up to the rounding of its type.
pub fn num(value: f64) -> Pat {
    Pat(Arc::new(Kind::Number(value)))
}
/// An optional input that is left out.
pub fn absent() -> Pat {
    Pat(Arc::new(Kind::Absent))
}
/// The first output of an operator with these inputs; inputs behind them are left out.
pub fn op(op: Op, inputs: impl IntoIterator<Item = Pat>) -> Pat {
    op_in([op], inputs)
}
/// The same of one of several operators.
pub fn op_in(ops: impl IntoIterator<Item = Op>, inputs: impl IntoIterator<Item = Pat>) -> Pat {
    node(Which::Known(ops.into_iter().collect()), inputs)
}
/// The same of an operator that fcc does not know, by domain and name.
pub fn op_named(domain: &str, op_type: &str, inputs: impl IntoIterator<Item = Pat>) -> Pat {
    node(Which::Named(domain.into(), op_type.into()), inputs)
}

fn node(which: Which, inputs: impl IntoIterator<Item = Pat>) -> Pat {
    let inputs = inputs.into_iter().collect();
    Pat(Arc::new(Kind::Node(NodePat { which, inputs, output: 0, attrs: vec![], name: None, once: false })))
}

impl Pat {
    /// Another output of the node.
    pub fn output(self, index: u32) -> Pat {
        self.change(|n| n.output = index)
    }
    /// Gives the node a name, under which [`Matched::node`] and [`Matched::value`] know it.
    pub fn named(self, name: &str) -> Pat {
        self.change(|n| n.name = Some(name.into()))
    }
    /// The value has no other use: the node goes away with the match.
    pub fn once(self) -> Pat {
        self.change(|n| n.once = true)
    }
    /// An attribute that is there and has this value.
    pub fn attr(self, name: &str, value: impl Into<AttrValue>) -> Pat {
        let test = AttrTest { name: name.into(), value: value.into(), or_absent: false };
        self.change(|n| n.attrs.push(test))
    }
    /// An attribute that has this value, or is left out, which means the same.
    pub fn attr_default(self, name: &str, value: impl Into<AttrValue>) -> Pat {
        let test = AttrTest { name: name.into(), value: value.into(), or_absent: true };
        self.change(|n| n.attrs.push(test))
    }
    /// This or that, tried in this order.
    pub fn or(self, other: Pat) -> Pat {
        let mut all = match &*self.0 {
            Kind::Or(all) => all.clone(),
            _ => vec![self],
        };
        all.push(other);
        Pat(Arc::new(Kind::Or(all)))
    }
    /// Variables and alternatives have no node to change and stay as they are.
    fn change(self, change: impl FnOnce(&mut NodePat)) -> Pat {
        match &*self.0 {
            Kind::Node(node) => {
                let mut node = node.clone();
                change(&mut node);
                Pat(Arc::new(Kind::Node(node)))
            }
            _ => self,
        }
    }
    /// The number of nodes that a match has at least.
    fn nodes(&self) -> usize {
        match &*self.0 {
            Kind::Node(n) => 1 + n.inputs.iter().map(Pat::nodes).sum::<usize>(),
            Kind::Or(all) => all.iter().map(Pat::nodes).min().unwrap_or(0),
            Kind::Any(_) | Kind::Constant(_) | Kind::Number(_) | Kind::Absent => 0,
        }
    }
}

impl From<&Pat> for Pat {
    fn from(pat: &Pat) -> Pat {
        pat.clone()
    }
}
impl From<f64> for Pat {
    fn from(value: f64) -> Pat {
        num(value)
    }
}

/// `pattern op pattern`, with references and numbers on either side.
macro_rules! operators {
    ($($trait:ident $method:ident;)*) => { $(
        impl<P: Into<Pat>> $trait<P> for Pat {
            type Output = Pat;
            fn $method(self, other: P) -> Pat {
                op(Op::$trait, [self, other.into()])
            }
        }
        impl<P: Into<Pat>> $trait<P> for &Pat {
            type Output = Pat;
            fn $method(self, other: P) -> Pat {
                op(Op::$trait, [self.clone(), other.into()])
            }
        }
        impl $trait<Pat> for f64 {
            type Output = Pat;
            fn $method(self, other: Pat) -> Pat {
                op(Op::$trait, [num(self), other])
            }
        }
        impl $trait<&Pat> for f64 {
            type Output = Pat;
            fn $method(self, other: &Pat) -> Pat {
                op(Op::$trait, [num(self), other.clone()])
            }
        }
    )* };
}
operators! { Add add; Sub sub; Mul mul; Div div; }
