import math

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, kernel


class SwishFromContrib(Rule):
    """Swish that an older tool wrote as QuickGelu.

    Why: the rules about Swish see it, and the target's table chooses its kernel.
    Before: com.microsoft.QuickGelu(x, alpha=α)
    After: Swish(x, alpha=α)
    Safety: the same formula, x · σ(α·x), for the α that Swish is made with elsewhere: positive and finite.
    """

    stage = "recover"
    needs = (kernel("", "Swish"), kernel("com.microsoft", "QuickGelu"))

    def pattern(self, op: Ops, x: Value, alpha: Attr) -> Expr:
        return op.ms.QuickGelu(x, alpha=alpha)

    def where(self, alpha: float) -> Reason:
        return 0 < alpha < math.inf or f"alpha is {alpha}"

    def rewrite(self, op: Builder, x: Value, alpha: float) -> Value:
        return op.Swish(x, alpha=alpha)
