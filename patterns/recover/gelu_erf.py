import math

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, kernel


class GeluErf(Rule):
    """GELU, exact form.

    Why: five elementwise passes over the widest activation of a transformer become one.
    Before: x · ½ · (1 + erf(x / √2)), in any order and bracketing
    After: Gelu(x)
    Safety: the constants are those of the formula, within the precision of their type.
    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
    """

    stage = "recover"
    needs = (kernel("", "Gelu"), kernel("com.microsoft", "Gelu"))

    def pattern(self, op: Ops, x: Value) -> Expr:
        # Some write √2 with five digits; the argument then is off by 2.5e-6, below what float32 erf resolves.
        scaled = op.scaled(x, math.sqrt(0.5)) | op.scaled(x, 1 / 1.41421)
        return op.prod(x, 0.5, 1.0 + op.Erf(scaled))

    def where(self, x: Value) -> Reason:
        return x.dtype != dtypes.DOUBLE or "the operator has its constants in float32"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Gelu(x, approximate="none")
