import math

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class MergeClips(Rule):
    """Two clips, one after the other, are one.

    Why: a pass over the tensor goes.
    Before: Clip(Clip(x, a, b), c, d); either or both may be Relu, a clip to (0, ∞)
    After: Clip(x, low, high), with low and high what becomes of min(a, b) and of b in the second one
    Safety: bounds are constants, none is NaN. A clip is monotonous, so two are given by what they make of −∞ and ∞. A
    Clip without an upper bound takes ∞ for the largest number, as Relu does not.
    """

    stage = "clean"

    def pattern(
        self,
        op: Ops,
        a: Attr,
        b: Attr,
        c: Attr,
        d: Attr,
        x: Value | None = None,
        first: Value | None = None,
        second: Value | None = None,
    ) -> Expr:
        both = op.Clip(op.Clip(x, min=a, max=b), min=c, max=d) | op.Relu(op.Relu(first))
        return both | op.Clip(op.Relu(first), min=c, max=d) | op.Relu(op.Clip(second, min=a, max=b))

    def where(self, a: Attr, b: Attr, c: Attr, d: Attr, root: Value) -> Reason:
        if root.dtype not in dtypes.FLOATS:
            return "not floats"
        low, high = (_bound(a, -math.inf), _bound(c, -math.inf)), (_bound(b, math.inf), _bound(d, math.inf))
        proper = all(bound < math.inf for bound in low) and all(bound > -math.inf for bound in high)
        return proper or "a bound is NaN, or leaves no number"

    def rewrite(
        self,
        op: Builder,
        x: Value | None,
        first: Value | None,
        second: Value | None,
        a: Attr,
        b: Attr,
        c: Attr,
        d: Attr,
        root: Value,
    ) -> Value | None:
        if first is not None and root.node.is_op("Relu"):
            return op.Relu(first)
        clipped = next(value for value in (x, first, second) if value is not None)
        a, b = (0.0, math.inf) if first is not None else (_bound(a, -math.inf), _bound(b, math.inf))
        c, d = (0.0, math.inf) if second is not None else (_bound(c, -math.inf), _bound(d, math.inf))
        low, high = (min(max(bound, c), d) for bound in (min(a, b), b))
        return op.Clip(clipped, min=low if low > -math.inf else None, max=high if high < math.inf else None)


def _bound(written: float | None, otherwise: float) -> float:
    return otherwise if written is None else float(written)
