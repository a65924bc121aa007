from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Maybe, Ops, Reason, Rule, kernel, like

Rows = Annotated[Value, like(dims=(..., "H"))]
Residual = Annotated[Value, like(into=(..., "H"))]
Vector = Annotated[Value, like(dims=("H",))]


class NormFromContrib(Rule):
    """A residual and the normalization after it, apart; their sum may be read by the next residual.

    Why: the rules about residuals and about norms see both, and the target's table says whether one kernel pays.
    Before: com.microsoft.SkipLayerNormalization(x, y, g, b, c), and its fourth output; the same with
    SkipSimplifiedLayerNormalization(x, y, g, c); or onnxruntime's SimplifiedLayerNormalization(x, g)
    After: LayerNormalization(x + y + c, g, b), RMSNormalization(x + y + c, g), or RMSNormalization(x, g); x + y + c
    Safety: the mean and the deviation are not read; x and g have one type.
    """

    stage = "recover"
    needs = (kernel("", "LayerNormalization"), kernel("", "RMSNormalization"))
    keeps_inner = True

    def pattern(
        self,
        op: Ops,
        x: Rows,
        g: Vector,
        eps: Attr,
        y: Residual | None = None,
        b: Vector | None = None,
        c: Vector | None = None,
    ) -> Expr:
        layer_norm = op.ms.SkipLayerNormalization(x, y, g, b, c, epsilon=eps)
        rms_norm = op.ms.SkipSimplifiedLayerNormalization(x, y, g, c, epsilon=eps)
        plain = op.SimplifiedLayerNormalization(x, g, axis=-1, epsilon=eps)
        return layer_norm | rms_norm | layer_norm[3] | rms_norm[3] | plain

    def where(self, x: Value, g: Value, root: Value) -> Reason:
        if any(output.uses for output in root.node.outputs[1:3]):
            return "the mean or the deviation is read"
        return (x.dtype == g.dtype and root.uses > 0) or "the gain has another type, or nobody reads it"

    def rewrite(self, op: Builder, x: Value, y: Maybe, g: Value, b: Maybe, c: Maybe, eps: float, root: Value) -> Value:
        residual = op.sum(*(part for part in (x, y, c) if part is not None))
        if root.index == 3:
            return residual
        if root.node.op == "SkipLayerNormalization":
            return op.LayerNormalization(residual, g, b, axis=-1, epsilon=eps)
        return op.RMSNormalization(residual, g, axis=-1, epsilon=eps)
