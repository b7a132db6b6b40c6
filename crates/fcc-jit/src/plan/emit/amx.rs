//! Products by AMX tiles: whether, and the steps that regroup what they read.
use super::weights::Weights;
use super::{Emit, Home, Loc, Stop, no_kernel};
use crate::kernels::amx::Terms;
use crate::kernels::amx::conv::AmxConv;
use crate::kernels::amx::regroup::Regroup;
use crate::kernels::conv::Conv;
use crate::plan::info::Work;
use crate::plan::ir::{Node, Vx};

impl Emit<'_> {
    /// The terms of products of f32 where AMX is asked for; none in plans of plain kernels.
    pub(super) fn terms(&mut self) -> Option<Terms> {
        let asked = self.code.emitter().has_tiles() && !self.plain;
        asked.then(|| Terms::for_precision(self.shared.options.precision))
    }

    /// A convolution by tiles, if they are asked for and can do it; else why not, if they are asked for.
    pub(super) fn amx_for(
        &mut self,
        conv: &Conv,
        weights: &Weights,
    ) -> Result<Result<AmxConv, Option<String>>, Stop> {
        let Some(terms) = self.terms() else { return Ok(Err(None)) };
        Ok(match AmxConv::choose(conv, terms) {
            Ok(amx) if weights.finite(1.0)? => {
                self.because(terms.why());
                Ok(amx)
            }
            Ok(_) => Err(Some("no AMX: weights that are not finite".into())),
            Err(no) => Err(Some(no)),
        })
    }

    /// The bias that a node has as input 2, if it has one.
    pub(super) fn constant_bias(&self, node: &Node, there: bool) -> Result<Option<Vec<f32>>, Stop> {
        if !there {
            return Ok(None);
        }
        let bias = node.input(2).and_then(|b| self.program.constant_of(b));
        Ok(Some(bias.ok_or_else(|| no_kernel("a bias of the run"))?.as_slice::<f32>()?.into_owned()))
    }

    /// A product of bytes by tiles and what they read, where they are asked for and can do it; else as it is.
    pub(super) fn in_tiles<S>(
        &mut self,
        plain: S,
        x: Loc,
        tiled: fn(&S) -> std::result::Result<(S, Regroup), String>,
        regroup: impl FnOnce(&mut Self, &Regroup) -> Result<Loc, Stop>,
    ) -> Result<(S, Loc), Stop> {
        if !self.code.emitter().has_tiles() {
            return Ok((plain, x));
        }
        match tiled(&plain) {
            Ok((tiled, how)) => {
                self.because("AMX, as asked for");
                Ok((tiled, regroup(self, &how)?))
            }
            Err(why) => {
                self.because(why);
                Ok((plain, x))
            }
        }
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
