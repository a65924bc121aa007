from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule


class ScoresTransposed(Rule):
    """A softmax over scores in another layout, taken in the layout that their product has.

    Why: between the product and its softmax, a transpose hides attention; behind it, it meets that of the values.
    Before: Softmax(s·Transpose(A·B, p) + b, axis=a), scale and bias optional
    After: Transpose(Softmax(s·(A·B) + Transpose(b, p⁻¹), axis=p[a]), p), of Bᵀ·Aᵀ where p[a] is A's rows
    Safety: a softmax runs along one axis wherever that stands, from opset 13 on; the bias has the rank of the scores.
    """

    stage = "clean"

    def pattern(
        self, op: Ops, x: Value, y: Value, perm: Attr, axis: Attr, scale: Number | None = None, b: Value | None = None
    ) -> Expr:
        moved = op.Transpose(op.MatMul(x, y), perm=perm)
        scores = op.scaled(moved, scale) | moved
        return op.Softmax(scores + b | scores, axis=axis)

    def where(self, x: Value, y: Value, root: Value, perm: list[int] | None, axis: int, b: Value | None) -> Reason:
        if perm is None or root.node.graph.opsets.get("", 1) < 13:
            return "the permutation is not written, or the axis means the rest of the shape in this opset"
        if perm[axis] == len(perm) - 2 and not x.rank == y.rank == len(perm):
            return "the product broadcasts a matrix"
        return b is None or b.rank == len(perm) or f"the bias has rank {b.rank}, the scores {len(perm)}"

    def rewrite(
        self, op: Builder, x: Value, y: Value, perm: list[int], axis: int, scale: float | None, b: Value | None
    ) -> Value:
        rows = len(perm) - 2
        if perm[axis] == rows:
            x, y = op.transposed(y), op.transposed(x)
            perm = [2 * rows + 1 - at if at >= rows else at for at in perm]
        scores = op.scaled(op.MatMul(x, y), scale)
        if b is not None:
            scores = op.Add(scores, op.Transpose(b, perm=[perm.index(at) for at in range(len(perm))]))
        return op.Transpose(op.Softmax(scores, axis=perm[axis]), perm=perm)
