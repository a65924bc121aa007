from typing import Any

from graphopt.ir import Value
from graphopt.patterns.recover.norms import is_wide, less, total
from graphopt.patterns.recover.softmax import along_one_axis
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel


class LogSoftmaxFromParts(Rule):
    """The logarithm of a softmax.

    Why: up to six passes over the tensor become one.
    Before: d − log Σexp(d) with d = x − max(x) or x, the sum as ReduceLogSumExp too; or log(Softmax(x))
    After: LogSoftmax(x)
    Safety: maximum and sum run along the same single axis and keep it. Where the weight of the last form vanishes, its
    logarithm was −∞, and is right now. A row of the other forms that may have one element
    is left alone: there, all that is left is rounding.
    """

    stage = "recover"
    needs = kernel("", "LogSoftmax")

    def pattern(
        self, op: Ops, x: Value, axes: Attr = None, axis: Attr = None, wide: Attr = None, narrow: Attr = None
    ) -> Expr:
        stable = less(op, x, op.ReduceMax(x, axes=axes, keepdims=1))
        # Two whole forms: d is one value, before and in the sum.
        parts = [self._logarithm(op, d, axes, wide, narrow) for d in (stable, x)]
        return parts[0] | parts[1] | op.Log(op.Softmax(x, axis=axis))

    def _logarithm(self, op: Ops, d: Any, axes: Attr, wide: Attr, narrow: Attr) -> Expr:
        log_sum = op.Log(total(op, op.Exp(d), axes, wide, narrow))
        return op.Sub(d, log_sum | op.ReduceLogSumExp(d, axes=axes, keepdims=1))

    def where(self, x: Value, axes: list[int] | None, axis: int | None, wide: int | None, root: Value) -> Reason:
        along = axes if axis is None else [axis]
        size = x.shape[along[0]] if x.shape and along else None
        if axis is None and not (isinstance(size, int) and size > 1):
            return "a row may have one element: its logarithm is 0, and what is left of it is rounding"
        return along_one_axis(x, along, root) if is_wide(wide) is True else is_wide(wide)

    def rewrite(self, op: Builder, x: Value, axes: list[int] | None, axis: int | None) -> Value:
        return op.LogSoftmax(x, axis=axes[0] if axes else axis)
