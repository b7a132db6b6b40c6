//! Builds the nodes of a replacement: each in the form valid for the model's opset, each with its type at once.
use crate::context::{FactMap, Limits};
use crate::rule::Declined;
use crate::runtimes::has_kernel;
use fcc_ir::attr::Attrs;
use fcc_ir::infer::infer_op;
use fcc_ir::op::Fact;
use fcc_ir::{DType, Dim, Function, Graph, NewNode, NodeId, Op, OpNode, Result, Tensor, ValueId, ValueType};
use std::collections::HashMap;

/// Constants that rules made from other constants, so that nodes which share a weight go on sharing it.
#[derive(Default)]
pub(crate) struct SharedConstants(HashMap<SourceKey, Derived>);

/// Where the source's bytes lie, their type and shape, and what is made of them.
type SourceKey = (usize, usize, DType, Vec<usize>, String);

struct Derived {
    value: ValueId,
    made: Tensor,
    /// Keeps the source's bytes, so that no other tensor comes to lie at their address.
    _source: Tensor,
}

/// Builds nodes in the place of one node. What it adds and nothing uses in the end, the driver removes.
pub struct Builder<'a> {
    pub(crate) graph: &'a mut Graph,
    pub(crate) facts: &'a mut FactMap,
    pub(crate) shared: &'a mut SharedConstants,
    pub(crate) functions: &'a [Function],
    /// The node whose place the new nodes take.
    pub(crate) at: NodeId,
    /// What new names begin with.
    pub(crate) root: String,
    pub(crate) made: Vec<NodeId>,
    /// Lists and shapes that this rewrite asked for before.
    pub(crate) asked: HashMap<(String, Vec<i64>), ValueId>,
    pub(crate) limits: &'a Limits,
    /// A function's body cannot hold initializers: constants are nodes there.
    pub(crate) constants_as_nodes: bool,
}

/// One extent of a Reshape's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// This extent, at least 1.
    Fixed(usize),
    /// The input's extent at the same index.
    Same,
    /// What is left; at most once, and no other extent may be 0 at run time.
    Rest,
    /// The extent of a value along an axis.
    Of(ValueId, usize),
}

