//! Dimensions: known extents, and polynomials over named symbols.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One extent of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Dim {
    /// A fixed extent.
    Known(usize),
    /// An expression over symbols such as `batch`; equal expressions are equal extents.
    Sym(DimExpr),
    /// Nothing is known.
    #[default]
    Unknown,
}

/// Values for symbols: `--set batch=4`.
pub type Bindings = BTreeMap<String, usize>;

/// An integer expression over symbols in normal form: a sum of products of symbols and quotients.
///
/// Expressions share their parts, so a few nodes of a model could write one whose tree has billions of leaves. Its
/// size as a tree is therefore bounded when it is made ([`DimExpr::MAX_SIZE`]): what would be larger is unknown, and
/// every walk over an expression is short.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DimExpr(Arc<Poly>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Poly {
    terms: Terms,
    /// Terms and factors, those inside of factors included, each as often as it is written.
    size: usize,
}

/// Sorted factors -> coefficient; no coefficient is zero; the empty product is the constant term.
type Terms = BTreeMap<Vec<Factor>, i64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Factor {
    Symbol(Arc<str>),
    FloorDiv(DimExpr, DimExpr),
    Min(DimExpr, DimExpr),
}

impl Factor {
    /// A long name counts as several factors.
    fn size(&self) -> usize {
        match self {
            Factor::Symbol(name) => 1 + name.len() / 32,
            Factor::FloorDiv(a, b) | Factor::Min(a, b) => 1 + a.size() + b.size(),
        }
    }
}

fn size_of(factors: &[Factor]) -> usize {
    1 + factors.iter().map(Factor::size).sum::<usize>()
}

impl DimExpr {
    /// The greatest size of an expression that is made of others. The extents of six detection heads behind five
    /// strided convolutions, multiplied out and added up, have about 600.
    pub const MAX_SIZE: usize = 1024;

