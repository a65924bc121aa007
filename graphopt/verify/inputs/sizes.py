"""Sizes for symbolic dimensions: one number per name and run, tried until the model runs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from graphopt.errors import GraphoptError, InconclusiveError, UsageError, near
from graphopt.ir import Model, Value, dims
from graphopt.ir.dims import Shape
from graphopt.runtime import RunError
from graphopt.verify.inputs.equations import Solution, must_hold, should_hold, solve

Binding = Mapping[str, int]

_TRIES = (1, 2, 7, 16)
_FAILING = re.compile(r"while running (\S+) node\. Name:'([^']*)'")
_PREFERRED = ((2, 16), (3, 7))
_SMALL = ((2, 6), (2, 3))
_COSTLY = ((1, 16), (2, 7))
"""For inputs that have at least `_MANY` elements however small their sizes are, such as images."""
_MANY = 1 << 16
_LARGE = (32, 64, 128)
_OTHERS = ((1, (1,)), (1, (31, 13)), (0, (7,)), (2, (0,)))
"""Of several lengths the first that runs: tables of distances and masks go wrong beyond the usual ones."""
_MOST_ELEMENTS = 1 << 22
_MOST_FAILURES = 8
_MOST_SPELLINGS = 3
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
    firm = solve(must_hold(model), given, symbols_of(model))
    for group in _candidates(model, given):
        for binding in group:
            if binding in chosen or binding in failed or not _fits(model, given, firm, binding):
                continue
            problem = runs(binding)
            if problem is None:
                chosen.append(binding)
                break
            error = error or problem
            failed.append(binding)
        if len(chosen) == wanted or (chosen and len(failed) >= _MOST_FAILURES):
            break
    if chosen:
        return chosen
    refusal = _no_size(model, given, failed, error)
    if refusal is error:
        raise refusal  # with its own cause
    raise refusal from error


def others(model: Model, given: Binding, chosen: Sequence[Binding]) -> Iterator[list[Binding]]:
    """More sizes: everything 1, an odd prime, nothing at all of a batch, of a length; each as bindings to be tried."""
    names, batches = _named(model, given)
    firm = solve(must_hold(model), given, names)
    solutions = _solutions(model, given)
    for batch, lengths in _OTHERS if names else ():
        spelled = [one for length in lengths for one in _spellings(names, batches, given, batch, length)]
        found: list[Binding] = []
        for binding in (_settle(one, solution, given) for solution in solutions for one in spelled):
            if binding not in (*chosen, *found) and _fits(model, given, firm, binding):
                found.append(binding)
        yield found[: _MOST_SPELLINGS * len(lengths)]


def _inputs(model: Model) -> list[Value]:
    return [node.output for node in model.graph.inputs if node.op == "Input"]


def _named(model: Model, given: Binding) -> tuple[list[str], set[str]]:
    """The names to bind, and those of them that lead a shape."""
    names = [name for name in symbols_of(model) if name not in given]
    leading = ((value.shape or ())[0] for value in _inputs(model) if len(value.shape or ()) > 1)
    return names, {name for size in leading for name in dims.symbols(size)}


def _candidates(model: Model, given: Binding) -> Iterator[Iterator[Binding]]:
    """Groups of sizes, of which one each is taken: usual ones, then any; as the graph wants them, then regardless."""
    names, batches = _named(model, given)
    least = _elements(model, {**dict.fromkeys(names, 1), **given})
    usual = (*_COSTLY, *_PREFERRED) if (least or 0) >= _MANY else _PREFERRED
    for solution in _solutions(model, given):
        for batch, length in (*usual, *_SMALL):
            spelled = _spellings(names, batches, given, batch, length)
            yield (_settle(binding, solution, given) for binding in spelled)
    for size in (*_TRIES, *_LARGE):
        yield _spellings(names, batches, given, size if size in _TRIES else 1, size)
        yield _spellings(names, batches, given, 1, size)


def _solutions(model: Model, given: Binding) -> list[Solution]:
    """What sizes follow from others: where nothing is broadcast, where it may be, and where the graph says nothing."""
    known, firm = symbols_of(model), must_hold(model)
    found = [solve([*firm, *should_hold(model)], given, known), solve(firm, given, known), {}]
    return [one for i, one in enumerate(found) if one not in found[:i]]


def _settle(binding: Binding, solution: Solution, given: Binding) -> Binding:
    """`binding`, where the names that follow from others are what follows."""
    settled = dict(binding)
    for name in binding.keys() & solution.keys():
        if not dims.symbols(solution[name]) <= binding.keys():
            continue
        settled[name] = dims.evaluate(solution[name], binding)
    return {**settled, **given}


def _fits(model: Model, given: Binding, firm: Solution, binding: Binding) -> bool:
    """Whether no size is negative, and inputs are not too large to be tried, unless the graph or the user wants it."""
    least = _settle(dict.fromkeys(binding, 1), firm, given)
    total, needed = _elements(model, binding), _elements(model, least)
    return total is not None and total <= max(_MOST_ELEMENTS, 4 * (needed or 0))


def _elements(model: Model, binding: Binding) -> int | None:
    """The elements of all inputs; None where a size would be negative."""
    shapes = [shape_under(value.shape or (), binding) for value in _inputs(model)]
    negative = None in shapes or any(size < 0 for size in binding.values())
    return None if negative else sum(math.prod(shape) for shape in shapes if shape is not None)


def _spellings(names: list[str], batches: set[str], given: Binding, batch: int, length: int) -> Iterator[Binding]:
    """Bindings with this batch and this length: other names with other sizes, with the same, with sums as totals."""
    others = [name for name in names if name not in batches]
    same = {name: batch if name in batches else length for name in names}
    spread = {name: max(1, length + _SPREAD[i % len(_SPREAD)]) for i, name in enumerate(others)} if length > 1 else {}
    leading = [name for name in names if name in batches]
    if len(leading) > 1 and batch > 1:
        yield {**same, **spread, **{name: batch + i for i, name in enumerate(leading)}, **given}
    yield {**same, **spread, **given}
    totals = [name for name in others if "total" in name.lower() or "+" in name]
    parts = [name for name in others if name not in totals]
    if totals and parts:
        for base in ({**same, **spread, **given}, {**same, **given}):
            total = sum(base[name] for name in parts)
            yield {**base, **dict.fromkeys(totals, total)}
    yield {**same, **given}


def _no_size(model: Model, given: Binding, failed: Sequence[Binding], error: RunError | None) -> GraphoptError:
    first = {name: where for name, where in symbols_of(model).items() if name not in given}
    if not first:
        return error or InconclusiveError("GO012", "the sizes given make no shape", str(model.path or "model"))
    listed = " and ".join(f"'{_shown(name)}' of input '{where}'" for name, where in first.items())
    subject = f"size of the dimension {listed} makes" if len(first) == 1 else f"sizes of the dimensions {listed} make"
    name = next((name for name in first if not name.startswith("?")), None)
    hint = f"pass --dim {name}={_suggested(failed, error)}" if name else "give real inputs with --inputs FILE.npz"
    return InconclusiveError(
        "GO012", f"no {subject} the model run ({_tried(first, failed)})", _place(model, error), hint
    )


def _shown(name: str) -> str:
    # A dimension without a name has a number in the IR.
    return "?" if name.startswith("?") else name


def _place(model: Model, error: RunError | None) -> str:
    """The node at which the last try failed, from onnxruntime's message."""
    where = str(model.path or "model")
    found = _FAILING.search(error.message) if error else None
    return f"{where}: node '{found[2]}' ({found[1]})" if found else where


def failing_node(message: str) -> tuple[str, str]:
    """Operator and name of the node that onnxruntime's message is about; empty where it names none."""
    found = _FAILING.search(message)
    return (found[1], found[2]) if found else ("", "")


def _tried(names: Collection[str], failed: Sequence[Binding]) -> str:
    """The sizes that were tried; of several dimensions the range of them and how many in all."""
    sizes = sorted({binding[name] for binding in failed for name in names if name in binding})
    if not sizes:
        return "no size that fits into memory was left to try"
    if len(names) == 1:
        return f"tried {', '.join(map(str, sizes))}"
    return f"tried {len(failed)} choices of sizes from {sizes[0]} to {sizes[-1]}"


def _suggested(failed: Sequence[Binding], error: RunError | None) -> str:
    """The largest number in onnxruntime's message that was not tried: often the size that would fit."""
    tried = {size for binding in failed for size in binding.values()}
    shapes = re.findall(r"\{([-\d,]+)\}", error.message) if error else []
    sizes = {int(size) for shape in shapes for size in shape.split(",") if size} - tried
    return str(max(sizes)) if sizes and max(sizes) > 0 else "SIZE"
