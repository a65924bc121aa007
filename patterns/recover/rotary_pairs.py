from typing import Annotated

from graphopt.ir import Shape, Size, Value, dims
from graphopt.patterns.clean.views import viewed
from graphopt.patterns.recover.rotary import HALVES, INTERLEAVED, can_turn, turn, whole_of
from graphopt.rewrite import Builder, Expr, Maybe, Ops, Reason, Rule, kernel, like

Heads = Annotated[Value, like(rank=(3, 4))]
Table = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class RotaryEmbeddingFromPairs(Rule):
    """Rotary embedding written as two products of each part of the pairs.

    Why: ten passes over queries and keys become one.
    Before: (a·cos − b·sin, b·cos + a·sin) with x = (a, b), put together by Concat, or in turn by a stack and a view;
    by Concat other lanes may come first
    After: RotaryEmbedding(x, cos, sin), behind those lanes
    Safety: that a and b are the lanes of x in this order is proved; where they are so in turn and become halves, they
    are put together first. All heads share the tables.
    Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
    """

    stage = "recover"
    needs = (kernel("", "RotaryEmbedding"), kernel("com.microsoft", "RotaryEmbedding"))

    def pattern(
        self, op: Ops, a: Value, b: Value, c: Table, s: Table, x: Heads | None = None, rest: Value | None = None
    ) -> Expr:
        cut = op.Split(x, ..., axis=-1)
        low, high = op.such_as(a, cut[0]), op.such_as(b, cut[1])
        first, second = op.sum(op.prod(low, c), op.Neg(op.prod(high, s))), op.sum(op.prod(high, c), op.prod(low, s))
        stack = op.Concat(op.Unsqueeze(first, axes=[-1]), op.Unsqueeze(second, axes=[-1]), axis=-1)
        halves = op.Concat(first, second, axis=-1) | op.Concat(rest, first, second, axis=-1)
        return halves | op.Reshape(stack, ...)

    def where(self, a: Value, b: Value, c: Value, s: Value, rest: Maybe, root: Value) -> Reason:
        whole = _whole(a, b, root)
        if whole is None:
            return "the pairs are not cut from one value"
        if not c.shape or not s.shape or not whole.shape or c.shape[-1] != s.shape[-1]:
            return "the shape of a table is not known"
        if dims.mul(c.shape[-1], 2) != whole.shape[-1]:
            return f"tables of {c.shape[-1]} angles for {whole.shape[-1]} lanes"
        return can_turn(whole, c, s, _before_view(root, whole.shape[-1]))

    def rewrite(self, op: Builder, a: Value, b: Value, c: Value, s: Value, rest: Maybe, root: Value) -> Value | None:
        whole = _whole(a, b, root)
        if whole is None:
            return None
        if whole_of(_pairs(root), a, b) is None:
            whole = op.Concat(a, b, axis=-1)
        y = turn(op, whole, c, s, _pairs(root))
        if rest is not None:
            return op.Concat(rest, y, axis=-1)
        return y if y.shape == root.shape or root.shape is None else op.reshape(y, root.shape)


def _pairs(root: Value) -> int:
    return HALVES if root.node.op == "Concat" else INTERLEAVED


def _before_view(root: Value, lanes: Size) -> Shape | None:
    """The shape of what was turned: the view that puts pairs in turn together may change other dimensions as well."""
    if _pairs(root) == HALVES:
        return (*root.shape[:-1], lanes) if root.shape else None
    stack = viewed(root).shape
    return (*stack[:-2], lanes) if stack else None


def _whole(a: Value, b: Value, root: Value) -> Value | None:
    """What the pairs are cut from; parts in turn may be put together as halves."""
    found = whole_of(_pairs(root), a, b)
    return whole_of(INTERLEAVED, a, b) if found is None and _pairs(root) == HALVES else found
