"""Integers of many kinds: indices with both ends of their range, numbers to be counted with, shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from graphopt.ir import dims
from graphopt.ir.tensor import Array
from graphopt.verify.inputs.meanings import Meaning

PLAIN: Final = "plain"
NEGATIVE: Final = "negative indices"
WHOLE: Final = "whole range"
LEAST: Final = "least"
ONES: Final = "ones"
KINDS: Final = (NEGATIVE, WHOLE)

_SMALL: Final = 5


def integers(
    meaning: Meaning,
    kind: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    binding: Mapping[str, int],
    number: int,
    rng: np.random.Generator,
) -> Array:
    """An array of integers as an input takes them; `number` chooses among whole contents.

    `negative indices` count from the end where they may, `whole range` has the ends of the type where no use says a
    range, `least` has the lowest number everywhere, `ones` has 1 where it may.
    """
    content = _content(meaning, shape, binding, number)
    if content is not None:
        return content.astype(dtype)
    found = meaning.range(binding)
    info = _info(dtype)
    if found is None:
        return _counted(PLAIN if kind == WHOLE and meaning.is_size else kind, shape, dtype, rng)
    low, high = max(found[0], info[0]), min(found[1], info[1] + 1)
    if low >= high:
        return np.zeros(shape, dtype)
    if kind == LEAST:
        return np.full(shape, low, dtype)
    if kind == ONES:
        return np.full(shape, min(max(low, 1), high - 1), dtype)
    drawn = _distinct(low, high, shape, rng) if meaning.distinct else rng.integers(low, high, shape, endpoint=False)
    drawn = np.array(drawn) if meaning.distinct else _with_ends(np.array(drawn), low, high - 1, rng)
    if kind == NEGATIVE and meaning.wraps and low == 0 and dtype.kind == "i":
        back = drawn - high
        drawn = np.where((rng.random(shape) < 0.5) & (back >= info[0]), back, drawn)
    return drawn.astype(dtype)


def _content(meaning: Meaning, shape: tuple[int, ...], binding: Mapping[str, int], number: int) -> Array | None:
    """One of the contents that have as many elements as are wanted."""
    size = int(np.prod(shape))
    fitting = []
    for content in meaning.contents:
        try:
            numbers = [dims.evaluate(one, binding) for one in content]
        except KeyError:
            continue
        if len(numbers) == size:
            fitting.append(numbers)
    return np.array(fitting[number % len(fitting)], np.int64).reshape(shape) if fitting else None


def _info(dtype: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _counted(kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """Numbers to be counted with: small ones of both signs, or all that the type has, its ends among them."""
    low, high = _info(dtype)
    if kind in (LEAST, ONES):
        return np.full(shape, kind == ONES, dtype)
    if kind == WHOLE:
        drawn = rng.integers(low, high, shape, dtype=dtype, endpoint=True)
        return _with_ends(np.array(drawn), low, high, rng)
    least, most = (0, 2 * _SMALL - 1) if low == 0 else (1 - _SMALL, _SMALL)
    return np.array(rng.integers(least, most, shape)).astype(dtype)


def _with_ends(drawn: Array, low: int, high: int, rng: np.random.Generator) -> Array:
    """Puts both ends of the range somewhere, one of them twice."""
    if drawn.size > 1:
        places = rng.permutation(drawn.size)[:3]
        flat = drawn.reshape(-1)
        flat[places] = [low, high, low][: len(places)]
        drawn = flat.reshape(drawn.shape)
    return drawn


def _distinct(low: int, high: int, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Numbers of which none is there twice, as long as there are enough."""
    size = int(np.prod(shape))
    return np.resize(low + rng.permutation(high - low)[: max(size, 1)], shape)
