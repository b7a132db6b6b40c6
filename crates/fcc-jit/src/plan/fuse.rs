//! Fusion: elementwise chains become one expression; what an expression does first to a convolution's or product's
//! result moves into it.
//!
//! 1. `Ew(f, Ew(g, x…), y…) => Ew(f∘g, x…, y…)` where the inner value has no other reader and the outer's shape.
//! 2. `Ew(f, Conv(x, w, b))` where all of f sees `a * conv + c` with `a`, `c` constant for each channel
//!    `=> Ew(f', Conv(x, a*w, a*b + c))`; the product with a constant matrix likewise, for each column.
//! 3. `Ew(act(conv + r)) => Conv(…, residual r, act)`, without residual or without activation likewise.
use super::ir::{Kind, Node, Program, Vx};
use crate::kernels::activation::Activation;
use crate::kernels::ew::{Binary, Expr, Ins, MAX_INPUTS, Unary};
use fcc_ir::Tensor;

pub(crate) fn fuse(program: &mut Program) {
    program.sweep();
    super::channels::simplify(program);
    program.sweep();
    super::fuse_int8::products(program);
    program.sweep();
    chains(program);
    program.sweep();
    super::fuse_int8::epilogues(program);
    program.sweep();
    epilogues(program);
    program.sweep();
}

/// Law 1. Nodes stand in order, so one pass from the front reaches the whole of each chain.
fn chains(program: &mut Program) {
    let uses = program.uses();
    let makers = program.makers();
    for n in 0..program.nodes.len() {
        let mut at = 0;
        while at < program.nodes[n].inputs.len() {
            match merged(program, n, at, &uses, &makers) {
                Some(node) => {
                    program.nodes[n] = node;
                    at = 0;
                }
                None => at += 1,
            }
        }
    }
}

/// Node `n` with the node behind its input `at` taken in.
fn merged(program: &Program, n: usize, at: usize, uses: &[usize], makers: &[Option<usize>]) -> Option<Node> {
    let outer = &program.nodes[n];
    let Kind::Ew(f) = &outer.kind else { return None };
    let v = outer.input(at)?;
    let inner = &program.nodes[makers[v.at()]?];
    let Kind::Ew(g) = &inner.kind else { return None };
    // a value may be read twice by the outer node alone
    let here = outer.inputs.iter().filter(|i| **i == Some(v)).count();
    if uses[v.at()] != here || program.shape(v) != program.shape(outer.out()?) {
        return None;
    }
    let mut inputs: Vec<Vx> = outer.inputs.iter().flatten().copied().collect();
    let mut place = |v: Vx| {
        inputs.iter().position(|i| *i == v).unwrap_or_else(|| {
            inputs.push(v);
            inputs.len() - 1
        })
    };
    let map: Vec<usize> = inner.inputs.iter().flatten().map(|v| place(*v)).collect();
    let own: Vec<usize> = (0..outer.inputs.len()).collect();
    let expr = f.inline(at, g, &map, &own);
    let origins = [outer.origins.as_slice(), &inner.origins].concat();
    let (expr, inputs) = compact(&expr, &inputs);
    let small = inputs.len() <= MAX_INPUTS - 2 && expr.code.len() <= 40;
    small.then(|| Node {
        place: outer.place.clone(),
        kind: Kind::Ew(expr),
        inputs: inputs.into_iter().map(Some).collect(),
        outputs: outer.outputs.clone(),
        origins,
    })
}

/// The expression and its inputs without those it does not read, equal ones joined.
pub(super) fn compact(expr: &Expr, inputs: &[Vx]) -> (Expr, Vec<Vx>) {
    let mut kept: Vec<Vx> = vec![];
    let mut out = Expr::default();
    let mut at: Vec<usize> = vec![];
    for ins in &expr.code {
        let ins = match *ins {
            Ins::Input(n) => {
                let v = inputs[n];
                let place = kept.iter().position(|k| *k == v).unwrap_or_else(|| {
                    kept.push(v);
                    kept.len() - 1
                });
                Ins::Input(place)
            }
            Ins::Const(c) => Ins::Const(c),
            Ins::Unary(f, a) => Ins::Unary(f, at[a]),
            Ins::Binary(f, a, b) => Ins::Binary(f, at[a], at[b]),
        };
        at.push(out.push(ins));
    }
    let last = at.last().copied().unwrap_or(0);
    (out.ending_at(last), kept)
}

