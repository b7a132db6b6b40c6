"""The cases of scripts/microsoft.py: what ONNX Runtime computes, and what it refuses."""

from __future__ import annotations

import numpy as np
from microsoft import Case, attention_bound, draw, ints, norm_bound, sum_bound
from onnx import TensorProto, helper

MS = "com.microsoft"


def rng(name: str) -> np.random.Generator:
    """The same numbers for the same name."""
    return np.random.default_rng([ord(c) for c in name])


def whole(r: np.random.Generator, *shape: int) -> np.ndarray:
    """Small integers: sums of their products are exact in f32."""
    return r.integers(-4, 5, shape).astype(np.float32)


def attention() -> list[Case]:
    """`Attention`: B, S, D, heads and head sizes all differ; masks of every form, past, bias, sizes of V."""
    out = []
    b, s, d, n, h, past = 2, 3, 5, 2, 4, 2
    total = past + s
    masks = {
        "none": None,
        "ends": np.array([4, 2], np.int32),
        "ends_and_begins": np.array([4, 5, 1, 2], np.int32),
        "ends_cumulative": np.array([4, 2, 0, 3, 6, 0, 5, 10], np.int32),
        "keys": np.array([[0, 1, 1, 1, 0], [1, 1, 0, 1, 1]], np.int32),
        "one_each": np.array([[0], [1]], np.int32),
        "one": np.array([[0]], np.int32),
    }
    r = rng("attention")
    scores = ints(r, 0, 2, b, s, total)
    scores[:, :, 0] = 1
    masks["scores"] = scores
    bound = attention_bound(h, total, value=d + 1.0, score=(d + 1.0) ** 2)
    for kind, mask in masks.items():
        for causal in (0, 1):
            r = rng(f"attention {kind} {causal}")
            x, w, bias, old = draw(r, b, s, d), draw(r, d, 3 * n * h), draw(r, 3 * n * h), draw(r, 2, b, n, past, h)
            attrs = {"num_heads": n, "unidirectional": causal}
            out.append(Case(f"attention_{kind}_causal{causal}", "Attention", [x, w, bias, mask, old], 2, attrs, bound))
    for shape in ((1, 1), (b, 1), (1, n), (b, n)):
        r = rng(f"attention bias {shape}")
        ins = [draw(r, b, s, d), draw(r, d, 3 * n * h), draw(r, 3 * n * h), None, None, draw(r, *shape, s, s)]
        attrs = {"num_heads": n}
        out.append(Case(f"attention_bias_{shape[0]}_{shape[1]}", "Attention", ins, 1, attrs, bound))
    r = rng("attention sizes")
    ins = [draw(r, b, s, d), draw(r, d, 8 + 8 + 12), draw(r, 28)]
    sizes = {"num_heads": n, "qkv_hidden_sizes": [8, 8, 12]}
    out.append(Case("attention_sizes", "Attention", ins, 1, sizes, bound))
    ins = [draw(r, b, s, d), draw(r, d, 3 * n * h), draw(r, 3 * n * h), np.array([[1, 0, 1], [1, 1, 0]], np.int32)]
    attrs = {"num_heads": n, "scale": 0.3, "mask_filter_value": -3.0}
    out.append(Case("attention_scale_and_filter", "Attention", ins, 2, attrs, bound))
    ins = [draw(r, 1, 1, d), draw(r, d, 3 * n * h), draw(r, 3 * n * h), None, draw(r, 2, 1, n, 4, h)]
    out.append(Case("attention_one_token", "Attention", ins, 2, {"num_heads": n, "unidirectional": 1}, bound))
    return out


def multi_head_attention() -> list[Case]:
    """`MultiHeadAttention`: masks, bias, past, cross attention, keys of four axes, the scores."""
    out = []
    b, s, t, n, h, hv, past = 2, 3, 5, 2, 4, 6, 2
    bound = attention_bound(h, t + past, value=2.0, score=4.0)
    types = {3: TensorProto.FLOAT}

    def qkv(r, tokens=t, v_size=hv):
        return [draw(r, b, s, n * h), draw(r, b, tokens, n * h), draw(r, b, tokens, n * v_size)]

    for name, outputs, extra in (
        ("plain", 1, []),
        ("all_outputs", 4, []),
        ("bias", 1, ["bias"]),
        ("ends", 4, [None, np.array([2, 4], np.int32)]),
        ("ends_cumulative", 1, [None, np.array([2, 4, 0, 3, 6, 0, 5, 10], np.int32)]),
        ("keys", 4, [None, np.array([[1, 0, 1, 0, 1], [0, 1, 1, 0, 0]], np.int32)]),
        ("scores", 4, [None, "scores"]),
    ):
        for causal in (0, 1):
            r = rng(f"mha {name} {causal}")
            ins = qkv(r)
            for value in extra:
                if isinstance(value, str) and value == "bias":
                    value = draw(r, 2 * n * h + n * hv)
                elif isinstance(value, str):
                    value = ints(r, 0, 2, b, s, t)
                    value[:, :, 0] = 1
                ins.append(value)
            # the first token sees the first key only: a mask that hides it leaves a row of equals around -10000
            if causal and name == "keys":
                ins[4][:, 0] = 1
            attrs = {"num_heads": n, "unidirectional": causal}
            case = Case(f"mha_{name}_causal{causal}", "MultiHeadAttention", ins, outputs, attrs, bound, types=types)
            out.append(case)
    for shape in ((1, 1), (b, 1), (1, n), (b, n)):
        r = rng(f"mha bias {shape}")
        ins = [*qkv(r), None, np.array([[1, 0, 1, 0, 1], [0, 1, 1, 0, 0]], np.int32), draw(r, *shape, s, t)]
        attrs = {"num_heads": n, "mask_filter_value": -3.0, "scale": 0.7}
        case = Case(f"mha_attention_bias_{shape[0]}_{shape[1]}", "MultiHeadAttention", ins, 4, attrs, 2 * bound, types=types)
        out.append(case)
    for causal in (0, 1):
        r = rng(f"mha past {causal}")
        old = [draw(r, b, n, past, h), draw(r, b, n, past, h)]
        mask = np.array([[1, 0, 1, 1, 1], [0, 1, 1, 0, 1]], np.int32)
        ins = [*qkv(r, s, h), None, mask, None, *old]
        attrs = {"num_heads": n, "unidirectional": causal}
        out.append(Case(f"mha_past_causal{causal}", "MultiHeadAttention", ins, 3, attrs, bound))
        ins = [draw(r, b, s, n * h), draw(r, b, n, t, h), draw(r, b, n, t, h), draw(r, 3 * n * h)]
        out.append(Case(f"mha_four_axes_causal{causal}", "MultiHeadAttention", ins, 3, attrs, bound))
        ins = [draw(r, b, 1, n * h), *qkv(r)[1:]]
        out.append(Case(f"mha_one_query_causal{causal}", "MultiHeadAttention", ins, 1, attrs, bound))
    return out


