from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, const, like


class HalfProductBeforeTranspose(Rule):
    """A product of halves with constant weights, before the first dimensions are transposed instead of behind.

    Why: onnxruntime computes it in float32, and while it moves its own Cast across the Transpose it crashes.
    Before: MatMul(Transpose(x, perm), w), perm keeping the last dimension
    After: Transpose(MatMul(x, w), perm)
    Safety: each row of x is multiplied with w wherever it stands.
    """

    stage = "lower"

    def pattern(
        self,
        op: Ops,
        x: Annotated[Value, like(dtype=("float16",))],
        w: Annotated[Value, const(rank=2)],
        perm: Attr,
    ) -> Expr:
        return op.MatMul(op.Transpose(x, perm=perm), w)

    def where(self, perm: list[int] | None, ctx: Context) -> Reason:
        if ctx.target is not None and ctx.target.provider != "cpu":
            return "the target computes with halves"
        return (perm is not None and perm[-1:] == [len(perm) - 1]) or f"the permutation is {perm}"

    def rewrite(self, op: Builder, x: Value, w: Value, perm: list[int]) -> Value:
        return op.Transpose(op.MatMul(x, w), perm=perm)