/// Who makes and how many read each value. Fusion moves readers and makers, it adds none.
struct Links {
    uses: Vec<usize>,
    makers: Vec<Option<usize>>,
}

impl Links {
    fn maker(&self, v: Vx) -> Option<usize> {
        self.makers.get(v.at()).copied().flatten()
    }
    fn made_by(&mut self, v: Vx, node: usize) {
        if let Some(maker) = self.makers.get_mut(v.at()) {
            *maker = Some(node);
        }
    }
}

/// Laws 2 and 3, for each elementwise node and each of its inputs that is such a result.
fn epilogues(program: &mut Program) {
    let mut links = Links { uses: program.uses(), makers: program.makers() };
    for n in 0..program.nodes.len() {
        let mut at = 0;
        while at < program.nodes[n].inputs.len() {
            if !matches!(program.nodes[n].kind, Kind::Ew(_)) {
                break;
            }
            if absorb_affine(program, &mut links, n, at).is_some() {
                at = 0;
            } else {
                at += 1;
            }
        }
        // the latest producer takes the residual: the other operand is there by then
        let mut candidates: Vec<(usize, usize)> = (0..program.nodes[n].inputs.len())
            .filter_map(|at| Some((links.maker(program.nodes[n].input(at)?)?, at)))
            .collect();
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        for (maker, at) in candidates {
            if absorb_activation(program, &mut links, n, at, maker).is_some() {
                break;
            }
        }
    }
}

/// What an instruction is to a result of a convolution, for each channel: `a * result + c`, or a constant.
#[derive(Clone, PartialEq)]
enum Sym {
    Linear(Vec<f64>, Vec<f64>),
    Constant(Vec<f64>),
    Other,
}

/// The node that makes input `at` of node `n`, if it takes epilogues, has no other reader and no activation yet.
fn producer(program: &Program, links: &Links, n: usize, at: usize) -> Option<usize> {
    let node = &program.nodes[n];
    let v = node.input(at)?;
    let maker = links.maker(v)?;
    let free = match &program.nodes[maker].kind {
        Kind::Conv(c) => c.activation.is_none() && !c.residual && (!c.transposed || c.group == 1),
        Kind::Gemm(g) => g.activation.is_none() && g.residual.is_none(),
        _ => false,
    };
    let here = node.inputs.iter().filter(|i| **i == Some(v)).count();
    let only = links.uses.get(v.at()) == Some(&here);
    // what kernels of floats store is f32
    let float = program.val(node.out()?).f32_shape() == Some(program.shape(v));
    (free && only && float).then_some(maker)
}

/// A constant that has one value for each extent of `axis` of `shape` (or one for all), as that many values.
pub(super) fn along_axis(t: &Tensor, shape: &[usize], axis: usize) -> Option<Vec<f64>> {
    let values = t.as_slice::<f32>().ok()?;
    let n = shape[axis];
    if values.len() == 1 {
        return Some(vec![f64::from(values[0]); n]);
    }
    let own = t.shape();
    let at = (own.len() + axis).checked_sub(shape.len())?;
    let fits = own.len() <= shape.len() && own.get(at) == Some(&n) && values.len() == n;
    fits.then(|| values.iter().map(|v| f64::from(*v)).collect())
}

