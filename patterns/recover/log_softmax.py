from typing import Any

from graphopt.ir import Value
from graphopt.patterns.recover.norms import less
from graphopt.patterns.recover.softmax import along_one_axis
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel


class LogSoftmaxFromParts(Rule):
    """The logarithm of a softmax.

    Why: up to six passes over the tensor become one.
    Before: d − log Σexp(d) with d = x − max(x) or x, the sum as ReduceLogSumExp too; or log(Softmax(x))
    After: LogSoftmax(x)
    Safety: maximum and sum run along the same single axis and keep it. Where the weight of the last form vanishes, its
    logarithm was −∞, and is right now. A row of one element is left alone.
    """

    stage = "recover"
    needs = kernel("", "LogSoftmax")

    def pattern(self, op: Ops, x: Value, axes: Attr = None, axis: Attr = None) -> Expr:
        stable = less(op, x, op.ReduceMax(x, axes=axes, keepdims=1))
        # Two whole forms: d is one value, before and in the sum.
        parts = self._share(op, stable, axes) | self._share(op, x, axes)
        return parts | op.Log(op.Softmax(x, axis=axis))

    def _share(self, op: Ops, d: Any, axes: Attr) -> Expr:
        total = op.Log(op.ReduceSum(op.Exp(d), axes=axes, keepdims=1))
        return op.Sub(d, total | op.ReduceLogSumExp(d, axes=axes, keepdims=1))

    def where(self, x: Value, axes: list[int] | None, axis: int | None, root: Value) -> Reason:
        along = axes if axis is None else [axis]
        if x.shape and along and x.shape[along[0]] == 1:
            return "a row of one element has the logarithm 0, and what is left of it is rounding"
        return along_one_axis(x, along, root)

    def rewrite(self, op: Builder, x: Value, axes: list[int] | None, axis: int | None) -> Value:
        return op.LogSoftmax(x, axis=axes[0] if axes else axis)
