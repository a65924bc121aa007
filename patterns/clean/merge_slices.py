from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule

Ints = list[int]


class MergeSlices(Rule):
    """Two Slices along different axes are one.

    Why: the first result is never written; windows and grids are cut along one axis after the other.
    Before: Slice(Slice(x, a, b, axes, steps), c, d, ...)
    After: Slice(x) along all of the axes
    Safety: bounds are constants. Slices along one axis stay: parts of a part are what a partial rotation is seen by.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(
        self, op: Ops, x: Value, a: Attr, b: Attr, along: Attr, by: Attr, c: Attr, d: Attr, axes: Attr, steps: Attr
    ) -> Expr:
        inner = op.Slice(x, starts=a, ends=b, axes=along, steps=by)
        return op.Slice(inner, starts=c, ends=d, axes=axes, steps=steps)

    def where(self, x: Value, a: Ints, along: Ints | None, c: Ints, axes: Ints | None) -> Reason:
        if x.rank is None:
            return "the rank is not known"
        cut = _axes(a, along, x.rank) + _axes(c, axes, x.rank)
        return len(set(cut)) == len(cut) or "both cut one axis"

    def rewrite(
        self, op: Builder, x: Value, a: Ints, b: Ints, along: Ints | None, by: Ints | None,
        c: Ints, d: Ints, axes: Ints | None, steps: Ints | None,
    ) -> Value:  # fmt: skip
        assert x.rank is not None
        strides = None if by is None and steps is None else (by or [1] * len(a)) + (steps or [1] * len(c))
        cut = _axes(a, along, x.rank) + _axes(c, axes, x.rank)
        return op.Slice(x, starts=a + c, ends=b + d, axes=cut, steps=strides)


def _axes(starts: Ints, axes: Ints | None, rank: int) -> Ints:
    return list(range(len(starts))) if axes is None else [axis % rank for axis in axes]
