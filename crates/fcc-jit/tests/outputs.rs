//! Graph outputs that steps of the interpreter make, beside some that kernels make, in every order.
mod common;

use common::net::{Net, Within, attrs};
use fcc_ir::{Tensor, ValueId};

/// A value of each kind: made by the interpreter, by a kernel in its own layout, an input, a constant, a view.
fn values(net: &mut Net) -> Vec<ValueId> {
    let p = net.input(&[1, 3, 8, 6]);
    let k = net.constant(Tensor::from_i64s(vec![3]));
    let topk = net.nodes("TopK", &[p, k], attrs([]), 2);
    let w = net.weight(&[5, 3, 1, 1]);
    let conv = net.op("Conv", &[p, w]);
    let atan = net.op("Atan", &[p]);
    let shape = net.ints(&[3, 48]);
    let view = net.op("Reshape", &[atan, shape]);
    vec![topk[0], topk[1], conv, atan, view, w, p]
}

#[test]
fn values_of_every_kind_are_outputs_in_every_order() {
    let n = values(&mut Net::new()).len();
    for first in 0..n {
        for second in (0..n).filter(|s| *s != first) {
            let mut net = Net::new();
            let made = values(&mut net);
            net.agrees(&[made[first], made[second]], Within::Exact);
        }
    }
    for turn in 0..n {
        let mut net = Net::new();
        let mut made = values(&mut net);
        made.rotate_left(turn);
        net.agrees(&made, Within::Exact);
    }
}
