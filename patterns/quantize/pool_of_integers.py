from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.quantize.integers import kept, on_grids, result
from graphopt.rewrite import Attr, Attrs, Builder, Context, Expr, Ops, Reason, Rule, all_of, like

Floats = Annotated[Value, like(dtype="float32")]


class PoolOfIntegers(Rule):
    """The mean of an image on a grid, of windows or of the whole.

    Why: the runtime adds bytes; the mean over height and width has a kernel as GlobalAveragePool only.
    Before: AveragePool(dq(x)), GlobalAveragePool(dq(x)), or ReduceMean(dq(x)) over all axes of places
    After: dq(q(AveragePool(dq(x)))), ...
    Safety: the plan says so. The kernel knows no dilations, and counts wrongly where sizes are rounded up and padding
    counts.
    """

    stage = "quantize"

    def pattern(self, op: Ops, x: Floats, others: Attrs, axes: Attr, keep: Attr) -> Expr:
        mean = op.ReduceMean(x, axes=axes, keepdims=keep, others=others)
        return op.AveragePool(x, others=others) | op.GlobalAveragePool(x, others=others) | mean

    def where(self, ctx: Context, root: Value, x: Value, others: Attrs, axes: list[int] | None) -> Reason:
        if root.node.op == "ReduceMean" and not _places(x, axes):
            return f"the mean over {axes} is not that of an image"
        if any(step != 1 for step in others.get("dilations", ())):
            return "the kernel knows no dilations"
        if others.get("ceil_mode") and others.get("count_include_pad"):
            return "the kernel counts wrongly where sizes are rounded up and padding counts"
        return all_of(kept(ctx, root), on_grids(x))

    def rewrite(self, op: Builder, ctx: Context, root: Value, x: Value, others: Attrs, keep: int | None) -> Value:
        if root.node.op == "AveragePool":
            return result(op, ctx, root, op.AveragePool(x, **others))
        mean = result(op, ctx, root, op.GlobalAveragePool(x))
        return op.Flatten(mean) if root.node.op == "ReduceMean" and not keep else mean


def _places(x: Value, axes: list[int] | None) -> bool:
    """Whether axes are all those of an image (N, C, ...) but its first two."""
    if x.rank is None or x.rank < 3 or not axes:
        return False
    return sorted(axis % x.rank for axis in axes) == list(range(2, x.rank))
