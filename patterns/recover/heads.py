"""Attention over operands of any rank, as `ir.Attention` wants them."""

from __future__ import annotations

from graphopt.ir import Value
from graphopt.patterns.clean.views import merged_view
from graphopt.rewrite import Builder

_ONE_HEAD = {2: [0, 1], 3: [1]}
"""The dimensions that operands of this rank lack, by rank."""


def to_heads(op: Builder, q: Value, x: Value | None) -> Value | None:
    """`x`, an operand of attention or its bias, of rank 4 where the queries `q` have another rank.

    (B·N, S, D) is B·N batches of one head: the number of heads is known then. Of more dimensions than (B, N, S, D) the
    first are one batch.
    """
    assert q.rank is not None
    if x is None or q.rank == 4:
        return x
    if q.rank < 4:
        return op.Unsqueeze(x, axes=_ONE_HEAD[q.rank]) if x.rank == q.rank else x
    first = q.rank - 3
    return merged_view(op, x, [range(first), *(range(axis, axis + 1) for axis in range(first, q.rank))], q)


def from_heads(op: Builder, q: Value, y: Value) -> Value:
    """The result (B, N, S, E) with as many dimensions as the queries `q` have."""
    assert q.rank is not None
    if q.rank < 4:
        return op.Squeeze(y, axes=_ONE_HEAD[q.rank])
    if q.rank == 4:
        return y
    return op.Reshape(y, op.Concat(*(op.size(q, axis) for axis in range(q.rank - 1)), op.size(y, 3), axis=0))
