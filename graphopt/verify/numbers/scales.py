"""The scale that each element of a tensor is judged by: that of its likes, so that large ones hide nothing in others.

Most tensors have one scale. Others have a row at 1e6 among rows at 1, a fill of a mask beside scores, one channel that
outgrew the rest: a floor that holds for those is no floor for their neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from graphopt.ir.tensor import Array

_BLOCK: Final = 1 << 16
"""Elements that are looked at together, so few that the processor's cache holds them."""

_WIDEST: Final = 1 << 19
_ROW: Final = 64
"""A row is the last axes that hold this many elements: of fewer, the scale is luck."""

_GAP: Final = 64.0
_LUCK: Final = 1024.0
_LUCKY: Final = 1 / 16
_FAR: Final = 32.0
_EXACT: Final = 4.0
_KIND_BITS: Final = 10


def rows(array: Array) -> Array:
    """`array` as a matrix of rows."""
    length = 1
    for size in reversed(array.shape):
        if length >= _ROW:
            break
        length *= size
    return array.reshape(-1, max(length, 1))


def blocks(matrix: Array) -> Iterator[tuple[slice, slice]]:
    """Parts of a matrix that together are all of it, small enough to be copied in float64: whole rows if possible."""
    height, width = matrix.shape
    for top in range(0, height, step := max(1, _BLOCK // max(width, 1))):
        for left in range(0, width, _WIDEST):
            yield slice(top, top + step), slice(left, left + _WIDEST)


def local_scales(values: Array, least: float) -> Array:
    """The scale of each element of `values`, a matrix: the rms of its row, and no less than `least`; float64.

    What stands far above the rest of its row, as fills of masks do, is left out of that and has its own magnitude for
    a scale. Zeros in a row in which nothing is nearly zero are meant: they have the scale `least`. Where all elements
    of every row have one scale, a column.
    """
    narrow = values if values.itemsize == 8 else values.astype(np.float32, copy=False)
    finite = np.isfinite(narrow)
    magnitudes = np.abs(narrow if finite.all() else np.where(finite, narrow, 0))
    scale, lowest = _row_scales(magnitudes)
    far = magnitudes.max(axis=1, keepdims=True) > _FAR * scale
    meant = lowest >= scale / _EXACT
    found = np.where(magnitudes > _FAR * scale, magnitudes, scale).astype(np.float64) if far.any() else scale
    if meant.any():
        found = np.where((magnitudes == 0) & meant, 0.0, found)
    return np.maximum(found, least)


def _row_scales(magnitudes: Array) -> tuple[Array, Array]:
    """The rms of each row of magnitudes below its first gap, and its least magnitude that is not zero; columns.

    The share of a row that is no larger than t is at most t times the mean of 1/x, which is what `_rms_below_gap` finds
    suspicious: where that is small enough there is no gap, and nothing to be sorted.
    """
    length = magnitudes.shape[1]
    present = magnitudes > 0
    count = np.count_nonzero(present, axis=1)[:, None]
    largest = magnitudes.max(axis=1, keepdims=True).astype(np.float64)
    lowest = magnitudes.min(axis=1, keepdims=True, initial=np.inf, where=present).astype(np.float64)
    lowest[count == 0] = 0.0
    unit = np.where(largest > 0, largest, 1.0)
    with np.errstate(over="ignore", divide="ignore"):
        shares = np.divide(magnitudes, unit.astype(magnitudes.dtype))
        inverse = np.divide(1, shares, out=np.zeros_like(shares), where=present).sum(axis=1, keepdims=True)
    squares = np.einsum("ij,ij->i", shares, shares, dtype=np.float64)[:, None] + (length - count) * (lowest / unit) ** 2
    scale = largest * np.sqrt(squares / length)
    doubtful = np.flatnonzero(~(inverse < _LUCK * count) & (count > 0))
    if doubtful.size:
        ordered = np.sort(magnitudes[doubtful], axis=1).astype(np.float64)
        lifted = np.maximum(ordered, lowest[doubtful])
        scale[doubtful] = _rms_below_gap(lifted, length - count[doubtful], len(magnitudes))
    return scale, lowest


def _rms_below_gap(ordered: Array, zeros: Array, total: int) -> Array:
    """The rms of each row of magnitudes in order, up to the first gap that is no accident; a column.

    Of numbers that come near zero by accident, the share below a magnitude is about that magnitude over the largest.
    The first ones, which were `zeros`, have no say in that. One number alone has to be as unlikely as two, and in few
    of `total` rows it is an accident all the same: many rows are many draws.
    """
    length = ordered.shape[1]
    largest, end = ordered[:, -1:], np.full((len(ordered), 1), length)
    below, above = ordered[:, :-1], ordered[:, 1:]
    gaps = above > _GAP * below
    if gaps.any():
        number = np.arange(1, length) - zeros
        luck = np.where(number == 1, _LUCK**2, _LUCK)
        gaps &= number / np.maximum(length - zeros, 1) * largest >= luck * below
        alone = gaps & (number == 1)
        if np.count_nonzero(alone) < _LUCKY * total:
            gaps &= ~alone
        end = np.where(gaps.any(axis=1), gaps.argmax(axis=1) + 1, length)[:, None]
        largest = np.take_along_axis(ordered, end - 1, 1)
    kept = np.where(np.arange(length) < end, ordered, 0.0)
    squares = np.square(np.divide(kept, largest, out=np.zeros_like(kept), where=largest > 0))
    rms: Array = largest * np.sqrt(squares.sum(axis=1, keepdims=True) / end)
    return rms


def kinds(scales: Array) -> Array:
    """A number for each element that those of about one scale share."""
    kind: Array = np.frexp(scales)[1] // _KIND_BITS
    return kind


def has_far_columns(matrix: Array) -> bool:
    """Whether some columns of a matrix are far above most others: then it is to be judged by columns as well."""
    if min(matrix.shape) < _ROW:
        return False
    step = max(1, math.ceil(matrix.size / _WIDEST))
    sample = np.abs(matrix[::step].astype(np.float64))
    column = np.where(np.isfinite(sample), sample, 0.0).mean(axis=0)
    return bool(column.max() > _FAR * np.median(column))