fn absorb_affine(program: &mut Program, links: &mut Links, n: usize, at: usize) -> Option<()> {
    let maker = producer(program, links, n, at)?;
    let node = &program.nodes[n];
    let Kind::Ew(expr) = &node.kind else { return None };
    let shape = program.shape(node.out()?).to_vec();
    let axis = match &program.nodes[maker].kind {
        Kind::Conv(_) => 1,
        _ => shape.len().checked_sub(1)?,
    };
    let channels = shape[axis];
    let inputs: Vec<Vx> = node.inputs.iter().flatten().copied().collect();
    let mut syms: Vec<Sym> = Vec::with_capacity(expr.code.len());
    for ins in &expr.code {
        let sym = match *ins {
            Ins::Input(i) if i == at => Sym::Linear(vec![1.0; channels], vec![0.0; channels]),
            Ins::Input(i) => match program.constant_of(inputs[i]).and_then(|t| along_axis(t, &shape, axis)) {
                Some(v) => Sym::Constant(v),
                None => Sym::Other,
            },
            Ins::Const(c) => Sym::Constant(vec![f64::from(c); channels]),
            Ins::Binary(f, a, b) => combine(f, &syms[a], &syms[b]),
            Ins::Unary(Unary::Neg, a) => combine(Binary::Sub, &Sym::Constant(vec![0.0; channels]), &syms[a]),
            Ins::Unary(..) => Sym::Other,
        };
        syms.push(sym);
    }
    // the linear values that something else reads: all of the expression must see the result through one of them
    let linear = |i: usize| matches!(syms[i], Sym::Linear(..));
    let mut frontier: Vec<usize> = vec![];
    for (i, ins) in expr.code.iter().enumerate().filter(|(i, _)| !linear(*i)) {
        let _ = i;
        let reads = match *ins {
            Ins::Unary(_, a) => [Some(a), None],
            Ins::Binary(_, a, b) => [Some(a), Some(b)],
            _ => [None, None],
        };
        frontier.extend(reads.into_iter().flatten().filter(|r| linear(*r)));
    }
    let last = expr.code.len().checked_sub(1)?;
    if linear(last) {
        frontier.push(last);
    }
    frontier.sort_unstable();
    frontier.dedup();
    let [only] = frontier[..] else { return None };
    let Sym::Linear(a, c) = syms[only].clone() else { return None };
    let plain = matches!(expr.code[only], Ins::Input(_));
    let finite = a.iter().chain(&c).all(|v| v.is_finite() && (*v as f32).is_finite());
    if plain || !finite {
        return None;
    }
    // the linear value becomes the result itself
    let mut code = expr.code.clone();
    code[only] = Ins::Input(at);
    let rest = Expr { code }.ending_at(last);
    let (rest, kept) = compact(&rest, &inputs);
    scale_producer(program, maker, &a, &c)?;
    let origins = program.nodes[n].origins.clone();
    program.nodes[maker].origins.extend(origins);
    if matches!(rest.code[..], [Ins::Input(_)]) {
        // nothing is left to do: the producer makes the result itself
        let outputs = std::mem::take(&mut program.nodes[n].outputs);
        for v in outputs.iter().flatten() {
            links.made_by(*v, maker);
        }
        program.nodes[maker].outputs = outputs;
        program.nodes[n].kind = Kind::View;
        program.nodes[n].inputs.clear();
        return Some(());
    }
    program.nodes[n].kind = Kind::Ew(rest);
    program.nodes[n].inputs = kept.into_iter().map(Some).collect();
    Some(())
}

