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
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DimExpr(Arc<Poly>);

/// Sorted factors -> coefficient; no coefficient is zero; the empty product is the constant term.
type Poly = BTreeMap<Vec<Factor>, i64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Factor {
    Symbol(Arc<str>),
    FloorDiv(DimExpr, DimExpr),
    Min(DimExpr, DimExpr),
}

impl DimExpr {
    /// The symbol `name`.
    pub fn symbol(name: &str) -> Self {
        Self::factor(Factor::Symbol(name.into()))
    }
    /// A constant.
    pub fn constant(value: i64) -> Self {
        let mut poly = Poly::new();
        if value != 0 {
            poly.insert(vec![], value);
        }
        DimExpr(Arc::new(poly))
    }
    fn factor(f: Factor) -> Self {
        DimExpr(Arc::new(Poly::from([(vec![f], 1)])))
    }
    /// The value if the expression has no symbols.
    pub fn as_constant(&self) -> Option<i64> {
        match self.0.len() {
            0 => Some(0),
            1 => self.0.get(&vec![]).copied(),
            _ => None,
        }
    }
    /// The name if the expression is one symbol.
    pub fn as_symbol(&self) -> Option<&str> {
        let (factors, 1) = self.0.iter().next()? else { return None };
        match (self.0.len(), factors.as_slice()) {
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
        self.0.iter().all(|(factors, c)| *c >= 0 && factors.iter().all(factor))
    }
    fn checked_add(&self, other: &Self) -> Option<Self> {
        let mut sum = (*self.0).clone();
        for (factors, c) in other.0.iter() {
            let slot = sum.entry(factors.clone()).or_insert(0);
            *slot = slot.checked_add(*c)?;
        }
        sum.retain(|_, c| *c != 0);
        Some(DimExpr(Arc::new(sum)))
    }
    fn checked_mul(&self, other: &Self) -> Option<Self> {
        let mut product = Poly::new();
        for (fa, ca) in self.0.iter() {
            for (fb, cb) in other.0.iter() {
                let mut factors = [fa.as_slice(), fb.as_slice()].concat();
                factors.sort();
                let slot = product.entry(factors).or_insert(0);
                *slot = slot.checked_add(ca.checked_mul(*cb)?)?;
            }
        }
        product.retain(|_, c| *c != 0);
        Some(DimExpr(Arc::new(product)))
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
            if self.0.values().all(|c| c % d == 0) {
                return Some(DimExpr(Arc::new(self.0.iter().map(|(f, c)| (f.clone(), c / d)).collect())));
            }
        } else if let (1, Some((fd, cd))) = (divisor.0.len(), divisor.0.iter().next()) {
            // a monomial that divides every term, as in (batch * 12) / batch
            let quotient: Option<Poly> =
                self.0.iter().map(|(f, c)| Some((remove_all(f, fd)?, exact(*c, *cd)?))).collect();
            if let Some(q) = quotient {
                return Some(DimExpr(Arc::new(q)));
            }
        }
        Some(Self::factor(Factor::FloorDiv(self.clone(), divisor.clone())))
    }
    /// The lesser of both.
    fn checked_min(&self, other: &Self) -> Option<Self> {
        if self == other {
            return Some(self.clone());
        }
        Some(match (self.as_constant(), other.as_constant()) {
            (Some(a), Some(b)) => Self::constant(a.min(b)),
            _ => Self::factor(Factor::Min(self.clone().min(other.clone()), self.clone().max(other.clone()))),
        })
    }
    /// The value under `bindings`; `None` if a symbol is not bound or a step overflows.
    pub fn eval(&self, bindings: &Bindings) -> Option<i64> {
        self.0.iter().try_fold(0i64, |sum, (factors, c)| {
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
        self.0.iter().try_fold(Self::constant(0), |sum, (factors, c)| {
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
        for factor in self.0.keys().flatten() {
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
    (a % b == 0).then(|| a / b)
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
        match a.0.iter().next() {
            Some((factors, 1)) if a.0.len() == 1 => {
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
        if self.0.is_empty() {
            return f.write_str("0");
        }
        // symbols first, the constant last: `batch + 1`
        let (constant, terms): (Vec<_>, Vec<_>) = self.0.iter().partition(|(factors, _)| factors.is_empty());
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
    }
}
