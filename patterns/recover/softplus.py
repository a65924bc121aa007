from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, kernel, like
from graphopt.rewrite.facts import close

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class SoftplusFromParts(Rule):
    """Softplus, the smooth form of Relu, with or without a branch for large arguments.

    Why: three elementwise passes become one; torch has a threshold so that the exponential does not overflow, and the
    operator needs none.
    Before: log(1 + exp(x)); Where(x > t, x, Softplus(x)), or Where(βx > t, x, Softplus(βx) / β)
    After: Softplus(x), or Softplus(βx) / β
    Safety: where the exponential overflows, the result is right now. t is at least 17: what softplus adds to x, less
    than exp(−x), is then below half a unit of float32's last place.
    Source: Dugas et al., Incorporating Second-Order Functional Knowledge, 2001.
    """

    stage = "recover"
    needs = kernel("", "Softplus")

    def pattern(
        self, op: Ops, x: Floats, t: Number | None = None, beta: Number | None = None, k: Number | None = None
    ) -> Expr:
        scaled = op.scaled(x, beta)
        plain = op.Where(op.Greater(x, t), x, op.Softplus(x))
        branch = op.Where(op.Greater(scaled, t), x, op.scaled(op.Softplus(scaled), k))
        return op.Log(1.0 + op.Exp(x)) | plain | branch

    def where(self, x: Value, t: float | None, beta: float | None, k: float | None) -> Reason:
        if beta is not None and k is not None and not (beta > 0 and close(1 / beta, k, x.dtype)):
            return f"it is scaled by {beta:g} and {k:g}"
        return t is None or t >= 17 or f"at {t:g} softplus is not its argument yet"

    def rewrite(self, op: Builder, x: Value, beta: float | None, k: float | None) -> Value:
        return op.scaled(op.Softplus(op.scaled(x, beta)), k)
