from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule


class MergeFills(Rule):
    """Two masks that fill in the same number, one after the other, are one.

    Why: causal and padding masks are written one by one, and attention has one.
    Before: Where(p, Where(q, x, f), f), either with its branches exchanged
    After: Where(p ∧ q, x, f)
    Safety: element by element the same; the inner result has no other use.
    """

    stage = "clean"

    def pattern(
        self,
        op: Ops,
        x: Value,
        fill: Number,
        p: Value | None = None,
        not_p: Value | None = None,
        q: Value | None = None,
        not_q: Value | None = None,
    ) -> Expr:
        inner = op.Where(q, x, fill) | op.Where(not_q, fill, x)
        return op.Where(p, inner, fill) | op.Where(not_p, fill, inner)

    def where(self, x: Value) -> Reason:
        return x.dtype in dtypes.FLOATS or "not a float"

    def rewrite(
        self,
        op: Builder,
        x: Value,
        fill: float,
        p: Value | None,
        not_p: Value | None,
        q: Value | None,
        not_q: Value | None,
    ) -> Value:
        filled = op.const(fill, like=x)
        if not_p is not None and not_q is not None:
            return op.Where(op.Or(not_p, not_q), filled, x)
        allowed = [op.Not(deny) if allow is None else allow for allow, deny in ((p, not_p), (q, not_q))]
        return op.Where(op.And(*allowed), x, filled)
