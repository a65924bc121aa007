"""Shrinking: the fewest nodes and the smallest values on which a rewrite is still wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import GraphoptError
from graphopt.ir import Model, Shape, Tensor, dtypes
from graphopt.verify.failures.excerpt import excerpt, inner_names
from graphopt.verify.failures.trial import Trial
from graphopt.verify.numbers.tolerance import is_float
from graphopt.verify.results import Comparison

Values = Mapping[str, Any]

_LARGEST_ROUNDED = 1e4


@dataclass(frozen=True)
class Case:
    """A graph on which a rewrite is wrong, what it is fed, and how far it is off."""

    model: Model
    feed: Values
    comparison: Comparison

    @property
    def nodes(self) -> int:
        """How many nodes the graph has."""
        return sum(1 for _ in self.model.graph.ops())


def shrunk(
    model: Model, core: Collection[str], feeds: Iterable[Values], trial: Trial, *, hangs: bool = False
) -> Case | None:
    """The smallest case that is found in `model`, on one of `feeds`; None where `trial` is right on all of them.

    The nodes that compute the values of `core` are tried first, then all of them; then one node after the other is left
    out, sizes are cut, and names and numbers are made short. Where the rewrite `hangs`, each of these takes all the
    time that there is: the first case is kept as it is.
    """
    for feed in feeds:
        case = _of(model, feed, [name for name in inner_names(model) if name not in core], trial)
        case = case or _of(model, feed, [], trial)
        if case is not None and hangs:
            return case
        if case is not None:
            return _told_plainly(_of_smaller_sizes(_of_fewer_nodes(case, trial), trial), trial)
    return None


def _of(model: Model, feed: Values, given: Collection[str], trial: Trial) -> Case | None:
    """The part of `model` that starts from the inner values called `given` as well, if the rewrite is wrong there."""
    try:
        values = {**feed, **(trial.values(model, feed, list(given)) if given else {})}
    except GraphoptError:
        return None
    return _case(excerpt(model.graph.outputs, given), values, trial)


def _case(model: Model, values: Values, trial: Trial) -> Case | None:
    feed = {}
    for node in model.graph.inputs:
        value = node.output
        if value.name not in values:
            return None
        feed[value.name] = array = values[value.name]
        if not isinstance(array, np.ndarray):
            return None
        value.dtype = value.dtype or dtypes.NUMBERS.get(array.dtype.name, 0)
        # Sizes that only inference has a name for would not be the same ones once they are written.
        known = value.shape if value.shape is not None and len(value.shape) == array.ndim else array.shape
        value.shape = tuple(n if "?" in str(size) else size for size, n in zip(known, array.shape, strict=True))
    found = trial.differs(model, feed)
    return Case(model, feed, found) if found is not None else None


def _of_fewer_nodes(case: Case, trial: Trial) -> Case:
    """Without the nodes that it takes not: those behind the first value that is off, and those whose values are fed."""
    values = (case.model.graph.names[name] for name in inner_names(case.model))
    cases = (_case(excerpt([value], ()), case.feed, trial) for value in values)
    case = next((found for found in cases if found is not None), case)
    for node in list(case.model.graph.ops()):
        names = [value.name for value in node.outputs if not node.graph.is_output(value)]
        if names and names[0] in case.model.graph.names:
            case = _of(case.model, case.feed, names, trial) or case
    return case


def _of_smaller_sizes(case: Case, trial: Trial) -> Case:
    """With fewer elements along the axes of each size, the largest first."""
    constants = [node.data for node in case.model.graph.sources("Constant") if node.data is not None]
    shapes = [*(array.shape for array in case.feed.values()), *(tensor.shape for tensor in constants)]
    for size in sorted({size for shape in shapes for size in shape if size > 1}, reverse=True):
        for wanted in sorted({1, 2, size // 2} - {size}):
            smaller = _cut(case, size, wanted, trial)
            if smaller is not None:
                case = smaller
                break
    return case


def _cut(case: Case, size: int, wanted: int, trial: Trial) -> Case | None:
    """With `wanted` in place of `size` elements, wherever there are that many, and where a constant says so."""

    def shape(old: Shape) -> Shape:
        return tuple(wanted if n == size else n for n in old)

    def array(old: Any) -> Any:
        return old[tuple(slice(wanted if n == size else None) for n in old.shape)] if np.ndim(old) else old

    def tensor(old: Tensor) -> Tensor:
        if size not in old.shape and not (old.dtype == dtypes.INT64 and len(old.shape) == 1):
            return old
        data = array(old.numpy())
        counts = old.dtype == dtypes.INT64 and data.ndim == 1
        return Tensor.of(np.where(data == size, wanted, data) if counts else data, old.dtype)

    try:
        model = excerpt(case.model.graph.outputs, (), shapes=shape, tensors=tensor)
        return _case(model, {name: array(value) for name, value in case.feed.items()}, trial)
    except (ValueError, IndexError):
        return None


def _told_plainly(case: Case, trial: Trial) -> Case:
    """With short names and round numbers, where the rewrite is wrong on these as well."""
    model = excerpt(case.model.graph.outputs, ())
    inputs = [node.output for node in model.graph.inputs]
    inner = [value for node in model.graph.ops() for value in node.outputs if value.name]
    short = {value.name: f"x{n}" for n, value in enumerate(inputs, 1)}
    short |= {value.name: f"v{n}" for n, value in enumerate(inner, 1)}
    if not model.graph.names.keys() & set(short.values()):
        for value in (*inputs, *inner):
            model.graph.rename(value, short[value.name])
        case = _case(model, {short[name]: array for name, array in case.feed.items()}, trial) or case
    for digits in (0, 1, 2):
        rounded = {name: _rounded(array, digits) for name, array in case.feed.items()}
        plain = _case(case.model, rounded, trial)
        if plain is not None:
            return plain
    return case


def _rounded(array: Any, digits: int) -> Any:
    """Floats with fewer digits; fills of masks, which have none, stay."""
    if not is_float(array):
        return array
    plain = np.abs(array) < _LARGEST_ROUNDED
    return np.where(plain, np.round(np.where(plain, array, 0), digits), array).astype(array.dtype)
