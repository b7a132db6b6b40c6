//! Quantised operators against the interpreter: every integer output bit for bit, floats too, on each level, with and
//! without VNNI, on one and two threads; at the baseline the interpreter computes them.
mod common;

use common::net::run_guarded;
use fcc_ir::attr::Attrs;
use fcc_ir::interp::{self, Values};
use fcc_ir::{Elem, Graph, Model, NewNode, Opsets, Tensor, Value, ValueId, ValueInfo, ValueType};
use fcc_jit::asm::Isa;
use fcc_jit::{Options, compile};
use std::sync::Arc;

struct Net {
    graph: Graph,
    inputs: Values,
    seed: u64,
}

/// A type of bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    U8,
    I8,
}
const KINDS: [Kind; 2] = [Kind::U8, Kind::I8];

impl Net {
    fn new() -> Net {
        let opsets = Opsets::from([(String::new(), 18), ("com.microsoft".to_string(), 1)]);
        Net { graph: Graph::new("test", Arc::new(opsets)), inputs: Values::new(), seed: 7 }
    }
    fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.seed >> 33
    }
    /// Bytes of which a third are the extremes.
    fn bytes(&mut self, kind: Kind, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        let mut one = || match self.next() % 6 {
            0 => 255,
            1 => 0,
            _ => self.next() as u8,
        };
        let values: Vec<u8> = (0..n).map(|_| one()).collect();
        match kind {
            Kind::U8 => Tensor::new(shape, values).unwrap(),
            Kind::I8 => {
                Tensor::new(shape, values.into_iter().map(|v| (v ^ 0x80) as i8).collect::<Vec<i8>>()).unwrap()
            }
        }
    }
    /// A zero point; vectors have one for each of `n`.
    fn zero(&mut self, kind: Kind, n: Option<usize>) -> Tensor {
        let t = self.bytes(kind, &[n.unwrap_or(1)]);
        if n.is_some() { t } else { t.reshaped(vec![]).unwrap() }
    }
    fn reals(&mut self, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        let one = |s: &mut Self| ((s.next() % 20001) as f32 / 10000.0 - 1.0) * 3.0;
        Tensor::new(shape, (0..n).map(|_| one(self)).collect::<Vec<f32>>()).unwrap()
    }
    fn scales(&mut self, n: usize) -> Tensor {
        let one = |s: &mut Self| (s.next() % 1000 + 1) as f32 / 70000.0;
        let t = Tensor::new([n], (0..n).map(|_| one(self)).collect::<Vec<f32>>()).unwrap();
        if n == 1 { t.reshaped(vec![]).unwrap() } else { t }
    }
    fn given(&mut self, tensor: Tensor) -> ValueId {
        let name = self.graph.fresh_name("x");
        let id = self.graph.add_input(ValueInfo::new(name.clone(), tensor.tensor_type())).unwrap();
        self.inputs.insert(name, Value::Tensor(tensor));
        id
    }
    fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = self.graph.fresh_name("c");
        self.graph.add_constant(&name, tensor).unwrap()
    }
    fn scalar<T: Elem>(&mut self, v: T) -> ValueId {
        self.constant(Tensor::scalar(v))
    }
    fn op(&mut self, op_type: &str, inputs: &[ValueId]) -> ValueId {
        self.nodes("", op_type, inputs, Attrs::new(), 1)[0]
    }
    fn node(&mut self, op_type: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
        self.nodes("", op_type, inputs, attrs, 1)[0]
    }
    fn nodes(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[ValueId],
        attrs: Attrs,
        n: usize,
    ) -> Vec<ValueId> {
        let name = format!("{}{}", op_type.to_lowercase(), self.graph.node_count());
        let outputs: Vec<String> = (0..n).map(|i| format!("{name}.{i}")).collect();
        let inputs = inputs.iter().copied().map(Some).collect();
        let id = self.graph.add_op(NewNode { op_type, domain, name, inputs, outputs, attrs }).unwrap();
        (0..n).map(|i| ValueId { node: id, output: i as u32 }).collect()
    }
    /// Compares with the interpreter: `within(name, got, want)` for each output.
    fn check_by(mut self, outputs: &[ValueId], steps: bool, within: &dyn Fn(&str, &Tensor, &Tensor)) {
        for v in outputs {
            let info = ValueInfo::new(self.graph.value_name(*v), ValueType::Unknown);
            self.graph.add_output(*v, info);
        }
        let model = Model::new(self.graph);
        let want = interp::run(&model, &self.inputs).unwrap();
        // at the baseline nothing of bytes has a kernel
        let mut options = Options::with_threads(2);
        options.isa = Isa::Baseline;
        let compiled = compile(&model, &options).unwrap();
        let plan = compiled.plan_for(&self.inputs).unwrap();
        assert!(!plan.interpreted_steps().is_empty(), "{plan}");
        let got = run_guarded(&compiled, &self.inputs).unwrap();
        for (name, want) in &want {
            let place = format!("{name} at the baseline\n{plan}");
            within(&place, got[name].as_tensor().unwrap(), want.as_tensor().unwrap());
        }
        for isa in common::model_levels().into_iter().filter(|l| *l > Isa::Baseline) {
            for (vnni, threads) in [(true, 1), (true, 2), (false, 1)] {
                let mut options = Options::with_threads(threads);
                (options.isa, options.vnni) = (isa, vnni);
                let compiled = compile(&model, &options).unwrap();
                let plan = compiled.plan_for(&self.inputs).unwrap();
                let left = plan.interpreted_steps();
                assert!(!steps || left.is_empty(), "{isa}: {left:?}\n{plan}");
                // a second run must not see what the first one left in the arena
                let got = run_guarded(&compiled, &self.inputs).unwrap();
                for (name, want) in &want {
                    let place = format!("{name} at {isa}, vnni {vnni}, {threads} threads\n{plan}");
                    within(&place, got[name].as_tensor().unwrap(), want.as_tensor().unwrap());
                }
            }
        }
    }
    fn check(self, outputs: &[ValueId]) {
        self.check_by(outputs, true, &same);
    }
}

