"""Statistics of paired runs: A and B run in turn, so what slows the machine down slows down both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Difference = Literal["faster", "slower", "none"]

_RESAMPLES = 2000
_LEVEL = 95
FEWEST = 6
"""Runs that a 95 % interval takes: that all of n lie on one side of what they are of has probability 2·½ⁿ."""


@dataclass(frozen=True)
class Spread:
    """Times of single runs in seconds; `low` to `high` is the 95 % interval of the median, NaN for fewer than 6."""

    median: float
    low: float
    high: float
    mean: float
    std: float
    min: float
    max: float
    p90: float


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians from so many `pairs` of runs, and the bounds of its 95 % interval: NaN for fewer than 6."""

    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def difference(self) -> Difference:
        """What is shown: nothing where the interval includes 1, or where there is none."""
        if self.high < 1:
            return "faster"
        return "slower" if self.low > 1 else "none"


def spread(times: Sequence[float], seed: int = 0) -> Spread:
    """Median, mean, standard deviation (n − 1), extremes and 90th percentile of at least one run's time."""
    taken = np.asarray(times, np.float64)
    low, high = _interval(np.median(taken[_drawn(len(taken), seed)], axis=-1), len(taken))
    return Spread(
        median=float(np.median(taken)),
        low=low,
        high=high,
        mean=float(taken.mean()),
        std=float(taken.std(ddof=1)) if len(taken) > 1 else 0.0,
        min=float(taken.min()),
        max=float(taken.max()),
        p90=float(np.percentile(taken, 90)),
    )


def ratio_of_medians(times: Sequence[float], reference: Sequence[float], seed: int = 0) -> Ratio:
    """median(times) / median(reference), with a percentile bootstrap over the pairs (times[i], reference[i]).

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13. The same seed gives the same bounds. A clock
    that stands still gives NaN, which shows nothing.
    """
    pairs = np.array([times, reference], np.float64)
    medians = np.median(pairs[:, _drawn(pairs.shape[1], seed)], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.median(pairs[0]) / np.median(pairs[1])
        low, high = _interval(medians[0] / medians[1], pairs.shape[1])
    return Ratio(float(ratio), low, high, pairs.shape[1])


def _drawn(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which runs each resample is made of."""
    return np.random.default_rng(seed).integers(count, size=(_RESAMPLES, count))


def _interval(figures: np.ndarray[Any, np.dtype[np.float64]], runs: int) -> tuple[float, float]:
    """The bounds between which 95 % of the resamples' figures lie."""
    if runs < FEWEST:
        return math.nan, math.nan
    low, high = np.percentile(figures, [50 - _LEVEL / 2, 50 + _LEVEL / 2])
    return float(low), float(high)
