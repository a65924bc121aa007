from graphopt.ir import Value
from graphopt.rewrite import Attr, Expr, Ops, Reason, Rule


class RemoveConcat(Rule):
    """A Concat of one value, or of one and nothing.

    Why: tracers write lists of one, and the general form of which a configuration leaves one part empty.
    Before: Concat(x), or Concat(x, y) with no elements of y along the axis
    After: x
    Safety: a Concat of one value copies it, whatever the axis; that y is empty is known from its shape.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, axis: Attr, y: Value | None = None) -> Expr:
        return op.Concat(x, axis=axis) | op.Concat(x, y, axis=axis) | op.Concat(y, x, axis=axis)

    def where(self, axis: int, y: Value | None) -> Reason:
        if y is None:
            return True
        if not y.shape or not -len(y.shape) <= axis < len(y.shape):
            return "the shape is not known"
        return y.shape[axis] == 0 or f"{y.shape[axis]} elements along the axis"

    def rewrite(self, x: Value) -> Value:
        return x
