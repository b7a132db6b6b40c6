"""Holds the operators of `com.microsoft` against ONNX Runtime, without its optimiser, in both engines.

    .cache/venv/bin/python scripts/microsoft.py [PATTERN...]

Every operator and every form of it that ONNX Runtime's CPU provider computes is a seeded model with random inputs.
The cases are written as folders (.cache/microsoft) and run through `fcc test`. What may differ is bounded by the
numbers of terms that are added up (the functions `*_bound`); whole numbers must agree, but for outputs of QLinearSoftmax.
Models that ONNX Runtime refuses, fcc must refuse as well.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from common import CACHE, fcc_binary, write_json
from manifest import ENGINES
from onnx import TensorProto, helper, numpy_helper

MS = "com.microsoft"
EPS = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float16): 2.0**-11, np.dtype(np.float64): 2.0**-53}
F32 = 2.0**-24


@dataclass
class Case:
    """A node, its inputs (None: absent), its attributes, and how far outputs may differ."""

    name: str
    op: str
    inputs: list
    outputs: int = 1
    attrs: dict = field(default_factory=dict)
    bound: float = 0.0
    domain: str = MS
    types: dict = field(default_factory=dict)
    # rows of the first output that mean something, by batch
    rows: list[int] | None = None
    # an operator of the same domain that turns the first output back, with the same other inputs
    then: str | None = None


def draw(rng: np.random.Generator, *shape: int, dtype=np.float32) -> np.ndarray:
    return rng.uniform(-1, 1, shape).astype(dtype)


def ints(rng: np.random.Generator, low: int, high: int, *shape: int, dtype=np.int32) -> np.ndarray:
    return rng.integers(low, high, shape).astype(dtype)


def sum_bound(terms: int, size: float = 1.0) -> float:
    """Two sums of products up to `size`, in any two orders, of this many terms."""
    return 2 * (terms + 1) * F32 * terms * size


def attention_bound(size: int, keys: int, scale: float | None = None, value: float = 1.0, score: float = 1.0) -> float:
    """Scores of `size` products up to `score`, a softmax over `keys` of them, a mean of values up to `value`."""
    scores = sum_bound(size, score) * (scale or size**-0.5) + 8 * F32
    return value * (2 * scores + 2 * (keys + 8) * F32)


def norm_bound(terms: int, gamma: float = 2.0) -> float:
    """A normalised row of numbers around 1, mean and variance of sums of this many terms."""
    return gamma * (4 * terms + 16) * F32 * 4


def model_of(case: Case, outputs: list[onnx.ValueInfoProto] | None = None) -> tuple[onnx.ModelProto, dict]:
    names, infos, feed, constants = [], [], {}, []
    for index, array in enumerate(case.inputs):
        if array is None:
            names.append("")
            continue
        name = f"in{index}"
        names.append(name)
        if isinstance(array, TensorProto):  # of a type that numpy has not
            array.name = name
            constants.append(array)
            continue
        feed[name] = array
        infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
    made = [f"out{index}" for index in range(case.outputs)]
    attrs = dict(case.attrs)
    opset = attrs.pop("opset", None)
    node = helper.make_node(case.op, names, made, domain=case.domain, **attrs)
    if opset is not None:  # make_node has a use of its own for the name
        node.attribute.append(helper.make_attribute("opset", opset))
    nodes = [node]
    if case.then is not None:
        nodes.append(helper.make_node(case.then, [made[0], *names[1:]], ["back"], domain=case.domain, **case.attrs))
        made[0] = "back"
    if case.rows is not None:  # rows behind the end of a sequence mean nothing
        keep = np.array(case.rows, np.int64)
        nodes.append(helper.make_node("Constant", [], ["keep"], value=numpy_helper.from_array(keep)))
        shape = np.array([len(keep), -1], np.int64)
        nodes.append(helper.make_node("Constant", [], ["shape"], value=numpy_helper.from_array(shape)))
        width = np.array([-1, case.inputs[0].shape[-1]], np.int64)
        nodes.append(helper.make_node("Constant", [], ["width"], value=numpy_helper.from_array(width)))
        nodes.append(helper.make_node("Reshape", [made[0], "width"], ["flat"]))
        nodes.append(helper.make_node("Gather", ["flat", "keep"], ["kept"]))
        made[0] = "kept"
    if outputs is None:
        typed = [helper.make_tensor_value_info(n, case.types[i], None) if i in case.types else onnx.ValueInfoProto(name=n)
                 for i, n in enumerate(made)]
    else:
        typed = outputs
    graph = helper.make_graph(nodes, case.name, infos, typed, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feed


def run_onnxruntime(case: Case) -> tuple[onnx.ModelProto, dict, list[np.ndarray]]:
    """The model with typed outputs, its inputs and what ONNX Runtime makes of them. Raises what it raises."""
    model, feed = model_of(case)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, feed)
    infos = [helper.make_tensor_value_info(o.name, helper.np_dtype_to_tensor_dtype(w.dtype), w.shape)
             for o, w in zip(model.graph.output, wanted)]
    return model_of(case, infos)[0], feed, wanted


def write_case(folder, model: onnx.ModelProto, feed: dict, wanted: list, bound: float) -> None:
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for index, (name, array) in enumerate(feed.items()):
        (data / f"input_{index}.pb").write_bytes(numpy_helper.from_array(array, name).SerializeToString())
    for index, (info, array) in enumerate(zip(model.graph.output, wanted)):
        (data / f"output_{index}.pb").write_bytes(numpy_helper.from_array(array, info.name).SerializeToString())
    narrow = [EPS[w.dtype] for w in wanted if w.dtype in EPS]
    # each side rounds its result once
    write_json(folder / "tol.json", {"rtol": 2 * max(narrow, default=0.0), "atol": bound})


def verdicts(fcc: str, engine: str, folders: list) -> dict[str, tuple[str, str]]:
    done = subprocess.run([fcc, "test", "--json", "--engine", engine, *map(str, folders)], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"fcc test --engine {engine}: exit code {done.returncode}: {done.stderr[-400:]}")
    return {c["name"].rsplit("/", 1)[-1]: (c["status"], c.get("reason") or "") for c in json.loads(done.stdout)["cases"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare com.microsoft operators with ONNX Runtime.")
    parser.add_argument("patterns", nargs="*", help="only cases that match one of these (* allowed)")
    args = parser.parse_args()
    from microsoft_cases import accepted, refused

    top, fcc, problems = CACHE / "microsoft", fcc_binary(), []
    shutil.rmtree(top, ignore_errors=True)
    chosen = lambda case: not args.patterns or any(fnmatch.fnmatchcase(case.name, p) for p in args.patterns)
    good, bad = [c for c in accepted() if chosen(c)], [c for c in refused() if chosen(c)]
    names = [c.name for c in good + bad]
    if len(set(names)) != len(names):
        sys.exit(f"names are given twice: {sorted({n for n in names if names.count(n) > 1})}")
    for case in good:
        try:
            model, feed, wanted = run_onnxruntime(case)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own types
            problems.append(f"{case.name}: ONNX Runtime refuses it: {str(error)[:300]}")
            continue
        write_case(top / "accepted" / case.name, model, feed, wanted, case.bound)
    for case in bad:
        try:
            run_onnxruntime(case)
        except Exception:  # noqa: BLE001
            model, feed = model_of(case)
            for info in model.graph.output:
                info.type.tensor_type.elem_type = TensorProto.FLOAT
            write_case(top / "refused" / case.name, model, feed, [np.zeros(1, np.float32)] * case.outputs, 0.0)
            continue
        problems.append(f"{case.name}: ONNX Runtime computes it")
    for engine in ENGINES:
        for kind, wanted in (("accepted", ("passed",)), ("refused", ("failed", "unsupported"))):
            folders = sorted((top / kind).iterdir()) if (top / kind).is_dir() else []
            if not folders:
                continue
            found = verdicts(fcc, engine, folders)
            fine = 0
            for name, (status, reason) in sorted(found.items()):
                if status not in wanted or (kind == "refused" and ("differs" in reason or "panick" in reason)):
                    problems.append(f"{name}: {status} in {engine}: {reason}")
                else:
                    fine += 1
            print(f"{engine}: {fine} of {len(folders)} as ONNX Runtime, {kind} by it")
    operators = {c.op for c in good}
    print(f"{len(operators)} operators: {', '.join(sorted(operators))}")
    if problems:
        print("\n".join(problems))
        sys.exit(f"{len(problems)} cases are not as in ONNX Runtime")


if __name__ == "__main__":
    main()
