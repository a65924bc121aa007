"""How near the outputs of a quantized model are to those of the float model."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.errors import GraphoptError, ModelError, UsageError, near

Array = npt.NDArray[Any]
Outputs = Mapping[str, Any]
Samples = list[float]
Measure = Callable[[Outputs, Outputs, Mapping[str, Any]], Samples]

_TINY = 1e-30
OWN_METRIC = "--metric FILE.py:function compares what it likes"


@dataclass(frozen=True)
class Metric:
    """A number for each sample of a batch, from the float model's outputs, the quantized model's and the feed.

    Larger is better, and `best` is what equal outputs give; None where that depends on the outputs.
    """

    name: str
    measure: Measure
    best: float | None = 1.0

    def drop(self, value: float, reference: float) -> float:
        """How much is lost at `value`, where the float model itself has `reference`.

        With `sqnr` that is noise divided by signal, in power.
        """
        if self.name == "sqnr":
            return 0.0 if math.isinf(value) else float(10 ** (-value / 10))
        return reference - value

    def at(self, lost: float, reference: float) -> float:
        """The metric where so much is lost: the inverse of `drop`."""
        if self.name == "sqnr":
            return -10 * math.log10(lost) if lost else math.inf
        return reference - lost

    def mean(self, values: Sequence[float]) -> float:
        """The metric of all samples: their mean; of `sqnr` the mean noise, so that one sample without any hides none
        of the others'."""
        if self.name == "sqnr":
            return _decibels(float(np.mean(10 ** (-np.asarray(values) / 10))))
        return float(np.mean(values))


def metric_named(name: str | Callable[..., Any]) -> Metric:
    """`cosine`, `sqnr` (dB), `top1`, `FILE.py:function`, or a function.

    The function is called with the outputs of the float model, those of the quantized one and the feed, each arrays by
    name; without the feed if it takes two arguments, with the outputs to judge alone if it takes one. It returns a
    number, larger for better. Raises: UsageError GO142 for another name
    and for a file that cannot be used.
    """
    known = {
        "cosine": Metric("cosine", _cosine),
        "sqnr": Metric("sqnr", _sqnr, math.inf),
        "top1": Metric("top1", _top1),
    }
    if not isinstance(name, str):
        label = getattr(name, "__name__", "metric")
        return Metric(label, _called(name, label), None)
    if name in known:
        return known[name]
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise UsageError("GO142", f"no metric is called '{name}'", "", f"{near(name, known)}, or FILE.py:function")
    return Metric(name, _own(Path(path), function), None)


@dataclass(frozen=True)
class Score:
    """The metric over a split: its mean, the worst sample, how many there are, and what the float model itself has."""

    mean: float
    worst: float
    samples: int
    reference: float

    @staticmethod
    def of(metric: Metric, values: Sequence[float], reference: Sequence[float]) -> Score:
        """Raises: ModelError GO143 where there are no samples."""
        if not values:
            raise ModelError("GO143", f"{metric.name} has nothing to compare: outputs are empty", "", OWN_METRIC)
        best = metric.best if metric.best is not None else metric.mean(reference)
        return Score(metric.mean(values), float(np.min(values)), len(values), best)


# ---- samples ---------------------------------------------------------------------------------------------------------


def _rows(array: Array) -> Array:
    """(samples, elements); what has one axis or none is one sample."""
    return array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)


