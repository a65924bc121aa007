"""Variants of what was tapped, which reach where rewrites are fragile.

Large scores, so that softmax is not flat; small values, so that a variance is no larger than an epsilon. They are
scaled, not drawn: signs, zeros, and the ratio of mean and deviation stay as the model makes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np

from graphopt.verify.feeds import MASKS, Feed
from graphopt.verify.tolerance import is_float

_LARGEST: Final = 5e3
_SAMPLE: Final = 4096


class Variants:
    """The variants of feeds of a model, of whose values `data` hold data: a rule may know what the others hold."""

    def __init__(self, data: Collection[str]) -> None:
        self._data = data

    def of(self, feed: Feed, values: Mapping[str, Any], first: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The tapped values themselves, then scaled ones; each with its label."""
        yield feed.label, values
        factors = [8.0, 1e-3, 1e-5] if first else [8.0] if feed.kind == MASKS[3] else []
        names = [name for name, value in values.items() if name in self._data and _may_scale(value)] if factors else []
        for factor in factors if names else []:
            scaled = {name: (values[name] * values[name].dtype.type(factor)) for name in names}
            yield f"{feed.label}, activations × {factor:g}", {**values, **scaled}


def _may_scale(value: Any) -> bool:
    """Whether a value is plain data: not a mask or its fill, not a number that a rule may know."""
    if not isinstance(value, np.ndarray) or not is_float(value) or value.size < 2:
        return False
    plain = bool((np.abs(value) < _LARGEST).all())
    return plain and len(np.unique(value.reshape(-1)[:_SAMPLE].astype(np.float64))) > 2
