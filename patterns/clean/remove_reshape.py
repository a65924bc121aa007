from graphopt.ir import Value
from graphopt.rewrite import Expr, Ops, Reason, Rule


class RemoveReshape(Rule):
    """A Reshape, Expand, Tile, Squeeze, Unsqueeze or Flatten to the shape its operand has already.

    Why: views and `expand_as` are written whether they change anything or not.
    Before: Reshape(x, s) with shape(x) = s
    After: x
    Safety: the shapes are equal as polynomials of the symbolic dimensions, for every size.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        views = op.Reshape(x, ...) | op.Flatten(x, ...) | op.Squeeze(x, ...) | op.Unsqueeze(x, ...)
        return views | op.Expand(x, ...) | op.Tile(x, ...)

    def where(self, x: Value, root: Value) -> Reason:
        return (x.shape is not None and x.shape == root.shape) or f"{x.shape} becomes {root.shape}"

    def rewrite(self, x: Value) -> Value:
        return x
