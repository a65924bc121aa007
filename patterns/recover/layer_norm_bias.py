from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const


class LayerNormBias(Rule):
    """The bias of a layer normalization that has none yet.

    Why: the operator adds a bias by itself, without a pass over the activation.
    Before: LayerNormalization(x, g) + b
    After: LayerNormalization(x, g, b)
    Safety: b is a constant of exactly the normalized shape.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Value, g: Value, b: Annotated[Value, const()], axis: Attr, eps: Attr) -> Expr:
        return op.LayerNormalization(x, g, axis=axis, epsilon=eps) + b

    def where(self, g: Value, b: Value) -> Reason:
        return b.shape == g.shape or f"the bias has shape {b.shape}, wanted {g.shape}"

    def rewrite(self, op: Builder, x: Value, g: Value, b: Value, axis: int, eps: float) -> Value:
        return op.LayerNormalization(x, g, b, axis=axis, epsilon=eps)
