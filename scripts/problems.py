"""Writes .cache/problems: small models at the edges of what operators and rewrites must get right.

    .cache/venv/bin/python scripts/problems.py

Each is an ONNX test-case folder for `fcc test`, and input to every rewrite rule in verify_rewrites.py. Seeded random
convolutions, transposed convolutions, poolings and products of every shape, and by hand the forms of linear layers
that rewriting tools got wrong. All numbers are small integers, so every expected output is exact, and two
independent opinions must agree on it bit by bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from common import CACHE, write_file
from onnx import helper, numpy_helper

PROBLEMS = CACHE / "problems"
VERSION = "v2"
node = helper.make_node


def whole(draw: np.random.Generator, *shape: int, dtype=np.float32) -> np.ndarray:
    """Integers -4..4 as floats: sums of products of them are exact."""
    return draw.integers(-4, 5, shape).astype(dtype)


@dataclass
class Problem:
    """One model with one input `x`; weights named in `inputs_too` are graph inputs as well (overridable)."""

    name: str
    nodes: list
    x: np.ndarray
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    batch: str | None = None  # a symbol for the first extent of x
    inputs_too: tuple[str, ...] = ()
    opset: int = 17
    outputs: tuple[str, ...] = ("y",)

    def model(self) -> onnx.ModelProto:
        def info(name: str, array: np.ndarray, shape: list | None):
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)

        shape = list(self.x.shape)
        if self.batch:
            shape[0] = self.batch
        inputs = [info("x", self.x, shape)]
        inputs += [info(key, self.weights[key], list(self.weights[key].shape)) for key in self.inputs_too]
        outputs = [info(key, self.x, None) for key in self.outputs]
        weights = [numpy_helper.from_array(np.asarray(v), k) for k, v in self.weights.items()]
        graph = helper.make_graph(self.nodes, self.name, inputs, outputs, weights)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8 if self.opset < 20 else 10)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        del model.graph.value_info[:]
        onnx.checker.check_model(model, full_check=True)
        return model


def spatial_attributes(draw, kernel: list[int], sizes: list[int]) -> dict:
    """Strides, dilations and pads (or auto_pad) under which at least one window fits."""
    rank = len(kernel)
    while True:
        strides = [int(s) for s in draw.integers(1, 4, rank)]
        dilations = [int(d) for d in draw.integers(1, 4, rank)] if draw.random() < 0.5 else [1] * rank
        auto = str(draw.choice(["SAME_UPPER", "SAME_LOWER", "VALID", ""], p=[0.1, 0.1, 0.1, 0.7]))
        pads = [int(p) for p in draw.integers(0, 3, 2 * rank)]
        if auto:
            pads = [0] * (2 * rank)
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
        padded = [size + pads[i] + pads[i + rank] for i, size in enumerate(sizes)]
        if auto.startswith("SAME") or all(p >= r for p, r in zip(padded, reach)):
            break
    attributes = {"auto_pad": auto} if auto else {"pads": pads}
    if strides != [1] * rank or draw.random() < 0.5:
        attributes["strides"] = strides
    if dilations != [1] * rank or draw.random() < 0.3:
        attributes["dilations"] = dilations
    return attributes


def conv_problem(seed: int) -> Problem:
    """Any Conv: rank 1-3, groups, depthwise, kernels larger than the input, batches 0 to 3."""
    draw = np.random.default_rng(seed)
    rank = int(draw.choice([1, 2, 3], p=[0.2, 0.6, 0.2]))
    group, per_group = int(draw.integers(1, 4)), int(draw.integers(1, 4))
    channels, out = group * per_group, group * int(draw.integers(1, 4))
    sizes = [int(s) for s in draw.integers(1, 9, rank)]
    kernel = [int(k) for k in draw.integers(1, 5, rank)]
    if draw.random() < 0.15:
        kernel = [1] * rank
    n = int(draw.choice([0, 1, 2, 3], p=[0.05, 0.55, 0.2, 0.2]))
    attributes = spatial_attributes(draw, kernel, sizes)
    if group > 1 or draw.random() < 0.3:
        attributes["group"] = group
    if draw.random() < 0.5:
        attributes["kernel_shape"] = kernel
    weights = {"w": whole(draw, out, per_group, *kernel)}
    if draw.random() < 0.6:
        weights["b"] = whole(draw, out)
    conv = node("Conv", ["x", *weights], ["y"], name="conv", **attributes)
    batch = "batch" if draw.random() < 0.4 else None
    return Problem(f"conv{rank}d_{seed:03}", [conv], whole(draw, n, channels, *sizes), weights, batch)


def conv_transpose_problem(seed: int) -> Problem:
    draw = np.random.default_rng(1000 + seed)
    rank = int(draw.choice([1, 2], p=[0.3, 0.7]))
    group, per_group, out = int(draw.integers(1, 3)), int(draw.integers(1, 4)), int(draw.integers(1, 4))
    sizes, kernel = ([int(v) for v in draw.integers(1, high, rank)] for high in (6, 5))
    strides = [int(s) for s in draw.integers(1, 4, rank)]
    attributes = {"strides": strides, "group": group}
    if draw.random() < 0.4:
        attributes["dilations"] = [int(d) for d in draw.integers(1, 3, rank)]
    if draw.random() < 0.4:
        attributes["output_padding"] = [int(draw.integers(0, s)) for s in strides]
    reach = [a * (k - 1) + 1 for a, k in zip(attributes.get("dilations", [1] * rank), kernel)]
    if draw.random() < 0.5:  # pads cut the output: keep at least one element
        spare = [(s - 1) * st + r - 1 for s, st, r in zip(sizes, strides, reach)]
        begin = [int(draw.integers(0, min(2, p) + 1)) for p in spare]
        attributes["pads"] = begin + [int(draw.integers(0, min(2, p - b) + 1)) for p, b in zip(spare, begin)]
    weights = {"w": whole(draw, group * per_group, out, *kernel)}
    if draw.random() < 0.6:
        weights["b"] = whole(draw, group * out)
    up = node("ConvTranspose", ["x", *weights], ["y"], name="up", **attributes)
    x = whole(draw, int(draw.integers(1, 3)), group * per_group, *sizes)
    return Problem(f"conv_transpose{rank}d_{seed:03}", [up], x, weights)


def pool_problem(seed: int) -> Problem:
    """MaxPool and AveragePool; the average over a power of two where it must be exact."""
    draw = np.random.default_rng(2000 + seed)
    rank = int(draw.choice([1, 2, 3], p=[0.2, 0.6, 0.2]))
    average = draw.random() < 0.4
    kernel = [int(k) for k in (draw.choice([1, 2, 4], rank) if average else draw.integers(1, 5, rank))]
    sizes = [int(k + s) for k, s in zip(kernel, draw.integers(0, 8, rank))]
    attributes: dict = {"kernel_shape": kernel, "strides": [int(s) for s in draw.integers(1, 4, rank)]}
    if draw.random() < 0.6:  # each pad stays below the kernel, as the text demands
        attributes["pads"] = [int(draw.integers(0, k)) for k in kernel + kernel]
    if average:
        attributes["count_include_pad"] = 1
    else:
        strides, pads = attributes["strides"], attributes.get("pads", [0] * (2 * rank))
        # Where a last window would start in the padding, the onnx package's inference and ONNX Runtime differ.
        starts = [-(-(n + pads[i] + pads[i + rank] - kernel[i]) // strides[i]) * strides[i] for i, n in enumerate(sizes)]
        inside = all(start < n + pads[i] for i, (start, n) in enumerate(zip(starts, sizes)))
        attributes["ceil_mode"] = int(inside and draw.random() < 0.4)
    x = whole(draw, int(draw.integers(1, 3)), int(draw.integers(1, 4)), *sizes)
    kind = "AveragePool" if average else "MaxPool"
    return Problem(f"{kind.lower()}{rank}d_{seed:03}", [node(kind, ["x"], ["y"], name="pool", **attributes)], x)


def gemm_problem(seed: int) -> Problem:
    """Gemm: both transposes, alpha and beta, bias absent, scalar, [1], [N], [M,1], [1,N], [M,N]."""
    draw = np.random.default_rng(3000 + seed)
    m, k, n = (int(v) for v in draw.integers(1, 9, 3))
    trans_a, trans_b = int(draw.random() < 0.3), int(draw.random() < 0.5)
    attributes = {"transA": trans_a, "transB": trans_b}
    if draw.random() < 0.4:
        attributes |= {"alpha": 0.5, "beta": 2.0}
    weights = {"w": whole(draw, *((n, k) if trans_b else (k, n)))}
    forms = [None, (), (1,), (n,), (m, 1), (1, n), (m, n)]
    bias = forms[seed % len(forms)]
    if bias is not None:
        weights["b"] = whole(draw, *bias)
    x = whole(draw, *((k, m) if trans_a else (m, k)))
    batch = "batch" if not trans_a and bias in (None, (n,)) and draw.random() < 0.5 else None
    return Problem(f"gemm_{seed:03}", [node("Gemm", ["x", *weights], ["y"], name="fc", **attributes)], x, weights, batch)


def matmul_problem(seed: int) -> Problem:
    """MatMul with 1-D to 4-D input, with Add on either side, or nothing behind it."""
    draw = np.random.default_rng(4000 + seed)
    rank = 1 + seed % 4
    shape = [int(v) for v in draw.integers(1, 6, rank)]
    k, n = shape[-1], int(draw.integers(1, 7))
    vector = draw.random() < 0.15
    weights = {"w": whole(draw, *((k,) if vector else (k, n)))}
    nodes = [node("MatMul", ["x", "w"], ["product"], name="matmul")]
    if draw.random() < 0.7 and not vector:
        weights["b"] = whole(draw, *((n,) if draw.random() < 0.7 else (1,)))
        order = ["product", "b"] if draw.random() < 0.5 else ["b", "product"]
        nodes.append(node("Add", order, ["y"], name="bias"))
    else:
        nodes[0].output[0] = "y"
    batch = "batch" if rank > 1 and draw.random() < 0.5 else None
    return Problem(f"matmul_{rank}d_{seed:03}", nodes, whole(draw, *shape), weights, batch)


def linear_forms() -> list[Problem]:
    """By hand: the linear layers behind feature maps, and the forms of weights, that tools got wrong."""
    draw = np.random.default_rng(5000)
    x, w, b = whole(draw, 2, 3, 4, 5), whole(draw, 6, 60), whole(draw, 6)
    gemm = node("Gemm", ["flat", "w", "b"], ["y"], name="fc", transB=1)
    flatten = node("Flatten", ["x"], ["flat"], name="flatten")
    reshape = node("Reshape", ["x", "shape"], ["flat"], name="reshape")
    wb = {"w": w, "b": b}
    matmul = [node("MatMul", ["flat", "wt"], ["product"], name="matmul"), node("Add", ["b", "product"], ["y"], name="bias")]
    to_nhwc = node("Transpose", ["x"], ["nhwc"], name="to_nhwc", perm=[0, 2, 3, 1])
    flat_nhwc = node("Flatten", ["nhwc"], ["flat"], name="flatten")
    found = [
        Problem("linear_flatten_gemm", [flatten, gemm], x, wb),
        Problem("linear_flatten_gemm_symbolic_batch", [flatten, gemm], x, wb, "batch"),
        Problem("linear_flatten_gemm_empty_batch", [flatten, gemm], x[:0], wb, "batch"),
        Problem("linear_flatten_matmul_add", [flatten, *matmul], x, {"wt": w.T.copy(), "b": b}, "batch"),
        Problem("linear_nhwc_flatten_gemm", [to_nhwc, flat_nhwc, gemm], x, wb, "batch"),
        Problem("linear_nhwc_flatten_matmul", [to_nhwc, flat_nhwc, *matmul], x, {"wt": w.T.copy(), "b": b}),
    ]
    for name, shape in (("minus_one", [-1, 60]), ("zero", [0, -1]), ("static", [2, 60])):
        found.append(Problem(f"linear_reshape_{name}_gemm", [reshape, gemm], x, {**wb, "shape": np.array(shape)}))
    squeezed = whole(draw, 2, 5, 1, 1)
    narrow = {"w": whole(draw, 4, 5), "b": whole(draw, 4), "axes": np.array([2, 3])}
    squeeze = node("Squeeze", ["x", "axes"], ["flat"], name="squeeze")
    found.append(Problem("linear_squeeze_gemm", [squeeze, gemm], squeezed, narrow, "batch"))
    # Batch merged into features: flattening at axis 0 is no linear layer of one image.
    flat0 = node("Flatten", ["x"], ["flat"], name="flatten", axis=0)
    found.append(Problem("linear_flatten_axis0_gemm", [flat0, gemm], x[:1], wb))
    # Reshape that mixes images: 2 images of 60 seen as 4 rows of 30.
    mixed = {"w": whole(draw, 6, 30), "b": b, "shape": np.array([4, 30])}
    found.append(Problem("linear_reshape_mixes_batch", [reshape, gemm], x, mixed))
    # A weight used twice, a product used twice, a weight that a caller may replace, a weight from a Constant node.
    twice = [flatten, gemm, node("Gemm", ["flat", "w"], ["z"], name="fc2", transB=1)]
    found.append(Problem("linear_shared_weight", twice, x, wb, outputs=("y", "z")))
    used = [flatten, matmul[0], matmul[1], node("Relu", ["product"], ["z"], name="relu")]
    found.append(Problem("linear_product_used_twice", used, x, {"wt": w.T.copy(), "b": b}, outputs=("y", "z")))
    found.append(Problem("linear_flatten_used_twice", [flatten, gemm, node("Neg", ["flat"], ["z"], name="neg")], x, wb, outputs=("y", "z")))
    found.append(Problem("linear_overridable_weight", [flatten, gemm], x, wb, inputs_too=("w",)))
    constant = node("Constant", [], ["w"], name="weight", value=numpy_helper.from_array(w, "w"))
    found.append(Problem("linear_weight_from_constant_node", [constant, flatten, gemm], x, {"b": b}, "batch"))
    half = {key: value.astype(np.float16) for key, value in wb.items()}
    found.append(Problem("linear_f16", [flatten, gemm], x.astype(np.float16), half, "batch"))
    quantised = {"q": w.astype(np.int8), "scale": np.float32(0.5), "zero": np.int8(1), "b": b}
    dequantise = node("DequantizeLinear", ["q", "scale", "zero"], ["w"], name="dequantise")
    found.append(Problem("linear_weight_behind_dequantise", [dequantise, flatten, gemm], x, quantised, opset=21))
    scaled = node("Gemm", ["flat", "w", "b"], ["y"], name="fc", transB=1, alpha=0.5, beta=2.0)
    found.append(Problem("linear_flatten_gemm_alpha_beta", [flatten, scaled], x, wb, "batch"))
    for name, bias in (("scalar", ()), ("1", (1,)), ("1xN", (1, 6)), ("MxN", (2, 6)), ("Mx1", (2, 1))):
        found.append(Problem(f"linear_flatten_gemm_bias_{name}", [flatten, gemm], x, {"w": w, "b": whole(draw, *bias)}))
    return found + token_forms() + chains()


def token_forms() -> list[Problem]:
    """MatMul over tokens [batch, sequence, features], as in transformers."""
    draw = np.random.default_rng(6000)
    x, w, b, v = whole(draw, 2, 5, 6), whole(draw, 6, 7), whole(draw, 7), whole(draw, 7, 3)
    first = [node("MatMul", ["x", "w"], ["p"], name="up"), node("Add", ["p", "b"], ["h"], name="up_bias")]
    relu, second = node("Relu", ["h"], ["r"], name="relu"), node("MatMul", ["r", "v"], ["y"], name="down")
    weights = {"w": w, "b": b, "v": v}
    return [
        Problem("tokens_two_layers", [*first, relu, second], x, weights, "batch"),
        Problem("tokens_both_sides_dynamic", [node("Transpose", ["x"], ["t"], name="t", perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["y"], name="scores")], x, {}, "batch"),
        Problem("tokens_weight_on_the_left", [node("MatMul", ["w", "x"], ["y"], name="mix")], whole(draw, 6, 4), {"w": whole(draw, 3, 6)}),
        Problem("tokens_batched_weight", [node("MatMul", ["x", "w"], ["y"], name="each")], x, {"w": whole(draw, 2, 6, 4)}),
    ]  # fmt: skip


def chains() -> list[Problem]:
    """Layers in a row, where neighbouring reshapes and transposes should cancel; and the edges of Conv."""
    draw = np.random.default_rng(7000)
    x = whole(draw, 2, 3, 6, 7)
    c1, c2 = whole(draw, 4, 3, 3, 2), whole(draw, 5, 4 * 4 * 6)
    head = [
        node("Conv", ["x", "c1"], ["a"], name="conv"),
        node("Relu", ["a"], ["r"], name="relu"),
        node("Flatten", ["r"], ["f"], name="flatten"),
        node("Gemm", ["f", "c2"], ["g"], name="fc1", transB=1),
        node("Relu", ["g"], ["h"], name="relu2"),
        node("Gemm", ["h", "c3", "c4"], ["y"], name="fc2"),
    ]
    weights = {"c1": c1, "c2": c2, "c3": whole(draw, 5, 4), "c4": whole(draw, 4)}
    shared = [node("Conv", ["x", "w"], ["a"], name="one", pads=[1, 1, 1, 1]), node("Conv", ["a", "w"], ["y"], name="two")]
    computed = [node("Neg", ["x"], ["w"], name="neg"), node("Conv", ["x", "w"], ["y"], name="conv")]
    double = whole(draw, 1, 2, 5, 4, dtype=np.float64)
    return [
        Problem("chain_conv_relu_two_linears", head, x, weights, "batch"),
        Problem("conv_pointwise", [node("Conv", ["x", "w", "b"], ["y"], name="conv")], x, {"w": whole(draw, 5, 3, 1, 1), "b": whole(draw, 5)}, "batch"),
        Problem("conv_shared_weight", shared, whole(draw, 1, 3, 5, 6), {"w": whole(draw, 3, 3, 3, 3)}, "batch"),
        Problem("conv_weight_is_computed", computed, whole(draw, 2, 3, 4, 4), {}),
        Problem("conv_overridable_weight", [node("Conv", ["x", "w"], ["y"], name="conv")], x, {"w": c1}, inputs_too=("w",)),
        Problem("conv_f64", [node("Conv", ["x", "w"], ["y"], name="conv")], double, {"w": whole(draw, 3, 2, 2, 3, dtype=np.float64)}),
        Problem("conv_depthwise_multiplier", [node("Conv", ["x", "w"], ["y"], name="conv", group=3, pads=[1, 0, 0, 1])], x, {"w": whole(draw, 6, 1, 2, 3)}, "batch"),
    ]  # fmt: skip


def all_problems() -> list[Problem]:
    series: list[tuple[Callable[[int], Problem], int]] = [
        (conv_problem, 140),
        (conv_transpose_problem, 40),
        (pool_problem, 60),
        (gemm_problem, 42),
        (matmul_problem, 32),
    ]
    return [make(seed) for make, count in series for seed in range(count)] + linear_forms()


def plain_output(problem: Problem) -> list[np.ndarray] | None:
    """A single windowed operator by the plain formulas; None for other problems."""
    import plain

    if len(problem.nodes) != 1 or problem.nodes[0].op_type not in ("Conv", "ConvTranspose", "MaxPool", "AveragePool"):
        return None
    one = problem.nodes[0]
    attributes = {a.name: helper.get_attribute_value(a) for a in one.attribute}
    if "auto_pad" in attributes:
        attributes["auto_pad"] = attributes["auto_pad"].decode()
    weights = [problem.weights.get(name) for name in ("w", "b")]
    return [plain.evaluate(one.op_type, attributes, problem.x, *weights)]


def runtime_output(problem: Problem, model: onnx.ModelProto) -> list[np.ndarray] | None:
    """ONNX Runtime's outputs, or None for the few forms that it does not run (f64 ConvTranspose, ...)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, {"x": problem.x})
    except Exception:  # onnxruntime raises its own types, which are plain Exceptions
        return None


