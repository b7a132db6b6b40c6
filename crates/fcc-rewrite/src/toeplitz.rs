//! Toeplitz matrices of convolutions with fixed extents.
use crate::convolution::{indices, product};
use crate::rule::Declined;
use crate::weights::element_bytes;
use fcc_ir::ops::conv::ConvProblem;
use fcc_ir::{Result, Tensor};

/// Where the taps of one kernel land: `(input place, output place, tap)`, without those in the padding.
pub(crate) fn entries(p: &ConvProblem) -> Vec<(usize, usize, usize)> {
    let outs: Vec<usize> = p.axes.iter().map(|a| a.out).collect();
    let taps: Vec<Vec<usize>> = indices(&p.window.kernel_shape).collect();
    let mut all = vec![];
    for (o, place) in indices(&outs).enumerate() {
        for (t, tap) in taps.iter().enumerate() {
            let input = p.spatial.iter().enumerate().try_fold(0usize, |linear, (i, extent)| {
                let at = place[i] * p.window.strides[i] + tap[i] * p.window.dilations[i];
                let at = at.checked_sub(p.axes[i].pad_begin).filter(|a| a < extent)?;
                Some(linear * extent + at)
            });
            if let Some(input) = input {
                all.push((input, o, t));
            }
        }
    }
    all
}

/// Input places, output places and taps of one pair of channels.
pub(crate) fn extents(p: &ConvProblem) -> Result<(usize, usize, usize), Declined> {
    let outs: Vec<usize> = p.axes.iter().map(|a| a.out).collect();
    Ok((
        product("input places", &p.spatial)?,
        product("output places", &outs)?,
        product("kernel elements", &p.window.kernel_shape)?,
    ))
}

/// Bytes of the matrix over all channels, `[C*S, M*P]`.
pub(crate) fn whole_bytes(p: &ConvProblem, w: &Tensor) -> Result<u64, Declined> {
    let (s, o, _) = extents(p)?;
    let width = element_bytes(w.dtype())?;
    product("the Toeplitz matrix", &[p.c, s, p.m, o, width]).map(|n| n as u64)
}

/// The doubly blocked Toeplitz matrix `[C*S, M*P]`: column `(m, o)` holds the weights that output reads.
pub(crate) fn whole(p: &ConvProblem, w: &Tensor) -> Result<Tensor> {
    let (s, o, taps) = extents(p).map_err(too_large)?;
    let width = element_bytes(w.dtype())?;
    let (cg, mg, columns) = (p.c / p.group, p.m / p.group, p.m * o);
    let len = product("the Toeplitz matrix", &[p.c, s, columns, width]).map_err(too_large)?;
    let mut data = vec![0u8; len];
    let (entries, source) = (entries(p), w.bytes());
    for m in 0..p.m {
        for c in 0..cg {
            let channel = m / mg * cg + c;
            for &(input, place, tap) in &entries {
                let to = ((channel * s + input) * columns + m * o + place) * width;
                let from = ((m * cg + c) * taps + tap) * width;
                data[to..to + width].copy_from_slice(&source[from..from + width]);
            }
        }
    }
    Tensor::from_bytes(w.dtype(), vec![p.c * s, columns], data.into())
}

/// The Toeplitz matrix `[S, P]` of output channel `m` and the `c`-th channel of its group.
pub(crate) fn of_pair(p: &ConvProblem, w: &Tensor, m: usize, c: usize) -> Result<Tensor> {
    let (s, o, taps) = extents(p).map_err(too_large)?;
    let width = element_bytes(w.dtype())?;
    let mut data = vec![0u8; product("the Toeplitz matrix", &[s, o, width]).map_err(too_large)?];
    let source = w.bytes();
    for (input, place, tap) in entries(p) {
        let to = (input * o + place) * width;
        let from = ((m * (p.c / p.group) + c) * taps + tap) * width;
        data[to..to + width].copy_from_slice(&source[from..from + width]);
    }
    Tensor::from_bytes(w.dtype(), vec![s, o], data.into())
}

fn too_large(d: Declined) -> fcc_ir::Error {
    fcc_ir::Error::invalid(d.to_string())
}
