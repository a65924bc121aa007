from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class SquarePow(Rule):
    """A second power is a product.

    Why: one spelling of a square for every norm, and a multiplication is cheaper than a power.
    Before: Pow(x, 2)
    After: x * x
    Safety: floats only; integers keep their own rule of overflow.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Pow(x, 2.0)

    def where(self, x: Value) -> Reason:
        return x.dtype in dtypes.FLOATS or "not a float"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Mul(x, x)
