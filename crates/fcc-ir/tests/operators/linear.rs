//! `integer`, `rotary_embedding`, `linear_attention`, `flex_attention`, `causal_conv`.
use crate::{check, refuse};

#[test]
fn products_of_integers() {
    check(&[
        (
            10,
            "uint8[1,2] a = {5, 7}, int8[2,2] b = {1, -2, 3, 4}",
            "y = MatMulInteger (a, b)",
            "int32[1,2] y = {26, 18}",
        ),
        // zero points: one for all of a; one for each column of b
        (
            10,
            "uint8[1,2] a = {5, 7}, int8[2,2] b = {1, -2, 3, 4}, uint8 az = {4}, int8[2] bz = {1, -2}",
            "y = MatMulInteger (a, b, az, bz)",
            "int32[1,2] y = {6, 18}",
        ),
        (
            10,
            "uint8[1,1,1,3] x = {3, 5, 9}, int8[1,1,1,2] w = {-1, 2}, uint8 xz = {3}",
            "y = ConvInteger (x, w, xz)",
            "int32[1,1,1,2] y = {4, 10}",
        ),
        // the padding is the zero point
        (
            10,
            "uint8[1,1,1,2] x = {3, 5}, int8[1,1,1,2] w = {-1, 2}, uint8 xz = {3}",
            "y = ConvInteger <pads = [0, 1, 0, 0]> (x, w, xz)",
            "int32[1,1,1,2] y = {0, 4}",
        ),
        // (6, 5) * (1 2 / 3 4) * 0.5 * 2 / 4 + 10, halves to even
        (
            21,
            "uint8[1,2] a = {6, 5}, float as = {0.5}, uint8 az = {0}, int8[2,2] b = {1, 2, 3, 4}, float bs = {2.0}, int8 bz = {0}, float ys = {4.0}, uint8 yz = {10}",
            "y = QLinearMatMul (a, as, az, b, bs, bz, ys, yz)",
            "uint8[1,2] y = {15, 18}",
        ),
        (
            10,
            "uint8[1,1,1,2] x = {4, 250}, float xs = {1.0}, uint8 xz = {0}, uint8[1,1,1,1] w = {3}, float ws = {1.0}, uint8 wz = {1}, float ys = {2.0}, uint8 yz = {1}, int32[1] b = {2}",
            "y = QLinearConv (x, xs, xz, w, ws, wz, ys, yz, b)",
            "uint8[1,1,1,2] y = {6, 252}",
        ),
    ]);
    refuse(&[(
        10,
        "uint8[1,2] a = {5, 7}, int8[3,1] b = {1, 2, 3}",
        "y = MatMulInteger (a, b)",
        "inner extent of B: got 3, wanted 2",
    )]);
}

#[test]
fn rotations() {
    // cos 0, sin 1 at the first place: (a, b) becomes (-b, a); cos 1, sin 0 at the second: as it is
    let caches =
        "float[2,1] c = {0.0, 1.0}, float[2,1] s = {1.0, 0.0}, int64[1,2] p = {0, 1}, int64[1,2] q = {1, 0}";
    let x: &'static str = format!("float[1,1,2,2] x = {{1.0, 2.0, 3.0, 4.0}}, {caches}").leak();
    let packed: &'static str =
        format!("float[1,2,4] x = {{1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}}, {caches}").leak();
    check(&[
        (23, x, "y = RotaryEmbedding (x, c, s, p)", "float[1,1,2,2] y = {-2.0, 1.0, 3.0, 4.0}"),
        (23, x, "y = RotaryEmbedding (x, c, s, q)", "float[1,1,2,2] y = {1.0, 2.0, -4.0, 3.0}"),
        // two heads beside each other
        (
            23,
            packed,
            "y = RotaryEmbedding <num_heads = 2> (x, c, s, p)",
            "float[1,2,4] y = {-2.0, 1.0, -4.0, 3.0, 5.0, 6.0, 7.0, 8.0}",
        ),
        // only the first two elements of a head
        (
            23,
            packed,
            "y = RotaryEmbedding <num_heads = 1, rotary_embedding_dim = 2> (x, c, s, q)",
            "float[1,2,4] y = {1.0, 2.0, 3.0, 4.0, -6.0, 5.0, 7.0, 8.0}",
        ),
        // neighbours or halves
        (
            23,
            "float[1,1,1,4] x = {1.0, 2.0, 3.0, 4.0}, float[1,1,2] c = {0.0, 1.0}, float[1,1,2] s = {1.0, 0.0}",
            "y = RotaryEmbedding (x, c, s)",
            "float[1,1,1,4] y = {-3.0, 2.0, 1.0, 4.0}",
        ),
        (
            23,
            "float[1,1,1,4] x = {1.0, 2.0, 3.0, 4.0}, float[1,1,2] c = {0.0, 1.0}, float[1,1,2] s = {1.0, 0.0}",
            "y = RotaryEmbedding <interleaved = 1> (x, c, s)",
            "float[1,1,1,4] y = {-2.0, 1.0, 3.0, 4.0}",
        ),
    ]);
    refuse(&[
        (23, packed, "y = RotaryEmbedding <num_heads = 3> (x, c, s, p)", "num_heads"),
        (
            23,
            packed,
            "y = RotaryEmbedding <num_heads = 2, rotary_embedding_dim = 3> (x, c, s, p)",
            "even number",
        ),
    ]);
}

