"""What an inference function returns, and how it reads its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphopt.ir.dims import Shape
from graphopt.ir.inference.sizes import MOST_AXES, Partial
from graphopt.ir.node import Node, Value
from graphopt.ir.operands import Content


class Out(NamedTuple):
    """What is known of one output: 0 and None mean unknown."""

    dtype: int = 0
    shape: Partial | None = None
    content: Content | None = None


Outs = Sequence[Out] | None
"""What is known of the outputs in order, as many as there is something to say of; None: ask onnx."""

Inference = Callable[[Node], Outs]
Table = dict[tuple[str, str], Inference]


def operand(node: Node, slot: int) -> Value:
    """The value in `slot`. Raises LookupError when a malformed node has none."""
    value = node.input(slot)
    if value is None:
        raise LookupError(f"{node} has no input {slot}")
    return value


def shape_of(node: Node, slot: int) -> Shape | None:
    """The shape of the value in `slot`; None also where the slot is empty."""
    value = node.input(slot)
    return value.shape if value is not None else None


def dtype_of(node: Node, slot: int) -> int:
    """The element type of the value in `slot`; 0 also where the slot is empty."""
    value = node.input(slot)
    return value.dtype if value is not None else 0


def unknown(rank: int | None) -> Partial | None:
    """A shape of which at most the rank is known."""
    return None if rank is None or rank > MOST_AXES else (None,) * rank


def same(node: Node) -> Outs:
    """The first output is like the first input, with other elements."""
    value = operand(node, 0)
    return [Out(value.dtype, value.shape)]


def length(value: Value | None) -> int | None:
    """The number of elements of a rank-1 tensor, where it is a number."""
    shape = value.shape if value is not None else None
    return shape[0] if shape is not None and len(shape) == 1 and isinstance(shape[0], int) else None
