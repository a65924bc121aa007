"""Several sets of shapes from one command line: a name that is given again means another set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from graphopt.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class ShapeSet:
    """What one series of runs is bound to: sizes of symbolic dimensions, and shapes of inputs."""

    dims: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]


def shape_sets(dims: Mapping[str, Sequence[int]], shapes: Mapping[str, Sequence[tuple[int, ...]]]) -> list[ShapeSet]:
    """The k-th value of each name belongs to the k-th set; a name with one value has it in all of them.

    Nothing given is one set. Raises: UsageError GO110 where names have different numbers of values, but for one.
    """
    counts = {f"--dim {name}": len(values) for name, values in dims.items()}
    counts |= {f"--shape {name}": len(values) for name, values in shapes.items()}
    total = max(counts.values(), default=1)
    for name, count in counts.items():
        if count not in (1, total):
            longest = next(other for other in counts if counts[other] == total)
            message = f"'{longest}' is given {total} times, '{name}' {count} times"
            raise UsageError("GO110", message, "--dim and --shape", "each name once, for all sets of shapes, or as often as the others")
    return [ShapeSet(dict(_nth(dims, index)), dict(_nth(shapes, index))) for index in range(total)]


def _nth(values: Mapping[str, Sequence[T]], index: int) -> Iterator[tuple[str, T]]:
    for name, given in values.items():
        yield name, given[0] if len(given) == 1 else given[index]
