"""What the attention operators of standard and contrib domains are given, in the words of `ir.Attention`."""

from __future__ import annotations

import math

import numpy as np

from graphopt.ir import Value, dtypes
from graphopt.ir.fills import Fill, fills
from graphopt.ir.tensor import Array
from graphopt.rewrite import Attrs, Builder, Reason, numbers_of

FILL = -10000.0
"""What contrib operators add for a key that is not allowed, where they do not say."""


def heads_known(x: Value, heads: int | None) -> Reason:
    """Whether `x` is (B, N, S, D), or (B, S, N·D) of so many heads, with N and D known numbers above 0."""
    if x.shape is None or len(x.shape) not in (3, 4):
        return f"operands of shape {x.shape}"
    width = x.shape[-1]
    if len(x.shape) == 4:
        return all(isinstance(size, int) and size for size in (width, x.shape[1])) or f"heads of shape {x.shape}"
    if not isinstance(width, int) or not heads:
        return "heads or head size are not known numbers"
    return width % heads == 0 or f"{heads} heads do not divide {width}"


def head_size(x: Value, heads: int | None) -> int:
    """D of an operand whose `heads_known`."""
    assert x.shape is not None
    width = x.shape[-1]
    assert isinstance(width, int)
    return width if len(x.shape) == 4 else width // (heads or 1)


def scale_of(q: Value, heads: int | None, given: float | None) -> float:
    """The scale, which is 1/√D where none is given."""
    return given or 1 / math.sqrt(head_size(q, heads))


def apart(op: Builder, x: Value, heads: int | None) -> Value:
    """`x` as (B, N, S, D)."""
    assert x.shape is not None
    if len(x.shape) == 4:
        return x
    batch, rows, _ = x.shape
    assert heads is not None
    if heads == 1:
        return op.Unsqueeze(x, axes=[1])
    return op.Transpose(op.reshape(x, (batch, rows, heads, head_size(x, heads))), perm=[0, 2, 1, 3])


def masks_known(given: Attrs, mask: Value | None, bias: Value | None, queries: Value) -> Reason:
    """Whether it is known what a contrib operator does with its masks and its scale.

    A padding mask of integers is one of lengths (B), or of keys (B, T) or (B, S, T). The operators give a later key the
    lowest number in spite of its mask: −∞ may stand for it where nothing else is as low, since a row with only later
    keys and masked ones is uniform otherwise.
    """
    if given.get("scale", 0.0) < 0:
        return f"the scale is {given['scale']}"
    known = mask is None or _padding_known(mask, queries)
    if known is not True or not given.get("unidirectional"):
        return known
    if mask is not None and given.get("mask_filter_value", FILL) < (-1e30 if queries.dtype == dtypes.FLOAT else -3e4):
        return "the fill of the mask is as low as that of a causal one"
    return bias is None or fills(bias) == Fill.ORDINARY or "the bias may be as low as a causal mask"


def _padding_known(mask: Value, batch: Value) -> Reason:
    if mask.shape is None or batch.shape is None or mask.dtype != dtypes.INT32:
        return "the mask is not of int32, or its shape is not known"
    if len(mask.shape) == 1:
        return mask.shape[0] == batch.shape[0] or f"the mask {mask.shape} is not one length for each sequence"
    if mask.shape[1:] == (1,):
        return "a mask of one key stands for none"
    return len(mask.shape) in (2, 3) or f"a mask of rank {len(mask.shape)}"


def padding(op: Builder, mask: Value | None, q: Value, k: Value, fill: float) -> Value | None:
    """The mask as what is added to the scores: 0 where a key is allowed, else `fill`; (B, 1, 1|S, T)."""
    if mask is None:
        return None
    if mask.rank == 1:
        allowed = op.Less(_positions(op, k), op.Unsqueeze(mask, axes=[1]))
    else:
        allowed = op.Greater(mask, op.const(0, like=mask))
    wide = op.Unsqueeze(allowed, axes=[1] if mask.rank == 3 else [1, 2])
    return op.Where(wide, op.const(0.0, like=q), op.const(fill, like=q))


def triangle(op: Builder, q: Value, k: Value) -> Value:
    """What a causal mask adds to the scores: 0 for a key that is not behind the query, else −∞; (S, T)."""
    later = op.Greater(_positions(op, k), op.Unsqueeze(_positions(op, q), axes=[1]))
    return op.Where(later, op.const(-math.inf, like=q), op.const(0.0, like=q))


def _positions(op: Builder, x: Value) -> Value:
    """0, 1, ... as int32 for each row of `x`, (..., S, D)."""
    assert x.shape is not None
    axis = len(x.shape) - 2
    if isinstance(size := x.shape[axis], int):
        return op.const(np.arange(size, dtype=np.int32))
    count = op.Squeeze(op.Cast(op.size(x, axis), to=dtypes.INT32), axes=[0])
    return op.Range(op.const(np.int32(0)), count, op.const(np.int32(1)))


def added(op: Builder, *biases: Value | None) -> Value | None:
    """The sum of those that are there."""
    given = [bias for bias in biases if bias is not None]
    return op.sum(*given) if given else None


def parts(value: Value, sizes: list[int]) -> list[Array]:
    """A constant, cut along its last axis."""
    return np.split(numbers_of(value), np.cumsum(sizes)[:-1], axis=-1)
