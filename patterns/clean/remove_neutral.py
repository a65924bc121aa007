from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule


class RemoveNeutral(Rule):
    """A factor of one, a term of nothing, or a Clip without bounds.

    Why: exporters write a scale or a shift that a configuration leaves at its default, and it hides what is around it.
    Before: x · 1, x / 1, x + 0, x − 0, Clip(x)
    After: x
    Safety: exactly one or nothing, of no more dimensions than x; −0 + 0 becomes −0. Before opset 11 a Clip has
    bounds of its own.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, one: Number | None = None, nothing: Number | None = None) -> Expr:
        return op.scaled(x, one) | op.sum(x, nothing) | op.Clip(x)

    def where(self, x: Value, one: float | None, nothing: float | None, root: Value) -> Reason:
        if x.dtype not in dtypes.FLOATS | dtypes.INTEGERS:
            return "not a number"
        if one is None and nothing is None:
            return root.node.version >= 11 or "the Clip has bounds"
        return one == 1 or nothing == 0 or "the constant does something"

    def rewrite(self, op: Builder, x: Value) -> Value:
        return x
