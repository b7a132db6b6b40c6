//! AMX for tests: by the CPU, or by catching its instructions.
pub mod tiles;
mod trap;

// each test uses its own part
#[allow(unused_imports)]
pub use trap::{Amx, amx, assert_released, caught};
