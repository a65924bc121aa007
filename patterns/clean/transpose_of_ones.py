from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class TransposeOfOnes(Rule):
    """A Transpose that only moves dimensions of size 1 is a view.

    Why: a view costs nothing, and goes away with other views.
    Before: Transpose(x, [0, 2, 1, 3]) with x of shape (B, 1, S, D)
    After: Reshape(x, (B, S, 1, D))
    Safety: dimensions that may be larger than 1 stay in order.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, perm: Attr) -> Expr:
        return op.Transpose(x, perm=perm)

    def where(self, x: Value, perm: list[int] | None) -> Reason:
        if x.shape is None or perm is None:
            return "the shape or the permutation is not known"
        if sorted(perm) != list(range(len(x.shape))):
            return f"{perm} permutes no {len(x.shape)} axes"
        moved = [axis for axis in perm if x.shape[axis] != 1]
        return moved == sorted(moved) or f"{perm} permutes {x.shape}"

    def rewrite(self, op: Builder, x: Value, root: Value) -> Value:
        assert root.shape is not None
        return op.reshape(x, root.shape)
