"""Checks `fcc rewrite` and `fcc print` from outside, with the onnx package and ONNX Runtime.

    .cache/venv/bin/python scripts/verify_rewrites.py [--only KIND] [NAME...]

roundtrip  `fcc rewrite --rule none` gives an equal model: every real model, the light models as they came, fixtures
memory     rewriting the largest model peaks below 1.3 times its size
print      `fcc print --constants` is read by onnx.parser and is the same graph
rewrites   each rule on each model: onnx.checker accepts the result, ONNX Runtime computes the same outputs, and
           each rule applied somewhere
problems   the same on the small models of scripts/problems.py, bit by bit
digits     after each rule, the digit models give the same answer to all 500 held-out digits: ONNX Runtime, JIT,
           interpreter
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from check_roundtrip import differences
from common import CACHE, EXPECTED, FIXTURES, MODELS, fcc_binary, read_json, write_npz
from expected import row_names, session, table
from manifest import ENGINES
from real_models import RTOL, compare

RULES = [
    "linear-to-full-kernel-conv",
    "linear-to-pointwise-conv",
    "conv-to-im2col-gemm",
    "conv-to-toeplitz-gemm",
    "pointwise-conv-to-matmul",
]
KINDS = ("roundtrip", "memory", "print", "problems", "rewrites", "digits")
PER_CHANNEL = "conv-to-toeplitz-gemm-per-channel"  # thousands of products in a real model: small ones only
DEFAULT = "default"  # `fcc rewrite` without --rule
PRINT_LIMIT_BYTES = 6 << 20  # larger models as text are gigabytes of digits
MEMORY_LIMIT = 1.3


class Check:
    """Runs fcc, counts what was checked and keeps what failed."""

    def __init__(self, folder: Path) -> None:
        self.fcc, self.folder = fcc_binary(), folder
        self.failures: list[str] = []
        self.done: Counter[str] = Counter()

    def expect(self, kind: str, what: str, problem: str | None) -> None:
        self.done[kind] += 1
        if problem:
            self.failures.append(f"{kind}: {what}: {problem}")
            print(f"FAILED {self.failures[-1]}", flush=True)

    def run(self, *arguments: str | Path) -> tuple[str | None, str]:
        """A problem or None, and what fcc printed."""
        command = [self.fcc, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return None, done.stdout
        lines = done.stderr.strip().splitlines() or [""]
        return f"exit code {done.returncode}: {lines[-1]}", done.stdout


def all_models(names: list[str]) -> dict[str, Path]:
    """Every model by name: the table's, the light ones in both forms, and the fixtures."""
    models = {model: MODELS / f"{model}.onnx" for model in table()}
    models |= {f"light_raw/{path.stem}": path for path in sorted((MODELS / "light_raw").glob("*.onnx"))}
    models |= {path.stem: path for path in sorted(FIXTURES.glob("*.onnx"))}
    models |= {f"seeds/{path.parent.name}": path for path in sorted(FIXTURES.glob("seeds/*/model.onnx"))}
    return {name: path for name, path in models.items() if not names or any(n in name for n in names)}


def check_roundtrips(check: Check, names: list[str]) -> None:
    for name, path in all_models(names).items():
        out = check.folder / "same.onnx"
        problem, _ = check.run("rewrite", path, "-o", out, "--rule", "none")
        if problem is None:
            found = differences(path, out)
            problem = f"{len(found)} differences, first {found[0]}" if found else None
        check.expect("roundtrip", name, problem)
        out.unlink(missing_ok=True)


def check_memory(check: Check) -> None:
    path = max(MODELS.rglob("*.onnx"), key=lambda p: p.stat().st_size)
    # A child's figure starts at what its parent had: a small parent of its own keeps this script's memory out.
    small = "import resource,subprocess,sys; subprocess.run(sys.argv[1:],check=True,stdout=subprocess.DEVNULL);"
    small += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    for rule in ("none", "linear-to-full-kernel-conv"):
        out = check.folder / "large.onnx"
        command = [sys.executable, "-c", small, check.fcc, "rewrite", path, "-o", out, "--rule", rule]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            check.expect("memory", f"{path.name} {rule}", done.stderr.strip().splitlines()[-1])
            continue
        ratio = int(done.stdout) * 1024 / path.stat().st_size
        print(f"memory: {path.name} --rule {rule}: peak {ratio:.2f} times the file", flush=True)
        problem = f"peak {ratio:.2f} times the file, wanted {MEMORY_LIMIT}" if ratio > MEMORY_LIMIT else None
        check.expect("memory", f"{path.name} {rule}", problem)
        out.unlink(missing_ok=True)