fn combine(f: Binary, a: &Sym, b: &Sym) -> Sym {
    let zip = |a: &[f64], b: &[f64], f: fn(f64, f64) -> f64| -> Vec<f64> {
        a.iter().zip(b).map(|(x, y)| f(*x, *y)).collect()
    };
    let (add, sub, mul, div): (
        fn(f64, f64) -> f64,
        fn(f64, f64) -> f64,
        fn(f64, f64) -> f64,
        fn(f64, f64) -> f64,
    ) = (|x, y| x + y, |x, y| x - y, |x, y| x * y, |x, y| x / y);
    match (f, a, b) {
        (Binary::Add, Sym::Linear(k, c), Sym::Constant(d))
        | (Binary::Add, Sym::Constant(d), Sym::Linear(k, c)) => Sym::Linear(k.clone(), zip(c, d, add)),
        (Binary::Sub, Sym::Linear(k, c), Sym::Constant(d)) => Sym::Linear(k.clone(), zip(c, d, sub)),
        (Binary::Sub, Sym::Constant(d), Sym::Linear(k, c)) => {
            Sym::Linear(k.iter().map(|v| -v).collect(), zip(d, c, sub))
        }
        (Binary::Mul, Sym::Linear(k, c), Sym::Constant(d))
        | (Binary::Mul, Sym::Constant(d), Sym::Linear(k, c)) => Sym::Linear(zip(k, d, mul), zip(c, d, mul)),
        (Binary::Div, Sym::Linear(k, c), Sym::Constant(d)) => Sym::Linear(zip(k, d, div), zip(c, d, div)),
        (Binary::Add, Sym::Constant(c), Sym::Constant(d)) => Sym::Constant(zip(c, d, add)),
        (Binary::Sub, Sym::Constant(c), Sym::Constant(d)) => Sym::Constant(zip(c, d, sub)),
        (Binary::Mul, Sym::Constant(c), Sym::Constant(d)) => Sym::Constant(zip(c, d, mul)),
        (Binary::Div, Sym::Constant(c), Sym::Constant(d)) => Sym::Constant(zip(c, d, div)),
        _ => Sym::Other,
    }
}

/// Makes `a * result + c` the result of a convolution or product with constant weights.
fn scale_producer(program: &mut Program, maker: usize, a: &[f64], c: &[f64]) -> Option<()> {
    let node = &program.nodes[maker];
    let scaled = a.iter().any(|v| *v != 1.0);
    let w = node.input(1)?;
    let name = program.val(w).name.clone();
    let has_bias = match &node.kind {
        Kind::Conv(k) => k.bias,
        Kind::Gemm(g) => g.bias,
        _ => return None,
    };
    let old: Vec<f64> = match (has_bias, node.input(2)) {
        (true, Some(b)) => {
            program.constant_of(b)?.as_slice::<f32>().ok()?.iter().map(|v| f64::from(*v)).collect()
        }
        _ => vec![0.0; a.len()],
    };
    let new: Vec<f32> = old.iter().zip(a).zip(c).map(|((b, a), c)| (b * a + c) as f32).collect();
    let weights = match (&node.kind, scaled) {
        (_, false) => None,
        // packing takes them in: the weights are not copied here
        (Kind::Conv(_), true) => None,
        (Kind::Gemm(g), true) => {
            let t = program.constant_of(w)?;
            let (values, shape) = (t.as_slice::<f32>().ok()?, t.shape());
            let (last, n) = (*shape.last()?, a.len());
            let column = |i: usize| if g.trans_b { i / last % n } else { i % n };
            let scale = |(i, v): (usize, &f32)| (f64::from(*v) * a[column(i)]) as f32;
            Some(Tensor::new(shape, values.iter().enumerate().map(scale).collect::<Vec<f32>>()).ok()?)
        }
        _ => return None,
    };
    let bias = Tensor::new(vec![a.len()], new).ok()?;
    let bias = program.constant(format!("{name}.bias"), bias);
    let weights = weights.map(|t| program.constant(format!("{name}.scaled"), t));
    let node = &mut program.nodes[maker];
    match &mut node.kind {
        Kind::Conv(k) => {
            k.bias = true;
            if scaled {
                let before = |i: usize| k.scale.as_ref().map_or(1.0, |s| s[i]);
                k.scale = Some(a.iter().enumerate().map(|(i, a)| a * before(i)).collect());
            }
        }
        Kind::Gemm(g) => g.bias = true,
        _ => return None,
    }
    node.inputs.truncate(2);
    node.inputs.push(Some(bias));
    if let Some(w) = weights {
        node.inputs[1] = Some(w);
    }
    Some(())
}

