from graphopt.ir import Shape, Value, dims
from graphopt.patterns.clean.views import Groups, groups, viewed
from graphopt.rewrite import Attr, Builder, Expr, Ops, Reason, Rule, see_through


class ViewsAroundTranspose(Rule):
    """A Transpose between two views that moves neighbours together needs but one of them.

    Why: groups of heads are split and merged around the operations that attention is found by. What has heads, (B, N,
    S, D), keeps them: of fewer dimensions it would hide them.
    Before: Reshape(Transpose(Reshape(x, split), p), s), where p keeps together what the first view splits, or what the
    second merges was together before p
    After: Reshape(Transpose(x, p'), s), or Transpose(Reshape(x, t), p'), with a dimension for each group in p'
    Safety: the groups are neighbours in order before and after p; shapes are equal as polynomials.
    """

    stage = "clean"

    def pattern(self, op: Ops, x: Value, perm: Attr) -> Expr:
        return op.Reshape(op.Transpose(op.Reshape(x, ...), perm=perm), ...)

    def where(self, x: Value, perm: list[int] | None, root: Value) -> Reason:
        split, moved = _between(root)
        if perm is None or x.shape is None or split is None or moved is None or root.shape is None:
            return "the shapes or the permutation are not known"
        found = _kept(x.shape, split, perm) or _merged(moved, root.shape, perm)
        return found is not None or f"{perm} moves apart what a view splits or merges, or hides heads"

    def rewrite(self, op: Builder, x: Value, perm: list[int], root: Value) -> Value | None:
        split, moved = _between(root)
        if x.shape is None or split is None or moved is None or root.shape is None:
            return None
        kept = _kept(x.shape, split, perm)
        if kept is not None:
            return op.reshape(op.Transpose(x, perm=_order(kept, perm)), root.shape)
        merged = _merged(moved, root.shape, perm)
        if merged is None:
            return None
        view = op.reshape(x, tuple(dims.product(split[axis] for axis in group) for group in merged))
        return op.Transpose(view, perm=_order(merged, perm))


def _between(root: Value) -> tuple[Shape | None, Shape | None]:
    """The shapes before and after the Transpose."""
    moved = viewed(root)
    while (inner := see_through(moved)) is not None:
        moved = inner
    split = moved.node.inputs[0]
    assert split is not None
    return split.shape, moved.shape


def _kept(whole: Shape, split: Shape, perm: list[int]) -> Groups | None:
    """The groups of dimensions before `perm` that a view of (B, N, S, D) splits and that stay together."""
    how = groups(split, whole) if len(whole) == 4 else None
    return how if how is not None and all(_together([perm.index(axis) for axis in group]) for group in how) else None


def _merged(moved: Shape, whole: Shape, perm: list[int]) -> Groups | None:
    """The groups of dimensions before `perm` that a view merges to (B, N, S, D) and that were together."""
    how = [[perm[axis] for axis in group] for group in (groups(moved, whole) if len(whole) == 4 else None) or ()]
    if not how or not all(map(_together, how)):
        return None
    return sorted((range(group[0], group[-1] + 1) for group in how), key=lambda group: group.start)


def _together(axes: list[int]) -> bool:
    return axes == list(range(axes[0], axes[0] + len(axes)))


def _order(how: Groups, perm: list[int]) -> list[int]:
    """The permutation of the groups that `perm` is."""
    return sorted(range(len(how)), key=lambda at: perm.index(how[at].start))
