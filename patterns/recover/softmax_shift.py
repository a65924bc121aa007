from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class SoftmaxShift(Rule):
    """A softmax of scores from which their maximum was subtracted.

    Why: every softmax subtracts the maximum itself; the subtraction hides what the scores are.
    Before: Softmax(x − max(x), axis=a), with the maximum along axis a
    After: Softmax(x, axis=a)
    Safety: softmax(x − c) = softmax(x) for c constant along the axis. A row of −∞ throughout is NaN both ways.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Value, axes: Attr, axis: Attr) -> Expr:
        return op.Softmax(x - op.ReduceMax(x, axes=axes, keepdims=1), axis=axis)

    def where(self, x: Value, axes: list[int] | None, axis: int, root: Value) -> Reason:
        if x.dtype not in dtypes.FLOATS or x.rank is None or axes is None:
            return "the rank or the axes of the maximum are not known"
        same = [one % x.rank for one in axes] == [axis % x.rank]
        if root.node.graph.opsets.get("", 1) < 13:
            same = same and axis % x.rank == x.rank - 1
        return same or f"the maximum runs along {axes}, the softmax along {axis}"

    def rewrite(self, op: Builder, x: Value, axis: int) -> Value:
        return op.Softmax(x, axis=axis)
