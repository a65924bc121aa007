from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule


class RemoveExpand(Rule):
    """A divisor that is expanded to the shape of what it divides.

    Why: a division broadcasts by itself, without writing the copies to memory.
    Before: Div(x, Expand(y, s)), as torch divides by a norm
    After: Div(x, y)
    Safety: x has the shape of the result already, so the expanded y broadcasts to it, and so does y.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, y: Value) -> Expr:
        return op.Div(x, op.Expand(y, ...))

    def where(self, x: Value, y: Value, root: Value) -> Reason:
        if y.shape is None or x.shape is None or len(y.shape) > len(x.shape):
            return "the rank is not known"
        return x.shape == root.shape or f"{x.shape} becomes {root.shape}"

    def rewrite(self, op: Builder, x: Value, y: Value) -> Value:
        return op.Div(x, y)
