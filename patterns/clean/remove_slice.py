from graphopt.ir import Value
from graphopt.rewrite import Expr, Ops, Reason, Rule, constant_of


class RemoveSlice(Rule):
    """A Slice that takes everything.

    Why: `x[:, :n]` with n the whole length is what masks and position tables are made of.
    Before: Slice(x, starts, ends) with the shape of x, steps 1
    After: x
    Safety: a step of -1 keeps the shape and turns the order, so steps must be known.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Slice(x, ...)

    def where(self, x: Value, root: Value) -> Reason:
        if x.shape is None or x.shape != root.shape:
            return f"{x.shape} becomes {root.shape}"
        steps = root.node.input(4)
        known = constant_of(steps) if steps is not None else None
        forward = steps is None or (known is not None and bool((known.numpy() == 1).all()))
        return forward or "steps may turn the order"

    def rewrite(self, x: Value) -> Value:
        return x
