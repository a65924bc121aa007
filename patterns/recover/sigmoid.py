from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule


class SigmoidFromParts(Rule):
    """The logistic function, and division by its inverse.

    Why: three passes become one, and Swish is found behind it.
    Before: 1 / (1 + exp(−x)), or a / (1 + exp(−x))
    After: Sigmoid(x), or a · Sigmoid(x); of k·x where the exponent is −k·x
    Safety: floats only; where the exponential overflows both are nothing.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Value, k: Number | None = None, a: Value | None = None) -> Expr:
        inverse = 1.0 + op.Exp(op.Neg(x) | op.scaled(x, k))
        return op.Reciprocal(inverse) | op.Pow(inverse, -1.0) | 1.0 / inverse | op.Div(a, inverse)

    def where(self, x: Value, k: float | None) -> Reason:
        return (x.dtype in dtypes.FLOATS and (k is None or k < 0)) or f"the exponent is {k} x"

    def rewrite(self, op: Builder, x: Value, k: float | None, a: Value | None) -> Value:
        y = op.Sigmoid(x if k is None else op.scaled(x, -k))
        return y if a is None else op.Mul(a, y)
