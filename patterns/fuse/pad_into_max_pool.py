from typing import Any

from graphopt.ir import Value, dtypes
from graphopt.patterns.fuse.pads import inside_windows, joined_pads, why_not
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule
from graphopt.rewrite.facts import attribute

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "Abs", "Exp", "Softmax", "Softplus", "HardSigmoid")


class PadIntoMaxPool(Rule):
    """What never is the greatest, around an image before a max pool, as the pool's own padding.

    Why: the kernel pads without a copy of the image.
    Before: MaxPool(Pad(x, p, −∞)), or MaxPool(Pad(x, p, 0)) of an image without negative numbers
    After: MaxPool(x, pads=p)
    Safety: the operator pads with −∞. Zeros would win over negative numbers, so x is the result of an operator of
    floats that makes none. Pads are smaller than the kernel, which has no holes, and no sizes are rounded up: every
    window sees the image. Where the places of the greatest are asked for, it stays.
    """

    stage = "fuse"

    def pattern(self, op: Ops, x: Value, around: Attr, axes: Attr, filler: Attr, old: Attr, others: Attrs) -> Expr:
        padded = op.Pad(x, pads=around, axes=axes, constant_value=filler, value=old)
        return op.MaxPool(padded, others=others)

    def where(
        self, x: Value, around: list[int], axes: list[int] | None, filler: Attr, old: Attr, others: Attrs, root: Value
    ) -> Reason:
        if sum(bool(value.name) for value in root.node.outputs) > 1:
            return "the places of the greatest are read"
        reason = why_not(x, around, axes, [filler, old], -float("inf"), others)
        if reason is not True and _never_negative(x):
            reason = why_not(x, around, axes, [filler, old], 0.0, others)
        return inside_windows(x, around, axes, others) if reason is True else reason

    def rewrite(self, op: Builder, x: Value, around: list[int], axes: list[int] | None, others: Attrs) -> Value:
        return op.MaxPool(x, **joined_pads(x, around, axes, others))


def _never_negative(x: Value) -> bool:
    if x.dtype not in dtypes.FLOATS:
        return False
    if x.node.is_op("Clip"):
        low, high = attribute(x.node, "min"), attribute(x.node, "max")
        return _number(low) >= 0 and (high is None or _number(high) >= 0)
    return any(map(x.node.is_op, _NEVER_NEGATIVE))


def _number(bound: Any) -> float:
    """A bound of a Clip; a negative number where none is known."""
    return bound if isinstance(bound, float) else -1.0
