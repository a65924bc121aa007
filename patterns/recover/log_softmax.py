from graphopt.ir import Value
from graphopt.patterns.recover.norms import is_wide, total
from graphopt.patterns.recover.softmax import along_one_axis
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel


class LogSoftmaxFromParts(Rule):
    """The logarithm of a softmax.

    Why: up to six passes over the tensor become one.
    Before: x − log Σexp(x), the sum as ReduceLogSumExp too; or log(Softmax(x))
    After: LogSoftmax(x)
    Safety: the sum runs along one axis and keeps it. Where the weight of the last form vanishes, its logarithm was −∞,
    and is right now. A row of the other forms that may have one element is left alone: all that is left is rounding.
    """

    stage = "recover"
    needs = kernel("", "LogSoftmax")

    def pattern(
        self, op: Ops, x: Value, axes: Attr = None, axis: Attr = None, wide: Attr = None, narrow: Attr = None
    ) -> Expr:
        log_sum = op.Log(total(op, op.Exp(x), axes, wide, narrow)) | op.ReduceLogSumExp(x, axes=axes, keepdims=1)
        return op.Sub(x, log_sum) | op.Log(op.Softmax(x, axis=axis))

    def where(self, x: Value, axes: list[int] | None, axis: int | None, wide: int | None, root: Value) -> Reason:
        along = axes if axis is None else [axis]
        size = x.shape[along[0] % len(x.shape)] if x.shape and along else None
        if axis is None and not (isinstance(size, int) and size > 1):
            return "a row may have one element: its logarithm is 0, and what is left of it is rounding"
        return along_one_axis(x, along, root) if is_wide(x, wide) is True else is_wide(x, wide)

    def rewrite(self, op: Builder, x: Value, axes: list[int] | None, axis: int | None) -> Value:
        return op.LogSoftmax(x, axis=axes[0] if axes else axis)
