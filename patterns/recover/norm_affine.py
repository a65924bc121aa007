from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.recover.norms import either_norm, joined, same_norm, takes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, all_of, const

Vector = Annotated[Value, const()]


class NormAffine(Rule):
    """A factor behind a layer or a root mean square normalization, or a bias behind the first.

    Why: the operators multiply by a gain and add a bias by themselves, without a pass over the activation.
    Before: LayerNormalization(x, g, b) · h, RMSNormalization(x, g) · h, or LayerNormalization(x, g, b) + c; b may be
    missing
    After: LayerNormalization(x, g·h, b·h), RMSNormalization(x, g·h), or LayerNormalization(x, g, b + c)
    Safety: h and c are constants that broadcast to the normalized shape, c without b has that shape; no product or sum
    overflows.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        x: Value,
        g: Value,
        axis: Attr,
        eps: Attr,
        b: Vector | None = None,
        h: Vector | None = None,
        c: Vector | None = None,
    ) -> Expr:
        return either_norm(op, x, g, b, axis, eps) * h | op.LayerNormalization(x, g, b, axis=axis, epsilon=eps) + c

    def where(self, g: Value, b: Attr, h: Attr, c: Attr) -> Reason:
        if c is None:
            return all_of(*(takes(v, h) for v in (g, b) if v is not None))
        return takes(b, c) if b is not None else c.shape == g.shape or f"the bias has shape {c.shape}"

    def rewrite(
        self, op: Builder, x: Value, g: Attr, b: Attr, h: Attr, c: Attr, axis: int, eps: float, root: Value
    ) -> Value:
        if c is None:
            g, b = (v if v is None else joined(op, v, np.multiply, h) for v in (g, b))
        else:
            b = c if b is None else joined(op, b, np.add, c)
        return same_norm(op, root, x, g, b, axis, eps)