fn same(place: &str, got: &Tensor, want: &Tensor) {
    assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{place}");
    if got == want {
        return;
    }
    let at = got.bytes().iter().zip(want.bytes()).position(|(a, b)| a != b);
    if let (Ok(a), Ok(b)) = (got.as_slice::<f32>(), want.as_slice::<f32>()) {
        for (i, (a, b)) in a.iter().zip(b.iter()).enumerate() {
            assert!(a == b || (a.is_nan() && b.is_nan()), "{i}: {a} {b} {place}");
        }
        return;
    }
    panic!("differs from byte {at:?}: {place}");
}

#[test]
fn products_of_every_size_and_sign_are_exact() {
    for (a, b) in KINDS.into_iter().flat_map(|a| KINDS.map(|b| (a, b))) {
        let mut net = Net::new();
        let mut out = vec![];
        for i in 1..=40 {
            let (m, n, k) = (i, i * 7 % 40 + 1, i * 13 % 40 + 1);
            let x = net.bytes(a, &[m, k]);
            let w = net.bytes(b, &[k, n]);
            // zero points: of the tensor, of each column, none
            let za = net.zero(a, None);
            let zb = net.zero(b, if i % 2 == 0 { Some(n) } else { None });
            let (x, w, za, zb) = (net.given(x), net.constant(w), net.constant(za), net.constant(zb));
            out.push(match i % 3 {
                0 => net.op("MatMulInteger", &[x, w]),
                _ => net.op("MatMulInteger", &[x, w, za, zb]),
            });
        }
        net.check(&out);
    }
}

#[test]
fn products_of_batches_and_long_rows_are_exact() {
    let mut net = Net::new();
    let mut out = vec![];
    for (a, b) in KINDS.into_iter().flat_map(|a| KINDS.map(|b| (a, b))) {
        for (sa, sb) in [
            (vec![2, 3, 5, 7], vec![7, 9]),
            (vec![2, 3, 5, 7], vec![3, 7, 33]),
            (vec![1, 4, 6], vec![3, 6, 17]),
            (vec![3, 300], vec![300, 70]),
            (vec![1, 1027], vec![1027, 130]),
            (vec![64, 259], vec![259, 50]),
        ] {
            let (x, w) = (net.bytes(a, &sa), net.bytes(b, &sb));
            let (za, zb) = (net.zero(a, None), net.zero(b, None));
            let (x, w, za, zb) = (net.given(x), net.constant(w), net.constant(za), net.constant(zb));
            out.push(net.op("MatMulInteger", &[x, w, za, zb]));
            let zero = net.bytes(a, &[1]);
            let zero = net.given(zero);
            out.push(net.op("MatMulInteger", &[x, w, zero]));
        }
    }
    net.check(&out);
}

