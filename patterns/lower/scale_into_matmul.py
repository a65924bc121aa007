from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.products import fused_matmul, is_quantized
from graphopt.rewrite import Attrs, Builder, Expr, Number, Ops, Reason, Rule, kernel, like

Matrices = Annotated[Value, like(rank=(2, 3, 4, 5), dtype="float32")]


class ScaleIntoMatMul(Rule):
    """An operand times a number before a product, as a factor of the product.

    Why: the kernel has a factor of its own; a pass over the operand goes.
    Before: (k·a)·b, or a·(k·b)
    After: com.microsoft.FusedMatMul(a, b, alpha=k)
    Safety: the same product; k is a finite number. A scaled operand that others read stays, and so does a quantized
    product. In float16 the scale may be what keeps the product from overflowing.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "FusedMatMul")
    keeps_inner = True

    def pattern(self, op: Ops, a: Matrices, b: Matrices, k: Number, others: Attrs | None = None) -> Expr:
        plain = op.MatMul(op.scaled(a, k), b) | op.MatMul(a, op.scaled(b, k))
        fused = op.ms.FusedMatMul(op.scaled(a, k), b, others=others)
        return plain | fused | op.ms.FusedMatMul(a, op.scaled(b, k), others=others)

    def where(self, a: Value, b: Value, k: float) -> Reason:
        if is_quantized(a, b):
            return "a quantized product"
        return abs(k) < float("inf") or f"the factor is {k}"

    def rewrite(self, op: Builder, a: Value, b: Value, k: float, others: Attrs | None) -> Value:
        written = others or {}
        return fused_matmul(op, a, b, {**written, "alpha": k * written.get("alpha", 1.0)})
