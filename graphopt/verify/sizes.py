"""Sizes for symbolic dimensions: one number per name and run, tried until the model runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from graphopt.errors import GraphoptError, InconclusiveError, UsageError, near
from graphopt.ir import Model, Value, dims
from graphopt.ir.dims import Shape
from graphopt.runtime import RunError

Binding = Mapping[str, int]

TRIES = (1, 2, 7, 16)
_PREFERRED = ((2, 16), (3, 7))
_SPREAD = (0, -5, 3, -3, 5)
"""What is added for one name after another, so that a size does not pass for another."""


def symbols_of(model: Model) -> dict[str, str]:
    """The names that the sizes of inputs are made of, each with the first input that has it."""
    found: dict[str, str] = {}
    for value in _inputs(model):
        for size in value.shape or ():
            for name in sorted(dims.symbols(size)):
                found.setdefault(name, value.name)
    return found


def shape_under(shape: Shape, binding: Binding) -> tuple[int, ...] | None:
    """`shape` in numbers; None where a size would be negative."""
    sizes = [dims.evaluate(size, binding) for size in shape]
    return tuple(sizes) if all(size >= 0 for size in sizes) else None


def check_names(model: Model, given: Binding) -> None:
    """Raises UsageError GO016 where `given` names a dimension that no input has."""
    known = {name for name in symbols_of(model) if not name.startswith("?")}
    for name in given:
        if name not in known:
            where = str(model.path or "model")
            raise UsageError("GO016", f"no input has a dimension called '{name}'", where, near(name, known))


def choose(model: Model, given: Binding, runs: Callable[[Binding], RunError | None]) -> list[Binding]:
    """One or two bindings of all names under which the model runs; `runs` tries one.

    Raises: InconclusiveError GO012 where there is none; RunError where there is no name to bind.
    """
    wanted = 2 if symbols_of(model).keys() - given.keys() else 1
    chosen: list[Binding] = []
    failed: list[Binding] = []
    error: RunError | None = None
    for binding in _candidates(model, given):
        if binding in chosen or binding in failed:
            continue
        if not all(shape_under(value.shape or (), binding) is not None for value in _inputs(model)):
            continue
        problem = runs(binding)
        if problem is None:
            chosen.append(binding)
            if len(chosen) == wanted:
                return chosen
        else:
            error = problem
            failed.append(binding)
    if chosen:
        return chosen
    raise _no_size(model, given, error)


def _inputs(model: Model) -> list[Value]:
    return [node.output for node in model.graph.inputs if node.op == "Input"]


def _candidates(model: Model, given: Binding) -> Iterator[Binding]:
    names = [name for name in symbols_of(model) if name not in given]
    batches = {
        name for value in _inputs(model) if len(value.shape or ()) > 1 for name in dims.symbols((value.shape or ())[0])
    }
    for batch, length in _PREFERRED:
        yield from _spellings(names, batches, given, batch, length)
    for size in TRIES:
        yield from _spellings(names, batches, given, size, size)
        yield from _spellings(names, batches, given, 1, size)


def _spellings(names: list[str], batches: set[str], given: Binding, batch: int, length: int) -> Iterator[Binding]:
    """Bindings with this batch and this length: other names with other sizes, with the same, with sums as totals."""
    others = [name for name in names if name not in batches]
    same = {name: batch if name in batches else length for name in names}
    spread = {name: max(1, length + _SPREAD[i % len(_SPREAD)]) for i, name in enumerate(others)}
    yield {**same, **spread, **given}
    totals = [name for name in others if "total" in name.lower() or "+" in name]
    parts = [name for name in others if name not in totals]
    if totals and parts:
        for base in ({**same, **spread, **given}, {**same, **given}):
            total = sum(base[name] for name in parts)
            yield {**base, **dict.fromkeys(totals, total)}
    yield {**same, **given}


def _no_size(model: Model, given: Binding, error: RunError | None) -> GraphoptError:
    first = {name: where for name, where in symbols_of(model).items() if name not in given}
    if not first:
        return error or InconclusiveError("GO012", "the sizes given make no shape", str(model.path or "model"))
    listed = " and ".join(f"'{_shown(name)}' of input '{where}'" for name, where in first.items())
    subject = f"size of the dimension {listed} makes" if len(first) == 1 else f"sizes of the dimensions {listed} make"
    tried = ", ".join(map(str, TRIES))
    name = next((name for name in first if not name.startswith("?")), None)
    hint = f"pass --dim {name}={_suggested(error)}" if name else "give real inputs with --inputs FILE.npz"
    return InconclusiveError("GO012", f"no {subject} the model run (tried {tried})", _place(model, error), hint)


def _shown(name: str) -> str:
    # A dimension without a name has a number in the IR.
    return "?" if name.startswith("?") else name


def _place(model: Model, error: RunError | None) -> str:
    """The node at which the last try failed, from onnxruntime's message."""
    where = str(model.path or "model")
    found = re.search(r"while running (\S+) node\. Name:'([^']*)'", error.message) if error else None
    return f"{where}: node '{found[2]}' ({found[1]})" if found else where


def _suggested(error: RunError | None) -> str:
    """The largest number in onnxruntime's message that was not tried: often the size that would fit."""
    shapes = re.findall(r"\{([-\d,]+)\}", error.message) if error else []
    sizes = {int(size) for shape in shapes for size in shape.split(",") if size} - set(TRIES)
    return str(max(sizes)) if sizes and max(sizes) > 0 else "SIZE"