fn absorb_activation(
    program: &mut Program,
    links: &mut Links,
    n: usize,
    at: usize,
    maker: usize,
) -> Option<()> {
    if producer(program, links, n, at)? != maker {
        return None;
    }
    let node = &program.nodes[n];
    let Kind::Ew(expr) = &node.kind else { return None };
    let inputs: Vec<Vx> = node.inputs.iter().flatten().copied().collect();
    let out = node.out()?;
    // act(x + r): what the activation reads is the sum, or the result itself
    let is_at = |i: usize| expr.code[i] == Ins::Input(at);
    let sum = expr.code.iter().enumerate().find_map(|(i, ins)| match *ins {
        Ins::Binary(Binary::Add, a, b) if is_at(a) && matches!(expr.code[b], Ins::Input(_)) => Some((i, b)),
        Ins::Binary(Binary::Add, a, b) if is_at(b) && matches!(expr.code[a], Ins::Input(_)) => Some((i, a)),
        _ => None,
    });
    let (root, residual) = match (inputs.len(), sum) {
        (1, _) => (expr.code.iter().position(|c| *c == Ins::Input(at))?, None),
        (2, Some((i, r))) => {
            let Ins::Input(r) = expr.code[r] else { return None };
            let v = inputs[r];
            let same = program.val(v).f32_shape() == Some(program.shape(out))
                && r != at
                && program.constant_of(v).is_none();
            if !same {
                return None;
            }
            (i, Some(v))
        }
        _ => return None,
    };
    if residual.is_some() && matches!(&program.nodes[maker].kind, Kind::Conv(c) if c.transposed) {
        return None;
    }
    let activation = match expr.code.len() - 1 == root {
        true => None,
        false => Some(activation(expr, root)?),
    };
    if activation.is_none() && residual.is_none() {
        return None;
    }
    // the residual must be there before the producer runs: it moves to this place in the order
    let mut made = program.nodes[maker].clone();
    match &mut made.kind {
        Kind::Conv(c) => {
            c.activation = activation;
            c.residual = residual.is_some();
        }
        Kind::Gemm(g) => {
            g.activation = activation;
            g.residual = residual.map(|_| 1.0);
        }
        _ => return None,
    }
    made.inputs.extend(residual.map(Some));
    made.outputs = vec![Some(out)];
    made.origins.extend(program.nodes[n].origins.clone());
    links.made_by(out, n);
    program.nodes[n] = made;
    // what stood at `maker` is dead now; sweep takes it
    Some(())
}

/// The activation that the expression is of its instruction `x`, if it is one: known ones, and their spellings as
/// several operators.
fn activation(expr: &Expr, x: usize) -> Option<Activation> {
    let tree = Tree { expr, x };
    let last = expr.code.len() - 1;
    tree.activation(last)
}

struct Tree<'a> {
    expr: &'a Expr,
    x: usize,
}

