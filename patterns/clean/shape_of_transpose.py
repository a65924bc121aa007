from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class ShapeOfTranspose(Rule):
    """The shape of a transposed tensor is the permuted shape of the tensor.

    Why: a Transpose that is read for its shape alone need not be written.
    Before: Shape(Transpose(x, perm=p))
    After: Gather(Shape(x), p)
    Safety: a Transpose changes the order of sizes, nothing else. One that others read stays, and so does its Shape.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, perm: Attr, start: Attr, end: Attr) -> Expr:
        return op.Shape(op.Transpose(x, perm=perm), start=start, end=end)

    def where(self, x: Value) -> Reason:
        return bool(x.rank) or "the rank is not known, or is 0"

    def rewrite(self, op: Builder, x: Value, perm: list[int] | None, start: int | None, end: int | None) -> Value:
        assert x.rank is not None
        order = perm if perm is not None else list(reversed(range(x.rank)))
        return op.Gather(op.Shape(x), op.ints(*order[start:end]))
