//! Products by AMX tiles: whether, and the steps that regroup what they read.
use super::weights::Weights;
use super::{Emit, Home, Loc, Stop};
use crate::kernels::amx::Terms;
use crate::kernels::amx::conv::AmxConv;
use crate::kernels::amx::regroup::Regroup;
use crate::kernels::conv::Conv;
use crate::kernels::winograd::{Choice, Winograd};
use crate::plan::info::Work;
use crate::plan::ir::Vx;
use crate::{Isa, Precision};

/// How a dense convolution is computed.
pub(super) enum ConvWay {
    Direct(Conv),
    Winograd(Winograd),
    Amx(AmxConv),
}

impl Emit<'_> {
    /// The terms of products of f32 where AMX is asked for; none in plans of plain kernels.
    pub(super) fn terms(&mut self) -> Option<Terms> {
        let asked = self.code.emitter().has_tiles() && !self.plain;
        asked.then(|| Terms::for_precision(self.shared.options.precision))
    }

    /// The way of a convolution, and why.
    pub(super) fn conv_way(&mut self, conv: Conv, weights: &Weights) -> Result<(ConvWay, String), Stop> {
        let isa: Isa = self.code.isa();
        let mut why = String::new();
        if let Some(terms) = self.terms() {
            match AmxConv::choose(&conv, terms) {
                Ok(amx) if weights.finite(1.0)? => return Ok((ConvWay::Amx(amx), terms.why())),
                Ok(_) => why = "no AMX: weights that are not finite; ".into(),
                Err(no) => why = format!("{no}; "),
            }
        }
        let wide = self.shared.options.precision == Precision::Fast;
        let choice = match self.plain {
            true => Choice::direct("numbers that are not finite came by: plain sums only"),
            false => Winograd::choose(&conv, isa, wide),
        };
        why += &choice.why;
        Ok((choice.winograd.map_or(ConvWay::Direct(conv), ConvWay::Winograd), why))
    }

    /// A value that lies at `from` in rows of tiles: made once for all steps that read it so. `zero` tells apart what its
    /// halo held.
    pub(super) fn regrouped(
        &mut self,
        place: &str,
        v: Vx,
        from: Loc,
        how: &Regroup,
        zero: Option<(crate::kernels::int8::Zero, Option<Vx>)>,
    ) -> Result<Loc, Stop> {
        let key = format!("{:?} {} {how:?} {zero:?}", from.home, from.offset);
        if let Some(loc) = self.regroups.get(&key) {
            return Ok(*loc);
        }
        let kernel = self.kernel(how, Regroup::build)?;
        let to = Loc { home: Home::Buffer(self.buffer(how.bytes())), offset: 0, layout: None };
        let val = self.program.val(v);
        let (from_words, to_words) = ("in vectors".into(), how.words());
        let work = Work::Reorder { value: val.name.clone(), from: from_words, to: to_words };
        self.aside(work, val.ty.to_string(), |e| e.run(place, kernel, vec![from, to]))?;
        self.regroups.insert(key, to);
        Ok(to)
    }
}
