"""Facts about values, by proof from the operations that made them.

`fills(value)` answers what a mask may hold besides ordinary numbers, which decides whether a kernel that treats fully
masked rows in its own way may be used.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto

import ml_dtypes
import numpy as np

from graphopt.ir import dtypes
from graphopt.ir.node import Node, Value

# Masks are made in a few dozen operations; a longer history is not looked at.
_NODES = 1000


class Fill(Flag):
    """What elements of a float tensor may be."""

    ORDINARY = auto()
    """Finite, and so small beside the lowest number of the type that it is lost in it: their sum stays finite."""
    LOW = auto()
    """Finite, and lower than that, but not the lowest number: two such may be −∞ in sum."""
    LOWEST = auto()
    """The lowest finite number of the type."""
    NEGATIVE_INFINITY = auto()
    OTHER = auto()
    """Anything: not proved."""


NOTHING = Fill(0)
ANYTHING = Fill.ORDINARY | Fill.LOW | Fill.LOWEST | Fill.NEGATIVE_INFINITY | Fill.OTHER


@dataclass(frozen=True)
class _Known:
    """What is proved of one value: its fills, and whether every element is 0 or 1."""

    fill: Fill
    indicator: bool = False


_UNKNOWN = _Known(ANYTHING)
_Ask = Callable[[int], _Known]
"""What is known of the operand in a slot."""


def fills(value: Value) -> Fill:
    """What the elements of `value` may be, as far as it can be proved from how it is made."""
    return _known(value).fill


def is_indicator(value: Value) -> bool:
    """Whether every element of `value` is proved to be 0 or 1."""
    return _known(value).indicator


def _known(value: Value) -> _Known:
    known: dict[Value, _Known] = {}
    for node in _history(value):

        def ask(slot: int, node: Node = node) -> _Known:
            return _of(node.input(slot), known)

        known[node.output] = _RULES[node.op](node, ask)
    return _of(value, known)


def _history(value: Value) -> list[Node]:
    """The operations with a rule that `value` is made by, in order; none where there are too many."""
    found: dict[Node, None] = {}
    stack = [value.node]
    while stack and len(found) <= _NODES:
        node = stack.pop()
        if node not in found and not node.domain and node.op in _RULES:
            found[node] = None
            stack.extend(node.producers())
    return sorted(found, key=lambda node: node.rank) if not stack else []


def _of(value: Value | None, known: dict[Value, _Known]) -> _Known:
    if value is None:
        return _UNKNOWN
    if value.dtype == dtypes.BOOL:
        return _Known(Fill.ORDINARY, indicator=True)
    tensor = value.tensor
    if tensor is not None:
        numbers = tensor.numpy()
        indicator = bool(((numbers == 0) | (numbers == 1)).all())
        return _Known(_of_numbers(numbers) if tensor.dtype in dtypes.FLOATS else Fill.ORDINARY, indicator)
    return known.get(value, _UNKNOWN)


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
    lowest = -min(float(kind.max), float(ml_dtypes.finfo(numbers.dtype).max))  # type: ignore[no-untyped-call]
    if (finite <= lowest).any():
        found |= Fill.LOWEST
    if ((finite < -small) & (finite > lowest)).any():
        found |= Fill.LOW
    if (finite >= -small).any():
        found |= Fill.ORDINARY
    return found


def _same(node: Node, ask: _Ask) -> _Known:
    return ask(0)


def _any_from(first: int) -> Callable[[Node, _Ask], _Known]:
    """Each element is one of an operand's, from slot `first` on."""

    def rule(node: Node, ask: _Ask) -> _Known:
        found = NOTHING
        for slot in range(first, node.arity):
            found |= ask(slot).fill
        return _Known(found)

    return rule


def _triangle(node: Node, ask: _Ask) -> _Known:
    return _Known(ask(0).fill | Fill.ORDINARY, ask(0).indicator)


def _constant_of_shape(node: Node, ask: _Ask) -> _Known:
    tensor = node.attr("value")
    if tensor is None:
        return _Known(Fill.ORDINARY)
    return _Known(_of_numbers(tensor.numpy()) if tensor.dtype in dtypes.FLOATS else Fill.ORDINARY)


