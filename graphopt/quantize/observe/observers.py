"""Observers: the range of an activation that a grid is to span, from its statistics."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from graphopt.errors import UsageError, near
from graphopt.quantize.observe.histogram import Histogram
from graphopt.quantize.observe.statistics import Statistics

Range = tuple[float, float]

OBSERVERS: Final = ("min-max", "percentile-99.9", "percentile-99.99", "percentile-99.999", "mse", "entropy")
"""Their names. Any other share from 50 on works as a percentile too."""

_PERCENTILE: Final = re.compile(r"percentile-(\d+(?:\.\d+)?)")
_RATIO: Final = 0.93
_STEPS: Final = 64
"""Ranges looked at are `_RATIO` to the power of fewer than `_STEPS` of the whole."""


def observed_range(statistics: Statistics, observer: str, *, symmetric: bool = False, levels: int = 256) -> Range:
    """The range (low, high) that `levels` steps are to span; low ≤ 0 ≤ high, and 0 both where all numbers are 0.

    `min-max` holds all numbers; `percentile-P` all but P percent's rest, half of it at either end; of `mse` the mean
    squared error on a grid of so many levels is least, of `entropy` the Kullback-Leibler divergence. With `symmetric`,
    low = −high.

    Raises: UsageError GO123 for an observer that is not known.
    """
    full = _with_zero(*statistics.range, symmetric)
    if full[0] == full[1]:
        return full
    histogram = statistics.histogram
    match = _PERCENTILE.fullmatch(observer)
    if match and 50 <= float(match[1]) <= 100:
        return _percentile(histogram, float(match[1]) / 100, full, symmetric)
    if observer == "min-max":
        return full
    if observer == "mse":
        return _searched(full, symmetric, partial(_squared_error, histogram, levels, symmetric), 4)
    if observer == "entropy":
        return _searched(full, symmetric, lambda one: histogram.divergence(*one, levels), 1)
    raise _unknown(observer)


def check_observer(name: str) -> None:
    """Raises UsageError GO123 for an observer that is not known."""
    match = _PERCENTILE.fullmatch(name)
    if name not in OBSERVERS and not (match and 50 <= float(match[1]) <= 100):
        raise _unknown(name)


def _unknown(observer: str) -> UsageError:
    return UsageError("GO123", f"no observer is called '{observer}'", "--observer", near(observer, OBSERVERS))


def _with_zero(low: float, high: float, symmetric: bool) -> Range:
    if symmetric:
        return -max(-low, high, 0.0), max(-low, high, 0.0)
    return min(low, 0.0), max(high, 0.0)


def _percentile(histogram: Histogram, share: float, full: Range, symmetric: bool) -> Range:
    """Cut to `full`: the ends of the bins that hold the extremes may lie beyond them."""
    if symmetric:
        high = min(histogram.magnitude(share), full[1])
        return -high, high
    cut = (1 - share) / 2
    return max(min(histogram.quantile(cut), 0.0), full[0]), min(max(histogram.quantile(1 - cut), 0.0), full[1])


def _searched(full: Range, symmetric: bool, loss: Callable[[Range], float], stride: int) -> Range:
    """The range of least loss: of those cut at one magnitude, then of those that shrink at one end.

    Each `stride`th is looked at, then those about the best.
    """
    reach = max(-full[0], full[1])
    both = _shrunk(lambda share: (max(full[0], -reach * share), min(full[1], reach * share)), loss, stride)
    if symmetric:
        return both
    low, _ = _shrunk(lambda share: (full[0] * share, both[1]), loss, stride)
    return _shrunk(lambda share: (low, full[1] * share), loss, stride)


def _shrunk(made: Callable[[float], Range], loss: Callable[[Range], float], stride: int) -> Range:
    """The range of least loss of those `made` of shares of the whole; the largest of equal ones."""

    def at(step: int) -> float:
        return loss(made(_RATIO**step))

    near = min(range(0, _STEPS, stride), key=at)
    return made(_RATIO ** min(range(max(near - stride + 1, 0), near + stride), key=at))


def _squared_error(histogram: Histogram, levels: int, symmetric: bool, one: Range) -> float:
    """The mean squared error on the grid of a range: a symmetric one has as many levels below zero as above."""
    low, high = one
    if symmetric:
        half = (levels - 1) // 2
        return histogram.squared_error(high / half, low, high)
    scale = (high - low) / (levels - 1)
    below = np.rint(-low / scale)
    return histogram.squared_error(scale, -below * scale, (levels - 1 - below) * scale)
