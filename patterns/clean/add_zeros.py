from graphopt.ir import Value, dtypes
from graphopt.ir.tensor import Tensor
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class AddZeros(Rule):
    """A sum with a tensor of zeros, which only broadcasts.

    Why: a bias that a configuration leaves out is written as zeros, and hides what is known of the mask beside it.
    Before: x + ConstantOfShape(s, value=0)
    After: Expand(x, s)
    Safety: both broadcast x and s against each other; −0 + 0 becomes −0.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, s: Value, value: Attr) -> Expr:
        return op.Add(x, op.ConstantOfShape(s, value=value))

    def where(self, x: Value, value: Tensor | None) -> Reason:
        if x.dtype not in dtypes.FLOATS:
            return "not a float"
        return value is None or value.item() == 0 or f"the constant is {value.item()}"

    def rewrite(self, op: Builder, x: Value, s: Value) -> Value:
        return op.Expand(x, s)
