from typing import Annotated

from graphopt.ir import Value, dims
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class RotaryToRows(Rule):
    """Rotary embedding before heads and rows are exchanged, on operands of rank 3.

    Why: the kernel takes both layouts; on (B, S, N·D) the exchange moves behind it, where it meets the one that an
    attention kernel undoes.
    Before: RotaryEmbedding(Transpose(x, [0, 2, 1, 3]), cos, sin) with x of (B, S, N, D)
    After: Transpose(RotaryEmbedding(x as (B, S, N·D), cos, sin, num_heads=N) as (B, S, N, D), [0, 2, 1, 3])
    Safety: the operator defines rank 4 by rank 3 in this way; N and D are known numbers.
    """

    stage = "lower"
    needs = (kernel("", "RotaryEmbedding"), kernel("com.microsoft", "RotaryEmbedding"))
    keeps_inner = True
    priority = 10

    def pattern(self, op: Ops, x: Floats, c: Value, s: Value, pairs: Attr, size: Attr, heads: Attr) -> Expr:
        swapped = op.Transpose(x, perm=[0, 2, 1, 3])
        return op.RotaryEmbedding(swapped, c, s, interleaved=pairs, rotary_embedding_dim=size, num_heads=heads)

    def where(self, x: Value) -> Reason:
        known = x.shape is not None and all(isinstance(number, int) for number in x.shape[2:])
        return known or f"heads or head size are not known numbers: {x.shape}"

    def rewrite(self, op: Builder, x: Value, c: Value, s: Value, pairs: int, size: int) -> Value:
        assert x.shape is not None
        batch, rows, heads, width = x.shape
        flat = op.reshape(x, (batch, rows, dims.mul(heads, width)))
        attrs = {"interleaved": pairs, "rotary_embedding_dim": size}
        y = op.RotaryEmbedding(flat, c, s, num_heads=int(str(heads)), **attrs)
        return op.Transpose(op.reshape(y, x.shape), perm=[0, 2, 1, 3])
