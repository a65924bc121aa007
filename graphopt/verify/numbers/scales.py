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

_BLOCK: Final = 1 << 19
_ROW: Final = 64
"""A row is the last axes that hold this many elements: of fewer, the scale is luck."""

_GAP: Final = 64.0
_LUCK: Final = 1024.0
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
        for left in range(0, width, _BLOCK):
            yield slice(top, top + step), slice(left, left + _BLOCK)


def local_scales(values: Array, least: float) -> Array:
    """The scale of each element of `values`, a matrix: the rms of its row, and no less than `least`; float64.

    What stands far above the rest of its row, as fills of masks do, is left out of that and has its own magnitude for
    a scale. Zeros in a row in which nothing is nearly zero are meant: they have the scale `least`.
    """
    narrow = values if values.itemsize == 8 else values.astype(np.float32)
    magnitudes = np.abs(np.where(np.isfinite(narrow), narrow, 0))
    ordered = np.sort(magnitudes, axis=1).astype(np.float64)
    zeros = (ordered == 0).sum(axis=1, keepdims=True)
    lowest = np.take_along_axis(ordered, np.minimum(zeros, ordered.shape[1] - 1), 1)
    scale = _rms_below_gap(np.maximum(ordered, lowest), zeros)
    found: Array = np.where(magnitudes > _FAR * scale, magnitudes, scale).astype(np.float64)
    meant = lowest >= scale / _EXACT
    if meant.any():
        found[(magnitudes == 0) & meant] = 0.0
    return np.maximum(found, least, out=found)


def _rms_below_gap(ordered: Array, zeros: Array) -> Array:
    """The rms of each row of magnitudes in order, up to the first gap that is no accident; a column.

    Of numbers that come near zero by accident, the share below a magnitude is about that magnitude over the largest.
    The first ones, which were `zeros`, have no say in that.
    """
    length = ordered.shape[1]
    largest, end = ordered[:, -1:], np.full((len(ordered), 1), length)
    below, above = ordered[:, :-1], ordered[:, 1:]
    gaps = above > _GAP * below
    if gaps.any():
        share = (np.arange(1, length) - zeros) / np.maximum(length - zeros, 1)
        gaps &= share * largest >= _LUCK * below
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
    step = max(1, math.ceil(matrix.size / _BLOCK))
    sample = np.abs(matrix[::step].astype(np.float64))
    column = np.where(np.isfinite(sample), sample, 0.0).mean(axis=0)
    return bool(column.max() > _FAR * np.median(column))
