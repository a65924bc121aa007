from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.recover.norms import can_normalize, ones, over_root
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, const, kernel


class RMSNormFromParts(Rule):
    """Root mean square normalization over trailing axes.

    Why: five passes over the activation become one.
    Before: x / √(mean(x²) + ε), by division or by any spelling of 1/√; a gain may stand inside
    After: RMSNormalization(x, g, epsilon=ε), with a gain of ones where there is none
    Safety: the mean runs over trailing axes and keeps its dimensions; the gain is a constant of exactly the
    normalized shape. √mean(x²) + ε, with ε beside the root, is another function.
    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
    """

    stage = "recover"
    needs = (kernel("", "RMSNormalization"), kernel("", "SimplifiedLayerNormalization"))

    def pattern(self, op: Ops, x: Value, axes: Attr, eps: Number, g: Annotated[Value, const()] | None = None) -> Expr:
        square = op.ReduceMean(op.prod(x, x), axes=axes, keepdims=1)
        return over_root(op, x, square + eps, g)

    def where(self, x: Value, axes: list[int] | None, eps: float, g: Value | None) -> Reason:
        return can_normalize(x, axes, eps, g)

    def rewrite(self, op: Builder, x: Value, axes: list[int], eps: float, g: Value | None) -> Value:
        gain = ones(op, x, axes) if g is None else g
        return op.RMSNormalization(x, gain, axis=-len(axes), epsilon=eps)
