"""Holds what fcc's interpreter computes on generated graphs against ONNX Runtime without optimisation.

    cargo xtask fuzz graphs --write .cache/voices --cases 3000
    .cache/venv/bin/python scripts/third_voice.py .cache/voices

A case is a folder: model.onnx, input_I.pb, output_I.pb and bound_I.npy (how far rounding moves each element). A model
that ONNX Runtime does not implement or refuses is left out and counted by its reason. What deviates for a known reason
stands in KNOWN. Exit code 1 if anything else differs.
"""

from __future__ import annotations

import collections
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

# Operators whose results ONNX Runtime gives otherwise than the ONNX text, or that the text leaves open.
KNOWN: dict[str, str] = {}


def operators(graph: onnx.GraphProto) -> set[str]:
    found = set()
    for node in graph.node:
        found.add(node.op_type)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= operators(attribute.g)
    return found


def tensors(folder: Path, kind: str) -> list[onnx.TensorProto]:
    found = []
    while (path := folder / f"{kind}_{len(found)}.pb").is_file():
        found.append(onnx.TensorProto.FromString(path.read_bytes()))
    return found


def difference(got: np.ndarray, want: np.ndarray, bound: np.ndarray) -> str | None:
    """The first element that rounding does not explain."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"got {got.dtype}{list(got.shape)}, wanted {want.dtype}{list(want.shape)}"
    if got.dtype.kind in "OSU":
        return None if [str(v) for v in got.flat] == [str(v) for v in want.flat] else "strings differ"
    if got.dtype.kind == "c":
        return None
    if got.size == 0:
        return None
    wide_got, wide_want = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    with np.errstate(all="ignore"):
        away = np.abs(wide_got - wide_want)
        # another runtime may sum in another order and use other functions
        slack = 64 * bound + (bound > 0) * 1e-5 * np.abs(wide_want)
        near = (wide_got == wide_want) | (np.isnan(wide_got) & np.isnan(wide_want)) | (away <= slack)
    near |= np.isinf(bound)
    if near.all():
        return None
    at = int(np.argmin(near))
    return f"element {at} of {near.size}: got {wide_got[at]}, wanted {wide_want[at]}, bound {bound[at]:.3g}"


def main() -> int:
    folders = sorted(Path(sys.argv[1]).iterdir(), key=lambda p: int(p.name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    left_out, known, differ, agree = collections.Counter(), collections.Counter(), [], 0
    for folder in folders:
        model = onnx.load(folder / "model.onnx")
        found = operators(model.graph)
        try:
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            inputs = {t.name: numpy_helper.to_array(t) for t in tensors(folder, "input")}
            got = session.run(None, inputs)
        except Exception as error:  # ONNX Runtime's exceptions have no common type below this one
            reason = re.sub(r"[^A-Z_]*:.*", "", re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", str(error)))[:40]
            left_out[reason] += 1
            continue
        for number, want in enumerate(tensors(folder, "output")):
            bound = np.load(folder / f"bound_{number}.npy")
            why = difference(np.asarray(got[number]), numpy_helper.to_array(want), bound)
            if why is None:
                continue
            excuse = [op for op in sorted(found) if op in KNOWN]
            if excuse:
                known[excuse[0]] += 1
            else:
                name = model.graph.output[number].name
                differ.append(f"{folder.name} `{name}` ({' '.join(sorted(found))}): {why}")
            break
        else:
            agree += 1
    print(f"{agree} of {len(folders)} agree, {sum(left_out.values())} left out, {len(differ)} differ")
    for reason, count in left_out.most_common():
        print(f"  left out {count}: {reason}")
    for op, count in known.items():
        print(f"  known {count}: {op}: {KNOWN[op]}")
    for line in differ:
        print(f"  differs: {line}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
