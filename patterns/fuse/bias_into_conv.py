from typing import Annotated

from graphopt.ir import Value
from graphopt.ir.tensor import Array
from graphopt.patterns.fuse.channels import by_channel, float64
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule, const

Kernel = Annotated[Value, const(rank=(3, 4, 5))]
Vector = Annotated[Value, const(rank=1)]
Constant = Annotated[Value, const()]


class BiasIntoConv(Rule):
    """A constant added to each channel of a convolution, as its bias.

    Why: the kernel adds a bias by itself; a pass over the whole image goes.
    Before: Conv(x, w, b) + c with c of shape (C, 1, 1), or a number; also subtracted, and ConvTranspose
    After: Conv(x, w, b + c)
    Safety: c does not vary along another dimension, nor add one.
    """

    stage = "fuse"

    def pattern(
        self,
        op: Ops,
        x: Value,
        others: Attrs,
        c: Constant | None = None,
        d: Constant | None = None,
        w: Kernel | None = None,
        t: Kernel | None = None,
        b: Vector | None = None,
    ) -> Expr:
        y = op.Conv(x, w, b, others=others) | op.ConvTranspose(x, t, b, others=others)
        return y + c | op.Sub(y, d)

    def where(self, w: Value | None, t: Value | None, c: Value | None, d: Value | None, others: Attrs) -> Reason:
        term = _term(c, d)
        fits = by_channel(term, w, t, others.get("group", 1)) is not None
        return fits or f"the constant of shape {term.shape} is not one number for each channel"

    def rewrite(
        self,
        op: Builder,
        x: Value,
        w: Value | None,
        t: Value | None,
        c: Value | None,
        d: Value | None,
        b: Value | None,
        others: Attrs,
    ) -> Value:
        added = by_channel(_term(c, d), w, t, others.get("group", 1))
        assert added is not None
        bias = op.const(added if b is None else added + float64(b), like=x, name="bias")
        return op.Conv(x, w, bias, **others) if w is not None else op.ConvTranspose(x, t, bias, **others)


def _term(added: Value | None, subtracted: Value | None) -> Array:
    if added is not None:
        return float64(added)
    assert subtracted is not None
    return -float64(subtracted)
