from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class TransposeUnmerged(Rule):
    """A Transpose of the last two dimensions does not need the leading ones merged.

    Why: exporters write the transpose of a batched matrix through a rank-3 view.
    Before: Reshape(Transpose(Reshape(x, (B·N, S, D)), [0, 2, 1]), (B, N, D, S)) with x of shape (B, N, S, D)
    After: Transpose(x, [0, 1, 3, 2])
    Safety: the shapes are equal as polynomials.
    """

    stage = "clean"
    keeps_inner = True
    priority = 1

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Reshape(op.Transpose(op.Reshape(x, ...), perm=[0, 2, 1]), ...)

    def where(self, x: Value, root: Value) -> Reason:
        if x.shape is None or root.shape is None or len(x.shape) < 3:
            return "the shapes are not known"
        merged = root.node.inputs[0]
        assert merged is not None
        *leading, rows, columns = x.shape
        same = (
            root.shape == (*leading, columns, rows) and merged.shape is not None and merged.shape[1:] == (columns, rows)
        )
        return same or f"{x.shape} becomes {root.shape} through {merged.shape}"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.transposed(x)
