from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, constant_of, kernel


class ResidualSum(Rule):
    """A residual before a layer normalization, written as Sum.

    Why: onnxruntime fuses Add and LayerNormalization into SkipLayerNormalization when it loads a model, and on CPU that
    kernel takes several times as long as the two. It looks for Add only; Sum of two is the same addition.
    Before: LayerNormalization(x + y, g, b)
    After: LayerNormalization(Sum(x, y), g, b)
    Safety: x and y have one shape, neither is a constant.
    """

    stage = "lower"
    needs = kernel("", "Sum")

    def pattern(
        self, op: Ops, x: Value, y: Value, g: Value, axis: Attr, eps: Attr, b: Value | None = None
    ) -> Expr:
        return op.LayerNormalization(op.Add(x, y), g, b, axis=axis, epsilon=eps)

    def where(self, x: Value, y: Value) -> Reason:
        if constant_of(x) is not None or constant_of(y) is not None:
            return "a bias, not a residual"
        return (x.shape is not None and x.shape == y.shape) or f"shapes {x.shape} and {y.shape}"

    def rewrite(
        self, op: Builder, x: Value, y: Value, g: Value, b: Value | None, axis: int, eps: float
    ) -> Value:
        return op.LayerNormalization(op.Sum(x, y), g, b, axis=axis, epsilon=eps)  # type: ignore[no-any-return]
