from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class CastLike(Rule):
    """A Cast to the type that another value is known to have.

    Why: functions that take any type write their constants with it; the value is not read for its numbers.
    Before: CastLike(x, y) with y of type T
    After: Cast(x, to=T)
    Safety: the type is known.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
        return op.CastLike(x, y)

    def where(self, y: Value) -> Reason:
        return y.dtype != 0 or "its type is not known"

    def rewrite(self, op: Builder, x: Value, y: Value) -> Value:
        return op.Cast(x, to=y.dtype)
