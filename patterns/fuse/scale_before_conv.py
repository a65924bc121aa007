from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.fuse.channels import by_input_channel, factor_of, float64
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const

Kernel = Annotated[Value, const(rank=(3, 4, 5))]
Constant = Annotated[Value, const()]


class ScaleBeforeConv(Rule):
    """A constant factor for each channel of an image before a convolution, moved into its weights.

    Why: a pass over the whole image goes.
    Before: Conv(x · k, w, b) with k of shape (C, 1, 1), or a number; also divided
    After: Conv(x, k·w, b)
    Safety: the result is linear in each input channel, and the padding is of zeros. k does not vary along another
    dimension; nobody else reads the weights. New weights are computed in float64.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        x: Value,
        w: Kernel,
        others: Attrs,
        k: Constant | None = None,
        d: Constant | None = None,
        b: Value | None = None,
    ) -> Expr:
        return op.Conv(op.prod(x, k) | op.Div(x, d), w, b, others=others)

    def where(self, x: Value, w: Value, k: Value | None, d: Value | None, others: Attrs) -> Reason:
        factors = by_input_channel(factor_of(k, d), x, w, others.get("group", 1))
        if factors is None or not np.isfinite(factors).all():
            return "the factor is not one for each channel"
        return w.uses == 1 or "the weight has other uses and would be written twice"

    def rewrite(
        self, op: Builder, x: Value, w: Value, k: Value | None, d: Value | None, b: Value | None, others: Attrs
    ) -> Value:
        factors = by_input_channel(factor_of(k, d), x, w, others.get("group", 1))
        assert factors is not None
        return op.Conv(x, op.const(float64(w) * factors, like=w, name="scaled"), b, **others)
