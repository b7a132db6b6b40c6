#!/usr/bin/env python3
"""fcc's own kernels beside the machine's peak and ONNX Runtime, one thread, f32.

    python3 benches/peers/kernels.py [--rounds 3]

Sets up its environment (scripts/setup), builds the kernel benchmark of fcc-jit, and times it and a model of one node in
ONNX Runtime in turn. % of peak is against a loop of independent multiply-adds in the widest vectors of this CPU, measured
in the same process just before. GFLOP/s count the direct algorithm's operations, so that a Winograd kernel, which does
fewer, may pass the peak. fcc's figure is its kernel alone, on activations in its own layout; ONNX Runtime's is a whole run
of the model with bound buffers, so with its copies to and from its own layout if it makes any: a ratio of unlike things
for the convolutions, which the table says. $FCC_KERNELS names a binary to use in place of a built one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".cache/venv/bin/python"
# Row -> the filter of the kernel benchmark, and the problem: a square product, or a convolution [channels, size].
ROWS = {
    "gemm 1024x1024x1024": ("gemm", 1024, 0),
    "gemm 512x512x512": ("gemm", 512, 0),
    "conv 3x3/1 64->64 56x56": ("conv", 64, 56),
    "conv 3x3/1 256->256 14x14": ("conv", 256, 14),
}


def in_environment() -> None:
    subprocess.run([ROOT / "scripts/setup"], check=True)
    if Path(sys.prefix).resolve() != PYTHON.parent.parent.resolve():
        os.execv(PYTHON, [str(PYTHON), __file__, *sys.argv[1:]])


def one_node(kind: str, n: int, size: int):
    """A model of the row's one node, its inputs and its operations."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    if kind == "gemm":
        shape, w, flops = [n, n], random.standard_normal((n, n), dtype=np.float32), 2 * n**3
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
    else:
        shape, flops = [1, n, size, size], 2 * n * n * 9 * size * size
        w = random.standard_normal((n, n, 3, 3), dtype=np.float32)
        node = helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {"x": random.standard_normal(shape, dtype=np.float32)}, flops


def onnxruntime_gflops(row: str, folder: Path) -> float:
    import onnx
    from common import write_npz

    model, inputs, flops = one_node(*ROWS[row])
    path, given = folder / "one.onnx", folder / "one.npz"
    onnx.save(model, path)
    write_npz(given, inputs)
    task = {"runner": "onnxruntime", "model": str(path), "inputs": str(given), "threads": 1, "seconds": 0.5, "set": {}}
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    command = [PYTHON, ROOT / "benches/peers/worker.py", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return flops / json.loads(done.stdout)["min_ms"] / 1e6


def fcc_kernels(program: str, row: str) -> list[dict]:
    """The kernels of a row: the direct one, and Winograd's where it pays."""
    done = subprocess.run([program, row, "--json"], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def build() -> str:
    if os.environ.get("FCC_KERNELS"):
        return os.environ["FCC_KERNELS"]
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "fcc-jit", "--example", "kernels"], cwd=ROOT, check=True)
    return str(ROOT / "target/release/examples/kernels")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time fcc's kernels beside the peak and ONNX Runtime.")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    in_environment()
    sys.path.insert(0, str(ROOT / "scripts"))
    program = build()
    print("| row | kernel | GFLOP/s | peak | % of peak | ONNX Runtime GFLOP/s | fcc / ONNX Runtime, in speed |")
    print("|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        for row in ROWS:
            best: dict[str, dict] = {}
            peer = 0.0
            for _ in range(args.rounds):
                for found in fcc_kernels(program, row):
                    kept = best.setdefault(found["kernel"], found)
                    best[found["kernel"]] = max(kept, found, key=lambda k: k["gflops"] / k["peak_gflops"])
                peer = max(peer, onnxruntime_gflops(row, Path(scratch)))
            for name, found in best.items():
                rate, peak = found["gflops"], found["peak_gflops"]
                cells = [row, name, f"{rate:.1f}", f"{peak:.0f}", f"{100 * rate / peak:.0f}", f"{peer:.1f}"]
                print(f"| {' | '.join(cells)} | {rate / peer:.2f} |", flush=True)


if __name__ == "__main__":
    main()