#[test]
fn attention_without_softmax() {
    // state S = sum of k v: 2 * 3, then + 1 * 5; y = scale * q S
    let given = "float[1,2,1] q = {1.0, 10.0}, float[1,2,1] k = {2.0, 1.0}, float[1,2,1] v = {3.0, 5.0}, float[1,1,1,1] past = {4.0}, float[1,2,1] decay = {0.0, -0.6931472}, float[1,2,1] beta = {1.0, 0.5}";
    let node = |rule: &str, more: &str| -> &'static str {
        format!("y, s = LinearAttention <q_num_heads = 1, kv_num_heads = 1, scale = 1.0, update_rule = \"{rule}\"> (q, k, v{more})").leak()
    };
    check(&[
        (27, given, node("linear", ""), "float[1,2,1] y = {6.0, 110.0}, float[1,1,1,1] s = {11.0}"),
        (27, given, node("linear", ", past"), "float[1,2,1] y = {10.0, 150.0}, float[1,1,1,1] s = {15.0}"),
        // the state halves before the second token: 6 / 2 + 5
        (27, given, node("gated", ", \"\", decay"), "float[1,2,1] y = {6.0, 80.0}, float[1,1,1,1] s = {8.0}"),
        // S + beta k (v - k S): 0 + 2 * 3, then 6 + 0.5 * 1 * (5 - 6)
        (
            27,
            given,
            node("delta", ", \"\", \"\", beta"),
            "float[1,2,1] y = {6.0, 55.0}, float[1,1,1,1] s = {5.5}",
        ),
    ]);
    refuse(&[
        (27, given, node("linear", ", \"\", decay"), "decay"),
        (27, given, node("delta", ""), "beta"),
        (27, given, node("sum", ""), "update_rule"),
    ]);
}

#[test]
fn attention_with_subgraphs() {
    // scores 0 and 0, so each value counts half
    let given = "float[1,1,1,1] q = {0.0}, float[1,1,2,1] k = {1.0, 2.0}, float[1,1,2,1] v = {3.0, 5.0}, float[2] m = {0.0, -inf}, float two = {2.0}";
    check(&[
        (24, given, "y = ai.onnx.preview.FlexAttention (q, k, v)", "float[1,1,1,1] y = {4.0}"),
        // the second token masked away
        (
            24,
            given,
            "y = ai.onnx.preview.FlexAttention (q, k, v) <score_mod = f (float[1,1,1,2] s) => (float[1,1,1,2] t) { t = Add (s, m) }>",
            "float[1,1,1,1] y = {3.0}",
        ),
        // probabilities doubled
        (
            24,
            given,
            "y = ai.onnx.preview.FlexAttention (q, k, v) <prob_mod = f (float[1,1,1,2] s) => (float[1,1,1,2] t) { t = Mul (s, two) }>",
            "float[1,1,1,1] y = {8.0}",
        ),
    ]);
    refuse(&[(
        24,
        "float[1,2,1,1] q = {0.0, 1.0}, float[1,1,2,1] k = {1.0, 2.0}, float[1,1,1,1] v = {3.0}",
        "y = ai.onnx.preview.FlexAttention (q, k, v)",
        "shapes of Q, K, V",
    )]);
}

#[test]
fn causal_convolutions_carry_their_inputs_on() {
    let given = "float[1,2,3] x = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, float[2,1,2] w = {10.0, 1.0, 0.0, 1.0}, float[2] b = {0.5, -4.0}, float[1,2,1] p = {7.0, 8.0}";
    check(&[
        (
            27,
            given,
            "y, s = CausalConvWithState (x, w)",
            "float[1,2,3] y = {1.0, 12.0, 23.0, 4.0, 5.0, 6.0}, float[1,2,1] s = {3.0, 6.0}",
        ),
        (
            27,
            given,
            "y, s = CausalConvWithState (x, w, b, p)",
            "float[1,2,3] y = {71.5, 12.5, 23.5, 0.0, 1.0, 2.0}, float[1,2,1] s = {3.0, 6.0}",
        ),
        (
            27,
            "float[1,1,2] x = {0.0, 1.0}, float[1,1,1] w = {1.0}",
            "y, s = CausalConvWithState <activation = \"silu\"> (x, w)",
            "float[1,1,2] y = {0.0, 0.7310586}, float[1,1,0] s = {}",
        ),
    ]);
    refuse(&[
        (27, given, "y, s = CausalConvWithState <activation = \"relu\"> (x, w)", "activation"),
        (27, given, "y, s = CausalConvWithState (x, w, p)", "shape of the bias"),
    ]);
}
