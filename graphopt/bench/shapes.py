"""Several sets of shapes in one call: a name that is given again means another set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from graphopt.errors import UsageError

T = TypeVar("T")

Dims = Mapping[str, int | Sequence[int]]
"""Sizes of symbolic dimensions: one, or one for each set of shapes."""

Shapes = Mapping[str, Sequence[int] | Sequence[Sequence[int]]]
"""Shapes of inputs: one, or one for each set."""


@dataclass(frozen=True)
class ShapeSet:
    """What one series of runs is bound to: sizes of symbolic dimensions, and shapes of inputs."""

    dims: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]


def shape_sets(dims: Dims, shapes: Shapes) -> list[ShapeSet]:
    """The k-th value of each name belongs to the k-th set; a name with one value has it in all of them.

    Nothing given is one set. Raises: UsageError GO110 where names have different numbers of values, but for one.
    """
    sizes = {name: [size] if isinstance(size, int) else list(size) for name, size in dims.items()}
    listed = {name: [tuple(shape) for shape in _listed(given)] for name, given in shapes.items()}
    counts = {f"--dim {name}": len(values) for name, values in sizes.items()}
    counts |= {f"--shape {name}": len(values) for name, values in listed.items()}
    total = max([1, *counts.values()])
    for name, count in counts.items():
        if count not in (1, total):
            message = f"'{name}' is given {count} times, where there are {total} sets of shapes"
            hint = "each name once, for all sets, or once for each of them"
            raise UsageError("GO110", message, "--dim and --shape", hint)
    return [ShapeSet(dict(_nth(sizes, index)), dict(_nth(listed, index))) for index in range(total)]


def _listed(given: Any) -> Sequence[Sequence[int]]:
    """Shapes as a list of them; one shape alone is its own only entry."""
    return [given] if all(isinstance(size, int) for size in given) else given


def _nth(values: Mapping[str, Sequence[T]], index: int) -> Iterator[tuple[str, T]]:
    for name, given in values.items():
        yield name, given[0] if len(given) == 1 else given[index]
