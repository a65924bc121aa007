from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Rule, kernel


class SwishToQuickGelu(Rule):
    """Swish as com.microsoft QuickGelu, which has a kernel where Swish would be taken apart again.

    Why: one kernel, where the parts pass over the activation twice.
    Before: Swish(x, alpha=α)
    After: com.microsoft.QuickGelu(x, alpha=α)
    Safety: the same formula, x · σ(α·x).
    """

    stage = "lower"
    needs = kernel("com.microsoft", "QuickGelu")

    def pattern(self, op: Ops, x: Value, alpha: Attr) -> Expr:
        return op.Swish(x, alpha=alpha)

    def rewrite(self, op: Builder, x: Value, alpha: float) -> Value:
        return op.ms.QuickGelu(x, alpha=alpha)
