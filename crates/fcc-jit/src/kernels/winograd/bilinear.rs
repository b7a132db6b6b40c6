//! Bilinear algorithms for convolution in one dim: fewer products than outputs times taps.
//!
//! `y = Aᵀ ((G g) ⊙ (Bᵀ d))` gives `outputs` neighbouring outputs of a filter of `kernel` taps that moves by `stride`.
//! A stride is cut into phases, each a filter of stride 1 on every `stride`-th input; a long filter into pieces of at
//! most three taps. Each piece is Toom and Cook's algorithm (S. Winograd, *Arithmetic Complexity of Computations*,
//! 1980; A. Lavin, S. Gray, *Fast Algorithms for Convolutional Neural Networks*, 2015); their products stand beside one
//! another, and `Aᵀ` adds them up. In two dims the algorithm is the tensor product of one for each.

/// How many outputs share products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// One: as many products as taps.
    Direct,
    /// Two, with interpolation points 0, 1, -1 and ∞: no output depends on an input outside its receptive field, and
    /// the error is no larger than that of plain sums, because fewer terms are added.
    Two,
    /// Four: fewer products, some three times the error; rounding spreads over the tile.
    Four,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Scheme; 3] = [Scheme::Direct, Scheme::Two, Scheme::Four];

    /// Outputs of a tile.
    pub const fn outputs(self) -> usize {
        match self {
            Scheme::Direct => 1,
            Scheme::Two => 2,
            Scheme::Four => 4,
        }
    }
}

/// The matrices of one algorithm, by rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Bilinear {
    /// Outputs of a tile.
    pub outputs: usize,
    /// Distance of neighbouring outputs in inputs.
    pub stride: usize,
    /// Taps of the filter.
    pub kernel: usize,
    /// From inputs to products: `[products][inputs]`.
    pub bt: Vec<Vec<f32>>,
    /// From taps to products: `[products][kernel]`.
    pub g: Vec<Vec<f64>>,
    /// From products to outputs: `[outputs][products]`.
    pub at: Vec<Vec<f32>>,
}

impl Bilinear {
    /// The algorithm of a scheme.
    pub fn new(scheme: Scheme, kernel: usize, stride: usize) -> Bilinear {
        let outputs = scheme.outputs();
        let inputs = (outputs - 1) * stride + kernel;
        let mut all = Bilinear { outputs, stride, kernel, bt: vec![], g: vec![], at: vec![vec![]; outputs] };
        for phase in 0..stride.min(kernel) {
            let taps = (kernel - phase).div_ceil(stride);
            let pieces = if scheme == Scheme::Direct { taps } else { taps.div_ceil(3) };
            let mut first = 0;
            for i in 0..pieces {
                let r = (taps - first).div_ceil(pieces - i);
                let (at, g, bt) = piece(outputs, r);
                // input l of the piece is input phase + stride * (first + l) of the tile
                for row in &bt {
                    let mut wide = vec![0.0; inputs];
                    for (l, v) in row.iter().enumerate() {
                        wide[phase + stride * (first + l)] = *v as f32;
                    }
                    all.bt.push(wide);
                }
                for row in &g {
                    let mut wide = vec![0.0; kernel];
                    for (t, v) in row.iter().enumerate() {
                        wide[phase + stride * (first + t)] = *v;
                    }
                    all.g.push(wide);
                }
                for (to, row) in all.at.iter_mut().zip(&at) {
                    to.extend(row.iter().map(|v| *v as f32));
                }
                first += r;
            }
        }
        all
    }

    /// Products of a tile.
    pub fn products(&self) -> usize {
        self.bt.len()
    }

    /// Inputs of a tile.
    pub fn inputs(&self) -> usize {
        (self.outputs - 1) * self.stride + self.kernel
    }

    /// Inputs that the first `outputs` outputs of a tile depend on.
    pub fn inputs_of(&self, outputs: usize) -> usize {
        (outputs.max(1) - 1) * self.stride + self.kernel
    }
}

type Rows = Vec<Vec<f64>>;

