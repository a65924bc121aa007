"""Grids: which real numbers the integers of a quantized tensor stand for.

All are affine, x ≈ (q − z) · s of an integer q, in the form of onnx's QuantizeLinear: q = saturate(round(x / s) + z),
rounded half to even. Zero is always one of the numbers, so that padding and masks stay exact.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from graphopt.errors import ModelError
from graphopt.ir.tensor import Array
from graphopt.rewrite.plan import Grid

Activations = Literal["uint8", "int8"]

_TINY = float(np.finfo(np.float32).tiny)
_HUGE = float(np.finfo(np.float32).max)


def activation_grid(low: float, high: float, dtype: Activations = "uint8", symmetric: bool = False) -> Grid:
    """The grid of a tensor whose numbers lie between `low` and `high`, for the whole tensor.

    With l = min(low, 0), h = max(high, 0): s = (h − l) / 255, z = round(q_min − l / s), as in onnx's
    DynamicQuantizeLinear; `symmetric`: s = max(h, −l) / 127, z in the middle (128, 0). A range of zero width gets
    s = 1, z = q_min. `scale` is a float32 that is neither zero, denormal nor infinite.

    Raises: ModelError GO125 when the range is none: not finite, or `low` above `high`.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ModelError("GO125", f"no grid has the range from {low} to {high}", hint="look for NaN or Inf in the data")
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    kind = np.dtype(dtype)
    first = int(np.iinfo(kind).min)
    middle = first + 128
    reach = max(high, -low) / 127 if symmetric else (high - low) / 255
    scale = np.float32(min(max(reach, _TINY), _HUGE) if reach else 1.0)
    zero = middle if symmetric else min(max(round(first - low / float(scale)), first), first + 255)
    return Grid(np.array(scale), np.array(zero, kind))


def quantized(x: Array, grid: Grid) -> Array:
    """The integers of `x`, as QuantizeLinear has them."""
    scale, zero = _steps(grid, x)
    limits = np.iinfo(grid.zero_point.dtype)
    return np.asarray(np.clip(np.rint(x / scale) + zero, limits.min, limits.max), grid.zero_point.dtype)


def on_grid(x: Array, grid: Grid) -> Array:
    """The numbers of the grid (float32) that stand for `x`."""
    scale, zero = _steps(grid, x)
    limits = np.iinfo(grid.zero_point.dtype)
    # The same as `quantized`, without a way through integers.
    y: Array = x / scale
    np.rint(y, out=y)
    np.clip(y, limits.min - zero, limits.max - zero, out=y)
    y *= scale
    return y


def levels(bits: int, symmetric: bool) -> tuple[int, int]:
    """The least and greatest integer of weights of `bits` bits.

    Symmetric ones of 7 or 8 leave out the least, so that weights and their negatives are alike.
    """
    if not symmetric:
        return 0, 2**bits - 1
    last = 2 ** (bits - 1) - 1
    return (-last if bits >= 7 else -last - 1), last


def weight_grid(low: Array, high: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    """(scale, zero point) float32 for groups of weights between `low` and `high`, of one shape.

    Asymmetric: s = (h − l) / (2ᵇ − 1), z = round(−l / s), l ≤ 0 ≤ h. Symmetric, 7 or 8 bits: s = max(h, −l) / 127 (63),
    z = 0. Fewer symmetric bits: the number of the greatest magnitude becomes −2ᵇ⁻¹, so that all levels are used; s has
    the sign that this takes. A group of zeros has s = 1; no s is denormal.
    """
    low, high = np.minimum(low, 0).astype(np.float64), np.maximum(high, 0).astype(np.float64)
    first, last = levels(bits, symmetric)
    if symmetric and first == -last:
        scale = np.maximum(high, -low) / last
    elif symmetric:
        scale = np.where(high > -low, high, low) / first
    else:
        scale = (high - low) / last
    scale = np.where(scale == 0, 1.0, np.copysign(np.clip(np.abs(scale), _TINY, _HUGE), scale)).astype(np.float32)
    zero = np.zeros_like(scale) if symmetric else np.clip(np.rint(-low / scale), first, last).astype(np.float32)
    return scale, zero


def along(parameter: Array, rank: int, axis: int | None) -> Array:
    """`parameter`, (C,) along `axis` of a tensor of so many axes or () for all of it, in a shape that broadcasts."""
    return parameter.reshape([-1 if axis is not None and one == axis % rank else 1 for one in range(rank)])


def _steps(grid: Grid, x: Array) -> tuple[Array, Array]:
    """The scale and the zero point of `grid`, float32, in shapes that broadcast over `x`."""
    scale, zero = (along(each.astype(np.float32), x.ndim, grid.axis) for each in (grid.scale, grid.zero_point))
    return scale, zero
