from graphopt.ir import Value, dtypes
from graphopt.patterns.recover.scores import is_score
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule


class ZeroedWeights(Rule):
    """Weights set to 0 where their scores were masked, as a guard against rows with nothing allowed.

    Why: the second mask changes only such rows, and attention has a guard for them.
    Before: w = Softmax(Where(deny, f, s)); Where(deny, 0, w); or with allow and the branches exchanged
    After: w = Softmax(Where(deny, −∞, s)); Where(IsNaN(w), 0, w)
    Safety: one mask in both places; f is −∞, or no score is as low: s is a scaled product in float32, f at most −1e8.
    """

    stage = "recover"

    def pattern(
        self,
        op: Ops,
        s: Value,
        fill: Number,
        zero: Number,
        allow: Value | None = None,
        deny: Value | None = None,
    ) -> Expr:
        masked = op.Softmax(op.Where(allow, s, fill), axis=-1)
        denied = op.Softmax(op.Where(deny, fill, s), axis=-1)
        return op.Where(allow, masked, zero) | op.Where(deny, zero, denied)

    def where(self, s: Value, fill: float, zero: float) -> Reason:
        if zero != 0:
            return f"the weights become {zero:g}"
        low = fill <= -1e8 and s.dtype == dtypes.FLOAT and is_score(s)
        return fill == float("-inf") or low or f"a score may be as low as {fill:g}"

    def rewrite(self, op: Builder, s: Value, allow: Value | None, deny: Value | None) -> Value:
        never, zero = op.const(float("-inf"), like=s), op.const(0.0, like=s)
        w = op.Softmax(op.Where(deny, never, s) if allow is None else op.Where(allow, s, never), axis=-1)
        return op.Where(op.IsNaN(w), zero, w)