def reference_output(problem: Problem, model: onnx.ModelProto) -> list[np.ndarray] | None:
    """The onnx package's own evaluator, or None where it stops."""
    from onnx.reference import ReferenceEvaluator

    try:
        return ReferenceEvaluator(model).run(None, {"x": problem.x})
    except Exception:  # it raises whatever numpy raises
        return None


def expected(problem: Problem, model: onnx.ModelProto) -> list[np.ndarray]:
    """Two opinions that agree bit by bit, of: the plain formulas, ONNX Runtime, the reference evaluator."""
    opinions = [plain_output(problem), runtime_output(problem, model)]
    if None in (opinions[0], opinions[1]):
        # The reference evaluator comes last: it is wrong on pools with pads that differ and on grouped transposes.
        opinions.append(reference_output(problem, model))
    opinions = [opinion for opinion in opinions if opinion is not None]
    if len(opinions) < (2 if problem.x.size else 1):  # of an empty batch there is only a shape to compute
        raise AssertionError(f"{problem.name}: only {len(opinions)} opinions")
    for key, a, b in zip(problem.outputs, opinions[0], opinions[-1]):
        if a.dtype != b.dtype or a.shape != b.shape or not np.array_equal(a, b):
            raise AssertionError(f"{problem.name}: two opinions on {key}: {a.dtype}{a.shape} and {b.dtype}{b.shape}")
    for info, array in zip(model.graph.output, opinions[0]):
        declared = [d.dim_value for d in info.type.tensor_type.shape.dim if d.HasField("dim_value")]
        if problem.batch is None and declared and declared != list(array.shape):
            raise AssertionError(f"{problem.name}: inferred {declared}, computed {list(array.shape)}")
    return opinions[0]


def write(problem: Problem) -> None:
    model = problem.model()
    outputs = expected(problem, model)
    folder = PROBLEMS / problem.name
    write_file(folder / "model.onnx", model.SerializeToString())
    write_file(folder / "tol.json", (json.dumps({"rtol": 0.0, "atol": 0.0}) + "\n").encode())
    values = [("input_0", "x", problem.x)]
    values += [(f"input_{i}", key, problem.weights[key]) for i, key in enumerate(problem.inputs_too, start=1)]
    values += [(f"output_{i}", key, array) for i, (key, array) in enumerate(zip(problem.outputs, outputs))]
    for file, name, array in values:
        tensor = numpy_helper.from_array(np.asarray(array), name)
        write_file(folder / "test_data_set_0" / f"{file}.pb", tensor.SerializeToString())


def main() -> None:
    stamp, wanted = CACHE / "problems.complete", f"onnx {onnx.__version__} {VERSION}\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        print(f"{PROBLEMS}: complete")
        return
    shutil.rmtree(PROBLEMS, ignore_errors=True)
    problems = all_problems()
    for problem in problems:
        write(problem)
    stamp.write_text(wanted)
    print(f"{PROBLEMS}: {len(problems)} problems")


if __name__ == "__main__":
    main()
