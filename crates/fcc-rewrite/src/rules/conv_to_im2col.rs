//! Conv as patches x matrix.
use super::layout::inverse;
use crate::builder::{Builder, Extent};
use crate::context::{Cx, dims_text};
use crate::convolution::{Convolution, convolution, indices, product};
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use crate::verify::as_f64s;
use crate::weights::{element_bytes, permute};
use fcc_ir::ops::conv::{AutoPad, ConvProblem};
use fcc_ir::ops::movement::MAX_ELEMS;
use fcc_ir::{NodeId, Tensor, ValueId};

rule_type! {
    /// `Conv(x, w, b) => reshape(patches(x) @ matrix(w) + b)`, a row of patches(x) = the elements one output reads
    ///
    /// # What
    /// Each output of a convolution is the product of one patch of the input with the kernels. The patches are
    /// gathered into the rows of a matrix `[N,P,T*C]` (P output places, T kernel elements, C channels) and multiplied
    /// with the kernels as the columns of a matrix `[T*C,M]`. For one, two or three spatial axes, strides, dilations,
    /// every padding; groups are a batch of products. Only plain operators are used:
    /// - fixed spatial extents: `Pad`, `Transpose` to channels last, one `Gather` with the indices of all patches,
    ///   `MatMul`, `Add`, `Transpose`, `Reshape`;
    /// - symbolic spatial extents: `Pad`, one `Slice` for each kernel element, `Concat`, `Transpose`, `MatMul`,
    ///   `Add`, `Transpose`.
    ///
    /// # Why
    /// For tools that know matrix products and not convolutions: quantisers, provers, homomorphic encryption,
    /// crossbars.
    ///
    /// # Example
    /// ```text
    /// y = Conv<pads=[1,1,1,1]>(x, w, b)   # x float[N,3,8,8], w float[4,3,3,3]
    /// ```
    /// becomes
    /// ```text
    /// p = Pad(x, [0,0,1,1,0,0,1,1])
    /// r = Reshape(p, [0,3,100])
    /// t = Transpose<perm=[0,2,1]>(r)
    /// g = Gather<axis=1>(t, indices)   # indices int64[64,9]: [N,64,9,3]
    /// a = Reshape(g, [0,64,27])
    /// m = MatMul(a, matrix)            # matrix float[27,4]
    /// s = Add(m, b)
    /// u = Transpose<perm=[0,2,1]>(s)
    /// y = Reshape(u, [0,4,8,8])
    /// ```
    ///
    /// # Declines
    /// - the weight or the bias is not constant;
    /// - a weight beside padding is NaN or infinite: its product with the padding's zeros is NaN;
    /// - the padded input would have more than 2^31 elements;
    /// - the indices would exceed the budget;
    /// - symbolic extents with SAME padding and strides above 1 (the padding depends on the extent), or with more
    ///   kernel elements than a rewrite may make nodes, or with strides before opset 10.
    pub(crate) struct ConvToIm2colGemm = "conv-to-im2col-gemm";
}

