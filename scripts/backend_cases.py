"""Writes the ONNX backend tests as test-case folders that `fcc test` reads.

    .cache/venv/bin/python scripts/backend_cases.py [--out DIR]

DIR (default .cache/node) gets one folder a case: NAME/model.onnx, NAME/test_data_set_0/{input,output}_N.pb
and NAME/tol.json with the case's rtol and atol. The cases come from the pinned onnx package itself, and so do those
of its other kinds, which go to folders beside DIR in the same form: simple, pytorch-converted, pytorch-operator, and
real, the nine networks that the package carries with constant weights, with the input that its runner makes.
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
from common import NODE, write_json
from onnx import TensorProto, numpy_helper

# In onnx 1.23.2; other numbers mean another package.
NODE_CASES = 1884
OTHER_CASES = {"simple": 23, "pytorch-converted": 82, "pytorch-operator": 35, "real": 9}


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
        return map_proto(value, name, declared.map_type).SerializeToString()
    if kind == "tensor_type":
        return tensor_proto(value, name, declared.tensor_type.elem_type).SerializeToString()
    raise ValueError(f"{name}: no way to write a value of type {kind}")


def sequence_proto(values, name: str, declared: onnx.TypeProto) -> onnx.SequenceProto:
    """A sequence of tensors; an empty one still says what it would hold."""
    element = declared.sequence_type.elem_type
    proto = onnx.SequenceProto(name=name, elem_type=onnx.SequenceProto.TENSOR)
    if element.WhichOneof("value") == "map_type":
        proto.elem_type = onnx.SequenceProto.MAP
        proto.map_values.extend(map_proto(value, f"{name}_{i}", element.map_type) for i, value in enumerate(values))
        return proto
    if element.WhichOneof("value") != "tensor_type":
        return numpy_helper.from_list(values, name)
    for index, value in enumerate(values):
        proto.tensor_values.append(tensor_proto(value, f"{name}_{index}", element.tensor_type.elem_type))
    return proto


def map_proto(values: dict, name: str, declared: onnx.TypeProto.Map) -> onnx.MapProto:
    """A map; its values are one sequence in the order of the keys."""
    proto = onnx.MapProto(name=name, key_type=declared.key_type)
    if declared.key_type == TensorProto.STRING:
        proto.string_keys.extend(key.encode() for key in values)
    else:
        proto.keys.extend(values)
    elements = onnx.TypeProto()
    elements.sequence_type.elem_type.CopyFrom(declared.value_type)
    elem_type = declared.value_type.tensor_type.elem_type
    as_array = lambda v: np.asarray(v, onnx.helper.tensor_dtype_to_np_dtype(elem_type))  # noqa: E731
    proto.values.CopyFrom(sequence_proto([as_array(v) for v in values.values()], name, elements))
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


def write_real(folder: Path, case) -> None:
    """A network of the package's own data: the input is the one that its runner makes, the output lies beside it."""
    from onnx.backend.test.runner import Runner

    source = Path(onnx.__file__).parent.parent / case.url
    model = onnx.load(source)
    given = {tensor.name for tensor in model.graph.initializer}
    data = folder / "test_data_set_0"
    data.mkdir(parents=True)
    shutil.copy(source, folder / "model.onnx")
    for index, info in enumerate(i for i in model.graph.input if i.name not in given):
        value = Runner.generate_dummy_data(info, name=case.model_name)
        (data / f"input_{index}.pb").write_bytes(numpy_helper.from_array(value, info.name).SerializeToString())
    for index in range(len(model.graph.output)):
        shutil.copy(source.with_name(f"{source.stem}_output_{index}.pb"), data / f"output_{index}.pb")


def write_kind(kind: str, out: Path) -> None:
    """The cases of one kind, with the tolerances that the package names."""
    from onnx.backend.test.loader import load_model_tests

    cases = load_model_tests(kind=kind)
    if len(cases) != OTHER_CASES[kind]:
        sys.exit(f"expected {OTHER_CASES[kind]} {kind} cases, got {len(cases)} from onnx {onnx.__version__}")
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for case in cases:
        folder = temporary / case.name
        if case.model_dir is None:
            write_real(folder, case)
        else:
            shutil.copytree(case.model_dir, folder)
        write_json(folder / "tol.json", {"rtol": case.rtol, "atol": case.atol})
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    print(f"{out}: {len(cases)} {kind} cases")


def write_node(out: Path) -> None:
    """The node cases, which the package makes."""
    warnings.simplefilter("ignore")  # the cases themselves overflow and divide by zero on purpose
    from onnx.backend.test.case import node

    # Some cases draw from numpy's global generator: the same seed gives the same files.
    np.random.seed(0)
    cases = node.collect_testcases()
    if len(cases) != NODE_CASES:
        sys.exit(f"expected {NODE_CASES} node cases, got {len(cases)} from onnx {onnx.__version__}")
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    for case in cases:
        write_case(temporary / case.name, case)
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    print(f"{out}: {len(cases)} node cases")


def complete(out: Path, version: str, force: bool, write) -> None:
    """Writes a folder unless its stamp says that this version of it is there."""
    stamp = out.parent / f"{out.name}.complete"
    wanted = f"onnx {onnx.__version__} {version}\n"
    if not force and stamp.is_file() and stamp.read_text() == wanted:
        print(f"{out}: complete")
        return
    write()
    stamp.write_text(wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the ONNX backend tests as folders.")
    parser.add_argument("--out", type=Path, default=NODE)
    parser.add_argument("--force", action="store_true", help="write again even if complete")
    args = parser.parse_args()
    complete(args.out, "v2", args.force, lambda: write_node(args.out))
    for kind in OTHER_CASES:
        out = args.out.parent / kind
        complete(out, "v1", args.force, lambda kind=kind, out=out: write_kind(kind, out))


if __name__ == "__main__":
    main()
