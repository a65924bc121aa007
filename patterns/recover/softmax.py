from graphopt.ir import Value, dtypes
from graphopt.patterns.recover.norms import is_wide, one_over, total
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class SoftmaxFromParts(Rule):
    """Softmax along one axis.

    Why: up to five passes over the tensor become one, and attention is found around it.
    Before: e / Σe, with e = exp(x)
    After: Softmax(x)
    Safety: the sum runs along one axis and keeps it. Rows whose exponentials overflow or vanish were NaN, and are right
    now. Before opset 13 the operator knows the last axis only.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Value, axes: Attr, wide: Attr = None, narrow: Attr = None) -> Expr:
        e = op.Exp(x)
        return op.prod(e, one_over(op, total(op, e, axes, wide, narrow)))

    def where(self, x: Value, axes: list[int] | None, wide: int | None, root: Value) -> Reason:
        if x.dtype not in dtypes.FLOATS or x.rank is None or axes is None or len(axes) != 1:
            return f"the rank is not known, or the axes {axes} are not one"
        opset = root.node.graph.opsets.get("", 1)
        if opset < 13 and axes[0] % x.rank != x.rank - 1:
            return f"not the last axis in opset {opset}"
        return is_wide(x, wide)

    def rewrite(self, op: Builder, x: Value, axes: list[int]) -> Value:
        return op.Softmax(x, axis=axes[0])
