from graphopt.ir import Value
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule


class SplitBeforeTranspose(Rule):
    """Queries, keys and values that are split from one transposed tensor, split before it is transposed.

    Why: behind it, a transpose of heads and rows meets the one that an attention kernel undoes.
    Before: q, k, v = Split(Transpose(x, p))
    After: q, k, v = Transpose(Split(x), p)
    Safety: a Split along an axis is one along the axis that it was before; its sizes are known numbers.
    """

    stage = "lower"

    def pattern(self, op: Ops, x: Value, perm: Attr, axis: Attr) -> tuple[Expr, ...]:
        parts = op.Split(op.Transpose(x, perm=perm), ..., axis=axis)
        return parts[0], parts[1], parts[2]

    def where(self, perm: list[int] | None, axis: int, root: Value) -> Reason:
        if not perm or len(perm) != 4 or perm[-1] != 3:
            return f"the permutation is {perm}"
        known = len(root.node.outputs) == 3 and None not in _sizes(root, axis)
        return known or "not three parts of known sizes"

    def rewrite(self, op: Builder, x: Value, perm: list[int], axis: int, root: Value) -> tuple[Value, ...]:
        sizes = [size for size in _sizes(root, axis) if size is not None]
        return tuple(op.Transpose(part, perm=perm) for part in op.split(x, sizes, axis=perm[axis]))


def _sizes(root: Value, axis: int) -> list[int | None]:
    sizes = [value.shape[axis] if value.shape is not None else None for value in root.node.outputs]
    return [size if isinstance(size, int) else None for size in sizes]
