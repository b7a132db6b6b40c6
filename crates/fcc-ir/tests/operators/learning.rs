//! `optimizer` and `loss`.
use crate::{check, refuse};

#[test]
fn steps_of_optimizers() {
    let given = "float r = {0.5}, int64 t = {0}, float[2] x = {1.0, 2.0}, float[2] g = {3.0, -4.0}, float[2] h = {16.0, 9.0}, float[2] v = {2.0, 1.0}";
    let d = "ai.onnx.preview.training";
    let node = |text: &str| -> &'static str { text.replace("@", d).leak() };
    check(&[
        // h = 16 + 9, 9 + 16; x - r g / (sqrt(h) + epsilon)
        (
            13,
            given,
            node("y, z = @.Adagrad <epsilon = 0.0> (r, t, x, g, h)"),
            "float[2] y = {0.7, 2.4}, float[2] z = {25.0, 25.0}",
        ),
        // the rate decays by 1 + t * decay_factor
        (
            13,
            "float r = {0.5}, int64 t = {4}, float[1] x = {1.0}, float[1] g = {3.0}, float[1] h = {16.0}",
            node("y, z = @.Adagrad <epsilon = 0.0, decay_factor = 0.25> (r, t, x, g, h)"),
            "float[1] y = {0.85}, float[1] z = {25.0}",
        ),
        // v = alpha v + g at the first step, then alpha v + beta g
        (
            13,
            given,
            node(
                "y, z = @.Momentum <alpha = 0.5, beta = 10.0, norm_coefficient = 0.0, mode = \"standard\"> (r, t, x, g, v)",
            ),
            "float[2] y = {-1.0, 3.75}, float[2] z = {4.0, -3.5}",
        ),
        (
            13,
            "float r = {0.5}, int64 t = {1}, float[1] x = {1.0}, float[1] g = {3.0}, float[1] v = {2.0}",
            node(
                "y, z = @.Momentum <alpha = 0.5, beta = 2.0, norm_coefficient = 1.0, mode = \"nesterov\"> (r, t, x, g, v)",
            ),
            // g = 1 * 1 + 3, v = 1 + 8, x - r (g + alpha v)
            "float[1] y = {-3.25}, float[1] z = {9.0}",
        ),
        // t = 0: the rate as it is; v and h without their corrections
        (
            13,
            "float r = {0.5}, int64 t = {0}, float[1] x = {1.0}, float[1] g = {2.0}, float[1] v = {4.0}, float[1] h = {12.0}",
            node("y, z, w = @.Adam <alpha = 0.5, beta = 0.5, epsilon = 0.0> (r, t, x, g, v, h)"),
            // v = 2 + 1, h = 6 + 2, x - 0.5 * 3 / sqrt(8)
            "float[1] y = {0.46966994}, float[1] z = {3.0}, float[1] w = {8.0}",
        ),
    ]);
    refuse(&[
        (13, given, node("y = @.Adagrad (r, t, x, g)"), "number of inputs"),
        (
            13,
            given,
            node(
                "y = @.Momentum <alpha = 0.5, beta = 1.0, norm_coefficient = 0.0, mode = \"fast\"> (r, t, x, g, v)",
            ),
            "mode",
        ),
        (
            13,
            "float r = {0.5}, int64 t = {0}, float[1] x = {1.0}, float[2] g = {2.0, 1.0}, float[1] h = {12.0}",
            node("y = @.Adagrad (r, t, x, g, h)"),
            "gradient",
        ),
    ]);
}

#[test]
fn losses() {
    let given = "float[2,3] x = {-1.0, -2.0, -3.0, -4.0, -5.0, -6.0}, int64[2] t = {1, 0}, float[3] w = {1.0, 3.0, 5.0}";
    check(&[
        (22, given, "y = NegativeLogLikelihoodLoss <reduction = \"none\"> (x, t)", "float[2] y = {2.0, 4.0}"),
        (13, given, "y = NegativeLogLikelihoodLoss <reduction = \"sum\"> (x, t, w)", "float y = {10.0}"),
        // the mean by the sum of the weights that counted: (2 * 3 + 4 * 1) / 4
        (12, given, "y = NegativeLogLikelihoodLoss (x, t, w)", "float y = {2.5}"),
        (13, given, "y = NegativeLogLikelihoodLoss <ignore_index = 0> (x, t)", "float y = {2.0}"),
        // a place behind the classes: [N, C, d]
        (
            13,
            "float[1,2,2] x = {-1.0, -2.0, -3.0, -4.0}, int64[1,2] t = {0, 1}",
            "y = NegativeLogLikelihoodLoss <reduction = \"none\"> (x, t)",
            "float[1,2] y = {1.0, 4.0}",
        ),
        // of equal scores: ln 2; of scores ln 3 apart: ln(4 / 3)
        (
            13,
            "float[2,2] x = {1.0, 1.0, 1.0986123, 0.0}, int32[2] t = {1, 0}",
            "y, z = SoftmaxCrossEntropyLoss <reduction = \"none\"> (x, t)",
            "float[2] y = {0.6931472, 0.2876821}, float[2,2] z = {-0.6931472, -0.6931472, -0.2876821, -1.3862944}",
        ),
    ]);
    refuse(&[
        (13, given, "y = NegativeLogLikelihoodLoss <reduction = \"max\"> (x, t)", "reduction"),
        (
            13,
            "float[1,2] x = {-1.0, -2.0}, int64[1] t = {2}",
            "y = NegativeLogLikelihoodLoss (x, t)",
            "label: got 2",
        ),
        (
            13,
            "float[1,2] x = {-1.0, -2.0}, int64[2] t = {0, 1}",
            "y = SoftmaxCrossEntropyLoss (x, t)",
            "labels",
        ),
    ]);
}