    /// The symbol `name`, however long the name.
    pub fn symbol(name: &str) -> Self {
        let factor = Factor::Symbol(name.into());
        let size = 1 + factor.size();
        DimExpr(Arc::new(Poly { terms: Terms::from([(vec![factor], 1)]), size }))
    }
    /// A constant.
    pub fn constant(value: i64) -> Self {
        let mut terms = Terms::new();
        if value != 0 {
            terms.insert(vec![], value);
        }
        DimExpr(Arc::new(Poly { size: terms.len(), terms }))
    }
    /// `None` where it is larger than [`DimExpr::MAX_SIZE`].
    fn of(mut terms: Terms) -> Option<Self> {
        terms.retain(|_, c| *c != 0);
        let size = terms.keys().map(|factors| size_of(factors)).sum();
        (size <= Self::MAX_SIZE).then(|| DimExpr(Arc::new(Poly { terms, size })))
    }
    fn factor(f: Factor) -> Option<Self> {
        Self::of(Terms::from([(vec![f], 1)]))
    }
    fn terms(&self) -> &Terms {
        &self.0.terms
    }
    /// Terms and factors, those inside of quotients included: what a walk over the expression costs.
    pub fn size(&self) -> usize {
        self.0.size
    }
    /// The value if the expression has no symbols.
    pub fn as_constant(&self) -> Option<i64> {
        match self.terms().len() {
            0 => Some(0),
            1 => self.terms().get(&vec![]).copied(),
            _ => None,
        }
    }
    /// The name if the expression is one symbol.
    pub fn as_symbol(&self) -> Option<&str> {
        let (factors, 1) = self.terms().iter().next()? else { return None };
        match (self.terms().len(), factors.as_slice()) {
            (1, [Factor::Symbol(name)]) => Some(name),
            _ => None,
        }
    }
    /// Whether the value is at least 0 for every extent that the symbols may have.
    pub fn is_nonnegative(&self) -> bool {
        let factor = |f: &Factor| match f {
            Factor::Symbol(_) => true,
            Factor::FloorDiv(a, b) | Factor::Min(a, b) => a.is_nonnegative() && b.is_nonnegative(),
        };
        self.terms().iter().all(|(factors, c)| *c >= 0 && factors.iter().all(factor))
    }
    fn checked_add(&self, other: &Self) -> Option<Self> {
        let mut sum = self.terms().clone();
        for (factors, c) in other.terms() {
            let slot = sum.entry(factors.clone()).or_insert(0);
            *slot = slot.checked_add(*c)?;
        }
        Self::of(sum)
    }
    fn checked_mul(&self, other: &Self) -> Option<Self> {
        let mut product = Terms::new();
        // terms can cancel, so that a product is known to be too large only in the end; that many are not multiplied
        if self.terms().len().saturating_mul(other.terms().len()) > Self::MAX_SIZE {
            return None;
        }
        for (fa, ca) in self.terms() {
            for (fb, cb) in other.terms() {
                let mut factors = [fa.as_slice(), fb.as_slice()].concat();
                factors.sort();
                let slot = product.entry(factors).or_insert(0);
                *slot = slot.checked_add(ca.checked_mul(*cb)?)?;
            }
        }
        Self::of(product)
    }
    /// `floor(self / divisor)`; exact where every coefficient divides.
    fn checked_floor_div(&self, divisor: &Self) -> Option<Self> {
        if self == divisor {
            return Some(Self::constant(1));
        }
        if let Some(d) = divisor.as_constant() {
            if d <= 0 {
                return None;
            }
            if let Some(n) = self.as_constant() {
                return Some(Self::constant(n.div_euclid(d)));
            }
            if self.terms().values().all(|c| c % d == 0) {
                return Self::of(self.terms().iter().map(|(f, c)| (f.clone(), c / d)).collect());
            }
        } else if let (1, Some((fd, cd))) = (divisor.terms().len(), divisor.terms().iter().next()) {
            // a monomial that divides every term, as in (batch * 12) / batch
            let quotient: Option<Terms> =
                self.terms().iter().map(|(f, c)| Some((remove_all(f, fd)?, exact(*c, *cd)?))).collect();
            if let Some(q) = quotient {
                return Self::of(q);
            }
        }
        Self::factor(Factor::FloorDiv(self.clone(), divisor.clone()))
    }
    /// The lesser of both.
    fn checked_min(&self, other: &Self) -> Option<Self> {
        if self == other {
            return Some(self.clone());
        }
        match (self.as_constant(), other.as_constant()) {
            (Some(a), Some(b)) => Some(Self::constant(a.min(b))),
            _ => Self::factor(Factor::Min(self.clone().min(other.clone()), self.clone().max(other.clone()))),
        }
    }
    /// The value under `bindings`; `None` if a symbol is not bound or a step overflows.
    pub fn eval(&self, bindings: &Bindings) -> Option<i64> {
        self.terms().iter().try_fold(0i64, |sum, (factors, c)| {
            let term = factors.iter().try_fold(*c, |product, f| {
                let v = match f {
                    Factor::Symbol(name) => i64::try_from(*bindings.get(&**name)?).ok()?,
                    Factor::FloorDiv(a, b) => {
                        let (a, b) = (a.eval(bindings)?, b.eval(bindings)?);
                        if b <= 0 { None? } else { a.div_euclid(b) }
                    }
                    Factor::Min(a, b) => a.eval(bindings)?.min(b.eval(bindings)?),
                };
                product.checked_mul(v)
            })?;
            sum.checked_add(term)
        })
    }
    /// The expression with the bound symbols replaced.
    fn bind(&self, bindings: &Bindings) -> Option<Self> {
        self.terms().iter().try_fold(Self::constant(0), |sum, (factors, c)| {
            let term = factors.iter().try_fold(Self::constant(*c), |product, f| {
                let v = match f {
                    Factor::Symbol(name) => match bindings.get(&**name) {
                        Some(v) => Self::constant(i64::try_from(*v).ok()?),
                        None => Self::symbol(name),
                    },
                    Factor::FloorDiv(a, b) => a.bind(bindings)?.checked_floor_div(&b.bind(bindings)?)?,
                    Factor::Min(a, b) => a.bind(bindings)?.checked_min(&b.bind(bindings)?)?,
                };
                product.checked_mul(&v)
            })?;
            sum.checked_add(&term)
        })
    }
    /// Calls `f` with the name of every symbol.
    pub fn visit_symbols(&self, f: &mut dyn FnMut(&str)) {
        for factor in self.terms().keys().flatten() {
            match factor {
                Factor::Symbol(name) => f(name),
                Factor::FloorDiv(a, b) | Factor::Min(a, b) => {
                    a.visit_symbols(f);
                    b.visit_symbols(f);
                }
            }
        }
    }
}

fn exact(a: i64, b: i64) -> Option<i64> {
    (a.checked_rem(b)? == 0).then(|| a / b)
}

fn remove_all(from: &[Factor], what: &[Factor]) -> Option<Vec<Factor>> {
    let mut rest = from.to_vec();
    for w in what {
        let i = rest.iter().position(|f| f == w)?;
        rest.remove(i);
    }
    Some(rest)
}

