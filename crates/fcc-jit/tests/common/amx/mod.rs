//! AMX for tests: by the CPU, or by catching its instructions.
pub mod tiles;
mod trap;

pub use trap::{Amx, amx, assert_released, caught};