def _per_sample(reference: Outputs, candidate: Outputs, one: Callable[[Array, Array], Array]) -> Array:
    """(samples,): the mean over the outputs of what `one` says of each; NaN where it knows of none.

    `one` gets floating-point arrays of one shape. How many samples there are the largest output says; those of another
    leading size are left out.
    """
    pairs = []
    for name, a in reference.items():
        b = candidate.get(name)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype.kind == "f" and a.shape == b.shape:
            pairs += [(a.astype(np.float64), b.astype(np.float64))] if a.size else []
    if not pairs:
        return np.empty(0)
    largest = max((a for a, _ in pairs), key=lambda a: a.size)
    parts = np.array([one(a, b) for a, b in pairs if len(_rows(a)) == len(_rows(largest))])
    known = ~np.isnan(parts)
    mean: Array = np.where(known, parts, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    return mean


def _kept(a: Array, b: Array) -> tuple[Array, Array]:
    """The rows of both without what the reference has no number for; what the candidate alone has none for counts as
    far away, and as of the other sign: rows of nothing else point away from the reference, whatever that is."""
    a, b = _rows(a), _rows(b)
    known = np.isfinite(a)
    away = -np.copysign(np.finfo(np.float32).max, a)
    return np.where(known, a, 0.0), np.where(known, np.where(np.isfinite(b), b, away), 0.0)


def _cosine(reference: Outputs, candidate: Outputs, feed: Mapping[str, Any]) -> Samples:
    def cosine(a: Array, b: Array) -> Array:
        a, b = _kept(a, b)
        scales = [np.abs(x).max(axis=1, keepdims=True) for x in (a, b)]
        single = a.shape[1] == 1
        if single:
            scales = [np.maximum(*scales)] * 2
        # Scaled first: what is far away must not overflow.
        a, b = (x / np.maximum(scale, _TINY) for x, scale in zip((a, b), scales, strict=True))
        p, q = (a * a).sum(1), (b * b).sum(1)
        # One number has a size and no direction: 2ab / (a² + b²) is 1 where both are the same, and only there.
        norms = (p + q) / 2 if single else np.sqrt(p * q)
        found: Array = np.where((a == b).all(axis=1), 1.0, (a * b).sum(1) / np.maximum(norms, _TINY))
        return found

    return list(map(float, _per_sample(reference, candidate, cosine)))


def _sqnr(reference: Outputs, candidate: Outputs, feed: Mapping[str, Any]) -> Samples:
    def noise(a: Array, b: Array) -> Array:
        a, b = _kept(a, b)
        found: Array = ((a - b) ** 2).sum(1) / np.maximum((a * a).sum(1), _TINY)
        return found

    return [_decibels(one) for one in _per_sample(reference, candidate, noise)]


def _decibels(noise: float) -> float:
    """The ratio of signal to noise, from that of noise to signal in power."""
    return -10 * math.log10(noise) if noise else math.inf


def _top1(reference: Outputs, candidate: Outputs, feed: Mapping[str, Any]) -> Samples:
    def agreement(a: Array, b: Array) -> Array:
        if a.ndim < 2:
            return np.array([np.nan])
        best, least = a.max(axis=-1, keepdims=True), a.min(axis=-1, keepdims=True)
        # Where all are equal there is nothing to choose: at padding, for one.
        known = (best > least)[..., 0]
        same = np.take_along_axis(a, b.argmax(axis=-1, keepdims=True), axis=-1) == best
        right = same[..., 0] & known & ~np.isnan(b).any(axis=-1)
        counts = _rows(known).sum(axis=1)
        found: Array = _rows(right).sum(axis=1) / np.where(counts, counts, np.nan)
        return found

    found = _per_sample(reference, candidate, agreement)
    return [float(value) for value in found if not math.isnan(value)]


# ---- a user's own ----------------------------------------------------------------------------------------------------


def _own(path: Path, name: str) -> Measure:
    try:
        spec = importlib.util.spec_from_file_location("graphopt_metric", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except FileNotFoundError as error:
        raise UsageError("GO142", "there is no such file", str(path)) from error
    except (Exception, SystemExit) as error:
        raise UsageError("GO142", f"the metric cannot be imported: {error!r}", str(path)) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError("GO142", f"'{name}' is no function of it", str(path), near(name, _functions(module)))
    return _called(function, f"{path}:{name}")


def _called(function: Callable[..., Any], where: str) -> Measure:
    """A user's function as a measure. Raises: UsageError GO144 where it raises, or returns no finite number."""
    count = _arity(function)

    def measure(reference: Outputs, candidate: Outputs, feed: Mapping[str, Any]) -> Samples:
        try:
            value = function(*((candidate,) if count == 1 else (reference, candidate, feed)[:count]))
            number = float(value)
        except GraphoptError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError("GO144", f"the metric raised {error!r}", where) from error
        if not math.isfinite(number):
            raise UsageError("GO144", f"the metric returned {number}, no finite number", where)
        return [number]

    return measure


def _functions(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _arity(function: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of some functions that are not written in Python
        return 2
    if any(one.kind == inspect.Parameter.VAR_POSITIONAL for one in parameters):
        return 3
    return min(3, sum(one.kind in kinds for one in parameters))
