from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.channels import by_input_channel, float64, unpadded
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const

Kernel = Annotated[Value, const(rank=(3, 4, 5))]
Vector = Annotated[Value, const(rank=1)]
Constant = Annotated[Value, const()]


class TermBeforeConv(Rule):
    """A constant added to each channel of an image before a convolution, moved into its bias.

    Why: a pass over the whole image goes.
    Before: Conv(x + c, w, b) with c of shape (C, 1, 1), or a number
    After: Conv(x, w, b + Σ w·c) with the sum over a kernel
    Safety: no padding: the zeros around an image have nothing added. c does not vary along another dimension.
    """

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, c: Constant, w: Kernel, others: Attrs, b: Vector | None = None) -> Expr:
        return op.Conv(op.sum(x, c), w, b, others=others)

    def where(self, x: Value, w: Value, c: Value, others: Attrs) -> Reason:
        if not unpadded(others):
            return "the image is padded"
        fits = by_input_channel(float64(c), x, w, others.get("group", 1)) is not None
        return fits or f"the constant of shape {c.shape} is not one number for each channel"

    def rewrite(self, op: Builder, x: Value, w: Value, c: Value, b: Value | None, others: Attrs) -> Value:
        terms = by_input_channel(float64(c), x, w, others.get("group", 1))
        assert terms is not None
        added = (float64(w) * terms).sum(axis=tuple(range(1, w.rank or 0)))
        return op.Conv(x, w, op.const(added if b is None else added + float64(b), like=w, name="bias"), **others)
