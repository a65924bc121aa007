from graphopt.ir import Value, dtypes
from graphopt.rewrite import Builder, Expr, Number, Ops, Reason, Rule, constant_of


class MergeFactors(Rule):
    """Two constant factors, one after the other, are one.

    Why: a pass over the tensor goes, and a scale that is written in two steps is found in one.
    Before: (x · a) · b, or with divisions
    After: x · ab
    Safety: floats only. Both factors lie between 2⁻⁷ and 2⁷, so ab is a normal number in every type, and where x · a
    overflows, x is next to overflowing.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, a: Number, b: Number) -> Expr:
        return op.prod(x, a, b)

    def where(self, x: Value, a: float, b: float) -> Reason:
        if x.dtype not in dtypes.FLOATS or constant_of(x) is not None:
            return "not an activation"
        scales = all(2**-7 <= abs(factor) <= 2**7 for factor in (a, b))
        return scales or f"{a:g} and {b:g} are not both a scale"

    def rewrite(self, op: Builder, x: Value, a: float, b: float) -> Value:
        return op.Mul(x, op.const(a * b, like=x, name="factor"))
