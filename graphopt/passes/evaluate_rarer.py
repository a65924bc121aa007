"""What operators do to constants that stand before a model's own more seldom: masks, positions, tables of sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from graphopt.ir.node import Node
from graphopt.ir.tensor import Array
from graphopt.passes.given import Evaluation, Operands, alike, given, integers, optional

_EXACT: Final = 2**53


def _unary(function: Callable[[Array], Array], kinds: str) -> Evaluation:
    """A function of each element, of the kinds of types that NumPy calls so."""

    def evaluate(node: Node, operands: Operands) -> Array | None:
        x = given(operands, 0)
        return function(x) if x.dtype.kind in kinds else None

    return evaluate


def _is_infinite(node: Node, operands: Operands) -> Array | None:
    x = given(operands, 0)
    if x.dtype.kind != "f":
        return None
    positive, negative = node.attr("detect_positive", 1), node.attr("detect_negative", 1)
    return np.isposinf(x) & bool(positive) | np.isneginf(x) & bool(negative)


def _relu(node: Node, operands: Operands) -> Array | None:
    """Not of nothing with a sign, nor of what is no number: which of two it is, is not said."""
    x = given(operands, 0)
    certain = x.dtype.kind == "f" and bool((x == x).all()) and not bool((np.signbit(x) & (x == 0)).any())
    return np.maximum(x, np.zeros((), x.dtype)) if certain else None


def _xor(node: Node, operands: Operands) -> Array | None:
    return np.logical_xor(*alike(operands)) if node.version >= 7 else None


def _mod(node: Node, operands: Operands) -> Array | None:
    a, b = alike(operands)
    whole = a.dtype.kind in "iu" and b.all() and not node.attr("fmod", 0)
    return np.mod(a, b) if whole else None


def _quantize(node: Node, operands: Operands) -> Array | None:
    """To bytes, on one grid or on one for each slice along `axis`: weights of a model that was trained with them."""
    x, scale, zero = given(operands, 0), given(operands, 1), optional(operands, 2)
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if not x.dtype == scale.dtype == np.float32 or kind.itemsize > 1 or not np.isfinite(x).all():
        return None
    if scale.ndim > 1 or not (scale > 0).all() or node.attr("block_size", 0) or node.attr("output_dtype", 0):
        return None
    along = [1] * x.ndim
    if scale.size > 1:
        along[node.attr("axis", 1)] = scale.size
    moved = np.zeros(scale.shape, np.float32) if zero is None else zero.astype(np.float32)
    limits, moved = np.iinfo(kind), moved.reshape(along)
    steps = np.rint(x / scale.reshape(along))
    return (np.clip(steps, limits.min - moved, limits.max - moved) + moved).astype(kind)


def _size(node: Node, operands: Operands) -> Array:
    return np.array(given(operands, 0).size, np.int64)


def _flatten(node: Node, operands: Operands) -> Array:
    x = given(operands, 0)
    axis = node.attr("axis", 1)
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape(rows, x.size // rows if rows else int(np.prod(x.shape[axis:], dtype=np.int64)))


def _tile(node: Node, operands: Operands) -> Array | None:
    return np.tile(given(operands, 0), given(operands, 1).tolist()) if node.version >= 6 else None


def _trilu(node: Node, operands: Operands) -> Array:
    x, offset = given(operands, 0), optional(operands, 1)
    keep = np.triu if node.attr("upper", 1) else np.tril
    return keep(x, 0 if offset is None else int(offset.item()))


def _cumsum(node: Node, operands: Operands) -> Array | None:
    x, axis = given(operands, 0), int(given(operands, 1).item())
    if x.dtype.kind not in "iu" or node.attr("exclusive", 0) or node.attr("reverse", 0):
        return None
    return np.cumsum(x, axis, x.dtype)


def _reduction(function: Callable[..., Array]) -> Evaluation:
    """Of integers, whose sum does not depend on the order; not where anything on the way is too large, or nearly so."""

    def evaluate(node: Node, operands: Operands) -> Array | None:
        x, axes = given(operands, 0), integers(node, "axes", operands, 1)
        if x.dtype.kind not in "iu" or not x.size or (not axes and node.attr("noop_with_empty_axes", 0)):
            return None
        wide, along = x.astype(np.float64), tuple(axes) if axes else None
        exact = function(wide, along, keepdims=bool(node.attr("keepdims", 1)))
        sizes = abs(wide)
        if max(sizes.max(), function(sizes, along).max()) >= _EXACT:
            return None
        result = np.asarray(exact).astype(x.dtype)
        return result if (result == exact).all() else None

    return evaluate


REDUCTIONS: Final[Mapping[str, Evaluation]] = {
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
}
"""Computed in float64."""

TABLE: Final[Mapping[str, Evaluation]] = {
    "Abs": _unary(np.abs, "if"),
    "Ceil": _unary(np.ceil, "f"),
    "CumSum": _cumsum,
    "Flatten": _flatten,
    "Floor": _unary(np.floor, "f"),
    "IsInf": _is_infinite,
    "IsNaN": _unary(np.isnan, "f"),
    "Mod": _mod,
    "QuantizeLinear": _quantize,
    "Relu": _relu,
    "Size": _size,
    "Tile": _tile,
    "Trilu": _trilu,
    "Xor": _xor,
    **REDUCTIONS,
}
"""By operator of the standard domain, as in `evaluate.TABLE`, of which it is a part."""
