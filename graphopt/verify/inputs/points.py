"""Single numbers on which a mistake may hang: what inputs are compared with, rows in which two tables differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, product
from typing import Final

import numpy as np

from graphopt.ir import Model, Node, Tensor, Value, dtypes
from graphopt.ir.operands import scalar
from graphopt.ir.tensor import Array
from graphopt.verify.inputs.uses import Use, uses
from graphopt.verify.structure import identical

MOST: Final = 8
"""Points of one input."""

_COMPARING: Final = {("", op) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")}


def points(model: Model, candidate: Model | None = None) -> dict[str, tuple[float, ...]]:
    """Numbers that some element of an input should have, by its name; integers may lie beyond what it takes.

    Draws seldom meet the one id that is padding, or the one row that is wrong in a table of thousands, or a threshold.
    """
    models = [model] if candidate is None else [model, candidate]
    found = {}
    for node in model.graph.sources("Input"):
        read = [list(uses(one, one.graph.names[node.output.name])) for one in models]
        rows = _other_rows(*read) if len(read) == 2 else ()
        numbers = chain(rows, *(_compared(use) for use in chain(*read) if not use.decided))
        found[node.output.name] = tuple(islice(dict.fromkeys(numbers), MOST))
    return found


def _compared(use: Use) -> Iterator[float]:
    """The number at which a comparison turns over, and its neighbours if it is one of integers."""
    if use.key not in _COMPARING or not isinstance(use.offset, int):
        return
    other = scalar(use.node.input(1 - use.slot))
    if other is None or not abs(other) < 1 << 62:
        return
    number = (other - use.offset) / use.factor
    if use.value.dtype in dtypes.FLOATS:
        yield number
    elif number == int(number):
        yield from (int(number), int(number) + 1, int(number) - 1)


def _other_rows(old: Iterable[Use], new: Iterable[Use]) -> Iterator[int]:
    """Indices of rows that differ between constant tables of one shape, where not most of them do."""
    for (before, use), (after, _) in product(_tables(old), _tables(new)):
        if before.shape == after.shape and isinstance(use.offset, int) and not identical(before, after):
            differs = (before.numpy() != after.numpy()).reshape(before.shape[0], -1).any(axis=1)
            rows = np.flatnonzero(differs) if 2 * np.count_nonzero(differs) < len(differs) else ()
            yield from (int(row) - use.offset for row in rows[: MOST // 2])


def _tables(read: Iterable[Use]) -> Iterator[tuple[Tensor, Use]]:
    for use in read:
        table = _table(use.node) if use.slot == 1 and use.factor == 1 else None
        if table is not None and table.tensor is not None and table.tensor.shape:
            yield table.tensor, use


def _table(node: Node) -> Value | None:
    value = node.input(0) if node.is_op("Gather") and node.attr("axis", 0) == 0 else None
    while value is not None and value.node.is_op("Identity"):
        value = value.node.input(0)
    return value


def with_points(
    array: Array, numbers: Iterable[float], within: tuple[int, int] | None, rng: np.random.Generator
) -> Array:
    """`array` with those of the `numbers` in some places that are in the range [low, high), where there is one."""
    low, high = within or (-np.inf, np.inf)
    legal = np.array([number for number in numbers if low <= number < high])
    places = rng.permutation(array.size)[: (array.size + 1) // 2]
    chosen = rng.permutation(legal)[: len(places)]
    found = array.copy()
    found.reshape(-1)[places[: len(chosen)]] = chosen.astype(array.dtype)
    return found
