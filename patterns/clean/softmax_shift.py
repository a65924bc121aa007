from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class SoftmaxShift(Rule):
    """A softmax of scores from which their maximum was subtracted, or its logarithm.

    Why: every softmax subtracts the maximum itself; the subtraction hides what the scores are.
    Before: Softmax(x − max(x), axis=a) or LogSoftmax of it, with the maximum along axis a
    After: Softmax(x, axis=a), LogSoftmax(x, axis=a)
    Safety: softmax(x − c) = softmax(x) for c constant along the axis. A row of −∞ throughout is NaN both ways.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, axes: Attr, axis: Attr) -> Expr:
        maximum = op.ReduceMax(x, axes=axes, keepdims=1)
        shifted = op.sum(x, op.Neg(maximum) | op.scaled(maximum, -1.0))
        return op.Softmax(shifted, axis=axis) | op.LogSoftmax(shifted, axis=axis)

    def where(self, x: Value, axes: list[int] | None, axis: int, root: Value) -> Reason:
        if x.dtype not in dtypes.FLOATS or x.rank is None or axes is None:
            return "the rank or the axes of the maximum are not known"
        same = [one % x.rank for one in axes] == [axis % x.rank]
        if root.node.graph.opsets.get("", 1) < 13:
            same = same and axis % x.rank == x.rank - 1
        return same or f"the maximum runs along {axes}, the softmax along {axis}"

    def rewrite(self, op: Builder, x: Value, axis: int, root: Value) -> Value:
        return op.Softmax(x, axis=axis) if root.node.op == "Softmax" else op.LogSoftmax(x, axis=axis)
