from graphopt.ir import Value
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Rule


class ShapeOfCast(Rule):
    """The shape of a value is that of what it was cast from.

    Why: the Cast is often read for its shape alone.
    Before: Shape(Cast(x))
    After: Shape(x)
    Safety: a Cast keeps the shape. One that others read stays.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, x: Value, others: Attrs) -> Expr:
        return op.Shape(op.Cast(x, ...), others=others)

    def rewrite(self, op: Builder, x: Value, others: Attrs) -> Value:
        return op.Shape(x, **others)
