//! A model under construction: every value is known as it is made, so that what is added next fits.
use crate::draw::{self, Values, once_in, one};
use crate::pb::{self, Attrs};
use crate::step::Step;
use fcc_ir::interp;
use fcc_ir::random::Random;
use fcc_ir::{DType, Op, Tensor, Value};
use fcc_onnx::proto::{FunctionProto, GraphProto, NodeProto, OperatorSetIdProto};
use std::collections::BTreeMap;

/// Values with more elements are not made.
pub const MAX_ELEMS: usize = 1 << 14;

/// A graph that nodes are added to: the main graph, a subgraph, or a function's body.
#[derive(Default)]
struct Scope {
    graph: GraphProto,
    /// The values from here on can be read.
    from: usize,
    /// Values made before this scope: they go out of sight with it.
    outside: usize,
    function: bool,
}

/// The model under construction.
pub struct Build {
    /// Where every choice comes from.
    pub r: Random,
    /// What fresh values are like.
    pub values: Values,
    /// The opset of `ai.onnx`.
    pub opset: i64,
    /// Whether extents may be 0.
    pub zeros: bool,
    /// Versions of the other domains that are used.
    pub domains: BTreeMap<String, i64>,
    /// The model's functions so far.
    pub functions: Vec<FunctionProto>,
    /// Every value made so far.
    pub known: interp::Values,
    /// The values given to the model's inputs; those of overridable initializers stay with their defaults.
    pub given: interp::Values,
    /// Nodes that the interpreter refused, with the reason.
    pub refused: Vec<(String, String)>,
    visible: Vec<String>,
    scopes: Vec<Scope>,
    next: usize,
}

impl Build {
    /// An empty model.
    pub fn new(r: Random, values: Values, opset: i64, zeros: bool) -> Build {
        Build {
            r,
            values,
            opset,
            zeros,
            domains: BTreeMap::new(),
            functions: vec![],
            known: interp::Values::new(),
            given: interp::Values::new(),
            refused: vec![],
            visible: vec![],
            scopes: vec![Scope::default()],
            next: 0,
        }
    }

    /// A name that is not used yet.
    pub fn name(&mut self, stem: &str) -> String {
        self.next += 1;
        format!("{stem}{}", self.next)
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("there is a scope")
    }
    /// The graph that nodes are added to now.
    pub fn graph(&mut self) -> &mut GraphProto {
        &mut self.scope().graph
    }
    /// Whether nodes are added to the main graph now.
    pub fn is_main(&self) -> bool {
        self.scopes.len() == 1
    }
    /// How deep graphs are nested now; 1 in the main graph.
    pub fn depth(&self) -> usize {
        self.scopes.len()
    }

    // ---- values

