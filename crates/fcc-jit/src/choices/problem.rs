//! Problems that can be computed in more than one way.
use super::{Algorithm, Choice, Choices, Key, Lanes, Way};
use crate::asm::Isa;
use crate::floats::Floats;
use crate::kernels::conv::Conv;
use crate::kernels::gemm::{BStorage, Gemm, GemmBias};
use crate::kernels::layout::BlockedLayout;
use crate::kernels::narrow::NarrowConv;
use crate::kernels::winograd::bilinear::Scheme;
use crate::kernels::winograd::{self, Winograd};
use crate::module::{Emitter, Kernel};
use crate::precision::Precision;
use cranelift_module::Module;
use std::fmt::Write;

/// What else a choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    pub isa: Isa,
    pub threads: usize,
    pub precision: Precision,
}

/// A problem; its cuts are not set.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // there is one for each step, and none is moved often
pub(crate) enum Problem {
    Conv(Conv),
    Gemm(Gemm),
    /// Channels or pixels in the lanes of this convolution of few output channels.
    Lanes(NarrowConv),
    /// A whole plan, by a name that stands for its operators and their types.
    Plan(String),
}

fn extents(n: &[usize]) -> String {
    n.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// `1x64x1x56x56/16+0.0.1.1.1.1<12`: extents, channels of a block, halo, blocks of the whole that it is a slice of.
fn layout(l: &BlockedLayout) -> String {
    let [d, h, w] = l.spatial;
    let mut text = format!("{}/{}", extents(&[l.n, l.c, d, h, w]), l.cb);
    if !l.is_tight() {
        let halo: Vec<String> = l.halo.iter().map(|(a, b)| format!("{a}.{b}")).collect();
        let _ = write!(text, "+{}", halo.join("."));
    }
    if let Some(blocks) = l.parent_blocks {
        let _ = write!(text, "<{blocks}");
    }
    text
}

fn conv_words(c: &Conv) -> String {
    let mut text = format!("conv {} to {} kernel {}", layout(&c.x), layout(&c.y), extents(&c.kernel));
    for (name, value, usual) in
        [("strides", c.strides, 1), ("dilations", c.dilations, 1), ("pads", c.pads_begin, 0)]
    {
        if value != [usual; 3] {
            let _ = write!(text, " {name} {}", extents(&value));
        }
    }
    if c.group != 1 {
        let _ = write!(text, " group {}", c.group);
    }
    text.push_str(if c.bias { " bias" } else { "" });
    if let Some(r) = &c.residual {
        let _ = write!(text, " residual {}", layout(r));
    }
    if let Some(a) = &c.activation {
        let _ = write!(text, " {a:?}");
    }
    text
}

fn gemm_words(g: &Gemm) -> String {
    let mut text = format!("gemm {}x{}x{}", g.m, g.n, g.k);
    if (g.a_row, g.a_col, g.y_row) != (g.k, 1, g.n) {
        let _ = write!(text, " pitches {} {} {}", g.a_row, g.a_col, g.y_row);
    }
    if let BStorage::InPlace { row } = g.b {
        let _ = write!(text, " b in place {row}");
    }
    for d in &g.batch {
        let _ = write!(text, " batch {} {} {} {} {} {}", d.count, d.a, d.b, d.bias, d.residual, d.y);
    }
    if g.alpha != 1.0 {
        let _ = write!(text, " alpha {:?}", g.alpha);
    }
    if g.bias != GemmBias::None {
        let _ = write!(text, " bias {:?}", g.bias);
    }
    if let Some(r) = &g.residual {
        let _ = write!(text, " residual {} {:?}", r.row, r.scale);
    }
    if let Some(a) = &g.activation {
        let _ = write!(text, " {a:?}");
    }
    text
}

fn lanes_words(c: &NarrowConv) -> String {
    let (kernel, strides) = (extents(&c.kernel), extents(&c.strides));
    let (dilations, pads) = (extents(&c.dilations), extents(&c.pads_begin));
    let mut text = format!("lanes {} to {} kernel {kernel} strides {strides}", layout(&c.x), layout(&c.y));
    let _ = write!(text, " dilations {dilations} pads {pads}");
    text.push_str(if c.bias { " bias" } else { "" });
    text.push_str(if c.residual { " residual" } else { "" });
    if let Some(a) = &c.activation {
        let _ = write!(text, " {a:?}");
    }
    text
}

impl Problem {
    /// What a table calls it.
    pub fn key(&self, s: Setting) -> Key {
        let problem = match self {
            Problem::Conv(c) => conv_words(c),
            Problem::Gemm(g) => gemm_words(g),
            Problem::Lanes(n) => lanes_words(n),
            Problem::Plan(name) => name.clone(),
        };
        Key { isa: s.isa, threads: s.threads, precision: s.precision, problem }
    }
}

/// The kernel of a convolution or a product, in one way.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // one at a time
pub(crate) enum Sums {
    Conv(Conv),
    Winograd(Winograd),
    Gemm(Gemm),
}

/// Schemes that may be tried along a dim of this kernel size: pairs of taps alone are no more accurate than plain sums.
fn allowed(scheme: Scheme, kernel: usize, precision: Precision) -> bool {
    let wide = precision == Precision::Fast;
    match scheme {
        Scheme::Direct => true,
        Scheme::Two => kernel > 2 || (kernel == 2 && wide),
        Scheme::Four => kernel > 1 && wide,
    }
}

/// Winograd's algorithm by these schemes, or what is in its way.
fn winograd_by(conv: &Conv, s: Setting, schemes: [Scheme; 2]) -> Result<Winograd, String> {
    if let Some(d) = [1, 2].into_iter().find(|d| !allowed(schemes[d - 1], conv.kernel[*d], s.precision)) {
        let (outputs, kernel) = (schemes[d - 1].outputs(), conv.kernel[d]);
        return Err(format!(
            "got {outputs} outputs along a kernel of {kernel}, wanted what {} allows",
            s.precision
        ));
    }
    let made = Winograd::new(conv, s.isa, schemes);
    made.ok_or_else(|| {
        "got Winograd's algorithm, wanted one that this convolution and its layout allow".into()
    })
}

impl Sums {
    /// The kernel of `problem` in `way`. Errors with what is in the way.
    pub fn of(problem: &Problem, way: &Way, s: Setting) -> Result<Sums, String> {
        let Way::Sums { algorithm, cut, .. } = way else {
            return Err(format!("got `{way}`, wanted an algorithm and its sizes"));
        };
        match (problem, algorithm) {
            (Problem::Conv(c), Algorithm::Direct) => {
                c.check_cut(s.isa, cut)?;
                Ok(Sums::Conv(Conv { cut: Some(*cut), ..c.clone() }))
            }
            (Problem::Conv(c), Algorithm::Winograd(schemes)) => {
                Ok(Sums::Winograd(winograd_by(c, s, *schemes)?.with_cut(s.isa, *cut)?))
            }
            (Problem::Gemm(g), Algorithm::Direct) => {
                g.check_cut(s.isa, cut)?;
                Ok(Sums::Gemm(Gemm { cut: Some(*cut), ..g.clone() }))
            }
            _ => Err(format!("got `{way}`, wanted a way to compute this problem")),
        }
    }

    /// What the model of the time chooses, and why if there was something to choose. `None` of other problems.
    pub fn estimate(problem: &Problem, s: Setting) -> Option<(Sums, Option<String>)> {
        match problem {
            Problem::Conv(c) => {
                let winograd::Choice { winograd, why } =
                    Winograd::choose(c, s.isa, s.precision == Precision::Fast);
                let sums = winograd.map_or_else(|| Sums::Conv(c.clone()), Sums::Winograd);
                Some((sums, Some(why)))
            }
            Problem::Gemm(g) => Some((Sums::Gemm(g.clone()), None)),
            Problem::Lanes(_) | Problem::Plan(_) => None,
        }
    }

    /// The step function.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> crate::error::Result<Kernel> {
        match self {
            Sums::Conv(c) => c.build(e, threads),
            Sums::Winograd(w) => w.build(e, threads),
            Sums::Gemm(g) => g.build(e, threads),
        }
    }

    /// Elements of the packed weights: of one matrix of a product.
    pub fn packed_elems(&self, isa: Isa) -> usize {
        match self {
            Sums::Conv(c) => c.packed_elems(isa),
            Sums::Winograd(w) => w.packed_elems(isa),
            Sums::Gemm(g) => g.packed_elems(isa),
        }
    }

    /// Elements of the bias operand, and the equal runs in which its values stand.
    pub fn bias(&self, isa: Isa) -> (usize, usize) {
        match self {
            Sums::Conv(c) => (c.bias_elems(isa), c.bias_runs(isa)),
            Sums::Winograd(w) => (w.bias_elems(isa), w.conv().group),
            Sums::Gemm(g) => (g.bias_elems(isa), 1),
        }
    }

    /// Packs the weights of a convolution as the model has them, or one row-major matrix B, for a kernel that is built
    /// with the same `threads`.
    pub fn pack_weights(
        &self,
        isa: Isa,
        threads: usize,
        w: Floats<'_>,
        out: &mut [f32],
    ) -> crate::error::Result<()> {
        match self {
            Sums::Conv(c) => c.pack_weights(isa, w, out),
            Sums::Winograd(k) => k.pack_weights(isa, threads, w, out),
            Sums::Gemm(g) => g.pack_b(isa, w, (g.n, 1), 1.0, out, |_| ()),
        }
    }

    /// The way that this is; `None` of ragged groups, which are cut in more than one.
    pub fn way(&self, isa: Isa, alone: bool) -> Option<Way> {
        let (algorithm, cut) = match self {
            Sums::Conv(c) => (Algorithm::Direct, c.cut(isa)?),
            Sums::Winograd(w) => (Algorithm::Winograd(w.schemes()), w.cut(isa)),
            Sums::Gemm(g) => (Algorithm::Direct, g.cut(isa)),
        };
        Some(Way::Sums { algorithm, cut, alone })
    }
}

