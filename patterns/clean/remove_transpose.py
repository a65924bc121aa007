from graphopt.ir import Value
from graphopt.rewrite import Attr, Expr, Ops, Reason, Rule


class RemoveTranspose(Rule):
    """A Transpose that permutes nothing.

    Why: what is left when two layouts meet.
    Before: Transpose(x, perm=[0, 1, 2])
    After: x
    Safety: perm is the identity, or is not written and the rank is at most 1.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, perm: Attr) -> Expr:
        return op.Transpose(x, perm=perm)

    def where(self, x: Value, perm: list[int] | None) -> Reason:
        still = x.rank in (0, 1) if perm is None else perm == list(range(len(perm)))
        return still or f"perm is {perm or 'the reverse'}"

    def rewrite(self, x: Value) -> Value:
        return x
