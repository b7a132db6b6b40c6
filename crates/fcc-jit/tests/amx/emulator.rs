//! The emulator against plain arithmetic, and against hardware where there is some.

use crate::common::Rng;
use crate::common::amx::tiles::{Product, Tile, Tiles};
use crate::common::amx::{Amx, amx, assert_released};
use fcc_jit::asm::reg::{r8, rcx, rdi, rdx, rsi};
use fcc_jit::asm::{Asm, Isa, TileProduct};
use fcc_jit::module::{Buffer, Code, Kernel, Operand};
use fcc_jit::pool::Pool;

const KINDS: [(Product, TileProduct); 3] = [
    (Product::Bf16, TileProduct::Bf16),
    (Product::Bytes(false, true), TileProduct::Bytes { signed: false }),
    (Product::Bytes(true, true), TileProduct::Bytes { signed: true }),
];

fn config(rows: [u8; 8]) -> [u8; 64] {
    let mut config = [0; 64];
    config[0] = 1;
    for (i, r) in rows.into_iter().enumerate().filter(|(_, r)| *r > 0) {
        (config[16 + 2 * i], config[48 + i]) = (64, r);
    }
    config
}

/// `d + x * y` by the functions of the emulator.
fn by_function(d: &Tile, x: &Tile, y: &Tile, how: Product, rows: u8) -> Tile {
    let mut tiles = Tiles::new();
    tiles.configure(&config([rows, 0, 0, 0, rows, 0, 16, 0]));
    let mut out = *d;
    // SAFETY: tiles are 1024 bytes, rows 64 apart.
    unsafe {
        tiles.load(0, d.as_ptr().cast(), 64);
        tiles.load(4, x.as_ptr().cast(), 64);
        tiles.load(6, y.as_ptr().cast(), 64);
        tiles.product(0, 4, 6, how);
        tiles.store(0, out.as_mut_ptr().cast(), 64);
    }
    tiles.release();
    out
}

/// The same by machine code, which this CPU runs or traps on.
fn by_code(d: &Tile, x: &Tile, y: &Tile, how: TileProduct, rows: u8) -> Tile {
    let mut code = Code::new(Isa::Amx).expect("code");
    let mut w = Asm::new(Isa::Amx).expect("assembler");
    let assemble = |w: &mut Asm| {
        // the operands' pointers are at rdi
        w.load_pointer(rdx, rdi + 0)?;
        w.load_pointer(rcx, rdi + 8)?;
        w.load_pointer(r8, rdi + 16)?;
        w.set(rsi, 64)?;
        w.tile_config([rows, 0, 0, 0, rows, 0, 16, 0])?;
        w.tile_load(0, rdx + 0, rsi)?;
        w.tile_load(4, rcx + 0, rsi)?;
        w.tile_load(6, r8 + 0, rsi)?;
        w.tile_product(0, 4, 6, how)?;
        w.tile_store(rdx + 0, rsi, 0)?;
        w.tile_release()
    };
    assemble(&mut w).expect("instructions");
    let bytes = w.finish().expect("finish");
    let func = code.emitter().assembled("tiles", 2, &bytes).expect("function");
    code.finalize().expect("finalize");
    let operands = ["d", "x", "y"].map(|name| Operand::read(name, 1024)).to_vec();
    let kernel = Kernel { func, name: "tiles".into(), operands, tasks: 1, flops: 0 };
    let mut out = *d;
    let (mut x, mut y) = (*x, *y);
    let buffer = |t: &mut Tile| Buffer { ptr: t.as_mut_ptr().cast(), bytes: 1024 };
    let args = [buffer(&mut out), buffer(&mut x), buffer(&mut y)];
    let step = code.step(&kernel).expect("step");
    // SAFETY: the tiles are distinct and as large as the code touches; `code` lives.
    unsafe { step.run(&Pool::new(1), &args) }.expect("run");
    assert_released();
    out
}

