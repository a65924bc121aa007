from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.ir.tensor import Array
from graphopt.patterns.fuse.channels import by_channel, factor_of, float64
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const

Kernel = Annotated[Value, const(rank=(3, 4, 5))]
Vector = Annotated[Value, const(rank=1)]
Constant = Annotated[Value, const()]


class ScaleIntoConv(Rule):
    """A constant factor for each channel of a convolution, moved into its weights.

    Why: a pass over the whole image goes.
    Before: Conv(x, w, b) · k with k of shape (C, 1, 1), or a number; also divided, and ConvTranspose
    After: Conv(x, k·w, k·b)
    Safety: each output channel is linear in its own weights and bias; k does not vary along another dimension. New
    weights are computed in float64.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        x: Value,
        others: Attrs,
        k: Constant | None = None,
        d: Constant | None = None,
        w: Kernel | None = None,
        t: Kernel | None = None,
        b: Vector | None = None,
    ) -> Expr:
        y = op.Conv(x, w, b, others=others) | op.ConvTranspose(x, t, b, others=others)
        return y * k | op.Div(y, d)

    def where(self, w: Value | None, t: Value | None, k: Value | None, d: Value | None, others: Attrs) -> Reason:
        factors = by_channel(factor_of(k, d), w, t, others.get("group", 1))
        return (factors is not None and bool(np.isfinite(factors).all())) or "the factor is not one for each channel"

    def rewrite(
        self,
        op: Builder,
        x: Value,
        w: Value | None,
        t: Value | None,
        k: Value | None,
        d: Value | None,
        b: Value | None,
        others: Attrs,
    ) -> Value:
        factors = by_channel(factor_of(k, d), w, t, others.get("group", 1))
        assert factors is not None
        bias = None if b is None else op.const(np.multiply(factors, float64(b)), like=b, name="scaled_bias")
        if w is not None:
            return op.Conv(x, op.const(_scaled(float64(w), factors, 1), like=w, name="scaled"), bias, **others)
        assert t is not None
        weights = _scaled(float64(t).swapaxes(0, 1), factors, others.get("group", 1)).swapaxes(0, 1)
        return op.ConvTranspose(x, op.const(weights, like=t, name="scaled"), bias, **others)


def _scaled(kernel: Array, factors: Array, groups: int) -> Array:
    """A kernel of (output channels of a group, all input channels, ...), or all output channels and one group."""
    outputs, inputs, *size = kernel.shape
    apart = kernel.reshape(outputs, groups, inputs // groups, *size)
    each = factors.reshape(groups, outputs).T.reshape(outputs, groups, 1, *(1,) * len(size))
    return (apart * each).reshape(kernel.shape)
