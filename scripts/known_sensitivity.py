"""Checks the reason that tests/conformance/models.txt gives: ONNX Runtime itself moves as far.

    .cache/venv/bin/python scripts/known_sensitivity.py [NAME...]

A dynamically quantised network turns the last bit of a float into a whole quantum now and then. The float inputs and
float weights of each model of the manifest are moved by one unit in the last place, each element up, down or not at
all, and ONNX Runtime runs again. fcc's difference from the unmoved results is explained where it is no larger than the
largest of these, but for a hundredth, in the largest element and in the root mean square of the differences. A model
that is explained by its sensitivity alone could still hide an error of that size: the operators that it is made of are
held by their own tests (tests/int8.rs, tests/recurrent.rs, the ONNX backend cases).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from common import EXPECTED, MODELS, ROOT, fcc_binary
from expected import row_names, session, table
from manifest import ENGINES, Manifest
from onnx import numpy_helper

TRIALS = 12
# The same quantum flips, and what is left differs in the last place.
MARGIN = 1.01


def moved(array: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Each element one unit up, one down, or as it is."""
    toward = draw.choice(np.array([-np.inf, 0, np.inf], dtype=array.dtype), size=array.shape)
    neighbour = np.nextafter(array, toward)
    return np.where(toward == 0, array, neighbour).astype(array.dtype)


def distance(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The largest difference and the root mean square, of each float output."""
    found = {}
    for name, expected in want.items():
        if expected.dtype.kind == "f":
            off = np.abs(got[name].astype(np.float64) - expected.astype(np.float64))
            found[name] = (float(off.max(initial=0.0)), float(np.sqrt(np.mean(off**2))))
    return found


def by_fcc(model: str, name: str, engine: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        inputs = EXPECTED / f"{name}.inputs.npz"
        command = [fcc_binary(), "run", MODELS / f"{model}.onnx", "--inputs", inputs]
        subprocess.run(list(map(str, [*command, "--engine", engine, "--outputs", out])), check=True, capture_output=True)
        return dict(np.load(out))


def by_runtime(model: str, name: str, want: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The largest distances of ONNX Runtime's results from its own, over the trials."""
    proto = onnx.load(MODELS / f"{model}.onnx")
    weights = {w.name: numpy_helper.to_array(w) for w in proto.graph.initializer}
    inputs = dict(np.load(EXPECTED / f"{name}.inputs.npz"))
    largest = {}
    for seed in range(TRIALS):
        draw = np.random.default_rng(seed)
        for w in proto.graph.initializer:
            if weights[w.name].dtype == np.float32:
                w.CopyFrom(numpy_helper.from_array(moved(weights[w.name], draw), w.name))
        given = {k: moved(v, draw) if v.dtype == np.float32 else v for k, v in inputs.items()}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "moved.onnx"
            onnx.save(proto, path)
            runtime = session(path)
            got = dict(zip(want, runtime.run(list(want), given)))
        for key, found in distance(got, want).items():
            largest[key] = tuple(map(max, zip(found, largest.get(key, (0.0, 0.0)))))
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description="Hold fcc's differences against ONNX Runtime's own sensitivity.")
    parser.add_argument("names", nargs="*", help="only models whose name contains one of these")
    args = parser.parse_args()
    manifest, problems, checked = Manifest.read(ROOT / "tests/conformance/models.txt"), [], 0
    for model, rows in table().items():
        for name in row_names(model, rows):
            engines = [e for e in ENGINES if any(entry.covers(name, e) for entry in manifest.entries)]
            if not engines or (args.names and not any(part in name for part in args.names)):
                continue
            want = dict(np.load(EXPECTED / f"{name}.outputs.npz"))
            allowed = by_runtime(model, name, want)
            for engine in engines:
                checked += 1
                for key, found in distance(by_fcc(model, name, engine), want).items():
                    own = allowed[key]
                    line = f"{name}, {engine}, {key}: largest {found[0]:.3g} of {own[0]:.3g}, rms {found[1]:.3g} of {own[1]:.3g}"
                    print(line, flush=True)
                    if found[0] > MARGIN * own[0] or found[1] > MARGIN * own[1]:
                        problems.append(line)
    if problems or not checked:
        sys.exit("\n".join(["differences that ONNX Runtime's own sensitivity does not explain:", *problems]))


if __name__ == "__main__":
    main()
