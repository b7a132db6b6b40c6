//! Kernels: plain problem structs in, step functions out. Nothing here knows of graphs.
//!
//! Each problem struct has `build(emitter, threads) -> Kernel`; the kernel lists its operands, whose sizes the caller
//! checks through [`crate::module::Step::run`]. Everything but the pointers is a constant of the code.

pub mod activation;
pub mod amx;
pub mod brgemm;
pub mod channels;
pub mod clif;
pub mod conv;
pub mod conv_transpose;
pub mod copy;
pub mod cut;
pub mod elem;
pub mod ew;
pub mod gemm;
pub mod global_pool;
pub mod halo;
pub mod int8;
pub mod lanewise;
pub mod layout;
pub mod narrow;
pub mod nest;
pub mod pack;
pub mod recurrent;
pub mod reorder;
pub mod resize;
pub mod rows;
pub mod softmax;
pub mod split;
pub mod tile;
mod walk;
pub mod winograd;
pub mod zero;
