from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Number, Ops, Rule


class SubtractedMask(Rule):
    """Scores that a mask is subtracted from, as scores that it is added to.

    Why: attention has only something to add to its scores.
    Before: Softmax(s − k·m), with s a product of matrices, perhaps scaled by a number, and a number k or none
    After: Softmax(s + (−k)·m)
    Safety: a − b is a + (−b) to the last bit; nobody else may read the scores.
    """

    stage = "recover"

    def pattern(
        self, op: Ops, q: Value, k: Value, m: Value, scale: Number | None = None, fill: Number | None = None
    ) -> Expr:
        product = op.MatMul(q, k)
        masked = op.Sub(product | op.scaled(product, scale), op.scaled(m, fill) | m)
        return op.anchor(op.Softmax(masked, axis=-1), masked)

    def rewrite(self, op: Builder, q: Value, k: Value, m: Value, scale: float | None, fill: float | None) -> Value:
        mask = op.Neg(m) if fill is None else op.scaled(m, -fill)
        return op.Add(op.scaled(op.MatMul(q, k), scale), mask)
