from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class SliceBeforeTranspose(Rule):
    """Heads that are cut from one transposed tensor, cut before it is transposed.

    Why: behind it, a transpose of heads and rows meets the one that an attention kernel undoes.
    Before: Slice(Transpose(x, p), a), Slice(Transpose(x, p), b), ...
    After: Transpose(Slice(x, a), p), Transpose(Slice(x, b), p), ...
    Safety: a Slice along an axis is one along the axis that it was before; all that is read are slices.
    """

    stage = "lower"

    def pattern(self, op: Ops, x: Value, perm: Attr, starts: Attr, ends: Attr, axes: Attr, steps: Attr) -> Expr:
        swapped = op.Transpose(x, perm=perm)
        return op.each_use(swapped, lambda y: op.Slice(y, starts=starts, ends=ends, axes=axes, steps=steps))

    def where(self, perm: list[int] | None, axes: list[list[int] | None]) -> Reason:
        if not perm or len(perm) != 4 or perm[-1] != 3:
            return f"the permutation is {perm}"
        return None not in axes or "the axes are not written"

    def rewrite(
        self,
        op: Builder,
        x: Value,
        perm: list[int],
        starts: list[list[int]],
        ends: list[list[int]],
        axes: list[list[int]],
        steps: list[list[int] | None],
    ) -> tuple[Value, ...]:
        parts = []
        for start, end, along, step in zip(starts, ends, axes, steps, strict=True):
            before = [perm[axis] for axis in along]
            part = op.Slice(x, starts=start, ends=end, axes=before, steps=step)
            parts.append(op.Transpose(part, perm=perm))
        return tuple(parts)
