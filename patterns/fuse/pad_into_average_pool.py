from graphopt.ir import Value
from graphopt.patterns.fuse.pads import inside_windows, joined_pads, why_not
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule


class PadIntoAveragePool(Rule):
    """Zeros around an image before an average pool, as its own padding.

    Why: the kernel pads without a copy of the image.
    Before: AveragePool(Pad(x, p))
    After: AveragePool(x, pads=p, count_include_pad=1)
    Safety: the padding is of zeros, none of it negative, and none along the batch or the channels, and smaller than the
    kernel. A pool that pads as well must count its own zeros. With sizes rounded up or holes in the kernel it stays.
    """

    stage = "fuse"

    def pattern(
        self, op: Ops, x: Value, around: Attr, axes: Attr, filler: Attr, old: Attr, counted: Attr, others: Attrs
    ) -> Expr:
        padded = op.Pad(x, pads=around, axes=axes, constant_value=filler, value=old)
        return op.AveragePool(padded, count_include_pad=counted, others=others)

    def where(
        self, x: Value, around: list[int], axes: list[int] | None, filler: Attr, old: Attr, counted: int, others: Attrs
    ) -> Reason:
        if any(others.get("pads") or ()) and not counted:
            return "the pool does not count its own padding"
        reason = why_not(x, around, axes, [filler, old], 0.0, others)
        return inside_windows(x, around, axes, others) if reason is True else reason

    def rewrite(self, op: Builder, x: Value, around: list[int], axes: list[int] | None, others: Attrs) -> Value:
        return op.AveragePool(x, count_include_pad=1, **joined_pads(x, around, axes, others))
