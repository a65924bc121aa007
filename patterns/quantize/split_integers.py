from graphopt.ir import Value
from graphopt.patterns.quantize.integers import FOR_BYTES, Integers, Scale, Zero, back, grid_of, integers_of
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule


class SplitIntegers(Rule):
    """An image on a grid, cut in two.

    Why: what reads the halves may read integers.
    Before: Split(dq(q))
    After: dq(Split(q)), each half on the grid of the whole
    Safety: exact: a Split copies.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(self, op: Ops, x: Integers, s: Scale, z: Zero, others: Attrs) -> tuple[Expr, ...]:
        halves = op.Split(op.DequantizeLinear(x, s, z), ..., others=others)
        return halves[0], halves[1]

    def where(self, root: Value) -> Reason:
        x = root.node.inputs[0]
        if x is None or grid_of(x) is None:
            return "it does not read an activation on a grid"
        return len(root.node.outputs) == 2 or "it is cut into more than two parts"

    def rewrite(self, op: Builder, root: Value) -> tuple[Value, ...]:
        x, *sizes = root.node.inputs
        assert x is not None
        halves = op.since(FOR_BYTES).Split(integers_of(x), *sizes, outputs=2, **root.node.attrs).node.outputs
        return tuple(back(op, half, x) for half in halves)
