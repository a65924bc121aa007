from graphopt.ir import Value
from graphopt.patterns.quantize.integers import back, grid_of, integers_of, kept, on_grids, result
from graphopt.rewrite import Attr, Builder, Context, Expr, Ops, Reason, Rule, all_of


class ConcatOfIntegers(Rule):
    """Images on grids, put one behind the other.

    Why: the runtime joins bytes of different grids, each through a table of 256 entries; those of one grid are only
    copied.
    Before: Concat(dq(a), dq(b), ...)
    After: dq(q(Concat(dq(a), dq(b), ...))), or dq(Concat(a, b, ...)) where all are on one grid
    Safety: the plan says so, where grids differ; operands that are on one grid keep it.
    """

    stage = "quantize"

    def pattern(self, op: Ops, x: Value, axis: Attr) -> Expr:
        return op.Concat(x, ..., axis=axis)

    def where(self, ctx: Context, root: Value) -> Reason:
        operands = _operands(root)
        return on_grids(*operands) if _one_grid(operands) else all_of(kept(ctx, root), on_grids(*operands))

    def rewrite(self, op: Builder, ctx: Context, root: Value, axis: int) -> Value:
        operands = _operands(root)
        if _one_grid(operands):
            return back(op, op.Concat(*map(integers_of, operands), axis=axis), operands[0])
        return result(op, ctx, root, op.Concat(*operands, axis=axis))


def _operands(root: Value) -> list[Value]:
    return [x for x in root.node.inputs if x is not None]


def _one_grid(operands: list[Value]) -> bool:
    grids = [grid_of(x) for x in operands]
    return len({(float(g.scale), int(g.zero_point), g.zero_point.dtype) if g else None for g in grids}) == 1