/// Shapes, groups, kernels, strides, dilations, pads of convolutions.
struct Case {
    x: Vec<usize>,
    m: usize,
    group: i64,
    kernel: Vec<usize>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
}

fn cases() -> Vec<Case> {
    let case =
        |x: &[usize], m, group, kernel: &[usize], strides: &[i64], dilations: &[i64], pads: &[i64]| Case {
            x: x.to_vec(),
            m,
            group,
            kernel: kernel.to_vec(),
            strides: strides.to_vec(),
            dilations: dilations.to_vec(),
            pads: pads.to_vec(),
        };
    vec![
        case(&[1, 3, 9, 7], 5, 1, &[3, 3], &[1, 1], &[1, 1], &[1, 1, 1, 1]),
        case(&[3, 1, 8, 5], 20, 1, &[5, 2], &[2, 1], &[1, 1], &[0, 1, 2, 0]),
        case(&[1, 16, 6, 6], 16, 1, &[1, 1], &[1, 1], &[1, 1], &[0, 0, 0, 0]),
        case(&[2, 24, 5, 7], 40, 1, &[3, 3], &[2, 2], &[1, 1], &[1, 1, 1, 1]),
        case(&[1, 37, 6, 5], 33, 1, &[2, 3], &[1, 1], &[2, 1], &[1, 0, 1, 2]),
        case(&[1, 32, 7, 9], 32, 32, &[3, 3], &[1, 1], &[1, 1], &[1, 1, 1, 1]),
        case(&[2, 24, 7, 6], 24, 24, &[5, 5], &[2, 1], &[1, 1], &[2, 2, 2, 2]),
        case(&[1, 12, 5, 5], 18, 3, &[3, 3], &[1, 1], &[1, 1], &[1, 1, 1, 1]),
        case(&[1, 32, 5, 5], 64, 2, &[3, 3], &[1, 1], &[1, 1], &[1, 1, 1, 1]),
        case(&[1, 16, 4, 4], 32, 16, &[3, 3], &[1, 1], &[1, 1], &[1, 1, 1, 1]),
        case(&[1, 20, 11], 7, 1, &[4], &[3], &[2], &[2, 1]),
        case(&[1, 5, 4, 5, 6], 9, 1, &[2, 3, 2], &[1, 2, 1], &[1, 1, 1], &[1, 1, 0, 0, 1, 1]),
    ]
}

impl Case {
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("group", self.group)
            .with("strides", self.strides.clone())
            .with("dilations", self.dilations.clone())
            .with("pads", self.pads.clone())
    }
    fn w(&self) -> Vec<usize> {
        let mut w = vec![self.m, self.x[1] / self.group as usize];
        w.extend(&self.kernel);
        w
    }
}

#[test]
fn convolutions_pad_with_the_zero_point() {
    for (a, b) in KINDS.into_iter().flat_map(|a| KINDS.map(|b| (a, b))) {
        let mut net = Net::new();
        let mut out = vec![];
        for (i, case) in cases().iter().enumerate() {
            let (x, w) = (net.bytes(a, &case.x), net.bytes(b, &case.w()));
            let za = net.zero(a, None);
            let zb = net.zero(b, if i % 2 == 0 { Some(case.m) } else { None });
            // the zero point of x is a constant, or known only in the run
            let (x, w, zb) = (net.given(x), net.constant(w), net.constant(zb));
            let za = if i % 3 == 0 { net.given(za) } else { net.constant(za) };
            out.push(net.node("ConvInteger", &[x, w, za, zb], case.attrs()));
        }
        net.check(&out);
    }
}

