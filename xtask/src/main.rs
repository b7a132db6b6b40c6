//! Commands for working on fcc itself.
fn main() {}
