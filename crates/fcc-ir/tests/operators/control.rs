//! `control` (If, Loop) and `scan`.
use crate::{check, refuse};

#[test]
fn branches() {
    let nodes = "y, z = If (c) <
        then_branch = t () => (a, b) { a = Add (x, x) b = Identity (x) },
        else_branch = e () => (d, f) { d = Neg (x) f = Shape (x) g = Cast <to = 1> (f) f2 = Identity (g) }>";
    let nodes: &'static str = nodes.replace("(d, f)", "(d, f2)").leak();
    check(&[
        (
            16,
            "bool c = {1}, float[2] x = {1.0, 2.0}",
            nodes,
            "float[2] y = {2.0, 4.0}, float[2] z = {1.0, 2.0}",
        ),
        (
            6,
            "bool[1] c = {0}, float[2] x = {1.0, 2.0}",
            nodes,
            "float[2] y = {-1.0, -2.0}, float[1] z = {2.0}",
        ),
    ]);
    refuse(&[
        (
            16,
            "bool[2] c = {1, 0}, float x = {1.0}",
            "y = If (c) <then_branch = t () => (a) { a = Neg (x) }, else_branch = e () => (b) { b = Abs (x) }>",
            "cond",
        ),
        (
            16,
            "bool c = {1}, float x = {1.0}",
            "y = If (c) <then_branch = t () => (a) { a = Neg (x) }>",
            "else_branch",
        ),
    ]);
}

#[test]
fn loops() {
    // the state doubles; each turn's number is scanned out
    let doubling =
        "y, i = Loop (m, c, x) <body = b (int64 n, bool k, float s) => (bool k2, float s2, int64 o) {
        s2 = Add (s, s)
        k2 = Identity (k)
        o = Identity (n)
    }>";
    // goes on while the state is below 10
    let until = "y, o = Loop (m, c, x) <body = b (int64 n, bool k, float s) => (bool k2, float s2, float t) {
        s2 = Add (s, s)
        k2 = Less (s2, ten)
        t = Identity (s2)
    }>";
    check(&[
        (
            16,
            "int64 m = {3}, bool c = {1}, float x = {1.5}",
            doubling,
            "float y = {12.0}, int64[3] i = {0, 1, 2}",
        ),
        (11, "int64 m = {0}, bool c = {1}, float x = {1.5}", doubling, "float y = {1.5}, int64[0] i = {}"),
        (11, "int64 m = {3}, bool c = {0}, float x = {1.5}", doubling, "float y = {1.5}, int64[0] i = {}"),
        (
            16,
            "int64 m = {100}, bool c = {1}, float x = {1.5}, float ten = {10.0}",
            until,
            "float y = {12.0}, float[3] o = {3.0, 6.0, 12.0}",
        ),
        (
            16,
            "float x = {1.5}, float ten = {10.0}",
            until_without_limit(until),
            "float y = {12.0}, float[3] o = {3.0, 6.0, 12.0}",
        ),
    ]);
    refuse(&[(
        16,
        "int64[2] m = {3, 4}, bool c = {1}, float x = {1.5}",
        "y = Loop (m, c, x) <body = b (int64 n, bool k, float s) => (bool k2, float s2) { s2 = Neg (s) k2 = Identity (k) }>",
        "trip count",
    )]);
}

fn until_without_limit(text: &str) -> &'static str {
    text.replace("Loop (m, c, x)", "Loop (\"\", \"\", x)").leak()
}

#[test]
fn scans() {
    // sums along the rows: the state is what was summed before
    let sum = "y, z = Scan (s, x) <num_scan_inputs = 1, body = b (float[2] a, float[2] r) => (float[2] t, float[2] u) {
        t = Add (a, r)
        u = Identity (t)
    }>";
    let backwards: &'static str = sum
        .replace(
            "num_scan_inputs = 1,",
            "num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1],",
        )
        .leak();
    let columns: &'static str = sum
        .replace(
            "num_scan_inputs = 1,",
            "num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [-1],",
        )
        .leak();
    let x = "float[2] s = {0.0, 10.0}, float[3,2] x = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}";
    check(&[
        (16, x, sum, "float[2] y = {9.0, 22.0}, float[3,2] z = {1.0, 12.0, 4.0, 16.0, 9.0, 22.0}"),
        (9, x, backwards, "float[2] y = {9.0, 22.0}, float[3,2] z = {9.0, 22.0, 8.0, 20.0, 5.0, 16.0}"),
        (
            11,
            "float[2] s = {0.0, 10.0}, float[2,3] x = {1.0, 3.0, 5.0, 2.0, 4.0, 6.0}",
            columns,
            "float[2] y = {9.0, 22.0}, float[2,3] z = {1.0, 4.0, 9.0, 12.0, 16.0, 22.0}",
        ),
    ]);
    refuse(&[(
        16,
        "float[2] s = {0.0, 10.0}, float[3,2] x = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, float[2,2] w = {1.0, 2.0, 3.0, 4.0}",
        "y, z = Scan (s, x, w) <num_scan_inputs = 2, body = b (float[2] a, float[2] r, float[2] q) => (float[2] t, float[2] u) { t = Add (a, r) u = Add (t, q) }>",
        "length of a scanned input: got 2, wanted 3",
    )]);
}
