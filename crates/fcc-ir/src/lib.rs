//! The IR of fcc: ONNX graphs over petgraph, the operators, the reference interpreter.
//!
//! - [`Model`] holds a [`Graph`] and functions; everything a file says is kept.
//! - [`Graph`]: nodes are inputs, constants, captures and operators; edges say which output feeds which slot.
//! - [`ops`]: one module for each operator (or family), listed once in `ops/mod.rs`; each gives an
//!   [`Operator`](op::Operator): schema, shape inference, reference evaluation.
//! - [`infer`](infer::infer), [`verify`](verify::verify), [`interp`]: analyses that read the same list.
//!
//! This crate knows nothing of protobuf, files or machine code, and has no `unsafe`.
#![forbid(unsafe_code)]

pub mod attr;
pub mod compare;
pub mod convert;
mod dim;
mod dtype;
mod error;
mod graph;
pub mod infer;
pub mod interp;
pub mod limits;
mod model;
pub mod op;
pub mod ops;
mod printable;
pub mod random;
pub mod schema;
mod string_list;
pub mod summary;
mod tensor;
pub mod text;
mod types;
pub mod verify;

pub use bytes::Bytes;
pub use dim::{Bindings, Dim, DimExpr};
pub use dtype::DType;
pub use error::{At, Error, Result};
pub use graph::{
    Effects, Graph, GraphInput, GraphOutput, Listed, Names, NewNode, Node, NodeId, NodeKind, OpNode, Opsets,
    Output, Owner, QuantAnnotation, Slot, ValueId,
};
pub use half;
pub use limits::{CancelToken, RunLimits, Stopped};
pub use model::{Function, Model};
pub use ops::Op;
pub use printable::{is_hidden, printable, printable_json};
pub use string_list::StringList;
pub use tensor::{Elem, SparseTensor, Tensor, Value, elem_count};
pub use types::{Shape, TensorType, ValueInfo, ValueType};
