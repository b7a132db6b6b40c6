"""Runs ONNX Runtime on the models of fixtures/models_inputs.json and keeps what it computed.

    .cache/venv/bin/python scripts/expected.py [NAME...]

.cache/expected/NAME.inputs.npz and NAME.outputs.npz, keys = the graph's input and output names, so that
`fcc run MODEL --inputs NAME.inputs.npz --expect NAME.outputs.npz` checks fcc. A model with several rows in the
table (other batch or image sizes) gets NAME@1, NAME@2, ... from the second row on.

A row of the table: {"set": {symbol: size}, "inputs": {name: [dtype, shape, values...]}}. Values: nothing = seeded
normal; "pixels" = seeded in [0, 1); "page" = something like a scanned page; "ones"; one number = that constant; two = seeded integers in [low, high).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from pathlib import Path

import numpy as np
from common import EXPECTED, FIXTURES, MODELS, read_json, sha256, write_file, write_npz


def table() -> dict[str, list[dict]]:
    return read_json(FIXTURES / "models_inputs.json")


def row_names(model: str, rows: list[dict]) -> list[str]:
    """File stems of a model's rows: NAME, NAME@1, ...; a folder in the name becomes a dot."""
    stem = model.replace("/", ".")
    return [stem if index == 0 else f"{stem}@{index}" for index in range(len(rows))]


def page(draw: np.random.Generator, shape: list[int]) -> np.ndarray:
    """Something like a scanned page in [-1, 1]: lines of dark strokes on white, with a little noise.

    A text detector answers 0 everywhere on plain noise, which would compare nothing.
    """
    count, channels, height, width = shape
    image = np.ones((count, 1, height, width))
    line, cell = 20, 14
    for n in range(count):
        for top in range(12, height - line, 2 * line):
            for left in range(16, width - 2 * cell, cell):
                if draw.random() < 0.15:
                    continue  # a space between words
                x, y = left + draw.integers(0, cell - 6), top + draw.integers(0, line - 8)
                image[n, 0, top : top + line - 2, x : x + 3] = -0.9
                image[n, 0, y : y + 3, left : left + cell - 3] = -0.9
    return image + 0.05 * draw.standard_normal((count, channels, height, width))


def make_input(name: str, seed: int, dtype: str, shape: list[int], *values) -> np.ndarray:
    """One input as the table describes it; the same name and seed give the same numbers."""
    draw = np.random.default_rng([seed, zlib.crc32(name.encode())])
    kind = np.dtype(dtype)
    match values:
        case ():
            array = draw.standard_normal(shape)
        case ("pixels",):
            array = draw.random(shape)
        case ("page",):
            array = page(draw, shape)
        case ("ones",):
            array = np.ones(shape)
        case (constant,):
            array = np.full(shape, constant)
        case (low, high):
            array = draw.integers(low, high, shape)
        case _:
            sys.exit(f"{name}: values {values} are no form that this script knows")
    return np.asarray(array).astype(kind)


def make_inputs(row: dict, seed: int) -> dict[str, np.ndarray]:
    return {name: make_input(name, seed, *form) for name, form in row["inputs"].items()}


def session(path: Path, threads: int = 1):
    """An ONNX Runtime session on the CPU, quiet.

    On one thread: on several, DynamicQuantizeLSTM quantises each thread's part of a batch by itself, and its results
    depend on their number.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_finite(name: str, outputs: dict[str, np.ndarray]) -> None:
    """Outputs that are not finite, or all one value, would make the comparison prove nothing."""
    for key, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            sys.exit(f"{name}: output {key} is not finite")
        if array.dtype.kind == "f" and array.size > 1 and np.ptp(array.astype(np.float64)) == 0:
            sys.exit(f"{name}: output {key} is {array.flat[0]} everywhere")


def fingerprint(path: Path, row: dict, seed: int) -> str:
    """What an expected output depends on: another model, row or runtime means running again."""
    import onnxruntime

    parts = [onnxruntime.__version__, sha256(path.read_bytes()), str(seed), json.dumps(row, sort_keys=True), "1 thread"]
    return sha256("\n".join(parts).encode()) + "\n"


def run_model(model: str, rows: list[dict], force: bool) -> int:
    """Runs the rows of one model that are not there yet; returns how many it ran."""
    path = MODELS / f"{model}.onnx"
    if not path.is_file():
        sys.exit(f"{path} is missing: run scripts/fetch_models.py")
    stamps = {}
    for seed, (name, row) in enumerate(zip(row_names(model, rows), rows), start=1):
        stamp = fingerprint(path, row, seed)
        kept = EXPECTED / f"{name}.stamp"
        if force or not kept.is_file() or kept.read_text() != stamp:
            stamps[name] = (seed, row, stamp)
    if not stamps:
        return 0
    runtime = session(path)
    for name, (seed, row, stamp) in stamps.items():
        start = time.monotonic()
        inputs = make_inputs(row, seed)
        keys = [output.name for output in runtime.get_outputs()]
        outputs = dict(zip(keys, runtime.run(keys, inputs)))
        check_finite(name, outputs)
        write_npz(EXPECTED / f"{name}.inputs.npz", inputs)
        write_npz(EXPECTED / f"{name}.outputs.npz", outputs)
        write_file(EXPECTED / f"{name}.stamp", stamp.encode())
        shapes = ", ".join(f"{key} {list(array.shape)}" for key, array in outputs.items())
        print(f"{name}: {shapes}, {time.monotonic() - start:.2f} s", flush=True)
    return len(stamps)


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep ONNX Runtime's outputs for the real models.")
    parser.add_argument("names", nargs="*", help="only models whose name contains one of these")
    parser.add_argument("--force", action="store_true", help="run again what is there already")
    args = parser.parse_args()
    count = 0
    for model, rows in table().items():
        if not args.names or any(name in model for name in args.names):
            count += run_model(model, rows, args.force)
    print(f"{EXPECTED}: {count} runs")


if __name__ == "__main__":
    main()
