//! The generators of operators. A new operator is one line in a table of its topic's file.
mod chains;
mod control;
mod elementwise;
mod index;
mod learning;
mod linear;
mod microsoft;
mod movement;
mod network;
mod pool;
mod quant;
mod reduce;
mod sequence;
mod special;

use crate::build::Build;
use crate::draw::once_in;
use fcc_ir::{DType, Op};

/// Adds nodes of an operator to a model, with inputs that fit. `None` if that did not come about.
pub type Make = fn(&mut Build, Op) -> Option<()>;

/// An operator and its generator.
#[derive(Clone, Copy)]
pub struct Maker {
    /// The operator.
    pub op: Op,
    /// Its generator.
    pub make: Make,
}

/// A generator of the operator of this domain and name.
pub(crate) type Named = (&'static str, &'static str, Make);

/// The tables of all topics.
const TABLES: &[&[(Op, Make)]] = &[
    control::TABLE,
    elementwise::TABLE,
    index::TABLE,
    linear::TABLE,
    movement::TABLE,
    network::TABLE,
    pool::TABLE,
    quant::TABLE,
    reduce::TABLE,
    sequence::TABLE,
    special::TABLE,
];

/// Why two engines need not give the same.
const DRAWS: &str = "it draws: two engines need not draw the same";
/// Why a graph has none of these.
const MAPS: &str = "its input is a map, which no input of a generated graph is; scripts/ml_cases.py has it compared with ONNX Runtime";

/// Operators without a generator, by domain and name, with the reason.
pub const WITHOUT: &[(&str, &str, &str)] = &[
    ("", "Bernoulli", DRAWS),
    ("", "Multinomial", DRAWS),
    ("", "RandomNormal", DRAWS),
    ("", "RandomNormalLike", DRAWS),
    ("", "RandomUniform", DRAWS),
    ("", "RandomUniformLike", DRAWS),
    ("ai.onnx.ml", "CastMap", MAPS),
    ("ai.onnx.ml", "DictVectorizer", MAPS),
    (
        "com.microsoft",
        "NGramRepeatBlock",
        "no generator yet; scripts/microsoft.py compares it with ONNX Runtime",
    ),
    (
        "com.microsoft",
        "GatherBlockQuantized",
        "no generator yet; scripts/microsoft.py compares it with ONNX Runtime",
    ),
];

/// Why an operator has no generator, if there is a reason.
pub fn reason(op: Op) -> Option<&'static str> {
    let schema = op.schema()?;
    let of = |(domain, name, _): &&(&str, &str, &str)| (*domain, *name) == (schema.domain, schema.name);
    WITHOUT.iter().find(of).map(|(_, _, why)| *why)
}

/// Every generator.
pub fn all() -> Vec<Maker> {
    let named = microsoft::TABLE
        .iter()
        .chain(learning::TABLE)
        .map(|(domain, name, make)| Maker { op: Op::lookup(domain, name), make: *make });
    let typed = TABLES.iter().flat_map(|t| t.iter()).map(|(op, make)| Maker { op: *op, make: *make });
    typed.chain(named.filter(|m| m.op != Op::Opaque)).collect()
}

/// Adds some operator, or a chain that is compiled as one.
pub fn add_any(b: &mut Build) -> Option<()> {
    thread_local!(static ALL: Vec<Maker> = all());
    if once_in(&mut b.r, 4) {
        return crate::draw::one(&mut b.r, chains::CHAINS)(b);
    }
    if once_in(&mut b.r, 4) {
        // what models consist of most
        let table = *crate::draw::one(&mut b.r, &[linear::TABLE, elementwise::TABLE, movement::TABLE]);
        let (op, make) = *crate::draw::one(&mut b.r, table);
        return make(b, op);
    }
    let Maker { op, make } = ALL.with(|all| *crate::draw::one(&mut b.r, all));
    make(b, op)
}

/// Floats that operators compute in.
pub(crate) const FLOATS: &[DType] = &[DType::F32, DType::F64, DType::F16, DType::BF16];
/// Floats before bfloat16.
pub(crate) const OLD_FLOATS: &[DType] = &[DType::F32, DType::F64, DType::F16];
/// Integers of 8 bits and more.
pub(crate) const INTS: &[DType] =
    &[DType::I64, DType::I32, DType::I8, DType::U8, DType::I16, DType::U16, DType::U32, DType::U64];
/// Floats and integers.
pub(crate) const NUMBERS: &[DType] = &[
    DType::F32,
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I64,
    DType::I32,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::U16,
    DType::U32,
    DType::U64,
];
/// Everything that can be moved about.
pub(crate) const ANY: &[DType] = &[
    DType::F32,
    DType::F32,
    DType::F64,
    DType::F16,
    DType::BF16,
    DType::I64,
    DType::I32,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::Bool,
    DType::String,
    DType::C64,
    DType::C128,
];
/// What only later opsets move about: 8-bit floats and 4-bit numbers.
pub(crate) const NARROW: &[DType] =
    &[DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::U4, DType::I4];

/// Types that can be moved about at this opset.
pub(crate) fn movable(b: &mut Build) -> &'static [DType] {
    if b.opset >= 21 && once_in(&mut b.r, 6) { NARROW } else { ANY }
}