def same_graph(a: onnx.GraphProto, b: onnx.GraphProto) -> str | None:
    """Nodes with attributes, and initializers with values; not what the text form has no place for."""
    from check_roundtrip import tensor_values

    if len(a.node) != len(b.node):
        return f"{len(b.node)} nodes, wanted {len(a.node)}"
    for p, q in zip(a.node, b.node):
        if (p.op_type, list(p.input), list(p.output)) != (q.op_type, list(q.input), list(q.output)):
            return f"node {q.op_type} -> {list(q.output)}, wanted {p.op_type} -> {list(p.output)}"
        if sorted(x.name for x in p.attribute) != sorted(x.name for x in q.attribute):
            return f"attributes of {p.op_type} -> {list(p.output)}"
        for x in p.attribute:
            y = next(y for y in q.attribute if y.name == x.name)
            if x.type in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOAT):
                if onnx.helper.get_attribute_value(x) != onnx.helper.get_attribute_value(y):
                    return f"attribute {x.name} of {p.op_type} -> {list(p.output)}"
    here = Path(".")
    values = [{t.name: (t.data_type, list(t.dims), tensor_values(t, here)) for t in g.initializer} for g in (a, b)]
    return None if values[0] == values[1] else "initializers differ"


def check_print(check: Check, names: list[str]) -> None:
    for name, path in all_models(names).items():
        if path.stat().st_size > PRINT_LIMIT_BYTES:
            continue
        problem, text = check.run("print", path, "--constants")
        if problem is None:
            try:
                parsed = onnx.parser.parse_model(text)
                problem = same_graph(onnx.load(path).graph, parsed.graph)
            except onnx.parser.ParseError as error:
                problem = f"onnx.parser: {str(error).strip()[:300]}"
        check.expect("print", name, problem)


def rewrite(check: Check, path: Path, rule: str, sets: dict[str, int]) -> tuple[str | None, Path, int]:
    """Rewrites into the folder; a problem or None, the file, and how many nodes the report says were rewritten."""
    out, report = check.folder / "rewritten.onnx", check.folder / "report.json"
    flags = [] if rule == DEFAULT else ["--rule", rule]
    flags += [flag for symbol, size in sets.items() for flag in ("--set", f"{symbol}={size}")]
    problem, _ = check.run("rewrite", path, "-o", out, "--report", report, *flags)
    if problem:
        return problem, out, 0
    return None, out, count_rewritten(read_json(report), rule)


def count_rewritten(report: dict, rule: str) -> int:
    """Rows of the report that say that this rule rewrote a node (any rule, for the default)."""
    return sum(row["outcome"] == "rewritten" and rule in (DEFAULT, row["rule"]) for row in report["rows"])


def runtime_difference(path: Path, inputs: dict, want: dict) -> str | None:
    """Runs ONNX Runtime on a rewritten model; the first difference from the original's outputs."""
    try:
        runtime = session(path)
        keys = [output.name for output in runtime.get_outputs()]
        got = dict(zip(keys, runtime.run(keys, inputs)))
    except Exception as error:  # onnxruntime raises its own types, which are plain Exceptions
        return f"ONNX Runtime: {str(error).splitlines()[0][:300]}"
    return compare(got, want, RTOL)


def check_rewrites(check: Check, names: list[str]) -> None:
    """Every rule on every model of the table, at every size of the table."""
    applied: Counter[str] = Counter()
    for model, rows in table().items():
        if names and not any(name in model for name in names):
            continue
        path, start = MODELS / f"{model}.onnx", time.monotonic()
        data = [
            (dict(np.load(EXPECTED / f"{name}.inputs.npz")), dict(np.load(EXPECTED / f"{name}.outputs.npz")))
            for name in row_names(model, rows)
        ]
        counts = []
        # Besides every rule on the model as it is, the rules that need known sizes get them from the first row.
        variants = [(rule, {}) for rule in [DEFAULT, *RULES]]
        if rows[0].get("set"):
            variants += [(rule, rows[0]["set"]) for rule in ("linear-to-full-kernel-conv", "conv-to-toeplitz-gemm")]
        for rule, sets in variants:
            problem, out, count = rewrite(check, path, rule, sets)
            applied[rule] += count
            counts.append(f"{rule}{' --set' if sets else ''} {count}")
            if problem is None and count:
                problem = check_model(out)
                for inputs, want in data[:1] if sets else data:
                    problem = problem or runtime_difference(out, inputs, want)
            check.expect("rewrites", f"{model} {rule} {sets or ''}", problem)
            out.unlink(missing_ok=True)
        print(f"{model}: {', '.join(counts)} ({time.monotonic() - start:.0f} s)", flush=True)
    if not names:
        for rule in RULES:
            check.expect("rewrites", rule, None if applied[rule] else "applied nowhere in the real models")


