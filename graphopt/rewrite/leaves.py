"""What sums and products are made of: the operations that join, and what each of them joins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphopt.ir import Node, Value, dtypes
from graphopt.rewrite.facts import constant_of, inverse_of, keeps_rank, number_of

COMMUTATIVE = frozenset({"Add", "Mul", "And", "Or", "Xor", "Equal", "Max", "Min", "Sum", "Mean"})
INVERSE = {"Add": "Sub", "Mul": "Div"}
LINKS = {"Add": ("Add", "Sub", "Sum"), "Mul": ("Mul", "Div")}
"""The operations that sums and products are made of."""


class Scalar(NamedTuple):
    """A constant number of a node: as it is written, or what `x - c` adds and `x / c` multiplies with."""

    number: float
    dtype: int
    node: Node


class Inverse(NamedTuple):
    """What a node subtracts, or divides by: −value in a sum, 1/value in a product."""

    value: Value
    node: Node


Leaf = Value | Scalar | Inverse


def parts_of(op: str, node: Node) -> list[Leaf] | None:
    """What a node joins: `x - y` joins x and -y. None for no node of such a chain, [] where its operands forbid it."""
    if node.domain or node.op not in LINKS[op] or None in node.inputs[: node.arity] or node.arity < 2:
        return None
    inputs = [value for value in node.inputs[: node.arity] if value is not None]
    if node.op != INVERSE[op]:
        return list(inputs)
    x, b = inputs
    number = inverse_of(node.op, b)
    if number is None:
        # An integer division is no product.
        return [x, Inverse(b, node)] if x.dtype in dtypes.FLOATS else []
    return [x, Scalar(number, b.dtype, node)] if keeps_rank(b, x) else []


def raises_rank(number: Value, others: Sequence[Leaf | None]) -> bool:
    """Whether the one-element constant `number` has more dimensions than everything beside it."""
    tensor = constant_of(number)
    if tensor is None or not tensor.shape:
        return False
    beside = [other.value if isinstance(other, Inverse) else other for other in others]
    values = [other for other in beside if isinstance(other, Value) and other is not number]
    return bool(values) and not any(keeps_rank(number, other) and number_of(other) is None for other in values)
