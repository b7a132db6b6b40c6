//! fcc-jit
