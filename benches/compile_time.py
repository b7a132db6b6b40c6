#!/usr/bin/env python3
"""How long fcc takes to load and compile chains of small layers: it must grow in proportion to the layers.

    .cache/venv/bin/python benches/compile_time.py [--layers 100,1000,10000] [--keep FOLDER]

Needs the environment of scripts/setup and a release build (or $FCC). Prints a line for each chain, with the time for
each layer: a column that grows from line to line is a part of the compiler that is not linear.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))


def model(nodes: list, weights: dict[str, np.ndarray], shape: list[int], last: str) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def conv_chain(layers: int) -> onnx.ModelProto:
    """Conv 1x1, Relu, Add of the value before: three operators a layer, one step after fusion."""
    random, nodes, weights, value = np.random.default_rng(0), [], {}, "x"
    for i in range(layers):
        weights[f"w{i}"] = random.standard_normal((16, 16, 1, 1), dtype=np.float32) / 8
        nodes.append(helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"]))
        nodes.append(helper.make_node("Add", [f"c{i}", value], [f"a{i}"]))
        nodes.append(helper.make_node("Relu", [f"a{i}"], [f"r{i}"]))
        value = f"r{i}"
    return model(nodes, weights, [1, 16, 4, 4], value)


def gemm_chain(layers: int) -> onnx.ModelProto:
    """Gemm and Tanh."""
    random, nodes, weights, value = np.random.default_rng(0), [], {}, "x"
    for i in range(layers):
        weights[f"w{i}"] = random.standard_normal((16, 16), dtype=np.float32) / 4
        weights[f"b{i}"] = random.standard_normal(16, dtype=np.float32)
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"g{i}"]))
        nodes.append(helper.make_node("Tanh", [f"g{i}"], [f"t{i}"]))
        value = f"t{i}"
    return model(nodes, weights, [1, 16], value)


def long_lives(layers: int) -> onnx.ModelProto:
    """Values that all live to the end: each layer's result is added up behind the last one."""
    nodes, value = [], "x"
    for i in range(layers):
        nodes.append(helper.make_node("Softmax", [value], [f"s{i}"]))
        value = f"s{i}"
    for i in reversed(range(layers)):
        nodes.append(helper.make_node("Add", [value, f"s{i}"], [f"a{i}"]))
        nodes.append(helper.make_node("Softmax", [f"a{i}"], [f"z{i}"]))
        value = f"z{i}"
    return model(nodes, {}, [4, 16], value)


CHAINS = {"conv-add-relu": conv_chain, "gemm-tanh": gemm_chain, "long-lives": long_lives}


def main() -> None:
    from common import fcc_binary

    parser = argparse.ArgumentParser(description="Compile time of long chains.")
    parser.add_argument("--layers", default="100,1000,10000")
    parser.add_argument("--keep", type=Path, help="write the models here and keep them")
    args = parser.parse_args()
    print(f"{'chain':14} {'layers':>7} {'load ms':>9} {'compile ms':>11} {'us a layer':>11} {'run ms':>9}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name, make in CHAINS.items():
            for layers in map(int, args.layers.split(",")):
                path = folder / f"{name}-{layers}.onnx"
                onnx.save(make(layers), path)
                command = [fcc_binary(), "bench", str(path), "--random", "0", "--threads", "1", "--runs", "1", "--json"]
                found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                each = found["compile_ms"] * 1e3 / layers
                times = f"{found['load_ms']:9.1f} {found['compile_ms']:11.1f} {each:11.1f} {found['min_ms']:9.2f}"
                print(f"{name:14} {layers:7d} {times}", flush=True)


if __name__ == "__main__":
    main()
