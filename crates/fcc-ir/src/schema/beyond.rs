//! Where fcc computes element types that ONNX's text does not allow, because ONNX Runtime does and models in use depend
//! on it. Each entry has its reason; nothing else goes beyond the generated tables.
use super::facts::{OpFacts, Types};

/// Element types that a parameter of an operator of `ai.onnx` takes beside those of ONNX: operator, parameter, types.
static WIDER: &[(&str, &str, Types)] = &[];

/// The further types of a parameter of an operator of `ai.onnx`.
pub(super) fn types(facts: &OpFacts, param: &str) -> Types {
    let of = |(name, p, _): &&(&str, &str, Types)| *name == facts.name && *p == param;
    if !facts.domain.is_empty() {
        return Types::NONE;
    }
    WIDER.iter().filter(of).fold(Types::NONE, |all, (_, _, types)| all.and(*types))
}
