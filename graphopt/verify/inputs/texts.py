"""Strings: any, those that a model itself names, and numbers as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from graphopt.ir import Model, Node, dtypes
from graphopt.ir.tensor import Array

COMMON: Final = ("a", "bc", "", "Grüße", "日本 語", "a", "A b")
WHOLE: Final = "whole numerals"
FRACTIONS: Final = "fractions as text"
NUMERALS: Final[Mapping[str, Sequence[str]]] = {
    WHOLE: ("3", "1", "0", "12", "7"),
    FRACTIONS: ("-2.5", "3", "1e3", "-0", "0.125", "-7"),
}
_MOST_WORDS: Final = 64


def words(model: Model) -> tuple[str, ...]:
    """The strings that constants and attributes of a model hold, each in several cases, and joined by delimiters.

    Of many the first ones.
    """
    named = list(dict.fromkeys(_named(model)))[:_MOST_WORDS]
    cases = (form for word in named for form in (word, word.swapcase(), word.title()))
    delimiters = (node.attr("delimiter") for scope in model.scopes() for node in scope.ops())
    joined = (f"a{one}b" for one in delimiters if isinstance(one, str) and one)
    return tuple(dict.fromkeys([*cases, *joined]))


def _named(model: Model) -> Iterator[str]:
    for scope in model.scopes():
        for source in scope.sources("Constant"):
            tensor = source.output.tensor
            if tensor is not None and tensor.dtype == dtypes.STRING:
                yield from map(_text, tensor.numpy().reshape(-1)[:_MOST_WORDS])
        for node in scope.ops():
            yield from _lists(node)


def _lists(node: Node) -> Iterator[str]:
    for name in node.attrs:
        value = node.attr(name)
        if isinstance(value, list | tuple):
            yield from (one for one in value[:_MOST_WORDS] if isinstance(one, str))


def _text(one: str | bytes) -> str:
    return one if isinstance(one, str) else one.decode(errors="replace")


def pool(named: Sequence[str], rng: np.random.Generator) -> list[str]:
    """The strings to draw from: common ones, and some of those that are `named`."""
    return [*COMMON, *(named[i] for i in rng.permutation(len(named))[: 2 * len(COMMON)])]


def texts(drawn: Sequence[str], shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Strings of those that are `drawn`, each as often as the others: some are empty, or beyond ASCII, or twice."""
    size = int(np.prod(shape))
    rounds = (rng.permutation(len(drawn)) for _ in range(-(-size // len(drawn))))
    return np.array([drawn[place] for one in rounds for place in one][:size], object).reshape(shape)
