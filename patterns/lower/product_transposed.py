from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.lower.products import fused_matmul, is_quantized
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule, constant_of, kernel, like

Matrices = Annotated[Value, like(rank=(2, 3, 4, 5), dtype=("float32", "float16"))]


class ProductTransposed(Rule):
    """A transposed product of a transposed operand, written the other way round.

    Why: the kernel reads either layout of its operands; a copy of the result goes. Of plain operands it would have to
    turn both, which costs as much.
    Before: Transpose(com.microsoft.FusedMatMul(a, b)) of the last two dimensions, with transA or transB
    After: com.microsoft.FusedMatMul(b, a) with transA and transB exchanged and turned over
    Safety: (ab)ᵀ = bᵀaᵀ, whatever is broadcast before. A constant b stays where it is: the runtime packs constants on
    the right only. A quantized product stays as it is.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "FusedMatMul")

    def pattern(self, op: Ops, a: Matrices, b: Matrices, perm: Attr, others: Attrs) -> Expr:
        return op.Transpose(op.ms.FusedMatMul(a, b, others=others), perm=perm)

    def where(self, a: Value, b: Value, perm: list[int] | None, others: Attrs, root: Value) -> Reason:
        assert root.rank is not None
        turned = perm if perm is not None else list(reversed(range(root.rank)))
        if turned != [*range(root.rank - 2), root.rank - 1, root.rank - 2]:
            return f"the permutation is {perm}"
        if others.get("transBatchA") or others.get("transBatchB"):
            return "leading dimensions move"
        if not (others.get("transA") or others.get("transB")):
            return "no operand is transposed"
        if constant_of(b) is not None:
            return "the right operand is a constant"
        return not is_quantized(a, b) or "a quantized product"

    def rewrite(self, op: Builder, a: Value, b: Value, others: Attrs) -> Value:
        turned = {"transA": 1 - others.get("transB", 0), "transB": 1 - others.get("transA", 0)}
        return fused_matmul(op, b, a, {**others, **turned})