impl Rule for ConvToIm2colGemm {
    type Found = NodeId;
    type Plan = Convolution;
    fn name(&self) -> &str {
        Self::NAME
    }
    fn doc(&self) -> &str {
        Self::DOC
    }
    fn traits(&self) -> Traits {
        Traits { linear: true, ..Traits::default() }
    }
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<NodeId> {
        cx.op(node, "Conv").map(|_| node)
    }
    fn guard(&self, cx: &Cx<'_>, node: NodeId) -> Result<Match<Convolution>, Declined> {
        let conv = convolution(cx, node)?;
        finite_where_padded(&conv)?;
        let growth_bytes = match &conv.problem {
            Some(p) => {
                let padded = product("padded elements", &[&[p.c], &padded_extents(p)[..]].concat())?;
                if padded > MAX_ELEMS {
                    return Err(Declined::new("padded elements", padded, format!("at most {MAX_ELEMS}")));
                }
                let places: usize = product("output places", &out_extents(p))?;
                product("indices", &[places, conv.taps(), size_of::<i64>()])? as u64
            }
            None => {
                static_pads(&conv)?;
                if cx.opset() < 10 && conv.window.strides.iter().any(|s| *s != 1) {
                    return Err(Declined::new(
                        "opset of ai.onnx for Slice with steps",
                        cx.opset(),
                        "at least 10",
                    ));
                }
                if cx.opset() < 5 && conv.group != 1 {
                    let what = "opset of ai.onnx for Reshape to a computed shape";
                    return Err(Declined::new(what, cx.opset(), "at least 5"));
                }
                if conv.taps().saturating_mul(5) >= cx.limits().nodes {
                    return Err(Declined::new(
                        format!("kernel elements with spatial extents {}", dims_text(&conv.spatial)),
                        conv.taps(),
                        format!("below {}", cx.limits().nodes / 5),
                    ));
                }
                0
            }
        };
        element_bytes(conv.w.dtype())?;
        Ok(Match { replaces: cx.out(node), sources: vec![conv.x], growth_bytes, plan: conv })
    }
    fn action(&self, conv: Convolution, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        match &conv.problem {
            Some(p) => fixed(b, &conv, p),
            None => symbolic(b, &conv),
        }
    }
}

fn out_extents(p: &ConvProblem) -> Vec<usize> {
    p.axes.iter().map(|a| a.out).collect()
}

/// The spatial extents with their padding.
fn padded_extents(p: &ConvProblem) -> Vec<usize> {
    p.spatial.iter().zip(&p.axes).map(|(s, a)| s + a.pad_begin + a.pad_end).collect()
}

/// The zeros of padding become factors of the product; the operator leaves them out.
fn finite_where_padded(conv: &Convolution) -> Result<(), Declined> {
    let w = &conv.window;
    if matches!(w.auto_pad, AutoPad::Valid)
        || (w.auto_pad == AutoPad::NotSet && w.pads.iter().all(|p| *p == 0))
    {
        return Ok(());
    }
    match as_f64s(&conv.w).into_iter().flatten().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(v) => Err(Declined::new("a weight beside padding", v, "a finite number")),
    }
}

/// Pads of all axes, N and C included, in ONNX order.
fn all_pads(begins: &[usize], ends: &[usize]) -> Vec<usize> {
    [&[0, 0], begins, &[0, 0], ends].concat()
}

/// The kernels as columns: `[T*C/G, M]`, or `[G, T*C/G, M/G]` with groups. Rows go by tap, then by channel.
fn matrix(b: &mut Builder<'_>, conv: &Convolution) -> Result<ValueId, Declined> {
    let (g, taps) = (conv.group, conv.taps());
    let (cg, mg) = (conv.c / g, conv.m / g);
    b.derived(&conv.w, &format!("im2col matrix of {g} groups"), "matrix", |w| {
        let t = permute(&w.reshaped(vec![g, mg, cg, taps])?, &[0, 3, 2, 1])?;
        if g == 1 { t.reshaped(vec![taps * cg, mg]) } else { t.reshaped(vec![g, taps * cg, mg]) }
    })
}

/// `rows @ matrix + b` for rows `[.., G, places.., T*C/G]` (no G for one group); features come last.
fn multiply(
    b: &mut Builder<'_>,
    conv: &Convolution,
    rows: ValueId,
    matrix: ValueId,
    place_axes: usize,
) -> Result<ValueId, Declined> {
    let mut y = b.matmul(rows, matrix)?;
    if let Some((bias, t)) = &conv.b {
        let bias = if conv.group == 1 {
            *bias
        } else {
            // [G, 1.., M/G] stands beside [.., G, places.., M/G]
            let shape = [vec![conv.group], vec![1; place_axes], vec![conv.m / conv.group]].concat();
            b.derived(t, &format!("bias {shape:?}"), "bias", |t| t.reshaped(shape.clone()))?
        };
        y = b.add(y, bias)?;
    }
    Ok(y)
}

