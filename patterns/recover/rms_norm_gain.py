from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.recover.norms import joined, takes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const

Vector = Annotated[Value, const()]


class RMSNormGain(Rule):
    """A factor behind a root mean square normalization.

    Why: the operator multiplies by a gain by itself, without a pass over the activation.
    Before: RMSNormalization(x, g) · h
    After: RMSNormalization(x, g·h)
    Safety: h is a constant that broadcasts to the normalized shape; no product overflows.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Value, g: Vector, h: Vector, axis: Attr, eps: Attr) -> Expr:
        return op.RMSNormalization(x, g, axis=axis, epsilon=eps) * h

    def where(self, g: Value, h: Value) -> Reason:
        return takes(g, np.multiply, h)

    def rewrite(self, op: Builder, x: Value, g: Value, h: Value, axis: int, eps: float) -> Value:
        gain = joined(op, g, np.multiply, h)
        return op.RMSNormalization(x, gain, axis=axis, epsilon=eps)
