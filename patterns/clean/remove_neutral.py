from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule


class RemoveNeutral(Rule):
    """A factor of one, or a term of nothing.

    Why: exporters write a scale or a shift that a configuration leaves at its default, and it hides what is around it.
    Before: x · 1, x / 1, x + 0, x − 0
    After: x
    Safety: exactly one or nothing, of no more dimensions than x; −0 + 0 becomes −0.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, one: Number | None = None, nothing: Number | None = None) -> Expr:
        return op.scaled(x, one) | op.sum(x, nothing)

    def where(self, x: Value, one: float | None, nothing: float | None) -> Reason:
        if x.dtype not in dtypes.FLOATS | dtypes.INTEGERS:
            return "not a number"
        return one == 1 or nothing == 0 or "the constant does something"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return x
