//! Elementwise kernels over every form of broadcasting: each operand stands still or moves in each dim of the space, rows
//! are shorter and longer than one, two and three vectors.
mod common;

use common::{Rng, levels, run};
use fcc_jit::asm::Isa;
use fcc_jit::kernels::elem::Elem;
use fcc_jit::kernels::ew::{Binary, Dim, Elementwise, Expr, Ins};
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;

/// Steps in elements of a row-major operand that has the dims of `moves` only, and its number of elements.
fn steps(counts: [usize; 3], moves: u32) -> ([usize; 3], usize) {
    let mut steps = [0; 3];
    let mut elems = 1;
    for d in (0..3).rev().filter(|d| moves >> d & 1 == 1) {
        steps[d] = elems;
        elems *= counts[d];
    }
    (steps, elems)
}

/// `(x - a) * b + a`, with `x` in full and the dims in which `a` and `b` move given as bits.
fn one(isa: Isa, threads: usize, counts: [usize; 3], moves: [u32; 2], types: &[Elem]) {
    let code = vec![
        Ins::Input(0),
        Ins::Input(1),
        Ins::Binary(Binary::Sub, 0, 1),
        Ins::Input(2),
        Ins::Binary(Binary::Mul, 2, 3),
        Ins::Binary(Binary::Add, 4, 1),
    ];
    let all = [0b111, moves[0], moves[1], 0b111].map(|m| steps(counts, m));
    let size = |o: usize| types.get(o).map_or(4, |t| t.bytes());
    let dims = (0..3)
        .map(|d| Dim { count: counts[d], steps: (0..4).map(|o| (all[o].0[d] * size(o)) as i64).collect() })
        .collect();
    let bytes = (0..4).map(|o| all[o].1 * size(o)).collect();
    let spec = Elementwise { expr: Expr { code }, dims, base: vec![0; 4], bytes, types: types.to_vec() };
    let mut rng = Rng(7);
    let values: Vec<Vec<f32>> =
        all[..3].iter().map(|(_, n)| (0..*n).map(|_| rng.below(9) as f32).collect()).collect();
    let mut made = Code::new(isa).unwrap();
    let kernel = spec.build(made.emitter(), threads).unwrap();
    made.finalize().unwrap();
    let mut buffers: Vec<Vec<f32>> = (0..3).map(|o| encoded(&values[o], types.get(o))).collect();
    buffers.push(vec![f32::NAN; all[3].1]);
    run(&made, &kernel, &Pool::new(threads), &mut buffers);
    for (i, got) in buffers[3].iter().enumerate() {
        let at = [i / (counts[1] * counts[2]), i / counts[2] % counts[1], i % counts[2]];
        let of = |o: usize| values[o][(0..3).map(|d| at[d] * all[o].0[d]).sum::<usize>()];
        let want = (of(0) - of(1)) * of(2) + of(1);
        assert_eq!(*got, want, "{isa} {threads} threads {counts:?} {moves:?} {types:?}: element {i}");
    }
}

/// The bytes of values of a type, as a buffer of words.
fn encoded(values: &[f32], elem: Option<&Elem>) -> Vec<f32> {
    let bytes: Vec<u8> = match elem {
        None | Some(Elem::F32) => return values.to_vec(),
        Some(Elem::I32) => values.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect(),
        Some(Elem::U8 | Elem::I8) => values.iter().map(|v| *v as u8).collect(),
    };
    let words = bytes.chunks(4).map(|c| {
        let mut word = [0; 4];
        word[..c.len()].copy_from_slice(c);
        f32::from_le_bytes(word)
    });
    words.collect()
}

fn row_lengths(isa: Isa) -> Vec<usize> {
    let l = isa.lanes();
    vec![1, 2, l - 1, l, l + 1, 2 * l - 1, 2 * l, 2 * l + 1, 3 * l - 1, 3 * l, 3 * l + 1, 9 * l + 3]
}

#[test]
fn operands_stand_still_in_any_dims() {
    for isa in levels() {
        for n in row_lengths(isa) {
            for rows in [1, 3, 9] {
                for outer in [1, 2] {
                    for moves in 0..8 {
                        for other in [0, 7 - moves] {
                            one(isa, 1, [outer, rows, n], [moves, other], &[]);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn operands_stand_still_in_any_dims_on_several_threads() {
    for isa in levels() {
        let l = isa.lanes();
        for n in [l - 1, l + 1, 2 * l, 3 * l + 1] {
            for moves in 0..8 {
                one(isa, 3, [2, 1531, n], [moves, 7 - moves], &[]);
                one(isa, 3, [1, 1531, n], [moves, 0], &[]);
            }
        }
        one(isa, 3, [1, 1, 20011], [0b100, 0], &[]);
    }
}

#[test]
fn integers_stand_still_in_any_dims() {
    for isa in levels().into_iter().filter(|i| *i > Isa::Baseline) {
        for types in [
            [Elem::U8, Elem::I8, Elem::F32, Elem::F32],
            [Elem::I8, Elem::F32, Elem::U8, Elem::F32],
            [Elem::F32, Elem::I32, Elem::U8, Elem::F32],
        ] {
            for n in row_lengths(isa) {
                for (rows, outer) in [(1, 1), (3, 1), (3, 2)] {
                    for moves in 0..8 {
                        one(isa, 1, [outer, rows, n], [moves, 7 - moves], &types);
                        one(isa, 1, [outer, rows, n], [moves, 0], &types);
                    }
                }
            }
        }
    }
}