/// What should lie in the lanes of a convolution, by count.
pub(crate) fn lanes_by_count(conv: &NarrowConv, isa: Isa) -> Lanes {
    let [_, h, w] = conv.y.spatial;
    let pays = NarrowConv::pays(isa, conv.x.c, conv.y.c, [h, w], conv.kernel);
    if pays { Lanes::Pixels } else { Lanes::Channels }
}

/// How much slower by its estimate a tile may be and still be tried.
const TILE_LIMIT: f64 = 1.3;
/// Most tiles that are tried.
const MOST_TILES: usize = 10;

impl Problem {
    /// The ways to begin with: each algorithm as its model cuts it, and the tiles that the model thinks near.
    pub fn starts(&self, s: Setting) -> Vec<Way> {
        let direct = |cut| Way::Sums { algorithm: Algorithm::Direct, cut, alone: false };
        match self {
            Problem::Conv(c) => {
                let tiles = c.tiles_to_try(s.isa, TILE_LIMIT).into_iter().take(MOST_TILES).map(direct);
                let pairs = Scheme::ALL.into_iter().flat_map(|y| Scheme::ALL.map(|x| [y, x]));
                let winograd = pairs.filter(|p| *p != [Scheme::Direct; 2]);
                let winograd = winograd.filter_map(|p| winograd_by(c, s, p).ok());
                let winograd = winograd.filter_map(|w| Sums::Winograd(w).way(s.isa, false));
                tiles.chain(winograd).collect()
            }
            Problem::Gemm(g) => {
                g.tiles_to_try(s.isa, TILE_LIMIT).into_iter().take(MOST_TILES).map(direct).collect()
            }
            Problem::Lanes(_) => vec![Way::Lanes(Lanes::Channels), Way::Lanes(Lanes::Pixels)],
            Problem::Plan(_) => {
                let levels =
                    Isa::ALL.into_iter().filter(|l| *l <= s.isa && (*l > Isa::Baseline || *l == s.isa));
                let alone = if s.threads > 1 { &[false, true][..] } else { &[true][..] };
                levels.flat_map(|isa| alone.iter().map(move |a| Way::Plan { isa, alone: *a })).collect()
            }
        }
    }

