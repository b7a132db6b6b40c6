//! The machine code of a few kernels, as text: what a change of the kernels does to it shows in review.

mod common;
use common::object_emitter;
use cranelift_object::ObjectModule;
use fcc_jit::asm::{Dot, Isa};
use fcc_jit::error::Result;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::amx::Terms;
use fcc_jit::kernels::amx::conv::AmxConv;
use fcc_jit::kernels::amx::gemm::AmxGemm;
use fcc_jit::kernels::conv::Conv;
use fcc_jit::kernels::conv_transpose::ConvTranspose;
use fcc_jit::kernels::elem::Elem;
use fcc_jit::kernels::ew::{Binary, Dim, Elementwise, Expr, Ins, Unary};
use fcc_jit::kernels::gemm::{BStorage, Gemm, GemmBias};
use fcc_jit::kernels::global_pool::GlobalPool;
use fcc_jit::kernels::int8;
use fcc_jit::kernels::lanewise::{GroupConv, Pool, PoolKind};
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::kernels::pack::PackB;
use fcc_jit::kernels::reorder::Reorder;
use fcc_jit::kernels::rows::{Fold, Normalise, Reduce};
use fcc_jit::kernels::softmax::Softmax;
use fcc_jit::kernels::winograd::{Winograd, bilinear::Scheme};
use fcc_jit::module::{Emitter, Kernel, ListedCode};
use iced_x86::{Decoder, DecoderOptions, Formatter, Mnemonic, NasmFormatter};

type Object = Emitter<ObjectModule>;

/// A machine to compile for, by the name that it has in the snapshots.
const MACHINES: [(&str, &str, Isa, &[&str]); 5] = [
    ("aarch64", "aarch64-unknown-linux-gnu", Isa::Baseline, &[]),
    ("sse41", "x86_64-unknown-linux-gnu", Isa::Baseline, &["has_sse3", "has_ssse3", "has_sse41"]),
    (
        "fma128",
        "x86_64-unknown-linux-gnu",
        Isa::Baseline,
        &["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_avx", "has_avx2", "has_fma"],
    ),
    ("avx2", "x86_64-unknown-linux-gnu", Isa::Avx2, &[]),
    ("avx512", "x86_64-unknown-linux-gnu", Isa::Avx512, &[]),
];

/// Snapshots of the first function of that name that a build emits, on every machine.
fn snapshots(name: &str, function: &str, build: impl Fn(&mut Object) -> Result<Kernel>) {
    for (machine, triple, isa, features) in MACHINES {
        let mut e = object_emitter(triple, isa, features);
        e.keep_listing();
        build(&mut e).expect("build");
        let listed = e.listing().iter().find(|l| l.name == function).expect("the function");
        let text = match &listed.code {
            ListedCode::Text(text) => text.clone(),
            ListedCode::Bytes(bytes) => disassemble(bytes),
        };
        insta::assert_snapshot!(format!("{name}_{machine}"), text);
    }
}

/// The instructions up to `ret`.
fn disassemble(bytes: &[u8]) -> String {
    let mut formatter = NasmFormatter::new();
    formatter.options_mut().set_rip_relative_addresses(true);
    let mut out = String::new();
    for ins in Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE) {
        formatter.format(&ins, &mut out);
        out.push('\n');
        if ins.mnemonic() == Mnemonic::Ret {
            break;
        }
    }
    out
}

fn gemm(isa: Isa) -> Gemm {
    let mut gemm = Gemm::new(3, 2 * isa.lanes(), 8, BStorage::Packed);
    gemm.bias = GemmBias::Columns;
    gemm.activation = Some(Activation::Relu);
    gemm
}

fn blocked(isa: Isa, c: usize, size: [usize; 2], halo: usize) -> BlockedLayout {
    let halo = [(0, 0), (halo, halo), (halo, halo)];
    BlockedLayout::blocked(1, c, [1, size[0], size[1]], isa.lanes()).with_halo(halo)
}

fn conv(isa: Isa, c: usize, size: [usize; 2]) -> Conv {
    Conv {
        x: blocked(isa, c, size, 1),
        y: blocked(isa, isa.lanes(), size, 0),
        kernel: [1, 3, 3],
        strides: [1; 3],
        dilations: [1; 3],
        pads_begin: [0, 1, 1],
        group: 1,
        bias: true,
        residual: None,
        activation: Some(Activation::Relu),
        cut: None,
    }
}

