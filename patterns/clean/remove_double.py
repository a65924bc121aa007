from graphopt.ir import Value
from graphopt.rewrite import Expr, Ops, Rule


class RemoveDouble(Rule):
    """Negated twice is not negated.

    Why: masks are turned over by one function and back by the next.
    Before: Not(Not(x)), Neg(Neg(x))
    After: x
    Safety: exact, the lowest integer included.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Not(op.Not(x)) | op.Neg(op.Neg(x))

    def rewrite(self, x: Value) -> Value:
        return x
