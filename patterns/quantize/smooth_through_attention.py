from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.quantize.products import is_linear
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const, constant_of

Row = Annotated[Value, const(rank=1, dtype="float32")]


class SmoothThroughAttention(Rule):
    """What the result of attention is smoothed by, before attention, on the values.

    Why: there the product that makes the values takes it over.
    Before: merge(Attention(q, k, heads(v))) · s
    After: merge(Attention(q, k, heads(v · s))); heads splits the last dimension and moves heads to the front, merge
    does the opposite
    Safety: attention is linear in the values, channel by channel; each head has values of its own, none come from the
    past, and a product with integer weights makes them.
    """

    stage = "quantize"

    def pattern(
        self,
        op: Ops,
        q: Value,
        k: Value,
        v: Value,
        s: Row,
        shape: Value,
        whole: Value,
        others: Attrs,
        bias: Value | None = None,
    ) -> Expr:
        values = op.Transpose(op.Reshape(v, shape), perm=[0, 2, 1, 3])
        y = op.ir.Attention(q, k, values, bias, others=others)
        return op.Mul(op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), whole), s)

    def where(self, q: Value, v: Value, shape: Value, s: Value, root: Value) -> Reason:
        if v.shape is None or root.shape is None or len(v.shape) != 3 or v.shape[2:] != root.shape[2:]:
            return "the heads are not those of the values"
        if v.shape[2:] != s.shape:
            return "the factors are not one for each channel"
        if q.shape is None or _heads(v, shape) != q.shape[1]:
            return "heads share values"
        return is_linear(v)

    def rewrite(
        self,
        op: Builder,
        q: Value,
        k: Value,
        v: Value,
        s: Value,
        shape: Value,
        whole: Value,
        bias: Value | None,
        others: Attrs,
    ) -> Value:
        values = op.Transpose(op.Reshape(op.Mul(v, s), shape), perm=[0, 2, 1, 3])
        y = op.ir.Attention(q, k, values, bias, **others)
        return op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), whole)


def _heads(v: Value, shape: Value) -> int | None:
    """How many heads a Reshape to `shape` cuts the last dimension of `v` into; None where that is not known."""
    target = constant_of(shape)
    width = v.shape[-1] if v.shape else None
    if target is None or target.size != 4 or not isinstance(width, int):
        return None
    heads, size = target.numpy()[2:].tolist()
    return int(heads) if heads > 0 else width // int(size)
