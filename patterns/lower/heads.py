"""What the attention kernels want of their operands: layouts of heads, and masks."""

from __future__ import annotations

from graphopt.ir import Value, dims
from graphopt.rewrite import Builder, Reason

Mask = Value | None
"""An operand that is added to the scores, where there is one."""


def sizes_known(*operands: Value) -> Reason:
    """Whether the number of heads and the head size of every (B, N, S, D) operand are numbers."""
    for x in operands:
        if x.shape is None or not (isinstance(x.shape[1], int) and isinstance(x.shape[3], int)):
            return f"heads or head size are not known numbers: {x.shape}"
    return True


def mask_known(bias: Value | None, q: Value, k: Value) -> Reason:
    """Whether enough is known of the shapes for `whole_mask`."""
    known = bias is None or None not in (bias.shape, q.shape, k.shape)
    return known or "the shape of the mask or of the scores is not known"


def heads_apart(x: Value) -> bool:
    """Whether (B, N, S, D) is (B, S, N, D) transposed, which costs nothing to undo, or one head, which is a view."""
    transposed = x.node.is_op("Transpose") and x.node.attr("perm") == [0, 2, 1, 3]
    return transposed or (x.shape is not None and x.shape[1] == 1)


def merge_heads(op: Builder, x: Value) -> Value:
    """(B, N, S, D) as (B, S, N·D)."""
    assert x.shape is not None
    batch, heads, rows, width = x.shape
    assert isinstance(heads, int)
    assert isinstance(width, int)
    if heads == 1:
        return op.Squeeze(x, axes=[1])
    return op.reshape(op.Transpose(x, perm=[0, 2, 1, 3]), (batch, rows, heads * width))


def split_heads(op: Builder, y: Value, like: Value, width: Value) -> Value:
    """(B, S, N·E) as (B, N, S, E): batch, heads and rows of `like`, E of `width`."""
    assert like.shape is not None
    assert width.shape is not None
    batch, heads, rows, _ = like.shape
    if heads == 1:
        return op.Unsqueeze(y, axes=[1])
    return op.Transpose(op.reshape(y, (batch, rows, heads, width.shape[3])), perm=[0, 2, 1, 3])


def share_keys(q: Value, k: Value) -> Reason:
    """Whether (B, N, S, D) queries and (B, K, T, D) keys have as many heads, or K divides N."""
    if q.shape is None or k.shape is None:
        return "the number of heads is not known"
    heads, shared = q.shape[1], k.shape[1]
    fits = heads == shared or (isinstance(heads, int) and isinstance(shared, int) and heads % shared == 0)
    return fits or f"{heads} heads read {shared} heads of keys"


def below_each_other(op: Builder, x: Value, k: Value) -> Value:
    """(B, N, S, ·) as (B, K, N/K·S, ·): heads that share one of `k`, which is (B, K, T, ·), in one matrix."""
    assert x.shape is not None
    assert k.shape is not None
    batch, heads, rows, width = x.shape
    if heads == k.shape[1]:
        return x
    assert isinstance(heads, int)
    assert isinstance(k.shape[1], int)
    return op.reshape(x, (batch, k.shape[1], dims.mul(heads // k.shape[1], rows), width))


def side_by_side(op: Builder, x: Value, q: Value) -> Value:
    """What `below_each_other` made, as (B, N, S, ·) again, with the heads and rows of `q`."""
    assert x.shape is not None
    assert q.shape is not None
    return x if x.shape[1] == q.shape[1] else op.reshape(x, (x.shape[0], *q.shape[1:3], x.shape[3]))


def whole_mask(op: Builder, bias: Value, q: Value, k: Value) -> Value:
    """A bias that broadcasts to (B, N, S, T), with its last two dimensions written out: (1|B, 1|N, S, T).

    The kernels broadcast over batch and heads only. Where all layers share a mask, they share the Expand as well.
    """
    assert bias.shape is not None
    assert q.shape is not None
    assert k.shape is not None
    if len(bias.shape) < 4:
        bias = op.Unsqueeze(bias, axes=list(range(4 - len(bias.shape))))
        assert bias.shape is not None
    whole = (*bias.shape[:2], q.shape[2], k.shape[2])
    return op.expand(bias, whole, [1, 1, op.size(q, 2), op.size(k, 2)])