/// `relu(x) * exp(y)`
fn chain(n: usize) -> Elementwise {
    let code = vec![
        Ins::Input(0),
        Ins::Unary(Unary::Act(Activation::Relu), 0),
        Ins::Input(1),
        Ins::Unary(Unary::Exp, 2),
        Ins::Binary(Binary::Mul, 1, 3),
    ];
    let dims = vec![Dim { count: n, steps: vec![4; 3] }];
    Elementwise { expr: Expr { code }, dims, base: vec![0; 3], bytes: vec![4 * n; 3], types: vec![] }
}

#[test]
fn a_gemm_tile() {
    snapshots("gemm", "brgemm", |e| gemm(e.isa()).build(e, 1));
}

#[test]
fn a_convolution_tile() {
    snapshots("conv", "brgemm", |e| conv(e.isa(), 2, [2, 2]).build(e, 1));
}

#[test]
fn an_elementwise_chain() {
    snapshots("chain", "elementwise", |e| chain(e.isa().lanes()).build(e, 1));
}

fn two_by_two(conv: &Conv, isa: Isa) -> Winograd {
    Winograd::new(conv, isa, [Scheme::Two; 2]).expect("a form of Winograd")
}

#[test]
fn a_winograd_input_transform() {
    snapshots("winograd_in", "winograd_in", |e| {
        two_by_two(&conv(e.isa(), e.isa().lanes(), [4, 4]), e.isa()).build(e, 1)
    });
}

/// Bytes of 64 channels, by tiles.
fn conv_of_bytes(isa: Isa) -> int8::conv::Conv {
    let Conv { x, y, kernel, strides, dilations, pads_begin, .. } = conv(isa, 64, [2, 2]);
    let conv = int8::conv::Conv {
        x: BlockedLayout { elem: Elem::U8, ..x },
        y: BlockedLayout { elem: Elem::I32, ..y },
        kernel,
        strides,
        dilations,
        pads_begin,
        group: 1,
        dot: Dot::Words,
        zero: int8::Zero::Const(3),
        parts: 1,
        epilogue: int8::Epilogue::sums(),
        residual: None,
    };
    conv.for_tiles().expect("a form of tiles").0
}

/// Kernels of AMX tiles: that of each kind, by its name and the name of its function.
fn tile_kernels(e: &mut Object) -> Result<Vec<(&'static str, &'static str, Kernel)>> {
    let isa = e.isa();
    let one = AmxConv::new(&conv(isa, 32, [2, 2]), Terms::Six).expect("a form of tiles");
    let three = AmxConv::new(&conv(isa, 32, [2, 2]), Terms::Three).expect("a form of tiles");
    let product = AmxGemm::new(&gemm(isa), Terms::Six).expect("a form of tiles");
    let bytes = conv_of_bytes(isa);
    Ok(vec![
        ("terms", "regroup", one.regroup().build(e, 1)?),
        ("conv_six", "brgemm", one.build(e, 1)?),
        ("conv_three", "brgemm", three.build(e, 1)?),
        ("gemm", "brgemm", product.build(e, 1)?),
        ("int8", "int8", bytes.build(e, 1)?),
        ("release", "tile_release", bytes.build(e, 1)?),
    ])
}

/// At level AMX every kernel ends its vectors and every task its tiles.
#[test]
fn kernels_of_tiles() {
    let mut seen = std::collections::BTreeSet::new();
    for at in 0..6 {
        let mut e = object_emitter("x86_64-unknown-linux-gnu", Isa::Amx, &[]);
        e.keep_listing();
        let kernels = tile_kernels(&mut e).expect("build");
        let (name, function, _) = &kernels[at];
        // the terms of three and of six, and of a product, are of different shape: the n-th of that name
        let nth = kernels[..at].iter().filter(|k| k.1 == *function).count();
        let mut listed =
            e.listing().iter().filter(|l| l.name == *function && matches!(l.code, ListedCode::Bytes(_)));
        let ListedCode::Bytes(bytes) = &listed.nth(nth).expect("the function").code else { unreachable!() };
        insta::assert_snapshot!(format!("amx_{name}"), disassemble(bytes));
        for l in e.listing() {
            let ListedCode::Bytes(bytes) = &l.code else { continue };
            let text = disassemble(bytes);
            assert!(text.ends_with("vzeroupper\nret\n"), "{}:\n{text}", l.name);
            let released = text.contains("tilerelease\nvzeroupper\nret");
            assert_eq!(released, l.name == "tile_release", "{}:\n{text}", l.name);
            seen.insert(l.name.clone());
        }
    }
    let names: Vec<&str> = seen.iter().map(String::as_str).collect();
    assert_eq!(names, ["brgemm", "int8", "regroup", "tile_config", "tile_release"]);
}

