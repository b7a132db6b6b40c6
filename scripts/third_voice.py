"""Holds what fcc's interpreter computes on generated graphs against ONNX Runtime without optimisation.

    cargo xtask fuzz graphs --write .cache/voices --cases 3000
    .cache/venv/bin/python scripts/third_voice.py .cache/voices

A case is a folder: model.onnx, input_I.pb, output_I.pb and bound_I.npy (how far rounding moves each element). A model
that ONNX Runtime does not implement or refuses is left out and counted by its reason. What deviates for a known reason
stands in KNOWN. Exit code 1 if anything else differs.
"""

from __future__ import annotations

import collections
import multiprocessing
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

# Functions that ONNX Runtime approximates with an absolute error: it counts beside the bound.
APPROXIMATE = {"Sigmoid", "Tanh", "Erf", "Gelu", "Softmax", "LSTM", "GRU", "RNN", "Mish", "Softplus", "Exp", "Elu"}
ABSOLUTE = 2e-6

# What deviates for a reason: operators, whether the case is one of those that the reason speaks of, and the reason.
KNOWN = [
    (
        {"NonZero"},
        lambda want, got, finite: want.shape[0] == 0 and got.shape[0] == 1,
        "a scalar: the ONNX text wants [0, N], ONNX Runtime gives [1, N]",
    ),
    (
        {"ReduceMean", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin"}
        | {"ReduceProd", "ReduceSum", "ReduceSumSquare"},
        lambda want, got, finite: want.shape != got.shape and 0 in got.shape,
        "a reduction over no elements: ONNX Runtime keeps the extent 0 of the axis that is reduced",
    ),
    (
        None,
        lambda want, got, finite: not finite,
        "NaN, infinities or overflow on the way: conversions of them to integers are not defined, and ONNX Runtime's "
        "kernels drop or make NaN where they pad, compare and take maxima",
    ),
]


def all_finite(arrays: list[np.ndarray]) -> bool:
    """Whether every float is finite and far from overflow."""
    floats = [a.astype(np.float64) for a in arrays if a.dtype.kind == "f" and a.size]
    return all(np.isfinite(a).all() and np.abs(a).max() < 1e17 for a in floats)


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


def difference(got: np.ndarray, want: np.ndarray, bound: np.ndarray, absolute: float) -> str | None:
    """The first element that rounding does not explain."""
    if got.dtype == np.uint8 and want.dtype.itemsize == 1 and want.dtype.name.startswith("float8"):
        want = want.view(np.uint8)  # ONNX Runtime gives the bytes
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
        if got.dtype.kind == "f":
            slack = slack + absolute * max(1.0, float(np.nanmax(np.abs(wide_want)))) + 1e-37
        near = (wide_got == wide_want) | (np.isnan(wide_got) & np.isnan(wide_want)) | (away <= slack)
    near |= np.isinf(bound)
    if near.all():
        return None
    at = int(np.argmin(near))
    return f"element {at} of {near.size}: got {wide_got[at]}, wanted {wide_want[at]}, bound {bound[at]:.3g}"


# Differences of scripts/check's cases that nobody has looked into yet, by number; any other is a failure.
OPEN = {
    "175": "Shrink of integers", "206": "AffineGrid", "255": "AffineGrid", "377": "AffineGrid",
    "577": "MatMulIntegerToFloat", "631": "the mask of Dropout", "650": "Shrink of integers",
    "906": "LinearRegressor of one target (docs/decisions.md: the ONNX text)", "1225": "ConvTranspose",
    "1405": "the mask of Dropout", "1431": "LinearRegressor of one target", "1644": "ReduceSum of large integers",
    "2098": "QDQ around Conv", "2454": "Shrink of integers", "2465": "MaxUnpool of quantised values",
    "2487": "LinearRegressor of one target", "2488": "the mask of Dropout", "2931": "the mask of Dropout",
}


def judge(folder: Path) -> tuple[str, str]:
    """Runs a case in ONNX Runtime: `agree`, `left out`, `known` or `open` with the reason, or `differ` with the place."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    model = onnx.load(folder / "model.onnx")
    found = operators(model.graph)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        inputs = {t.name: numpy_helper.to_array(t) for t in tensors(folder, "input")}
        got = session.run(None, inputs)
    except Exception as error:  # ONNX Runtime's exceptions have no common type below this one
        reason = re.sub(r"[^A-Z_]*:.*", "", re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", str(error)))[:40]
        return "left out", reason
    for number, want in enumerate(tensors(folder, "output")):
        bound = np.load(folder / f"bound_{number}.npy")
        wanted, given = numpy_helper.to_array(want), np.asarray(got[number])
        why = difference(given, wanted, bound, ABSOLUTE if found & APPROXIMATE else 0.0)
        if why is None:
            continue
        held = [numpy_helper.to_array(t) for t in model.graph.initializer]
        finite = all_finite([*inputs.values(), *held, wanted, given])
        reasons = [r for ops, fits, r in KNOWN if (ops is None or found & ops) and fits(wanted, given, finite)]
        if reasons:
            return "known", reasons[0]
        if folder.name in OPEN:
            return "open", f"{folder.name}: {OPEN[folder.name]}"
        name = model.graph.output[number].name
        return "differ", f"{folder.name} `{name}` ({' '.join(sorted(found))}): {why}"
    return "agree", ""


def judge_all(folders: list[Path], send) -> None:
    for folder in folders:
        send.send(judge(folder))


def outcomes(folders: list[Path]) -> list[tuple[str, str]]:
    """Judges in a child process: where ONNX Runtime ends it (a division by 0, say), another goes on behind the case."""
    done: list[tuple[str, str]] = []
    while len(done) < len(folders):
        receive, send = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.Process(target=judge_all, args=(folders[len(done) :], send))
        child.start()
        send.close()
        try:
            while True:
                done.append(receive.recv())
        except EOFError:
            child.join()
        if len(done) < len(folders):
            if child.exitcode is not None and child.exitcode >= 0:
                raise SystemExit(f"case {folders[len(done)].name}: this script failed")
            done.append(("left out", f"ONNX Runtime ends the process (signal {-(child.exitcode or 0)})"))
    return done


def main() -> int:
    folders = sorted(Path(sys.argv[1]).iterdir(), key=lambda p: int(p.name))
    found = outcomes(folders)
    texts = {kind: [text for k, text in found if k == kind] for kind in ("agree", "left out", "known", "open", "differ")}
    count = {kind: len(lines) for kind, lines in texts.items()}
    print(f"{count['agree']} of {len(folders)} agree, {count['left out']} left out, {count['differ']} differ")
    for kind in ("left out", "known", "open"):
        for reason, times in collections.Counter(texts[kind]).most_common():
            print(f"  {kind} {times}: {reason}")
    for line in texts["differ"]:
        print(f"  differs: {line}")
    return 1 if texts["differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
