//! `lrn`, `roi`, `instance_normalization`, `global_pool`, `conv`, `deform_conv`, `center_crop_pad`, `max_unpool`,
//! `lp_normalization`, `col2im`, `det`.
use crate::{check, refuse};

#[test]
fn convolutions() {
    // rows 0 1 2 / 3 4 5 / 6 7 8
    let x = "float[1,1,3,3] x = {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}, float[1,1,2,2] w = {1.0, 2.0, 3.0, 4.0}, float[1] b = {-10.0}";
    check(&[
        (22, x, "y = Conv (x, w)", "float[1,1,2,2] y = {27.0, 37.0, 57.0, 67.0}"),
        (11, x, "y = Conv <kernel_shape = [2, 2]> (x, w, b)", "float[1,1,2,2] y = {17.0, 27.0, 47.0, 57.0}"),
        (
            11,
            x,
            "y = Conv <strides = [2, 1], pads = [1, 0, 0, 1]> (x, w)",
            "float[1,1,2,3] y = {4.0, 11.0, 6.0, 57.0, 67.0, 29.0}",
        ),
        (11, x, "y = Conv <dilations = [2, 2]> (x, w)", "float[1,1,1,1] y = {54.0}"),
        // SAME_UPPER: the odd zero behind, SAME_LOWER: before
        (
            11,
            x,
            "y = Conv <auto_pad = \"SAME_UPPER\", strides = [2, 2]> (x, w)",
            "float[1,1,2,2] y = {27.0, 17.0, 20.0, 8.0}",
        ),
        (
            11,
            x,
            "y = Conv <auto_pad = \"SAME_LOWER\", strides = [2, 2]> (x, w)",
            "float[1,1,2,2] y = {0.0, 11.0, 30.0, 67.0}",
        ),
        // groups: each channel with its own weight; one axis
        (
            11,
            "float[1,2,3] x = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, float[2,1,2] w = {1.0, 1.0, 1.0, -1.0}",
            "y = Conv <group = 2> (x, w)",
            "float[1,2,2] y = {3.0, 5.0, -1.0, -1.0}",
        ),
        (
            11,
            "float[0,1,3,3] x = {}, float[2,1,2,2] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}",
            "y = Conv (x, w)",
            "float[0,2,2,2] y = {}",
        ),
    ]);
    refuse(&[
        (
            11,
            "float[1,2,3] x = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, float[2,2,2] w = {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0}",
            "y = Conv <group = 2> (x, w)",
            "channels",
        ),
        (11, x, "y = Conv <strides = [0, 1]> (x, w)", "strides"),
        (11, x, "y = Conv <kernel_shape = [3, 3]> (x, w)", "kernel_shape"),
        (11, x, "y = Conv <auto_pad = \"SAME\"> (x, w)", "auto_pad"),
    ]);
}

#[test]
fn deformed_convolutions() {
    let x = "float[1,1,3,3] x = {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}, float[1,1,1,1] w = {2.0}";
    let given = |offset: &str, more: &str| -> &'static str {
        format!("{x}, float[1,2,3,3] o = {{{offset}}}{more}").leak()
    };
    // offsets of rows for the nine places, then of columns
    let down =
        given("1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0", "");
    let half = given(
        "0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0",
        ", float[1,1,3,3] m = {1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0}, float[1] b = {1.0}",
    );
    check(&[
        (
            19,
            down,
            "y = DeformConv (x, w, o)",
            "float[1,1,3,3] y = {6.0, 8.0, 10.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0}",
        ),
        // between two columns their mean, with zeros beyond the image; then mask and bias
        (
            22,
            half,
            "y = DeformConv (x, w, o, b, m)",
            "float[1,1,3,3] y = {2.0, 4.0, 3.0, 4.0, 5.0, 6.0, 1.0, 1.0, 1.0}",
        ),
    ]);
    refuse(&[(
        19,
        "float[1,1,3,3] x = {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}, float[1,1,1,1] w = {2.0}, float[1,1,3,3] o = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}",
        "y = DeformConv (x, w, o)",
        "offset",
    )]);
}

