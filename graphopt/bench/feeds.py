"""What a model is timed on: the user's arrays, or values that respect what each input means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError, near
from graphopt.ir import Dim, Model
from graphopt.ir.dims import symbols
from graphopt.verify.inputs.feeds import Feeder
from graphopt.verify.inputs.given import given_feed
from graphopt.verify.inputs.sizes import check_names

_FIRST = 1
_OTHER = 128


def feeds_for(
    model: Model,
    *,
    dims: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    inputs: Path | Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    """Arrays by input name.

    `dims` and `shapes` (by input) bind symbolic dimensions; of the others those that lead a shape are 1, the rest 128.
    Masks let everything through. Raises: UsageError for names and sizes that do not fit, InconclusiveError GO017 for
    an input that cannot be made.
    """
    if inputs is not None:
        return given_feed(model, inputs).arrays
    check_names(model, dims)
    bound = {**_bound_by(model, shapes), **dims}
    return Feeder(model, seed=0).feed("full", {**_defaults(model), **bound}).arrays


def _defaults(model: Model) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for node in model.graph.inputs:
        for axis, size in enumerate(node.output.shape or ()):
            for name in sorted(symbols(size)):
                sizes.setdefault(name, _OTHER if axis else _FIRST)
    return sizes


def _bound_by(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The symbolic dimensions that the shapes of inputs fix."""
    declared = {node.output.name: node.output.shape for node in model.graph.inputs}
    bound: dict[str, int] = {}
    for name, given in shapes.items():
        if name not in declared:
            raise UsageError("GO018", f"the model has no input '{name}'", "--shape", near(name, declared))
        wanted = declared[name]
        if wanted is None or len(wanted) != len(given):
            raise UsageError("GO018", f"the input '{name}' is {_text(wanted)}, not {_text(given)}", "--shape")
        for size, number in zip(wanted, given, strict=True):
            fixed = bound.setdefault(str(size), number) if isinstance(size, Dim) else size
            if fixed != number:
                raise UsageError("GO018", f"the input '{name}' is {_text(wanted)}, not {_text(given)}", "--shape")
    return bound


def _text(shape: tuple[Dim | int, ...] | tuple[int, ...] | None) -> str:
    return "of unknown rank" if shape is None else f"({', '.join(map(str, shape))})"
