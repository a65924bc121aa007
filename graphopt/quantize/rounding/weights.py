"""Constant weights as integers, a part at a time: what is rounded is never in memory as a whole more than once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np

from graphopt.errors import ModelError
from graphopt.ir import Tensor, dtypes
from graphopt.ir.tensor import Array
from graphopt.quantize.rounding.gptq import compensated
from graphopt.quantize.rounding.nearest import Rounded, fitted, rounded
from graphopt.quantize.rounding.shelf import Shelf
from graphopt.rewrite.grids import along, levels
from graphopt.rewrite.plan import Integers

Method = Literal["nearest", "search", "gptq"]
"""`nearest`: the grid spans the weights. `search`: it has the least squared error. `gptq`: that, and what rounding
one weight did is made good by others."""

_ELEMENTS = 1 << 21
_shelf = Shelf()


def integers(
    tensor: Tensor,
    *,
    axis: int | None = None,
    bits: int = 8,
    block: int = 0,
    symmetric: bool = True,
    smooth: Array | None = None,
    method: Method = "nearest",
    gram: Array | None = None,
    count: int = 0,
    name: str = "",
) -> Integers:
    """The weights `tensor`, times `smooth`, as integers of `bits` bits (8: int8, uint8; 4 and fewer: int4, uint4).

    `axis` is that of `Integers`: of the output channels without `block` (None: one scale for all), else the one that is
    summed over, K. `smooth` (K,) are factors along K. `gram` (K, K) is Σ xxᵀ of the rows x that the weights (of rank
    2) are multiplied with, before smoothing: `gptq` needs it, `search` weighs errors by its diagonal, which is enough
    there: `gram` (K,). `count` is the number of rows: with few, `gptq` is careful (0: it is not). Scales are of the
    type of the weights, float32 for wider ones. Nothing is rounded before it is read, and then a part at a time, once:
    the integers lie in a temporary file.

    Raises: ModelError GO126 when the weights hold NaN or Inf; `name` is what the error calls them.
    """
    source = _Source(tensor, axis, block, smooth)
    _check_finite(source, name)
    kind = dtypes.NUMBERS[("int" if symmetric else "uint") + ("4" if bits <= 4 else "8")]
    compute = partial(_compute, source, _Wanted(bits, symmetric, method, gram, count), kind)
    part = _shelf.once(compute)
    shape = source.scale_shape
    return Integers(
        Tensor.deferred(kind, tensor.shape, partial(part, 0)),
        Tensor.deferred(source.scale_type, shape, partial(part, 1)),
        None if symmetric else Tensor.deferred(kind, shape, partial(part, 2)),
        axis if axis is None else axis % len(tensor.shape),
        block,
        quantized_name(name),
    )


def quantized_name(name: str) -> str:
    """What the integers of the weights `name` are called."""
    return f"{name}_quantized" if name else "weights"


def dequantized(weights: Integers) -> Array:
    """The numbers that the integers stand for, float32, in the shape of the weights (`smooth` still multiplied in)."""
    values = weights.values.numpy().astype(np.float32)
    scale = _spread(weights, weights.scale.numpy().astype(np.float32))
    if weights.zero_point is not None:
        values -= _spread(weights, weights.zero_point.numpy().astype(np.float32))
    values *= scale
    return values


@dataclass(frozen=True, eq=False)
class _Wanted:
    """How weights are to be rounded."""

    bits: int
    symmetric: bool
    method: Method
    gram: Array | None
    count: int


@dataclass(frozen=True, eq=False)
class _Source:
    """Weights as a matrix (R, L) of rows that share scales: one a row, or one for each `block` numbers of it."""

    tensor: Tensor
    axis: int | None
    block: int
    smooth: Array | None

    @property
    def scale_shape(self) -> tuple[int, ...]:
        shape = list(self.tensor.shape)
        if self.axis is None:
            return ()
        if not self.block:
            return (shape[self.axis],)
        shape[self.axis] = -(-shape[self.axis] // self.block)
        return tuple(shape)

    @property
    def scale_type(self) -> int:
        return self.tensor.dtype if self.tensor.dtype in (dtypes.FLOAT16, dtypes.BFLOAT16) else dtypes.FLOAT

    @cached_property
    def rows(self) -> int:
        """R"""
        return self.tensor.size // self.length if self.length else 0

    @cached_property
    def length(self) -> int:
        """L"""
        if self.axis is None:
            return self.tensor.size
        size = self.tensor.shape[self.axis]
        return size if self.block else self.tensor.size // max(size, 1)

    def parts(self, elements: int = _ELEMENTS) -> Iterator[tuple[slice, Array]]:
        """The matrix in float32, smoothed, about so many elements at a time, and which rows they are."""
        matrix = self.matrix(self.tensor.numpy())
        step = max(elements // max(self.length, 1), 1)
        for start in range(0, self.rows, step):
            rows = slice(start, min(start + step, self.rows))
            part = np.array(matrix[rows], np.float32, order="C")
            if self.smooth is not None:
                part *= np.resize(self.smooth.astype(np.float32), self.length)
            yield rows, part

    def matrix(self, array: Array) -> Array:
        """`array`, which has the shape of the weights or of block scales, as a matrix: a view where it can be."""
        if self.axis is None:
            return array.reshape(1, -1)
        if self.block:
            return np.moveaxis(array, self.axis, -1).reshape(-1, array.shape[self.axis])
        return np.moveaxis(array, self.axis, 0).reshape(array.shape[self.axis], -1)

    def restored(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `matrix`, for an array of `shape`."""
        if self.axis is None:
            return matrix.reshape(shape)
        rest = [size for axis, size in enumerate(shape) if axis != self.axis % len(shape)]
        if self.block:
            return np.ascontiguousarray(np.moveaxis(matrix.reshape(*rest, -1), -1, self.axis))
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(-1, *rest), 0, self.axis))


