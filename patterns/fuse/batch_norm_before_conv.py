from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.batch_norms import affine, moves_behind
from graphopt.patterns.fuse.channels import unpadded
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule, const, numbers_of

Kernel = Annotated[Value, const(rank=(3, 4, 5))]
Vector = Annotated[Value, const(rank=1)]


class BatchNormBeforeConv(Rule):
    """A batch normalization before a convolution by constants, as a factor and a term.

    Why: both go into the weights and the bias that are there. By itself the operator is faster than two passes.
    Before: Conv(BatchNormalization(x, γ, β, μ, σ²), w, b)
    After: Conv(x·k + (β − μ·k), w, b) with k = γ / √(σ² + ε), for each channel
    Safety: inference only: the statistics are constants, and are not outputs. σ² + ε is positive. No padding: the term
    would stay. No mean is further than 100 spreads from zero, where sums would cancel. Nobody else reads the weights.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        x: Value,
        w: Kernel,
        gain: Vector,
        shift: Vector,
        mean: Vector,
        variance: Vector,
        eps: Attr,
        momentum: Attr,
        others: Attrs,
        b: Vector | None = None,
    ) -> Expr:
        normal = op.BatchNormalization(x, gain, shift, mean, variance, epsilon=eps, momentum=momentum)
        return op.Conv(normal, w, b, others=others)

    def where(self, w: Value, mean: Value, variance: Value, eps: float, others: Attrs, root: Value) -> Reason:
        if not unpadded(others):
            return "the image is padded"
        if w.uses > 1:
            return "the weight has other uses and would be written twice"
        return moves_behind(root, mean, variance, eps)

    def rewrite(
        self,
        op: Builder,
        x: Value,
        w: Value,
        gain: Value,
        shift: Value,
        mean: Value,
        variance: Value,
        eps: float,
        others: Attrs,
        b: Value | None,
    ) -> Value:
        shape = (-1, *(1,) * (len(numbers_of(w).shape) - 2))
        numbers = affine(gain, shift, mean, variance, eps)
        factor, term = (op.const(v.reshape(shape), like=gain, name="channels") for v in numbers)
        return op.Conv(op.Add(op.Mul(x, factor), term), w, b, **others)
