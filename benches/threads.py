#!/usr/bin/env python3
"""Two threads against one, model by model.

    python3 benches/threads.py [--rows resnet50,vgg19] [--rounds 5] [--threads 2]

For each row of benches/peers/run.py, in turn in one run: a process of `fcc bench` with one thread, one with two, and so
on for all rounds. A row's figures are the best of its rounds' medians, and the fastest of all runs: a median of several
threads suffers from whatever else takes one of the CPUs. Rows that take less than 5 ms with one thread are left out of
the means.

A virtual machine may run its two CPUs on one core of the host for a while: two threads are then worth hardly more than
one, whatever the program does. So the rate of a loop of nothing but multiply-adds is taken with one and with all
threads before and after each process of several threads, and the process is not counted where threads did not multiply
that rate by 0.95 times their number; the last line says how often.

$FCC names a binary to use in place of a built one.
"""

from __future__ import annotations

import argparse
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

    def bench(self, task: dict, seconds: float) -> tuple[float, float] | None:
        """`bench` with all threads; None where the machine never gave each of them a core."""
        before = self.whole()
        for _ in range(ATTEMPTS):
            found = bench(self.fcc, task, self.threads, seconds) if before else None
            after = self.whole()
            if before and after:
                return found
            self.refused += 1
            before = after
        return None


def bench(fcc: str, task: dict, threads: int, seconds: float) -> tuple[float, float]:
    """The median and the fastest run, in milliseconds."""
    found = last_json(command_of("fcc", task, threads, seconds, {"fcc": fcc}))
    if isinstance(found, str):
        sys.exit(f"{task['model']}: {found}")
    return found["median_ms"], found["min_ms"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time several threads against one.")
    parser.add_argument("--rows", help=f"comma-separated, from: {', '.join(ROWS)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long a process measures")
    args = parser.parse_args()
    rows = args.rows.split(",") if args.rows else list(ROWS)
    if unknown := [row for row in rows if row not in ROWS]:
        sys.exit(f"no such rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    in_environment(__file__)
    from common import CACHE

    fcc = build_fcc()
    machine, ratios = Machine(fcc, args.threads), []
    each = ("one thread", f"{args.threads} threads", "ratio")
    columns = [f"{what}, {n}" for what in ("median ms", "fastest ms") for n in each]
    print(f"| row | {' | '.join(columns)} |\n{'|---' * 7}|", flush=True)
    for row in rows:
        task = prepare(row, CACHE / "bench")
        one, several = [], []
        for _ in range(args.rounds):
            one.append(bench(fcc, task, 1, args.seconds))
            several.append(machine.bench(task, args.seconds))
        counted = [times for times in several if times is not None]
        if not counted:
            print(f"| {row} | not measured: threads shared a core |", flush=True)
            continue
        shown, both = [], []
        for which in (0, 1):
            times = [min(t[which] for t in found) for found in (one, counted)]
            both.append(times[0] / times[1])
            shown += [cell(times[0]), cell(times[1]), f"{both[-1]:.2f}"]
        if min(t[0] for t in one) >= LONG_MS:
            ratios.append(both)
        print(f"| {row} | {' | '.join(shown)} |", flush=True)
    if ratios:
        means = [f"{geometric_mean(list(of)):.3f}" for of in zip(*ratios)]
        print(f"geometric means of the {len(ratios)} rows of at least {LONG_MS:g} ms: {means[0]} (fastest: {means[1]})")
    print(f"processes not counted, because threads shared a core: {machine.refused}")


if __name__ == "__main__":
    main()
