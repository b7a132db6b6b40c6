#!/usr/bin/env python3
"""Two threads against one, model by model.

    python3 benches/threads.py [--rows resnet50,vgg19] [--rounds 5] [--threads 2]

For each row of benches/peers/run.py, in turn in one run: a process of `fcc bench` with one thread, one with two, and so
on for all rounds. A row's figures are the medians of its rounds' medians. Rows that take less than 5 ms with one thread
are left out of the mean.

A virtual machine may run its two CPUs on one core of the host for a while: two threads are then worth hardly more than
one, whatever the program does. So the rate of a loop of nothing but multiply-adds is taken with one and with all threads
before and after each process of several threads, and the process is not counted where threads did not multiply that
rate by 0.95 times their number; the last line says how often.

$FCC names a binary to use in place of a built one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benches/peers"), str(ROOT / "scripts")]

from run import ROWS, build_fcc, cell, command_of, geometric_mean, in_environment, last_json, prepare  # noqa: E402

LONG_MS = 5.0
ATTEMPTS = 12


class Machine:
    """Whether the machine gives each thread a core."""

    def __init__(self, fcc: str, threads: int) -> None:
        self.fcc, self.threads, self.refused = fcc, threads, 0

    def gflops(self, threads: int) -> float:
        model = ["profile", str(ROOT / "fixtures/mnist_mlp.onnx"), "--random", "0", "--set", "batch=1"]
        found = last_json([self.fcc, *model, "--runs", "1", "--threads", str(threads), "--json"])
        if isinstance(found, str):
            sys.exit(f"fcc profile: {found}")
        return found["peak_gflops"]

    def whole(self) -> bool:
        return self.gflops(self.threads) >= 0.95 * self.threads * self.gflops(1)

    def bench(self, task: dict, seconds: float) -> float | None:
        """Milliseconds with all threads; None where the machine never gave each of them a core."""
        before = self.whole()
        for _ in range(ATTEMPTS):
            found = bench(self.fcc, task, self.threads, seconds) if before else None
            after = self.whole()
            if before and after:
                return found
            self.refused += 1
            before = after
        return None


def bench(fcc: str, task: dict, threads: int, seconds: float) -> float:
    found = last_json(command_of("fcc", task, threads, seconds, {"fcc": fcc}))
    if isinstance(found, str):
        sys.exit(f"{task['model']}: {found}")
    return found["median_ms"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time several threads against one.")
    parser.add_argument("--rows", help=f"comma-separated, from: {', '.join(ROWS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long a process measures (default 0.5)")
    args = parser.parse_args()
    rows = args.rows.split(",") if args.rows else list(ROWS)
    if unknown := [row for row in rows if row not in ROWS]:
        sys.exit(f"no such rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    in_environment(__file__)
    from common import CACHE

    fcc = build_fcc()
    machine, ratios = Machine(fcc, args.threads), {}
    print(f"| median ms | one thread | {args.threads} threads | one / {args.threads} |\n|---|---|---|---|", flush=True)
    for row in rows:
        task = prepare(row, CACHE / "bench")
        one, all_threads = [], []
        for _ in range(args.rounds):
            one.append(bench(fcc, task, 1, args.seconds))
            all_threads.append(machine.bench(task, args.seconds))
        counted = [ms for ms in all_threads if ms is not None]
        if not counted:
            print(f"| {row} | {cell(statistics.median(one))} | - | - |", flush=True)
            continue
        times = statistics.median(one), statistics.median(counted)
        ratio = times[0] / times[1]
        if times[0] >= LONG_MS:
            ratios[row] = ratio
        print(f"| {row} | {cell(times[0])} | {cell(times[1])} | {ratio:.2f} |", flush=True)
    if ratios:
        mean = geometric_mean(list(ratios.values()))
        print(f"geometric mean of the {len(ratios)} rows of at least {LONG_MS:g} ms: {mean:.3f}")
    print(f"processes not counted, because threads shared a core: {machine.refused}")


if __name__ == "__main__":
    main()
