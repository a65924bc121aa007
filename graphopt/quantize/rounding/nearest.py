"""Rounding of weights, as rows of numbers that share scales: one a row, or one for each block of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphopt.ir.tensor import Array
from graphopt.rewrite.grids import levels, weight_grid

# How far the range of a group is narrowed, or widened, in search of the least error.
_SHARES = (1.0, 1.05, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)
# Few enough numbers to stay in a core's cache through all candidates.
_ELEMENTS = 1 << 17


class Rounded(NamedTuple):
    """Integers (R, L) in float32, and the scale and zero point (R, G), float32, of each group."""

    values: Array
    scale: Array
    zero: Array


def in_groups(rows: Array, block: int) -> Array:
    """(R, L) as (R, G, B): `block` numbers a group, the last one filled with zeros; all of a row without `block`."""
    if not block:
        return rows[:, None, :]
    groups = -(-rows.shape[1] // block)
    if groups * block != rows.shape[1]:
        rows = np.pad(rows, ((0, 0), (0, groups * block - rows.shape[1])))
    return rows.reshape(rows.shape[0], groups, block)


def fitted(
    rows: Array, bits: int, block: int, symmetric: bool, *, search: bool = False, importance: Array | None = None
) -> tuple[Array, Array]:
    """(scale, zero point) (R, G) of the groups of `rows` (R, L).

    With `search` those of the least Σ importance · error² of several narrower ranges, each with the scale that is best
    for the integers which it gives (least squares); `importance` (L,) of 1 if None.
    """
    groups = in_groups(rows, block)
    low, high = groups.min(axis=2), groups.max(axis=2)
    if not search:
        return weight_grid(low, high, bits, symmetric)
    weight = np.ones(rows.shape[1], np.float32) if importance is None else importance.astype(np.float32)
    # Inputs that were never seen to move must not make a group's weights arbitrary.
    weight = in_groups(np.maximum(weight, weight.mean() * 1e-4 + 1e-30)[None], block)[0]
    scale, zero = np.empty_like(low, np.float32), np.empty_like(low, np.float32)
    step = max(_ELEMENTS // max(rows.shape[1], 1), 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        scale[part], zero[part] = _searched(groups[part], low[part], high[part], weight, bits, symmetric)
    return scale, zero


def rounded(rows: Array, scale: Array, zero: Array, block: int, limits: tuple[int, int]) -> Rounded:
    """`rows` (R, L) to the nearest integers of their groups' grids."""
    groups = in_groups(rows, block)
    values = _nearest(groups, scale[..., None], zero[..., None], limits) + zero[..., None]
    return Rounded(values.reshape(len(rows), -1)[:, : rows.shape[1]], scale, zero)


def _nearest(groups: Array, scale: Array, zero: Array, limits: tuple[int, int]) -> Array:
    """q − z"""
    steps = groups / scale
    np.rint(steps, out=steps)
    return np.clip(steps, limits[0] - zero, limits[1] - zero, out=steps)


def _searched(groups: Array, low: Array, high: Array, weight: Array, bits: int, symmetric: bool) -> tuple[Array, Array]:
    limits = levels(bits, symmetric)
    best = np.full(low.shape, np.inf, np.float32)
    scale, zero = weight_grid(low, high, bits, symmetric)
    for first, offset in _candidates(low, high, bits, symmetric):
        steps = _nearest(groups, first[..., None], offset[..., None], limits)
        weighted = weight * steps
        norm = np.einsum("rgb,rgb->rg", weighted, steps)
        dot = np.einsum("rgb,rgb->rg", weighted, groups)
        refined = np.where(norm > 0, dot / np.where(norm > 0, norm, 1), first).astype(np.float32)
        for found in (first, refined):
            usable = np.abs(found) > np.finfo(np.float32).tiny
            error = np.where(usable, norm * found**2 - 2 * dot * found, np.inf)
            better = error < best
            best = np.where(better, error, best)
            scale, zero = np.where(better, found, scale), np.where(better, offset, zero)
    return scale, zero


def _candidates(low: Array, high: Array, bits: int, symmetric: bool) -> list[tuple[Array, Array]]:
    """Grids of narrower ranges: (scale, zero point)."""
    shares = [share for share in _SHARES if bits < 8 or share >= 0.8]
    found = [weight_grid(low * share, high * share, bits, symmetric) for share in shares]
    first, last = levels(bits, symmetric)
    if symmetric and first != -last:
        # The other sign: the side of the smaller reach gets the level more.
        found += [(scale * first / last, zero) for scale, zero in found[:5]]
    if not symmetric:
        found += [
            (scale, np.clip(zero + move, first, last).astype(np.float32)) for scale, zero in found for move in (-1, 1)
        ]
    return found
