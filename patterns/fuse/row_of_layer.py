from typing import Annotated

from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Number, Ops, Reason, Rule, like
from graphopt.rewrite.facts import source_of

Matrix = Annotated[Value, like(rank=2)]
Ints = list[int] | None


class RowOfLayer(Rule):
    """One row of what is computed row by row, computed alone.

    Why: of a last layer, a classifier reads the first token only, a generator the last; the others need no computing.
    Before: Gather(f(x), i) along a leading axis, or a Slice of one element, with f a product by a matrix, a norm, an
    activation, or a sum
    After: f(Gather(x, i)), or f(Slice(x))
    Safety: f computes each row of the last axis from that row; operands of all rows are taken from as well, others are
    vectors along a row. Nobody else reads f(x).
    """

    stage = "fuse"

    def pattern(
        self, op: Ops, x: Value, start: Attr, end: Attr, along: Attr, by: Attr,
        i: Number | None = None, g: Value | None = None, m: Matrix | None = None, z: Value | None = None,
    ) -> Expr:  # fmt: skip
        norm = op.LayerNormalization(x, g, ...) | op.RMSNormalization(x, g, ...)
        activation = op.Gelu(x, ...) | op.Relu(x) | op.Tanh(x) | op.Swish(x, ...)
        layer = norm | activation | op.MatMul(x, m) | op.Add(x, z) | op.Mul(x, z)
        return op.Gather(layer, i, ...) | op.Slice(layer, starts=start, ends=end, axes=along, steps=by)

    def where(self, m: Value | None, start: Ints, end: Ints, along: Ints, by: Ints, root: Value) -> Reason:
        layer = _layer(root)
        if layer.shape is None or root.rank is None or root.rank > len(layer.shape):
            return "the rank is not known, or grows"
        if start is not None and end is not None and not (by in (None, [1]) and _one(start, end)):
            return "not a Slice of one row"
        axis = root.node.attr("axis", 0) if start is None else (along or [0])[0]
        if axis % len(layer.shape) == len(layer.shape) - 1 or layer.shape[axis] == 1:
            return "the axis is that of a row, or there is one row"
        if layer.node.attr("axis", -1) not in (-1, len(layer.shape) - 1):
            return "the norm is over several axes"
        taken = _slots_of_rows(layer)
        others = [v for slot, v in enumerate(layer.node.inputs) if slot not in taken and v is not None]
        fits = bool(taken) and all(v is m or v.rank in (0, 1) for v in others)
        return fits or "an operand is broadcast over rows"

    def rewrite(self, op: Builder, root: Value) -> Value:
        layer, take = _layer(root), getattr(op, root.node.op)
        operands = list(layer.node.inputs)
        for slot in _slots_of_rows(layer):
            operands[slot] = take(operands[slot], *root.node.inputs[1 : root.node.arity], **root.node.attrs)
        attrs = {**layer.node.attrs, "axis": -1} if "axis" in layer.node.attrs else layer.node.attrs
        row: Value = getattr(op, layer.node.op)(*operands, **attrs)
        return row


def _one(starts: list[int], ends: list[int]) -> bool:
    """Whether a Slice takes one element, or none where there is none."""
    last = starts == [-1] and ends[0] >= 2**31 - 1
    return last or (len(starts) == 1 and ends[0] == starts[0] + 1 and ends[0] != 0)


def _layer(root: Value) -> Value:
    layer = root.node.inputs[0]
    assert layer is not None
    return source_of(layer)


def _slots_of_rows(layer: Value) -> list[int]:
    """The operands that have all rows of the result: the first one, and either one of a sum or product."""
    assert layer.shape is not None
    slots = (0, 1) if layer.node.op in ("Add", "Mul") else (0,)
    shapes = [(slot, value.shape) for slot in slots if (value := layer.node.inputs[slot]) is not None]
    rows = layer.shape[:-1]
    return [slot for slot, shape in shapes if shape and len(shape) == len(layer.shape) and shape[:-1] == rows]
