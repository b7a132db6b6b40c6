"""The fixed facts of operators, as Rust tables: crates/fcc-ir/src/schema/{onnx,runtime}.rs.

`onnx.rs` is what the onnx package says of ONNX's own operators, `runtime.rs` what the onnxruntime package says of
those that only ONNX Runtime has: its domain `com.microsoft`, and versions in ONNX's domain that ONNX does not have.
`.cache/venv/bin/python scripts/schemas.py` writes both from the versions that scripts/requirements.txt pins;
`--check` writes nothing and fails with the difference where a file is another. Names, kinds and types only: the
specifications' text stays where it is.
"""
import difflib
import pathlib
import re
import sys

import onnx
import onnxruntime
from onnx import defs
from onnxruntime.capi import onnxruntime_pybind11_state

FOLDER = pathlib.Path(__file__).parent.parent / "crates/fcc-ir/src/schema"
# in ONNX's domain in ONNX Runtime, with another meaning than ONNX gave the name later
OTHER_MEANING = {"MeanVarianceNormalization"}

# element types in the names of the text syntax -> the variants of DType
DTYPES = {
    "float": "F32", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "int32": "I32", "int64": "I64",
    "string": "String", "bool": "Bool", "float16": "F16", "double": "F64", "uint32": "U32", "uint64": "U64",
    "complex64": "C64", "complex128": "C128", "bfloat16": "BF16", "float8e4m3fn": "F8E4M3FN",
    "float8e4m3fnuz": "F8E4M3FNUZ", "float8e5m2": "F8E5M2", "float8e5m2fnuz": "F8E5M2FNUZ", "uint4": "U4",
    "int4": "I4", "float4e2m1": "F4E2M1", "float8e8m0": "F8E8M0", "uint2": "U2", "int2": "I2",
    "float6e2m3": "F6E2M3", "float6e3m2": "F6E3M2",
}
ORDER = list(DTYPES)
KINDS = {
    "FLOAT": "Float", "INT": "Int", "STRING": "STRING", "TENSOR": "Tensor", "GRAPH": "Graph", "FLOATS": "Floats",
    "INTS": "Ints", "STRINGS": "Strings", "TENSORS": "Tensors", "GRAPHS": "Graphs", "SPARSE_TENSOR": "SparseTensor",
    "SPARSE_TENSORS": "SparseTensors", "TYPE_PROTO": "Type", "TYPE_PROTOS": "Types",
}
FORMS = [
    ("tensors", re.compile(r"tensor\((\w+)\)$")),
    ("sequences", re.compile(r"seq\(tensor\((\w+)\)\)$")),
    ("optionals", re.compile(r"optional\(tensor\((\w+)\)\)$")),
    ("optional_sequences", re.compile(r"optional\(seq\(tensor\((\w+)\)\)\)$")),
]
UNBOUNDED = 2147483647


def types_of(names):
    """A Rust expression for a set of type strings."""
    found = {form: set() for form, _ in FORMS}
    other = False
    for name in names:
        for form, pattern in FORMS:
            match = pattern.match(name)
            if match:
                found[form].add(match[1])
                break
        else:
            # maps, sequences of maps, sparse tensors
            other = True
    text = "Types::NONE"
    for form, elements in found.items():
        if elements:
            listed = ", ".join(DTYPES[e] for e in sorted(elements, key=ORDER.index))
            text += f".{form}(&[{listed}])"
    return text + (".others()" if other else "")


class Table:
    """Rows of one package: its schemas have the same fields in both, under slightly different names."""

    def __init__(self, snake):
        self.sets = {}
        self.type_name = "type_str" if snake else "typeStr"
        self.homogeneous = "is_homogeneous" if snake else "isHomogeneous"

    def set(self, names):
        text = types_of(names)
        return self.sets.setdefault(text, f"S{len(self.sets)}")

    def param(self, schema, param, letters):
        constraints = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
        kind = {"Single": "one", "Optional": "optional", "Variadic": "variadic"}[param.option.name]
        name = getattr(param, self.type_name)
        if name in constraints:
            allowed = constraints[name]
            # letters number the type parameters: equal letters, equal types
            letter = letters.setdefault(name, len(letters) + 1)
        else:
            allowed, letter = [name], 0
        if kind == "variadic" and not getattr(param, self.homogeneous):
            letter = 0
        return f'{kind}("{param.name}", {letter}, {self.set(allowed)})'

    def operator(self, schema):
        letters = {}
        attrs = [
            f'{"required" if a.required else "attr"}("{name}", {KINDS[a.type.name]})'
            for name, a in sorted(schema.attributes.items())
        ]
        inputs = [self.param(schema, p, letters) for p in schema.inputs]
        outputs = [self.param(schema, p, letters) for p in schema.outputs]
        most = lambda n: "MANY" if n >= UNBOUNDED else str(n)
        head = f'"{schema.domain}", "{schema.name}", {schema.since_version}'
        if schema.deprecated:
            return f"    deprecated(({head})),\n"
        counts = (
            f"({schema.min_input}, {most(schema.max_input)}), ({schema.min_output}, {most(schema.max_output)})"
        )
        parts = [f"&[{', '.join(part)}]" for part in (attrs, inputs, outputs)]
        return f"    op(({head}), {counts}, {', '.join(parts)}),\n"

    def file(self, what, name, schemas):
        rows = "".join(
            self.operator(s) for s in sorted(schemas, key=lambda s: (s.domain, s.name, s.since_version))
        )
        kinds = sorted(set(re.findall(r'", (\w+)\)', "".join(re.findall(r'(?:attr|required)\([^)]*\)', rows)))))
        kinds = ", ".join(k for k in kinds if k != "STRING")
        sets = "".join(f"const {name}: Types = {text};\n" for text, name in self.sets.items())
        return f"""//! {what} Generated by `scripts/schemas.py`; do not edit.
use super::facts::*;
use crate::DType::*;
use crate::attr::AttrKind::{{self, {kinds}}};

const STRING: AttrKind = AttrKind::String;

#[rustfmt::skip]
mod sets {{
use super::*;
{re.sub("^const", "pub const", sets, flags=re.M)}}}
use sets::*;

/// Sorted by domain, name and since-version.
#[rustfmt::skip]
pub(super) static {name}: &[OpFacts] = &[
{rows}];
"""


def generate():
    own = defs.get_all_schemas_with_history()
    known = {(s.domain, s.name, s.since_version) for s in own if not s.deprecated}
    further = [
        s
        for s in onnxruntime_pybind11_state.get_all_operator_schema()
        if s.domain == "com.microsoft"
        or (
            s.domain == ""
            and (s.domain, s.name, s.since_version) not in known
            and not s.deprecated
            and s.name not in OTHER_MEANING
        )
    ]
    return {
        "onnx.rs": Table(snake=True).file(
            f"Every operator of onnx {onnx.__version__}, every version of it.", "ONNX", own
        ),
        "runtime.rs": Table(snake=False).file(
            f"What only ONNX Runtime {onnxruntime.__version__} has: `com.microsoft`, and versions in ONNX's domain.",
            "RUNTIME",
            further,
        ),
    }


def main():
    check = "--check" in sys.argv[1:]
    for name, text in generate().items():
        target = FOLDER / name
        if not check:
            target.write_text(text)
            continue
        old = target.read_text()
        if old != text:
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), text.splitlines(True), name, "packages"))
            sys.exit(f"{target} is not what the pinned packages say: run scripts/schemas.py")


main()
