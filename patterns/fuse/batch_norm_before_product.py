from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.batch_norms import affine, moves_behind
from graphopt.patterns.fuse.channels import float64
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, const, like

Rows = Annotated[Value, like(rank=2)]
Matrix = Annotated[Value, const(rank=2)]
Vector = Annotated[Value, const(rank=1)]


class BatchNormBeforeProduct(Rule):
    """A batch normalization of rows before a product by a constant, moved into the matrix and a bias.

    Why: a pass over the activation goes.
    Before: BatchNormalization(x, γ, β, μ, σ²)·w, or Gemm(BatchNormalization(...), w, b)
    After: x·diag(k)·w + (β − μ·k)·w, or Gemm(x, diag(k)·w, (β − μ·k)·w + b), with k = γ / √(σ² + ε)
    Safety: inference only: the statistics are constants, and are not outputs. σ² + ε is positive. No mean is
    further than 100 spreads from zero, where sums would cancel. Nobody else reads the matrix.
    """

    stage = "fuse"

    def pattern(
        self, op: Ops, x: Rows, w: Matrix, gain: Vector, shift: Vector, mean: Vector, variance: Vector,
        eps: Attr, momentum: Attr, alpha: Attr, beta: Attr, turned: Attr, b: Vector | None = None,
    ) -> Expr:  # fmt: skip
        normal = op.BatchNormalization(x, gain, shift, mean, variance, epsilon=eps, momentum=momentum)
        return op.MatMul(normal, w) | op.Gemm(normal, w, b, alpha=alpha, beta=beta, transB=turned)

    def where(self, w: Value, b: Value | None, mean: Value, variance: Value, eps: float, root: Value) -> Reason:
        if w.uses > 1:
            return "the weight has other uses and would be written twice"
        if b is not None and (root.shape is None or b.shape != root.shape[1:]):
            return "the bias is not one number for each column"
        return moves_behind(root, mean, variance, eps)

    def rewrite(
        self, op: Builder, x: Value, w: Value, gain: Value, shift: Value, mean: Value, variance: Value,
        eps: float, alpha: float | None, beta: float | None, turned: int | None, b: Value | None,
    ) -> Value:  # fmt: skip
        factor, term = affine(gain, shift, mean, variance, eps)
        matrix = float64(w) if alpha is None else alpha * (float64(w).T if turned else float64(w))
        own = 0.0 if b is None or beta is None else beta * float64(b)
        scaled = op.const(factor[:, None] * matrix, like=w, name="scaled")
        bias = op.const(term @ matrix + own, like=w, name="bias")
        return op.Gemm(x, scaled, bias) if alpha is not None else op.Add(op.MatMul(x, scaled), bias)
