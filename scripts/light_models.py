"""Gives the onnx package's light models real weights.

The nine light_*.onnx carry the graphs of well-known networks with every large weight as ConstantOfShape(0.02):
with those, every channel computes the same value and comparing outputs proves nothing. Here each weight gets
seeded random values by its role (He for kernels, scale and variance around 1), and the last linear layer is
scaled by what the network really computes, so that the Softmax does not saturate.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
from common import MODELS, write_file
from onnx import helper, numpy_helper

LOGIT_STD = 2.0  # of the Softmax input on a seeded image: neither flat nor saturated
VERSION = "v1"


def source_folder() -> Path:
    return Path(onnx.__file__).parent / "backend/test/data/light"


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Graph inputs that no initializer gives a value."""
    given = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in given]


def image(shape: list[int], seed: int = 1) -> np.ndarray:
    """A seeded signed image."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def role_of(name: str, graph: onnx.GraphProto) -> str:
    """What a weight is used for: kernel, matrix, bias, scale, mean, var; seen through Unsqueeze and Reshape."""
    by_slot = {
        "Conv": {1: "kernel", 2: "bias"},
        "Gemm": {1: "matrix", 2: "bias"},
        "BatchNormalization": {1: "scale", 2: "bias", 3: "mean", 4: "var"},
        "Mul": {0: "scale", 1: "scale"},
        "Add": {0: "bias", 1: "bias"},
        "Sum": {0: "bias", 1: "bias"},
    }
    for node in graph.node:
        for slot, used in enumerate(node.input):
            if used != name:
                continue
            if node.op_type in ("Unsqueeze", "Reshape") and slot == 0:
                return role_of(node.output[0], graph)
            role = by_slot.get(node.op_type, {}).get(slot)
            if role:
                return role
            sys.exit(f"{name}: no role for input {slot} of {node.op_type}")
    sys.exit(f"{name}: nothing uses this weight")


def random_weight(name: str, shape: tuple[int, ...], role: str) -> np.ndarray:
    """Seeded by the weight's own name, so that one weight does not move the others."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    if role == "kernel":  # [M, C/group, k...]: fan-in is all but the first axis
        values = draw.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    elif role == "matrix":  # [N, K] with transB (or [1, 1, N, K] before a Reshape): fan-in K
        values = draw.standard_normal(shape) * np.sqrt(2.0 / shape[-1])
    elif role in ("scale", "var"):
        values = draw.uniform(0.8, 1.2, shape)
    else:
        values = draw.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def weighted_names(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Every float weight and its shape: ConstantOfShape outputs, and the small ones stored as initializers."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(int(d) for d in numpy_helper.to_array(stored[node.input[0]]))
    for tensor in graph.initializer:
        used = any(tensor.name in node.input for node in graph.node)
        if tensor.data_type == onnx.TensorProto.FLOAT and used:
            shapes[tensor.name] = tuple(tensor.dims)
    return shapes


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every weight an initializer of IR 4, where an initializer need not be an input."""
    graph = model.graph
    shapes = weighted_names(graph)
    weights = {name: random_weight(name, shape, role_of(name, graph)) for name, shape in shapes.items()}
    inputs = real_inputs(graph)
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name not in weights and tensor.name in used]
    made = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.ir_version = 4
    for field, values in (("node", nodes), ("initializer", kept + made), ("input", inputs)):
        result.graph.ClearField(field)
        getattr(result.graph, field).extend(values)
    return result


def last_linear(graph: onnx.GraphProto) -> tuple[str, onnx.NodeProto]:
    """The logits (the Softmax input; the output where there is none), and the last Gemm or Conv before them."""
    producers = {name: node for node in graph.node for name in node.output}
    last = producers[graph.output[0].name]
    logits = last.input[0] if last.op_type == "Softmax" else graph.output[0].name
    node = producers[logits]
    while node.op_type not in ("Gemm", "Conv"):
        node = producers[node.input[0]]
    return logits, node


def stored_weights(node: onnx.NodeProto, graph: onnx.GraphProto) -> set[str]:
    """The initializers of a node's weight and bias, seen through a Reshape."""
    producers = {name: node for node in graph.node for name in node.output}
    names = set()
    for name in node.input[1:]:
        while name in producers:
            name = producers[name].input[0]
        names.add(name)
    return names


def scale_logits(model: onnx.ModelProto) -> None:
    """Scales weight and bias of the last linear layer so that the logits have LOGIT_STD."""
    import onnxruntime

    logits, linear = last_linear(model.graph)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    if logits != probe.graph.output[0].name:
        probe.graph.output.append(helper.make_empty_tensor_value_info(logits))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {value.name: image(value.shape) for value in session.get_inputs()}
    measured = session.run([logits], feeds)[0]
    factor = LOGIT_STD / float(measured.std())
    weights = stored_weights(linear, model.graph)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            array = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def check_output(path: Path) -> str:
    """Refuses a model whose output is not finite or is saturated; tells the spread of its output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output = session.run(None, {v.name: image(v.shape, seed=2) for v in session.get_inputs()})[0].ravel()
    if not any(node.op_type == "Softmax" for node in onnx.load(path).graph.node):
        output = np.exp(output - output.max()) / np.exp(output - output.max()).sum()
    entropy = float(-(output * np.log(output + 1e-30)).sum())
    if not np.isfinite(output).all() or abs(output.sum() - 1) > 1e-3 or output.max() > 0.5 or entropy < 2.0:
        sys.exit(f"{path.name}: output is no use: max {output.max()}, sum {output.sum()}, entropy {entropy}")
    return f"max probability {output.max():.4f}, entropy {entropy:.2f} of {np.log(output.size):.2f}"


def prepare_light_models() -> None:
    """Writes light_raw and light below the model cache; does nothing where they are complete."""
    raw, weighted = MODELS / "light_raw", MODELS / "light"
    stamp = MODELS / "light.complete"
    wanted = f"onnx {onnx.__version__} {VERSION}\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    for source in sorted(source_folder().glob("light_*.onnx")):
        write_file(raw / source.name, source.read_bytes())
        model = with_random_weights(onnx.load(source))
        scale_logits(model)
        onnx.checker.check_model(model)
        write_file(weighted / source.name, model.SerializeToString())
        print(f"light/{source.name}: {check_output(weighted / source.name)}", flush=True)
    stamp.write_text(wanted)
