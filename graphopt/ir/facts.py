"""Facts about values, by proof from the operations that made them.

`fills(value)` answers what a mask may hold besides ordinary numbers, which decides whether a kernel that treats fully
masked rows in its own way may be used.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Flag, auto

import numpy as np

from graphopt.ir import dtypes
from graphopt.ir.node import Node, Value

_DEPTH = 48


class Fill(Flag):
    """What elements of a float tensor may be."""

    ORDINARY = auto()
    """Finite, and so small beside the lowest number of the type that it is lost in it: their sum stays finite."""
    LOWEST = auto()
    """Finite, and lower than that: two such may be −∞ in sum."""
    NEGATIVE_INFINITY = auto()
    OTHER = auto()
    """Anything: not proved."""


NOTHING = Fill(0)
ANYTHING = Fill.ORDINARY | Fill.LOWEST | Fill.NEGATIVE_INFINITY | Fill.OTHER


def fills(value: Value) -> Fill:
    """What the elements of `value` may be, as far as it can be proved from how it is made."""
    return _fills(value, _DEPTH)


def _fills(value: Value, depth: int) -> Fill:
    tensor = value.tensor
    if tensor is not None:
        return _of_numbers(tensor.numpy()) if tensor.dtype in dtypes.FLOATS else Fill.ORDINARY
    if value.dtype == dtypes.BOOL:
        return Fill.ORDINARY
    rule = _RULES.get((value.node.domain, value.node.op))
    if rule is None or depth == 0 or value.index:
        return ANYTHING
    return rule(value.node, depth - 1)


def _of_numbers(numbers: np.ndarray) -> Fill:
    floats = numbers.astype(np.float64)
    kind = np.finfo(np.float16 if numbers.dtype == np.float16 else np.float32)
    # An eighth of a unit in the last place of the lowest number.
    small = float(kind.max) * float(kind.eps) / 16
    found = NOTHING
    if np.isneginf(floats).any():
        found |= Fill.NEGATIVE_INFINITY
    if (np.isnan(floats) | np.isposinf(floats) | (floats > float(kind.max) / 2)).any():
        found |= Fill.OTHER
    finite = floats[np.isfinite(floats)]
    if (finite < -small).any():
        found |= Fill.LOWEST
    if (finite >= -small).any():
        found |= Fill.ORDINARY
    return found


def _input(node: Node, slot: int, depth: int) -> Fill:
    value = node.input(slot)
    return ANYTHING if value is None else _fills(value, depth)


def _first(node: Node, depth: int) -> Fill:
    return _input(node, 0, depth)


def _any_from(first: int) -> Callable[[Node, int], Fill]:
    """Each element is one of an operand's, from slot `first` on."""

    def rule(node: Node, depth: int) -> Fill:
        found = NOTHING
        for slot in range(first, node.arity):
            found |= _input(node, slot, depth)
        return found

    return rule


def _add(node: Node, depth: int) -> Fill:
    a, b = _input(node, 0, depth), _input(node, 1, depth)
    found = a | b
    if Fill.LOWEST in a and Fill.LOWEST in b:
        found |= Fill.NEGATIVE_INFINITY
    return found


def _cast(node: Node, depth: int) -> Fill:
    value = node.input(0)
    if value is None or node.attr("to") not in dtypes.FLOATS:
        return ANYTHING
    # An integer may be too large for float16, and the lowest number of it.
    if value.dtype == dtypes.BOOL or (value.dtype in dtypes.INTEGERS and node.attr("to") != dtypes.FLOAT16):
        return Fill.ORDINARY
    return _fills(value, depth) if value.dtype == node.attr("to") else ANYTHING


def _mul(node: Node, depth: int) -> Fill:
    """c · x for a finite constant c and x made of a boolean: each element is 0 or c."""
    for slot, other in ((0, 1), (1, 0)):
        number, x = node.input(slot), node.input(other)
        if number is not None and number.tensor is not None and x is not None and _is_indicator(x, depth):
            found = _of_numbers(number.tensor.numpy()) | Fill.ORDINARY
            return ANYTHING if Fill.NEGATIVE_INFINITY in found else found
    return ANYTHING


def _is_indicator(value: Value, depth: int) -> bool:
    """Whether every element is 0 or 1: a cast boolean, or one minus such."""
    node = value.node
    if node.op == "Cast" and not node.domain and node.inputs[0] is not None:
        return node.inputs[0].dtype == dtypes.BOOL or _is_indicator(node.inputs[0], depth)
    if node.op == "Sub" and not node.domain:
        one, x = node.inputs[0], node.inputs[1]
        return (
            one is not None
            and one.tensor is not None
            and bool((one.tensor.numpy() == 1).all())
            and (x is not None and _is_indicator(x, depth))
        )
    if node.op in _SAME_ELEMENTS and not node.domain and node.inputs[0] is not None:
        return _is_indicator(node.inputs[0], depth)
    return False


_SAME_ELEMENTS = (
    *("Identity", "Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze", "Flatten"),
    *("Slice", "Gather", "GatherND", "Tile"),
)
_RULES: dict[tuple[str, str], Callable[[Node, int], Fill]] = {
    **{("", op): _first for op in _SAME_ELEMENTS},
    ("", "Where"): _any_from(1),
    ("", "Max"): _any_from(0),
    ("", "Min"): _any_from(0),
    ("", "Add"): _add,
    ("", "Cast"): _cast,
    ("", "Mul"): _mul,
}
