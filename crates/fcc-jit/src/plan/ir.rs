//! What a specialised graph becomes before code is made: values of known shape, and nodes whose kind says how they
//! will be computed. Passes rewrite it; it is private to compilation.
use super::info::NodeInfo;
use crate::declined::Declined;
use crate::host::Host;
use crate::kernels::activation::Activation;
use crate::kernels::elem::Elem;
use crate::kernels::ew::Expr;
use crate::kernels::int8::Zero;
use crate::kernels::recurrent::Recurrence;
use crate::kernels::rows::Fold;
use fcc_ir::{DType, NodeId, OpNode, Tensor, ValueType, elem_count};
use std::collections::HashMap;
use std::sync::Arc;

/// A value of a [`Program`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Vx(pub u32);

impl Vx {
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// A value: its type, and its data if it is the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Val {
    pub name: String,
    pub ty: ValueType,
    pub constant: Option<Tensor>,
    /// Element type and extents of a dense tensor of known shape and fixed element size.
    pub dense: Option<(DType, Vec<usize>)>,
    /// What a constant was dequantised from.
    pub dequantised: Option<Dequantised>,
}

/// `(tensor - zero) * scale`: one scale and zero point for all, or one for each index of an axis.
#[derive(Debug, Clone)]
pub(crate) struct Dequantised {
    /// 8-bit.
    pub tensor: Tensor,
    pub scale: Vec<f32>,
    pub zero: Vec<i32>,
    /// The axis, if they are not numbers.
    pub axis: Option<usize>,
}

impl Val {
    pub fn new(name: String, ty: ValueType, constant: Option<Tensor>) -> Val {
        let dense = ty.as_tensor().and_then(|t| {
            let shape = t.known_shape()?;
            t.dtype.byte_len(elem_count(&shape).ok()?)?;
            Some((t.dtype, shape))
        });
        Val { name, ty, constant, dense, dequantised: None }
    }
    /// The element type, if it is one of kernels' operands.
    pub fn elem(&self) -> Option<Elem> {
        match self.dense.as_ref()?.0 {
            DType::F32 => Some(Elem::F32),
            DType::I32 => Some(Elem::I32),
            DType::U8 => Some(Elem::U8),
            DType::I8 => Some(Elem::I8),
            _ => None,
        }
    }
    /// The extents of an f32 tensor of known shape.
    pub fn f32_shape(&self) -> Option<&[usize]> {
        self.dense.as_ref().filter(|d| d.0 == DType::F32).map(|d| &d.1[..])
    }
}

/// A convolution; kernel, strides, … as `[D, H, W]` with leading 1s. Inputs: x, w (constant), then the bias
/// (constant) and the residual if there are such.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConvNode {
    pub kernel: [usize; 3],
    pub strides: [usize; 3],
    pub dilations: [usize; 3],
    pub pads_begin: [usize; 3],
    pub pads_end: [usize; 3],
    pub group: usize,
    pub bias: bool,
    pub residual: bool,
    pub activation: Option<Activation>,
    /// Whether it is the transposed convolution, with weights `[C, M/group, …]`.
    pub transposed: bool,
    /// Factors of the weights for each output channel, which packing takes in: a normalisation that was behind it.
    pub scale: Option<Arc<[f64]>>,
}

/// A matrix product `act(alpha * A·B + bias + beta * R)`, batched by broadcasting. Inputs: a, b, then bias and
/// residual if there are such. Matrices are the last two axes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GemmNode {
    pub trans_a: bool,
    pub trans_b: bool,
    pub alpha: f32,
    /// A constant `[N]`.
    pub bias: bool,
    /// A residual `[M, N]` (same batch as y) or `[1, N]`, with its factor.
    pub residual: Option<f32>,
    pub activation: Option<Activation>,
}

/// What products of 8-bit integers share: `expr(Σ (x - zero) * (w - w_zero) + bias)`. Inputs: x, w (constant), the zero
/// point of x if it is no number, then the inputs of `expr` from its input 1 on (its input 0 is the sum as f32): values of
/// one element, constants of one value a column, at most one value shaped like the result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IntProduct {
    pub zero: Zero,
    /// One for all columns, or one for each.
    pub w_zero: Vec<i32>,
    /// One for each column.
    pub bias: Option<Vec<i32>>,
    /// `None`: the sums are the result, as int32.
    pub expr: Option<Expr>,
}

impl IntProduct {
    /// The slot of the first input of `expr`.
    pub fn first_extra(&self) -> usize {
        2 + usize::from(self.zero == Zero::Operand)
    }
}

/// A product of matrices of 8-bit integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IntGemm {
    /// Whether w is `[N, K]`.
    pub trans_b: bool,
}

/// What a pooling window makes of its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolKind {
    Max,
    /// The mean; of the padding too if `include_pad`.
    Average {
        include_pad: bool,
    },
}

/// A pooling window, as `[D, H, W]` with leading 1s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolNode {
    pub kind: PoolKind,
    pub kernel: [usize; 3],
    pub strides: [usize; 3],
    pub dilations: [usize; 3],
    pub pads_begin: [usize; 3],
    pub pads_end: [usize; 3],
}

