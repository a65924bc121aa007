from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, kernel


class RMSNormToSimplified(Rule):
    """RMS normalization under its older name, where the model's opset has none and must stay.

    Why: onnxruntime has the kernel in the standard domain in every opset, as SimplifiedLayerNormalization.
    Before: RMSNormalization(x, g) in a model of an opset before 23
    After: SimplifiedLayerNormalization(x, g)
    Safety: the same kernel.
    """

    stage = "lower"
    needs = kernel("", "SimplifiedLayerNormalization")

    def pattern(self, op: Ops, x: Value, g: Value, axis: Attr, eps: Attr) -> Expr:
        return op.RMSNormalization(x, g, axis=axis, epsilon=eps)

    def where(self, x: Value, g: Value, root: Value, ctx: Context) -> Reason:
        if x.dtype != g.dtype:
            return "the gain has another type"
        opset = root.node.graph.opsets.get("", 1)
        return (ctx.keep_opset and root.node.version > opset) or "the standard operator may be written"

    def rewrite(self, op: Builder, x: Value, g: Value, axis: int, eps: float) -> Value:
        return op.SimplifiedLayerNormalization(x, g, axis=axis, epsilon=eps)