#[test]
fn pools_over_everything() {
    let x = "float[1,2,2,2] x = {1.0, -2.0, 3.0, -4.0, 0.0, 0.0, 3.0, 4.0}";
    check(&[
        (22, x, "y = GlobalAveragePool (x)", "float[1,2,1,1] y = {-0.5, 1.75}"),
        (1, x, "y = GlobalMaxPool (x)", "float[1,2,1,1] y = {3.0, 4.0}"),
        (22, x, "y = GlobalLpPool (x)", "float[1,2,1,1] y = {5.477226, 5.0}"),
        (2, x, "y = GlobalLpPool <p = 1> (x)", "float[1,2,1,1] y = {10.0, 7.0}"),
        (
            1,
            "float[1,2,3] x = {1.0, 2.0, 6.0, -1.0, -2.0, -6.0}",
            "y = GlobalAveragePool (x)",
            "float[1,2,1] y = {3.0, -3.0}",
        ),
    ]);
}

#[test]
fn unpooling_puts_values_back() {
    let x = "float[1,1,2,2] x = {1.0, 2.0, 3.0, 4.0}, int64[1,1,2,2] i = {5, 7, 13, 15}, int64[4] s = {1, 1, 5, 5}";
    let back = "0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 4.0";
    let want: &'static str = format!("float[1,1,4,4] y = {{{back}}}").leak();
    check(&[
        (22, x, "y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (x, i)", want),
        (
            11,
            x,
            "y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (x, i, s)",
            "float[1,1,5,5] y = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0}",
        ),
    ]);
    refuse(&[(
        11,
        "float[1,1,2,2] x = {1.0, 2.0, 3.0, 4.0}, int64[1,1,2,2] i = {5, 7, 13, 16}",
        "y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (x, i)",
        "index: got 16",
    )]);
}

#[test]
fn normalisations() {
    check(&[
        // size 3: one channel before, one behind; alpha / size * sum of squares + bias, to the power of beta
        (
            13,
            "float[1,3,1,1] x = {1.0, 2.0, 3.0}",
            "y = LRN <size = 3, alpha = 3.0, beta = 1.0, bias = 1.0> (x)",
            "float[1,3,1,1] y = {0.16666667, 0.13333334, 0.21428572}",
        ),
        // an even size has one channel more behind
        (
            1,
            "float[1,3,1,1] x = {1.0, 2.0, 3.0}",
            "y = LRN <size = 2, alpha = 2.0, beta = 1.0, bias = 1.0> (x)",
            "float[1,3,1,1] y = {0.16666667, 0.14285715, 0.3}",
        ),
        (
            22,
            "float[1,2,2] x = {1.0, 3.0, 2.0, 6.0}, float[2] s = {1.0, 2.0}, float[2] b = {0.0, 10.0}",
            "y = InstanceNormalization <epsilon = 0.0> (x, s, b)",
            "float[1,2,2] y = {-1.0, 1.0, 8.0, 12.0}",
        ),
        // opset 18: a scale for each group; opset 21: for each channel
        (
            18,
            "float[1,2,2] x = {1.0, 3.0, 1.0, 3.0}, float[1] s = {2.0}, float[1] b = {1.0}",
            "y = GroupNormalization <num_groups = 1, epsilon = 0.0> (x, s, b)",
            "float[1,2,2] y = {-1.0, 3.0, -1.0, 3.0}",
        ),
        (
            21,
            "float[1,2,2] x = {1.0, 3.0, 1.0, 3.0}, float[2] s = {2.0, 3.0}, float[2] b = {1.0, 0.0}",
            "y = GroupNormalization <num_groups = 1, epsilon = 0.0> (x, s, b)",
            "float[1,2,2] y = {-1.0, 3.0, -3.0, 3.0}",
        ),
        (
            22,
            "float[2,2] x = {3.0, 4.0, 0.0, 0.0}",
            "y = LpNormalization (x)",
            "float[2,2] y = {0.6, 0.8, 0.0, 0.0}",
        ),
        (
            1,
            "float[2,2] x = {3.0, 4.0, -1.0, 4.0}",
            "y = LpNormalization <axis = 0, p = 1> (x)",
            "float[2,2] y = {0.75, 0.5, -0.25, 0.5}",
        ),
        (
            13,
            "float[1,2,1,2] x = {1.0, 3.0, 2.0, 6.0}",
            "y = MeanVarianceNormalization (x)",
            "float[1,2,1,2] y = {-1.0, 1.0, -1.0, 1.0}",
        ),
        (
            9,
            "float[2,2] x = {1.0, 5.0, 3.0, 9.0}",
            "y = MeanVarianceNormalization <axes = [0]> (x)",
            "float[2,2] y = {-1.0, -1.0, 1.0, 1.0}",
        ),
    ]);
    refuse(&[
        (13, "float[1,3] x = {1.0, 2.0, 3.0}", "y = LRN <size = 0> (x)", "size"),
        (22, "float[2] x = {1.0, 2.0}", "y = LpNormalization <p = 3> (x)", "`p`: got 3"),
        (
            21,
            "float[1,3,1] x = {1.0, 3.0, 1.0}, float[3] s = {2.0, 3.0, 1.0}",
            "y = GroupNormalization <num_groups = 2> (x, s, s)",
            "num_groups",
        ),
    ]);
}

