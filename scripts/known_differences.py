"""Checks the reasons that tests/conformance/manifest.txt gives for cases that do not pass.

    .cache/venv/bin/python scripts/known_differences.py

The expected values of these cases are not what fcc should answer, so each kind is held against something else:
- attention in bf16 and f16: ONNX's reference implementation gives the expected values to the bit, and fcc's to the bit
  once its Softmax computes in binary64 and rounds its result once. Nothing else differs.
- inverse DFT: fcc is the binary64 FFT rounded to binary32; the expected values, a binary32 FFT, are not.
- Bernoulli and training Dropout: fcc's draws are draws, repeat, and y and mask belong together.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
from common import NODE, fcc_binary, read_json, write_json
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_attention, op_softmax

ATTENTION = (
    "3d_causal_bf16",
    "4d_attn_mask_causal_bf16",
    "4d_causal_bf16",
    "4d_causal_fp16",
    "4d_causal_padded_kv_bf16",
    "4d_padded_kv_bf16",
)


def tensors(case: str, kind: str) -> list[np.ndarray]:
    """The case's inputs or outputs in order."""
    found, folder = [], NODE / case / "test_data_set_0"
    while (path := folder / f"{kind}_{len(found)}.pb").is_file():
        found.append(numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())))
    return found


def computed(case: str, engine: str) -> list[np.ndarray]:
    """What fcc answers, in the order of the model's outputs."""
    model = onnx.load(NODE / case / "model.onnx")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        command = [fcc_binary(), "run", NODE / case / "model.onnx", "--engine", engine, "--outputs", out]
        for number, info in enumerate(model.graph.input):
            path = NODE / case / "test_data_set_0" / f"input_{number}.pb"
            command += ["--input", f"{info.name}={path}"]
        subprocess.run(list(map(str, command)), check=True)
        arrays = np.load(out)
        return [arrays[info.name] for info in model.graph.output]


def same(got: list[np.ndarray], want: list[np.ndarray]) -> bool:
    return len(got) == len(want) and all(np.array_equal(g, w) for g, w in zip(got, want))


def passes(case: str, engine: str, outputs: list[np.ndarray]) -> bool:
    """Whether the case passes to the bit with these expected values (numpy's files hold no bf16)."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / case
        shutil.copytree(NODE / case, copy)
        write_json(copy / "tol.json", {"rtol": 0.0, "atol": 0.0})
        for number, array in enumerate(outputs):
            path = copy / "test_data_set_0" / f"output_{number}.pb"
            path.write_bytes(numpy_helper.from_array(array).SerializeToString())
        command = [fcc_binary(), "test", "--engine", engine, str(copy)]
        return subprocess.run(command, capture_output=True).returncode == 0


def softmax_rounded_once(x: np.ndarray, axis: int) -> np.ndarray:
    shifted = np.exp(x.astype(np.float64) - np.max(x.astype(np.float64), axis=axis, keepdims=True))
    return (shifted / shifted.sum(axis=axis, keepdims=True)).astype(x.dtype)


def reference(case: str, once: bool) -> list[np.ndarray]:
    """ONNX's reference implementation; `once`: with a Softmax that rounds its result only."""
    model = onnx.load(NODE / case / "model.onnx")
    feeds = dict(zip((i.name for i in model.graph.input), tensors(case, "input")))
    kept = op_attention._softmax, op_softmax.Softmax._run
    if once:
        op_attention._softmax = lambda x, axis=-1: softmax_rounded_once(x, axis)
        op_softmax.Softmax._run = lambda self, x, axis=None: (softmax_rounded_once(x, axis or self.axis),)
    try:
        return ReferenceEvaluator(model).run(None, feeds)
    finally:
        op_attention._softmax, op_softmax.Softmax._run = kept


def attention(case: str) -> str | None:
    if not same(reference(case, once=False), tensors(case, "output")):
        return "the reference implementation does not give the expected values"
    for engine in ("interpreter", "jit"):
        if not passes(case, engine, reference(case, once=True)):
            return f"{engine}: more than the rounding inside Softmax differs"
    return None


def inverse_dft(case: str) -> str | None:
    x, want = tensors(case, "input")[0], tensors(case, "output")[0]
    exact = np.fft.ifft(x[..., 0].astype(np.float64) + 1j * x[..., 1], axis=1)
    exact = np.stack((exact.real, exact.imag), axis=-1)
    atol = read_json(NODE / case / "tol.json")["atol"]
    if np.max(np.abs(want - exact)) <= atol:
        return "the expected values are not further from the exact ones than the tolerance"
    for engine in ("interpreter", "jit"):
        got = computed(case, engine)[0]
        # half a unit in the last place of the exact value, and the rounding of the binary64 FFTs themselves
        if np.any(np.abs(got - exact) > np.abs(exact) * 2.0**-24 + 1e-13):
            return f"{engine}: not the exact values rounded to binary32"
    return None


def bernoulli(case: str) -> str | None:
    for engine in ("interpreter", "jit"):
        first, again = computed(case, engine)[0], computed(case, engine)[0]
        want = tensors(case, "output")[0]
        if first.dtype != want.dtype or first.shape != want.shape or not np.isin(first, (0, 1)).all():
            return f"{engine}: {first} are no draws of {want.dtype}{want.shape}"
        if not np.array_equal(first, again):
            return f"{engine}: two runs differ"
    return None


def dropout(case: str) -> str | None:
    x, ratio = tensors(case, "input")[:2] if len(tensors(case, "input")) > 1 else (tensors(case, "input")[0], 0.5)
    for engine in ("interpreter", "jit"):
        y, *mask = computed(case, engine)
        kept = mask[0].astype(bool) if mask else y != 0
        if not np.allclose(y, np.where(kept, x / (1 - ratio), 0), rtol=1e-6, atol=0):
            return f"{engine}: y is not x / (1 - ratio) where the mask is true, and 0 elsewhere"
        if not 0.2 < 1 - kept.mean() < 0.95:
            return f"{engine}: {1 - kept.mean():.2f} of the elements dropped at ratio {ratio}"
    return None


def main() -> None:
    warnings.simplefilter("ignore")
    checks = {f"test_attention_{name}{end}": attention for name in ATTENTION for end in ("", "_expanded")}
    checks |= {f"test_dft_inverse{end}": inverse_dft for end in ("", "_opset19")}
    checks |= {path.name: bernoulli for path in sorted(NODE.glob("test_bernoulli*"))}
    names = ("", "_default", "_default_mask", "_mask")
    checks |= {f"test_training_dropout{name}": dropout for name in names}
    problems = [f"{case}: {why}" for case, check in checks.items() if (why := check(case))]
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(f"{len(problems)} of {len(checks)} cases do not pass for another reason than the manifest's")
    print(f"{len(checks)} cases differ for the reason that the manifest gives")


if __name__ == "__main__":
    main()