#[test]
fn requantised_convolutions_agree_bit_for_bit() {
    for (a, b) in KINDS.into_iter().flat_map(|a| KINDS.map(|b| (a, b))) {
        let mut net = Net::new();
        let mut out = vec![];
        for (i, case) in cases().iter().enumerate() {
            let (x, w) = (net.bytes(a, &case.x), net.bytes(b, &case.w()));
            let (za, zy) = (net.zero(a, None), net.zero(a, None));
            // as quantisers write them: per channel, symmetric; or one scale and zero point
            let channels = if i % 2 == 0 { case.m } else { 1 };
            let zb = net.zero(b, Some(channels));
            let zb = if channels == 1 { zb.reshaped(vec![]).unwrap() } else { zb };
            let (sx, sw, sy) =
                (net.scales(1), net.scales(channels), Tensor::scalar(0.03f32 * (i + 1) as f32));
            let bias: Vec<i32> = (0..case.m).map(|_| net.next() as i32 % 9000 - 4500).collect();
            let bias = Tensor::new([case.m], bias).unwrap();
            let x = net.given(x);
            let rest = [sx, za, w, sw, zb, sy, zy, bias].map(|t| net.constant(t));
            let inputs = [vec![x], rest.to_vec()].concat();
            let inputs = if i % 3 == 0 { &inputs[..8] } else { &inputs[..] };
            let y = net.node("QLinearConv", inputs, case.attrs());
            out.push(y);
            // a second convolution reads the first one's form, with its zero point around it
            if case.x.len() == 4 {
                let w = net.bytes(b, &[11, case.m, 3, 3]);
                let (sx, sw, sy) = (net.scales(1), net.scales(1), Tensor::scalar(0.9f32));
                let (zb, zz) = (net.zero(b, None), net.zero(Kind::U8, None));
                let rest = [sx, w, sw, zb, sy, zz].map(|t| net.constant(t));
                let za = inputs[7];
                let inputs = [y, rest[0], za, rest[1], rest[2], rest[3], rest[4], rest[5]];
                out.push(net.node("QLinearConv", &inputs, Attrs::new().with("pads", vec![1i64; 4])));
            }
        }
        net.check(&out);
    }
}

#[test]
fn requantised_products_agree_bit_for_bit() {
    let mut net = Net::new();
    let mut out = vec![];
    for (a, b) in KINDS.into_iter().flat_map(|a| KINDS.map(|b| (a, b))) {
        for (m, k, n) in [(1, 5, 3), (7, 33, 20), (30, 64, 48), (5, 129, 66)] {
            let (x, w) = (net.bytes(a, &[m, k]), net.bytes(b, &[k, n]));
            let (za, zb, zy) = (net.zero(a, None), net.zero(b, None), net.zero(a, None));
            let (sx, sw, sy) = (net.scales(1), net.scales(n), Tensor::scalar(0.11f32));
            let sw_one = net.scales(1);
            let bias: Vec<i32> = (0..n).map(|_| net.next() as i32 % 9000 - 4500).collect();
            let x = net.given(x);
            let [sx, za, w, sw, zb, sy, zy, sw_one, c] =
                [sx, za, w, sw, zb, sy, zy, sw_one, Tensor::new([n], bias).unwrap()].map(|t| net.constant(t));
            out.push(net.op("QLinearMatMul", &[x, sx, za, w, sw, zb, sy, zy]));
            let inputs = [x, sx, za, w, sw_one, zb, c, sy, zy];
            out.extend(net.nodes("com.microsoft", "QGemm", &inputs, Attrs::new(), 1));
        }
    }
    net.check(&out);
}

#[test]
fn quantisation_rounds_to_even_and_saturates() {
    let mut net = Net::new();
    let mut out = vec![];
    for n in [1usize, 7, 8, 15, 16, 17, 31, 40, 100] {
        let mut values = net.reals(&[3, n]).as_slice::<f32>().unwrap().into_owned();
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9];
        values.iter_mut().zip(odd).for_each(|(v, o)| *v = o);
        let x = net.given(Tensor::new([3, n], values).unwrap());
        for kind in KINDS {
            let (z, zs) = (net.zero(kind, None), net.zero(kind, Some(n)));
            let (s, ss) = (net.scalar(1f32), net.scales(n).reshaped(vec![n]).unwrap());
            let (z, zs, ss) = (net.constant(z), net.constant(zs), net.constant(ss));
            let y = net.op("QuantizeLinear", &[x, s, z]);
            let along = net.op("QuantizeLinear", &[x, ss, zs]);
            out.extend([y, along]);
            out.push(net.op("DequantizeLinear", &[y, s, z]));
            out.push(net.op("DequantizeLinear", &[along, ss, zs]));
        }
    }
    net.check(&out);
}

