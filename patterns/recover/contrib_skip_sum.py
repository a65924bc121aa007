from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, like

Rows = Annotated[Value, like(rank=(2, 3), dims=(..., "H"))]
Residual = Annotated[Value, like(into=(..., "H"))]
Vector = Annotated[Value, like(dims=("H",))]


class SumFromSkip(Rule):
    """The sum that a kernel of residual and normalization hands on to the next residual.

    Why: without it, the normalization can be told from the residual.
    Before: the fourth output of com.microsoft SkipLayerNormalization(x, y, g, b, c), or SkipSimplified...(x, y, g, c)
    After: x + y + c
    Safety: it is that sum; the other outputs stay as they are.
    """

    stage = "recover"
    keeps_inner = True

    def pattern(
        self, op: Ops, x: Rows, y: Residual, g: Vector, eps: Attr, b: Vector | None = None, c: Vector | None = None
    ) -> Expr:
        layer_norm = op.ms.SkipLayerNormalization(x, y, g, b, c, epsilon=eps)
        return layer_norm[3] | op.ms.SkipSimplifiedLayerNormalization(x, y, g, c, epsilon=eps)[3]

    def where(self, root: Value) -> Reason:
        return root.uses > 0 or "nobody reads it"

    def rewrite(self, op: Builder, x: Value, y: Value, c: Value | None) -> Value:
        return op.sum(*(part for part in (x, y, c) if part is not None))
