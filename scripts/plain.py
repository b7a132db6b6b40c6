"""Plain Conv, ConvTranspose, MaxPool and AveragePool for any rank: a second opinion beside other runtimes.

Written from the operators' formulas, one kernel position at a time, in f64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np


def window(attributes: dict, sizes: list[int], kernel: list[int]) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Strides, dilations, pads at the begin and end, and output sizes."""
    rank = len(kernel)
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
    pads = attributes.get("pads", [0] * (2 * rank))
    begin, end = list(pads[:rank]), list(pads[rank:])
    auto = attributes.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for i in range(rank):
            out = -(-sizes[i] // strides[i])
            total = max((out - 1) * strides[i] + reach[i] - sizes[i], 0)
            begin[i] = total // 2 if auto == "SAME_UPPER" else total - total // 2
            end[i] = total - begin[i]
    outputs = []
    for i in range(rank):
        free = sizes[i] + begin[i] + end[i] - reach[i]
        out = (-(-free // strides[i]) if attributes.get("ceil_mode") else free // strides[i]) + 1
        if attributes.get("ceil_mode") and (out - 1) * strides[i] >= sizes[i] + begin[i]:
            out -= 1  # a window that would start in the padding at the end
        outputs.append(out)
    return strides, dilations, begin, end, outputs


def positions(kernel: list[int]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, kernel))


def padded(x: np.ndarray, attributes: dict, kernel: list[int], value: float):
    """x in f64 with padding enough for every window, and for each kernel position the slices that it reads."""
    sizes = list(x.shape[2:])
    strides, dilations, begin, end, outputs = window(attributes, sizes, kernel)
    reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(outputs, strides, dilations, kernel)]
    extra = [max(e, r - b - n) for e, r, b, n in zip(end, reach, begin, sizes)]
    wide = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *zip(begin, extra)], constant_values=value)

    def read(position: tuple[int, ...]) -> np.ndarray:
        cut = [
            slice(p * d, p * d + (o - 1) * s + 1, s) for p, d, o, s in zip(position, dilations, outputs, strides)
        ]
        return wide[(slice(None), slice(None), *cut)]

    return read, outputs


def conv(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, attributes: dict) -> np.ndarray:
    """y[n,m,o] = b[m] + sum over c, k of x[n, c, o*stride + k*dilation - pad] * w[m,c,k], within each group."""
    group, kernel = attributes.get("group", 1), list(w.shape[2:])
    read, outputs = padded(x, attributes, kernel, 0.0)
    per_in, per_out = w.shape[1], w.shape[0] // group
    y = np.zeros((x.shape[0], w.shape[0], *outputs))
    for k in positions(kernel):
        cut = read(k)
        for g in range(group):
            part = cut[:, g * per_in : (g + 1) * per_in]
            weight = w[(slice(g * per_out, (g + 1) * per_out), slice(None), *k)].astype(np.float64)
            y[:, g * per_out : (g + 1) * per_out] += np.einsum("nc...,mc->nm...", part, weight)
    if b is not None:
        y += b.astype(np.float64).reshape(1, -1, *[1] * len(kernel))
    return y.astype(x.dtype)


def conv_transpose(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, attributes: dict) -> np.ndarray:
    """Every x[n,c,i] adds x * w[c,m,k] to y[n, m, i*stride + k*dilation - pad]; w is [C, M/group, k...]."""
    group, kernel, rank = attributes.get("group", 1), list(w.shape[2:]), w.ndim - 2
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    pads = attributes.get("pads", [0] * (2 * rank))
    more = attributes.get("output_padding", [0] * rank)
    full = [
        (n - 1) * s + d * (k - 1) + 1 + o for n, s, d, k, o in zip(x.shape[2:], strides, dilations, kernel, more)
    ]
    per_in, per_out = x.shape[1] // group, w.shape[1]
    y = np.zeros((x.shape[0], per_out * group, *full))
    for k in positions(kernel):
        cut = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in zip(k, dilations, x.shape[2:], strides)
        )
        for g in range(group):
            part = x[:, g * per_in : (g + 1) * per_in].astype(np.float64)
            weight = w[(slice(g * per_in, (g + 1) * per_in), slice(None), *k)].astype(np.float64)
            y[(slice(None), slice(g * per_out, (g + 1) * per_out), *cut)] += np.einsum("nc...,cm->nm...", part, weight)
    keep = tuple(slice(pads[i], full[i] - pads[i + rank]) for i in range(rank))
    y = y[(slice(None), slice(None), *keep)]
    if b is not None:
        y = y + b.astype(np.float64).reshape(1, -1, *[1] * rank)
    return y.astype(x.dtype)


def max_pool(x: np.ndarray, attributes: dict) -> np.ndarray:
    """The largest value of each window; padding never wins."""
    kernel = list(attributes["kernel_shape"])
    read, _ = padded(x, attributes, kernel, -np.inf)
    return np.maximum.reduce([read(k) for k in positions(kernel)]).astype(x.dtype)


def average_pool_with_pad(x: np.ndarray, attributes: dict) -> np.ndarray:
    """The mean of each window, padding counted as zeros (count_include_pad, no ceil_mode)."""
    kernel = list(attributes["kernel_shape"])
    read, _ = padded(x, attributes, kernel, 0.0)
    return (sum(read(k) for k in positions(kernel)) / np.prod(kernel)).astype(x.dtype)


def evaluate(op_type: str, attributes: dict, x: np.ndarray, w: np.ndarray | None, b: np.ndarray | None) -> np.ndarray:
    """One node of one of the four operators."""
    match op_type:
        case "Conv":
            return conv(x, w, b, attributes)
        case "ConvTranspose":
            return conv_transpose(x, w, b, attributes)
        case "MaxPool":
            return max_pool(x, attributes)
        case "AveragePool":
            return average_pool_with_pad(x, attributes)
    raise ValueError(op_type)
