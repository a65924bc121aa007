from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, constant_of, kernel


class PlainResidual(Rule):
    """A residual that a layer normalization reads, spelled so that it stays plain.

    Why: onnxruntime fuses Add and LayerNormalization into SkipLayerNormalization when it loads a model, and on CPU that
    kernel takes five times as long as the two. It looks for an Add whose operands have one shape.
    Before: r = (x + b) + y, or r = x + y; LayerNormalization(r)
    After: r = (x + y) + b, or r = Sum(x, y); LayerNormalization(r)
    Safety: x and y have one shape, neither is a constant; b is a constant vector.
    """

    stage = "lower"
    needs = kernel("ir", "PlainResidual")
    once = True

    def pattern(
        self,
        op: Ops,
        x: Value,
        y: Value,
        g: Value,
        axis: Attr,
        eps: Attr,
        b: Annotated[Value, const(rank=1)] | None = None,
        c: Value | None = None,
    ) -> Expr:
        residual = op.sum(x, y, b) | op.Add(x, y)
        return op.anchor(op.LayerNormalization(residual, g, c, axis=axis, epsilon=eps), residual)

    def where(self, x: Value, y: Value, b: Value | None, root: Value) -> Reason:
        if constant_of(x) is not None or constant_of(y) is not None:
            return "a bias, not a residual"
        if b in root.node.inputs:
            return "the bias is added last already"
        return (x.shape is not None and x.shape == y.shape) or f"shapes {x.shape} and {y.shape}"

    def rewrite(self, op: Builder, x: Value, y: Value, b: Value | None) -> Value:
        return op.Sum(x, y) if b is None else op.Add(op.Add(x, y), b)