impl Dim {
    /// The symbol `name`.
    pub fn symbol(name: &str) -> Self {
        Dim::Sym(DimExpr::symbol(name))
    }
    /// The extent, if it is fixed.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(n) => Some(*n),
            Dim::Sym(_) | Dim::Unknown => None,
        }
    }
    /// What a walk over the dimension costs: 1, or [`DimExpr::size`].
    pub fn size(&self) -> usize {
        match self {
            Dim::Sym(e) => e.size(),
            Dim::Known(_) | Dim::Unknown => 1,
        }
    }
    /// Whether it is certainly at least 0: differences of symbols are not.
    pub fn is_nonnegative(&self) -> bool {
        match self {
            Dim::Known(_) => true,
            Dim::Sym(e) => e.is_nonnegative(),
            Dim::Unknown => false,
        }
    }
    /// Whether both are certainly the same extent.
    pub fn same(&self, other: &Dim) -> bool {
        *self != Dim::Unknown && self == other
    }
    /// Whether both can be the same extent.
    pub fn compatible(&self, other: &Dim) -> bool {
        !matches!((self, other), (Dim::Known(a), Dim::Known(b)) if a != b)
    }
    fn expr(&self) -> Option<DimExpr> {
        match self {
            Dim::Known(n) => Some(DimExpr::constant(i64::try_from(*n).ok()?)),
            Dim::Sym(e) => Some(e.clone()),
            Dim::Unknown => None,
        }
    }
    fn from_expr(e: Option<DimExpr>) -> Self {
        match e {
            None => Dim::Unknown,
            Some(e) => match e.as_constant() {
                Some(n) => usize::try_from(n).map_or(Dim::Unknown, Dim::Known),
                None => Dim::Sym(e),
            },
        }
    }
    fn combine(&self, other: &Dim, f: impl Fn(&DimExpr, &DimExpr) -> Option<DimExpr>) -> Dim {
        Dim::from_expr(self.expr().zip(other.expr()).and_then(|(a, b)| f(&a, &b)))
    }
    /// `self + other`; unknown on overflow.
    pub fn add(&self, other: &Dim) -> Dim {
        self.combine(other, DimExpr::checked_add)
    }
    /// `self + offset` for a signed offset.
    pub fn offset(&self, offset: i64) -> Dim {
        Dim::from_expr(self.expr().and_then(|e| e.checked_add(&DimExpr::constant(offset))))
    }
    /// `self - other`; unknown where it would be negative.
    pub fn sub(&self, other: &Dim) -> Dim {
        self.combine(other, |a, b| a.checked_add(&b.checked_mul(&DimExpr::constant(-1))?))
    }
    /// `self * other`.
    pub fn mul(&self, other: &Dim) -> Dim {
        self.combine(other, DimExpr::checked_mul)
    }
    /// `floor(self / other)`; unknown for a divisor that is not positive.
    pub fn floor_div(&self, other: &Dim) -> Dim {
        self.combine(other, DimExpr::checked_floor_div)
    }
    /// The lesser of both.
    pub fn lesser(&self, other: &Dim) -> Dim {
        self.combine(other, DimExpr::checked_min)
    }
    /// Whether this is certainly the lesser of `other` and something.
    pub fn is_min_of(&self, other: &Dim) -> bool {
        let (Dim::Sym(a), Some(b)) = (self, other.expr()) else { return false };
        match a.terms().iter().next() {
            Some((factors, 1)) if a.terms().len() == 1 => {
                matches!(&factors[..], [Factor::Min(x, y)] if *x == b || *y == b)
            }
            _ => false,
        }
    }
    /// `ceil(self / other)` for a fixed positive divisor.
    pub fn ceil_div(&self, divisor: usize) -> Dim {
        match i64::try_from(divisor) {
            Ok(d) if d > 0 => self.offset(d - 1).floor_div(&Dim::Known(divisor)),
            _ => Dim::Unknown,
        }
    }
    /// The dimension with the bound symbols replaced; unknown where the result is negative.
    pub fn bind(&self, bindings: &Bindings) -> Dim {
        match self {
            Dim::Sym(e) => Dim::from_expr(e.bind(bindings)),
            other => other.clone(),
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Known(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Sym(e) => write!(f, "{e}"),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

impl fmt::Display for DimExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms().is_empty() {
            return f.write_str("0");
        }
        // symbols first, the constant last: `batch + 1`
        let (constant, terms): (Vec<_>, Vec<_>) =
            self.terms().iter().partition(|(factors, _)| factors.is_empty());
        for (i, (factors, c)) in terms.into_iter().chain(constant).enumerate() {
            match (i, *c < 0) {
                (0, false) => {}
                (0, true) => f.write_str("-")?,
                (_, false) => f.write_str(" + ")?,
                (_, true) => f.write_str(" - ")?,
            }
            let mut first = c.unsigned_abs() != 1 || factors.is_empty();
            if first {
                write!(f, "{}", c.unsigned_abs())?;
            } else {
                first = false;
            }
            for (k, factor) in factors.iter().enumerate() {
                if first || k > 0 {
                    f.write_str("*")?;
                }
                match factor {
                    Factor::Symbol(name) => f.write_str(name)?,
                    Factor::FloorDiv(a, b) => write!(f, "floor(({a})/({b}))")?,
                    Factor::Min(a, b) => write!(f, "min({a}, {b})")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_normalised() {
        let n = Dim::symbol("N");
        let h = Dim::symbol("H");
        assert_eq!(n.mul(&h).mul(&Dim::Known(2)).to_string(), "2*H*N");
        assert!(n.mul(&Dim::Known(3)).floor_div(&n).same(&Dim::Known(3)));
        assert!(n.add(&h).same(&h.add(&n)));
        assert_eq!(n.add(&h).sub(&h), n);
        assert_eq!(h.offset(-3).floor_div(&Dim::Known(2)).offset(1).to_string(), "floor((H - 3)/(2)) + 1");
        assert_eq!(n.mul(&Dim::Known(4)).floor_div(&Dim::Known(2)).to_string(), "2*N");
    }

    #[test]
    fn binding_evaluates_quotients() {
        let out = Dim::symbol("H").offset(-3).floor_div(&Dim::Known(2)).offset(1);
        assert_eq!(out.bind(&Bindings::from([("H".into(), 8)])), Dim::Known(3));
        assert_eq!(out.bind(&Bindings::new()), out);
    }

    #[test]
    fn the_lesser_of_two_extents() {
        let (n, m) = (Dim::symbol("N"), Dim::Known(512).lesser(&Dim::symbol("N")));
        assert_eq!(m.to_string(), "min(512, N)");
        assert!(m.is_min_of(&n) && m.same(&n.lesser(&Dim::Known(512))) && !m.is_min_of(&Dim::symbol("M")));
        assert_eq!(m.bind(&Bindings::from([("N".into(), 600)])), Dim::Known(512));
        assert_eq!(m.bind(&Bindings::from([("N".into(), 6)])), Dim::Known(6));
    }

    #[test]
    fn overflow_is_unknown() {
        let big = Dim::Known(usize::MAX);
        assert_eq!(big.mul(&Dim::Known(2)), Dim::Unknown);
        assert_eq!(Dim::Known(3).offset(-5), Dim::Unknown);
        // coefficients that overflow, and a quotient of the least number by -1
        let least =
            Dim::symbol("N").mul(&Dim::Known(1 << 62)).sub(&Dim::symbol("N").mul(&Dim::Known(3 << 61)));
        let least = least.sub(&Dim::symbol("N").mul(&Dim::Known(3 << 61)));
        assert_eq!(least.to_string(), "-9223372036854775808*N");
        let minus = Dim::symbol("N").sub(&Dim::symbol("N").mul(&Dim::Known(2)));
        assert!(matches!(least.floor_div(&minus), Dim::Sym(_)));
        assert_eq!(least.mul(&minus), Dim::Unknown);
    }

    /// Applies `f` until the result is unknown; the number of times, and the largest size and text on the way.
    fn grown(mut d: Dim, f: impl Fn(&Dim, usize) -> Dim) -> (usize, usize, usize) {
        let (mut size, mut text) = (0, 0);
        for i in 0..100_000 {
            d = f(&d, i);
            if d == Dim::Unknown {
                return (i, size, text);
            }
            (size, text) = (size.max(d.size()), text.max(d.to_string().len()));
        }
        panic!("no end");
    }

    #[test]
    fn expressions_are_bounded() {
        let symbol = |i: usize| Dim::symbol(&format!("s{i}"));
        let cases = [
            // (a + b)(a + c)…: terms double
            grown(Dim::Known(1), |d, i| d.mul(&symbol(i).offset(1))),
            // a sum of many symbols
            grown(Dim::Known(1), |d, i| d.add(&symbol(i))),
            // a power
            grown(Dim::symbol("N"), |d, _| d.mul(&Dim::symbol("N"))),
            // a quotient in which the last one stands twice, as the operator and in the divisor
            grown(Dim::symbol("N"), |d, _| d.floor_div(&d.offset(1))),
            // the lesser of two that share all but one term
            grown(Dim::symbol("N"), |d, i| d.lesser(&d.add(&symbol(i)))),
            // a chain of divisions, one a level
            grown(Dim::symbol("N"), |d, _| d.offset(1).floor_div(&Dim::Known(2))),
        ];
        for (steps, size, text) in cases {
            assert!((5..2000).contains(&steps), "{steps}");
            assert!(size <= DimExpr::MAX_SIZE && text <= 16 * DimExpr::MAX_SIZE, "{size} {text}");
        }
        // a long name is a symbol like any other, but no expression of it grows
        let long = Dim::symbol(&"n".repeat(1 << 20));
        assert!(long.size() > DimExpr::MAX_SIZE && long.same(&long.clone()));
        assert_eq!(long.offset(1), Dim::Unknown);
    }
}
