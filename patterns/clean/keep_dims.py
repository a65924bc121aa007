from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, see_through


class KeepDims(Rule):
    """A mean, sum or maximum whose dimensions are put back, as one that keeps them.

    Why: normalizations reduce and broadcast over the same axes; one spelling is enough.
    Before: Reshape(ReduceMean(x, axes, keepdims=0), s), and ReduceSum or ReduceMax; Unsqueeze likewise
    After: ReduceMean(x, axes, keepdims=1)
    Safety: the result has the shape of x with ones for the axes.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, axes: Attr) -> Expr:
        reduced = (
            op.ReduceMean(x, axes=axes, keepdims=0)
            | op.ReduceSum(x, axes=axes, keepdims=0)
            | op.ReduceMax(x, axes=axes, keepdims=0)
        )
        return op.Reshape(reduced, ...) | op.Unsqueeze(reduced, ...)

    def where(self, x: Value, axes: list[int] | None, root: Value) -> Reason:
        if x.shape is None or not axes:
            return "the axes or the rank are not known"
        reduced = {axis % len(x.shape) for axis in axes}
        kept = tuple(1 if axis in reduced else size for axis, size in enumerate(x.shape))
        return root.shape == kept or f"{root.shape} is not {kept}"

    def rewrite(self, op: Builder, x: Value, axes: list[int], root: Value) -> Value:
        reduced = root.node.inputs[0]
        while reduced is not None and not reduced.node.op.startswith("Reduce"):
            reduced = see_through(reduced)
        assert reduced is not None
        return getattr(op, reduced.node.op)(x, axes=axes, keepdims=1)  # type: ignore[no-any-return]
