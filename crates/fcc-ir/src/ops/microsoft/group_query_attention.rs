//! `GroupQueryAttention`: fewer heads of K and V than of Q, with a cache, rotary positions and a window.
use super::attention::{float, floats};
use super::heads::{Heads, scale, softmax, split};
use super::mask::{Mask, Space, check_bias};
use super::{DOMAIN, Shapes, count, extent, head_size, is_one, one_int, rows_of, share, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::round_through;
use crate::ops::rotary_embedding::RotaryProblem;
use crate::{Dim, Error, OpNode, Result, Tensor, TensorType, Value, convert};

/// `GroupQueryAttention`: inputs query, key, value, past_key, past_value, seqlens_k, total_sequence_length, cos_cache,
/// sin_cache, position_ids, attention_bias, head_sink, (scales of a quantised cache), q_norm_weight, k_norm_weight;
/// outputs the result, the cache of keys and of values, and the scores or weights.
pub struct GroupQueryAttention;

/// The slots of the inputs.
mod slot {
    pub const PAST_KEY: usize = 3;
    pub const PAST_VALUE: usize = 4;
    pub const SEQLENS: usize = 5;
    pub const TOTAL: usize = 6;
    pub const COS: usize = 7;
    pub const SIN: usize = 8;
    pub const POSITIONS: usize = 9;
    pub const BIAS: usize = 10;
    pub const SINK: usize = 11;
    pub const Q_NORM: usize = 14;
    pub const K_NORM: usize = 15;
}

/// The attributes.
#[derive(Debug, Clone, Copy)]
struct Params {
    heads: usize,
    kv_heads: usize,
    scale: f32,
    softcap: f32,
    causal: bool,
    /// Keys that a query sees, itself and those before it.
    window: Option<usize>,
    rotary: bool,
    interleaved: bool,
    smooth: bool,
    norm_epsilon: f32,
    /// 1: the scores, 2: the weights.
    qk_output: i64,
}

/// Reads the attributes. Errors on what is not computed.
fn params(node: &OpNode, has: impl Fn(usize) -> bool) -> Result<Params> {
    let attrs = &node.attrs;
    let missing = |what: &str| Err(Error::unsupported(format!("{DOMAIN}.GroupQueryAttention with {what}")));
    if attrs.flag("sliding_window_cache", false)? {
        return missing("`sliding_window_cache`");
    }
    let quantised = |name: &str| Ok::<_, Error>(attrs.str_or(name, "NONE")? != "NONE");
    if quantised("k_quant_type")? || quantised("v_quant_type")? || has(12) || has(13) {
        return missing("a quantised cache");
    }
    let (heads, kv_heads) = (count(node, "num_heads")?, count(node, "kv_num_heads")?);
    share("attribute `num_heads`", heads, kv_heads)?;
    let causal = match attrs.int_or("causal", 1)? {
        0 => false,
        1 => true,
        other => return Err(Error::mismatch("attribute `causal`", other, "0 or 1")),
    };
    let window = match attrs.int_or("local_window_size", -1)? {
        -1 => None,
        w => Some(usize::try_from(w).ok().filter(|w| *w > 0 && causal).ok_or_else(|| {
            Error::mismatch("attribute `local_window_size`", w, "-1, or at least 1 where `causal` is 1")
        })?),
    };
    let qk_output = attrs.int_or("qk_output", 0)?;
    if !(0..=2).contains(&qk_output) {
        return Err(Error::mismatch("attribute `qk_output`", qk_output, "0, 1 or 2"));
    }
    let rotary = is_one(node, "do_rotary", false)?;
    if rotary && !(has(slot::COS) && has(slot::SIN)) {
        return Err(Error::mismatch("inputs `cos_cache` and `sin_cache`", "none", "both for `do_rotary`"));
    }
    Ok(Params {
        heads,
        kv_heads,
        scale: attrs.float_or("scale", 0.0)?,
        softcap: attrs.float_or("softcap", 0.0)?,
        causal,
        window,
        rotary,
        interleaved: is_one(node, "rotary_interleaved", false)?,
        smooth: is_one(node, "smooth_softmax", false)?,
        norm_epsilon: attrs.float_or("qk_norm_epsilon", 1e-6)?,
        qk_output,
    })
}

/// The extents that shapes say.
#[derive(Debug, Clone, Copy)]
struct Problem {
    params: Params,
    batch: usize,
    tokens: usize,
    size: usize,
    /// Tokens that the past has room for.
    room: usize,
    /// Query, key and value are columns of the first input.
    packed: bool,
}

impl Problem {
    /// Errors where shapes do not fit.
    fn new(node: &OpNode, shapes: &Shapes) -> Result<Problem> {
        let params = params(node, |i| shapes.get(i).is_some())?;
        let Params { heads, kv_heads, .. } = params;
        let q = shapes.need(0, "query")?;
        let &[batch, tokens, columns] = q else { return Err(Error::mismatch("rank of `query`", q.len(), 3)) };
        let packed = shapes.get(1).is_none();
        let all = if packed { heads + 2 * kv_heads } else { heads };
        let size = head_size("last extent of `query`", columns, all)?;
        if packed && shapes.get(2).is_some() {
            return Err(Error::mismatch("input `key`", "none", "a value beside `value`"));
        }
        if !packed {
            shapes.need(2, "value")?;
            let wanted = [batch, tokens, kv_heads * size];
            shapes.fit(1, "key", &wanted)?;
            shapes.fit(2, "value", &wanted)?;
        }
        let room = match (shapes.get(slot::PAST_KEY), shapes.get(slot::PAST_VALUE)) {
            (None, None) => 0,
            (Some(&[b, h, room, d]), Some(v))
                if (b, h, d) == (batch, kv_heads, size) && v == [b, h, room, d] =>
            {
                room
            }
            (k, v) => {
                let got = format!("{k:?} and {v:?}");
                let wanted = format!("both [{batch}, {kv_heads}, past, {size}]");
                return Err(Error::mismatch("shapes of `past_key` and `past_value`", got, wanted));
            }
        };
        let lens = shapes.need(slot::SEQLENS, "seqlens_k")?;
        if crate::tensor::elem_count(lens)? != batch {
            return Err(wrong_shape("seqlens_k", lens, format!("[{batch}]")));
        }
        if let Some(cos) = shapes.get(slot::COS) {
            shapes.need(slot::SIN, "sin_cache")?;
            shapes.fit(slot::SIN, "sin_cache", cos)?;
            if !matches!(cos, [_, half] if *half <= size / 2) {
                return Err(wrong_shape("cos_cache", cos, format!("[rows, {} at most]", size / 2)));
            }
        }
        shapes.fit(slot::POSITIONS, "position_ids", &[batch, tokens])?;
        shapes.fit(slot::SINK, "head_sink", &[heads])?;
        for (i, other, name) in
            [(slot::Q_NORM, slot::K_NORM, "k_norm_weight"), (slot::K_NORM, slot::Q_NORM, "q_norm_weight")]
        {
            if shapes.get(i).is_some() {
                shapes.need(other, name)?;
                shapes.fit(other, name, &[size])?;
            }
        }
        Ok(Problem { params, batch, tokens, size, room, packed })
    }
}

/// What the values of `seqlens_k` and `total_sequence_length` say.
struct Lengths {
    /// Tokens of the longest sequence, the new ones included.
    total: usize,
    /// Tokens that the cache has room for afterwards.
    room: usize,
    /// For each sequence: tokens of its past, and tokens in all.
    each: Vec<(usize, usize)>,
    /// The new tokens are all there is.
    prompt: bool,
}

impl Lengths {
    fn new(p: &Problem, seqlens: &Tensor, total: &Tensor) -> Result<Lengths> {
        let given = one_int(total, "total_sequence_length")?;
        let (tokens, grown) = (p.tokens, p.room.saturating_add(p.tokens));
        let total = usize::try_from(given).ok().filter(|t| *t >= tokens && (*t == grown || *t <= p.room));
        let total = total.ok_or_else(|| {
            let wanted = format!("{grown}, or {tokens} to {} within the past", p.room);
            Error::mismatch("input `total_sequence_length`", given, wanted)
        })?;
        let prompt = total == tokens;
        if tokens > 1 && !prompt && p.batch != 1 {
            return Err(Error::mismatch("batch of several tokens behind a past", p.batch, 1));
        }
        let room = total.max(p.room);
        let one = |&last: &i64| {
            let all = usize::try_from(last).ok().filter(|n| *n < total).map(|n| n + 1);
            let past = all.and_then(|n| if prompt { Some(0) } else { n.checked_sub(tokens) });
            all.zip(past).map(|(n, past)| (past, n)).ok_or_else(|| {
                let least = if prompt { 0 } else { tokens - 1 };
                Error::mismatch("element of `seqlens_k`", last, format!("{least}..{total}"))
            })
        };
        let each = seqlens.to_i64s()?.iter().map(one).collect::<Result<_>>()?;
        Ok(Lengths { total, room, each, prompt })
    }
}

/// The cache with the new tokens in it, zeros behind them: `[batch, kv_heads, room, size]`.
fn cache(p: &Problem, lengths: &Lengths, past: &[f32], new: &[f32]) -> Vec<f32> {
    let (heads, d) = (p.params.kv_heads, p.size);
    let mut out = vec![0f32; p.batch * heads * lengths.room * d];
    for row in 0..p.batch * heads {
        let old = lengths.each[row / heads].0;
        let to = &mut out[row * lengths.room * d..][..lengths.room * d];
        to[..old * d].copy_from_slice(&past[row * p.room * d..][..old * d]);
        to[old * d..][..p.tokens * d].copy_from_slice(&new[row * p.tokens * d..][..p.tokens * d]);
    }
    out
}

/// Turns heads `[batch, heads, tokens, size]` by the positions of their tokens.
fn rotate(cx: &EvalCtx<'_>, p: &Problem, lengths: &Lengths, heads: usize, x: &mut [f32]) -> Result<()> {
    let (cos, sin) = (cx.tensor(slot::COS)?, cx.tensor(slot::SIN)?);
    let given = cx.opt_tensor(slot::POSITIONS)?.map(Tensor::to_i64s).transpose()?;
    // of a prompt only the first position counts
    let first = given.as_ref().and_then(|g| g.first()).copied().unwrap_or(0);
    let position = |b: usize, t: usize| match &given {
        _ if lengths.prompt => first.saturating_add(t as i64),
        Some(given) => given[b * p.tokens + t],
        None => (lengths.each[b].0 + t) as i64,
    };
    let ids: Vec<i64> =
        (0..p.batch).flat_map(|b| (0..p.tokens).map(move |t| (b, t))).map(|(b, t)| position(b, t)).collect();
    let rows = rows_of("position_ids", &ids, cos.shape()[0])?;
    let problem = RotaryProblem {
        batch: p.batch,
        sequence: p.tokens,
        heads,
        head_size: p.size,
        rotated: 2 * cos.shape()[1],
        interleaved: p.params.interleaved,
        packed: false,
    };
    problem.rotate(x, &rows, &convert::to_f32s(cos)?, &convert::to_f32s(sin)?);
    Ok(())
}

/// `x / sqrt(mean(x * x) + epsilon) * weight` of each head.
fn normalize(x: &mut [f32], weight: &[f32], epsilon: f32) {
    for head in x.chunks_mut(weight.len().max(1)) {
        super::normalization::normalize(head, false, epsilon);
        head.iter_mut().zip(weight).for_each(|(v, w)| *v *= w);
    }
}

impl Operator for GroupQueryAttention {
    fn schema(&self) -> Schema {
        Schema { name: "GroupQueryAttention", domain: DOMAIN, since: &[1], inputs: (7, 16), outputs: (1, 4) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let params = params(cx.node, |i| cx.has(i))?;
        if let Some(shapes) = Shapes::fixed(cx)? {
            Problem::new(cx.node, &shapes)?;
        }
        let (heads, kv) = (Dim::Known(params.heads), Dim::Known(params.kv_heads));
        let (batch, tokens, columns) = (extent(cx, 0, 0)?, extent(cx, 0, 1)?, extent(cx, 0, 2)?);
        let all = if cx.has(1) { params.heads } else { params.heads + 2 * params.kv_heads };
        let size = columns.floor_div(&Dim::Known(all));
        let total = cx.value(slot::TOTAL).map(|t| one_int(t, "total_sequence_length")).transpose()?;
        let total = total.and_then(|t| usize::try_from(t).ok());
        let past = if cx.has(slot::PAST_KEY) { extent(cx, slot::PAST_KEY, 2)? } else { Dim::Known(0) };
        let room = match (total, past.known()) {
            (Some(total), Some(past)) => Dim::Known(total.max(past)),
            // without a past the new tokens are all there is
            (None, Some(0)) => tokens.clone(),
            _ => Dim::Unknown,
        };
        let cache = vec![batch.clone(), kv, room, size.clone()];
        let total = total.map_or(Dim::Unknown, Dim::Known);
        let shapes = [
            vec![batch.clone(), tokens.clone(), heads.mul(&size)],
            cache.clone(),
            cache,
            vec![batch, heads, tokens, total],
        ];
        let dtype = cx.dtype(0)?;
        Ok(shapes.into_iter().take(cx.n_outputs).map(|s| TensorType::new(dtype, s).into()).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(5)?;
        let p = Problem::new(cx.node, &Shapes::of(cx)?)?;
        if cx.wants(3) && p.params.qk_output == 0 {
            return Err(Error::mismatch("attribute `qk_output`", 0, "1 or 2 for the fourth output"));
        }
        let lengths = Lengths::new(&p, cx.tensor(slot::SEQLENS)?, cx.tensor(slot::TOTAL)?)?;
        let Params { heads, kv_heads, .. } = p.params;
        let space = Space { batch: p.batch, heads, queries: p.tokens, keys: lengths.total, past: 0 };
        let bias = cx.opt_tensor(slot::BIAS)?;
        check_bias(bias.map(Tensor::shape), space)?;
        let dtype = cx.tensor(0)?.dtype();
        float(dtype)?;
        let [mut q, mut k, v] = operands(cx, &p)?;
        if let (Some(qw), Some(kw)) = (cx.opt_tensor(slot::Q_NORM)?, cx.opt_tensor(slot::K_NORM)?) {
            for (x, w) in [(&mut q, qw), (&mut k, kw)] {
                normalize(x, &convert::to_f32s(w)?, p.params.norm_epsilon);
                round_through(dtype, x);
            }
        }
        if p.params.rotary {
            for (x, heads) in [(&mut q, heads), (&mut k, kv_heads)] {
                rotate(cx, &p, &lengths, heads, x)?;
                round_through(dtype, x);
            }
        }
        let k = cache(&p, &lengths, &floats(cx.opt_tensor(slot::PAST_KEY)?)?, &k);
        let v = cache(&p, &lengths, &floats(cx.opt_tensor(slot::PAST_VALUE)?)?, &v);
        let mask = Mask::new(space, None, 0.0, bias, false)?;
        let sinks = cx.opt_tensor(slot::SINK)?.map(convert::to_f32s).transpose()?;
        let qk_output = if cx.wants(3) { p.params.qk_output } else { 0 };
        let scores = if cx.wants(3) { p.batch * heads * p.tokens * lengths.total } else { 0 };
        let mut kept = vec![0f32; scores];
        let attention = Heads {
            batch: p.batch,
            heads,
            kv_heads,
            queries: p.tokens,
            keys: lengths.room,
            size: p.size,
            v_size: p.size,
            scale: scale(p.params.scale, p.size),
        };
        let y = attention.attend(
            [&q, &k, &v],
            |b| lengths.each[b].1,
            |[b, h, i], scores| {
                let (past, all) = lengths.each[b];
                let end = if p.params.causal { (past + i + 1).min(all) } else { all };
                let begin = p.params.window.map_or(0, |w| (past + i + 1).saturating_sub(w)).min(end);
                let (hidden, ahead) = scores.split_at_mut(end);
                let (behind, seen) = hidden.split_at_mut(begin);
                behind.fill(0.0);
                ahead.fill(0.0);
                if p.params.softcap > 0.0 {
                    seen.iter_mut().for_each(|s| *s = (*s / p.params.softcap).tanh() * p.params.softcap);
                }
                mask.add_from(begin, [b, h, i], seen);
                let at = ((b * heads + h) * p.tokens + i) * lengths.total + begin;
                let len = seen.len();
                if qk_output == 1 {
                    kept[at..][..len].copy_from_slice(seen);
                }
                let sink = sinks.as_ref().map(|s| s[h]).or(p.params.smooth.then_some(0.0));
                softmax(seen, sink);
                if qk_output == 2 {
                    kept[at..][..len].copy_from_slice(seen);
                }
            },
        )?;
        let store = |shape: &[usize], data: Vec<f32>| convert::from_f32s(dtype, shape, data);
        let cached = [p.batch, kv_heads, lengths.room, p.size];
        let mut outputs = vec![
            store(&[p.batch, p.tokens, heads * p.size], y)?.into(),
            store(&cached, k)?.into(),
            store(&cached, v)?.into(),
        ];
        if cx.wants(3) {
            outputs.push(store(&[p.batch, heads, p.tokens, lengths.total], kept)?.into());
        }
        outputs.truncate(cx.wanted.len());
        Ok(outputs)
    }
}

/// Q, K and V of the new tokens as `[batch, heads, tokens, size]`.
fn operands(cx: &EvalCtx<'_>, p: &Problem) -> Result<[Vec<f32>; 3]> {
    let Params { heads, kv_heads, .. } = p.params;
    let d = p.size;
    let part =
        |x: &[f32], width: usize, at: usize, n: usize| split(x, (p.batch, p.tokens, width), at, (n, d), None);
    let q = convert::to_f32s(cx.tensor(0)?)?;
    if p.packed {
        let width = (heads + 2 * kv_heads) * d;
        let at = [0, heads * d, (heads + kv_heads) * d];
        return Ok([
            part(&q, width, at[0], heads),
            part(&q, width, at[1], kv_heads),
            part(&q, width, at[2], kv_heads),
        ]);
    }
    let (k, v) = (convert::to_f32s(cx.tensor(1)?)?, convert::to_f32s(cx.tensor(2)?)?);
    let width = kv_heads * d;
    Ok([part(&q, heads * d, 0, heads), part(&k, width, 0, kv_heads), part(&v, width, 0, kv_heads)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ValueType;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval_in, infer_in};

    fn f(shape: &[usize], v: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(shape, v.to_vec()).unwrap())
    }
    fn zeros(shape: &[usize]) -> Option<Tensor> {
        f(shape, &vec![0.0; shape.iter().product()])
    }
    fn attrs() -> Attrs {
        Attrs::new().with("num_heads", 2i64).with("kv_num_heads", 1i64)
    }
    /// Lengths less one, and the longest length.
    fn lens(last: &[i32], total: i32) -> [Option<Tensor>; 2] {
        [Some(Tensor::new([last.len()], last.to_vec()).unwrap()), Some(Tensor::scalar(total))]
    }
    fn run(attrs: Attrs, inputs: &[Option<Tensor>], n: usize) -> Result<Vec<Vec<f32>>> {
        let made = eval_in(DOMAIN, "GroupQueryAttention", attrs, inputs, n)?;
        made.iter().map(|v| convert::to_f32s(v.as_tensor()?)).collect()
    }
    /// Two heads of Q over one of K and V of one element; all scores are 0.
    fn even(
        attrs: Attrs,
        values: &[f32],
        past: &[f32],
        last: &[i32],
        total: i32,
        more: &[(usize, Option<Tensor>)],
    ) -> Result<Vec<Vec<f32>>> {
        let (batch, tokens) = (last.len(), values.len() / last.len());
        let room = past.len() / batch;
        let past = |v: &[f32]| if room == 0 { None } else { f(&[batch, 1, room, 1], v) };
        let [seqlens, total] = lens(last, total);
        let mut inputs = vec![
            zeros(&[batch, tokens, 2]),
            zeros(&[batch, tokens, 1]),
            f(&[batch, tokens, 1], values),
            past(&vec![0.0; batch * room]),
            past(&past_values(room, batch)),
            seqlens,
            total,
        ];
        inputs.resize(16, None);
        more.iter().for_each(|(i, t)| inputs[*i] = t.clone());
        let n = if attrs.get("qk_output").is_some() { 4 } else { 3 };
        let made = run(attrs.clone(), &inputs, n)?;
        // the past counts whether or not the cache is asked for
        assert_eq!(run(attrs, &inputs, 1)?[0], made[0]);
        return Ok(made);
        fn past_values(room: usize, batch: usize) -> Vec<f32> {
            (0..batch * room).map(|i| 100.0 * (i + 1) as f32).collect()
        }
    }

    #[test]
    fn queries_see_what_is_before_them_within_the_window() {
        let y = |attrs, more: &[(usize, Option<Tensor>)]| {
            even(attrs, &[1.0, 3.0, 8.0], &[], &[2], 3, more).unwrap()
        };
        assert_eq!(y(attrs(), &[])[0], [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]);
        assert_eq!(y(attrs().with("causal", 0i64), &[])[0], [4.0; 6]);
        assert_eq!(y(attrs().with("local_window_size", 2i64), &[])[0], [1.0, 1.0, 2.0, 2.0, 5.5, 5.5]);
        // one more in the denominator
        let smooth = y(attrs().with("smooth_softmax", 1i64).with("qk_output", 2i64), &[]);
        assert_eq!(smooth[0][..4], [0.5, 0.5, 4.0 / 3.0, 4.0 / 3.0]);
        assert_eq!(smooth[3][..3], [0.5, 0.0, 0.0]);
        // a sink that takes all of the first head's weight
        let sink = f(&[2], &[1e9, -1e9]);
        assert_eq!(y(attrs(), &[(slot::SINK, sink)])[0], [0.0, 1.0, 0.0, 2.0, 0.0, 4.0]);
        let bias = f(&[1, 1, 3, 3], &[0.0, 9.0, 9.0, -1e9, 0.0, 9.0, -1e9, 0.0, -1e9]);
        let biased = y(attrs().with("qk_output", 1i64), &[(slot::BIAS, bias)]);
        assert_eq!(biased[0], [1.0, 1.0, 3.0, 3.0, 3.0, 3.0]);
        assert_eq!(biased[3][..6], [0.0, 0.0, 0.0, -1e9, 0.0, 0.0]);
    }

    #[test]
    fn the_cache_grows_or_has_room() {
        // sequences of three and two tokens in all, a past with room for two
        let made = even(attrs(), &[3.0, 2.0], &[0.0; 4], &[2, 1], 3, &[]).unwrap();
        assert_eq!(made[2], [100.0, 200.0, 3.0, 300.0, 2.0, 0.0]);
        assert!(
            made[0].iter().zip([101.0, 101.0, 151.0, 151.0]).all(|(y, want)| (y - want).abs() < 1e-4),
            "{:?}",
            made[0]
        );
        // room for four, of which two are in use: what is behind the new token is 0
        let made = even(attrs(), &[7.0], &[0.0; 4], &[2], 3, &[]).unwrap();
        assert_eq!(made[2], [100.0, 200.0, 7.0, 0.0]);
        // a prompt fills the cache from its begin
        let made = even(attrs(), &[7.0, 8.0], &[0.0; 3], &[1], 2, &[]).unwrap();
        assert_eq!(made[2], [7.0, 8.0, 0.0]);
        // several tokens behind a past, of one sequence only
        assert!(even(attrs(), &[1.0, 2.0], &[0.0; 1], &[2], 3, &[]).is_ok());
        assert!(even(attrs(), &[1.0, 2.0, 3.0, 4.0], &[0.0; 2], &[2, 2], 3, &[]).is_err());
        for (last, total) in [(3, 3), (-1, 3), (2, 2), (2, 9)] {
            assert!(even(attrs(), &[1.0, 2.0, 3.0], &[], &[last], total, &[]).is_err(), "{last} {total}");
        }
    }

    #[test]
    fn positions_turn_queries_and_keys() {
        // one head of two elements; position p turns by p quarters
        let (cos, sin) = (f(&[3, 1], &[1.0, 0.0, -1.0]), f(&[3, 1], &[0.0, 1.0, 0.0]));
        let keys = |more: &[(usize, Option<Tensor>)], interleaved: i64| {
            let attrs =
                Attrs::new().with("num_heads", 1i64).with("kv_num_heads", 1i64).with("do_rotary", 1i64);
            let [seqlens, total] = lens(&[1], 2);
            // packed: q, k, v
            let packed = f(&[1, 2, 6], &[0.0, 0.0, 1.0, 2.0, 5.0, 6.0, 0.0, 0.0, 3.0, 4.0, 7.0, 8.0]);
            let mut inputs = vec![packed, None, None, None, None, seqlens, total, cos.clone(), sin.clone()];
            inputs.resize(16, None);
            more.iter().for_each(|(i, t)| inputs[*i] = t.clone());
            run(attrs.with("rotary_interleaved", interleaved), &inputs, 3)
        };
        let made = keys(&[], 0).unwrap();
        assert_eq!((&made[1][..], &made[2][..]), (&[1.0, 2.0, -4.0, 3.0][..], &[5.0, 6.0, 7.0, 8.0][..]));
        // of a prompt the first position counts
        let positions = |v: [i64; 2]| (slot::POSITIONS, Some(Tensor::new([1, 2], v.to_vec()).unwrap()));
        assert_eq!(keys(&[positions([1, 9])], 1).unwrap()[1], [-2.0, 1.0, -3.0, -4.0]);
        assert!(keys(&[positions([2, 0])], 0).is_err());
        assert!(keys(&[(slot::COS, None)], 0).is_err());
        // the keys [1, 2] and [3, 4] over their root mean squares
        let ones = || f(&[2], &[2.5f32.sqrt(), 2.5f32.sqrt()]);
        let made = keys(&[(slot::Q_NORM, ones()), (slot::K_NORM, ones())], 0).unwrap();
        assert!((made[1][0] - 1.0).abs() < 1e-5 && (made[1][1] - 2.0).abs() < 1e-5, "{:?}", made[1]);
        assert!(keys(&[(slot::Q_NORM, ones())], 0).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused_before_and_in_the_run() {
        let (q, k) = (zeros(&[1, 1, 4]), zeros(&[1, 1, 2]));
        let [seqlens, total] = lens(&[0], 1);
        let with = |attrs: Attrs, head: Vec<Option<Tensor>>, past: Option<Tensor>| {
            let mut inputs = head;
            inputs.extend([past, None, seqlens.clone(), total.clone()]);
            (attrs, inputs)
        };
        let bad = [
            with(attrs(), vec![q.clone(), k.clone(), None], None),
            with(attrs(), vec![q.clone(), None, k.clone()], None),
            with(attrs(), vec![q.clone(), q.clone(), k.clone()], None),
            with(attrs(), vec![zeros(&[1, 1, 5]), k.clone(), k.clone()], None),
            with(attrs(), vec![zeros(&[1, 4]), k.clone(), k.clone()], None),
            with(attrs(), vec![q.clone(), k.clone(), k.clone()], zeros(&[1, 1, 1, 2])),
            with(attrs().with("kv_num_heads", 0i64), vec![q.clone(), k.clone(), k.clone()], None),
            with(
                attrs().with("num_heads", 3i64).with("kv_num_heads", 2i64),
                vec![q.clone(), k.clone(), k.clone()],
                None,
            ),
            with(attrs().with("k_quant_type", "PER_TENSOR"), vec![q.clone(), k.clone(), k.clone()], None),
            with(attrs().with("sliding_window_cache", 1i64), vec![q.clone(), k.clone(), k.clone()], None),
            with(attrs().with("causal", 0i64).with("local_window_size", 1i64), vec![q, k.clone(), k], None),
        ];
        for (attrs, inputs) in bad {
            let facts: Vec<_> =
                inputs.iter().map(|t| t.as_ref().map(|t| ValueType::from(t.tensor_type()).into())).collect();
            assert!(run(attrs.clone(), &inputs, 1).is_err(), "{attrs:?} {inputs:?}");
            assert!(infer_in(DOMAIN, "GroupQueryAttention", attrs.clone(), &facts, 1).is_err(), "{attrs:?}");
        }
    }
}