def group_query_attention() -> list[Case]:
    """`GroupQueryAttention`: prompts, tokens behind a past, rotation, window, caps, sinks, bias, scores, halves."""
    out = []
    b, s, n, kn, h = 2, 5, 4, 2, 16
    heads = {"num_heads": n, "kv_num_heads": kn}

    def ins(r, tokens, last, total, past=0, extra=(), packed=False, batch=None):
        batch = batch or len(last)
        q, k, v = draw(r, batch, tokens, n * h), draw(r, batch, tokens, kn * h), draw(r, batch, tokens, kn * h)
        old = [draw(r, batch, kn, past, h), draw(r, batch, kn, past, h)] if past else [None, None]
        qkv = [np.concatenate([q, k, v], 2), None, None] if packed else [q, k, v]
        return [*qkv, *old, np.array(last, np.int32), np.array(total, np.int32), *extra]

    def add(name, inputs, outputs=3, tokens=s, total=8, rows=None, halves=False, **attrs):
        bound = attention_bound(h, total, value=1.5, score=2.25)
        if halves:  # keys and values are stored in halves, rotated ones are rounded, and so is the result
            inputs = [x.astype(np.float16) if x is not None and x.dtype == np.float32 else x for x in inputs]
            bound += 2.0**-10
        types = {3: TensorProto.FLOAT16 if halves else TensorProto.FLOAT}
        out.append(Case(f"gqa_{name}", "GroupQueryAttention", inputs, outputs, {**heads, **attrs}, bound, types=types, rows=rows))

    full, none = [s - 1] * b, [None] * 9
    r = rng("gqa")
    angles = r.uniform(0, 6, (12, h // 2))
    turn = [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)]
    for halves in (False, True):
        kind = "_f16" if halves else ""
        add(f"prompt{kind}", ins(r, s, full, s), halves=halves)
        add(f"prompt_packed{kind}", ins(r, s, full, s, packed=True), halves=halves)
        add(f"prompt_rotated{kind}", ins(r, s, full, s, extra=turn), halves=halves, do_rotary=1)
        add(f"prompt_interleaved{kind}", ins(r, s, full, s, extra=turn), halves=halves, do_rotary=1, rotary_interleaved=1)
        add(f"token{kind}", ins(r, 1, [4, 4], 5, past=4), halves=halves)
        add(f"token_rotated{kind}", ins(r, 1, [4, 2], 5, past=4, extra=turn), halves=halves, do_rotary=1)
    add("one_output", ins(r, s, full, s), 1)
    add("packed_rotated", ins(r, s, full, s, packed=True, extra=turn), do_rotary=1)
    # sequences of five and three tokens: rows 3 and 4 of the second mean nothing
    add("prompt_ragged", ins(r, s, [4, 2], s), 1, rows=[0, 1, 2, 3, 4, 5, 6, 7])
    add("prompt_ragged_rotated", ins(r, s, [4, 2], s, extra=turn), 1, rows=[0, 1, 2, 3, 4, 5, 6, 7], do_rotary=1)
    add("not_causal", ins(r, s, full, s), causal=0)
    add("scale", ins(r, s, full, s), scale=0.1)
    for cap in (0.0, 0.5):
        for which in (1, 2):
            add(f"scores{which}_cap{cap}", ins(r, s, full, s, extra=none[:5]), 4, softcap=cap, qk_output=which)
    add("smooth", ins(r, s, full, s), smooth_softmax=1)
    add("sink", ins(r, s, full, s, extra=[*none[:4], draw(r, n)]))
    add("sink_smooth_cap", ins(r, s, full, s, extra=[*none[:4], draw(r, n)]), smooth_softmax=1, softcap=0.7)
    for window in (1, 2, 4, 9):
        add(f"window{window}", ins(r, s, full, s), local_window_size=window)
        add(f"window{window}_token", ins(r, 1, [5, 3], 6, past=5), local_window_size=window, softcap=0.5)
    add("flags_of_two", ins(r, s, full, s, extra=turn), do_rotary=2, smooth_softmax=2)
    add("window2_scores", ins(r, s, full, s, extra=none[:5]), 4, local_window_size=2, qk_output=1)
    for shape in ((1, 1), (b, 1), (1, n), (b, n)):
        bias = draw(r, *shape, s, s)
        add(f"bias_{shape[0]}_{shape[1]}", ins(r, s, full, s, extra=[*none[:3], bias]), softcap=0.5)
    add("bias_window", ins(r, s, full, s, extra=[*none[:3], draw(r, b, n, s, s)]), local_window_size=3)
    add("token_bias", ins(r, 1, [4, 3], 5, past=4, extra=[*none[:3], draw(r, b, n, 1, 5)]))
    add("token_ragged", ins(r, 1, [4, 2], 5, past=4))
    add("token_room", ins(r, 1, [4, 3], 5, past=8))
    add("prompt_room", ins(r, s, full, s, past=8))
    add("tokens_behind_a_past", ins(r, 3, [6], 7, past=4))
    add("tokens_behind_a_past_rotated", ins(r, 3, [6], 7, past=4, extra=turn), do_rotary=1)
    add("prompt_positions", ins(r, s, full, s, extra=[*turn, ints(r, 0, 7, b, s, dtype=np.int64)]), do_rotary=1)
    positions = np.array([[7], [3]], np.int64)
    add("token_positions", ins(r, 1, [4, 2], 5, past=4, extra=[*turn, positions]), do_rotary=1)
    positions = np.array([[9, 1, 4]], np.int64)
    add("tokens_positions", ins(r, 3, [6], 7, past=4, extra=[*turn, positions]), do_rotary=1)
    return out


def normalisation() -> list[Case]:
    """Layer normalisations with and without a skip, and of embeddings."""
    out = []
    b, s, c = 2, 3, 10
    for dtype in (np.float32, np.float16):
        kind = np.dtype(dtype).name
        bound = norm_bound(c)
        for op, beta in (("SkipLayerNormalization", True), ("SkipSimplifiedLayerNormalization", False)):
            for name, shape, skip in (("", (b, s, c), (b, s, c)), ("_batch", (b, s, c), (1, s, c)), ("_rows", (b, s, c), (s, c)), ("_flat", (s, c), (s, c))):
                r = rng(f"{op}{name}{kind}")
                ins = [draw(r, *shape, dtype=dtype), draw(r, *skip, dtype=dtype), draw(r, c, dtype=dtype)]
                out.append(Case(f"{op}{name}_{kind}", op, ins, 1, {"epsilon": 1e-5}, bound))
                ins = ins + [draw(r, c, dtype=dtype) for _ in range(2 if beta else 1)]
                case = Case(f"{op}{name}_bias_{kind}", op, ins, 4, {}, bound)
                out.append(case)
        for name, axis, scale in (("", -1, (c,)), ("_axis1", 1, (s, c)), ("_axis1_last", 1, (c,)), ("_one", -1, (1,)), ("_wide", -1, (b, 1, c))):
            r = rng(f"simplified{name}{kind}")
            ins = [draw(r, b, s, c, dtype=dtype), draw(r, *scale, dtype=dtype)]
            bound_here = norm_bound(c * s)
            out.append(Case(f"simplified{name}_{kind}", "SimplifiedLayerNormalization", ins, 2, {"axis": axis}, bound_here, domain=""))
    r = rng("simplified mixed")
    ins = [draw(r, b, s, c, dtype=np.float16), draw(r, c)]
    out.append(Case("simplified_half_x", "SimplifiedLayerNormalization", ins, 1, {}, norm_bound(c), domain=""))
    ins = [draw(r, b, s, c, dtype=np.float64), draw(r, c, dtype=np.float64)]
    out.append(Case("simplified_float64", "SimplifiedLayerNormalization", ins, 2, {"epsilon": 0.01}, norm_bound(c), domain=""))
    words, places, segments = draw(r, 9, c), draw(r, 5, c), draw(r, 2, c)
    ids, kinds = ints(r, 0, 9, b, s), ints(r, 0, 2, b, s)
    gamma, beta, mask = draw(r, c), draw(r, c), ints(r, 0, 3, b, s)
    bound = norm_bound(c)
    for name, ins, n in (
        ("all", [ids, kinds, words, places, segments, gamma, beta, mask, ints(r, 0, 5, b, s)], 3),
        ("positions_of_one", [ids, kinds, words, places, segments, gamma, beta, None, ints(r, 0, 5, 1, s)], 3),
        ("no_mask", [ids, kinds, words, places, segments, gamma, beta], 2),
        ("no_segments", [ids, None, words, places, None, gamma, beta, mask], 2),
        ("segments_unused", [ids, None, words, places, segments, gamma, beta, mask], 2),
    ):
        out.append(Case(f"embed_{name}", "EmbedLayerNormalization", ins, n, {"epsilon": 1e-3}, bound))
    return out


def rotary() -> list[Case]:
    """`RotaryEmbedding`: packed and not, in part, interleaved, halves, a position for all."""
    out = []
    b, s, n, h = 2, 3, 2, 8
    for dtype in (np.float32, np.float16):
        for interleaved in (0, 1):
            r = rng(f"rotary {np.dtype(dtype).name} {interleaved}")
            angles = r.uniform(0, 6, (10, h // 2))
            turn = [np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)]
            part = [t[:, :2].copy() for t in turn]
            each, first = ints(r, 0, 10, b, s, dtype=np.int64), np.array([4], np.int64)
            few = {"num_heads": n, "rotary_embedding_dim": 4}
            for name, shape, at, caches, attrs in (
                ("packed", (b, s, n * h), each, turn, {}),
                ("from", (b, s, n * h), first, turn, {}),
                ("four_axes", (b, n, s, h), each, turn, {}),
                ("part", (b, s, n * h), each, part, few),
                ("part_four_axes", (b, n, s, h), each, part, few),
                ("narrow", (b, s, n * h), each, part, {}),
                ("heads", (b, s, n * h), each, turn, {"num_heads": n, "scale": 2.0}),
            ):
                ins = [draw(r, *shape, dtype=dtype), at, *caches]
                kind = f"{name}_{np.dtype(dtype).name}_{interleaved}"
                out.append(Case(f"rotary_{kind}", "RotaryEmbedding", ins, 1, {**attrs, "interleaved": interleaved}, sum_bound(2)))
    return out


def activations() -> list[Case]:
    """A few roundings of exp, tanh or erf, each good to some units in the last place."""
    out = []
    bound = 16 * 2.0**-24
    for op, bias in (("Gelu", None), ("FastGelu", False), ("FastGelu", True), ("BiasGelu", True), ("QuickGelu", None)):
        r = rng(f"{op} {bias}")
        ins = [3 * draw(r, 3, 4, 5), *([draw(r, 5)] if bias else [])]
        out.append(Case(f"{op}{'_bias' if bias else ''}", op, ins, 1, {}, 4 * bound))
    out.append(Case("QuickGelu_alpha", "QuickGelu", [3 * draw(rng("quick"), 7)], 1, {"alpha": -0.5}, 4 * bound))
    special = np.array([-np.inf, np.inf, np.nan, -200.0, 0.0], np.float32)
    out += [Case(f"{op}_special", op, [special], 1, {}, bound) for op in ("Gelu", "FastGelu", "QuickGelu")]
    return out


def products() -> list[Case]:
    """Small whole numbers: products and convolutions are exact, what follows is not always."""
    out = []
    r = rng("products")
    a, b = whole(r, 2, 3, 4, 5), whole(r, 2, 3, 5, 6)
    swap = lambda x: np.swapaxes(x, -1, -2).copy()
    first = lambda x: np.moveaxis(x, -2, 0).copy()
    for name, ins, attrs in (
        ("plain", [a, b], {}),
        ("alpha", [a, b], {"alpha": 0.5}),
        ("trans", [swap(a), swap(b)], {"transA": 1, "transB": 1}),
        ("batch", [first(a), first(b)], {"transBatchA": 1, "transBatchB": 1}),
        ("both", [first(swap(a)), first(swap(b))], {"transA": 1, "transB": 1, "transBatchA": 1, "transBatchB": 1}),
        ("broadcast", [whole(r, 2, 3, 4), whole(r, 4, 3)], {"alpha": -2.0}),
        ("vector_a", [whole(r, 4), whole(r, 4, 3)], {"transA": 1}),
        ("vector_b", [whole(r, 2, 4), whole(r, 4)], {"transB": 1}),
        ("float64", [a.astype(np.float64), b.astype(np.float64)], {"alpha": 0.5}),
        ("one", [whole(r, 1, 1), whole(r, 1, 1)], {}),
    ):
        out.append(Case(f"fused_mat_mul_{name}", "FusedMatMul", ins, 1, attrs))
    out.append(Case("transpose_mat_mul", "TransposeMatMul", [swap(a), b], 1, {"transA": 1}))
    x, w, c = whole(r, 3, 4), whole(r, 4, 5), whole(r, 5)
    for act, params in (
        ("Relu", {}),
        ("LeakyRelu", {"activation_alpha": 0.25}),
        ("ThresholdedRelu", {"activation_alpha": 0.5}),
        ("Elu", {"activation_alpha": 0.75}),
        ("HardSigmoid", {"activation_alpha": 0.25, "activation_beta": 0.5}),
        ("Tanh", {}),
        ("Sigmoid", {}),
        ("Softplus", {}),
        ("Softsign", {}),
    ):
        exact = act in ("Relu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid")
        bound = 0.0 if exact else 16 * 2.0**-24
        attrs = {"activation": act, **params}
        out.append(Case(f"fused_gemm_{act}", "FusedGemm", [x, w, c], 1, attrs, bound))
        case = Case(f"fused_gemm_{act}_trans", "FusedGemm", [swap(x), swap(w)], 1, {**attrs, "transA": 1, "transB": 1, "alpha": 0.5}, bound)
        out.append(case)
    # x is 2 groups of 2 channels, 6 high and 5 wide
    x, w, c, z = whole(r, 2, 4, 6, 5), whole(r, 6, 2, 3, 2), whole(r, 6), whole(r, 2, 6, 3, 4)
    conv = {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 0]}
    for act, params in (
        ("Relu", None),
        ("LeakyRelu", [0.25]),
        ("Clip", [-2.0, 3.5]),
        ("HardSigmoid", [0.25, 0.5]),
        ("HardSwish", None),
        ("Tanh", None),
        ("Sigmoid", None),
    ):
        exact = act in ("Relu", "LeakyRelu", "Clip", "HardSigmoid")
        attrs = {**conv, "activation": act, **({"activation_params": params} if params else {})}
        bound = 0.0 if exact else 400 * 2.0**-24 if act == "HardSwish" else 16 * 2.0**-24
        for name, ins in (("", [x, w, c]), ("_z", [x, w, c, z]), ("_z_only", [x, w, None, z]), ("_bare", [x, w])):
            out.append(Case(f"fused_conv_{act}{name}", "FusedConv", ins, 1, attrs, bound))
    out.append(Case("fused_conv_none", "FusedConv", [x, w, c], 1, conv))
    m = draw(r, 3, 4, 4) + 4 * np.eye(4, dtype=np.float32)
    # well conditioned: the elimination multiplies roundings by no more than a small factor
    out.append(Case("inverse", "Inverse", [m], 1, {}, 64 * 2.0**-24))
    out.append(Case("inverse_half", "Inverse", [m.astype(np.float16)], 1, {}, 2.0**-10))
    out.append(Case("inverse_double", "Inverse", [m.astype(np.float64)], 1, {}, 64 * 2.0**-53))
    out.append(Case("inverse_none", "Inverse", [np.zeros((0, 3, 3), np.float32)]))
    return out


def pack(q: np.ndarray, bits: int) -> np.ndarray:
    """Elements along the last axis into bytes, the first one into the lowest bits."""
    per = 8 // bits
    q = q.reshape(*q.shape[:-1], -1, per).astype(np.uint32)
    return sum(q[..., i] << (bits * i) for i in range(per)).astype(np.uint8)


def quantised_weights() -> list[Case]:
    """`MatMulNBits`: small integers and scales that are powers of two, so that sums are exact. A group index together
    with packed zero points, or with 2 or 8 bits, is not compared: there ONNX Runtime's CPU kernel does not do what its
    text says (docs/edge-cases.md)."""
    out = []
    n, k = 5, 40
    for bits in (2, 4, 8):
        for block in (16, 32, 64):
            r = rng(f"nbits {bits} {block}")
            blocks = -(-k // block)
            b = pack(r.integers(0, 2**bits, (n, blocks, block)), bits)
            scales = 2.0 ** r.integers(-2, 2, (n, blocks)).astype(np.float32)
            zeros = np.zeros((n, -(-blocks * bits // 8) * 8 // bits), int)
            zeros[:, :blocks] = r.integers(0, 2**bits, (n, blocks))
            zeros = pack(zeros, bits)
            a, bias = whole(r, 2, 3, k), whole(r, n)
            attrs = {"bits": bits, "block_size": block, "N": n, "K": k}
            name = f"nbits{bits}_{block}"
            out.append(Case(name, "MatMulNBits", [a, b, scales], 1, attrs))
            out.append(Case(f"{name}_zeros", "MatMulNBits", [a, b, scales, zeros, None, bias], 1, attrs))
            out.append(Case(f"{name}_flat", "MatMulNBits", [a[0], b, scales.reshape(-1), zeros.reshape(-1)], 1, attrs))
            if bits < 8:
                floats = r.integers(-8, 9, (n, blocks)).astype(np.float32) / 4
                out.append(Case(f"{name}_float_zeros", "MatMulNBits", [a, b, scales, floats], 1, attrs))
            half = [a.astype(np.float16), b, scales.astype(np.float16), zeros]
            # halves of sums of 40 products up to 4 * 256 * 2: one rounding each
            out.append(Case(f"{name}_half", "MatMulNBits", half, 1, attrs, 0.0))
            if bits == 4:
                group = ints(r, 0, blocks, k)
                out.append(Case(f"{name}_group", "MatMulNBits", [a, b, scales, None, group], 1, attrs))
                out.append(Case(f"{name}_group_float_zeros", "MatMulNBits", [a, b, scales, floats, group], 1, attrs))
    return out


def quantised_tables() -> list[Case]:
    """`GatherBlockQuantized` of bytes: small integers and scales that are powers of two."""
    out = []
    rows, columns = 3, 48
    indices = np.array([[0, 2, 7], [-1, 1, -9]], np.int64)
    for bits in (2, 4, 8):
        for block in (16, 32):
            r = rng(f"gather {bits} {block}")
            blocks = -(-columns // block)
            data = pack(r.integers(0, 2**bits, (rows, columns)), bits)
            zeros = np.zeros((rows, -(-blocks * bits // 8) * 8 // bits), int)
            zeros[:, :blocks] = r.integers(0, 2**bits, (rows, blocks))
            scales = 2.0 ** r.integers(-2, 2, (rows, blocks)).astype(np.float32)
            attrs = {"bits": bits, "block_size": block, "quantize_axis": 1}
            name = f"gather_quantized{bits}_{block}"
            out.append(Case(name, "GatherBlockQuantized", [data, indices, scales], 1, attrs))
            out.append(Case(f"{name}_zeros", "GatherBlockQuantized", [data, indices, scales, pack(zeros, bits)], 1, attrs))
            half = [data, indices.astype(np.int32), scales.astype(np.float16), pack(zeros, bits)]
            out.append(Case(f"{name}_half", "GatherBlockQuantized", half, 1, attrs))
    return out


def quantisation() -> list[Case]:
    """`QuantizeLinear`, `DequantizeLinear`, `QLinearSoftmax`, `QLinearWhere`, `QLinearConv` of this domain."""
    out = []
    scales = np.array([0.5, 1.0, 2.0], np.float32)
    for dtype in (np.uint8, np.int8, np.uint16, np.int16):
        r = rng(f"quantise {np.dtype(dtype).name}")
        info, kind = np.iinfo(dtype), np.dtype(dtype).name
        x = (draw(r, 2, 3, 4) * info.max).astype(np.float32)
        q = r.integers(info.min, info.max + 1, (2, 3, 4)).astype(dtype)
        one, zero, zeros = np.array(0.75, np.float32), np.array(3, dtype), np.array([1, 2, 3], dtype)
        for name, attrs, s, z in (("tensor", {}, one, zero), ("axis", {"axis": 1}, scales, zeros), ("axis_default", {}, scales, zeros), ("axis_negative", {"axis": -2}, scales, zeros), ("vector_of_one", {}, scales[:1], zeros[:1])):
            out.append(Case(f"quantize_{kind}_{name}", "QuantizeLinear", [x, s, z], 1, attrs))
            out.append(Case(f"dequantize_{kind}_{name}", "DequantizeLinear", [q, s, z], 1, attrs))
    for kind, low in (("INT4", -8), ("UINT4", 0)):
        x = draw(rng(kind), 2, 3, 4) * 12
        zeros = helper.make_tensor("", getattr(TensorProto, kind), [3], [low + 1, low + 5, low + 12])
        back = Case(f"quantize_{kind.lower()}_and_back", "QuantizeLinear", [x, scales, zeros], 1, {"axis": 1})
        back.then = "DequantizeLinear"
        out.append(back)
    out.append(Case("quantize_plain", "QuantizeLinear", [draw(r, 2, 3) * 200, one]))
    out.append(Case("dequantize_int32", "DequantizeLinear", [ints(r, -99, 99, 2, 3), one]))
    for dtype in (np.uint8, np.int8):
        info, kind = np.iinfo(dtype), np.dtype(dtype).name
        for axis, opset in ((-1, 13), (1, 13), (1, 12), (0, 12), (-1, 12)):
            r = rng(f"softmax {kind} {axis} {opset}")
            q = r.integers(info.min, info.max + 1, (2, 3, 5)).astype(dtype)
            s, y = np.array(0.05, np.float32), np.array(1 / 256, np.float32)
            ins = [q, s, np.array(7, dtype), y, np.array(info.min, dtype)]
            attrs = {"axis": axis, "opset": opset}
            # ONNX Runtime looks exponentials up in a table of integers: a value near a half goes either way
            out.append(Case(f"q_linear_softmax_{kind}_{axis}_{opset}", "QLinearSoftmax", ins, 1, attrs, 1.0))
        r = rng(f"where {kind}")
        x, y = (r.integers(info.min, info.max + 1, shape).astype(dtype) for shape in ((2, 1, 3), (4, 1)))
        choose = r.integers(0, 2, (4, 3)).astype(bool)
        f = lambda v: np.array(v, np.float32)
        ins = [choose, x, f(0.5), np.array(3, dtype), y, f(0.25), np.array(5, dtype), f(0.75), np.array(9, dtype)]
        out.append(Case(f"q_linear_where_{kind}", "QLinearWhere", ins))
        q = r.integers(info.min, info.max + 1, (1, 4, 6, 5)).astype(dtype)
        w = r.integers(info.min, info.max + 1, (6, 2, 3, 2)).astype(dtype)
        mid = np.array((info.min + info.max + 1) // 2, dtype)
        ins = [q, f(0.5), mid, w, f(0.25), mid, f(64.0), mid, ints(r, -999, 999, 6)]
        out.append(Case(f"q_linear_conv_{kind}", "QLinearConv", ins, 1, {"group": 2, "strides": [2, 1], "pads": [1, 0, 1, 0]}))
    return out


def neighbours() -> list[Case]:
    """Small operators beside those of ai.onnx."""
    r = rng("neighbours")
    x = whole(r, 2, 3, 4)
    i64 = lambda *v: np.array(v, np.int64)
    f = lambda v: np.array(v, np.float32)
    image, grid = draw(r, 2, 3, 5, 4), 1.2 * draw(r, 2, 3, 2, 2)
    out = [Case(f"expand_dims_{a}", "ExpandDims", [x, np.array(a, np.int32)]) for a in (-4, -3, -1, 0, 2, 3)]
    out += [
        Case("gather_nd", "GatherND", [x, i64([0, 1], [1, -1])]),
        Case("gather_nd_int32", "GatherND", [x, np.array([[1, 2, 3]], np.int32)]),
        Case("n_gram_3", "NGramRepeatBlock", [np.array([[1, 2, 3, 1, 2], [4, 4, 4, 4, 4]], np.int64), draw(r, 2, 6)], 1, {"ngram_size": 3}),
        Case("n_gram_1", "NGramRepeatBlock", [i64([1, 2]), draw(r, 1, 6)], 1, {"ngram_size": 1}),
        Case("n_gram_long", "NGramRepeatBlock", [i64([1, 2]), draw(r, 1, 6)], 1, {"ngram_size": 5}),
        Case("pad", "Pad", [x, i64(0, 1, 2, 0, 3, 1), f(7)]),
        Case("pad_plain", "Pad", [x, i64(0, 1, -1, 0, 0, 1)]),
        Case("pad_edge", "Pad", [x, i64(0, 1, 2, 0, 3, 1)], 1, {"mode": "edge"}),
        Case("pad_reflect", "Pad", [x, i64(0, 1, 2, 0, 2, 1)], 1, {"mode": "reflect"}),
        Case("range", "Range", [f(1), f(5), f(1.5)]),
        Case("range_of_two", "Range", [i64(2).reshape(()), i64(6).reshape(())]),
        Case("range_down", "Range", [np.array(5, np.int32), np.array(-2, np.int32), np.array(-3, np.int32)]),
        Case("trilu", "Trilu", [x], 1, {"upper": 0}),
        Case("trilu_k", "Trilu", [x, i64(1).reshape(())]),
        Case("unfold_last", "UnfoldTensor", [x], 1, {"size": 2}),
        Case("unfold_axis", "UnfoldTensor", [whole(r, 7, 2)], 1, {"dim": 0, "size": 3, "step": 2}),
        Case("unique", "Unique", [np.array([3, 1, 3, 2, 1], np.float32)], 3),
        # a weighted mean of four (or sixteen) pixels
        Case("grid_sample", "GridSample", [image, grid], 1, {}, sum_bound(16)),
        Case("grid_sample_corners", "GridSample", [image, grid], 1, {"align_corners": 1, "padding_mode": "border"}, sum_bound(16)),
        Case("grid_sample_nearest", "GridSample", [image, grid], 1, {"mode": "nearest", "padding_mode": "reflection"}),
    ]
    return out


def accepted() -> list[Case]:
    """Every case that ONNX Runtime computes."""
    return [
        *attention(),
        *multi_head_attention(),
        *group_query_attention(),
        *normalisation(),
        *rotary(),
        *activations(),
        *products(),
        *quantised_weights(),
        *quantised_tables(),
        *quantisation(),
        *neighbours(),
    ]


def refused() -> list[Case]:
    """Ranks, heads, masks, pasts, indices that do not fit."""
    r = rng("refused")
    d = lambda *shape: draw(r, *shape)
    one = lambda *v: np.array(v, np.int32)
    heads = {"num_heads": 2}
    group = {"num_heads": 4, "kv_num_heads": 2}
    gqa = [d(1, 3, 64), d(1, 3, 32), d(1, 3, 32), None, None, one(2), one(3)]
    put = lambda values, **at: [at.get(f"i{i}", v) for i, v in enumerate(values)]
    mha = [d(1, 3, 8), d(1, 5, 8), d(1, 5, 8)]
    att = [d(1, 3, 5), d(5, 24), d(24)]
    rot = [d(1, 3, 16), np.array([[0, 1, 2]], np.int64), d(4, 4), d(4, 4)]
    bits = {"bits": 4, "block_size": 16, "N": 3, "K": 32}
    nbits = [d(2, 32), np.zeros((3, 2, 8), np.uint8), d(3, 2)]
    embed = [one([0, 1]), one([0, 1]), d(3, 4), d(2, 4), d(2, 4), d(4), d(4)]
    return [
        Case("attention_heads", "Attention", att, 1, {"num_heads": 3}),
        Case("attention_rank", "Attention", put(att, i0=d(3, 5)), 1, heads),
        Case("attention_weights", "Attention", put(att, i1=d(4, 24)), 1, heads),
        Case("attention_mask_length", "Attention", [*att, one([1, 1])], 1, heads),
        Case("attention_negative_end", "Attention", [*att, one(-1)], 1, heads),
        Case("attention_past_and_bias", "Attention", [*att, None, d(2, 1, 2, 2, 4), d(1, 2, 3, 5)], 1, heads),
        Case("attention_past_heads", "Attention", [*att, None, d(2, 1, 3, 2, 4)], 1, heads),
        Case("attention_rotary", "Attention", att, 1, {**heads, "do_rotary": 1}),
        Case("mha_packed", "MultiHeadAttention", [d(1, 3, 2, 3, 4)], 1, heads),
        Case("mha_hidden", "MultiHeadAttention", put(mha, i1=d(1, 5, 6)), 1, heads),
        Case("mha_mask", "MultiHeadAttention", [*mha, None, one([1, 1])], 1, heads),
        Case("mha_past_alone", "MultiHeadAttention", [*mha, None, None, None, d(1, 2, 2, 4)], 1, heads),
        Case("mha_past_size", "MultiHeadAttention", [*mha, None, None, None, d(1, 2, 2, 3), d(1, 2, 2, 3)], 1, heads),
        Case("mha_bias_shape", "MultiHeadAttention", [*mha, None, None, d(1, 2, 3, 4)], 1, heads),
        Case("gqa_heads", "GroupQueryAttention", gqa, 1, {"num_heads": 4, "kv_num_heads": 3}),
        Case("gqa_value", "GroupQueryAttention", put(gqa, i2=None), 1, group),
        Case("gqa_key_length", "GroupQueryAttention", put(gqa, i1=d(1, 2, 32)), 1, group),
        Case("gqa_total_short", "GroupQueryAttention", put(gqa, i6=one(2)), 1, group),
        Case("gqa_total_long", "GroupQueryAttention", put(gqa, i6=one(9)), 1, group),
        Case("gqa_seqlens_long", "GroupQueryAttention", put(gqa, i5=one(3)), 1, group),
        Case("gqa_seqlens_negative", "GroupQueryAttention", put(gqa, i5=one(-1)), 1, group),
        Case("gqa_past_alone", "GroupQueryAttention", put(gqa, i3=d(1, 2, 2, 16)), 1, group),
        Case("gqa_rotary_without_caches", "GroupQueryAttention", gqa, 1, {**group, "do_rotary": 1}),
        Case("gqa_window_not_causal", "GroupQueryAttention", gqa, 1, {**group, "causal": 0, "local_window_size": 2}),
        Case("gqa_causal_two", "GroupQueryAttention", gqa, 1, {**group, "causal": 2}),
        Case("skip_epsilon", "SkipLayerNormalization", [d(2, 3, 4), d(2, 3, 4), d(4)], 1, {"epsilon": -1.0}),
        Case("skip_rank", "SkipLayerNormalization", [d(2, 3, 4), d(4), d(4)]),
        Case("skip_broadcast", "SkipLayerNormalization", [d(2, 3, 4), d(2, 1, 4), d(4)]),
        Case("skip_gamma", "SkipSimplifiedLayerNormalization", [d(2, 3, 4), d(2, 3, 4), d(3)]),
        Case("simplified_scale", "SimplifiedLayerNormalization", [d(2, 3, 4), d(12)], 1, {"axis": 1}, domain=""),
        Case("embed_id", "EmbedLayerNormalization", put(embed, i0=one([0, 3])), 2),
        Case("embed_place", "EmbedLayerNormalization", put(embed, i3=d(1, 4)), 2),
        Case("embed_segments", "EmbedLayerNormalization", put(embed, i4=None), 2),
        Case("rotary_position", "RotaryEmbedding", put(rot, i1=np.array([[0, 1, 4]], np.int64))),
        Case("rotary_negative", "RotaryEmbedding", put(rot, i1=np.array([[0, -1, 2]], np.int64))),
        Case("rotary_from", "RotaryEmbedding", put(rot, i1=np.array([2], np.int64))),
        Case("rotary_caches", "RotaryEmbedding", put(rot, i2=d(4, 3), i3=d(4, 3)), 1, {"num_heads": 2}),
        Case("rotary_dim_without_heads", "RotaryEmbedding", rot, 1, {"rotary_embedding_dim": 4}),
        Case("bias_gelu", "BiasGelu", [d(2, 3), d(2)]),
        Case("fast_gelu", "FastGelu", [d(2, 3), d(1, 3)]),
        Case("fused_mat_mul_batch_of_two_axes", "FusedMatMul", [d(2, 4), d(4, 3)], 1, {"transBatchA": 1}),
        Case("fused_mat_mul_inner", "FusedMatMul", [d(2, 4), d(4, 3)], 1, {"transA": 1}),
        Case("fused_gemm_none", "FusedGemm", [d(2, 4), d(4, 3)]),
        Case("fused_gemm_param", "FusedGemm", [d(2, 4), d(4, 3)], 1, {"activation": "LeakyRelu"}),
        Case("fused_conv_name", "FusedConv", [d(1, 1, 3), d(1, 1, 2)], 1, {"activation": "Swish"}),
        Case("fused_conv_clip", "FusedConv", [d(1, 1, 3, 3), d(1, 1, 2, 2)], 1, {"activation": "Clip"}),
        Case("fused_conv_z", "FusedConv", [d(1, 1, 3, 3), d(1, 1, 2, 2), None, d(1, 1, 1, 1)], 1, {"activation": "Relu"}),
        Case("nbits_bits", "MatMulNBits", nbits, 1, {**bits, "bits": 3}),
        Case("nbits_block", "MatMulNBits", nbits, 1, {**bits, "block_size": 8}),
        Case("nbits_weights", "MatMulNBits", put(nbits, i1=np.zeros((3, 1, 8), np.uint8)), 1, bits),
        Case("nbits_scales", "MatMulNBits", put(nbits, i2=d(3, 1)), 1, bits),
        Case("nbits_inner", "MatMulNBits", put(nbits, i0=d(2, 31)), 1, bits),
        Case("nbits_group", "MatMulNBits", [*nbits, None, np.full(32, 2, np.int32)], 1, bits),
        Case("gather_quantized_axis", "GatherBlockQuantized", [np.zeros((2, 16), np.uint8), one(0), d(2, 2)], 1, {"block_size": 16, "gather_axis": 1}),
        Case("gather_quantized_scales", "GatherBlockQuantized", [np.zeros((2, 16), np.uint8), one(0), d(2, 1)], 1, {"block_size": 16}),
        Case("inverse_square", "Inverse", [d(2, 3)]),
        Case("inverse_rank", "Inverse", [d(3)]),
        Case("expand_dims_axis", "ExpandDims", [d(2, 3), np.array(3, np.int32)]),
        Case("n_gram_token", "NGramRepeatBlock", [np.array([[1, 9, 1]], np.int64), d(1, 6)], 1, {"ngram_size": 2}),
        Case("unique_rank", "Unique", [d(2, 3)], 3),
        Case("quantize_axis", "QuantizeLinear", [d(2, 3), np.ones(2, np.float32), np.zeros(2, np.uint8)], 1, {"axis": 1}),
    ]
