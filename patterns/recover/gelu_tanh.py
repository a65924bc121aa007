import math

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, kernel


class GeluTanh(Rule):
    """GELU by its tanh approximation.

    Why: eight elementwise passes become one; the approximation is kept, not replaced by the exact form.
    Before: x · ½ · (1 + tanh(√(2/π) · (x + 0.044715 · x³))), or with the inner term as √(2/π)·x·(1 + 0.044715·x²)
    After: Gelu(x, approximate="tanh")
    Safety: the constants are those of the formula, within the precision of their type.
    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
    """

    stage = "recover"
    needs = (kernel("", "Gelu"), kernel("com.microsoft", "Gelu"))

    def pattern(self, op: Ops, x: Value) -> Expr:
        k, c = math.sqrt(2 / math.pi), 0.044715
        cubic = x + op.prod(x, x, x, c) | x + op.scaled(op.Pow(x, 3.0), c)
        inner = op.scaled(cubic, k) | op.prod(x, k, 1.0 + op.prod(x, x, c))
        return op.prod(x, 0.5, 1.0 + op.Tanh(inner))

    def where(self, x: Value) -> Reason:
        return x.dtype != dtypes.DOUBLE or "the operator has its constants in float32"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Gelu(x, approximate="tanh")
