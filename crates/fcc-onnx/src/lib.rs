//! fcc-onnx