/// Bit patterns of every size: zeros, denormals, infinities and NaN among them.
fn any(rng: &mut Rng, wild: bool, f32s: bool) -> Tile {
    let mut tile = [[0u8; 64]; 16];
    for b in tile.as_flattened_mut().chunks_exact_mut(2) {
        let bits = rng.next() >> 32;
        let word = match (wild, rng.below(12)) {
            (true, 0) => [0x0000u16, 0x8000, 0x0001, 0x807f, 0x7f80, 0xff80, 0x7f7f, 0x0080][rng.below(8)],
            (true, _) => bits as u16,
            // exponents near that of 1
            (false, _) => (bits as u16 & 0x807f) | ((120 + rng.below(14) as u16) << 7),
        };
        b.copy_from_slice(&word.to_le_bytes());
    }
    if f32s && !wild {
        tile.as_flattened_mut().chunks_exact_mut(4).for_each(|w| (w[0], w[1]) = (0, 0));
    }
    tile
}

#[test]
fn machine_code_does_what_the_emulator_says() {
    let Some(how_there) = amx() else { return };
    println!("tiles by {how_there:?}");
    let mut rng = Rng(41);
    for round in 0..60 {
        let rows = rng.range(1, 16) as u8;
        for (how, ins) in KINDS {
            let [d, x, y] = [true, false, false].map(|f32s| any(&mut rng, round % 2 == 0, f32s));
            let (want, got) = (by_function(&d, &x, &y, how, rows), by_code(&d, &x, &y, ins, rows));
            for (i, (w, g)) in
                want.as_flattened().chunks_exact(4).zip(got.as_flattened().chunks_exact(4)).enumerate()
            {
                let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                let nan = how == Product::Bf16 && float(w).is_nan() && float(g).is_nan();
                assert!(w == g || nan, "{how:?} of {rows} rows, {how_there:?}: word {i} is {g:?}, not {w:?}");
            }
        }
    }
    if how_there != Amx::Hardware {
        println!("not compared with hardware: there is none here");
    }
}

/// Sums of exact products in f64, of numbers near 1.
#[test]
fn sums_of_pairs_are_near_exact_ones_and_flush() {
    if amx().is_none() {
        return;
    }
    let mut rng = Rng(42);
    let bf16 = |b: &[u8]| f64::from(f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16));
    for _ in 0..20 {
        let [d, x, y] = [true, false, false].map(|f32s| any(&mut rng, false, f32s));
        let got = by_function(&d, &x, &y, Product::Bf16, 16);
        for (r, j) in (0..256).map(|i| (i / 16, i % 16)) {
            let at =
                |t: &Tile| f64::from(f32::from_le_bytes(t[r][4 * j..4 * j + 4].try_into().expect("4 bytes")));
            let (mut sum, mut size) = (at(&d), at(&d).abs());
            for k in 0..32 {
                let product = bf16(&x[r][2 * k..]) * bf16(&y[k / 2][4 * j + k % 2 * 2..]);
                (sum, size) = (sum + product, size + product.abs());
            }
            assert!((at(&got) - sum).abs() <= 18.0 * 2f64.powi(-24) * size, "{} {sum}", at(&got));
        }
    }
    // 2^-70 squared is below the least normal number; a denormal factor counts as 0
    let tile = |words: &[u16]| {
        let mut t = [[0u8; 64]; 16];
        words.iter().enumerate().for_each(|(i, w)| t[0][2 * i..2 * i + 2].copy_from_slice(&w.to_le_bytes()));
        t
    };
    let zero = [[0u8; 64]; 16];
    let tiny = tile(&[(127 - 70) << 7]);
    assert_eq!(by_function(&zero, &tiny, &tiny, Product::Bf16, 1), zero);
    let (denormal, large) = (tile(&[0x0040]), tile(&[(127 + 100) << 7]));
    assert_eq!(by_function(&zero, &denormal, &large, Product::Bf16, 1), zero);
}
