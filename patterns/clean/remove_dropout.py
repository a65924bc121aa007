from graphopt.ir import Value
from graphopt.rewrite import Expr, Ops, Reason, Rule, number_of, see_through


class RemoveDropout(Rule):
    """Dropout does nothing in inference.

    Why: exports in training form, and old ones, keep it; it stands between a product and its consumer.
    Before: Dropout(x)
    After: x
    Safety: training mode must be off, known as a constant, or the ratio nothing; a mask that somebody reads keeps the
    node.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Dropout(x, ...)

    def where(self, x: Value, root: Value) -> Reason:
        ratio = root.node.input(1)
        kept = ratio is not None and number_of(ratio) == 0
        return kept or see_through(root) is x or "it may be in training mode"

    def rewrite(self, x: Value) -> Value:
        return x