#[test]
fn products_of_aarch64_take_one_element() {
    let mut e = object_emitter("aarch64-unknown-linux-gnu", Isa::Baseline, &[]);
    e.keep_listing();
    gemm(e.isa()).build(&mut e, 1).expect("build");
    let listed = e.listing().iter().find(|l| l.name == "brgemm").expect("the tile");
    let ListedCode::Text(text) = &listed.code else { panic!("aarch64 code is CLIF's") };
    let by_element = |line: &&str| line.contains("fmla") && line.contains(".s[");
    assert_eq!(text.lines().filter(by_element).count(), 3 * 2 * 8, "{text}");
    assert!(!text.contains("dup"), "{text}");
}

/// Emits a kernel of every kind.
fn every_kind(e: &mut Object) -> Result<Vec<Kernel>> {
    let isa = e.isa();
    let dense = conv(isa, 20, [6, 7]);
    let Conv { x, kernel, strides, dilations, pads_begin, .. } = dense.clone();
    let y = blocked(isa, 20, [6, 7], 0);
    let transposed = PackB { gemm: gemm(isa), transposed: true, row: 8, batch: vec![] };
    let in_rows = PackB { transposed: false, row: 2 * isa.lanes(), ..transposed.clone() };
    let group = GroupConv {
        x,
        y,
        kernel,
        strides,
        dilations,
        pads_begin,
        group: 20,
        bias: true,
        residual: None,
        activation: Some(Activation::HardSwish),
    };
    let pool = |kind| Pool { x, y, kernel, strides, dilations, pads_begin, pads_end: pads_begin, kind };
    let plain = BlockedLayout::plain(1, 20, [1, 6, 7]);
    let deconv = ConvTranspose {
        x: blocked(isa, 20, [6, 7], 2),
        y: blocked(isa, 20, [6, 7], 0),
        kernel,
        strides,
        dilations,
        pads_begin,
        group: 1,
        bias: true,
        activation: None,
    };
    let mut all = vec![
        gemm(isa).build(e, 1)?,
        transposed.build(e, 1)?,
        in_rows.build(e, 1)?,
        dense.build(e, 1)?,
        deconv.build(e, 1)?,
        two_by_two(&dense, e.isa()).build(e, 1)?,
        group.build(e, 1)?,
        pool(PoolKind::Max).build(e, 1)?,
        pool(PoolKind::Average).build(e, 1)?,
        GlobalPool { x, max: true }.build(e, 1)?,
        GlobalPool { x, max: false }.build(e, 1)?,
        Reorder { x: plain, y: x }.build(e, 1)?,
        Reorder { x, y: plain }.build(e, 1)?,
        Reorder { x, y }.build(e, 1)?,
        chain(100).build(e, 2)?,
        Normalise { rows: 3, n: 21, epsilon: 1e-5, per_row: true }.build(e, 1)?,
    ];
    for inner in [1, 5] {
        all.push(Softmax { outer: 2, n: 21, inner, log: false }.build(e, 1)?);
        for fold in [Fold::Sum, Fold::Max, Fold::Min, Fold::L1, Fold::L2, Fold::Mean, Fold::SumSquare] {
            all.push(Reduce { fold, outer: 2, n: 21, inner }.build(e, 1)?);
        }
    }
    Ok(all)
}

#[test]
fn every_wide_kernel_ends_in_vzeroupper() {
    for (machine, triple, isa, features) in MACHINES {
        let mut e = object_emitter(triple, isa, features);
        e.keep_listing();
        every_kind(&mut e).unwrap_or_else(|why| panic!("{machine}: {why}"));
        let assembled = e.listing().iter().filter_map(|l| match &l.code {
            ListedCode::Bytes(bytes) => Some((l, bytes)),
            ListedCode::Text(_) => None,
        });
        let mut names = std::collections::BTreeSet::new();
        for (listed, bytes) in assembled {
            names.insert(listed.name.as_str());
            let text = disassemble(bytes);
            assert!(text.ends_with("vzeroupper\nret\n"), "{machine} {}:\n{text}", listed.name);
        }
        let kinds = if isa == Isa::Baseline { 0 } else { 14 };
        assert_eq!(names.len(), kinds, "{machine}: {names:?}");
    }
}
