//! AMX in software: the state of a thread's tiles and what the instructions do to it, as Intel's manual has it. What the
//! hardware would answer with an exception panics here.

use std::arch::asm;

/// Rows of 64 bytes.
pub type Tile = [[u8; 64]; 16];

/// What a product multiplies and adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Bf16,
    /// Whether the bytes of the first factor are signed, and those of the second.
    Bytes(bool, bool),
}

/// The tiles of one thread.
#[repr(align(64))]
pub struct Tiles {
    configured: bool,
    /// Rows, and bytes of each row.
    shapes: [(usize, usize); 8],
    data: [Tile; 8],
}

impl Tiles {
    pub const fn new() -> Tiles {
        Tiles { configured: false, shapes: [(0, 0); 8], data: [[[0; 64]; 16]; 8] }
    }

    pub fn configured(&self) -> bool {
        self.configured
    }

    /// LDTILECFG of the 64 bytes at an address.
    pub fn configure(&mut self, config: &[u8; 64]) {
        assert_eq!(config[0], 1, "palette");
        assert!(config[1] == 0 && config[2..16].iter().all(|b| *b == 0), "start row and reserved bytes");
        for i in 0..8 {
            let bytes = usize::from(u16::from_le_bytes([config[16 + 2 * i], config[17 + 2 * i]]));
            let rows = usize::from(config[48 + i]);
            assert!(rows <= 16 && bytes <= 64, "tile {i} of {rows} rows of {bytes} bytes");
            assert_eq!(rows == 0, bytes == 0, "tile {i}");
            self.shapes[i] = (rows, bytes);
        }
        assert!(config[32..48].iter().chain(&config[56..]).all(|b| *b == 0), "tiles that there are not");
        self.configured = true;
        self.data = [[[0; 64]; 16]; 8];
    }

    /// TILERELEASE
    pub fn release(&mut self) {
        *self = Tiles::new();
    }

    fn shape(&self, t: usize) -> (usize, usize) {
        assert!(self.configured && self.shapes[t].0 > 0, "tile {t} is not configured");
        self.shapes[t]
    }

    /// TILEZERO
    pub fn zero(&mut self, t: usize) {
        self.shape(t);
        self.data[t] = [[0; 64]; 16];
    }

    /// TILELOADD
    ///
    /// # Safety
    /// The rows can be read.
    pub unsafe fn load(&mut self, t: usize, from: *const u8, stride: isize) {
        let (rows, bytes) = self.shape(t);
        self.data[t] = [[0; 64]; 16];
        for r in 0..rows {
            // SAFETY: the caller's promise; a row of a tile has 64 bytes.
            unsafe {
                let row = from.offset(r as isize * stride);
                std::ptr::copy_nonoverlapping(row, self.data[t][r].as_mut_ptr(), bytes);
            }
        }
    }

    /// TILESTORED
    ///
    /// # Safety
    /// The rows can be written.
    pub unsafe fn store(&self, t: usize, to: *mut u8, stride: isize) {
        let (rows, bytes) = self.shape(t);
        for r in 0..rows {
            // SAFETY: as in `load`.
            unsafe {
                let row = to.offset(r as isize * stride);
                std::ptr::copy_nonoverlapping(self.data[t][r].as_ptr(), row, bytes);
            }
        }
    }

    /// TDPBF16PS, TDPBUSD and its kin: `d += x * y`
    pub fn product(&mut self, d: usize, x: usize, y: usize, how: Product) {
        assert!(d != x && d != y && x != y, "tiles {d}, {x} and {y}");
        let ((m, n), (xm, k), (yk, yn)) = (self.shape(d), self.shape(x), self.shape(y));
        assert!(m == xm && n == yn && k == 4 * yk, "{m}x{n} += {xm}x{k} * {yk}x{yn}");
        let (x, y) = (self.data[x], self.data[y]);
        let sums = self.data[d].iter_mut().take(m);
        match how {
            Product::Bf16 => {
                let columns = words(&y, &bf16);
                x.iter().zip(sums).for_each(|(row, sums)| bf16_row(row, &columns, k / 4, sums));
            }
            Product::Bytes(xs, ys) => {
                let columns = words(&y, &|b, i| byte(b[i], ys));
                x.iter().zip(sums).for_each(|(row, sums)| bytes_row(row, &columns, k, xs, sums));
            }
        }
        // columns beyond those that the tile has
        self.data[d].iter_mut().for_each(|row| row[n..].fill(0));
    }
}

