"""The operands of an operation on constants, as those read them who compute it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphopt.ir.node import Node
from graphopt.ir.tensor import Array

Operands = Sequence[Array | None]
Evaluation = Callable[[Node, Operands], Array | None]


def given(operands: Operands, slot: int) -> Array:
    """The operand in `slot`. Raises LookupError where it is empty."""
    found = optional(operands, slot)
    if found is None:
        raise LookupError(f"no operand {slot}")
    return found


def optional(operands: Operands, slot: int) -> Array | None:
    return operands[slot] if slot < len(operands) else None


def integers(node: Node, name: str, operands: Operands, slot: int) -> list[int] | None:
    """Integers that older opsets write as an attribute and newer ones as an operand."""
    written: list[int] | None = node.attrs.get(name)
    operand = optional(operands, slot)
    return written if operand is None else [int(element) for element in operand.reshape(-1)]


def alike(operands: Operands) -> list[Array]:
    """The operands, which have one type. Raises TypeError where they do not."""
    found = [given(operands, slot) for slot in range(len(operands))]
    if len({operand.dtype for operand in found}) != 1:
        raise TypeError("operands of several types")
    return found
