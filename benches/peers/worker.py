"""One peer, one model, one process: prints its timings as one line of JSON. Started by run.py."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

WARMUP_RUNS, MIN_RUNS, MAX_RUNS = 2, 5, 2000


def onnxruntime_runner(model: str, inputs: dict, threads: int, sets: dict) -> tuple[Callable, Callable]:
    """ONNX Runtime with every optimisation, sizes known, buffers bound once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    for symbol, size in sets.items():
        options.add_free_dimension_override_by_name(symbol, size)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    names = [output.name for output in session.get_outputs()]
    for name in names:
        binding.bind_output(name)
    return (lambda: session.run_with_iobinding(binding)), (lambda: dict(zip(names, binding.copy_outputs_to_cpu())))


def openvino_runner(precision: str) -> Callable:
    """OpenVINO for latency, sizes known; precision is its INFERENCE_PRECISION_HINT, or "" for its default."""

    def make(model: str, inputs: dict, threads: int, _sets: dict) -> tuple[Callable, Callable]:
        import openvino

        core = openvino.Core()
        network = core.read_model(model)
        network.reshape({name: list(array.shape) for name, array in inputs.items()})
        config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        if precision:
            config["INFERENCE_PRECISION_HINT"] = precision
        request = core.compile_model(network, "CPU", config).create_infer_request()
        tensors = {name: openvino.Tensor(array, shared_memory=True) for name, array in inputs.items()}
        for name, tensor in tensors.items():
            request.set_tensor(name, tensor)
        outputs = [output.get_any_name() for output in network.outputs]
        return request.infer, lambda: {name: np.array(request.get_tensor(name).data) for name in outputs}

    return make


RUNNERS = {
    "onnxruntime": onnxruntime_runner,
    "openvino": openvino_runner("f32"),
    "openvino-default": openvino_runner(""),
}


def measure(run: Callable, seconds: float) -> list[float]:
    """Milliseconds of each run, for about the given time."""
    for _ in range(WARMUP_RUNS):
        run()
    times, end = [], time.perf_counter() + seconds
    while len(times) < MIN_RUNS or (time.perf_counter() < end and len(times) < MAX_RUNS):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def main() -> None:
    task = json.loads(sys.argv[1])
    inputs = {name: np.ascontiguousarray(array) for name, array in np.load(task["inputs"]).items()}
    __import__(task["runner"].split("-")[0])  # importing the library is not loading the model
    start = time.perf_counter()
    run, outputs = RUNNERS[task["runner"]](task["model"], inputs, task["threads"], task["set"])
    loaded = time.perf_counter()
    run()
    first = time.perf_counter()
    if task.get("once"):
        print(json.dumps({"outputs": [{"name": n, "shape": list(np.shape(a))} for n, a in outputs().items()]}))
        return
    if task.get("outputs"):
        from common import Path, write_npz

        write_npz(Path(task["outputs"]), outputs())
    times = measure(run, task["seconds"])
    result = {
        "load_ms": (loaded - start) * 1e3,
        "compile_ms": 0.0,
        "first_run_ms": (first - loaded) * 1e3,
        "median_ms": float(np.median(times)),
        "min_ms": min(times),
        "runs": len(times),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
