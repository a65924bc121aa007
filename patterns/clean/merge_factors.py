import math

from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, constant_of


class MergeFactors(Rule):
    """Two constant factors, one after the other, are one.

    Why: a pass over the tensor goes, and a scale that is written in two steps is found in one.
    Before: (x · a) · b, or with divisions
    After: x · ab
    Safety: floats only; ab is finite and not zero. Where x · a alone would overflow, the product no longer does.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, a: Number, b: Number) -> Expr:
        return op.prod(x, a, b)

    def where(self, x: Value, a: float, b: float) -> Reason:
        if x.dtype not in dtypes.FLOATS or constant_of(x) is not None:
            return "not an activation"
        return (a * b != 0 and math.isfinite(a * b)) or f"the product of {a:g} and {b:g} is no factor"

    def rewrite(self, op: Builder, x: Value, a: float, b: float) -> Value:
        return op.Mul(x, op.const(a * b, like=x, name="factor"))
