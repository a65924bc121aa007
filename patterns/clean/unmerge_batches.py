from graphopt.ir import Shape, Value
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class UnmergeBatches(Rule):
    """A product of matrices whose batch dimensions were merged needs no merging.

    Why: exporters write a batched product through rank-3 views, which hide the heads of attention.
    Before: Reshape(a, (B·N, S, T)) · Reshape(b, (B·N, T, D)) with a of shape (B, N, S, T), b of shape (B, N, T, D)
    After: Reshape(a·b, (B·N, S, D))
    Safety: both views merge the same leading dimensions and keep the last two; shapes are equal as polynomials.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, a: Value, b: Value) -> Expr:
        return op.MatMul(op.Reshape(a, ...), op.Reshape(b, ...))

    def where(self, a: Value, b: Value, root: Value) -> Reason:
        merged = [v.shape for v in root.node.inputs if v is not None]
        if not (keeps_matrices(a.shape, merged[0]) and keeps_matrices(b.shape, merged[1])):
            return f"{a.shape} as {merged[0]}, {b.shape} as {merged[1]}"
        return a.shape is not None and b.shape is not None and a.shape[:-2] == b.shape[:-2]

    def rewrite(self, op: Builder, a: Value, b: Value, root: Value) -> Value:
        assert root.shape is not None
        return op.reshape(op.MatMul(a, b), root.shape)


def keeps_matrices(before: Shape | None, after: Shape | None) -> bool:
    """Whether a Reshape from `before` to `after` merges leading dimensions into one, and keeps the last two."""
    return before is not None and after is not None and len(before) > len(after) == 3 and before[-2:] == after[-2:]
