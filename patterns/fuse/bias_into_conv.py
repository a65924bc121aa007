from typing import Annotated

from graphopt.ir import Value
from graphopt.patterns.fuse.channels import by_channel, float64
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const

Kernel = Annotated[Value, const(rank=(3, 4, 5))]
Vector = Annotated[Value, const(rank=1)]
Constant = Annotated[Value, const()]


class BiasIntoConv(Rule):
    """A constant added to each channel of a convolution, as its bias.

    Why: the kernel adds a bias by itself; a pass over the whole image goes.
    Before: Conv(x, w, b) + c with c of shape (C, 1, 1), or a number; ConvTranspose likewise
    After: Conv(x, w, b + c)
    Safety: c does not vary along another dimension, nor add one.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        x: Value,
        c: Constant,
        others: Attrs,
        w: Kernel | None = None,
        t: Kernel | None = None,
        b: Vector | None = None,
    ) -> Expr:
        return (op.Conv(x, w, b, others=others) | op.ConvTranspose(x, t, b, others=others)) + c

    def where(self, w: Value | None, t: Value | None, c: Value, others: Attrs) -> Reason:
        fits = by_channel(float64(c), w, t, others.get("group", 1)) is not None
        return fits or f"the constant of shape {c.shape} is not one number for each channel"

    def rewrite(
        self, op: Builder, x: Value, w: Value | None, t: Value | None, c: Value, b: Value | None, others: Attrs
    ) -> Value:
        added = by_channel(float64(c), w, t, others.get("group", 1))
        assert added is not None
        bias = op.const(added if b is None else added + float64(b), like=c, name="bias")
        return op.Conv(x, w, bias, **others) if w is not None else op.ConvTranspose(x, t, bias, **others)
