"""Are two ONNX files the same model? Node by node, through the onnx package.

    .cache/venv/bin/python scripts/check_roundtrip.py A.onnx B.onnx

Everything counts: attributes, names, doc strings, metadata, value_info, functions, subgraphs, opset imports,
initializers with the contents of external data, sparse initializers, quantization annotations, training info.
The order of nodes, inputs and outputs counts; the order of things that have a name (attributes, initializers,
value_info, metadata, opsets, functions) does not. A tensor is its name, type, shape and bytes, wherever they are
stored. Exit code 1 and one line for each difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, numpy_helper

# Lists whose elements have a key: compared by it, not by place.
KEYS = {
    "AttributeProto": lambda a: a.name,
    "TensorProto": lambda t: t.name,
    "SparseTensorProto": lambda s: s.values.name,
    "ValueInfoProto": lambda v: v.name,
    "StringStringEntryProto": lambda e: e.key,
    "OperatorSetIdProto": lambda o: "" if o.domain == "ai.onnx" else o.domain,
    "FunctionProto": lambda f: (f.domain, f.name, f.overload),
    "TensorAnnotation": lambda a: a.tensor_name,
}
ORDERED = {
    ("GraphProto", "input"),
    ("GraphProto", "output"),
    ("AttributeProto", "tensors"),
    ("AttributeProto", "sparse_tensors"),
}
# Where the bytes of a tensor are stored, and how, is not what the model is.
STORAGE = {
    "raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data",
    "external_data", "data_location", "segment",
}  # fmt: skip


def describe(message: Message, field: str, index: int) -> str:
    """A place in words: `node[3] (Conv -> y)`, `attribute[1] (pads)`."""
    if isinstance(message, onnx.NodeProto):
        return f"{field}[{index}] ({message.op_type} -> {', '.join(message.output)})"
    name = getattr(message, "name", "") or getattr(message, "key", "")
    return f"{field}[{index}] ({name})" if name else f"{field}[{index}]"


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def tensor_values(tensor: TensorProto, folder: Path):
    """The values of a tensor: bytes, or the list of strings."""
    if tensor.data_type == TensorProto.STRING:
        return list(tensor.string_data)
    return numpy_helper.to_array(tensor, base_dir=str(folder)).tobytes()


class Comparison:
    """Two models and the folders in which their external data lie."""

    def __init__(self, a_folder: Path, b_folder: Path) -> None:
        self.folders = a_folder, b_folder

    def tensors(self, a: TensorProto, b: TensorProto, place: str) -> Iterator[str]:
        if a.data_type != b.data_type or list(a.dims) != list(b.dims):
            return  # the fields themselves say so
        if tensor_values(a, self.folders[0]) != tensor_values(b, self.folders[1]):
            yield f"{place}: values differ"

    def messages(self, a: Message, b: Message, place: str) -> Iterator[str]:
        """Differences between two messages of one type."""
        kind = a.DESCRIPTOR.name
        if isinstance(a, TensorProto):
            yield from self.tensors(a, b, place)
        for field in a.DESCRIPTOR.fields:
            if isinstance(a, TensorProto) and field.name in STORAGE:
                continue
            where = f"{place}.{field.name}"
            x, y = getattr(a, field.name), getattr(b, field.name)
            if field.is_repeated:
                yield from self.lists(x, y, where, field, kind)
            elif field.containing_oneof is not None or field.type == FieldDescriptor.TYPE_MESSAGE:
                if a.HasField(field.name) != b.HasField(field.name):
                    yield f"{where}: in the {'first' if a.HasField(field.name) else 'second'} only"
                elif a.HasField(field.name) and isinstance(x, Message):
                    yield from self.messages(x, y, where)
                elif a.HasField(field.name) and x != y:
                    yield f"{where}: {short(x)} and {short(y)}"
            elif x != y and not (x != x and y != y):
                yield f"{where}: {short(x)} and {short(y)}"

    def lists(self, x, y, place: str, field: FieldDescriptor, parent: str) -> Iterator[str]:
        """Differences between two lists: by key where the elements have one, else by place."""
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            same = len(x) == len(y) and all(p == q or (p != p and q != q) for p, q in zip(x, y))
            if not same:
                yield f"{place}: {short(list(x))} and {short(list(y))}"
            return
        key = KEYS.get(field.message_type.name)
        if key is None or (parent, field.name) in ORDERED:
            if len(x) != len(y):
                yield f"{place}: {len(x)} and {len(y)} elements"
            for index, (p, q) in enumerate(zip(x, y)):
                yield from self.messages(p, q, f"{place.rsplit('.', 1)[0]}.{describe(p, field.name, index)}")
            return
        by_key = {key(q): q for q in y}
        for index, p in enumerate(x):
            where = f"{place.rsplit('.', 1)[0]}.{describe(p, field.name, index)}"
            if key(p) not in by_key:
                yield f"{where}: {key(p)!r} in the first only"
            else:
                yield from self.messages(p, by_key[key(p)], where)
        for extra in by_key.keys() - {key(p) for p in x}:
            yield f"{place}: {extra!r} in the second only"


def differences(a_path: Path, b_path: Path) -> list[str]:
    """Every difference between two model files, in words."""
    a = onnx.load(a_path, load_external_data=False)
    b = onnx.load(b_path, load_external_data=False)
    return list(Comparison(a_path.parent, b_path.parent).messages(a, b, "model"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare two ONNX models node by node.")
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    args = parser.parse_args()
    found = differences(args.a, args.b)
    for line in found[:20]:
        print(line)
    if found:
        sys.exit(f"{len(found)} differences between {args.a} and {args.b}")
    print(f"{args.a} and {args.b}: equal")


if __name__ == "__main__":
    main()
