"""Writes .cache/ml: models of every operator of ai.onnx.ml, with what ONNX Runtime computes for them.

    .cache/venv/bin/python scripts/ml_cases.py

Each is an ONNX test-case folder for `fcc test`; scripts/conformance.py runs them in both engines. Seeded: every
operator, mode, aggregate, transform, kind of label and element type. Thresholds and features are halves, so that rows
meet thresholds exactly, and NaN is among the features. What fcc computes otherwise on purpose stands in
tests/conformance/manifest.txt with the reason.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from backend_cases import serialize
from common import CACHE, write_json
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplemented_

OUT = CACHE / "ml"
VERSION = "v3"
DOMAIN = "ai.onnx.ml"
TYPES = {
    "float": (TensorProto.FLOAT, np.float32),
    "double": (TensorProto.DOUBLE, np.float64),
    "int64": (TensorProto.INT64, np.int64),
    "int32": (TensorProto.INT32, np.int32),
}
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
STRING = TensorProto.STRING
RTOL, ATOL = 1e-4, 1e-5


def tensor_type(elem: int, shape=None) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(elem, shape)


def rows(draw: np.random.Generator, n: int, features: int, dtype, nan=True) -> np.ndarray:
    """Halves from -4 to 4; NaN in some places where the type has it."""
    halves = draw.integers(-8, 9, (n, features)) / 2
    x = halves.astype(dtype)
    if nan and np.issubdtype(dtype, np.floating):
        x[draw.random(x.shape) < 0.1] = np.nan
    return x


class Cases:
    """Writes one folder a case."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        # types that ONNX has and ONNX Runtime does not
        self.left_out: list[str] = []

    def add(
        self,
        name: str,
        op: str,
        inputs: dict,
        outputs: dict,
        version: int = 3,
        given: dict | None = None,
        rtol: float = RTOL,
        **attributes,
    ) -> None:
        """`inputs`: type and value by name; `outputs`: type by name; `given`: attributes for ONNX Runtime alone."""

        def model_of(attributes: dict) -> onnx.ModelProto:
            domain = DOMAIN if op != "ImageScaler" else ""
            node = helper.make_node(op, list(inputs), list(outputs), domain=domain, **attributes)
            graph = helper.make_graph(
                [node],
                "ml",
                [helper.make_value_info(key, ty) for key, (ty, _) in inputs.items()],
                [helper.make_value_info(key, ty) for key, ty in outputs.items()],
            )
            opsets = [helper.make_opsetid("", 17 if domain else 7), helper.make_opsetid(DOMAIN, version)]
            return helper.make_model(graph, opset_imports=opsets, ir_version=8)

        model = model_of(attributes)
        asked = model_of({**attributes, **(given or {})})
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            providers = ["CPUExecutionProvider"]
            session = onnxruntime.InferenceSession(asked.SerializeToString(), options, providers=providers)
        except NotImplemented_:
            self.left_out.append(f"{op} {name}")
            return
        made = session.run(None, {key: value for key, (_, value) in inputs.items()})
        folder = self.folder / f"ml_{op}_{name}"
        data = folder / "test_data_set_0"
        data.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        for i, (key, (ty, value)) in enumerate(inputs.items()):
            (data / f"input_{i}.pb").write_bytes(serialize(value, key, ty))
        for i, ((key, ty), value) in enumerate(zip(outputs.items(), made)):
            (data / f"output_{i}.pb").write_bytes(serialize(value, key, ty))
        write_json(folder / "tol.json", {"rtol": rtol, "atol": ATOL})
        self.count += 1


