from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.norms import takes_gain
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const


class LayerNormGain(Rule):
    """The gain of a layer normalization that has none yet.

    Why: the operator multiplies by a gain by itself, without a pass over the activation.
    Before: LayerNormalization(x, 1) · g
    After: LayerNormalization(x, g)
    Safety: g is a constant of exactly the normalized shape.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        x: Value,
        ones: Annotated[Value, const()],
        g: Annotated[Value, const()],
        axis: Attr,
        eps: Attr,
    ) -> Expr:
        return op.LayerNormalization(x, ones, axis=axis, epsilon=eps) * g

    def where(self, ones: Value, g: Value) -> Reason:
        return takes_gain(ones, g)

    def rewrite(self, op: Builder, x: Value, g: Value, axis: int, eps: float) -> Value:
        return op.LayerNormalization(x, g, axis=axis, epsilon=eps)
