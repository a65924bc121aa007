from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class SoftsignFromParts(Rule):
    """Softsign.

    Why: three elementwise passes become one.
    Before: x / (1 + |x|)
    After: Softsign(x)
    Safety: the same formula; there is no kernel for float64.
    """

    stage = "recover"
    needs = kernel("", "Softsign")

    def pattern(self, op: Ops, x: Floats) -> Expr:
        return op.Div(x, 1.0 + op.Abs(x))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Softsign(x)
