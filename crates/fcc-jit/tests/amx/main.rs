//! Kernels of AMX tiles: on hardware that has them, else with their instructions caught and emulated; without AVX-512
//! each test says that it is skipped.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../common/mod.rs"]
mod common;

mod bytes;
mod emulator;
mod f32s;
mod models;