    /// The ways that differ from this one in one size, or in the threads that share the work.
    pub fn beside(&self, way: &Way, s: Setting) -> Vec<Way> {
        let Way::Sums { algorithm, cut, alone } = *way else { return vec![] };
        let cuts = match Sums::of(self, way, s) {
            Ok(Sums::Conv(c)) => c.cuts_beside(&cut),
            Ok(Sums::Gemm(g)) => g.cuts_beside(s.isa, &cut),
            Ok(Sums::Winograd(w)) => w.cuts_beside(s.isa, &cut),
            Err(_) => vec![],
        };
        let mut ways: Vec<Way> = vec![];
        let other = (s.threads > 1).then_some(Way::Sums { algorithm, cut, alone: !alone });
        for next in cuts.into_iter().map(|cut| Way::Sums { algorithm, cut, alone }).chain(other) {
            if next != *way && !ways.contains(&next) && Sums::of(self, &next, s).is_ok() {
                ways.push(next);
            }
        }
        ways
    }
}

/// Decides with a table, and notes what it was asked.
#[derive(Debug)]
pub(crate) struct Chooser<'a> {
    /// `None`: nothing is noted.
    choices: Option<&'a Choices>,
    pub setting: Setting,
    asked: Vec<Asked>,
}

/// A problem that was met while a plan was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub problem: Problem,
    pub key: Key,
    /// Whether the table's choice was taken.
    pub taken: bool,
    /// Why the table's choice cannot be taken, if there is one.
    pub declined: Option<String>,
}

