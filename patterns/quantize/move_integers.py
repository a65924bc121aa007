from graphopt.ir import Value
from graphopt.patterns.quantize.integers import FOR_BYTES, Integers, Scale, Zero, back, grid_of, integers_of
from graphopt.rewrite import Attrs, Builder, Expr, Ops, Reason, Rule


class MoveIntegers(Rule):
    """What only moves or chooses numbers, moves integers.

    Why: bytes are a quarter of the memory, and what reads the result may read integers.
    Before: f(dq(q)), f of MaxPool, Resize to the nearest, DepthToSpace, SpaceToDepth, Reshape, Flatten, Transpose,
    Squeeze, Unsqueeze, Slice, Gather, Expand, Tile, ReduceMax
    After: dq(f(q))
    Safety: exact: all numbers are on one grid, in the order of their integers; padding of a MaxPool never wins. Indices
    of a MaxPool are not asked for.
    """

    stage = "quantize"
    keeps_inner = True

    def pattern(self, op: Ops, x: Integers, s: Scale, z: Zero, others: Attrs) -> Expr:
        y = op.DequantizeLinear(x, s, z)
        pooled = op.MaxPool(y, others=others) | op.ReduceMax(y, ..., others=others)
        resized = (
            op.Resize(y, ..., others=others) | op.DepthToSpace(y, others=others) | op.SpaceToDepth(y, others=others)
        )
        shaped = op.Reshape(y, ..., others=others) | op.Flatten(y, others=others) | op.Transpose(y, others=others)
        squeezed = op.Squeeze(y, ..., others=others) | op.Unsqueeze(y, ..., others=others)
        chosen = op.Slice(y, ..., others=others) | op.Gather(y, ..., others=others)
        return (
            pooled
            | resized
            | shaped
            | squeezed
            | chosen
            | op.Expand(y, ..., others=others)
            | op.Tile(y, ..., others=others)
        )

    def where(self, root: Value, others: Attrs) -> Reason:
        node = root.node
        if node.inputs[0] is None or grid_of(node.inputs[0]) is None:
            return "it does not read an activation on a grid"
        if sum(bool(value.name) for value in node.outputs) > 1:
            return "the places of the greatest are read"
        if node.op == "Resize" and others.get("mode", "nearest") != "nearest":
            return "the kernel for bytes cuts off instead of rounding"
        return node.op != "Resize" or node.version >= 11 or "Resize of this opset has other operands"

    def rewrite(self, op: Builder, root: Value) -> Value:
        node = root.node
        x, *rest = node.inputs
        assert x is not None
        return back(op, getattr(op.since(FOR_BYTES), node.op)(integers_of(x), *rest, **node.attrs), x)
