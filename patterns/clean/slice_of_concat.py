from graphopt.ir import Value
from graphopt.rewrite import Attr, Expr, Ops, Reason, Rule
from graphopt.rewrite.facts import source_of


class SliceOfConcat(Rule):
    """A Slice of a Concat that takes out exactly what was put in.

    Why: exporters pack what the next operation unpacks.
    Before: Slice(Concat(x, y, z), from the beginning of y to its end)
    After: y
    Safety: along the axis of the Concat only, in steps of 1; the sizes of y and of what stands before it are numbers.
    """

    stage = "clean"
    keeps_inner = True

    def pattern(
        self, op: Ops, x: Value, axis: Attr, starts: Attr, ends: Attr, axes: Attr, steps: Attr, y: Value | None = None
    ) -> Expr:
        packed = op.Concat(x, y, axis=axis) | op.Concat(x, ..., axis=axis)
        return op.Slice(packed, starts=starts, ends=ends, axes=axes, steps=steps)

    def where(
        self,
        axis: int,
        starts: list[int],
        ends: list[int],
        axes: list[int] | None,
        steps: list[int] | None,
        root: Value,
    ) -> Reason:
        rank = root.rank
        if rank is None or len(starts) != 1 or (axes or [0])[0] % rank != axis % rank or steps not in (None, [1]):
            return "not along the axis of the Concat, or not in steps of 1"
        return _taken(root, axis, starts[0], ends[0]) is not None or "not one of the operands"

    def rewrite(self, axis: int, starts: list[int], ends: list[int], root: Value) -> Value | None:
        return _taken(root, axis, starts[0], ends[0])


def _taken(root: Value, axis: int, start: int, end: int) -> Value | None:
    """The operand of the Concat before `root` that lies between `start` and `end`."""
    packed = root.node.inputs[0]
    assert packed is not None
    parts = [part for part in source_of(packed).node.inputs if part is not None]
    begin = 0
    for at, part in enumerate(parts, 1):
        size = part.shape[axis] if part.shape is not None else None
        if not isinstance(size, int):
            return None
        if begin == start and (end == begin + size or (at == len(parts) and end > begin + size)):
            return part
        begin += size
    return None
