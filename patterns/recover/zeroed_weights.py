from graphopt.ir import Value, dtypes
from graphopt.patterns.recover.scores import is_finite, is_score
from graphopt.rewrite import Builder, Expr, Maybe, Number, Ops, Reason, Rule


class ZeroedWeights(Rule):
    """Weights set to 0 where their scores were masked, as a guard against rows with nothing allowed.

    Why: the second mask changes only such rows, and attention has a guard for them.
    Before: w = Softmax(s + Where(deny, f, b)); Where(deny, 0, w); s of none to two terms, or allow and the branches
    exchanged
    After: w = Softmax(s + Where(deny, −∞, b)); Where(IsNaN(w), 0, w)
    Safety: one mask in both places, and no other of −∞: s and b are proved to be finite. f is −∞, or no score is as
    low: in float32, s and b are products or small numbers, and f is at most −1e8.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        b: Value,
        fill: Number,
        s: Value | None = None,
        more: Value | None = None,
        allow: Value | None = None,
        deny: Value | None = None,
    ) -> Expr:
        kept, filled = op.Where(allow, b, fill), op.Where(deny, fill, b)
        allowed = op.Softmax(kept | kept + s | op.sum(kept, s, more), axis=-1)
        denied = op.Softmax(filled | filled + s | op.sum(filled, s, more), axis=-1)
        return op.Where(allow, allowed, 0.0) | op.Where(deny, 0.0, denied)

    def where(self, b: Value, s: Value | None, more: Value | None, fill: float) -> Reason:
        others = [value for value in (b, s, more) if value is not None]
        if not all(map(is_finite, others)):
            return "another mask may hold −∞: where only both masks together leave nothing, the model is NaN"
        low = fill <= -1e8 and b.dtype == dtypes.FLOAT and all(map(is_score, others))
        return fill == float("-inf") or low or f"a score may be as low as {fill:g}"

    def rewrite(self, op: Builder, b: Value, s: Maybe, more: Maybe, allow: Maybe, deny: Maybe) -> Value:
        never, zero = op.const(float("-inf"), like=b), op.const(0.0, like=b)
        scores = op.Where(deny, never, b) if allow is None else op.Where(allow, b, never)
        w = op.Softmax(op.sum(*(value for value in (s, more, scores) if value is not None)), axis=-1)
        return op.Where(op.IsNaN(w), zero, w)
