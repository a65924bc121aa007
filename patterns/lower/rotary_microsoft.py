from typing import Annotated

import numpy as np

from graphopt.ir import Value, dims
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class RotaryToMicrosoft(Rule):
    """Rotary embedding as a contrib operator, where the model's opset has none and must stay.

    Why: one kernel, where the parts would pass over queries and keys ten times.
    Before: RotaryEmbedding(x, cos, sin) in a model of an opset before 23
    After: com.microsoft.RotaryEmbedding(x, 0 … B·S − 1 as (B, S), cos as (B·S, h), sin as (B·S, h))
    Safety: the same kernel; it takes its tables by position only, so each row of each sequence is a position.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "RotaryEmbedding")

    def pattern(self, op: Ops, x: Floats, c: Value, s: Value, pairs: Attr, size: Attr, heads: Attr) -> Expr:
        return op.RotaryEmbedding(x, c, s, interleaved=pairs, rotary_embedding_dim=size, num_heads=heads)

    def where(self, x: Value, c: Value, s: Value, size: int, heads: int | None, root: Value, ctx: Context) -> Reason:
        if not x.shape or not c.shape or len(c.shape) != 3 or c.shape != s.shape or not isinstance(c.shape[2], int):
            return "the shape of a table is not known"
        if c.shape[:2] != (x.shape[0], x.shape[-2]):
            return f"tables of {c.shape} for {x.shape}"
        if size and not _heads(x, heads):
            return "the number of heads is not known"
        opset = root.node.graph.opsets.get("", 1)
        return (ctx.keep_opset and root.node.version > opset) or "the standard operator may be written"

    def rewrite(self, op: Builder, x: Value, c: Value, s: Value, pairs: int, size: int, heads: int | None) -> Value:
        assert c.shape is not None
        batch, rows, half = c.shape
        flat = [op.reshape(table, (dims.mul(batch, rows), half)) for table in (c, s)]
        sizes = op.size(c, 0), op.size(c, 1)
        count = op.Squeeze(op.Mul(*sizes))
        places = op.Range(op.const(np.int64(0)), count, op.const(np.int64(1)))
        ids = op.Reshape(places, op.Concat(*sizes, axis=0))
        attrs = {"interleaved": pairs, "rotary_embedding_dim": size, "num_heads": _heads(x, heads)}
        return op.ms.RotaryEmbedding(x, ids, *flat, **attrs)


def _heads(x: Value, written: int | None) -> int:
    """The number of heads, as it is written or as (B, N, S, D) has it; 0 where it is not known."""
    if written or x.shape is None or len(x.shape) != 4 or not isinstance(x.shape[1], int):
        return written or 0
    return x.shape[1]
