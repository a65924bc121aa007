"""What models are timed on: the user's arrays, or values that respect what each input means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError, near
from graphopt.ir import Dim, Model
from graphopt.ir.dims import evaluate, symbols
from graphopt.ir.infer import infer
from graphopt.verify.inputs.containers import shape_of
from graphopt.verify.inputs.equations import must_hold, should_hold, solve
from graphopt.verify.inputs.feeds import DEFAULT, Feeder
from graphopt.verify.inputs.given import given_feed
from graphopt.verify.inputs.sizes import check_names

LENGTHS = (128, 32, 16, 7)
"""Sizes of dimensions that nobody binds and that lead no shape; the first that the model runs at is taken."""

_BATCH = 1


def feeds_for(
    model: Model,
    *,
    dims: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    inputs: Path | Mapping[str, Any] | None = None,
    length: int = LENGTHS[0],
    seed: int = 0,
) -> Mapping[str, Any]:
    """Arrays by input name, without those that have a default.

    `dims` and `shapes` (by input) bind symbolic dimensions; of the others those that lead a shape are 1, the rest
    `length`, unless the graph says how large they are then. Masks let everything through; `seed` draws the rest. Types
    of values are inferred where the model does not say them. Raises: UsageError GO016 and GO018 for names and sizes
    that do not fit, GO110 for shapes of inputs that are given; InconclusiveError GO017 for an input that cannot be
    made.
    """
    check_names(model, dims)
    infer(model)
    if inputs is not None:
        if shapes:
            message = f"the shape of '{next(iter(shapes))}' is that of the array given"
            raise UsageError("GO110", message, "--shape", "leave out --shape or --inputs")
        feed = given_feed(model, inputs, dims)
    else:
        bound = {**_bound_by(model, shapes), **dims}
        feed = Feeder(model, seed=seed).feed("full", _binding(model, bound, length))
    return {name: array for name, array in feed.arrays.items() if feed.kinds.get(name) != DEFAULT}


def batch_of(model: Model, feeds: Mapping[str, Any]) -> int | None:
    """How many items a run takes: the size of the first leading dimension that has no fixed size; None without one."""
    for node in model.graph.inputs:
        shape = node.output.shape
        if node.output.name in feeds and shape and isinstance(shape[0], Dim):
            return shape_of(feeds[node.output.name])[0]
    return None


def refuse_others(model: Model, feeds: Mapping[str, Any], first: Model) -> None:
    """Raises UsageError GO111 where `model` does not take the feeds of the `first` model."""
    try:
        given_feed(model, feeds)
    except UsageError as error:
        name = str(model.path or "model")
        message = f"it does not take the inputs of {first.path or 'the first model'}: {error.message}"
        raise UsageError("GO111", message, name, error.hint) from error


def _binding(model: Model, bound: Mapping[str, int], length: int) -> dict[str, int]:
    """A size for each name that the shapes of inputs are made of."""
    sizes: dict[str, int] = {}
    for node in model.graph.inputs:
        for axis, size in enumerate(node.output.shape or ()):
            for name in sorted(symbols(size)):
                sizes.setdefault(name, length if axis else _BATCH)
    sizes.update(bound)
    for name, size in solve([*must_hold(model), *should_hold(model)], bound, sizes).items():
        if name in sizes and symbols(size) <= sizes.keys() and (follows := evaluate(size, sizes)) > 0:
            sizes[name] = follows
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
