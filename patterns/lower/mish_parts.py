from graphopt.ir import Value
from graphopt.patterns.lower.wide import in_float32, single_or_half
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, kernel


class MishToParts(Rule):
    """Mish in exponentials, where the kernel of softplus goes element by element.

    Why: seven vectorized passes take less than a tenth of Softplus and Tanh.
    Before: Mish(x)
    After: x · w / (w + 2) with w = n · (n + 2) and n = exp(min(x, 20))
    Safety: tanh(log(1 + n)) is that quotient; above 20 it is 1 in float32. n² overflows float16, so it is computed in
    float32.
    """

    stage = "lower"
    needs = kernel("ir", "MishParts")

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Mish(x)

    def where(self, x: Value) -> Reason:
        return single_or_half(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        def formula(x: Value) -> Value:
            two = op.const(2.0, like=x)
            n = op.Exp(op.Min(x, op.const(20.0, like=x)))
            w = op.Mul(n, op.Add(n, two))
            return op.Mul(x, op.Div(w, op.Add(w, two)))

        return in_float32(op, x, formula)
