from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, like
from graphopt.rewrite.facts import close

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class SoftplusThreshold(Rule):
    """Softplus with a branch for large arguments, where it is its argument.

    Why: torch has a threshold so that the exponential does not overflow; the operator needs none.
    Before: Where(x > t, x, Softplus(x)), or Where(βx > t, x, Softplus(βx) / β)
    After: Softplus(x), or Softplus(βx) / β
    Safety: t is at least 17: what softplus adds to x, less than exp(−x), is then below half a unit of float32's last
    place.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Floats, t: Number, beta: Number | None = None, k: Number | None = None) -> Expr:
        scaled = op.scaled(x, beta)
        plain = op.Where(op.Greater(x, t), x, op.Softplus(x))
        return plain | op.Where(op.Greater(scaled, t), x, op.scaled(op.Softplus(scaled), k))

    def where(self, x: Value, t: float, beta: float | None, k: float | None) -> Reason:
        if beta is not None and k is not None and not (beta > 0 and close(1 / beta, k, x.dtype)):
            return f"it is scaled by {beta:g} and {k:g}"
        return t >= 17 or f"at {t:g} softplus is not its argument yet"

    def rewrite(self, op: Builder, x: Value, beta: float | None, k: float | None) -> Value:
        if beta is None or k is None:
            return op.Softplus(x)
        return op.scaled(op.Softplus(op.scaled(x, beta)), k)
