"""What an operator does to constants, to the bit as onnxruntime does it.

An entry takes the node and its operands (None: an empty slot) and gives the result; None where the result could
depend on who computes it: integers divided by zero, casts out of range, transcendental functions. Operands have the
types of `FOLDABLE`. A malformed node raises what NumPy raises.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from graphopt.ir import dtypes
from graphopt.ir.node import Node
from graphopt.ir.tensor import Array
from graphopt.passes import evaluate_rarer
from graphopt.passes.given import Evaluation, Operands, alike, given, integers

REDUCTIONS: Final = evaluate_rarer.REDUCTIONS
FOLDABLE: Final = dtypes.COUNTED | dtypes.FLOATS
_UNBOUNDED: Final = 2**31 - 1
_NARROW: Final = frozenset({dtypes.FLOAT16, dtypes.BFLOAT16})


# ---- the same elements in another place ----------------------------------------------------------------------------


def _transpose(node: Node, operands: Operands) -> Array:
    return np.transpose(given(operands, 0), node.attrs.get("perm"))


def _reshape(node: Node, operands: Operands) -> Array:
    x = given(operands, 0)
    target = integers(node, "shape", operands, 1) or []
    if not node.attr("allowzero", 0):
        target = [x.shape[position] if size == 0 else size for position, size in enumerate(target)]
    return x.reshape(target)


def _squeeze(node: Node, operands: Operands) -> Array:
    axes = integers(node, "axes", operands, 1)
    return np.squeeze(given(operands, 0), tuple(axes) if axes else None)


def _unsqueeze(node: Node, operands: Operands) -> Array:
    return np.expand_dims(given(operands, 0), tuple(integers(node, "axes", operands, 1) or ()))


def _concat(node: Node, operands: Operands) -> Array:
    return np.concatenate([given(operands, slot) for slot in range(len(operands))], node.attrs["axis"])


def _gather(node: Node, operands: Operands) -> Array:
    return np.take(given(operands, 0), given(operands, 1), node.attr("axis", 0))


def _slice(node: Node, operands: Operands) -> Array:
    x = given(operands, 0)
    starts = integers(node, "starts", operands, 1) or []
    ends = integers(node, "ends", operands, 2) or []
    axes = integers(node, "axes", operands, 3) or range(len(starts))
    steps = integers(node, "steps", operands, 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        ranges = [slice(None)] * x.ndim
        ranges[axis] = _bounds(start, end, step, x.shape[axis])
        x = x[tuple(ranges)]
    return x


def _bounds(start: int, end: int, step: int, size: int) -> slice:
    """ONNX's range as Python's: both count a negative bound from the end, but Python cannot say "before the first".

    Raises: ValueError for a backward range to "the end", which onnxruntime takes for the other end.
    """
    if step < 0 and end >= _UNBOUNDED:
        raise ValueError("a backward range to the end")
    start, end = (bound + size if bound < 0 else bound for bound in (start, end))
    low = 0 if step > 0 else -1
    high = size + low
    start, end = max(0, min(start, high)), max(low, min(end, high))
    return slice(start, None if end < 0 else end, step)


def _expand(node: Node, operands: Operands) -> Array:
    x, target = given(operands, 0), given(operands, 1)
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(target.tolist())))


def _where(node: Node, operands: Operands) -> Array:
    return np.where(given(operands, 0), *alike(operands[1:]))


# ---- made up -------------------------------------------------------------------------------------------------------


def _shape(node: Node, operands: Operands) -> Array:
    shape = given(operands, 0).shape
    return np.array(shape[node.attrs.get("start", 0) : node.attrs.get("end", len(shape))], np.int64)


def _constant_of_shape(node: Node, operands: Operands) -> Array | None:
    value = node.attrs.get("value")
    if value is None:
        return np.zeros(given(operands, 0).tolist(), np.float32)
    if value.dtype not in FOLDABLE:
        return None
    return np.full(given(operands, 0).tolist(), value.numpy().reshape(()))


def _range(node: Node, operands: Operands) -> Array | None:
    """Of numbers with a fraction where all are exact, the same whether added up or multiplied."""
    start, limit, delta = alike(operands)
    if start.dtype.kind == "i":
        return np.array(range(start.item(), limit.item(), delta.item()), start.dtype)
    first, step, span = start.item(), delta.item(), limit.item() - start.item()
    if not step or span != (limit - start).item():
        return None
    exact = first + step * np.arange(np.ceil(span / step))
    written = exact.astype(start.dtype)
    return written if (written == exact).all() else None


# ---- arithmetic ----------------------------------------------------------------------------------------------------


def _broadcasting(function: Callable[..., Array | None]) -> Evaluation:
    """An elementwise function of operands of one type; opsets before 7 have another broadcast."""

    def evaluate(node: Node, operands: Operands) -> Array | None:
        return None if node.version < 7 else function(*alike(operands))

    return evaluate


def _divide(a: Array, b: Array) -> Array | None:
    """a / b; of integers, rounded towards zero."""
    if a.dtype.kind not in "iu":
        return np.divide(a, b)
    if not b.all() or ((b == -1) & (a == np.iinfo(a.dtype).min)).any():
        # Division by zero, and of the lowest number by -1, are undefined.
        return None
    floor, rest = np.divmod(a, b)
    truncated: Array = floor + ((rest != 0) & ((a < 0) != (b < 0))).astype(a.dtype)
    return truncated


def _sqrt(a: Array) -> Array | None:
    return None if a.dtype.kind in "iub" else np.sqrt(a)


def _pow(node: Node, operands: Operands) -> Array | None:
    """x and its square and cube, which onnxruntime multiplies out; other powers come from its C library."""
    x, exponent = given(operands, 0), given(operands, 1)
    if exponent.size != 1 or exponent.ndim > x.ndim or node.version < 7:
        return None
    match exponent.item():
        case 1:
            return x
        case 2:
            return x * x
        case 3:
            return x * x * x
    return None


def _cast(node: Node, operands: Operands) -> Array | None:
    x, to = given(operands, 0), node.attrs["to"]
    if to not in FOLDABLE:
        return None
    target = dtypes.to_numpy(to)
    source = dtypes.from_numpy(x.dtype)
    if to == dtypes.BOOL:
        return np.not_equal(x, 0)
    if source in dtypes.FLOATS and to in dtypes.INTEGERS:
        whole, limits = np.trunc(x.astype(np.float64)), np.iinfo(target)
        # Out of range, and of NaN, the result is undefined.
        return x.astype(target) if ((whole >= limits.min) & (whole < limits.max + 1)).all() else None
    if to in _NARROW and source != dtypes.FLOAT:
        direct, stepwise = x.astype(target), x.astype(np.float32).astype(target)
        return direct if direct.tobytes() == stepwise.tobytes() else None
    return x.astype(target)


def _extreme(function: Callable[[Array, Array], Array]) -> Evaluation:
    """The least or greatest; not of NaN, nor of zeros of both signs, where the answer depends on the order."""

    def evaluate(node: Node, operands: Operands) -> Array | None:
        if node.version < 8:
            return None
        found = alike(operands)
        forwards, backwards = functools.reduce(function, found), functools.reduce(function, found[::-1])
        certain = forwards.tobytes() == backwards.tobytes() and not (forwards != forwards).any()
        return forwards if certain else None

    return evaluate


TABLE: Final[Mapping[str, Evaluation]] = {
    "Add": _broadcasting(np.add),
    "And": _broadcasting(np.logical_and),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _broadcasting(_divide),
    "Equal": _broadcasting(np.equal),
    "Expand": _expand,
    "Gather": _gather,
    "Greater": _broadcasting(np.greater),
    "GreaterOrEqual": _broadcasting(np.greater_equal),
    "Less": _broadcasting(np.less),
    "LessOrEqual": _broadcasting(np.less_equal),
    "Max": _extreme(np.maximum),
    "Min": _extreme(np.minimum),
    "Mul": _broadcasting(np.multiply),
    "Neg": _broadcasting(np.negative),
    "Not": _broadcasting(np.logical_not),
    "Or": _broadcasting(np.logical_or),
    "Pow": _pow,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Sqrt": _broadcasting(_sqrt),
    "Squeeze": _squeeze,
    "Sub": _broadcasting(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
    **evaluate_rarer.TABLE,
}
"""By operator of the standard domain: the one output from the operands."""
