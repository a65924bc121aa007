"""What is known of the numbers that one value took, in memory that does not grow with how many there were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from graphopt.errors import ModelError
from graphopt.quantize.observe.histogram import Histogram

Array = npt.NDArray[Any]

ROWS: Final = 256
"""How many rows are kept as samples at most."""

HUGE: Final = 1e6
"""Beyond this magnitude a number is taken for a mask's, not for data."""

FAR: Final = 510.0
"""How many times what is usual the largest magnitude is, where of 255 steps none is left for what is usual."""

GRAM_CHANNELS: Final = 4096
"""How many channels a Gram matrix has at most: those of more take over 64 MiB for each value."""

_USUAL: Final = 0.999
"""The share of numbers that says what is usual."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of a value x with K channels along `axis`; a row is the K numbers at one place.

    `count` rows were seen; `low`, `high` (K,) float32 are the least and the largest number of each channel, `total`
    (K,) float64 its sum, `histogram` that of all numbers. `rows` (n, K) float32, n ≤ `ROWS`, are some of the rows,
    those with the least `keys` (n,) uint64: a hash of batch and place, so that the choice does not depend on the order.
    `gram` (K, K) float32 is XᵀX over all rows; None where it was not asked for, or K is over `GRAM_CHANNELS`.
    `infinite` counts NaN and infinities, which are zeros in all else.
    """

    axis: int
    count: int
    low: Array
    high: Array
    total: Array
    histogram: Histogram
    rows: Array
    keys: Array
    gram: Array | None = None
    infinite: int = 0
    outer_low: Array | None = None
    outer_high: Array | None = None
    """The extremes of each channel with the places that are padding; None where there are none."""

    @staticmethod
    def of(x: Any, axis: int = -1, seed: int = 0, gram: bool = False, kept: Array | None = None) -> Statistics:
        """Those of one array of numbers. `seed` says which batch it is of; `kept`, booleans of the shape of the leading
        axes of x, which of its places count.

        Raises: ModelError GO120 for an array without such an axis.
        """
        array = np.asarray(x)
        if not -array.ndim <= axis < array.ndim:
            raise ModelError("GO120", f"an activation of shape {list(array.shape)} has no axis {axis}")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        last = axis - array.ndim if axis >= 0 else axis
        if array.ndim == 1:
            array = array.reshape(1, -1)
        outer: tuple[Array | None, Array | None] = None, None
        if kept is not None and kept.ndim <= array.ndim + last:
            outer = _extremes(np.nan_to_num(array, nan=0, posinf=0, neginf=0), last)
            array = array[kept]
        infinite = 0
        low, high = _extremes(array, last)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            finite = np.isfinite(array)
            infinite = int(array.size - finite.sum())
            array = np.where(finite, array, np.float32(0))
            low, high = _extremes(array, last)
        moved = np.moveaxis(array, last, -1)
        count = moved.size // max(moved.shape[-1], 1)
        keys = _keys(count, seed)
        chosen = np.argsort(keys) if count <= ROWS else np.argpartition(keys, ROWS)[:ROWS]
        rows = moved[np.unravel_index(chosen, moved.shape[:-1])].reshape(len(chosen), moved.shape[-1])
        total = array.sum(axis=_others(array, last), dtype=np.float64)
        product = _gram(moved) if gram and moved.shape[-1] <= GRAM_CHANNELS else None
        histogram = Histogram.of(array)
        return Statistics(axis, count, low, high, total, histogram, rows, keys[chosen], product, infinite, *outer)

    def merge(self, other: Statistics) -> Statistics:
        """Those of all rows of both; in which order any are merged makes no difference but by the rounding of sums.

        Raises: ModelError GO121 where they are of values with different channels.
        """
        if (self.axis, self.low.shape) != (other.axis, other.low.shape):
            kinds = [f"{len(one.low)} channels along axis {one.axis}" for one in (self, other)]
            raise ModelError("GO121", f"statistics of {kinds[0]} cannot be merged with those of {kinds[1]}")
        if not self.count or not other.count:
            return self if self.count else other
        keys = np.concatenate([self.keys, other.keys])
        chosen = np.argsort(keys, kind="stable")[:ROWS]
        return Statistics(
            self.axis,
            self.count + other.count,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.total + other.total,
            self.histogram + other.histogram,
            np.concatenate([self.rows, other.rows])[chosen],
            keys[chosen],
            None if self.gram is None or other.gram is None else self.gram + other.gram,
            self.infinite + other.infinite,
            np.minimum(self.extremes[0], other.extremes[0]),
            np.maximum(self.extremes[1], other.extremes[1]),
        )

    @property
    def extremes(self) -> tuple[Array, Array]:
        """(K,) each: the least and the largest of each channel, at padded places as well."""
        return (
            self.low if self.outer_low is None else self.outer_low,
            self.high if self.outer_high is None else self.outer_high,
        )

    @property
    def absmax(self) -> Array:
        """(K,) float32: the largest magnitude of each channel."""
        found: Array = np.maximum(np.abs(self.low), np.abs(self.high))
        return found

    @property
    def mean(self) -> Array:
        """(K,) float32: the mean of each channel; zeros where no row was seen."""
        found: Array = (self.total / max(self.count, 1)).astype(np.float32)
        return found

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest number of all; zeros where no row was seen."""
        return float(self.low.min(initial=np.inf)), float(self.high.max(initial=-np.inf))

    @property
    def outlier_ratio(self) -> float:
        """How many times the magnitude that 99.9 % of the numbers stay within the largest one is; 1 where all are 0."""
        usual, largest = self.histogram.magnitude(_USUAL), float(self.absmax.max(initial=0))
        return max(largest / usual, 1.0) if usual > 0 and largest > 0 else 1.0

    @property
    def refused(self) -> str:
        """Why no grid can be made of it; empty where one can."""
        largest = float(self.absmax.max(initial=0))
        if not self.count:
            return "has no number that calibration saw"
        if self.infinite:
            return f"has NaN or infinities: {self.infinite} numbers"
        if largest > HUGE:
            return f"reaches {largest:.1e}: a mask?"
        ratio = self.outlier_ratio
        return f"reaches {largest:.3g}, {ratio:.0f} times what 99.9 % stay within" if ratio > FAR else ""


def _others(array: Array, axis: int) -> tuple[int, ...]:
    return tuple(one for one in range(array.ndim) if one != array.ndim + axis)


def _extremes(array: Array, axis: int) -> tuple[Array, Array]:
    """(K,) each; zeros where there is no row."""
    others = _others(array, axis)
    if not array.size:
        none = np.zeros(array.shape[axis], np.float32)
        return none, none
    low, high = array.min(axis=others), array.max(axis=others)
    return np.asarray(low), np.asarray(high)


def _gram(moved: Array) -> Array:
    flat = moved.reshape(-1, moved.shape[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = flat.T @ flat
    return found


def _keys(count: int, seed: int) -> Array:
    """(count,) uint64: a hash of `seed` and the place (the finalizer of SplitMix64, G. Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % (1 << 64))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found: Array = z ^ (z >> np.uint64(31))
    return found
