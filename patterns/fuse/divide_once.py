from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class DivideOnce(Rule):
    """A product with an inverse is a division.

    Why: two passes over the tensor become one, and one rounding.
    Before: (1 / a) · b, or Reciprocal(a) · b
    After: b / a
    Safety: floats only: of integers, 1 / a is rounded first.
    """

    stage = "fuse"

    def pattern(self, op: Ops, a: Value, b: Value) -> Expr:
        return op.Mul(op.Div(1.0, a) | op.Reciprocal(a), b)

    def where(self, a: Value, b: Value) -> Reason:
        return (a.dtype in dtypes.FLOATS and a is not b) or "not two numbers"

    def rewrite(self, op: Builder, a: Value, b: Value) -> Value:
        return op.Div(b, a)
