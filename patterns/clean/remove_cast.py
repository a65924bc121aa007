from graphopt.ir import Value
from graphopt.rewrite import Expr, Ops, Reason, Rule, see_through


class RemoveCast(Rule):
    """A Cast to the type its operand has already.

    Why: exporters write `.float()` and `.type_as(x)` whether they change anything or not.
    Before: Cast(x, to=T) with x of type T
    After: x
    Safety: the operand's type is known and is the one asked for.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Cast(x, ...)

    def where(self, x: Value, root: Value) -> Reason:
        return see_through(root) is x or "it changes the type"

    def rewrite(self, x: Value) -> Value:
        return x
