"""What rotary embeddings have in common: pairs of lanes that turn, tables of angles, and where the heads are."""

import numpy as np

from graphopt.ir import Node, Shape, Value
from graphopt.ir.lanes import MOVES, lanes
from graphopt.ir.operands import axes
from graphopt.rewrite import Builder, Reason, number_of

HALVES, INTERLEAVED = 0, 1
"""Which lanes of 2·h are a pair: j and j + h, or 2·j and 2·j + 1."""
SWAPPED = [0, 2, 1, 3]
"""From (B, S, N, D) to (B, N, S, D) and back."""


def quarter_turn(x: Value, turned: Value) -> int | None:
    """Which lanes are pairs, where `turned` has (−b, a) for each pair (a, b) of `x`; None where it has not."""
    before, after = lanes(x, turned)
    if before is None or after is None or before.shape != after.shape or before.shape[-1] % 2:
        return None
    for pairs in (HALVES, INTERLEAVED):
        (a, b), (c, d) = _apart(before, pairs), _apart(after, pairs)
        if np.array_equal(c, -b) and np.array_equal(d, a):
            return pairs
    return None


def holds_twice(table: Value, pairs: int) -> bool:
    """Whether both lanes of each pair are equal, as the operator wants it."""
    (found,) = lanes(table, elementwise=True)
    return found is not None and found.shape[-1] % 2 == 0 and np.array_equal(*_apart(found, pairs))


def _apart(x: np.ndarray, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    half = x.shape[-1] // 2
    return (x[..., ::2], x[..., 1::2]) if pairs == INTERLEAVED else (x[..., :half], x[..., half:])


def once(op: Builder, table: Value, pairs: int) -> Value:
    """One lane of each pair of `table`, cut out before what is computed from it."""
    above: list[Node] = []
    while (inner := _computed_from(table.node, (table.rank or 1) - 1)) is not None:
        above.append(table.node)
        table = inner
    lane = _lane(op, table, pairs)
    for node in reversed(above):
        if node.op == "Unsqueeze":
            lane = op.Unsqueeze(lane, axes=axes(node))
        else:
            lane = getattr(op, node.op)(lane, *node.inputs[1:], **node.attrs)
    return lane


def _computed_from(node: Node, last: int) -> Value | None:
    """What `node` computes lane by lane from, `last` being the axis of the lanes; None where it does not."""
    inner, *others = node.inputs or [None]
    numbers = all(value is not None and number_of(value) is not None for value in others)
    if not node.domain and node.op in ("Cast", "Cos", "Mul", "Sin") and numbers:
        return inner
    return inner if node.is_op("Unsqueeze") and last not in (axes(node) or [last]) else None


def _lane(op: Builder, table: Value, pairs: int) -> Value:
    last = (table.rank or 1) - 1
    assert table.shape is not None
    size = int(str(table.shape[-1]))
    if pairs == INTERLEAVED:
        return op.Slice(table, op.ints(0), op.ints(size), op.ints(last), op.ints(2))
    return op.Slice(table, op.ints(0), op.ints(size // 2), op.ints(last), op.ints(1))


def heads_axis(cos: Value, sin: Value) -> int | None:
    """Where the heads of (B, N, S, D) or (B, S, N, D) are, for which all tables are the same; B may be missing."""
    shapes = [_padded(value.shape or ()) for value in (cos, sin)]
    return next((axis for axis in (1, 2) if all(shape[axis] == 1 for shape in shapes)), None)


def _padded(shape: Shape) -> Shape:
    return (*(1,) * (4 - len(shape)), *shape)


def can_turn(x: Value, cos: Value | None, sin: Value | None, shape: Shape | None) -> Reason:
    """Whether the operator can turn `x` by these tables, as far as types and shapes go; the result has this shape."""
    if cos is None or sin is None or cos.shape is None or sin.shape is None:
        return "the shape of a table is not known"
    if x.shape is None or x.rank not in (3, 4) or x.shape != shape or not isinstance(x.shape[-1], int):
        return f"{x.shape} becomes {shape}"
    if x.dtype != cos.dtype or x.dtype != sin.dtype:
        return "the tables have another type"
    return heads_axis(cos, sin) is not None or f"the tables {cos.shape} and {sin.shape} differ between heads"


def turn(op: Builder, x: Value, cos: Value, sin: Value, pairs: int) -> Value:
    """`x` with each pair (a, b) as (a·cos − b·sin, b·cos + a·sin), for tables of one lane for each pair."""
    axis = heads_axis(cos, sin)
    assert axis is not None
    y = x if x.rank == 4 else op.Unsqueeze(x, axes=[0])
    y = y if axis == 1 else op.Transpose(y, perm=SWAPPED)
    caches = [cache_of(op, _without_heads(op, table, axis), y) for table in (cos, sin)]
    y = op.RotaryEmbedding(y, *caches, interleaved=pairs or None)
    y = y if axis == 1 else op.Transpose(y, perm=SWAPPED)
    return y if x.rank == 4 else op.Squeeze(y, axes=[0])


def _without_heads(op: Builder, table: Value, axis: int) -> Value:
    if table.rank != 4:
        table = op.Unsqueeze(table, axes=list(range(4 - (table.rank or 0))))
    return op.Squeeze(table, axes=[axis])


def cache_of(op: Builder, table: Value, x: Value) -> Value:
    """A table (1 or B, 1 or S, h) as (B, S, h), for `x` of (B, N, S, D) or (B, S, N·D): kernels do not broadcast it.

    Where all layers share a table, they share the Expand as well.
    """
    assert table.shape is not None
    assert x.shape is not None
    batch, rows, half = 0, len(x.shape) - 2, int(str(table.shape[-1]))
    return op.expand(table, (x.shape[batch], x.shape[rows], half), [op.size(x, batch), op.size(x, rows), half])


def whole_of(pairs: int | None, first: Value, second: Value) -> Value | None:
    """What `first` and `second` are cut from: its lanes in this order, or one of each in turn if INTERLEAVED."""
    above = [first]
    while above[-1].node.op in MOVES and above[-1].node.inputs and above[-1].node.inputs[0] is not None:
        above.append(above[-1].node.inputs[0])
    one, other, *found = lanes(first, second, *above[1:])
    if one is None or other is None or (pairs == INTERLEAVED and one.shape != other.shape):
        return None
    wanted = np.concatenate([one, other], -1)
    if pairs == INTERLEAVED:
        wanted = np.stack([one, other], -1).reshape(wanted.shape)
    candidates = zip(above[1:], found, strict=True)
    return next((value for value, lane in candidates if lane is not None and np.array_equal(lane, wanted)), None)
