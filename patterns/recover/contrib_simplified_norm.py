from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel


class RMSNormFromSimplified(Rule):
    """RMS normalization under the name that onnxruntime has for it.

    Why: the rules about RMSNormalization see it.
    Before: SimplifiedLayerNormalization(x, g), which onnx does not know
    After: RMSNormalization(x, g)
    Safety: x and g have one type, the statistics are not read: then it is the same kernel.
    """

    stage = "recover"
    needs = (kernel("", "RMSNormalization"), kernel("", "SimplifiedLayerNormalization"))

    def pattern(self, op: Ops, x: Value, g: Value, axis: Attr, eps: Attr) -> Expr:
        return op.SimplifiedLayerNormalization(x, g, axis=axis, epsilon=eps)

    def where(self, x: Value, g: Value) -> Reason:
        return x.dtype == g.dtype or "the gain has another type"

    def rewrite(self, op: Builder, x: Value, g: Value, axis: int, eps: float) -> Value:
        return op.RMSNormalization(x, g, axis=axis, epsilon=eps)
