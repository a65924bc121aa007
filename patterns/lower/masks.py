"""What the attention kernels want of a mask."""

from __future__ import annotations

from graphopt.ir import Value
from graphopt.rewrite import Builder


def whole_mask(op: Builder, bias: Value, q: Value, k: Value) -> Value:
    """A bias that broadcasts to (B, N, S, T), with its last two dimensions written out: (1|B, 1|N, S, T).

    The kernels broadcast over batch and heads only. Where all layers share a mask, they share the Expand as well.
    """
    assert bias.shape is not None
    assert q.shape is not None
    assert k.shape is not None
    if len(bias.shape) < 4:
        bias = op.Unsqueeze(bias, op.ints(*range(4 - len(bias.shape))))
        assert bias.shape is not None
    whole = (*bias.shape[:2], q.shape[2], k.shape[2])
    return op.expand(bias, whole, [1, 1, op.size(q, 2), op.size(k, 2)])
