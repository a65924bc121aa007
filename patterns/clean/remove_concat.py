from graphopt.ir import Value
from graphopt.rewrite import Attr, Expr, Ops, Rule


class RemoveConcat(Rule):
    """A Concat of one value.

    Why: tracers write lists of one.
    Before: Concat(x)
    After: x
    Safety: a Concat of one value copies it, whatever the axis.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, axis: Attr) -> Expr:
        return op.Concat(x, axis=axis)

    def rewrite(self, x: Value) -> Value:
        return x
