from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.batch_norms import affine, inference_only
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
        if m is not None and m.uses > 1:
            return "the weight has other uses and would be written twice"
        if root.rank is None or (m is not None and root.rank != 2):
            return "the channels are not those of the weights"
        return inference_only(root, variance, eps)

    def rewrite(
        self, op: Builder, gain: Value, shift: Value, mean: Value, variance: Value, eps: float, root: Value
    ) -> Value:
        y = root.node.inputs[0]
        assert y is not None
        assert root.rank is not None
        shape = (-1, *(1,) * (root.rank - 2))
        factor, term = (op.const(v.reshape(shape), like=gain) for v in affine(gain, shift, mean, variance, eps))
        return op.Add(op.Mul(y, factor), term)
