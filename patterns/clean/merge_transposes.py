from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class MergeTransposes(Rule):
    """Two Transposes are one.

    Why: a layout that one operation undoes is the first thing that hides a fused kernel.
    Before: Transpose(Transpose(x, p), q)
    After: Transpose(x, [p[i] for i in q])
    Safety: permutations compose exactly; an inner Transpose that others read stays.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(self, op: Ops, x: Value, p: Attr, q: Attr) -> Expr:
        return op.Transpose(op.Transpose(x, perm=p), perm=q)

    def where(self, p: list[int] | None, q: list[int] | None) -> Reason:
        return (p is not None and q is not None) or "a permutation is not written"

    def rewrite(self, op: Builder, x: Value, p: list[int], q: list[int]) -> Value:
        return op.Transpose(x, perm=[p[i] for i in q])
