"""Choices by which instances differ: the generators they belong to, and ways to make, keep and vary them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

INSTANCES = {
    "alternatives": "branches, and operands that are left out",
    "attributes": "values of attributes that the pattern leaves open",
    "axes": "axes counted from the front and from the end; mutants: other axes and permutations",
    "broadcasts": "operands that are broadcast",
    "constants": "initializers and Constant nodes, scalars and [1]",
    "copies": "Identity, and Cast to the same type",
    "defaults": "attributes that have their default, written and left out",
    "dtypes": "float32, float16, float64",
    "inverses": "Sub for Add, Div for Mul",
    "numbers": "values of constants that the pattern leaves open; mutants: every constant perturbed",
    "opsets": "the opset of the model",
    "orders": "orders and bracketings of operands",
    "ranks": "ranks, dimensions of 1 and equal ones; mutants: operands of another rank",
    "readers": "what reads the result",
    "shared": "one value for two variables",
    "symbols": "dimensions that are names",
    "uses": "how many consumers `each_use` has",
    "views": "shapes before a Reshape, Flatten or Expand",
    "weights": "variables that are constants, and what these hold",
}
MUTANTS = {
    "captured": "an inner value is captured by an If",
    "inputs": "a constant is an input, or an initializer that a caller may override",
    "outputs": "an inner value is an output as well",
    "parted": "one of several readers of a value reads another one",
    "reused": "an inner value is read by another node",
    "shapes": "an operand has another shape, so that it broadcasts another way",
    "swaps": "two operands are swapped",
}
GENERATORS = {**INSTANCES, **MUTANTS}


class Rejected(Exception):
    """These choices lead to no instance."""


Choose = Callable[[str, Sequence[Any]], Any]
"""`choose(generator, options)` returns one of `options`, the first being the plainest. Raises: Rejected for none."""


def plainest(generator: str, options: Sequence[T]) -> T:
    """The first option."""
    return options[0]


def drawn(draw: Callable[[int], int], exempt: str | None) -> Choose:
    """Choices by `draw(n)`, a number below n; of the generator that is exempt, the first option."""

    def choose(generator: str, options: Sequence[Any]) -> Any:
        if not options:
            raise Rejected
        return options[0 if len(options) == 1 or generator == exempt else draw(len(options))]

    return choose


def randomly(source: Random, exempt: str | None) -> Choose:
    """Choices without Hypothesis."""
    return drawn(source.randrange, exempt)


def recording(choose: Choose, taken: list[int]) -> Choose:
    """`choose`, with the places of what it chose added to `taken`."""

    def record(generator: str, options: Sequence[Any]) -> Any:
        at = choose(generator, range(len(options)))
        taken.append(at)
        return options[at]

    return record


def replaying(taken: Sequence[int]) -> Choose:
    """The choices that were recorded, once more."""
    places: Iterator[int] = iter(taken)
    return lambda generator, options: options[next(places)]


def varying(taken: Sequence[int], choose: Choose) -> Choose:
    """The choices that were recorded, up to three of them made anew, as are those that follow from them."""
    anew = {choose("", range(len(taken))) for _ in range(choose("", range(4)))}
    places = iter(enumerate(taken))

    def vary(generator: str, options: Sequence[Any]) -> Any:
        at, place = next(places, (-1, len(options)))
        return options[place] if place < len(options) and at not in anew else choose(generator, options)

    return vary


def varied(taken: Sequence[int]) -> Callable[[int], int]:
    """Draws what was recorded, as far as it goes; then, and where there is less to choose from, the plainest."""
    places = iter(taken)

    def draw(count: int) -> int:
        place = next(places, 0)
        return place if place < count else 0

    return draw
