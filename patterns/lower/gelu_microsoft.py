from graphopt.ir import Value, dtypes
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, kernel


class GeluToMicrosoft(Rule):
    """GELU as a contrib operator, where the model's opset has none and must stay.

    Why: one kernel, where the parts would pass over the activation five times or more.
    Before: Gelu(x) in a model of an opset before 20
    After: com.microsoft.Gelu(x), or FastGelu(x) for the tanh form
    Safety: the same two formulas; FastGelu takes no scalar.
    """

    stage = "lower"
    needs = kernel("com.microsoft", "Gelu")

    def pattern(self, op: Ops, x: Value, approximate: Attr) -> Expr:
        return op.Gelu(x, approximate=approximate)

    def where(self, x: Value, approximate: str, root: Value, ctx: Context) -> Reason:
        if x.dtype == dtypes.DOUBLE:
            return "the kernel takes no float64"
        if approximate == "tanh" and x.rank == 0:
            return "the kernel takes no scalar"
        opset = root.node.graph.opsets.get("", 1)
        return (ctx.keep_opset and root.node.version > opset) or "the standard operator may be written"

    def rewrite(self, op: Builder, x: Value, approximate: str) -> Value:
        return op.ms.FastGelu(x) if approximate == "tanh" else op.ms.Gelu(x)
