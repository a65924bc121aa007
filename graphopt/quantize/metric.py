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


def metric_named(name: str) -> Metric:
    """`cosine`, `sqnr` (dB), `top1`, or `FILE.py:function`.

    The function is called with the outputs of the float model, those of the quantized one and the feed, each arrays by
    name, or with the outputs alone, and returns a number, larger for better. Raises: UsageError GO142 for another name
    and for a file that cannot be used.
    """
    known = {
        "cosine": Metric("cosine", _cosine),
        "sqnr": Metric("sqnr", _sqnr, math.inf),
        "top1": Metric("top1", _top1),
    }
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
        best = metric.best if metric.best is not None else float(np.mean(reference))
        return Score(float(np.mean(values)), float(np.min(values)), len(values), best)


# ---- samples ---------------------------------------------------------------------------------------------------------


def compared(reference: Outputs, candidate: Outputs) -> list[tuple[Array, Array]]:
    """The pairs of outputs that are floating-point numbers, all of them finite in the reference."""
    pairs = []
    for name, one in reference.items():
        other = candidate.get(name)
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.dtype.kind == "f":
            pairs.append((one.astype(np.float64), other.astype(np.float64)))
    return pairs


def _rows(array: Array) -> Array:
    """(samples, elements); a scalar is one sample."""
    return array.reshape(array.shape[0], -1) if array.ndim else array.reshape(1, 1)


def _per_sample(reference: Outputs, candidate: Outputs, one: Callable[[Array, Array], Array]) -> Samples:
    """The mean over the outputs of what `one` says of each sample; outputs of another batch size are left out."""
    parts = [one(_rows(a), _rows(b)) for a, b in compared(reference, candidate) if a.size and a.shape == b.shape]
    count = len(parts[0]) if parts else 0
    return [float(value) for value in np.mean([part for part in parts if len(part) == count], axis=0)] if parts else []


def _kept(a: Array, b: Array) -> tuple[Array, Array]:
    """Both without what the reference has no number for; NaN of the candidate alone counts as far away."""
    known = np.isfinite(a)
    return np.where(known, a, 0.0), np.where(known, np.where(np.isfinite(b), b, np.finfo(np.float32).max), 0.0)


def _cosine(reference: Outputs, candidate: Outputs, feed: Mapping[str, Any]) -> Samples:
    def cosine(a: Array, b: Array) -> Array:
        a, b = _kept(a, b)
        # Scaled first: what is far away must not overflow.
        a, b = (x / np.maximum(np.abs(x).max(axis=1, keepdims=True), _TINY) for x in (a, b))
        norms = np.sqrt((a * a).sum(1) * (b * b).sum(1))
        same = (a == b).all(axis=1)
        found: Array = np.where(same, 1.0, (a * b).sum(1) / np.maximum(norms, _TINY))
        return found

    return _per_sample(reference, candidate, cosine)


def _sqnr(reference: Outputs, candidate: Outputs, feed: Mapping[str, Any]) -> Samples:
    def sqnr(a: Array, b: Array) -> Array:
        a, b = _kept(a, b)
        noise = ((a - b) ** 2).sum(1)
        with np.errstate(divide="ignore"):
            found: Array = 10 * np.log10(np.maximum((a * a).sum(1), _TINY) / noise)
        return found

    return _per_sample(reference, candidate, sqnr)


def _top1(reference: Outputs, candidate: Outputs, feed: Mapping[str, Any]) -> Samples:
    def agreement(a: Array, b: Array) -> Array:
        same: Array = (a == b).astype(np.float64)
        return same.mean(axis=1, keepdims=False) if same.size else same

    return _per_sample(
        {name: _best(array) for name, array in reference.items()},
        {name: _best(array) for name, array in candidate.items()},
        agreement,
    )


def _best(array: Any) -> Any:
    """The index of the largest number along the last axis."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.ndim < 2 or not array.shape[-1]:
        return None
    return array.argmax(axis=-1).astype(np.float64)


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
    count = _arity(function)

    def measure(reference: Outputs, candidate: Outputs, feed: Mapping[str, Any]) -> Samples:
        try:
            value = function(*(reference, candidate, feed)[:count])
            number = float(value)
        except GraphoptError:
            raise
        except (Exception, SystemExit) as error:
            raise UsageError("GO144", f"the metric raised {error!r}", f"{path}:{name}") from error
        if math.isnan(number):
            raise UsageError("GO144", "the metric returned NaN", f"{path}:{name}")
        return [number]

    return measure


def _functions(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _arity(function: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind == inspect.Parameter.VAR_POSITIONAL for one in parameters):
        return 3
    return min(3, sum(one.kind in kinds for one in parameters))
