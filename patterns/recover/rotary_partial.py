from typing import Annotated, Any

from graphopt.ir import Value
from graphopt.patterns.recover.rotary import HALVES, SWAPPED, whole_of
from graphopt.rewrite import Attr, Builder, Expr, Maybe, Ops, Reason, Rule, like

Heads = Annotated[Value, like(rank=4)]


class RotaryEmbeddingPartial(Rule):
    """Rotary embedding of the first lanes of each head, the others passed on.

    Why: the operator passes them on by itself; no head is cut and put together again.
    Before: (RotaryEmbedding(a, cos, sin), b) for x = (a, b), either as it is or with rows and heads exchanged around it
    After: RotaryEmbedding(x, cos, sin, rotary_embedding_dim=size of a)
    Safety: that a and b are the lanes of x in this order is proved.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        a: Heads,
        b: Heads,
        c: Value,
        s: Value,
        pairs: Attr,
        heads: Attr,
        swap: Attr = None,
        x: Maybe = None,
    ) -> Expr:
        cut = op.Split(x, ..., axis=-1)
        part, rest = op.such_as(a, cut[0]), op.such_as(b, cut[1])
        turned = op.RotaryEmbedding(part, c, s, interleaved=pairs, num_heads=heads)
        swapped = op.RotaryEmbedding(op.Transpose(part, perm=swap), c, s, interleaved=pairs, num_heads=heads)
        return op.Concat(turned | op.Transpose(swapped, perm=swap), rest, axis=-1)

    def where(self, a: Value, b: Value, c: Value, swap: Any, root: Value) -> Reason:
        whole = whole_of(HALVES, a, b)
        if whole is None or whole.shape is None or whole.shape != root.shape:
            return "the two parts are not cut from one value"
        if not c.shape or not isinstance(c.shape[-1], int):
            return "the size of the tables is not known"
        return swap in (None, SWAPPED) or f"the permutation is {swap}"

    def rewrite(
        self, op: Builder, a: Value, b: Value, c: Value, s: Value, pairs: int, heads: int | None, swap: Any
    ) -> Value | None:
        y = whole_of(HALVES, a, b)
        if y is None or not c.shape:
            return None
        size = 2 * int(str(c.shape[-1]))
        y = op.Transpose(y, perm=swap) if swap else y
        y = op.RotaryEmbedding(y, c, s, interleaved=pairs, num_heads=heads, rotary_embedding_dim=size)
        return op.Transpose(y, perm=swap) if swap else y
