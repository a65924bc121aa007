from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.recover.norms import either_norm, joined, same_norm, takes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const

Vector = Annotated[Value, const()]


class NormGain(Rule):
    """A factor behind a layer or a root mean square normalization.

    Why: the operators multiply by a gain by themselves, without a pass over the activation.
    Before: LayerNormalization(x, g, b) · h, with or without the bias; RMSNormalization(x, g) · h
    After: LayerNormalization(x, g·h, b·h); RMSNormalization(x, g·h)
    Safety: h is a constant that broadcasts to the normalized shape; no product overflows.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Value, g: Vector, h: Vector, axis: Attr, eps: Attr, b: Vector | None = None) -> Expr:
        return either_norm(op, x, g, b, axis, eps) * h

    def where(self, g: Value, h: Value, b: Value | None) -> Reason:
        taken = takes(g, np.multiply, h)
        return taken if b is None or taken is not True else takes(b, np.multiply, h)

    def rewrite(
        self, op: Builder, x: Value, g: Value, h: Value, b: Value | None, axis: int, eps: float, root: Value
    ) -> Value:
        gain = joined(op, g, np.multiply, h)
        bias = None if b is None else joined(op, b, np.multiply, h)
        return same_norm(op, root, x, gain, bias, axis, eps)
