from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.rotary import can_turn, holds_twice, once, quarter_turn, turn
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, const, kernel, like

Heads = Annotated[Value, like(rank=(3, 4), dtype=("bfloat16", "float16", "float32"))]
Written = Annotated[Value, const()]


class RotaryEmbeddingFromParts(Rule):
    """Rotary embedding: pairs of lanes turned by angles that grow with the position.

    Why: ten passes over queries and keys become one.
    Before: x·cos + r·sin with r = (−b, a) for x = (a, b), where pairs are lanes j and j + h, or 2·j and 2·j + 1
    After: RotaryEmbedding(x, cos, sin) with tables of one lane for each pair
    Safety: that r is x by a quarter turn and that the tables, written down or computed, hold each angle twice, is
    proved lane by lane, whether by Slice, Split, Gather, Concat or views. All heads share the tables.
    Source: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021.
    """

    stage = "recover"
    needs = (kernel("", "RotaryEmbedding"), kernel("com.microsoft", "RotaryEmbedding"))

    def pattern(
        self, op: Ops, x: Heads, r: Value, cos: Value, sin: Value, c: Written | None = None, s: Written | None = None
    ) -> Expr:
        halves = op.Split(x, ..., axis=-1)
        turned = op.such_as(r, op.Concat(op.Neg(halves[1]), halves[0], axis=-1))
        return op.sum(op.prod(x, op.such_as(cos, c)), op.prod(turned, op.such_as(sin, s)))

    def where(self, x: Value, r: Value, cos: Value, sin: Value, root: Value) -> Reason:
        pairs = quarter_turn(x, r)
        if pairs is None:
            return "no operand is another one by a quarter turn"
        if not all(holds_twice(table, pairs) for table in (cos, sin)):
            return "it is not proved that the tables hold each angle twice"
        return can_turn(x, cos, sin, root.shape)

    def rewrite(self, op: Builder, x: Value, r: Value, cos: Value, sin: Value) -> Value | None:
        pairs = quarter_turn(x, r)
        return None if pairs is None else turn(op, x, once(op, cos, pairs), once(op, sin, pairs), pairs)