#[test]
fn dynamic_quantisation_of_plain_and_blocked_values() {
    let mut net = Net::new();
    let mut out = vec![];
    let shapes = [vec![1], vec![7], vec![40, 41], vec![3, 70, 300], vec![2, 21, 5, 6]];
    for shape in &shapes {
        let x = net.reals(shape);
        let x = net.given(x);
        out.extend(net.nodes("", "DynamicQuantizeLinear", &[x], Attrs::new(), 3));
    }
    let zeros = net.given(Tensor::new([5], vec![0f32; 5]).unwrap());
    out.extend(net.nodes("", "DynamicQuantizeLinear", &[zeros], Attrs::new(), 3));
    // what a quantiser makes of a convolution and a product: the range of a blocked value, scales of the run
    let mut x = net.reals(&[2, 3, 9, 8]);
    for (i, m) in [21, 40].into_iter().enumerate() {
        let c = x.shape()[1];
        let given = net.given(x);
        let q = net.nodes("", "DynamicQuantizeLinear", &[given], Attrs::new(), 3);
        let (w, z) = (net.bytes(Kind::I8, &[m, c, 3, 3]), net.scalar(0i8));
        let w = net.constant(w);
        let y = net.node("ConvInteger", &[q[0], w, q[2], z], Attrs::new().with("pads", vec![1i64; 4]));
        let y = net.node("Cast", &[y], Attrs::new().with("to", 1i64));
        let s = net.scalar(0.0131f32);
        let s = net.op("Mul", &[q[1], s]);
        let y = net.op("Mul", &[y, s]);
        let b = net.reals(&[1, m, 1, 1]);
        let b = net.constant(b);
        let y = net.op("Add", &[y, b]);
        let y = net.op("Relu", &[y]);
        out.push(y);
        // and once more, from the blocked result
        let q = net.nodes("", "DynamicQuantizeLinear", &[y], Attrs::new(), 3);
        let w = net.bytes(Kind::U8, &[13, m, 1, 1]);
        let (w, z) = (net.constant(w), net.scalar(128u8));
        let y = net.op("ConvInteger", &[q[0], w, q[2], z]);
        let y = net.node("Cast", &[y], Attrs::new().with("to", 1i64));
        let ss = net.scales(13).reshaped(vec![13, 1, 1]).unwrap();
        let ss = net.constant(ss);
        let s = net.op("Mul", &[q[1], ss]);
        out.push(net.op("Mul", &[y, s]));
        x = net.reals(&[1, 5 + i, 6, 7]);
    }
    net.check(&out);
}

#[test]
fn dynamically_quantised_products() {
    let mut net = Net::new();
    let mut out = vec![];
    for kind in KINDS {
        for (m, k, n) in [(1, 7, 5), (6, 40, 33), (20, 128, 64)] {
            let (a, b, z) = (net.reals(&[m, k]), net.bytes(kind, &[k, n]), net.zero(kind, None));
            let (s, c) = (net.scales(n), net.reals(&[n]));
            let a = net.given(a);
            let [b, s, z, c] = [b, s, z, c].map(|t| net.constant(t));
            let dynamic = |net: &mut Net, inputs: &[ValueId]| {
                net.nodes("com.microsoft", "DynamicQuantizeMatMul", inputs, Attrs::new(), 1)[0]
            };
            out.push(dynamic(&mut net, &[a, b, s, z, c]));
            out.push(dynamic(&mut net, &[a, b, s]));
            let q = net.nodes("", "DynamicQuantizeLinear", &[a], Attrs::new(), 3);
            let inputs = [q[0], b, q[1], s, q[2], z, c];
            out.extend(net.nodes("com.microsoft", "MatMulIntegerToFloat", &inputs, Attrs::new(), 1));
        }
    }
    net.check(&out);
}

