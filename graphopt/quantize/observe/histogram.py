"""Histograms of numbers whose range nobody knows beforehand, in fixed memory, that add up.

A bin is what the leading bits of a float32 say: its sign, its exponent and six bits of its mantissa, so that each
octave of magnitude has 64 bins of equal width. Within a bin, numbers count as spread evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MANTISSA: Final = 6
_SHIFT: Final = 23 - _MANTISSA
_LOWEST, _HIGHEST = -40, 40
"""Magnitudes below 2^_LOWEST count as zero, those from 2^_HIGHEST on as the largest below it."""

_FIRST: Final = (127 + _LOWEST) << _MANTISSA
_END: Final = (127 + _HIGHEST) << _MANTISSA
_ALL: Final = 1 << (32 - _SHIFT)
_MAGNITUDES: Final = (np.arange(_FIRST, _END + 1, dtype=np.uint32) << _SHIFT).view(np.float32).astype(np.float64)
_EDGES: Final = np.concatenate([-_MAGNITUDES[::-1], _MAGNITUDES])
_FINE: Final = 8
"""Parts of a cell of the grid that `divergence` tells apart."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """`counts` int64 of 10,241 bins, in the order of the numbers in them; the one in the middle is zero's."""

    counts: Array

    @staticmethod
    def of(values: Array) -> Histogram:
        """That of finite float32 numbers, of any shape."""
        bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
        # The numbers of bins fit int32, which numpy counts without a check for what is too large.
        found = np.bincount((bits >> _SHIFT).view(np.int32), minlength=_ALL)
        positive, negative = _within(found[: _ALL // 2]), _within(found[_ALL // 2 :])
        return Histogram(np.concatenate([negative[:0:-1], positive[:1] + negative[:1], positive[1:]]))

    @staticmethod
    def sparse(bins: Array, counts: Array) -> Histogram:
        """That with `counts` in some of the bins. Raises: ValueError, IndexError where there are no such bins."""
        found = np.zeros(len(_EDGES) - 1, np.int64)
        found[bins] = counts
        return Histogram(found)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.counts + other.counts)

    @property
    def total(self) -> int:
        """How many numbers there are."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The number that a `share` in [0, 1] of all are at most; 0 where there is none."""
        return _at(self.counts, _EDGES, share)

    def magnitude(self, share: float) -> float:
        """The magnitude that a `share` in [0, 1] of all have at most; 0 where there is none."""
        side = len(_MAGNITUDES) - 1
        both = self.counts[side:].copy()
        both[1:] += self.counts[:side][::-1]
        return _at(both, np.concatenate([[0], _MAGNITUDES]), share)

    def squared_error(self, scale: float, low: float, high: float) -> float:
        """The mean squared error of numbers cut to [low, high] and rounded to multiples of `scale` > 0.

        `low` and `high` are multiples too. It is exact for numbers that are spread evenly within their bins.
        """
        counts, lower, upper = self._bins
        rounded = _rounding(np.clip(upper, low, high) / scale) - _rounding(np.clip(lower, low, high) / scale)
        cut = _cut(low - lower) - _cut(low - upper) + _cut(upper - high) - _cut(lower - high)
        return float((counts * (rounded * scale**3 + cut) / (upper - lower)).sum() / max(counts.sum(), 1))

    def divergence(self, low: float, high: float, levels: int) -> float:
        """The Kullback-Leibler divergence (nats) of the numbers, cut to [low, high], from what `levels` cells of equal
        width keep of them: how many lie in each, spread evenly over the parts of it where there are any. It is infinite
        where no number lies in any.

        The method is that of TensorRT's 8-bit calibration (S. Migacz, 2017).
        """
        sums = np.interp(np.linspace(low, high, levels * _FINE + 1), _EDGES, self._sums)
        cells = np.diff(sums).reshape(levels, _FINE)
        there = cells > 0
        spread = there * (cells.sum(1) / np.maximum(there.sum(1), 1))[:, None]
        if not there.any():
            return math.inf
        cells[0, 0] += sums[0]
        cells[-1, -1] += self._sums[-1] - sums[-1]
        p, q = cells / cells.sum(), spread / spread.sum()
        some = p > 0
        return float((p[some] * np.log(p[some] / np.maximum(q[some], _TINY))).sum())

    @cached_property
    def _bins(self) -> tuple[Array, Array, Array]:
        """Counts, lower and upper ends of the bins that are not empty."""
        some = np.flatnonzero(self.counts)
        return self.counts[some], _EDGES[some], _EDGES[some + 1]

    @cached_property
    def _sums(self) -> Array:
        """How many numbers are below each edge."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.float64)


_TINY: Final = 1e-12
"""The probability of what a grid cannot say, which ought to be none."""


def _within(counts: Array) -> Array:
    """The bins of one sign from those that count as zero on, which are one."""
    kept = counts[_FIRST - 1 : _END].copy()
    kept[0] = counts[:_FIRST].sum()
    kept[-1] += counts[_END:].sum()
    return kept


def _at(counts: Array, edges: Array, share: float) -> float:
    some = np.flatnonzero(counts)
    if not len(some):
        return 0.0
    sums = np.concatenate([[0], np.cumsum(counts[some])])
    wanted = share * sums[-1]
    place = int(np.clip(np.searchsorted(sums, wanted) - 1, 0, len(some) - 1))
    inside = (wanted - sums[place]) / (sums[place + 1] - sums[place])
    lower, upper = edges[some[place]], edges[some[place] + 1]
    return float(lower + inside * (upper - lower))


def _rounding(t: Array) -> Array:
    """∫₀ᵗ (u − round(u))² du"""
    whole = np.rint(t)
    return whole / 12 + _cube(t - whole) / 3


def _cut(t: Array) -> Array:
    """∫₀ᵗ max(u, 0)² du"""
    return _cube(np.maximum(t, 0)) / 3


def _cube(t: Array) -> Array:
    # numpy's own power takes 200 times as long.
    found: Array = t * t * t
    return found
