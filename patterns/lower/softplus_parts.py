from graphopt.ir import Value
from graphopt.patterns.lower.wide import in_float32, single_or_half
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, kernel


class SoftplusToParts(Rule):
    """Softplus in vectorized passes, where its kernel goes element by element.

    Why: five passes take a sixth of its time.
    Before: Softplus(x)
    After: max(x, log(1 + exp(min(x, 20))))
    Safety: above 20 softplus is x in float32, below it is greater than x.
    """

    stage = "lower"
    needs = kernel("ir", "SoftplusParts")

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Softplus(x)

    def where(self, x: Value) -> Reason:
        return single_or_half(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        def formula(x: Value) -> Value:
            n = op.Exp(op.Min(x, op.const(20.0, like=x)))
            return op.Max(x, op.Log(op.Add(n, op.const(1.0, like=x))))

        return in_float32(op, x, formula)
