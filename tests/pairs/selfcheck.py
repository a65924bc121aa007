"""Whether a pair is what it says, shown without any checker: by the runtime with its optimizations off."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from pairs.base import Array, Feeds, Pair

SHOWN = 20
"""How many times the noise of one rounding a wrong pair must differ by."""

_LOOSE = 200
_EPS = {np.dtype(np.float16): 2.0**-10, np.dtype(np.float32): 2.0**-23, np.dtype(np.float64): 2.0**-52}


def outputs(proto: onnx.ModelProto, feeds: Feeds) -> list[object]:
    """All outputs of a model, arrays or lists of them, run without optimizations on one thread."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[object] = session.run(None, feeds)
    return found


def shown_wrong(pair: Pair) -> str:
    """How the witness of a wrong pair shows it; empty when it does not."""
    assert pair.feeds
    feeds = pair.feeds(np.random.default_rng(0))
    reference = pair.reference()
    old, new = outputs(reference, feeds), outputs(pair.candidate(), feeds)
    if len(old) != len(new):
        return f"{len(old)} outputs and {len(new)}"
    noisy = [outputs(_moved(reference, seed), _moved_feeds(feeds, seed)) for seed in range(3)]
    for index, (a, b) in enumerate(zip(old, new, strict=True)):
        if how := _differs(a, b, [run[index] for run in noisy]):
            return how
    return ""


def shown_right(pair: Pair, draws: int = 6) -> str:
    """Where a right pair disagrees on random legal inputs; empty when it does not."""
    assert pair.feeds
    reference, candidate = pair.reference(), pair.candidate()
    for seed in range(draws):
        feeds = pair.feeds(np.random.default_rng(seed))
        old, new = outputs(reference, feeds), outputs(candidate, feeds)
        noisy = [outputs(_moved(reference, s), _moved_feeds(feeds, s)) for s in range(2)]
        if len(old) != len(new):
            return f"{len(old)} outputs and {len(new)}"
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            if how := _differs(a, b, [run[index] for run in noisy], _LOOSE):
                return f"draw {seed}, output {index}: {how}"
    return ""


def shown_right_on_special(pair: Pair) -> str:
    """Where a right pair gives another pattern of NaN and infinity, with one of them in each floating-point input."""
    assert pair.feeds
    reference, candidate = pair.reference(), pair.candidate()
    for value in (np.nan, np.inf, -np.inf, 1e20, -1e20, 1e-30):
        feeds = {name: _with(array, value) for name, array in pair.feeds(np.random.default_rng(0)).items()}
        with np.errstate(all="ignore"):
            for index, (a, b) in enumerate(zip(outputs(reference, feeds), outputs(candidate, feeds), strict=True)):
                if isinstance(a, np.ndarray) and a.dtype in _EPS and not _same_pattern(a, b):
                    return f"{value}, output {index}: another pattern of NaN and infinity"
    return ""


def _with(array: Array, value: float) -> Array:
    if array.dtype not in _EPS:
        return array
    array = array.copy()
    with np.errstate(over="ignore"):
        array.flat[:: max(array.size // 3, 1)] = value
    return array


def _same_pattern(a: Array, b: object) -> bool:
    other = np.asarray(b)
    finite = np.isfinite(a) & np.isfinite(other)
    return np.array_equal(a[~finite], other[~finite], equal_nan=True)


def _differs(old: object, new: object, noisy: list[object], factor: float = SHOWN) -> str:
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return f"sequences of {len(old)} and {len(new)}"
        runs = [run for run in noisy if isinstance(run, list)]
        parts = enumerate(zip(old, new, strict=True))
        each = (_differs(a, b, [run[i] for run in runs], factor) for i, (a, b) in parts)
        return next(filter(None, each), "")
    a, b = np.asarray(old), np.asarray(new)
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype}{a.shape} and {b.dtype}{b.shape}"
    if a.dtype not in _EPS:
        return "" if np.array_equal(a, b) else f"{int((a != b).sum())} of {a.size} elements differ"
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "another pattern of NaN and infinity"
    if not finite.any():
        return ""
    error = float(np.abs(a[finite].astype(float) - b[finite].astype(float)).max())
    noise = _noise(a, noisy, finite)
    return f"off by {error:.3g}, {error / noise:.0f} times the noise" if error > factor * noise else ""


def _noise(a: Array, noisy: list[object], finite: Array) -> float:
    """How far the output moves when inputs and weights move by one rounding, at least one of its own."""
    own = _EPS[a.dtype] * max(float(np.sqrt(np.mean(np.square(a[finite].astype(float))))), 1e-300)
    moved = [np.abs(np.asarray(run)[finite].astype(float) - a[finite].astype(float)) for run in noisy]
    return max([own, *(float(m[np.isfinite(m)].max(initial=0.0)) for m in moved)])


def _moved(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype in _EPS and array.size > 1:
            tensor.CopyFrom(numpy_helper.from_array(_one_ulp(array, rng), tensor.name))
    return other


def _moved_feeds(feeds: Feeds, seed: int) -> Feeds:
    rng = np.random.default_rng(seed)
    return {name: _one_ulp(a, rng) if isinstance(a, np.ndarray) and a.dtype in _EPS else a for name, a in feeds.items()}


def _one_ulp(array: Array, rng: np.random.Generator) -> Array:
    """`array` with every element moved to a neighbour; integers that floats carry stay, since they are counts."""
    with np.errstate(all="ignore"):
        moved = np.nextafter(array, np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype))
        return np.where(np.isfinite(array) & (array != np.round(array)), moved, array)