impl Tree<'_> {
    fn is_x(&self, i: usize) -> bool {
        i == self.x
    }
    fn constant(&self, i: usize) -> Option<f32> {
        if let Ins::Const(c) = self.expr.code[i] { Some(c) } else { None }
    }
    /// `(variable, constant)` of a commutative instruction.
    fn with_constant(&self, i: usize, f: Binary) -> Option<(usize, f32)> {
        let Ins::Binary(g, a, b) = self.expr.code[i] else { return None };
        if g != f {
            return None;
        }
        match (self.constant(a), self.constant(b)) {
            (None, Some(c)) => Some((a, c)),
            (Some(c), None) if matches!(f, Binary::Add | Binary::Mul) => Some((b, c)),
            _ => None,
        }
    }
    fn near(a: f32, b: f64) -> bool {
        (f64::from(a) - b).abs() <= 1e-6 * b.abs()
    }

    fn activation(&self, i: usize) -> Option<Activation> {
        if let Ins::Unary(Unary::Act(a), inner) = self.expr.code[i]
            && self.is_x(inner)
        {
            return Some(a);
        }
        self.silu(i).or_else(|| self.hard_swish(i)).or_else(|| self.gelu(i)).or_else(|| self.scaled(i))
    }
    /// `scale * act(x) + shift`, one of both or both.
    fn scaled(&self, i: usize) -> Option<Activation> {
        let (product, shift) = match (self.with_constant(i, Binary::Add), self.with_constant(i, Binary::Sub))
        {
            (Some((p, c)), _) => (p, c),
            (_, Some((p, c))) => (p, -c),
            _ => (i, 0.0),
        };
        let (inner, scale) = match self.with_constant(product, Binary::Mul) {
            Some((x, c)) if !self.is_x(x) => (x, c),
            _ => (product, 1.0),
        };
        if inner == i {
            return None;
        }
        match self.activation(inner)? {
            Activation::Relu => Some(Activation::ScaledRelu { scale, shift }),
            Activation::HardSwish => Some(Activation::ScaledHardSwish { scale, shift }),
            _ => None,
        }
    }
    /// `x * sigmoid(x)`
    fn silu(&self, i: usize) -> Option<Activation> {
        let Ins::Binary(Binary::Mul, a, b) = self.expr.code[i] else { return None };
        let other = if self.is_x(a) { b } else { self.is_x(b).then_some(a)? };
        match self.expr.code[other] {
            Ins::Unary(Unary::Act(Activation::Sigmoid), inner) if self.is_x(inner) => Some(Activation::Silu),
            Ins::Unary(Unary::Act(Activation::HardSigmoid { alpha, beta }), inner)
                if self.is_x(inner) && Self::near(alpha, 1.0 / 6.0) && beta == 0.5 =>
            {
                Some(Activation::HardSwish)
            }
            _ => None,
        }
    }
    /// `x * clip(x + 3, 0, 6) / 6`, with the division by 6 anywhere.
    fn hard_swish(&self, i: usize) -> Option<Activation> {
        let (product, sixth) = match self.with_constant(i, Binary::Div) {
            Some((p, c)) => (p, Self::near(c, 6.0)),
            None => match self.with_constant(i, Binary::Mul) {
                Some((p, c)) => (p, Self::near(c, 1.0 / 6.0)),
                None => (i, false),
            },
        };
        let Ins::Binary(Binary::Mul, a, b) = self.expr.code[product] else { return None };
        let gate = if self.is_x(a) { b } else { self.is_x(b).then_some(a)? };
        let (clip, divided) =
            match (self.with_constant(gate, Binary::Div), self.with_constant(gate, Binary::Mul)) {
                (Some((g, c)), _) => (g, Self::near(c, 6.0)),
                (_, Some((g, c))) => (g, Self::near(c, 1.0 / 6.0)),
                _ => (gate, false),
            };
        let Ins::Unary(Unary::Act(Activation::Clip { low, high }), sum) = self.expr.code[clip] else {
            return None;
        };
        let (x, three) = self.with_constant(sum, Binary::Add)?;
        let fits = self.is_x(x) && three == 3.0 && low == 0.0 && high == 6.0 && (sixth != divided);
        fits.then_some(Activation::HardSwish)
    }
    /// `0.5 * x * (1 + erf(x / √2))`, in any order of the products.
    fn gelu(&self, i: usize) -> Option<Activation> {
        let mut factors = vec![];
        let mut scale = 1.0f64;
        self.factors(i, &mut factors, &mut scale);
        let [a, b] = factors[..] else { return None };
        let other = if self.is_x(a) { b } else { self.is_x(b).then_some(a)? };
        let (erf, one) = self.with_constant(other, Binary::Add)?;
        let Ins::Unary(Unary::Erf, arg) = self.expr.code[erf] else { return None };
        let root = std::f64::consts::SQRT_2;
        let scaled = match (self.with_constant(arg, Binary::Div), self.with_constant(arg, Binary::Mul)) {
            (Some((x, c)), _) => self.is_x(x) && Self::near(c, root),
            (_, Some((x, c))) => self.is_x(x) && Self::near(c, 1.0 / root),
            _ => false,
        };
        (scaled && one == 1.0 && scale == 0.5).then_some(Activation::Gelu)
    }
    fn factors(&self, i: usize, out: &mut Vec<usize>, scale: &mut f64) {
        match self.expr.code[i] {
            Ins::Const(c) => *scale *= f64::from(c),
            Ins::Binary(Binary::Mul, a, b) if i != self.x => {
                self.factors(a, out, scale);
                self.factors(b, out, scale);
            }
            _ => out.push(i),
        }
    }
}