#[test]
fn regions() {
    let x = "float[1,1,4,4] x = {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0}";
    let pooled: &'static str =
        format!("{x}, float[2,5] r = {{0.0, 0.0, 0.0, 3.0, 3.0, 0.0, 1.0, 1.0, 2.0, 2.0}}").leak();
    let aligned: &'static str =
        format!("{x}, float[1,4] r = {{0.0, 0.0, 4.0, 4.0}}, int64[1] i = {{0}}").leak();
    check(&[
        // whole pixels, both ends included
        (
            22,
            pooled,
            "y = MaxRoiPool <pooled_shape = [2, 2]> (x, r)",
            "float[2,1,2,2] y = {5.0, 7.0, 13.0, 15.0, 5.0, 6.0, 9.0, 10.0}",
        ),
        (
            1,
            pooled,
            "y = MaxRoiPool <pooled_shape = [1, 1], spatial_scale = 0.5> (x, r)",
            "float[2,1,1,1] y = {10.0, 5.0}",
        ),
        // one sample in the middle of each 2 x 2 bin, half a pixel back
        (
            16,
            aligned,
            "y = RoiAlign <output_height = 2, output_width = 2, sampling_ratio = 1> (x, r, i)",
            "float[1,1,2,2] y = {2.5, 4.5, 10.5, 12.5}",
        ),
        // without the half pixel, as before opset 16
        (
            10,
            aligned,
            "y = RoiAlign <output_height = 2, output_width = 2, sampling_ratio = 1> (x, r, i)",
            "float[1,1,2,2] y = {5.0, 7.0, 13.0, 15.0}",
        ),
    ]);
    refuse(&[(16, aligned, "y = RoiAlign <mode = \"min\"> (x, r, i)", "mode")]);
}

#[test]
fn crops_pads_and_blocks() {
    check(&[
        // an odd difference: one less before
        (
            18,
            "float[5] x = {1.0, 2.0, 3.0, 4.0, 5.0}, int64[1] s = {2}",
            "y = CenterCropPad (x, s)",
            "float[2] y = {2.0, 3.0}",
        ),
        (
            18,
            "int32[2] x = {1, 2}, int64[1] s = {5}",
            "y = CenterCropPad (x, s)",
            "int32[5] y = {0, 1, 2, 0, 0}",
        ),
        (
            18,
            "float[2,3] x = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, int64[1] s = {1}",
            "y = CenterCropPad <axes = [-1]> (x, s)",
            "float[2,1] y = {2.0, 5.0}",
        ),
        // blocks of 1 x 2, one column apart, summed where they overlap
        (
            18,
            "float[1,2,2] x = {1.0, 2.0, 3.0, 4.0}, int64[2] i = {1, 3}, int64[2] b = {1, 2}",
            "y = Col2Im (x, i, b)",
            "float[1,1,1,3] y = {1.0, 5.0, 4.0}",
        ),
        (
            18,
            "float[1,2,2] x = {1.0, 2.0, 3.0, 4.0}, int64[2] i = {1, 2}, int64[2] b = {1, 2}",
            "y = Col2Im <pads = [0, 1, 0, 1], strides = [1, 2]> (x, i, b)",
            "float[1,1,1,2] y = {3.0, 2.0}",
        ),
        (22, "float[2,2] x = {1.0, 2.0, 3.0, 4.0}", "y = Det (x)", "float y = {-2.0}"),
        (
            11,
            "double[2,3,3] x = {0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 5.0, 3.0, 0.0, 7.0, 9.0, 4.0}",
            "y = Det (x)",
            "double[2] y = {-1.0, 24.0}",
        ),
    ]);
    refuse(&[
        (22, "float[2,1] x = {1.0, 2.0}", "y = Det (x)", "square matrices"),
        (
            18,
            "float[1,2,3] x = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, int64[2] i = {1, 3}, int64[2] b = {1, 2}",
            "y = Col2Im (x, i, b)",
            "input",
        ),
        (18, "float[2] x = {1.0, 2.0}, int64[2] s = {1, 1}", "y = CenterCropPad (x, s)", "shape"),
    ]);
}