def _check_finite(source: _Source, name: str) -> None:
    for _, part in source.parts():
        if not np.isfinite(part).all():
            where = f"tensor '{name}'" if name else "weights"
            raise ModelError("GO126", "weights hold NaN or Inf: no grid has them", where, "leave this one as it is")


def _compute(source: _Source, wanted: _Wanted, kind: int) -> tuple[Array, ...]:
    """(values, scale, zero point) in their final shapes and types."""
    integer = dtypes.to_numpy(kind)
    per_row = -(-source.length // source.block) if source.block else 1
    values = np.empty((source.rows, source.length), integer)
    scale = np.empty((source.rows, per_row), dtypes.to_numpy(source.scale_type))
    zero = np.empty((source.rows, per_row), integer)
    for rows, part in source.parts(source.tensor.size if wanted.method == "gptq" else _ELEMENTS):
        found = _round(part, source, wanted)
        values[rows] = found.values.astype(integer)
        scale[rows] = found.scale
        zero[rows] = found.zero.astype(integer)
    shape = source.scale_shape
    if source.block:
        return source.restored(values, source.tensor.shape), source.restored(scale, shape), source.restored(zero, shape)
    return source.restored(values, source.tensor.shape), scale.reshape(shape), zero.reshape(shape)


def _round(part: Array, source: _Source, wanted: _Wanted) -> Rounded:
    low, high = levels(wanted.bits, wanted.symmetric)
    gram = _smoothed(wanted.gram, source.smooth)
    if wanted.method == "gptq" and gram is not None:
        return compensated(part, gram, wanted.bits, source.block, wanted.symmetric, count=wanted.count)
    weight = None if gram is None else (gram if gram.ndim == 1 else gram.diagonal())
    search = wanted.method != "nearest"
    scale, zero = fitted(part, wanted.bits, source.block, wanted.symmetric, search=search, importance=weight)
    scale = scale.astype(dtypes.to_numpy(source.scale_type)).astype(np.float32)
    return rounded(part, scale, zero, source.block, (low, high))


def _smoothed(gram: Array | None, smooth: Array | None) -> Array | None:
    """The Gram matrix, or its diagonal, of the rows that `smooth` has divided."""
    if gram is None or smooth is None:
        return gram
    scaled: Array = gram / smooth**2 if gram.ndim == 1 else gram / np.outer(smooth, smooth)
    return scaled


def _spread(weights: Integers, parameter: Array) -> Array:
    """A scale or zero point in a shape that broadcasts over the weights."""
    if weights.axis is None:
        return parameter
    if weights.block:
        size = weights.values.shape[weights.axis]
        return np.repeat(parameter, weights.block, weights.axis).take(range(size), weights.axis)
    return along(parameter, len(weights.values.shape), weights.axis)
