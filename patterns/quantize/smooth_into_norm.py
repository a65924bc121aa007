from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.recover.norms import either_norm, joined, same_norm, takes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, all_of, const

Vector = Annotated[Value, const()]


class SmoothIntoNorm(Rule):
    """What an activation is smoothed by, taken over by the normalization that makes it.

    Why: the normalization multiplies by a gain anyway; smoothing costs nothing then.
    Before: LayerNormalization(x, g, b) · s, RMSNormalization(x, g) · s
    After: LayerNormalization(x, g·s, b·s), RMSNormalization(x, g·s)
    Safety: nobody else reads the normalization, as the residual of a post-norm model does; s is a constant that
    broadcasts to the normalized shape.
    """

    stage = "quantize"

    def pattern(self, op: Ops, x: Value, g: Vector, s: Vector, axis: Attr, eps: Attr, b: Vector | None = None) -> Expr:
        return either_norm(op, x, g, b, axis, eps) * s

    def where(self, g: Value, b: Value | None, s: Value) -> Reason:
        return all_of(*(takes(v, s) for v in (g, b) if v is not None))

    def rewrite(
        self, op: Builder, x: Value, g: Value, b: Value | None, s: Value, axis: int, eps: float, root: Value
    ) -> Value:
        gain = joined(op, g, np.multiply, s)
        bias = None if b is None else joined(op, b, np.multiply, s)
        return same_norm(op, root, x, gain, bias, axis, eps)