/// `Aᵀ`, `G` and `Bᵀ` for `m` outputs of `r` taps at stride 1.
fn piece(m: usize, r: usize) -> (Rows, Rows, Rows) {
    if m == 1 || r == 1 {
        // every product of an input and a tap
        let n = m + r - 1;
        let unit = |i: usize, n: usize| (0..n).map(|j| f64::from(u8::from(i == j))).collect::<Vec<f64>>();
        let ones = vec![vec![1.0]; n];
        let at = if m == 1 { vec![vec![1.0; n]] } else { (0..m).map(|i| unit(i, n)).collect() };
        let g = if m == 1 { (0..n).map(|i| unit(i, r)).collect() } else { ones };
        return (at, g, (0..n).map(|i| unit(i, n)).collect());
    }
    // Dyadic points, so that the matrices are exact; those of four outputs are near 1, which keeps the error small.
    let points: &[f64] = match (m, r) {
        (2, 2) => &[0.0, 1.0],
        (2, _) => &[0.0, 1.0, -1.0],
        (_, 2) => &[0.5, -0.5, 1.5, -1.5],
        _ => &[0.0, 0.625, -0.625, 1.5, -1.5],
    };
    toom_cook(m, r, points)
}

/// With these points and ∞.
fn toom_cook(m: usize, r: usize, points: &[f64]) -> (Rows, Rows, Rows) {
    let n = m + r - 1;
    let times = |p: &[f64], x: f64| -> Vec<f64> {
        let mut out = vec![0.0; p.len() + 1];
        for (i, c) in p.iter().enumerate() {
            out[i] -= c * x;
            out[i + 1] += c;
        }
        out
    };
    let padded = |mut p: Vec<f64>| {
        p.resize(n, 0.0);
        p
    };
    let power = |x: f64, i: usize| x.powi(i as i32);
    let (mut g, mut bt) = (vec![], vec![]);
    for (i, &x) in points.iter().enumerate() {
        let others = points.iter().enumerate().filter(|o| o.0 != i).map(|o| *o.1);
        let scale: f64 = others.clone().map(|o| x - o).product();
        g.push((0..r).map(|j| power(x, j) / scale).collect());
        bt.push(padded(others.fold(vec![1.0], |p, o| times(&p, o))));
    }
    g.push((0..r).map(|j| f64::from(u8::from(j + 1 == r))).collect());
    bt.push(points.iter().fold(vec![1.0], |p, &o| times(&p, o)));
    let at = (0..m)
        .map(|i| {
            let finite = points.iter().map(|&x| power(x, i));
            finite.chain([f64::from(u8::from(i + 1 == m))]).collect()
        })
        .collect();
    (at, g, bt)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides are linear in the input and in the filter: unit vectors decide.
    #[test]
    fn every_scheme_is_convolution() {
        for scheme in Scheme::ALL {
            for kernel in 1..=8 {
                for stride in 1..=3 {
                    let b = Bilinear::new(scheme, kernel, stride);
                    assert!(b.bt.iter().all(|r| r.len() == b.inputs()));
                    assert!(b.at.iter().all(|r| r.len() == b.products()) && b.g.len() == b.products());
                    for (i, l, t) in (0..b.outputs)
                        .flat_map(|i| (0..b.inputs()).flat_map(move |l| (0..kernel).map(move |t| (i, l, t))))
                    {
                        let sum: f64 = (0..b.products())
                            .map(|p| f64::from(b.at[i][p]) * f64::from(b.bt[p][l]) * b.g[p][t])
                            .sum();
                        let want = f64::from(u8::from(l == i * stride + t));
                        assert!(
                            (sum - want).abs() < 1e-12,
                            "{scheme:?} {kernel}/{stride}: y{i} d{l} g{t} {sum}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn products_are_as_few_as_they_should_be() {
        let products = |s, k, stride| Bilinear::new(s, k, stride).products();
        assert_eq!(products(Scheme::Two, 3, 1), 4);
        assert_eq!(products(Scheme::Two, 3, 2), 5);
        assert_eq!(products(Scheme::Two, 5, 1), 7);
        assert_eq!(products(Scheme::Two, 7, 2), 10);
        assert_eq!(products(Scheme::Four, 3, 1), 6);
        assert_eq!(products(Scheme::Direct, 3, 2), 3);
        assert_eq!(products(Scheme::Direct, 1, 1), 1);
    }

    /// Two outputs: `Aᵀ` takes nothing from products of inputs outside the receptive field.
    #[test]
    fn two_outputs_stay_in_their_receptive_field() {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (2, 1)] {
            let b = Bilinear::new(Scheme::Two, kernel, stride);
            for i in 0..2 {
                for p in (0..b.products()).filter(|p| b.at[i][*p] != 0.0) {
                    for l in (0..b.inputs()).filter(|l| b.bt[p][*l] != 0.0) {
                        assert!((i * stride..i * stride + kernel).contains(&l), "{kernel}/{stride}");
                    }
                }
            }
        }
    }
}
