"""Statistics of paired runs: A and B run in turn, so what slows the machine down slows down both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 2000
_LEVEL = 95


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians and the bounds of its 95 % interval."""

    ratio: float
    low: float
    high: float


def ratio_of_medians(times: Sequence[float], reference: Sequence[float], seed: int = 0) -> Ratio:
    """median(times) / median(reference), with a percentile bootstrap over the pairs (times[i], reference[i]).

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13. The same seed gives the same bounds.
    """
    pairs = np.array([times, reference], np.float64)
    drawn = np.random.default_rng(seed).integers(pairs.shape[1], size=(_RESAMPLES, pairs.shape[1]))
    medians = np.median(pairs[:, drawn], axis=-1)
    low, high = np.percentile(medians[0] / medians[1], [50 - _LEVEL / 2, 50 + _LEVEL / 2])
    return Ratio(float(np.median(pairs[0]) / np.median(pairs[1])), float(low), float(high))