def check_problems(check: Check, names: list[str]) -> None:
    """Every rule on every problem: small integers, so a rewrite must give the same bits."""
    applied: Counter[str] = Counter()
    for folder in sorted((CACHE / "problems").iterdir()):
        if names and not any(name in folder.name for name in names):
            continue
        model = onnx.load(folder / "model.onnx")
        inputs, want = case_tensors(folder, "input"), case_tensors(folder, "output")
        keys = [value.name for value in model.graph.output]
        feeds = dict(zip([value.name for value in model.graph.input], inputs))
        for rule in [DEFAULT, *RULES, PER_CHANNEL]:
            problem, out, count = rewrite(check, folder / "model.onnx", rule, {})
            applied[rule] += count
            if problem is None and count:
                problem = check_model(out) or exact_difference(out, keys, feeds, want)
                # ONNX Runtime's MatMul refuses some products of empty tensors.
                if problem and "ONNX Runtime" in problem and any(x.size == 0 for x in inputs):
                    problem = None
            check.expect("problems", f"{folder.name} {rule}", problem)
            out.unlink(missing_ok=True)
    print(f"problems: nodes rewritten: {dict(applied)}")
    if not names:
        for rule in [*RULES, PER_CHANNEL]:
            check.expect("problems", rule, None if applied[rule] else "applied nowhere in the problems")


def case_tensors(folder: Path, kind: str) -> list[np.ndarray]:
    paths = sorted(folder.glob(f"test_data_set_0/{kind}_*.pb"))
    return [onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in paths]


def exact_difference(path: Path, keys: list[str], feeds: dict, want: list[np.ndarray]) -> str | None:
    """Where ONNX Runtime's outputs for a rewritten model are not the very same numbers."""
    try:
        got = session(path).run(keys, feeds)
    except Exception as error:  # onnxruntime raises its own types, which are plain Exceptions
        return f"ONNX Runtime: {str(error).splitlines()[0][:300]}"
    for key, a, b in zip(keys, got, want):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{key}: {a.dtype}{list(a.shape)}, wanted {b.dtype}{list(b.shape)}"
        if not np.array_equal(a, b):
            return f"{key}: {int((a != b).sum())} of {b.size} elements differ"
    return None


def check_model(path: Path) -> str | None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        return f"onnx.checker: {str(error).splitlines()[0][:300]}"
    return None


def check_digits(check: Check) -> None:
    """The trained models keep every one of their 500 answers, whatever rewrites and whoever runs them."""
    test = np.load(FIXTURES / "mnist_test.npz")
    image = test["images"].astype(np.float32) / 255
    inputs = check.folder / "digits.npz"
    write_npz(inputs, {"image": image})
    for model in ("mnist_mlp", "mnist_cnn"):
        path = FIXTURES / f"{model}.onnx"
        want = session(path).run(["logits"], {"image": image})[0].argmax(1)
        for rule in [DEFAULT, *RULES, PER_CHANNEL]:
            problem, out, count = rewrite(check, path, rule, {})
            if problem is None:
                got = session(out).run(["logits"], {"image": image})[0].argmax(1)
                problem = changed_answers(got, want)
            check.expect("digits", f"{model} {rule} in ONNX Runtime", problem)
            for engine in ENGINES:
                npz = check.folder / "logits.npz"
                problem, _ = check.run("run", out, "--inputs", inputs, "--engine", engine, "--outputs", npz)
                if problem is None:
                    problem = changed_answers(np.load(npz)["logits"].argmax(1), want)
                check.expect("digits", f"{model} {rule} in {engine}", problem)
            print(f"{model} {rule}: {count} nodes rewritten", flush=True)


def changed_answers(got: np.ndarray, want: np.ndarray) -> str | None:
    changed = int((got != want).sum())
    return f"{changed} of {len(want)} answers changed" if changed else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Check fcc's rewrites with ONNX Runtime.")
    parser.add_argument("names", nargs="*", help="only models whose name contains one of these")
    parser.add_argument("--only", choices=KINDS, action="append")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(Path(folder))
        for kind in args.only or KINDS:
            start = time.monotonic()
            if kind == "roundtrip":
                check_roundtrips(check, args.names)
            elif kind == "memory":
                check_memory(check)
            elif kind == "print":
                check_print(check, args.names)
            elif kind == "rewrites":
                check_rewrites(check, args.names)
            elif kind == "problems":
                check_problems(check, args.names)
            else:
                check_digits(check)
            failed = sum(failure.startswith(f"{kind}:") for failure in check.failures)
            print(f"{kind}: {check.done[kind]} checks, {failed} failed, {time.monotonic() - start:.0f} s", flush=True)
    if check.failures:
        sys.exit(f"{len(check.failures)} checks failed")


if __name__ == "__main__":
    main()