def forest(draw, trees: int, features: int, targets: int, prefix: str, mode=None, tracks=False, negative=True, each=1):
    """Attributes of a random ensemble of versions 1 and 3."""
    a = {f"nodes_{k}": [] for k in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids", "modes", "values")}
    missing, w = [], {f"{prefix}_{k}": [] for k in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(trees):
        children: list = [None]
        leaves = [0]
        for _ in range(int(draw.integers(1, 9))):
            leaf = leaves.pop(int(draw.integers(len(leaves))))
            children[leaf] = (len(children), len(children) + 1)
            leaves += children[leaf]
            children += [None, None]
        for node, pair in enumerate(children):
            values = {
                "treeids": tree,
                "nodeids": node,
                "featureids": int(draw.integers(features)) if pair else 0,
                "truenodeids": pair[0] if pair else 0,
                "falsenodeids": pair[1] if pair else 0,
                "modes": (mode or MODES[int(draw.integers(6))]) if pair else "LEAF",
                "values": float(draw.integers(-6, 7)) / 2 if pair else 0.0,
            }
            for key, value in values.items():
                a[f"nodes_{key}"].append(value)
            missing.append(int(draw.integers(2)))
            for target in draw.permutation(targets)[: 0 if pair else each]:
                weight = np.float32(draw.normal() if negative else draw.random() / trees)
                for key, value in zip(w, (tree, node, int(target), float(weight))):
                    w[key].append(value)
    if tracks:
        a["nodes_missing_value_tracks_true"] = missing
    return {**a, **w}


def add_regressors(cases: Cases) -> None:
    y = {"y": tensor_type(TensorProto.FLOAT, [None, None])}

    def one(name, elem="float", n=9, targets=1, x=None, **kw):
        draw = np.random.default_rng(abs(hash_of(name)))
        code, dtype = TYPES[elem]
        given = {k: kw.pop(k) for k in ("mode", "tracks", "each") if k in kw}
        attributes = {**forest(draw, kw.pop("trees", 12), 4, targets, "target", **given), "n_targets": targets, **kw}
        # a missing value at BRANCH_NEQ: the text and ONNX Runtime differ
        x = rows(draw, n, 4, dtype, nan=given.get("mode") != "BRANCH_NEQ")
        cases.add(name, "TreeEnsembleRegressor", {"x": (tensor_type(code, [None, 4]), x)}, y, **attributes)

    for mode, tracks in itertools.product(MODES, (False, True)):
        one(f"{mode}_{tracks}", mode=mode, tracks=tracks)
    for elem, how, targets in itertools.product(TYPES, ("SUM", "AVERAGE", "MIN", "MAX"), (1, 3)):
        one(f"{elem}_{how}_{targets}", elem, targets=targets, mode="BRANCH_LEQ", each=targets, aggregate_function=how)
        base = [0.5 - t for t in range(targets)]
        one(f"{elem}_{how}_{targets}_base", elem, targets=targets, mode="BRANCH_LT", each=targets, aggregate_function=how, base_values=base)
    for transform, targets in itertools.product(TRANSFORMS, (1, 3)):
        one(f"{transform}_{targets}", targets=targets, each=targets, mode="BRANCH_LEQ", post_transform=transform)
    for n, trees in itertools.product((1, 8, 130, 300), (3, 200)):
        one(f"rows{n}_trees{trees}", n=n, trees=trees, mode="BRANCH_LEQ")
    # doubles in tensors
    draw = np.random.default_rng(5)
    attributes = forest(draw, 9, 4, 2, "target", mode="BRANCH_LEQ", each=2)
    for name in ("nodes_values", "target_weights"):
        values = np.array(attributes.pop(name), np.float64) + (draw.normal() * 1e-9)
        attributes[f"{name}_as_tensor"] = helper.make_tensor(name, TensorProto.DOUBLE, values.shape, values)
    attributes["base_values_as_tensor"] = helper.make_tensor("b", TensorProto.DOUBLE, [2], [0.25, -0.125])
    x = rows(draw, 9, 4, np.float64)
    cases.add("as_tensor", "TreeEnsembleRegressor", {"x": (tensor_type(TensorProto.DOUBLE, [None, 4]), x)}, y, n_targets=2, **attributes)


def hash_of(name: str) -> int:
    """The same in each run, unlike Python's own."""
    import zlib

    return zlib.crc32(name.encode())


def label_types(strings: bool, classes: int, elem=STRING):
    labels = [f"class {c}" for c in range(classes)] if strings else [10 - 3 * c for c in range(classes)]
    return labels, tensor_type(STRING if strings else TensorProto.INT64, [None])


def add_classifiers(cases: Cases) -> None:
    z = tensor_type(TensorProto.FLOAT, [None, None])

    def one(name, classes, targets, strings, elem="float", **kw):
        draw = np.random.default_rng(hash_of(name))
        code, dtype = TYPES[elem]
        negative = kw.pop("negative", True)
        attributes = forest(draw, 8, 4, targets, "class", mode="BRANCH_LEQ", negative=negative, each=targets)
        labels, label = label_types(strings, classes)
        attributes["classlabels_strings" if strings else "classlabels_int64s"] = labels
        x = rows(draw, 17, 4, dtype)
        outputs = {"label": label, "z": z}
        cases.add(name, "TreeEnsembleClassifier", {"x": (tensor_type(code, [None, 4]), x)}, outputs, **{**attributes, **kw})

    for (classes, targets), transform, strings in itertools.product(((2, 1), (3, 3), (4, 3)), TRANSFORMS, (False, True)):
        if targets == 1 and transform == "PROBIT":
            continue  # ONNX Runtime leaves the second column as it is
        one(f"{classes}_{targets}_{transform}_{strings}", classes, targets, strings, post_transform=transform)
    for negative, base, transform in itertools.product((False, True), ([], [0.25], [0.25, 0.5]), ("NONE", "LOGISTIC")):
        kw = {"base_values": base} if base else {}
        one(f"binary_{negative}_{len(base)}_{transform}", 2, 1, False, negative=negative, post_transform=transform, **kw)
    for elem in TYPES:
        one(f"{elem}", 3, 3, False, elem, base_values=[0.5, 0.0, -0.5])
    one("both_of_two", 2, 2, False)


def add_version_5(cases: Cases) -> None:
    for elem, aggregate, transform in itertools.product(("float", "double"), range(4), (0, 1, 2)):
        code, dtype = TYPES[elem]
        draw = np.random.default_rng(aggregate * 10 + transform)

        def tensor(name, values, code=code):
            return helper.make_tensor(name, code, [len(values)], values)

        nodes, leaves, roots = [], 0, []
        for _ in range(6):
            roots.append(len(nodes))
            first, branches = len(nodes), int(draw.integers(1, 5))
            for b in range(branches):
                # a chain: the true child is the next branch, all others are leaves
                last = b + 1 == branches
                leaves += 1 + last
                nodes.append((first + b + 1, 0, leaves - 1, 1) if not last else (leaves - 2, 1, leaves - 1, 1))
        n = len(nodes)
        columns = list(zip(*nodes))
        modes = draw.integers(0, 5, n).astype(np.uint8)
        x = rows(draw, 11, 4, dtype)
        cases.add(
            f"{elem}_{aggregate}_{transform}",
            "TreeEnsemble",
            {"x": (tensor_type(code, [None, 4]), x)},
            {"y": tensor_type(code, [None, 2])},
            version=5,
            n_targets=2,
            tree_roots=roots,
            nodes_featureids=draw.integers(0, 4, n).tolist(),
            nodes_modes=helper.make_tensor("m", TensorProto.UINT8, [n], modes),
            nodes_splits=tensor("s", draw.integers(-6, 7, n) / 2),
            nodes_truenodeids=columns[0],
            nodes_trueleafs=columns[1],
            nodes_falsenodeids=columns[2],
            nodes_falseleafs=columns[3],
            leaf_weights=tensor("w", draw.normal(size=leaves).astype(dtype)),
            leaf_targetids=draw.integers(0, 2, leaves).tolist(),
            aggregate_function=aggregate,
            post_transform=transform,
            # ONNX Runtime has the numbers of SOFTMAX and LOGISTIC the other way round
            given={"post_transform": (0, 2, 1)[transform]},
        )


def add_linear(cases: Cases) -> None:
    z = tensor_type(TensorProto.FLOAT, [None, None])
    for elem, (scores, classes), transform, strings in itertools.product(
        TYPES, ((1, 2), (3, 3)), TRANSFORMS, (False, True)
    ):
        if elem != "float" and (transform != "NONE" or strings):
            continue
        if scores == 1 and transform == "PROBIT":
            continue  # as of TreeEnsembleClassifier
        draw = np.random.default_rng(scores)
        code, dtype = TYPES[elem]
        x = rows(draw, 7, 4, dtype, nan=False)
        linear = {
            "coefficients": (draw.random(scores * 4) / 20).astype(np.float32).tolist(),
            "intercepts": (0.3 + draw.random(scores) / 9).astype(np.float32).tolist(),
            "post_transform": transform,
        }
        inputs = {"x": (tensor_type(code, [None, 4]), x)}
        labels, label = label_types(strings, classes)
        key = "classlabels_strings" if strings else "classlabels_ints"
        name = f"{elem}_{scores}_{transform}_{strings}"
        cases.add(name, "LinearClassifier", inputs, {"label": label, "z": z}, version=1, **{key: labels}, **linear)
        if elem == "float" and not strings:
            cases.add(name, "LinearRegressor", inputs, {"y": z}, version=1, targets=scores, **linear)


def add_svm(cases: Cases) -> None:
    z = tensor_type(TensorProto.FLOAT, [None, None])
    kernels = {"LINEAR": [0.0, 0.0, 0.0], "POLY": [0.25, 0.5, 3.0], "RBF": [0.125, 0.0, 0.0], "SIGMOID": [0.0625, 0.25, 0.0]}
    for kernel, params in kernels.items():
        draw = np.random.default_rng(len(kernel))
        x = rows(draw, 9, 3, np.float32, nan=False)
        inputs = {"x": (tensor_type(TensorProto.FLOAT, [None, 3]), x)}
        shared = {"kernel_type": kernel, "kernel_params": params}

        def floats(n):
            return draw.normal(size=n).astype(np.float32).tolist()

        for one_class in (0, 1):
            cases.add(
                f"{kernel}_{one_class}",
                "SVMRegressor",
                inputs,
                {"y": z},
                version=1,
                n_supports=5,
                support_vectors=floats(15),
                coefficients=floats(5),
                rho=[0.25],
                one_class=one_class,
                **shared,
            )
        for classes, proba, transform, strings in itertools.product((2, 3, 4), (False, True), TRANSFORMS, (False, True)):
            if (strings and transform != "NONE") or (transform == "PROBIT" and not proba):
                continue  # PROBIT is for probabilities
            labels, label = label_types(strings, classes)
            pairs = classes * (classes - 1) // 2
            counts = [1 + c for c in range(classes)]
            extra = {"prob_a": [-1.5 + p / 8 for p in range(pairs)], "prob_b": floats(pairs)} if proba else {}
            cases.add(
                f"{kernel}_{classes}_{proba}_{transform}_{strings}",
                "SVMClassifier",
                inputs,
                {"label": label, "z": z},
                version=1,
                vectors_per_class=counts,
                support_vectors=floats(3 * sum(counts)),
                coefficients=floats((classes - 1) * sum(counts)),
                rho=floats(pairs),
                post_transform=transform,
                # the slope of PROBIT is steep at both ends
                rtol=1e-3 if transform == "PROBIT" else RTOL,
                **{"classlabels_strings" if strings else "classlabels_ints": labels},
                **extra,
                **shared,
            )
    draw = np.random.default_rng(3)
    for elem, classes in itertools.product(TYPES, (2, 3)):
        code, dtype = TYPES[elem]
        x = rows(draw, 9, 3, dtype, nan=False)
        labels, label = label_types(False, classes)
        cases.add(
            f"liblinear_{elem}_{classes}",
            "SVMClassifier",
            {"x": (tensor_type(code, [None, 3]), x)},
            {"label": label, "z": z},
            version=1,
            kernel_params=[0.0, 0.0, 0.0],
            coefficients=draw.normal(size=3 * classes).astype(np.float32).tolist(),
            rho=[0.125],
            classlabels_ints=labels,
        )
    cases.add(
        "liblinear",
        "SVMRegressor",
        {"x": (tensor_type(TensorProto.FLOAT, [None, 3]), rows(draw, 5, 3, np.float32, nan=False))},
        {"y": z},
        version=1,
        kernel_params=[0.0, 0.0, 0.0],
        n_supports=0,
        coefficients=[0.5, -1.0, 2.0],
        rho=[0.125],
    )


def add_features(cases: Cases) -> None:
    draw = np.random.default_rng(0)
    f, i64 = TensorProto.FLOAT, TensorProto.INT64
    words = np.array([["b", "a"], ["?", "c"]], dtype=object)
    numbers = np.array([[3, -1], [7, 0]], np.int64)
    y = {"y": tensor_type(f, None)}

    def both(elem, shape=(None, 4)):
        code, dtype = TYPES[elem]
        return {"x": (tensor_type(code, list(shape)), rows(draw, 5, 4, dtype))}

    def plain(elem):
        code, dtype = TYPES[elem]
        return {"x": (tensor_type(code, [None, 4]), rows(draw, 5, 4, dtype, nan=False))}

    for elem in TYPES:
        cases.add(f"{elem}_one", "Scaler", plain(elem), y, version=1, offset=[0.5], scale=[-2.0])
        cases.add(f"{elem}_each", "Scaler", plain(elem), y, version=1, offset=[0.5, 1.0, 0.0, -1.5], scale=[1.0, 0.25, -1.0, 3.0])
        for norm in ("MAX", "L1", "L2"):
            cases.add(f"{elem}_{norm}", "Normalizer", plain(elem), y, version=1, norm=norm)
        cats = [3, -1, 0, 2]
        cases.add(elem, "OneHotEncoder", plain(elem), y, version=1, cats_int64s=cats)
        pair = {"a": plain(elem)["x"], "b": (tensor_type(f, [None, 2]), rows(draw, 5, 2, np.float32, nan=False))}
        if elem == "float":
            cases.add(elem, "FeatureVectorizer", pair, y, version=1, inputdimensions=[4, 2])
            at = {"at": (tensor_type(i64, [1, 3]), np.array([[2, 0, 2]], np.int64))}
            cases.add(elem, "ArrayFeatureExtractor", {**plain(elem), **at}, y, version=1)
            cases.add(elem, "Binarizer", plain(elem), y, version=1, threshold=0.5)
    cases.add("string", "OneHotEncoder", {"x": (tensor_type(STRING, [2, 2]), words)}, y, version=1, cats_strings=["a", "b", "z"])
    cases.add("nan", "Imputer", both("float"), y, version=1, imputed_value_floats=[9.0], replaced_value_float=float("nan"))
    cases.add("each", "Imputer", both("float"), y, version=1, imputed_value_floats=[1.0, 2.0, 3.0, 4.0], replaced_value_float=0.5)
    cases.add("int64", "Imputer", plain("int64"), {"y": tensor_type(i64, None)}, version=1, imputed_value_int64s=[9], replaced_value_int64=1)
    texts, counts = {"x": (tensor_type(STRING, [2, 2]), words)}, {"x": (tensor_type(i64, [2, 2]), numbers)}
    to_int, to_text = {"y": tensor_type(i64, [2, 2])}, {"y": tensor_type(STRING, [2, 2])}
    cats = {"cats_strings": ["a", "b", "c"], "cats_int64s": [3, 7, -5]}
    cases.add("to_int", "CategoryMapper", texts, to_int, version=1, default_int64=-9, **cats)
    cases.add("to_string", "CategoryMapper", counts, to_text, version=1, default_string="none", **cats)
    cases.add("v1_to_int", "LabelEncoder", texts, to_int, version=1, classes_strings=["a", "b"])
    cases.add("v1_to_string", "LabelEncoder", counts, to_text, version=1, classes_strings=["a", "b"])
    cases.add("v2_to_float", "LabelEncoder", texts, {"y": tensor_type(f, [2, 2])}, version=2, keys_strings=["a", "b"], values_floats=[0.5, 1.5])
    cases.add("v2_to_string", "LabelEncoder", counts, to_text, version=2, keys_int64s=[3, 7], values_strings=["three", "seven"], default_string="many")
    cases.add("v4_of_float", "LabelEncoder", both("float"), {"y": tensor_type(i64, None)}, version=4, keys_floats=[0.5, 1.0, float("nan")], values_int64s=[1, 2, 3])
    tensors = {
        "keys_tensor": helper.make_tensor("k", TensorProto.DOUBLE, [2], [0.5, -1.0]),
        "values_tensor": helper.make_tensor("v", TensorProto.DOUBLE, [2], [7.0, 8.0]),
        "default_tensor": helper.make_tensor("d", TensorProto.DOUBLE, [1], [-2.0]),
    }
    cases.add("v4_doubles", "LabelEncoder", plain("double"), {"y": tensor_type(TensorProto.DOUBLE, None)}, version=4, **tensors)


def map_type(key: int, value: onnx.TypeProto) -> onnx.TypeProto:
    return helper.make_map_type_proto(key, value)


def add_maps(cases: Cases) -> None:
    f, i64 = TensorProto.FLOAT, TensorProto.INT64
    numbers = {5: 1.5, 0: -2.25, 2: 0.5}
    # maps of strings cannot be given to ONNX Runtime from Python: the operators' own tests have them
    of_floats = map_type(i64, tensor_type(f, []))
    for to, code in (("TO_FLOAT", f), ("TO_STRING", STRING), ("TO_INT64", i64)):
        for form in ({}, {"map_form": "SPARSE", "max_map": 7}, {"map_form": "SPARSE", "max_map": 3}):
            y = {"y": tensor_type(code, [1, None])}
            name = f"{to}_{form.get('max_map', 'dense')}"
            cases.add(name, "CastMap", {"x": (of_floats, numbers)}, y, version=1, cast_to=to, **form)
    by_text = {"x": (map_type(STRING, tensor_type(f, [])), {"b": 2.0, "a": 1.0, "x": 9.0})}
    cases.add("strings", "DictVectorizer", by_text, {"y": tensor_type(f, [1, None])}, version=1, string_vocabulary=["a", "z", "b"])
    by_int = {"x": (of_floats, numbers)}
    cases.add("ints", "DictVectorizer", by_int, {"y": tensor_type(f, [1, None])}, version=1, int64_vocabulary=[0, 1, 2, 5])
    scores = np.array([[0.25, 0.75, 0.0], [1.0, -1.0, 2.0]], np.float32)
    for key, labels in ((STRING, ["no", "yes", "maybe"]), (i64, [7, -1, 3])):
        z = {"z": helper.make_sequence_type_proto(map_type(key, tensor_type(f, [])))}
        attribute = {"classlabels_strings" if key == STRING else "classlabels_int64s": labels}
        cases.add(f"{'strings' if key == STRING else 'ints'}", "ZipMap", {"x": (tensor_type(f, [None, 3]), scores)}, z, version=1, **attribute)


def add_image_scaler(cases: Cases) -> None:
    x = rows(np.random.default_rng(1), 2 * 3 * 4, 5, np.float32, nan=False).reshape(2, 3, 4, 5)
    shape = list(x.shape)
    cases.add("3_channels", "ImageScaler", {"x": (tensor_type(TensorProto.FLOAT, shape), x)}, {"y": tensor_type(TensorProto.FLOAT, shape)}, bias=[0.5, -1.0, 2.0], scale=0.25)


def main() -> None:
    stamp = OUT.parent / f"{OUT.name}.complete"
    wanted = f"onnx {onnx.__version__} onnxruntime {onnxruntime.__version__} {VERSION}\n"
    if stamp.is_file() and stamp.read_text() == wanted and OUT.is_dir():
        print(f"{OUT}: complete")
        return
    temporary = OUT.with_name(f".{OUT.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    cases = Cases(temporary)
    for add in (
        add_regressors,
        add_classifiers,
        add_version_5,
        add_linear,
        add_svm,
        add_features,
        add_maps,
        add_image_scaler,
    ):
        add(cases)
    if cases.count < 300:
        sys.exit(f"expected 300 cases and more, got {cases.count}")
    shutil.rmtree(OUT, ignore_errors=True)
    temporary.rename(OUT)
    stamp.write_text(wanted)
    print(f"{OUT}: {cases.count} cases; {len(cases.left_out)} that ONNX Runtime has no kernel for")


if __name__ == "__main__":
    main()
