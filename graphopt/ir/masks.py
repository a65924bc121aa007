"""Whether a mask leaves every row a key, by proof from the operations that made it.

Row i and column j of the last two dimensions are compared as in causal masks and windows: `key ≤ query + offset` of two
ranges, tables of such truths that were cut to size, triangles. What depends on data, as padding does, is not proved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from graphopt.ir import dims, dtypes
from graphopt.ir.dims import Size
from graphopt.ir.fills import Fill, fills, is_indicator
from graphopt.ir.inference.sizes import nonnegative
from graphopt.ir.node import Node, Value
from graphopt.ir.operands import known_content, slices

# Masks are made in a few dozen operations; a longer history is not looked at.
_NODES = 1000
_MOST_BOUNDS = 64


class Want(Enum):
    """What is asked of the elements of a region."""

    TRUE = "not zero"
    FALSE = "zero"
    ORDINARY = "finite, and small beside every fill"


@dataclass(frozen=True)
class Bound:
    """row·i + column·j + constant ≤ 0"""

    row: int
    column: int
    constant: Size


@dataclass(frozen=True)
class Region:
    """Elements that are what was wanted: all that keep every bound.

    There are rows below each of `rows`, and columns below all of `columns`.
    """

    bounds: tuple[Bound, ...]
    rows: tuple[Size, ...]
    columns: tuple[Size, ...]


@dataclass(frozen=True)
class _Known:
    """What is proved of values before those that are made of them."""

    regions: dict[tuple[Value, Want], Region | None]
    linear: dict[Value, Bound | None]


def never_empty(mask: Value, denies: bool = False) -> bool:
    """Whether each row along the last dimension has an element that is allowed.

    Allowed is what is true, or false where the mask `denies`; of floats, what is ordinary (see `fills`).
    """
    known = _Known({}, {})
    for node in _history(mask):
        known.linear[node.output] = _followed(node.output, known)
        rule = _RULES.get(node.op)
        if rule is not None and node.output.shape is not None:
            known.regions.update({(node.output, want): rule(node.output, want, known) for want in Want})
    region = _region(mask, _TRUTH[not denies] if mask.dtype == dtypes.BOOL else Want.ORDINARY, known)
    return region is not None and any(_diagonal_fits(region, offset) for offset in _offsets(region))


def _offsets(region: Region) -> Iterator[Size]:
    yield 0
    for bound in region.bounds:
        if bound.column == 1:
            yield dims.mul(bound.constant, -1)


def _diagonal_fits(region: Region, offset: Size) -> bool:
    """Whether the element (i, i + offset) exists and keeps every bound, for each row i."""
    there = nonnegative(offset) and all(
        any(nonnegative(dims.sub(dims.sub(last, row), offset)) for row in region.rows) for last in region.columns
    )
    return there and all(
        bound.row + bound.column == 0
        and nonnegative(dims.mul(dims.add(dims.mul(offset, bound.column), bound.constant), -1))
        for bound in region.bounds
    )


def _region(value: Value, want: Want, known: _Known) -> Region | None:
    """Where `value` is as wanted; None where that is not known of any element."""
    if value.tensor is not None and (value, want) not in known.regions:
        known.regions[value, want] = _of_table(value, want)
    return known.regions.get((value, want))


def _history(value: Value) -> list[Node]:
    """The operations with a rule that `value` is made by, in order; none where there are too many."""
    found: set[Node] = set()
    stack = [value.node]
    while stack and len(found) <= _NODES:
        node = stack.pop()
        followed = node.op in _RULES or node.op in ("Range", "Sub")
        if node not in found and not node.domain and followed and len(node.outputs) == 1:
            found.add(node)
            stack.extend(node.producers())
    return sorted(found, key=lambda node: node.rank) if not stack else []


def _sizes(value: Value) -> tuple[Size, Size]:
    assert value.shape is not None
    shape = (1, 1, *value.shape)
    return shape[-2], shape[-1]


def _of_table(value: Value, want: Want) -> Region | None:
    """The diagonals of a constant, around the main one, that are as wanted throughout."""
    assert value.tensor is not None
    numbers = value.tensor.numpy()
    if want is Want.ORDINARY:
        if value.dtype not in dtypes.FLOATS:
            return None
        kind = np.finfo(np.float16 if numbers.dtype == np.float16 else np.float32)
        wanted = np.abs(numbers.astype(np.float64)) <= float(kind.max) * float(kind.eps) / 16
    else:
        wanted = (numbers != 0) == (want is Want.TRUE)
    table = wanted.reshape(-1, *((1, 1, *wanted.shape)[-2:])).all(axis=0)
    rows, columns = table.shape
    if table.all():
        return Region((), (rows,), (columns,))
    good = {offset for offset in range(-rows + 1, columns) if np.diagonal(table, offset).all()}
    if 0 not in good:
        return None
    low = next(offset for offset in range(0, -rows - 1, -1) if offset - 1 not in good)
    high = next(offset for offset in range(columns + 1) if offset + 1 not in good)
    return Region((Bound(-1, 1, -high), Bound(1, -1, low)), (rows,), (columns,))


def _view(value: Value, want: Want, known: _Known) -> Region | None:
    x = value.node.input(0)
    if x is None or x.shape is None or (x.dtype != value.dtype and not _survives_cast(x, value, want)):
        return None
    kept = all(before in (1, after) for before, after in zip(_sizes(x), _sizes(value), strict=True))
    return _together(value, want, known, x) if kept else None


def _survives_cast(x: Value, value: Value, want: Want) -> bool:
    """Whether what is wanted of `value` follows where it holds of `x`: 0 stays 0, but 0.5 is 0 as an integer."""
    return want is Want.FALSE or (want is Want.TRUE and dtypes.BOOL in (x.dtype, value.dtype))


def _together(value: Value, want: Want, known: _Known, *operands: Value | None) -> Region | None:
    """Where all `operands`, broadcast to `value`, are as wanted."""
    bounds: list[Bound] = []
    rows: list[Size] = [_sizes(value)[0]]
    columns: list[Size] = []
    for x in operands:
        found = _region(x, want, known) if x is not None else None
        if found is None or x is None:
            return None
        # What is broadcast is the same in each row, or column: that of number 0.
        one_row, one_column = (size == 1 for size in _sizes(x))
        bounds += [Bound(b.row * (not one_row), b.column * (not one_column), b.constant) for b in found.bounds]
        rows += found.rows if not one_row else ()
        columns += found.columns if not one_column else ()
    if len(kept := dict.fromkeys(bounds)) > _MOST_BOUNDS:
        return None
    return Region(tuple(kept), tuple(dict.fromkeys(rows)), tuple(dict.fromkeys(columns or [_sizes(value)[1]])))


def _either(value: Value, want: Want, known: _Known) -> Region | None:
    found = (_together(value, want, known, x) for x in value.node.inputs)
    return next((region for region in found if region is not None), None)


def _and(value: Value, want: Want, known: _Known) -> Region | None:
    return _together(value, want, known, *value.node.inputs) if want is Want.TRUE else _either(value, want, known)


def _bitwise_and(value: Value, want: Want, known: _Known) -> Region | None:
    """Of 0 and 1 only: 1 & 2 is 0."""
    bits = all(x is not None and is_indicator(x) for x in value.node.inputs)
    return _and(value, want, known) if want is Want.FALSE or bits else None


def _or(value: Value, want: Want, known: _Known) -> Region | None:
    return _together(value, want, known, *value.node.inputs) if want is Want.FALSE else _either(value, want, known)


def _not(value: Value, want: Want, known: _Known) -> Region | None:
    return _together(value, _TRUTH[want is Want.FALSE], known, value.node.input(0))


def _where(value: Value, want: Want, known: _Known) -> Region | None:
    condition, *choices = value.node.inputs
    ordinary = [x is not None and fills(x) == Fill.ORDINARY for x in choices]
    if want is not Want.ORDINARY or not any(ordinary):
        return None
    return _together(value, want, known) if all(ordinary) else _together(value, _TRUTH[ordinary[0]], known, condition)


_TRUTH = {True: Want.TRUE, False: Want.FALSE}


def _add(value: Value, want: Want, known: _Known) -> Region | None:
    return _together(value, want, known, *value.node.inputs) if want is Want.ORDINARY else None


def _compare(value: Value, want: Want, known: _Known) -> Region | None:
    a, b = (_linear(x, known) if x is not None else None for x in value.node.inputs)
    if a is None or b is None or want is Want.ORDINARY:
        return None
    op = value.node.op if want is Want.TRUE else _OPPOSITE[value.node.op]
    if op.startswith("Greater"):
        a, b = b, a
    strict = 0 if op.endswith("OrEqual") else 1
    constant = dims.add(dims.sub(a.constant, b.constant), strict)
    rows, columns = _sizes(value)
    return Region((Bound(a.row - b.row, a.column - b.column, constant),), (rows,), (columns,))


_OPPOSITE = {"Less": "GreaterOrEqual", "LessOrEqual": "Greater", "Greater": "LessOrEqual", "GreaterOrEqual": "Less"}


def _slice(value: Value, want: Want, known: _Known) -> Region | None:
    x, ranges = value.node.input(0), slices(value.node)
    region = _region(x, want, known) if x is not None and ranges is not None else None
    for one in ranges or ():
        if region is None or x is None or x.rank is None or one.step != 1 or not nonnegative(one.start):
            return None
        if not nonnegative(one.end):
            return None
        region = _cut(region, one.axis - x.rank, one.start, one.end)
    return region


def _cut(region: Region, along: int, start: Size, end: Size) -> Region:
    """The region in what is left of a tensor from `start` to `end` of one dimension, -1 being the last."""

    def cut(sizes: tuple[Size, ...]) -> tuple[Size, ...]:
        return tuple(dims.sub(size, start) for size in (*sizes, end))

    if along < -2:
        return region
    factors = [b.row if along == -2 else b.column for b in region.bounds]
    moved = [dims.add(b.constant, dims.mul(f, start)) for b, f in zip(region.bounds, factors, strict=True)]
    bounds = tuple(Bound(b.row, b.column, constant) for b, constant in zip(region.bounds, moved, strict=True))
    if along == -2:
        return Region(bounds, cut(region.rows), region.columns)
    return Region(bounds, region.rows, cut(region.columns))


def _triangle(value: Value, want: Want, known: _Known) -> Region | None:
    """Trilu(x, k): nothing above (below, for `upper`) the diagonal j = i + k."""
    node = value.node
    x, k = node.input(0), node.input(1)
    given = known_content(k) if k is not None else (0,)
    if x is None or given is None or len(given) != 1:
        return None
    kept, gone = Bound(-1, 1, dims.mul(given[0], -1)), Bound(1, -1, dims.add(given[0], 1))
    if node.attr("upper", 1):
        kept, gone = Bound(1, -1, given[0]), Bound(-1, 1, dims.sub(1, given[0]))
    rows, columns = _sizes(value)
    if want is not Want.TRUE:
        return Region((gone,), (rows,), (columns,))
    found = _region(x, want, known)
    return None if found is None else Region((*found.bounds, kept), found.rows, found.columns)


def _filled(value: Value, want: Want, known: _Known) -> Region | None:
    """ConstantOfShape."""
    tensor = value.node.attr("value")
    number = 0.0 if tensor is None else float(tensor.numpy().reshape(-1)[0])
    is_wanted = abs(number) <= 1.0 if want is Want.ORDINARY else (number != 0) == (want is Want.TRUE)
    rows, columns = _sizes(value)
    return Region((), (rows,), (columns,)) if is_wanted else None


def _linear(value: Value, known: _Known) -> Bound | None:
    """An integer tensor whose element (i, j) is row·i + column·j + constant."""
    content = known_content(value)
    if content is not None and len(content) == 1:
        return Bound(0, 0, content[0])
    return known.linear.get(value)


def _followed(value: Value, known: _Known) -> Bound | None:
    node = value.node
    if value.shape is None or value.dtype not in dtypes.INTEGERS:
        return None
    x, y = node.input(0), node.input(1)
    if node.op == "Range":
        start, step = known_content(x), known_content(node.input(2))
        return Bound(0, 1, start[0]) if start is not None and len(start) == 1 and step == (1,) else None
    a = _linear(x, known) if x is not None else None
    if a is None or x is None or x.shape is None:
        return None
    if node.op in ("Add", "Sub") and y is not None:
        b, sign = _linear(y, known), 1 if node.op == "Add" else -1
        if b is None:
            return None
        constant = dims.add(a.constant, dims.mul(b.constant, sign))
        return Bound(a.row + sign * b.row, a.column + sign * b.column, constant)
    return _turned(a, x, value) if node.op in _SAME_ORDER else None


def _turned(a: Bound, x: Value, value: Value) -> Bound | None:
    """`a` of `x`, which runs along one dimension only, in a view of it."""
    assert x.shape is not None
    assert value.shape is not None
    along = [axis - len(value.shape) for axis, size in enumerate(value.shape) if size != 1]
    if sum(size != 1 for size in x.shape) != 1 or len(along) != 1 or along[0] < -2:
        return None
    factor = a.row or a.column
    return Bound(*((0, factor) if along[0] == -1 else (factor, 0)), a.constant)


_SAME_ORDER = ("Identity", "Reshape", "Unsqueeze", "Squeeze", "Cast")
_RULES: dict[str, Callable[[Value, Want, _Known], Region | None]] = {
    **dict.fromkeys((*_SAME_ORDER, "Expand"), _view),
    **dict.fromkeys(_OPPOSITE, _compare),
    "And": _and,
    "BitwiseAnd": _bitwise_and,
    "Or": _or,
    "Not": _not,
    "Where": _where,
    "Add": _add,
    "Slice": _slice,
    "Trilu": _triangle,
    "ConstantOfShape": _filled,
}
