"""Writes the ONNX backend node tests as test-case folders that `fcc test` reads.

    .cache/venv/bin/python scripts/backend_cases.py [--out DIR]

DIR (default .cache/node) gets one folder a case: NAME/model.onnx, NAME/test_data_set_0/{input,output}_N.pb
and NAME/tol.json with the case's rtol and atol. The cases come from the pinned onnx package itself, and so do
the 23 `simple` models, which go to DIR/../simple in the same form.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from common import NODE, read_json, write_json
from onnx import TensorProto, numpy_helper

NODE_CASES = 1884  # in onnx 1.23.2; another number means another package


def tensor_proto(value, name: str, elem_type: int) -> TensorProto:
    """A tensor of exactly the declared type: numpy alone cannot tell strings from objects."""
    if isinstance(value, TensorProto):
        proto = TensorProto()
        proto.CopyFrom(value)
        proto.name = name
        return proto
    array = np.asarray(value)
    if elem_type == TensorProto.STRING:
        array = array.astype(object)
    return numpy_helper.from_array(array, name)


def serialize(value, name: str, declared: onnx.TypeProto) -> bytes:
    """One value as the proto that its declared type calls for."""
    kind = declared.WhichOneof("value")
    if kind == "sequence_type":
        return sequence_proto(value, name, declared).SerializeToString()
    if kind == "optional_type":
        return optional_proto(value, name, declared.optional_type.elem_type).SerializeToString()
    if kind == "map_type":
        return numpy_helper.from_dict(value, name).SerializeToString()
    if kind == "tensor_type":
        return tensor_proto(value, name, declared.tensor_type.elem_type).SerializeToString()
    raise ValueError(f"{name}: no way to write a value of type {kind}")


def sequence_proto(values, name: str, declared: onnx.TypeProto) -> onnx.SequenceProto:
    """A sequence of tensors; an empty one still says what it would hold."""
    element = declared.sequence_type.elem_type
    proto = onnx.SequenceProto(name=name, elem_type=onnx.SequenceProto.TENSOR)
    if element.WhichOneof("value") != "tensor_type":
        return numpy_helper.from_list(values, name)
    for index, value in enumerate(values):
        proto.tensor_values.append(tensor_proto(value, f"{name}_{index}", element.tensor_type.elem_type))
    return proto


def optional_proto(value, name: str, inner: onnx.TypeProto) -> onnx.OptionalProto:
    """An optional: the inner value when there is one, else UNDEFINED, as the onnx package writes it."""
    sequence = inner.WhichOneof("value") == "sequence_type"
    proto = onnx.OptionalProto(name=name)
    if value is None:
        proto.elem_type = onnx.OptionalProto.UNDEFINED
        return proto
    proto.elem_type = onnx.OptionalProto.SEQUENCE if sequence else onnx.OptionalProto.TENSOR
    if sequence:
        proto.sequence_value.CopyFrom(sequence_proto(value, name, inner))
    else:
        proto.tensor_value.CopyFrom(tensor_proto(value, name, inner.tensor_type.elem_type))
    return proto


def write_case(folder: Path, case) -> None:
    """One folder: the model, its data sets and its tolerances."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString())
    for number, (inputs, outputs) in enumerate(case.data_sets):
        data = folder / f"test_data_set_{number}"
        data.mkdir()
        graph = case.model.graph
        for kind, values, infos in (("input", inputs, graph.input), ("output", outputs, graph.output)):
            if len(values) > len(infos):
                raise ValueError(f"{case.name}: {len(values)} {kind}s for {len(infos)} declared")
            for index, (value, info) in enumerate(zip(values, infos)):
                (data / f"{kind}_{index}.pb").write_bytes(serialize(value, info.name, info.type))
    write_json(folder / "tol.json", {"rtol": case.rtol, "atol": case.atol})


def copy_simple(source: Path, out: Path) -> int:
    """The package's own `simple` test folders, with a tolerance file."""
    shutil.rmtree(out, ignore_errors=True)
    count = 0
    for case in sorted(path for path in source.iterdir() if (path / "model.onnx").is_file()):
        shutil.copytree(case, out / case.name)
        data = case / "data.json"
        given = read_json(data) if data.is_file() else {}
        write_json(out / case.name / "tol.json", {"rtol": given.get("rtol", 1e-3), "atol": given.get("atol", 1e-7)})
        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the ONNX backend node tests as folders.")
    parser.add_argument("--out", type=Path, default=NODE)
    parser.add_argument("--force", action="store_true", help="write again even if complete")
    args = parser.parse_args()

    stamp = args.out.parent / f"{args.out.name}.complete"
    wanted = f"onnx {onnx.__version__} v2\n"
    if not args.force and stamp.is_file() and stamp.read_text() == wanted:
        print(f"{args.out}: complete")
        return
    warnings.simplefilter("ignore")  # the cases themselves overflow and divide by zero on purpose
    from onnx.backend.test.case import node

    # Some cases draw from numpy's global generator: the same seed gives the same files.
    np.random.seed(0)
    cases = node.collect_testcases()
    if len(cases) != NODE_CASES:
        sys.exit(f"expected {NODE_CASES} node cases, got {len(cases)} from onnx {onnx.__version__}")
    temporary = args.out.with_name(f".{args.out.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    for case in cases:
        write_case(temporary / case.name, case)
    shutil.rmtree(args.out, ignore_errors=True)
    temporary.rename(args.out)
    simple = copy_simple(Path(onnx.__file__).parent / "backend/test/data/simple", args.out.parent / "simple")
    stamp.write_text(wanted)
    print(f"{args.out}: {len(cases)} node cases, {simple} simple models")


if __name__ == "__main__":
    main()
