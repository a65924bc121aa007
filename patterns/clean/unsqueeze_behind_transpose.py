from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class UnsqueezeBehindTranspose(Rule):
    """Dimensions of size 1 that are added before a Transpose, added behind it.

    Why: the transpose meets the one before it, and the view the one behind it.
    Before: Transpose(Unsqueeze(x, [2]), [0, 1, 2, 4, 3]) with x of shape (B, K, T, D)
    After: Unsqueeze(Transpose(x, [0, 1, 3, 2]), [2])
    Safety: a dimension of size 1 may stand anywhere; the others are permuted as before.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, added: Attr, perm: Attr) -> Expr:
        return op.Transpose(op.Unsqueeze(x, axes=added), perm=perm)

    def where(self, x: Value, added: list[int] | None, perm: list[int] | None) -> Reason:
        return (x.shape is not None and added is not None and perm is not None) or "the axes are not known"

    def rewrite(self, op: Builder, x: Value, added: list[int], perm: list[int]) -> Value:
        new = {axis % len(perm) for axis in added}
        old = [axis for axis in range(len(perm)) if axis not in new]
        y = op.Transpose(x, perm=[old.index(axis) for axis in perm if axis not in new])
        return op.Unsqueeze(y, axes=[place for place, axis in enumerate(perm) if axis in new])
