from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.recover.norms import joined, takes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const

Vector = Annotated[Value, const()]


class LayerNormGain(Rule):
    """A factor behind a layer normalization.

    Why: the operator multiplies by a gain by itself, without a pass over the activation.
    Before: LayerNormalization(x, g, b) · h, with or without the bias
    After: LayerNormalization(x, g·h, b·h)
    Safety: h is a constant that broadcasts to the normalized shape; no product overflows.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Value, g: Vector, h: Vector, axis: Attr, eps: Attr, b: Vector | None = None) -> Expr:
        return op.LayerNormalization(x, g, b, axis=axis, epsilon=eps) * h

    def where(self, g: Value, h: Value, b: Value | None) -> Reason:
        taken = takes(g, np.multiply, h)
        return taken if b is None or taken is not True else takes(b, np.multiply, h)

    def rewrite(self, op: Builder, x: Value, g: Value, h: Value, b: Value | None, axis: int, eps: float) -> Value:
        gain = joined(op, g, np.multiply, h)
        bias = None if b is None else joined(op, b, np.multiply, h)
        return op.LayerNormalization(x, gain, bias, axis=axis, epsilon=eps)