#[test]
fn float_operators_between_two_scales() {
    let mut net = Net::new();
    let mut out = vec![];
    for kind in KINDS {
        for shape in [vec![2, 5, 6, 7], vec![3, 19]] {
            let (x, y) = (net.bytes(kind, &shape), net.bytes(kind, &shape));
            let (x, y) = (net.given(x), net.given(y));
            let (s, t, u) = (net.scalar(0.02f32), net.scalar(0.013f32), net.scalar(0.024f32));
            let [z, zz, zzz] = [0; 3].map(|_| net.zero(kind, None)).map(|t| net.constant(t));
            let mut q = |name: &str, inputs: &[ValueId], attrs: Attrs| {
                let made = net.nodes("com.microsoft", name, inputs, attrs, 1);
                out.extend(made);
            };
            q("QLinearAdd", &[x, s, z, y, t, zz, u, zzz], Attrs::new());
            q("QLinearMul", &[x, s, z, y, t, zz, u, zzz], Attrs::new());
            q("QLinearLeakyRelu", &[x, s, z, u, zz], Attrs::new().with("alpha", 0.1f32));
            q("QLinearConcat", &[u, zzz, x, s, z, y, t, zz], Attrs::new().with("axis", 1i64));
        }
    }
    net.check(&out);
}

/// Bytes may differ by one where a quotient of floats lies near a half: this many of them.
fn nearly(share: f64) -> impl Fn(&str, &Tensor, &Tensor) {
    move |place, got, want| {
        assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{place}");
        let ints = |t: &Tensor| fcc_ir::convert::to_f64s(t).unwrap();
        let (got, want) = (ints(got), ints(want));
        let off = got.iter().zip(&want).filter(|(a, b)| a != b).count();
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() <= 1.0), "{place}");
        assert!(off as f64 <= share * got.len() as f64 + 1.0, "{off} of {} differ: {place}", got.len());
    }
}

#[test]
fn a_quantised_network_becomes_products_of_bytes() {
    let mut net = Net::new();
    let quantise = |net: &mut Net, x: ValueId, scale: f32, zero: i8| {
        let (s, z) = (net.scalar(scale), net.scalar(zero));
        let q = net.op("QuantizeLinear", &[x, s, z]);
        net.op("DequantizeLinear", &[q, s, z])
    };
    let weight = |net: &mut Net, shape: &[usize], axis: i64, n: usize| {
        let w = net.bytes(Kind::I8, shape);
        let (s, z) = (net.scales(n), Tensor::new([n], vec![0i8; n]).unwrap());
        let [w, s, z] = [w, s, z].map(|t| net.constant(t));
        net.node("DequantizeLinear", &[w, s, z], Attrs::new().with("axis", axis))
    };
    let x = net.reals(&[2, 3, 12, 10]);
    let x = net.given(x);
    let x = quantise(&mut net, x, 0.02, 3);
    let pads = || Attrs::new().with("pads", vec![1i64; 4]);
    let (w, b) = (weight(&mut net, &[20, 3, 3, 3], 0, 20), net.reals(&[20]));
    let b = net.constant(b);
    let y = net.node("Conv", &[x, w, b], pads());
    let y = net.op("Relu", &[y]);
    let y = quantise(&mut net, y, 0.05, -128);
    let w = weight(&mut net, &[20, 20, 3, 3], 0, 20);
    let z = net.node("Conv", &[y, w], pads());
    let z = quantise(&mut net, z, 0.3, 10);
    let sum = net.op("Add", &[y, z]);
    let sum = net.op("Relu", &[sum]);
    let sum = quantise(&mut net, sum, 0.2, -100);
    let pooled = net.node(
        "MaxPool",
        &[sum],
        Attrs::new().with("kernel_shape", vec![2i64, 2]).with("strides", vec![2i64, 2]),
    );
    let pooled = quantise(&mut net, pooled, 0.2, -100);
    let flat = net.op("Flatten", &[pooled]);
    let (w, b) = (weight(&mut net, &[7, 600], 0, 7), net.reals(&[7]));
    let b = net.constant(b);
    let y = net.node("Gemm", &[flat, w, b], Attrs::new().with("transB", 1i64));
    let (s, z) = (net.scalar(0.5f32), net.scalar(0i8));
    let y = net.op("QuantizeLinear", &[y, s, z]);
    net.check_by(&[y], true, &nearly(0.1));
}
