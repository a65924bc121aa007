from graphopt.ir import Value
from graphopt.rewrite import Attr, Expr, Ops, Reason, Rule


class ConcatEmpty(Rule):
    """A Concat of a value and nothing.

    Why: models write the general form, and a configuration leaves one part of it empty.
    Before: Concat(x, y) with no elements of y along the axis
    After: x
    Safety: the size of y along the axis is 0, and known.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, y: Value, axis: Attr) -> Expr:
        return op.Concat(x, y, axis=axis) | op.Concat(y, x, axis=axis)

    def where(self, y: Value, axis: int) -> Reason:
        if not y.shape or not -len(y.shape) <= axis < len(y.shape):
            return "the shape is not known"
        return y.shape[axis] == 0 or f"{y.shape[axis]} elements along the axis"

    def rewrite(self, x: Value) -> Value:
        return x
