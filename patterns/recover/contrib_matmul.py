from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, like, number_of

Matrices = Annotated[Value, like(rank=(2, 3, 4, 5))]


class MatMulFromContrib(Rule):
    """A product of transposed and scaled matrices, apart.

    Why: attention and whatever else is made of products, transposes and factors is seen; what stays is fused again.
    Before: com.microsoft.FusedMatMul(a, b, alpha=k, transA, transB, transBatchA, transBatchB)
    After: (aᵀ · bᵀ) · k, each transposed where it says so
    Safety: trans exchanges the last two dimensions; before that, transBatch moves the first behind all but the last.
    """

    stage = "recover"

    def pattern(
        self, op: Ops, a: Matrices, b: Matrices, k: Attr, ta: Attr, tb: Attr, batch_a: Attr, batch_b: Attr
    ) -> Expr:
        return op.ms.FusedMatMul(a, b, alpha=k, transA=ta, transB=tb, transBatchA=batch_a, transBatchB=batch_b)

    def where(self, a: Value, b: Value, k: float, batch_a: int, batch_b: int) -> Reason:
        if abs(k) == float("inf"):
            return f"the factor is {k}"
        return not (batch_a or batch_b) or a.rank == b.rank or "batches of different ranks"

    def rewrite(self, op: Builder, a: Value, b: Value, k: float, ta: int, tb: int, batch_a: int, batch_b: int) -> Value:
        return _times(op, op.MatMul(_turned(op, a, ta, batch_a), _turned(op, b, tb, batch_b)), k)


def _times(op: Builder, x: Value, k: float) -> Value:
    """`x * k`, as a division where the type of `x` has 1/k and k only roughly."""
    if not k:
        return op.scaled(x, k)
    factor, divisor = (number_of(op.const(number, like=x)) or 0.0 for number in (k, 1 / k))
    rough = abs(factor / k - 1) > max(1e-6, abs(divisor * k - 1))
    return op.Div(x, op.const(1 / k, like=x)) if rough else op.scaled(x, k)


def _turned(op: Builder, x: Value, matrix: int, batch: int) -> Value:
    assert x.rank is not None
    axes = list(range(x.rank))
    if batch:
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if matrix:
        axes = [*axes[:-2], axes[-1], axes[-2]]
    return x if axes == sorted(axes) else op.Transpose(x, perm=axes)
