from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, constant_of, kernel


class ResidualSum(Rule):
    """A residual that a layer normalization reads, written as Sum.

    Why: onnxruntime fuses Add and LayerNormalization into SkipLayerNormalization when it loads a model, and on CPU that
    kernel takes several times as long as the two. It looks for Add only; Sum of two is the same addition.
    Before: r = Add(x, y); LayerNormalization(r, g, b)
    After: r = Sum(x, y); LayerNormalization(r, g, b)
    Safety: x and y have one shape, neither is a constant.
    """

    stage = "lower"
    needs = kernel("", "Sum")

    def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
        return op.Add(x, y)

    def where(self, x: Value, y: Value, root: Value) -> Reason:
        readers = root.node.graph.consumers(root)
        if not any(reader.is_op("LayerNormalization") and slot == 0 for reader, slot in readers):
            return "no layer normalization reads it"
        if constant_of(x) is not None or constant_of(y) is not None:
            return "a bias, not a residual"
        return (x.shape is not None and x.shape == y.shape) or f"shapes {x.shape} and {y.shape}"

    def rewrite(self, op: Builder, x: Value, y: Value) -> Value:
        return op.Sum(x, y)
