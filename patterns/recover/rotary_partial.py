from typing import Annotated, Any

from graphopt.ir import Value
from graphopt.patterns.recover.rotary import HALVES, SWAPPED, whole_of
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, like

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
        c: Value,
        s: Value,
        pairs: Attr,
        heads: Attr,
        swap: Attr = None,
        x: Heads | None = None,
        a: Heads | None = None,
        b: Heads | None = None,
    ) -> Expr:
        cut = op.Split(x, ..., axis=-1)
        part, rest = cut[0] | a, cut[1] | b
        turned = op.RotaryEmbedding(part, c, s, interleaved=pairs, num_heads=heads)
        swapped = op.RotaryEmbedding(op.Transpose(part, perm=swap), c, s, interleaved=pairs, num_heads=heads)
        return op.Concat(turned | op.Transpose(swapped, perm=swap), rest, axis=-1)

    def where(self, c: Value, x: Value | None, a: Value | None, b: Value | None, swap: Any, root: Value) -> Reason:
        whole = _whole(x, a, b)
        if whole is None or whole.shape is None or whole.shape != root.shape:
            return "the two parts are not cut from one value"
        if not c.shape or not isinstance(c.shape[-1], int):
            return "the size of the tables is not known"
        return swap in (None, SWAPPED) or f"the permutation is {swap}"

    def rewrite(
        self,
        op: Builder,
        c: Value,
        s: Value,
        pairs: int,
        heads: int | None,
        swap: Any,
        x: Value | None,
        a: Value | None,
        b: Value | None,
    ) -> Value | None:
        y = _whole(x, a, b)
        if y is None or not c.shape:
            return None
        size = 2 * int(str(c.shape[-1]))
        y = op.Transpose(y, perm=swap) if swap else y
        y = op.RotaryEmbedding(y, c, s, interleaved=pairs, num_heads=heads, rotary_embedding_dim=size)
        return op.Transpose(y, perm=swap) if swap else y


def _whole(x: Value | None, a: Value | None, b: Value | None) -> Value | None:
    if a is None and b is None:
        return x
    return whole_of(HALVES, a, b) if a is not None and b is not None else None
