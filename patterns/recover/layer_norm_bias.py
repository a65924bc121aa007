from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.recover.norms import joined, takes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const

Vector = Annotated[Value, const()]


class LayerNormBias(Rule):
    """A bias behind a layer normalization.

    Why: the operator adds a bias by itself, without a pass over the activation.
    Before: LayerNormalization(x, g) + c, or LayerNormalization(x, g, b) + c
    After: LayerNormalization(x, g, c), or LayerNormalization(x, g, b + c)
    Safety: g, b and c are constants of exactly the normalized shape; no sum overflows.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Value, g: Value, c: Vector, axis: Attr, eps: Attr, b: Vector | None = None) -> Expr:
        return op.LayerNormalization(x, g, b, axis=axis, epsilon=eps) + c

    def where(self, g: Value, c: Value, b: Value | None) -> Reason:
        if c.shape != g.shape:
            return f"the bias has shape {c.shape}, wanted {g.shape}"
        return b is None or takes(b, np.add, c)

    def rewrite(self, op: Builder, x: Value, g: Value, c: Value, b: Value | None, axis: int, eps: float) -> Value:
        bias = c if b is None else joined(op, b, np.add, c)
        return op.LayerNormalization(x, g, bias, axis=axis, epsilon=eps)