/// What the columns of a tile hold: `[row][of four bytes of a column][column]`; of two values only the first two are used.
type Columns = [[[u32; 16]; 4]; 16];

fn words(y: &Tile, value: &dyn Fn(&[u8], usize) -> u32) -> Columns {
    let mut columns = [[[0u32; 16]; 4]; 16];
    for (row, out) in y.iter().zip(&mut columns) {
        for (j, column) in row.chunks_exact(4).enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                out[j] = value(column, i);
            }
        }
    }
    columns
}

/// The f32 of bf16 `i` (0 or 1) of four bytes.
fn bf16(b: &[u8], i: usize) -> u32 {
    let i = 2 * (i % 2);
    u32::from(u16::from_le_bytes([b[i], b[i + 1]])) << 16
}

fn byte(b: u8, signed: bool) -> u32 {
    if signed { i32::from(b as i8) as u32 } else { u32::from(b) }
}

/// Sums of products of bytes, modulo 2^32.
fn bytes_row(x: &[u8; 64], y: &Columns, k: usize, signed: bool, sums: &mut [u8; 64]) {
    let factors = x.map(|b| byte(b, signed));
    // SAFETY: the loop reads k words of factors and 64 bytes of columns for each, and 64 bytes of sums, all of which there
    // are; who calls this has AVX-512.
    unsafe {
        asm!(
            "vmovdqu32 zmm0, zmmword ptr [{sums}]",
            "2:",
            "vpbroadcastd zmm1, dword ptr [{x}]",
            "vpmulld zmm1, zmm1, zmmword ptr [{y}]",
            "vpaddd zmm0, zmm0, zmm1",
            "add {x}, 4",
            "add {y}, 64",
            "dec {k}",
            "jnz 2b",
            "vmovdqu32 zmmword ptr [{sums}], zmm0",
            x = inout(reg) factors.as_ptr() => _,
            y = inout(reg) y.as_ptr() => _,
            k = inout(reg) k => _,
            sums = in(reg) sums.as_mut_ptr(),
            out("zmm0") _, out("zmm1") _,
            options(nostack),
        );
    }
}

/// Sums of all first, and of all second products of the pairs, each multiply-add rounded to nearest even with denormals
/// as zeros on both ends; their sum is added to what the tile holds.
fn bf16_row(x: &[u8; 64], y: &Columns, k: usize, sums: &mut [u8; 64]) {
    let mut factors = [[0u32; 2]; 16];
    for (pair, out) in x.chunks_exact(4).zip(&mut factors) {
        *out = [bf16(pair, 0), bf16(pair, 1)];
    }
    // rounding to nearest, no exceptions, denormals as zeros on both ends
    const FLUSH: u32 = 0x9fc0;
    let flush = FLUSH;
    let mut kept = 0u32;
    // SAFETY: the loop reads k times 8 bytes of factors and 256 of columns, and 64 bytes of sums, all of which there are;
    // MXCSR is what it was when the block ends; who calls this has AVX-512.
    unsafe {
        asm!(
            "stmxcsr [{kept}]",
            "ldmxcsr [{flush}]",
            "vpxord zmm0, zmm0, zmm0",
            "vpxord zmm1, zmm1, zmm1",
            "2:",
            "vbroadcastss zmm2, dword ptr [{x}]",
            "vbroadcastss zmm3, dword ptr [{x} + 4]",
            "vfmadd231ps zmm0, zmm2, zmmword ptr [{y}]",
            "vfmadd231ps zmm1, zmm3, zmmword ptr [{y} + 64]",
            "add {x}, 8",
            "add {y}, 256",
            "dec {k}",
            "jnz 2b",
            "vaddps zmm0, zmm0, zmm1",
            "vaddps zmm0, zmm0, zmmword ptr [{sums}]",
            "vmovups zmmword ptr [{sums}], zmm0",
            "ldmxcsr [{kept}]",
            kept = in(reg) &raw mut kept,
            flush = in(reg) &raw const flush,
            x = inout(reg) factors.as_ptr() => _,
            y = inout(reg) y.as_ptr() => _,
            k = inout(reg) k => _,
            sums = in(reg) sums.as_mut_ptr(),
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
            options(nostack),
        );
    }
}
