"""Attention as `ir.Attention` wants it: operands of any rank, factors of the scores, and what is added to them."""

from __future__ import annotations

import math

from graphopt.ir import Value
from graphopt.ir.inference.sizes import fits
from graphopt.patterns.clean.views import merged_view
from graphopt.rewrite import Builder, Reason

_ONE_HEAD = {2: [0, 1], 3: [1]}
"""The dimensions that operands of this rank lack, by rank."""
_GROUPED = [range(1), range(1, 3), range(3, 4), range(4, 5)]
"""What (B, K, G, S, D) merges to (B, N, S, D)."""


def all_to_heads(op: Builder, q: Value, kt: Value, v: Value, bias: Value | None) -> list[Value | None]:
    """Queries, keys, values and bias of rank 4, for kᵀ in place of the keys.

    Of queries (B, K, G, S, D) beside keys (B, K, 1, T, D), K·G are heads.
    """
    assert q.shape is not None
    assert kt.shape is not None
    if len(q.shape) != 5 or q.shape[2] == kt.shape[2]:
        return [to_heads(op, q, x) for x in (q, op.transposed(kt), v, bias)]
    keys, values = (op.Squeeze(x, axes=[2]) for x in (kt, v))
    heads, biases = (x and merged_view(op, x, _GROUPED, q) for x in (q, bias))
    return [heads, op.transposed(keys), values, biases]


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


def can_scale(scale: float, cap: float | None) -> Reason:
    """Whether scores can be multiplied by `scale` and then capped: c·tanh(scale · q·kᵀ)."""
    if cap is not None and not 0 < cap < math.inf:
        return f"the cap is {cap:g}"
    return (scale > 0 and math.isfinite(scale)) or f"the scale is {scale}"


def keep_columns(kt: Value, v: Value, *biases: Value | None) -> Reason:
    """Whether `biases` have one column or as many as there are keys, and so do not widen the scores.

    Weights and values are multiplied, so the weights have as many columns as the values have rows. Where that is the
    number of keys, it follows; else the biases must say so.
    """
    assert kt.shape is not None
    assert v.shape is not None
    keys = kt.shape[-1]
    wide = [b.shape for b in biases if b is not None and not (b.shape and fits(b.shape[-1], keys))]
    return v.shape[-2] == keys or not wide or f"{v.shape[-2]} values, {keys} keys, and what is added is {wide[0]}"
