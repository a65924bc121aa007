from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Reason, Rule, constant_of


class MergeReshapes(Rule):
    """Two changes of shape are one.

    Why: views of views; the inner one often merges what the outer one splits again.
    Before: Reshape(Reshape(x, s), t); either may be Squeeze, Unsqueeze or Flatten
    After: Reshape(x, t)
    Safety: the result's shape is known, and can be written as a constant for x.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, x: Value) -> Expr:
        inner = op.Reshape(x, ...) | op.Unsqueeze(x, ...) | op.Squeeze(x, ...) | op.Flatten(x, ...)
        return op.Reshape(inner, ...) | op.Unsqueeze(inner, ...) | op.Squeeze(inner, ...) | op.Flatten(inner, ...)

    def where(self, x: Value, root: Value) -> Reason:
        return (x.shape is not None and root.shape is not None) or "the shape is not known"

    def rewrite(self, op: Builder, x: Value, root: Value) -> Value | None:
        assert root.shape is not None
        merged = op.reshape(x, root.shape)
        # A shape made at run time, where there was a constant, costs more than the view it saves, and hides the sizes.
        worse = _is_constant(root.node.input(1)) and not _is_constant(merged.node.input(1))
        return None if worse else merged


def _is_constant(target: Value | None) -> bool:
    return target is None or constant_of(target) is not None
