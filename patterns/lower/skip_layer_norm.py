from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, constant_of, kernel


class SkipLayerNorm(Rule):
    """A residual and the layer normalization after it, as one kernel.

    Why: the sum is never written to memory.
    Before: LayerNormalization(x + y, g, b) over the last axis
    After: com.microsoft.SkipLayerNormalization(x, y, g, b)
    Safety: x and y have one shape of rank 3, neither is a constant; g and b are vectors.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "SkipLayerNormalization")
    priority = 10

    def pattern(self, op: Ops, x: Value, y: Value, g: Value, b: Value, eps: Attr) -> Expr:
        return op.LayerNormalization(op.Add(x, y), g, b, axis=-1, epsilon=eps)

    def where(self, x: Value, y: Value, g: Value, b: Value) -> Reason:
        if constant_of(x) is not None or constant_of(y) is not None:
            return "a bias, not a residual"
        if x.dtype == dtypes.DOUBLE:
            return "the kernel takes no float64"
        if x.shape is None or len(x.shape) != 3 or x.shape != y.shape:
            return f"shapes {x.shape} and {y.shape}"
        return g.shape == b.shape == x.shape[-1:] or "gain or bias is not a vector of the last size"

    def rewrite(self, op: Builder, x: Value, y: Value, g: Value, b: Value, eps: float) -> Value:
        return op.ms.SkipLayerNormalization(x, y, g, b, epsilon=eps)
