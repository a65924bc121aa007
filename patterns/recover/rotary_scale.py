from graphopt.ir import Value
from graphopt.rewrite import Attrs, Builder, Expr, Number, Ops, Reason, Rule, constant_of


class ScaleAfterRotary(Rule):
    """A constant factor before a rotary embedding, moved behind it.

    Why: behind it, it is the scale of an attention.
    Before: RotaryEmbedding(k·x, cos, sin)
    After: k·RotaryEmbedding(x, cos, sin)
    Safety: the operator is linear in x; k lies between 2⁻⁷ and 2⁷, as scales do.
    """

    stage = "recover"
    keeps_inner = True

    def pattern(self, op: Ops, x: Value, k: Number, c: Value, s: Value, given: Attrs) -> Expr:
        return op.RotaryEmbedding(op.scaled(x, k), c, s, others=given)

    def where(self, x: Value, k: float) -> Reason:
        if constant_of(x) is not None:
            return "not an activation"
        return 2**-7 <= abs(k) <= 2**7 or f"{k:g} is not a scale"

    def rewrite(self, op: Builder, x: Value, k: float, c: Value, s: Value, given: Attrs) -> Value:
        return op.scaled(op.RotaryEmbedding(x, c, s, **given), k)
