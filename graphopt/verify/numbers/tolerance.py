"""How far apart two results may be: a few times as far as the reference itself moves when its inputs move by one ulp.

`floor` is measured, not set: the largest change of the reference under random one-ulp changes of what it reads, and no
less than the type's own epsilon times the scale of the values. `K` floors are allowed, because another order of
summation adds up more rounding than one ulp on each input does; a floor is a sample of that noise, not its bound.
Regions that agree within `K` of the least floor need no other.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from graphopt.ir.tensor import Array

K: Final = 16.0
"""The error that is allowed, in floors. Reorderings of sums measure 1-4, an attention scale off by 0.1 % some 60."""

DRAWS: Final = 3
"""Random changes that the floor is the largest of."""

CHAOTIC: Final = 0.25
"""Where `K` floors are more than this share of the values' scale, agreement says nothing."""


def is_float(array: Array) -> bool:
    """Whether the elements are real floating-point numbers that have a floor: of float8, `K` ulps are everything."""
    return array.dtype.name in ("float16", "float32", "float64", "bfloat16")


def epsilon(array: Array) -> float:
    """The distance from 1 to the next number of the array's type."""
    return 2.0**-7 if array.dtype.name == "bfloat16" else float(np.finfo(array.dtype).eps)


def smallest(array: Array) -> float:
    """The smallest number that counts: below the smallest normal one kernels may flush to zero, but not in float16."""
    if array.dtype.name == "bfloat16":
        return 2.0**-126
    found = np.finfo(array.dtype)
    return float(found.smallest_subnormal if array.dtype == np.float16 else found.smallest_normal)


def one_ulp(array: Array, rng: np.random.Generator) -> Array:
    """Every element moved to the next number, up or down at random.

    Whole numbers stay: they are counts, masks, and fills of masks, which nobody rounds. So do halves: one that is
    half-way between two integers is meant to be.
    """
    if not is_float(array) or array.size == 0:
        return array
    up = rng.integers(0, 2, array.shape, np.int8).astype(bool)
    # The next number away from zero is the next pattern of bits, which is faster than `nextafter`: zero stays.
    bits = array.view(f"i{array.itemsize}")
    with np.errstate(over="ignore"):
        doubled = array + array
    moves = np.isfinite(array) & (doubled != np.rint(doubled))
    step = (np.int8(2) * (up == (bits >= 0)) - np.int8(1)) * moves
    moved: Array = (bits + step.astype(bits.dtype)).view(array.dtype)
    return moved
