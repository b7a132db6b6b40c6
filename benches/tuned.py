#!/usr/bin/env python3
"""fcc with the choices that `--tune` measured beside fcc without, on the same machine in the same run.

    python3 benches/tuned.py [--rows resnet50,squeezenet] [--threads 1,2] [--rounds 5] [--precision fast]
                             [--tune-seconds S] [--folder DIR]

The rows are those of benches/peers/run.py. For each row and number of threads the model is tuned into a new file
(DIR/ROW.THREADS.txt, a temporary folder without --folder; what a file lacks is added to it), and then both ways run in
turn, each in a process of its own, in an order that turns. A cell is the best of the rounds' medians in
milliseconds. $FCC names a binary to use in place of one that is built.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benches/peers"), str(ROOT / "scripts")]
import run as peers  # noqa: E402

DEFAULT_ROWS = "resnet50,squeezenet,shufflenet,densenet121,rapidocr_rec,nudenet_320n,encoder"


def arguments(task: dict, threads: int, precision: str) -> list[str]:
    """What every command gets."""
    sets = [word for name, extent in task["set"].items() for word in ("--set", f"{name}={extent}")]
    common = ["--inputs", task["inputs"], "--threads", str(threads), "--precision", precision]
    return [task["model"], *common, *sets]


def bench(fcc: str, args: list[str], seconds: float) -> float:
    """The median of one process."""
    command = [fcc, "bench", *args, "--json", "--seconds", str(seconds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["median_ms"]


def measure(fcc: str, row: str, threads: int, options: argparse.Namespace, folder: Path) -> dict:
    """Tunes and times one row."""
    args = arguments(peers.prepare(row, folder), threads, options.precision)
    file = folder / f"{row}.{threads}.txt"
    limit = [] if options.tune_seconds is None else ["--tune-seconds", str(options.tune_seconds)]
    start = time.perf_counter()
    subprocess.run([fcc, "explain", *args, "--tune", str(file), *limit], check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - start
    ways = {"default": args, "tuned": [*args, "--tune", str(file), "--tune-seconds", "0"]}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for n in range(options.rounds):
        for way in list(ways)[:: -1 if n % 2 else 1]:
            times[way].append(bench(fcc, ways[way], options.seconds))
    lines = [line.split(" | ") for line in file.read_text().splitlines() if " | " in line and line[0] != "#"]
    changed = sum(line[2] != line[4] for line in lines)
    best = {way: min(all_of) for way, all_of in times.items()}
    return {"row": row, "threads": threads, "problems": len(lines), "changed": changed, "tune_s": took, **best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=DEFAULT_ROWS)
    parser.add_argument("--threads", default="1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each process")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--tune-seconds", type=float)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    peers.in_environment(__file__)
    fcc = peers.build_fcc()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print("| row | threads | default ms | tuned ms | tuned / default | changed of problems | tuning s |")
        print("|---|---|---|---|---|---|---|")
        ratios = []
        for row in options.rows.split(","):
            for threads in map(int, options.threads.split(",")):
                r = measure(fcc, row, threads, options, folder)
                ratios.append(r["tuned"] / r["default"])
                cells = f"{r['default']:.3g} | {r['tuned']:.3g} | {ratios[-1]:.3f}"
                print(f"| {row} | {threads} | {cells} | {r['changed']} of {r['problems']} | {r['tune_s']:.1f} |", flush=True)
        print(f"| geometric mean | | | | {peers.geometric_mean(ratios):.3f} | | |")


if __name__ == "__main__":
    main()