def _add(node: Node, ask: _Ask) -> _Known:
    a, b = ask(0).fill, ask(1).fill
    low = Fill.LOW | Fill.LOWEST
    both_low = low & a and low & b
    return _Known(a | b | (Fill.LOWEST | Fill.NEGATIVE_INFINITY if both_low else NOTHING))


def _max(node: Node, ask: _Ask) -> _Known:
    """No element is lower than the operand that is bounded from below."""
    found = [ask(slot).fill for slot in range(node.arity)]
    bounded = any(not (Fill.LOWEST | Fill.NEGATIVE_INFINITY | Fill.OTHER) & one for one in found)
    every = functools.reduce(operator.or_, found, NOTHING)
    return _Known(every & ~(Fill.LOWEST | Fill.NEGATIVE_INFINITY) if bounded else every)


def _sub(node: Node, ask: _Ask) -> _Known:
    """1 - x for x of 0 and 1."""
    one = node.input(0)
    ones = one is not None and one.tensor is not None and bool((one.tensor.numpy() == 1).all())
    return _Known(Fill.ORDINARY, indicator=True) if ones and ask(1).indicator else _UNKNOWN


def _cast(node: Node, ask: _Ask) -> _Known:
    value, to = node.input(0), node.attr("to")
    if value is None or to not in dtypes.FLOATS:
        return _Known(ANYTHING, ask(0).indicator)
    # An integer may be too large for float16, and the lowest number of it.
    if value.dtype == dtypes.BOOL or (value.dtype in dtypes.INTEGERS and to != dtypes.FLOAT16):
        return _Known(Fill.ORDINARY, ask(0).indicator)
    return ask(0) if value.dtype == to or ask(0).indicator else _UNKNOWN


def _mul(node: Node, ask: _Ask) -> _Known:
    """c · x for a finite constant c and x of 0 and 1: each element is 0 or c."""
    for slot, other in ((0, 1), (1, 0)):
        number = node.input(slot)
        if number is not None and number.tensor is not None and ask(other).indicator:
            found = ask(slot).fill | Fill.ORDINARY
            return _UNKNOWN if Fill.NEGATIVE_INFINITY in found else _Known(found)
    return _shrunk(node, ask, lambda factors: factors <= 1)


def _div(node: Node, ask: _Ask) -> _Known:
    return _shrunk(node, ask, lambda divisors: divisors >= 1)


def _shrunk(node: Node, ask: _Ask, shrinks: Callable[[np.ndarray], np.ndarray]) -> _Known:
    """An ordinary value that a constant makes no larger stays one."""
    constant = node.input(1)
    known = constant.tensor if constant is not None and constant.dtype in dtypes.FLOATS else None
    smaller = known is not None and bool(shrinks(np.abs(known.numpy().astype(np.float64))).all())
    return _Known(Fill.ORDINARY) if smaller and ask(0).fill == Fill.ORDINARY else _UNKNOWN


def _product(node: Node, ask: _Ask) -> _Known:
    """No product of matrices is near the lowest float32: what attention adds to its scores is of their size."""
    return _Known(Fill.ORDINARY) if node.output.dtype == dtypes.FLOAT else _UNKNOWN


_SAME_ELEMENTS = (
    *("Identity", "Reshape", "Transpose", "Expand", "Unsqueeze", "Squeeze", "Flatten"),
    *("Slice", "Gather", "GatherND", "GatherElements", "Tile"),
)
_RULES: dict[str, Callable[[Node, _Ask], _Known]] = {
    **dict.fromkeys(_SAME_ELEMENTS, _same),
    "ConstantOfShape": _constant_of_shape,
    "Trilu": _triangle,
    "Where": _any_from(1),
    "Max": _max,
    "Min": _any_from(0),
    "Add": _add,
    "Sub": _sub,
    "Cast": _cast,
    "Div": _div,
    "MatMul": _product,
    "Mul": _mul,
}
