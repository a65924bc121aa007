from graphopt.ir import Value, dtypes
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
        return x.dtype in (dtypes.FLOAT, dtypes.FLOAT16) or "neither float32 nor float16"

    def rewrite(self, op: Builder, x: Value) -> Value:
        wide = op.Cast(x, to=dtypes.FLOAT) if x.dtype == dtypes.FLOAT16 else x
        n = op.Exp(op.Min(wide, op.const(20.0, like=wide)))
        y = op.Max(wide, op.Log(op.Add(n, op.const(1.0, like=wide))))
        return op.Cast(y, to=x.dtype) if wide is not x else y
