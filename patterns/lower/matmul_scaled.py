from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.products import fused_matmul, is_quantized
from graphopt.rewrite import Attrs, Builder, Expr, Number, Ops, Reason, Rule, kernel, like

Matrices = Annotated[Value, like(rank=(2, 3, 4, 5), dtype=("float32", "float16"))]


class MatMulScaled(Rule):
    """A product times a number, as one kernel.

    Why: the kernel has a factor of its own; a pass over the result goes.
    Before: (a·b) · k
    After: com.microsoft.FusedMatMul(a, b, alpha=k)
    Safety: the same product; k is a finite number. A quantized product stays as it is.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "FusedMatMul")

    def pattern(self, op: Ops, a: Matrices, b: Matrices, k: Number, others: Attrs | None = None) -> Expr:
        return op.scaled(op.MatMul(a, b) | op.ms.FusedMatMul(a, b, others=others), k)

    def where(self, a: Value, b: Value, k: float) -> Reason:
        if is_quantized(a, b):
            return "a quantized product"
        return abs(k) < float("inf") or f"the factor is {k}"

    def rewrite(self, op: Builder, a: Value, b: Value, k: float, others: Attrs | None) -> Value:
        written = others or {}
        return fused_matmul(op, a, b, {**written, "alpha": k * written.get("alpha", 1.0)})
