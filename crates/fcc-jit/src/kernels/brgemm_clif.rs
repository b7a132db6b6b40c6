//! The micro-kernel in CLIF.

use super::brgemm::Brgemm;
use crate::error::{Error, Result};
use crate::module::Emitter;
use cranelift_module::{FuncId, Module};

pub(super) fn define<M: Module>(_e: &mut Emitter<M>, _s: &Brgemm) -> Result<FuncId> {
    Err(Error::unsupported("matrix product", "the level is baseline"))
}
