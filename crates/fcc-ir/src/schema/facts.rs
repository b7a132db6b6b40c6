//! The form of the tables: what is fixed of an operator in one of its versions, built by short `const` functions so
//! that a row reads like a signature.
use crate::attr::AttrKind;
use crate::{DType, ValueType};
use std::fmt;

/// No upper limit of a number of inputs or outputs.
pub(crate) const MANY: usize = usize::MAX;

/// One version of an operator.
#[derive(Debug)]
pub(crate) struct OpFacts {
    pub domain: &'static str,
    pub name: &'static str,
    /// The opset that brought this version.
    pub since: i64,
    /// From this version on the operator is no more.
    pub deprecated: bool,
    /// Least and greatest number of inputs and outputs.
    pub inputs: (usize, usize),
    pub outputs: (usize, usize),
    pub attrs: &'static [AttrFacts],
    pub takes: &'static [Param],
    pub makes: &'static [Param],
}

/// An attribute.
#[derive(Debug)]
pub(crate) struct AttrFacts {
    pub name: &'static str,
    pub kind: AttrKind,
    pub required: bool,
}

/// How often a parameter stands in a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    One,
    /// It may be left out.
    Optional,
    /// The last parameter; all further inputs (outputs) are of it.
    Variadic,
}

/// An input or an output.
#[derive(Debug)]
pub(crate) struct Param {
    pub name: &'static str,
    pub times: Times,
    /// Parameters of one letter have one type; 0 is none, and so for a variadic one whose values differ in type.
    pub letter: u8,
    pub types: Types,
}

/// A set of types, by element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Types {
    /// Bit `d as u32` for each element type `d`.
    tensors: u32,
    sequences: u32,
    optionals: u32,
    optional_sequences: u32,
    /// Whether there are maps and sparse tensors too; they are not told apart.
    others: bool,
}

const fn bits(list: &[DType]) -> u32 {
    let (mut set, mut i) = (0, 0);
    while i < list.len() {
        set |= 1 << list[i] as u32;
        i += 1;
    }
    set
}

impl Types {
    pub const NONE: Types =
        Types { tensors: 0, sequences: 0, optionals: 0, optional_sequences: 0, others: false };
    pub const fn tensors(self, list: &[DType]) -> Types {
        Types { tensors: bits(list), ..self }
    }
    pub const fn sequences(self, list: &[DType]) -> Types {
        Types { sequences: bits(list), ..self }
    }
    pub const fn optionals(self, list: &[DType]) -> Types {
        Types { optionals: bits(list), ..self }
    }
    pub const fn optional_sequences(self, list: &[DType]) -> Types {
        Types { optional_sequences: bits(list), ..self }
    }
    pub const fn others(self) -> Types {
        Types { others: true, ..self }
    }
    /// These and those.
    pub const fn and(self, more: Types) -> Types {
        Types {
            tensors: self.tensors | more.tensors,
            sequences: self.sequences | more.sequences,
            optionals: self.optionals | more.optionals,
            optional_sequences: self.optional_sequences | more.optional_sequences,
            others: self.others || more.others,
        }
    }
    /// Whether a type is among these, as far as it is known. A value stands for an optional that holds it.
    pub fn has(&self, ty: &ValueType) -> bool {
        let (set, dtype) = match ty {
            ValueType::Unknown => return true,
            ValueType::Tensor(t) => (self.tensors | self.optionals, t.dtype),
            ValueType::Sequence(inner) => match &**inner {
                ValueType::Tensor(t) => (self.sequences | self.optional_sequences, t.dtype),
                ValueType::Unknown => return (self.sequences | self.optional_sequences) != 0 || self.others,
                _ => return self.others,
            },
            ValueType::Optional(inner) => match &**inner {
                ValueType::Tensor(t) => (self.optionals, t.dtype),
                ValueType::Unknown => return (self.optionals | self.optional_sequences) != 0,
                ValueType::Sequence(inner) => match &**inner {
                    ValueType::Tensor(t) => (self.optional_sequences, t.dtype),
                    _ => return self.optional_sequences != 0,
                },
                _ => return self.others,
            },
            ValueType::SparseTensor(_) | ValueType::Map(..) | ValueType::Opaque(..) => return self.others,
        };
        set & (1 << dtype as u32) != 0 || (dtype == DType::Undefined && set != 0)
    }
}

impl fmt::Display for Types {
    /// The element types, one form after the other: `float, double or sequences of float`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut forms = vec![];
        let named = [
            ("", self.tensors),
            ("sequences of ", self.sequences),
            ("optionals of ", self.optionals),
            ("optional sequences of ", self.optional_sequences),
        ];
        for (prefix, set) in named {
            let listed = DType::ALL.iter().filter(|d| set & (1 << **d as u32) != 0);
            let listed: Vec<&str> = listed.map(|d| d.name()).collect();
            if !listed.is_empty() {
                forms.push(format!("{prefix}{}", listed.join(", ")));
            }
        }
        if self.others {
            forms.push("maps or sparse tensors".into());
        }
        f.write_str(&forms.join(", or "))
    }
}

/// Domain, name and since-version.
type Version = (&'static str, &'static str, i64);

/// A version of an operator.
pub(crate) const fn op(
    (domain, name, since): Version,
    inputs: (usize, usize),
    outputs: (usize, usize),
    attrs: &'static [AttrFacts],
    takes: &'static [Param],
    makes: &'static [Param],
) -> OpFacts {
    OpFacts { domain, name, since, deprecated: false, inputs, outputs, attrs, takes, makes }
}

/// The version that ends an operator.
pub(crate) const fn deprecated((domain, name, since): Version) -> OpFacts {
    let none = (0, 0);
    OpFacts {
        domain,
        name,
        since,
        deprecated: true,
        inputs: none,
        outputs: none,
        attrs: &[],
        takes: &[],
        makes: &[],
    }
}

/// An attribute that may be left out.
pub(crate) const fn attr(name: &'static str, kind: AttrKind) -> AttrFacts {
    AttrFacts { name, kind, required: false }
}

/// An attribute that may not be left out.
pub(crate) const fn required(name: &'static str, kind: AttrKind) -> AttrFacts {
    AttrFacts { name, kind, required: true }
}

/// A parameter that is always there.
pub(crate) const fn one(name: &'static str, letter: u8, types: Types) -> Param {
    Param { name, times: Times::One, letter, types }
}

/// A parameter that may be left out.
pub(crate) const fn optional(name: &'static str, letter: u8, types: Types) -> Param {
    Param { name, times: Times::Optional, letter, types }
}

/// A last parameter that may stand any number of times.
pub(crate) const fn variadic(name: &'static str, letter: u8, types: Types) -> Param {
    Param { name, times: Times::Variadic, letter, types }
}