/// All spatial extents are fixed: one Gather collects the patches.
fn fixed(b: &mut Builder<'_>, conv: &Convolution, p: &ConvProblem) -> Result<ValueId, Declined> {
    let (g, cg) = (p.group, p.c / p.group);
    let begins: Vec<usize> = p.axes.iter().map(|a| a.pad_begin).collect();
    let ends: Vec<usize> = p.axes.iter().map(|a| a.pad_end).collect();
    let padded = padded_extents(p);
    let extent = product("padded extents", &padded)?;
    let outs = out_extents(p);
    let places = product("output places", &outs)?;
    let (taps, fix) = (conv.taps(), Extent::Fixed);

    // channels last within each group: [N, S, C] or [N, G, S, C/G]
    let x = b.pad(conv.x, &all_pads(&begins, &ends))?;
    let axis = if g == 1 { 1 } else { 2 };
    let (split, last): (Vec<Extent>, &[usize]) = if g == 1 {
        (vec![Extent::Same, fix(cg), fix(extent)], &[0, 2, 1])
    } else {
        (vec![Extent::Same, fix(g), fix(cg), fix(extent)], &[0, 1, 3, 2])
    };
    let x = b.reshape(x, &split)?;
    let mut rows = b.transpose(x, last)?;
    // with one tap at every place in order the patches are the elements themselves
    let at = patch_indices(p, &padded);
    if taps != 1 || !at.iter().copied().eq(0..extent as i64) {
        let indices = b.constant("indices", Tensor::new(vec![places, taps], at)?)?;
        rows = b.gather(rows, indices, axis)?;
        let joined = if g == 1 {
            vec![Extent::Same, fix(places), fix(taps * cg)]
        } else {
            vec![Extent::Same, fix(g), fix(places), fix(taps * cg)]
        };
        rows = b.reshape(rows, &joined)?;
    }
    let matrix = matrix(b, conv)?;
    let y = multiply(b, conv, rows, matrix, 1)?;
    let y = b.transpose(y, last)?;
    let whole: Vec<Extent> =
        [Extent::Same, fix(p.m)].into_iter().chain(outs.iter().map(|o| fix(*o))).collect();
    b.reshape(y, &whole)
}

/// Linear indices into the padded extents, `[places, taps]`.
fn patch_indices(p: &ConvProblem, padded: &[usize]) -> Vec<i64> {
    let taps: Vec<Vec<usize>> = indices(&p.window.kernel_shape).collect();
    let outs = out_extents(p);
    let mut all = Vec::new();
    for place in indices(&outs) {
        for tap in &taps {
            let linear = padded.iter().enumerate().fold(0, |linear, (i, extent)| {
                linear * extent + place[i] * p.window.strides[i] + tap[i] * p.window.dilations[i]
            });
            all.push(linear as i64);
        }
    }
    all
}

/// The padding along each spatial axis if it does not depend on the extent: beginnings, ends.
fn static_pads(conv: &Convolution) -> Result<(Vec<usize>, Vec<usize>), Declined> {
    let w = &conv.window;
    let rank = w.rank();
    match w.auto_pad {
        AutoPad::NotSet => Ok((w.pads[..rank].to_vec(), w.pads[rank..].to_vec())),
        AutoPad::Valid => Ok((vec![0; rank], vec![0; rank])),
        AutoPad::SameUpper | AutoPad::SameLower => {
            if w.strides.iter().any(|s| *s != 1) {
                let same = if w.auto_pad == AutoPad::SameUpper { "SAME_UPPER" } else { "SAME_LOWER" };
                let what = format!("strides with {same} and spatial extents {}", dims_text(&conv.spatial));
                return Err(Declined::new(what, format!("{:?}", w.strides), format!("{:?}", vec![1; rank])));
            }
            let (mut begins, mut ends) = (vec![], vec![]);
            for axis in 0..rank {
                // with steps of 1 the output is as large as the input
                let total = w.span(axis)? - 1;
                let (small, large) = (total / 2, total - total / 2);
                let upper = w.auto_pad == AutoPad::SameUpper;
                begins.push(if upper { small } else { large });
                ends.push(if upper { large } else { small });
            }
            Ok((begins, ends))
        }
    }
}

