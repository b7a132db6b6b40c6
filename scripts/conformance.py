"""Runs the ONNX backend tests through `fcc test`, in both engines, and holds them against the manifest.

    .cache/venv/bin/python scripts/conformance.py [--engine jit|interpreter] [--propose] [PATTERN...]

Cases: the whole backend suite of the pinned onnx (.cache/node 1884, simple 23, pytorch-converted 82, pytorch-operator
35, real 9: 2033 in all), .cache/problems, fixtures/seeds and .cache/ml (ai.onnx.ml, expected by ONNX Runtime).
Manifest: tests/conformance/manifest.txt.
Fails on a case that does not pass and is not in the manifest, and on one that is in it and passes. --propose prints
a manifest line for each case of the first kind. A crash of fcc is the failure of one case, not of the run.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from common import CACHE, FIXTURES, NODE, ROOT, fcc_binary
from manifest import ENGINES, Manifest

# The kinds of the backend suite.
SUITE = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
CHUNK = 200
SECONDS_PER_CASE = 30


def run_chunk(fcc: str, engine: str, folders: list[Path]) -> dict[str, tuple[str, str]] | None:
    """Status and reason by case; None if fcc crashed or hung."""
    command = [fcc, "test", "--json", "--engine", engine, *map(str, folders)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 + SECONDS_PER_CASE * len(folders))
        cases = json.loads(done.stdout)["cases"]
    except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError):
        return None
    if done.returncode not in (0, 1):
        return None
    results = {Path(case["name"]).name: (case["status"], case.get("reason") or "") for case in cases}
    return results if set(results) == {folder.name for folder in folders} else None


def run_all(fcc: str, engine: str, folders: list[Path]) -> dict[str, tuple[str, str]]:
    """Runs in chunks; a chunk that crashes is halved until the case that crashes stands alone."""
    results: dict[str, tuple[str, str]] = {}
    waiting = [folders[start : start + CHUNK] for start in range(0, len(folders), CHUNK)]
    while waiting:
        chunk = waiting.pop()
        found = run_chunk(fcc, engine, chunk)
        if found is not None:
            results.update(found)
        elif len(chunk) == 1:
            results[chunk[0].name] = ("failed", "fcc crashed, hung or reported no result")
        else:
            half = len(chunk) // 2
            waiting += [chunk[:half], chunk[half:]]
    return results


def case_folders(patterns: list[str]) -> dict[str, list[Path]]:
    """The folders of each set of cases, by set."""
    sets = {}
    tops = {
        "node": NODE,
        **{kind: CACHE / kind for kind in SUITE[1:]},
        "problems": CACHE / "problems",
        "seeds": FIXTURES / "seeds",
        "ml": CACHE / "ml",
    }
    for name, top in tops.items():
        found = sorted(path.parent for path in top.glob("*/model.onnx"))
        if not found:
            sys.exit(f"{top} holds no cases: run scripts/backend_cases.py, scripts/problems.py and scripts/ml_cases.py")
        sets[name] = [f for f in found if not patterns or any(fnmatch.fnmatchcase(f.name, p) for p in patterns)]
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the ONNX backend tests against the manifest.")
    parser.add_argument("patterns", nargs="*", help="only cases that match one of these (* allowed)")
    parser.add_argument("--engine", choices=ENGINES, action="append")
    parser.add_argument("--propose", action="store_true", help="print manifest lines for what fails unexpectedly")
    args = parser.parse_args()
    engines = args.engine or list(ENGINES)
    manifest = Manifest.read(ROOT / "tests/conformance/manifest.txt")
    sets, fcc, problems = case_folders(args.patterns), fcc_binary(), []
    for engine in engines:
        start, results, suite = time.monotonic(), {}, Counter()
        for name, folders in sets.items():
            found = run_all(fcc, engine, folders)
            counts = Counter(status for status, _ in found.values())
            shown = ", ".join(f"{counts[s]} {s}" for s in ("passed", "unsupported", "failed"))
            print(f"{engine}: {name}: {shown}, of {len(folders)}", flush=True)
            results.update(found)
            if name in SUITE:
                suite += counts
        print(f"{engine}: of the backend suite {suite['passed']} of {sum(suite.values())} pass")
        problems += manifest.check(engine, results)
        print(f"{engine}: {time.monotonic() - start:.1f} s")
        if args.propose:
            for case, (status, reason) in sorted(results.items()):
                if status != "passed" and not any(e.covers(case, engine) for e in manifest.entries):
                    print(f"{status}@{engine} {case} {reason}")
    if not args.patterns:
        problems += manifest.unused(engines)
    if problems:
        for problem in problems[:100]:
            print(problem)
        sys.exit(f"{len(problems)} cases are not as {manifest.path.name} says")


if __name__ == "__main__":
    main()
