from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, like

Vector = Annotated[Value, like(rank=1)]


class NormBeforeTranspose(Rule):
    """A normalization of the last axis does not mind the order of the others.

    Why: behind it, a transpose of heads and rows meets the one that an attention kernel undoes.
    Before: RMSNormalization(Transpose(x, p), g), or LayerNormalization(Transpose(x, p), g, b)
    After: Transpose(RMSNormalization(x, g), p)
    Safety: only the last axis is normalized, and p keeps it; gain and bias vary along no other.
    """

    stage = "lower"

    def pattern(
        self, op: Ops, x: Value, g: Vector, perm: Attr, eps: Attr, rms: Attr = None, b: Vector | None = None
    ) -> Expr:
        swapped = op.Transpose(x, perm=perm)
        layer = op.LayerNormalization(swapped, g, b, axis=-1, epsilon=eps)
        return layer | op.RMSNormalization(swapped, g, axis=-1, epsilon=eps, stash_type=rms)

    def where(self, perm: list[int] | None) -> Reason:
        return (perm is not None and perm[-1:] == [len(perm) - 1]) or f"the permutation is {perm}"

    def rewrite(
        self, op: Builder, x: Value, g: Value, b: Value | None, perm: list[int], eps: float, rms: int | None
    ) -> Value:
        if rms is None:
            return op.Transpose(op.LayerNormalization(x, g, b, axis=-1, epsilon=eps), perm=perm)
        return op.Transpose(op.RMSNormalization(x, g, axis=-1, epsilon=eps, stash_type=rms), perm=perm)