/// Some spatial extent is symbolic: a Slice for each tap, joined along the channels.
fn symbolic(b: &mut Builder<'_>, conv: &Convolution) -> Result<ValueId, Declined> {
    let rank = conv.window.rank();
    let (begins, ends) = static_pads(conv)?;
    let x = b.pad(conv.x, &all_pads(&begins, &ends))?;
    let g = conv.group;
    // [N, C, S..], or [N, G, C/G, S..]
    let channel_axis = if g == 1 { 1 } else { 2 };
    let x = if g == 1 {
        x
    } else {
        let spatial = (0..rank).map(|i| Extent::Of(x, i + 2));
        let split = [Extent::Same, Extent::Fixed(g), Extent::Fixed(conv.c / g)];
        b.reshape(x, &split.into_iter().chain(spatial).collect::<Vec<_>>())?
    };
    let mut parts = vec![];
    for tap in indices(&conv.window.kernel_shape) {
        parts.push(slice_of_tap(b, conv, x, &tap, channel_axis + 1)?);
    }
    let joined = b.concat(&parts, channel_axis)?;
    // features last: [0, 2.., 1] or [0, 1, 3.., 2]
    let last: Vec<usize> =
        (0..channel_axis).chain(channel_axis + 1..channel_axis + 1 + rank).chain([channel_axis]).collect();
    let rows = b.transpose(joined, &last)?;
    let mut matrix = matrix(b, conv)?;
    if g != 1 && rank > 1 {
        // the batch of groups stands before all places but the last: [G, 1.., T*C/G, M/G]
        let (cg, mg) = (conv.c / g, conv.m / g);
        let shape = [vec![g], vec![1; rank - 1], vec![conv.taps() * cg, mg]].concat();
        let key = format!("im2col matrix {shape:?}");
        matrix = b.derived(&conv.w, &key, "matrix", |w| {
            permute(&w.reshaped(vec![g, mg, cg, conv.taps()])?, &[0, 3, 2, 1])?.reshaped(shape.clone())
        })?;
    }
    let y = multiply(b, conv, rows, matrix, rank)?;
    let y = b.transpose(y, &inverse(&last))?;
    if g == 1 {
        return Ok(y);
    }
    let spatial = (0..rank).map(|i| Extent::Of(y, i + 3));
    let whole = [Extent::Same, Extent::Fixed(conv.m)].into_iter().chain(spatial).collect::<Vec<_>>();
    b.reshape(y, &whole)
}

/// What one tap reads at every output place: from its own offset, up to what the taps behind it need, in strides.
fn slice_of_tap(
    b: &mut Builder<'_>,
    conv: &Convolution,
    x: ValueId,
    tap: &[usize],
    first_axis: usize,
) -> Result<ValueId, Declined> {
    let w = &conv.window;
    let whole = |v: usize| i64::try_from(v).map_err(|_| Declined::new("kernel extent", v, "below 2^63"));
    let (mut starts, mut ends, mut axes, mut steps) = (vec![], vec![], vec![], vec![]);
    for (i, t) in tap.iter().enumerate() {
        let start = t * w.dilations[i];
        let behind = whole(w.span(i)? - 1 - start)?;
        // with nothing behind it and a step of 1 the slice starts at its offset and takes the rest
        starts.push(whole(start)?);
        ends.push(if behind == 0 { i64::MAX } else { -behind });
        axes.push(whole(first_axis + i)?);
        steps.push(whole(w.strides[i])?);
    }
    if starts.iter().all(|s| *s == 0) && ends.iter().all(|e| *e == i64::MAX) && steps.iter().all(|s| *s == 1)
    {
        return Ok(x);
    }
    b.slice(x, &starts, &ends, &axes, &steps)
}
