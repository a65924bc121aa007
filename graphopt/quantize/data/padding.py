"""Which places of a batch are padding: numbers there are no data, and often larger than any that are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from graphopt.ir import Model, Shape, Value, dims
from graphopt.ir.dims import Size
from graphopt.verify.inputs.meanings import meanings

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Mask:
    """An input (B, S) that says which places of each sequence are kept: where it is not 0, or where it is if it
    `drops`."""

    name: str
    drops: bool = False

    def kept(self, feeds: Mapping[str, Any], shape: tuple[int, ...]) -> Array | None:
        """Which places count, booleans of the shape of the leading axes of an activation of `shape`: (B, S) or (B·S,).

        None where all do, or the activation is not laid out by places.
        """
        given = feeds.get(self.name)
        if given is None or given.ndim != 2:
            return None
        kept: Array = (given == 0) if self.drops else (given != 0)
        if kept.all():
            return None
        if len(shape) > 2 and shape[:2] == kept.shape:
            return kept
        return kept.reshape(-1) if len(shape) == 2 and shape[0] == kept.size else None


def masks(model: Model, names: Iterable[str]) -> dict[str, Mask]:
    """The mask of each value called one of `names` that is laid out by its places; `model` has its types inferred.

    A value whose leading sizes nobody knows may be: in each run its shape tells.
    """
    meant = meanings(model)
    inputs = [node.output for node in model.graph.inputs if node.op == "Input"]
    known = [value for value in inputs if value.rank == 2 and meant[value.name].kind == "mask"]
    places = [(value.shape, Mask(value.name, meant[value.name].drops)) for value in known if value.shape is not None]
    found = {}
    for name in names:
        value = model.graph.names.get(name)
        fitting = [mask for shape, mask in places if value is not None and _may_lie(value, shape)]
        if len(fitting) == 1:
            found[name] = fitting[0]
    return found


def _may_lie(value: Value, places: Shape) -> bool:
    """Whether the leading axes of `value` may be (B, S), or B·S where there are two, as far as its sizes are known."""
    shape = value.shape
    if shape is None:
        return True
    leading, wanted = (shape[:2], places) if len(shape) > 2 else (shape[:1], (dims.product(places),))
    pairs = zip(leading, wanted, strict=True)
    return len(shape) > 1 and all(a == b or _is_unknown(a) or _is_unknown(b) for a, b in pairs)


def _is_unknown(size: Size) -> bool:
    """Whether a size is one that inference found no name for."""
    return any(name.startswith("?") for name in dims.symbols(size))
