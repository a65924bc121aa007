from graphopt.ir import Value
from graphopt.patterns.fuse.pads import joined_pads, why_not
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule


class PadIntoConv(Rule):
    """Zeros around an image before a convolution, as its own padding.

    Why: the kernel pads without a copy of the image.
    Before: Conv(Pad(x, p), w, b)
    After: Conv(x, w, b, pads=p)
    Safety: the padding is of zeros, none of it negative, and none along the batch or the channels.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        x: Value,
        w: Value,
        around: Attr,
        axes: Attr,
        filler: Attr,
        old: Attr,
        others: Attrs,
        b: Value | None = None,
    ) -> Expr:
        padded = op.Pad(x, pads=around, axes=axes, constant_value=filler, value=old)
        return op.Conv(padded, w, b, others=others)

    def where(
        self, x: Value, around: list[int], axes: list[int] | None, filler: Attr, old: Attr, others: Attrs
    ) -> Reason:
        return why_not(x, around, axes, [filler, old], 0.0, others)

    def rewrite(
        self, op: Builder, x: Value, w: Value, around: list[int], axes: list[int] | None, b: Value | None, others: Attrs
    ) -> Value:
        return op.Conv(x, w, b, **joined_pads(x, around, axes, others))