impl<'a> Chooser<'a> {
    pub fn new(choices: Option<&'a Choices>, setting: Setting) -> Chooser<'a> {
        Chooser { choices, setting, asked: vec![] }
    }
    pub fn asked(self) -> Vec<Asked> {
        self.asked
    }
    /// What the table says of a problem, made by `make`; where it says nothing that can be taken, `None` and why not.
    fn saved<T>(
        &mut self,
        problem: &Problem,
        make: impl FnOnce(&Way) -> Result<T, String>,
    ) -> Result<(T, Choice), Option<String>> {
        let choices = self.choices.ok_or(None)?;
        let key = problem.key(self.setting);
        let found = match choices.get(&key) {
            Some(choice) => {
                make(&choice.way).map(|made| (made, *choice)).map_err(|why| Some(choice.declined(&why)))
            }
            None => Err(None),
        };
        if !self.asked.iter().any(|a| a.key == key) {
            let declined = found.as_ref().err().cloned().flatten();
            self.asked.push(Asked { problem: problem.clone(), key, taken: found.is_ok(), declined });
        }
        found
    }
    /// The kernel of a convolution or product. `plain`: only sums of each term; nothing is noted then.
    pub fn sums(&mut self, problem: &Problem, plain: bool) -> Option<Decided<Sums>> {
        let s = self.setting;
        if plain && let Problem::Conv(c) = problem {
            let why = "numbers that are not finite came by: plain sums only";
            return Some(Decided::by_model(Sums::Conv(c.clone()), s.threads, Some(why.into())));
        }
        match self.saved(problem, |way| Sums::of(problem, way, s)) {
            Ok((sums, choice)) => Some(Decided::tuned(sums, choice.way.threads(s.threads), choice)),
            Err(declined) => {
                let (sums, because) = Sums::estimate(problem, s)?;
                let why: Vec<String> = [declined, because].into_iter().flatten().collect();
                Some(Decided::by_model(sums, s.threads, (!why.is_empty()).then(|| why.join("; "))))
            }
        }
    }
    /// What lies in the lanes of a convolution that could have either.
    pub fn lanes(&mut self, conv: NarrowConv) -> Decided<Lanes> {
        let (isa, threads) = (self.setting.isa, self.setting.threads);
        let by_count = lanes_by_count(&conv, isa);
        let found = self.saved(&Problem::Lanes(conv), |way| match way {
            Way::Lanes(lanes) => Ok(*lanes),
            other => Err(format!("got `{other}`, wanted `lanes pixels` or `lanes channels`")),
        });
        match found {
            Ok((lanes, choice)) => Decided::tuned(lanes, threads, choice),
            Err(declined) => {
                let because = format!("few output channels: lanes are {by_count}");
                let why: Vec<String> = declined.into_iter().chain([because]).collect();
                Decided::by_model(by_count, threads, Some(why.join("; ")))
            }
        }
    }
    /// The level of a whole plan, whether one thread runs all of it (`None`: by estimate), and what a table says of it.
    pub fn plan(&mut self, name: String) -> (Isa, Option<bool>, Option<String>) {
        let limit = self.setting.isa;
        let found = self.saved(&Problem::Plan(name), |way| match way {
            Way::Plan { isa, alone } if *isa <= limit => Ok((*isa, *alone)),
            other => Err(format!("got `{other}`, wanted a plan of at most {limit}")),
        });
        match found {
            Ok(((isa, alone), choice)) => (isa, Some(alone), Some(choice.reason())),
            Err(declined) => (limit, None, declined),
        }
    }
}

/// What is taken, and why.
#[derive(Debug, Clone)]
pub(crate) struct Decided<T> {
    pub way: T,
    /// The threads that it is built for.
    pub threads: usize,
    pub why: Option<String>,
    /// The table's choice, if it is one.
    pub tuned: Option<Choice>,
}

impl<T> Decided<T> {
    fn tuned(way: T, threads: usize, choice: Choice) -> Decided<T> {
        Decided { way, threads, why: Some(choice.reason()), tuned: Some(choice) }
    }
    fn by_model(way: T, threads: usize, why: Option<String>) -> Decided<T> {
        Decided { way, threads, why, tuned: None }
    }
}

impl Asked {
    /// What its choice depends on beside the problem.
    pub fn setting(&self) -> Setting {
        Setting { isa: self.key.isa, threads: self.key.threads, precision: self.key.precision }
    }
}
