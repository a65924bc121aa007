from graphopt.ir import Value
from graphopt.patterns.quantize.integers import Integers, Scale, Zero, image_of, kept, on_grids, result
from graphopt.rewrite import Attr, Attrs, Builder, Context, Expr, Ops, Reason, Rule, all_of


class PoolOfIntegers(Rule):
    """The mean of an image on a grid, of windows or of the whole.

    Why: the runtime adds bytes; the mean over height and width has a kernel as GlobalAveragePool only.
    Before: AveragePool(dq(x)), GlobalAveragePool(dq(x)), or ReduceMean(dq(x)) over all axes of places
    After: dq(q(AveragePool(dq(x)))), dq(q(GlobalAveragePool(dq(x))))
    Safety: the plan says so. The kernel knows no dilations, and counts wrongly where sizes are rounded up and padding
    counts.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(
        self, op: Ops, x: Integers, s: Scale, z: Zero, others: Attrs, axes: Attr, keep: Attr, empty: Attr
    ) -> Expr:
        y = op.DequantizeLinear(x, s, z)
        mean = op.ReduceMean(y, axes=axes, keepdims=keep, noop_with_empty_axes=empty)
        return op.AveragePool(y, others=others) | op.GlobalAveragePool(y) | mean

    def where(self, ctx: Context, root: Value, axes: list[int] | None, others: Attrs) -> Reason:
        image = image_of(root)
        attrs = others or {}
        if root.node.op == "ReduceMean" and not _places(image, axes):
            return f"the mean over {axes} is not that of an image"
        if any(step != 1 for step in attrs.get("dilations", ())):
            return "the kernel knows no dilations"
        if attrs.get("ceil_mode") and attrs.get("count_include_pad"):
            return "the kernel counts wrongly where sizes are rounded up and padding counts"
        return all_of(kept(ctx, root), on_grids(image))

    def rewrite(self, op: Builder, ctx: Context, root: Value, others: Attrs, keep: int | None) -> Value:
        image = image_of(root)
        if root.node.op == "AveragePool":
            return result(op, ctx, root, op.AveragePool(image, **others))
        mean = result(op, ctx, root, op.GlobalAveragePool(image))
        return op.Flatten(mean) if root.node.op == "ReduceMean" and not keep else mean


def _places(x: Value, axes: list[int] | None) -> bool:
    """Whether axes are all those of an image (N, C, ...) but its first two."""
    if x.rank is None or x.rank < 3 or not axes:
        return False
    return sorted(axis % x.rank for axis in axes) == list(range(2, x.rank))
