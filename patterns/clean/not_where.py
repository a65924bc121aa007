from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Rule


class NotWhere(Rule):
    """A choice by the opposite of a condition is the opposite choice.

    Why: a pass over the condition goes, and a mask is found whichever way round it is written.
    Before: Where(Not(c), a, b)
    After: Where(c, b, a)
    Safety: exact. A Not that others read stays.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, c: Value, a: Value, b: Value) -> Expr:
        return op.Where(op.Not(c), a, b)

    def rewrite(self, op: Builder, c: Value, a: Value, b: Value) -> Value:
        return op.Where(c, b, a)
