"""Variants of what was tapped, which reach where rewrites are fragile.

Large scores, so that softmax is one-hot and activations are saturated; small values, so that a variance is no larger
than an epsilon; rows without any; ties; no positive number. They are made of what the model gives, not drawn: whole
numbers of masks, and signs that a rule may know of, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np

from graphopt.ir.tensor import Array
from graphopt.verify.inputs.feeds import Feed
from graphopt.verify.inputs.masks import MASKS
from graphopt.verify.numbers.tolerance import is_float

_LARGEST: Final = 5e3
_SAMPLE: Final = 4096
_LEVELS: Final = 4.0


def _scaled(factor: float) -> Callable[[Array], Array]:
    def scaled(value: Array) -> Array:
        # Of narrow numbers some may become infinite.
        with np.errstate(over="ignore"):
            found: Array = value * value.dtype.type(factor)
        return found

    return scaled


def _constant_rows(value: Array) -> Array:
    """Every element the mean of its row."""
    mean = value.mean(axis=-1, dtype=np.float64, keepdims=True).astype(value.dtype)
    return np.broadcast_to(mean, value.shape).copy()


def _ties(value: Array) -> Array:
    """Every element the nearest of a few levels, so that many are equal."""
    step = np.abs(value).max(axis=-1, keepdims=True).astype(np.float64) / _LEVELS
    levels = np.rint(np.divide(value, step, out=np.zeros(value.shape), where=step > 0))
    tied: Array = (levels * step).astype(value.dtype)
    return tied


def _negative(value: Array) -> Array:
    return -np.abs(value) if _has_both_signs(value) else value


def _zeros(value: Array) -> Array:
    return np.zeros_like(value) if _has_both_signs(value) else value


_LARGE: Final = "activations × 8", _scaled(8.0)
_VARIANTS: Final[tuple[tuple[str, Callable[[Array], Array]], ...]] = (
    _LARGE,
    ("activations × 30", _scaled(30.0)),
    ("activations × 0.001", _scaled(1e-3)),
    ("activations × 1e-05", _scaled(1e-5)),
    ("constant rows", _constant_rows),
    ("ties", _ties),
    ("all negative", _negative),
    ("zeros", _zeros),
)


class Variants:
    """The variants of feeds of a model, of whose values `data` hold data: a rule may know what the others hold."""

    def __init__(self, data: Collection[str]) -> None:
        self._data = data

    def of(self, feed: Feed, values: Mapping[str, Any], first: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The tapped values themselves, then changed ones; each with its label."""
        yield feed.label, values
        wanted = _VARIANTS if first else (_LARGE,) if feed.kind == MASKS[3] else ()
        names = [name for name, value in values.items() if name in self._data and _may_change(value)] if wanted else []
        for label, change in wanted if names else ():
            yield f"{feed.label}, {label}", {**values, **{name: change(values[name]) for name in names}}


def _may_change(value: Any) -> bool:
    """Whether a value is plain data: not a mask or its fill, not a number that a rule may know."""
    if not isinstance(value, np.ndarray) or not is_float(value) or value.size < 2:
        return False
    plain = bool((np.abs(value) < _LARGEST).all())
    return plain and len(np.unique(value.reshape(-1)[:_SAMPLE].astype(np.float64))) > 2


def _has_both_signs(value: Array) -> bool:
    """Whether nobody can know the sign of an element."""
    return bool((value < 0).any() and (value > 0).any())
