from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Builder, Expr, Ops, Rule, kernel, like

Floats = Annotated[Value, like(dtype=("bfloat16", "float16", "float32"))]


class SoftplusFromParts(Rule):
    """Softplus, the smooth form of Relu.

    Why: three elementwise passes become one.
    Before: log(1 + exp(x))
    After: Softplus(x)
    Safety: where the exponential overflows, the result is right now.
    Source: Dugas et al., Incorporating Second-Order Functional Knowledge, 2001.
    """

    stage = "recover"
    needs = kernel("", "Softplus")

    def pattern(self, op: Ops, x: Floats) -> Expr:
        return op.Log(1.0 + op.Exp(x))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Softplus(x)
