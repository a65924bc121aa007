from graphopt.ir import Value
from graphopt.patterns.recover.scores import is_score
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule


class SubtractedMask(Rule):
    """Scores that a mask is subtracted from, as scores that it is added to.

    Why: attention has only something to add to its scores.
    Before: Softmax(s − k·m), with s made of products of matrices, and a number k or none
    After: Softmax(s + (−k)·m)
    Safety: a − b is a + (−b) to the last bit; nobody else may read the scores.
    """

    stage = "recover"

    def pattern(self, op: Ops, s: Value, m: Value, fill: Number | None = None) -> Expr:
        masked = op.Sub(s, op.scaled(m, fill) | m)
        return op.anchor(op.Softmax(masked, axis=-1), masked)

    def where(self, s: Value) -> Reason:
        return is_score(s) or "these are not scores"

    def rewrite(self, op: Builder, s: Value, m: Value, fill: float | None) -> Value:
        return op.Add(s, op.Neg(m) if fill is None else op.scaled(m, -fill))
