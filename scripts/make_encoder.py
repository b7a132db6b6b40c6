"""Writes .cache/models/encoder.onnx: a text encoder of the usual form, with seeded weights.

    .cache/venv/bin/python scripts/make_encoder.py

6 layers, width 384, 12 heads, feed-forward 1536, GELU written with Erf, LayerNormalization after each residual,
512 positions, 8,192 tokens. Input `ids` int64 [batch, sequence]; output `hidden` float [batch, sequence, 384].
"""

from __future__ import annotations

import numpy as np
import onnx
from common import MODELS, write_file
from onnx import TensorProto, helper, numpy_helper

LAYERS, WIDTH, HEADS, INNER, TOKENS, POSITIONS = 6, 384, 12, 1536, 8192, 512
SEED = 7


class Builder:
    """Collects nodes and weights; every node is named after its output."""

    def __init__(self) -> None:
        self.draw = np.random.default_rng(SEED)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def node(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value) -> str:
        self.weights[name] = np.asarray(value)
        return name

    def random(self, name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> str:
        return self.constant(name, (mean + std * self.draw.standard_normal(shape)).astype(np.float32))

    def linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        w = self.random(f"{name}.weight", (inputs, outputs), inputs**-0.5)
        b = self.random(f"{name}.bias", (outputs,), 0.02)
        return self.node("Add", [self.node("MatMul", [x, w], f"{name}.product"), b], f"{name}.sum")

    def norm(self, name: str, x: str) -> str:
        scale, bias = self.random(f"{name}.scale", (WIDTH,), 0.05, 1.0), self.random(f"{name}.bias", (WIDTH,), 0.05)
        return self.node("LayerNormalization", [x, scale, bias], f"{name}.out", axis=-1, epsilon=1e-12)

    def gelu(self, name: str, x: str) -> str:
        """x * (1 + erf(x / sqrt 2)) * 0.5"""
        erf = self.node("Erf", [self.node("Div", [x, "sqrt2"], f"{name}.scaled")], f"{name}.erf")
        product = self.node("Mul", [x, self.node("Add", [erf, "one"], f"{name}.one_plus")], f"{name}.product")
        return self.node("Mul", [product, "half"], f"{name}.out")

    def heads(self, name: str, x: str, order: list[int]) -> str:
        """[batch, sequence, width] to heads, in the given order of axes."""
        split = self.node("Reshape", [x, "head_shape"], f"{name}.split")
        return self.node("Transpose", [split], f"{name}.heads", perm=order)

    def attention(self, name: str, x: str) -> str:
        q = self.heads(f"{name}.q", self.linear(f"{name}.query", x, WIDTH, WIDTH), [0, 2, 1, 3])
        k = self.heads(f"{name}.k", self.linear(f"{name}.key", x, WIDTH, WIDTH), [0, 2, 3, 1])
        v = self.heads(f"{name}.v", self.linear(f"{name}.value", x, WIDTH, WIDTH), [0, 2, 1, 3])
        scores = self.node("Div", [self.node("MatMul", [q, k], f"{name}.scores"), "root"], f"{name}.scaled")
        weights = self.node("Softmax", [scores], f"{name}.weights", axis=-1)
        mixed = self.node("Transpose", [self.node("MatMul", [weights, v], f"{name}.mix")], f"{name}.mixed", perm=[0, 2, 1, 3])
        joined = self.node("Reshape", [mixed, "width_shape"], f"{name}.joined")
        return self.linear(f"{name}.output", joined, WIDTH, WIDTH)

    def layer(self, name: str, x: str) -> str:
        after = self.node("Add", [self.attention(f"{name}.attention", x), x], f"{name}.residual1")
        x = self.norm(f"{name}.norm1", after)
        inner = self.gelu(f"{name}.gelu", self.linear(f"{name}.up", x, WIDTH, INNER))
        after = self.node("Add", [self.linear(f"{name}.down", inner, INNER, WIDTH), x], f"{name}.residual2")
        return self.norm(f"{name}.norm2", after)


def embeddings(build: Builder) -> str:
    """Token plus position embedding, normalised; the positions are cut to the sequence's length."""
    tokens = build.random("token_embedding", (TOKENS, WIDTH), 1.0)
    positions = build.random("position_embedding", (POSITIONS, WIDTH), 0.5)
    found = build.node("Gather", [tokens, "ids"], "tokens")
    length = build.node("Shape", ["ids"], "length", start=1, end=2)
    cut = build.node("Slice", [positions, build.constant("zero", np.array([0])), length], "positions")
    return build.norm("embedding_norm", build.node("Add", [found, cut], "embedded"))


def encoder() -> onnx.ModelProto:
    build = Builder()
    for name, value in (("sqrt2", 2**0.5), ("one", 1), ("half", 0.5), ("root", (WIDTH // HEADS) ** 0.5)):
        build.constant(name, np.float32(value))
    build.constant("head_shape", np.array([0, 0, HEADS, WIDTH // HEADS]))
    build.constant("width_shape", np.array([0, 0, WIDTH]))
    x = embeddings(build)
    for index in range(LAYERS):
        x = build.layer(f"layer{index}", x)
    build.node("Identity", [x], "hidden")
    graph = helper.make_graph(
        build.nodes,
        "encoder",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "sequence", WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in build.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_encoder() -> None:
    """Writes the model unless the same bytes are there already."""
    path, data = MODELS / "encoder.onnx", encoder().SerializeToString()
    if not path.is_file() or path.read_bytes() != data:
        write_file(path, data)


if __name__ == "__main__":
    write_encoder()
    print(MODELS / "encoder.onnx")
