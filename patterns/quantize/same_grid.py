from graphopt.ir import Value
from graphopt.patterns.quantize.integers import Integers, Scale, Zero
from graphopt.rewrite import Attr, Expr, Ops, Rule


class SameGrid(Rule):
    """Integers that become numbers, and integers of the same grid again.

    Why: what is computed on a grid and read on the same one needs no way back.
    Before: QuantizeLinear(DequantizeLinear(q, s, z), s, z)
    After: q
    Safety: exact: (q − z)·s / s rounds to q − z.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(self, op: Ops, q: Integers, s: Scale, z: Zero, axis: Attr) -> Expr:
        return op.QuantizeLinear(op.DequantizeLinear(q, s, z, axis=axis), s, z, axis=axis)

    def rewrite(self, q: Value) -> Value:
        return q
