//! The domain `com.microsoft`: ONNX Runtime's own operators, as its CPU provider computes them. An operator of this
//! domain may share its name with one of `ai.onnx`; nodes are looked up by domain and name.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>
pub mod dynamic_quantize;
pub mod qlinear;

/// The domain's name.
pub(crate) const DOMAIN: &str = "com.microsoft";
