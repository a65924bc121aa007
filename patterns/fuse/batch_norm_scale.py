from typing import Annotated

import numpy as np

from graphopt.ir import Value
from graphopt.patterns.fuse.channels import float64
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule, const

Kernel = Annotated[Value, const(rank=(3, 4, 5))]
Matrix = Annotated[Value, const(rank=2)]
Constant = Annotated[Value, const()]
Vector = Annotated[Value, const(rank=1)]


class BatchNormToScale(Rule):
    """A batch normalization after a convolution or product by constants, as a factor and a term.

    Why: both go into the weights and the bias that are there. By itself the operator is faster than two passes.
    Before: BatchNormalization(y, γ, β, μ, σ²) with y = Conv(x, w), ConvTranspose(x, w), Gemm(x, w) or x·w
    After: y·k + (β − μ·k) with k = γ / √(σ² + ε), for each channel
    Safety: inference only: the statistics are constants, and are not outputs. σ² + ε is positive.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        x: Value,
        others: Attrs,
        gain: Vector,
        shift: Vector,
        mean: Vector,
        variance: Vector,
        eps: Attr,
        momentum: Attr,
        w: Kernel | None = None,
        m: Matrix | None = None,
        b: Constant | None = None,
    ) -> Expr:
        y = op.Conv(x, w, b, others=others) | op.ConvTranspose(x, w, b, others=others)
        y = y | op.Gemm(x, m, b, others=others) | op.MatMul(x, m)
        return op.BatchNormalization(y, gain, shift, mean, variance, epsilon=eps, momentum=momentum)

    def where(self, m: Value | None, variance: Value, eps: float, root: Value) -> Reason:
        if root.node.version < 7 or sum(bool(value.name) for value in root.node.outputs) > 1:
            return "it may be in training mode"
        if root.rank is None or (m is not None and root.rank != 2):
            return "the channels are not those of the weights"
        return bool((float64(variance) + np.float32(eps) > 0).all()) or "a variance is not positive"

    def rewrite(
        self, op: Builder, gain: Value, shift: Value, mean: Value, variance: Value, eps: float, root: Value
    ) -> Value:
        y = root.node.inputs[0]
        assert y is not None
        assert root.rank is not None
        factor = float64(gain) / np.sqrt(float64(variance) + np.float32(eps))
        term = float64(shift) - float64(mean) * factor
        shape = (-1, *(1,) * (root.rank - 2))
        scaled = op.Mul(y, op.const(factor.reshape(shape), like=gain, name="factor"))
        return op.Add(scaled, op.const(term.reshape(shape), like=gain, name="term"))