impl Builder<'_> {
    /// Version of `ai.onnx` in this graph.
    pub fn opset(&self) -> i64 {
        self.graph.opsets.get("").copied().unwrap_or(0)
    }
    /// Errs if the graph's opset is older than `least`.
    pub fn need_opset(&self, least: i64, what: &str) -> Result<(), Declined> {
        if self.opset() >= least {
            Ok(())
        } else {
            Err(Declined::new(
                format!("opset of ai.onnx for {what}"),
                self.opset(),
                format!("at least {least}"),
            ))
        }
    }
    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> ValueType {
        self.facts.get(value).map(|f| f.ty.clone()).unwrap_or_default()
    }
    /// The rank of a value. Errs if it is not known.
    pub fn rank(&self, value: ValueId) -> Result<usize, Declined> {
        self.ty(value).as_tensor().and_then(|t| t.rank()).ok_or_else(|| {
            Declined::new(format!("rank of `{}`", self.graph.value_name(value)), "unknown", "a known rank")
        })
    }
    fn shape(&self, value: ValueId) -> Option<Vec<Dim>> {
        self.ty(value).as_tensor()?.shape.clone()
    }
    fn name(&self, hint: &str) -> String {
        if self.root.is_empty() {
            self.graph.fresh_name(hint)
        } else {
            self.graph.fresh_name(&format!("{}.{hint}", self.root))
        }
    }

    // ---- constants

    /// A constant of its own.
    pub fn constant(&mut self, hint: &str, tensor: Tensor) -> Result<ValueId, Declined> {
        let name = self.name(hint);
        let value = if self.constants_as_nodes {
            let new = NewNode {
                op_type: "Constant",
                domain: "",
                name: name.clone(),
                inputs: vec![],
                outputs: vec![name],
                attrs: Attrs::new().with("value", tensor.clone()),
            };
            let value = ValueId { node: self.graph.add_op_at(new, self.at)?, output: 0 };
            self.graph.set_ty(value, tensor.tensor_type().into());
            value
        } else {
            self.graph.add_constant(&name, tensor.clone())?
        };
        self.facts.set(value, Fact::constant(tensor));
        self.made.push(value.node);
        Ok(value)
    }
    /// A constant made from another: asked for again with the same `source` and `key`, it is the same constant.
    pub fn derived(
        &mut self,
        source: &Tensor,
        key: &str,
        hint: &str,
        make: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<ValueId, Declined> {
        let bytes = source.bytes();
        let id =
            (bytes.as_ptr() as usize, bytes.len(), source.dtype(), source.shape().to_vec(), key.to_string());
        if let Some(known) = self.shared.0.get(&id)
            && self.graph.contains(known.value.node)
            && self.graph.constant(known.value).is_some_and(|t| same_bytes(&t, &known.made))
        {
            return Ok(known.value);
        }
        let made = make(source)?;
        let value = self.constant(hint, made.clone())?;
        self.shared.0.insert(id, Derived { value, made, _source: source.clone() });
        Ok(value)
    }
    /// A list of integers; asked for again under the same hint, it is the same constant.
    fn ints(&mut self, hint: &str, values: &[i64]) -> Result<ValueId, Declined> {
        let key = (hint.to_string(), values.to_vec());
        if let Some(known) = self.asked.get(&key) {
            return Ok(*known);
        }
        let value = self.constant(hint, Tensor::from_i64s(values))?;
        self.asked.insert(key, value);
        Ok(value)
    }

    // ---- nodes

    /// Any operator of `ai.onnx` with one output, as the caller spells it.
    pub fn op(
        &mut self,
        op_type: &str,
        hint: &str,
        inputs: &[ValueId],
        attrs: Attrs,
    ) -> Result<ValueId, Declined> {
        self.op_with_absent(op_type, hint, &inputs.iter().map(|v| Some(*v)).collect::<Vec<_>>(), attrs)
    }
    /// As [`Builder::op`], with optional inputs left out.
    pub fn op_with_absent(
        &mut self,
        op_type: &str,
        hint: &str,
        inputs: &[Option<ValueId>],
        attrs: Attrs,
    ) -> Result<ValueId, Declined> {
        if self.made.len() >= self.limits.nodes {
            return Err(Declined::new(
                "new nodes",
                format!("more than {}", self.made.len()),
                format!("at most {}", self.limits.nodes),
            ));
        }
        let name = self.name(hint);
        let new = NewNode {
            op_type,
            domain: "",
            name: name.clone(),
            inputs: inputs.to_vec(),
            outputs: vec![name],
            attrs,
        };
        let id = self.graph.add_op_at(new, self.at)?;
        self.made.push(id);
        let facts: Vec<Option<Fact>> =
            inputs.iter().map(|v| v.map(|v| self.facts.get(v).cloned().unwrap_or_default())).collect();
        let Some(op) = self.graph.op(id) else {
            return Err(Declined::new("new node", op_type, "an operator"));
        };
        if op.op == Op::Opaque {
            return Err(Declined::new("new node", op_type, "an operator of this opset"));
        }
        let made = infer_op(op, self.functions, &facts, &[], 1)
            .map_err(|e| Declined::from(e.at(format!("new node {op_type}"))))?;
        self.runs_elsewhere(op, &made)?;
        let value = ValueId { node: id, output: 0 };
        let fact = made.into_iter().next().unwrap_or_default();
        self.graph.set_ty(value, fact.ty.clone());
        self.facts.set(value, fact);
        Ok(value)
    }
    /// Errs where ONNX Runtime runs the node that is replaced, and would not run this one.
    fn runs_elsewhere(&self, op: &OpNode, made: &[Fact]) -> Result<(), Declined> {
        let dtype = |ty: &ValueType| ty.as_tensor().map_or(DType::Undefined, |t| t.dtype);
        let new = made.first().map_or(DType::Undefined, |f| dtype(&f.ty));
        let old = dtype(&self.ty(ValueId { node: self.at, output: 0 }));
        if !self.limits.runs_elsewhere
            || has_kernel(op, new)
            || !self.graph.op(self.at).is_some_and(|op| has_kernel(op, old))
        {
            return Ok(());
        }
        let got = format!("no {} of {new} in opset {}", op.op_type, op.version);
        Err(Declined::new("kernels of ONNX Runtime", got, "one for each node of the replacement"))
    }
    /// The same operator as an existing node with one output, on other inputs.
    pub fn repeat(&mut self, node: NodeId, inputs: &[Option<ValueId>]) -> Result<ValueId, Declined> {
        let Some(op) = self.graph.op(node).cloned() else {
            return Err(Declined::new("node", self.graph.place(node), "an operator"));
        };
        let hint = op.op_type.to_lowercase();
        self.op_with_absent(&op.op_type, &hint, inputs, op.attrs)
    }
    /// The same operator as an existing node with one output, with another first input.
    pub fn repeat_on(&mut self, node: NodeId, x: ValueId) -> Result<ValueId, Declined> {
        let mut inputs = self.graph.inputs_of(node);
        if let Some(first) = inputs.first_mut() {
            *first = Some(x);
        }
        self.repeat(node, &inputs)
    }
    /// `Conv` with everything but `kernel_shape` (and `group`, if it is not 1) at its default.
    pub fn conv(
        &mut self,
        x: ValueId,
        w: ValueId,
        b: Option<ValueId>,
        kernel: &[usize],
    ) -> Result<ValueId, Declined> {
        let attrs = Attrs::new().with("kernel_shape", to_i64s(kernel)?);
        let inputs: Vec<ValueId> = [Some(x), Some(w), b].into_iter().flatten().collect();
        self.op("Conv", "conv", &inputs, attrs)
    }
    /// `MatMul(a, b)`.
    pub fn matmul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Declined> {
        self.op("MatMul", "matmul", &[a, b], Attrs::new())
    }
    /// `Gemm(a, b, c)` without transposition: `a @ b + c`, c broadcast along rows.
    pub fn gemm(&mut self, a: ValueId, b: ValueId, c: ValueId) -> Result<ValueId, Declined> {
        let attrs = if self.opset() < 7 { Attrs::new().with("broadcast", 1i64) } else { Attrs::new() };
        self.op("Gemm", "gemm", &[a, b, c], attrs)
    }
    /// `Add` of `b` to `a`; b has the trailing extents of `a`, or 1 there.
    pub fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Declined> {
        self.broadcasting("Add", "bias", a, b)
    }
    /// `Mul` of `a` by `b`; b has the trailing extents of `a`, or 1 there.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Declined> {
        self.broadcasting("Mul", "scale", a, b)
    }
    fn broadcasting(&mut self, op: &str, hint: &str, a: ValueId, b: ValueId) -> Result<ValueId, Declined> {
        let attrs = if self.opset() < 7 { Attrs::new().with("broadcast", 1i64) } else { Attrs::new() };
        self.op(op, hint, &[a, b], attrs)
    }
    /// `Sum` of all values; the value itself for one.
    pub fn sum(&mut self, values: &[ValueId]) -> Result<ValueId, Declined> {
        match values {
            [one] => Ok(*one),
            all => self.op("Sum", "sum", all, Attrs::new()),
        }
    }
    /// `Flatten` into two axes, the first `axis` extents in the first one.
    pub fn flatten(&mut self, x: ValueId, axis: usize) -> Result<ValueId, Declined> {
        self.op("Flatten", "flatten", &[x], Attrs::new().with("axis", to_i64(axis)?))
    }
    /// `Transpose`; the value itself where `perm` moves nothing.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId, Declined> {
        if perm.iter().enumerate().all(|(i, p)| i == *p) {
            return Ok(x);
        }
        self.op("Transpose", "transpose", &[x], Attrs::new().with("perm", to_i64s(perm)?))
    }
    /// `Squeeze` of these axes, ascending.
    pub fn squeeze(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId, Declined> {
        self.with_axes("Squeeze", "squeeze", x, axes)
    }
    /// `Unsqueeze` at these axes of the output, ascending.
    pub fn unsqueeze(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId, Declined> {
        self.with_axes("Unsqueeze", "unsqueeze", x, axes)
    }
    fn with_axes(&mut self, op: &str, hint: &str, x: ValueId, axes: &[usize]) -> Result<ValueId, Declined> {
        let axes = to_i64s(axes)?;
        match axes.as_slice() {
            [] => Ok(x),
            axes if self.opset() < 13 => self.op(op, hint, &[x], Attrs::new().with("axes", axes)),
            axes => {
                let axes = self.ints(&format!("{hint}_axes"), axes)?;
                self.op(op, hint, &[x, axes], Attrs::new())
            }
        }
    }
    /// `Reshape`. An [`Extent::Of`] makes the target a computed one.
    pub fn reshape(&mut self, x: ValueId, target: &[Extent]) -> Result<ValueId, Declined> {
        if target.iter().any(|e| matches!(e, Extent::Of(..))) {
            self.need_opset(5, "Reshape to a computed shape")?;
            let parts = target
                .iter()
                .map(|e| match *e {
                    Extent::Of(value, axis) => self.extent(value, axis),
                    fixed => {
                        let n = extent_code(fixed)?;
                        self.ints("extent", &[n])
                    }
                })
                .collect::<Result<Vec<_>, _>>()?;
            let shape = self.concat(&parts, 0)?;
            return self.op("Reshape", "reshape", &[x, shape], Attrs::new());
        }
        let codes = target.iter().map(|e| extent_code(*e)).collect::<Result<Vec<i64>, _>>()?;
        if self.opset() < 5 {
            return self.op("Reshape", "reshape", &[x], Attrs::new().with("shape", codes));
        }
        let shape = self.ints("shape", &codes)?;
        self.op("Reshape", "reshape", &[x, shape], Attrs::new())
    }
    /// `Reshape` to a shape of as many elements. Errs where the target cannot be written as a fixed list.
    pub fn reshape_to(&mut self, x: ValueId, target: &[Dim]) -> Result<ValueId, Declined> {
        let from = self.shape(x).unwrap_or_default();
        let mut rest = 0;
        let extents: Vec<Extent> = target
            .iter()
            .enumerate()
            .map(|(i, d)| match d {
                Dim::Known(n) if *n > 0 => Extent::Fixed(*n),
                d if from.get(i).is_some_and(|f| f.same(d)) => Extent::Same,
                _ => {
                    rest += 1;
                    Extent::Rest
                }
            })
            .collect();
        // `-1` beside an extent that may be 0 has no answer
        let copies = extents.contains(&Extent::Same);
        if rest > 1 || (rest == 1 && copies) {
            return Err(Declined::new(
                "target of Reshape",
                crate::context::dims_text(target),
                "one extent that is not fixed",
            ));
        }
        self.reshape(x, &extents)
    }
    /// The extent of a value along an axis, as an `int64` vector of one element.
    fn extent(&mut self, value: ValueId, axis: usize) -> Result<ValueId, Declined> {
        let key = (format!("shape of {value:?}"), vec![]);
        let shape = match self.asked.get(&key) {
            Some(known) => *known,
            None => self.op("Shape", "shape", &[value], Attrs::new())?,
        };
        self.asked.insert(key, shape);
        let axis = to_i64(axis)?;
        self.slice(shape, &[axis], &[axis + 1], &[0], &[1])
    }
    /// `Pad` with zeros, ONNX order: all beginnings, then all ends; the value itself where there are none.
    pub fn pad(&mut self, x: ValueId, pads: &[usize]) -> Result<ValueId, Declined> {
        if pads.iter().all(|p| *p == 0) {
            return Ok(x);
        }
        let pads = to_i64s(pads)?;
        match self.opset() {
            1 => self.op("Pad", "pad", &[x], Attrs::new().with("paddings", pads)),
            2..11 => self.op("Pad", "pad", &[x], Attrs::new().with("pads", pads)),
            _ => {
                let pads = self.ints("pads", &pads)?;
                self.op("Pad", "pad", &[x, pads], Attrs::new())
            }
        }
    }
    /// `Gather` along an axis.
    pub fn gather(&mut self, x: ValueId, indices: ValueId, axis: usize) -> Result<ValueId, Declined> {
        self.op("Gather", "gather", &[x, indices], Attrs::new().with("axis", to_i64(axis)?))
    }
    /// `Slice`: one entry of each list for each axis. Steps other than 1 need opset 10.
    pub fn slice(
        &mut self,
        x: ValueId,
        starts: &[i64],
        ends: &[i64],
        axes: &[i64],
        steps: &[i64],
    ) -> Result<ValueId, Declined> {
        let stepped = steps.iter().any(|s| *s != 1);
        if self.opset() < 10 {
            if stepped {
                self.need_opset(10, "Slice with steps")?;
            }
            let attrs = Attrs::new().with("starts", starts).with("ends", ends).with("axes", axes);
            return self.op("Slice", "slice", &[x], attrs);
        }
        let mut inputs =
            vec![x, self.ints("starts", starts)?, self.ints("ends", ends)?, self.ints("axes", axes)?];
        if stepped {
            inputs.push(self.ints("steps", steps)?);
        }
        self.op("Slice", "slice", &inputs, Attrs::new())
    }
    /// `Concat` along an axis; the value itself for one.
    pub fn concat(&mut self, values: &[ValueId], axis: usize) -> Result<ValueId, Declined> {
        match values {
            [one] => Ok(*one),
            all => self.op("Concat", "concat", all, Attrs::new().with("axis", to_i64(axis)?)),
        }
    }
}

fn same_bytes(a: &Tensor, b: &Tensor) -> bool {
    let same_place = a.bytes().as_ptr() == b.bytes().as_ptr() && a.bytes().len() == b.bytes().len();
    same_place && a.dtype() == b.dtype() && a.shape() == b.shape()
}

fn extent_code(extent: Extent) -> Result<i64, Declined> {
    match extent {
        Extent::Fixed(0) => Err(Declined::new("extent of Reshape", 0, "at least 1")),
        Extent::Fixed(n) => to_i64(n),
        Extent::Same => Ok(0),
        Extent::Rest => Ok(-1),
        Extent::Of(..) => Err(Declined::new("extent of Reshape", "a computed one", "a fixed one")),
    }
}

fn to_i64(value: usize) -> Result<i64, Declined> {
    i64::try_from(value).map_err(|_| Declined::new("extent", value, "below 2^63"))
}

fn to_i64s(values: &[usize]) -> Result<Vec<i64>, Declined> {
    values.iter().map(|v| to_i64(*v)).collect()
}