/// How a node is computed.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// By the interpreter. The last `captures` inputs are what the operator's subgraphs see.
    Interpret {
        op: Box<OpNode>,
        captures: usize,
    },
    /// The same elements in the same order under another shape.
    View,
    /// An expression of f32s; inputs (f32, int32 or 8-bit) are broadcast to the output, which may be 8-bit too if the
    /// results are whole numbers in its range.
    Ew(Expr),
    /// A convolution of 8-bit integers.
    IntConv(ConvNode, IntProduct),
    /// A matrix product of 8-bit integers.
    IntGemm(IntGemm, IntProduct),
    /// Outputs the scale and zero point of `DynamicQuantizeLinear`.
    DynamicRange,
    Conv(ConvNode),
    Gemm(GemmNode),
    Pool(PoolNode),
    /// The mean or maximum over all spatial axes, kept as extents of 1.
    GlobalPool(PoolKind),
    /// Softmax over the middle of `[outer, n, inner]`.
    Softmax {
        log: bool,
        outer: usize,
        n: usize,
        inner: usize,
    },
    /// Inputs one after another along an axis.
    Concat {
        axis: usize,
    },
    /// The part of the input along an axis that begins at `start`; its length is the output's.
    Part {
        axis: usize,
        start: usize,
    },
    /// For each axis the source of each output position; the others are filled with f32 `fill`.
    Select {
        sources: Vec<Vec<Option<usize>>>,
        fill: f32,
    },
    /// For each axis but the first two, the source positions and weights of each output position.
    Resize {
        taps: Vec<Vec<Vec<(usize, f32)>>>,
    },
    /// Rows of `n` elements are each reduced to one, or columns of `[outer, n, inner]`.
    Reduce {
        fold: Fold,
        outer: usize,
        n: usize,
        inner: usize,
    },
    /// Rows of `n` elements are normalised; inputs x, scale, bias (`[n]`, or one value a row).
    Normalise {
        n: usize,
        epsilon: f32,
        per_row: bool,
    },
    /// `LRN` over the channels.
    Lrn(fcc_ir::ops::lrn::LrnParams),
    /// A recurrent layer behind its input projection; inputs g, r (constant), then the others that the spec has, in its
    /// order; outputs y, h, c, absent where they are not wanted.
    Recurrent(Box<Recurrence>),
    /// A step in Rust on row-major tensors.
    Host(Host),
    /// A strided copy: extents and the source's steps in elements, in the output's order; `offset` in elements.
    Copy {
        offset: usize,
        dims: Vec<(usize, i64)>,
    },
}

/// One node: what it reads and makes, by slot.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// How errors and profiles call it.
    pub place: String,
    pub kind: Kind,
    pub inputs: Vec<Option<Vx>>,
    pub outputs: Vec<Option<Vx>>,
    /// The graph's nodes that went into it.
    pub origins: Vec<fcc_ir::NodeId>,
}

impl Node {
    /// The one output of a lowered node.
    pub fn out(&self) -> Option<Vx> {
        self.outputs.first().copied().flatten()
    }
    pub fn input(&self, i: usize) -> Option<Vx> {
        self.inputs.get(i).copied().flatten()
    }
}

/// An operator of the graph: what explanations say of it.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub info: NodeInfo,
    /// Its place in the graph's order.
    pub order: usize,
    /// Whether its results are the same in every run.
    pub constant: bool,
    /// Why it is left to the interpreter, if it is.
    pub declined: Option<Declined>,
}

/// A specialised region: nodes in an order in which producers come first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub vals: Vec<Val>,
    pub nodes: Vec<Node>,
    /// Values given by the caller.
    pub inputs: Vec<Vx>,
    /// Values the caller wants: outputs of the graph and what the next region needs.
    pub outputs: Vec<Vx>,
    /// The operators that it was made from.
    pub origins: HashMap<NodeId, Origin>,
}

impl Program {
    pub fn add(&mut self, val: Val) -> Vx {
        self.vals.push(val);
        Vx(self.vals.len() as u32 - 1)
    }
    /// A new constant.
    pub fn constant(&mut self, name: impl Into<String>, tensor: Tensor) -> Vx {
        let ty = tensor.tensor_type().into();
        self.add(Val::new(name.into(), ty, Some(tensor)))
    }
    pub fn val(&self, v: Vx) -> &Val {
        &self.vals[v.at()]
    }
    /// The extents of a dense value; empty for others.
    pub fn shape(&self, v: Vx) -> &[usize] {
        self.val(v).dense.as_ref().map_or(&[], |d| &d.1[..])
    }
    pub fn constant_of(&self, v: Vx) -> Option<&Tensor> {
        self.val(v).constant.as_ref()
    }
    /// How often each value is read; the caller's wants count.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.vals.len()];
        for node in &self.nodes {
            node.inputs.iter().flatten().for_each(|v| uses[v.at()] += 1);
        }
        self.outputs.iter().for_each(|v| uses[v.at()] += 1);
        uses
    }
    /// The node that makes each value.
    pub fn makers(&self) -> Vec<Option<usize>> {
        let mut makers = vec![None; self.vals.len()];
        for (n, node) in self.nodes.iter().enumerate() {
            node.outputs.iter().flatten().for_each(|v| makers[v.at()] = Some(n));
        }
        makers
    }
    /// Drops nodes whose outputs nothing reads. Interpreted nodes that may fail are dropped too, as in any graph whose
    /// dead nodes were swept.
    pub fn sweep(&mut self) {
        let mut needed = vec![false; self.vals.len()];
        self.outputs.iter().for_each(|v| needed[v.at()] = true);
        let mut keep = vec![false; self.nodes.len()];
        for (n, node) in self.nodes.iter().enumerate().rev() {
            if node.outputs.iter().flatten().any(|v| needed[v.at()]) {
                keep[n] = true;
                node.inputs.iter().flatten().for_each(|v| needed[v.at()] = true);
            }
        }
        let mut keep = keep.into_iter();
        self.nodes.retain(|_| keep.next().unwrap_or(false));
    }
}