    /// Makes a value known, and readable.
    fn learn(&mut self, name: &str, value: Value) {
        self.known.insert(name.into(), value);
        self.visible.push(name.into());
    }
    /// The tensor of a name that was made.
    pub fn tensor_of(&self, name: &str) -> &Tensor {
        self.known[name].as_tensor().expect("a tensor")
    }
    /// The shape of a name that was made.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor_of(name).shape().to_vec()
    }
    /// The element type of a name that was made.
    pub fn dtype(&self, name: &str) -> DType {
        self.tensor_of(name).dtype()
    }
    /// The values that can be read here.
    pub fn readable(&self) -> &[String] {
        &self.visible[self.scopes.last().map_or(0, |s| s.from)..]
    }
    /// A value made before that fits, a late one more often than an early one.
    pub fn pick_value(&mut self, fits: impl Fn(&Value) -> bool) -> Option<String> {
        let fitting: Vec<&String> = self.readable().iter().filter(|n| fits(&self.known[*n])).collect();
        let fitting: Vec<String> = fitting.into_iter().cloned().collect();
        let n = fitting.len() as u64;
        (n > 0).then(|| fitting[self.r.below(n).max(self.r.below(n)) as usize].clone())
    }
    /// A tensor made before that fits.
    pub fn pick(&mut self, fits: impl Fn(&Tensor) -> bool) -> Option<String> {
        self.pick_value(|v| v.as_tensor().is_ok_and(&fits))
    }
    /// A tensor of one of these types whose shape fits: one made before, or a fresh one of the shape that `draw` gives.
    pub fn any(
        &mut self,
        dtypes: &[DType],
        fits: impl Fn(&[usize]) -> bool,
        draw: impl Fn(&mut Random, bool) -> Vec<usize>,
    ) -> String {
        if !once_in(&mut self.r, 5)
            && let Some(name) = self.pick(|t| dtypes.contains(&t.dtype()) && fits(t.shape()))
        {
            return name;
        }
        let dtype = self.one_type(dtypes);
        let zeros = self.zeros;
        let shape = draw(&mut self.r, zeros);
        self.fresh_of(dtype, &shape)
    }
    /// A tensor of one of these types, of any rank.
    pub fn any_of(&mut self, dtypes: &[DType]) -> String {
        self.any(
            dtypes,
            |_| true,
            |r, zeros| {
                let rank = draw::rank(r);
                draw::shape(r, rank, zeros)
            },
        )
    }
    /// A tensor of one of these types, of a rank within these.
    pub fn ranked(&mut self, dtypes: &[DType], least: usize, most: usize) -> String {
        self.any(
            dtypes,
            |s| (least..=most).contains(&s.len()),
            |r, zeros| {
                let rank = draw::within(r, least, most);
                draw::shape(r, rank, zeros)
            },
        )
    }
    /// A tensor of this type and shape, made before or fresh.
    pub fn operand(&mut self, dtype: DType, shape: &[usize]) -> String {
        if once_in(&mut self.r, 2)
            && let Some(name) = self.pick(|t| t.dtype() == dtype && t.shape() == shape)
        {
            return name;
        }
        self.fresh_of(dtype, shape)
    }
    /// One of these types, f32 most often where it is among them.
    pub fn one_type(&mut self, dtypes: &[DType]) -> DType {
        if dtypes.contains(&DType::F32) && !once_in(&mut self.r, 3) {
            return DType::F32;
        }
        *one(&mut self.r, dtypes)
    }
    /// A fresh tensor of this type and shape.
    pub fn fresh_of(&mut self, dtype: DType, shape: &[usize]) -> String {
        let t = draw::tensor(&mut self.r, self.values, dtype, shape);
        self.fresh(t)
    }
    /// A fresh weight: as [`Build::fresh_of`], a constant most often.
    pub fn weight_of(&mut self, dtype: DType, shape: &[usize]) -> String {
        let t = draw::tensor(&mut self.r, self.values, dtype, shape);
        self.constant(t)
    }
    /// A fresh tensor: an input most often, else an initializer, one that can be overridden, or a `Constant` node.
    pub fn fresh(&mut self, t: Tensor) -> String {
        match self.r.below(10) {
            0..=5 => self.given_as(t, Way::Input),
            6 | 7 => self.given_as(t, Way::Initializer),
            8 => self.given_as(t, Way::Default),
            _ => self.given_as(t, Way::Node),
        }
    }
    /// A tensor that parametrises a node (a weight, a shape, axes): a constant most often.
    pub fn constant(&mut self, t: Tensor) -> String {
        match self.r.below(10) {
            0..=5 => self.given_as(t, Way::Initializer),
            6 | 7 => self.given_as(t, Way::Node),
            8 => self.given_as(t, Way::Default),
            _ => self.given_as(t, Way::Input),
        }
    }
    /// A constant vector of integers.
    pub fn ints(&mut self, v: &[i64]) -> String {
        self.constant(Tensor::from_i64s(v.to_vec()))
    }
    fn given_as(&mut self, t: Tensor, way: Way) -> String {
        let way = match way {
            Way::Input | Way::Default if !self.is_main() => Way::Initializer,
            other => other,
        };
        let way = if self.scope().function { Way::Node } else { way };
        let way = if way == Way::Node && self.opset < 9 && !fits_old_constant(t.dtype()) {
            Way::Initializer
        } else {
            way
        };
        let name = self.name("v");
        let ty = t.tensor_type().into();
        match way {
            Way::Input => {
                self.graph().input.push(pb::info(&name, &ty));
                self.given.insert(name.clone(), t.clone().into());
            }
            Way::Initializer | Way::Default => {
                let proto = pb::tensor(&name, &t);
                self.graph().initializer.push(proto);
                if way == Way::Default {
                    self.graph().input.push(pb::info(&name, &ty));
                }
            }
            Way::Node => {
                let node = NodeProto {
                    op_type: Some("Constant".into()),
                    output: vec![name.clone()],
                    attribute: pb::attrs().tensor("value", &t).0,
                    ..Default::default()
                };
                self.graph().node.push(node);
            }
        }
        self.learn(&name, t.into());
        name
    }

    // ---- nodes

    /// Adds an operator with these inputs (`""`: left out), attributes and number of outputs. `None` if the model's
    /// opset is older than the operator, or the interpreter refuses it.
    pub fn node(&mut self, op: Op, inputs: &[&str], attrs: Attrs, outputs: usize) -> Option<Vec<String>> {
        let wanted = vec![true; outputs];
        self.node_with(op, inputs, attrs, &wanted)
    }
    /// As [`Build::node`] with one output.
    pub fn node1(&mut self, op: Op, inputs: &[&str], attrs: Attrs) -> Option<String> {
        self.node(op, inputs, attrs, 1)?.pop()
    }
    /// As [`Build::node`]; outputs that are not wanted are left out.
    pub fn node_with(
        &mut self,
        op: Op,
        inputs: &[&str],
        attrs: Attrs,
        wanted: &[bool],
    ) -> Option<Vec<String>> {
        let schema = op.schema()?;
        if schema.domain.is_empty() {
            if self.opset < schema.since[0] {
                return None;
            }
        } else if !self.domains.contains_key(schema.domain) {
            let version = *one(&mut self.r, schema.since);
            self.domains.insert(schema.domain.into(), version);
        }
        self.call(schema.domain, schema.name, inputs, attrs, wanted)
    }
    /// Adds a node of any domain.
    pub fn call(
        &mut self,
        domain: &str,
        name: &str,
        inputs: &[&str],
        attrs: Attrs,
        wanted: &[bool],
    ) -> Option<Vec<String>> {
        let outputs: Vec<String> =
            wanted.iter().map(|w| if *w { self.name("v") } else { String::new() }).collect();
        let mut input: Vec<String> = inputs.iter().map(|n| n.to_string()).collect();
        while input.last().is_some_and(String::is_empty) {
            input.pop();
        }
        let node = NodeProto {
            op_type: Some(name.into()),
            domain: (!domain.is_empty()).then(|| domain.into()),
            name: once_in(&mut self.r, 2).then(|| self.name("n")),
            input,
            output: outputs.clone(),
            attribute: attrs.0,
            ..Default::default()
        };
        match self.compute(&node) {
            Ok(made) => {
                self.graph().node.push(node);
                for (name, value) in made {
                    self.learn(&name, value);
                }
                Some(outputs)
            }
            Err(why) => {
                self.refused.push((name.into(), why));
                None
            }
        }
    }
    fn compute(&self, node: &NodeProto) -> Result<Vec<(String, Value)>, String> {
        let step = Step::new(node, &self.opsets(), &self.functions, &|n| self.known.contains_key(n))?;
        let made = step.run(&self.known).map_err(|e| e.to_string())?;
        let large = |v: &Value| crate::noise::tensors(v).iter().map(|t| t.len()).sum::<usize>() > MAX_ELEMS;
        if made.iter().any(|(_, v)| large(v)) {
            return Err("too large".into());
        }
        Ok(made)
    }
    /// The opset imports of the model so far.
    pub fn opsets(&self) -> Vec<OperatorSetIdProto> {
        let import = |domain: &str, version| OperatorSetIdProto {
            domain: (!domain.is_empty()).then(|| domain.into()),
            version: Some(version),
        };
        let others = self.domains.iter().map(|(d, v)| import(d, *v));
        [import("", self.opset)].into_iter().chain(others).collect()
    }

    // ---- graphs within

    /// Builds a subgraph with inputs of these values: `fill` adds its nodes and names its outputs. `None` if `fill`
    /// gives up.
    pub fn subgraph(
        &mut self,
        inputs: &[Value],
        fill: impl FnOnce(&mut Build, &[String]) -> Option<Vec<String>>,
    ) -> Option<(GraphProto, Vec<Value>)> {
        self.within(false, inputs, fill)
    }
    /// Builds a function's body, which sees nothing but its inputs; see [`Build::subgraph`].
    pub fn body(
        &mut self,
        inputs: &[Value],
        fill: impl FnOnce(&mut Build, &[String]) -> Option<Vec<String>>,
    ) -> Option<(GraphProto, Vec<Value>)> {
        self.within(true, inputs, fill)
    }
    fn within(
        &mut self,
        function: bool,
        inputs: &[Value],
        fill: impl FnOnce(&mut Build, &[String]) -> Option<Vec<String>>,
    ) -> Option<(GraphProto, Vec<Value>)> {
        let outside = self.visible.len();
        let from = if function { outside } else { self.scopes.last().map_or(0, |s| s.from) };
        let function = function || self.scope().function;
        let graph = GraphProto { name: Some(self.name("g")), ..Default::default() };
        self.scopes.push(Scope { graph, from, outside, function });
        let mut names = vec![];
        for value in inputs {
            let name = self.name("i");
            // what a body declares of its inputs need not be all that is known
            let ty = if once_in(&mut self.r, 4) { fcc_ir::ValueType::Unknown } else { value.value_type() };
            let ty = if once_in(&mut self.r, 3) { unranked(ty) } else { ty };
            self.graph().input.push(pb::info(&name, &ty));
            self.learn(&name, value.clone());
            names.push(name);
        }
        let outputs = fill(self, &names);
        let scope = self.scopes.pop()?;
        let values = outputs.as_ref().map(|o| o.iter().map(|n| self.known[n].clone()).collect::<Vec<_>>());
        for name in self.visible.split_off(scope.outside) {
            self.known.remove(&name);
        }
        let (outputs, values) = (outputs?, values?);
        let mut graph = scope.graph;
        for (name, value) in outputs.iter().zip(&values) {
            let ty = if once_in(&mut self.r, 3) { unranked(value.value_type()) } else { value.value_type() };
            graph.output.push(pb::info(name, &ty));
        }
        Some((graph, values))
    }
    /// The main graph, when all is added.
    pub fn finish(&mut self) -> GraphProto {
        std::mem::take(self.graph())
    }
}

/// The type without its shape.
fn unranked(ty: fcc_ir::ValueType) -> fcc_ir::ValueType {
    match ty {
        fcc_ir::ValueType::Tensor(t) => fcc_ir::TensorType::unranked(t.dtype).into(),
        other => other,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Input,
    Initializer,
    Default,
    Node,
}

/// `Constant` of the first opsets holds floats only.
fn fits_old_constant(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64 | DType::F16)
}
