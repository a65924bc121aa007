"""Views that merge neighbouring dimensions, and what stands beside such a view in a broadcast."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.ir import Shape, Size, Value, dims
from graphopt.rewrite import Builder, see_through

Groups = Sequence[range]
"""For each dimension of the merged shape, the dimensions it is made of."""


def groups(split: Shape | None, merged: Shape | None) -> Groups | None:
    """How a Reshape from `split` to `merged` merges neighbours; None where it does anything else, or nothing."""
    if split is None or merged is None or len(merged) >= len(split):
        return None
    found, first = list[range](), 0
    for size in merged:
        end = first + 1
        while end < len(split) and dims.product(split[first:end]) != size:
            end += 1
        if dims.product(split[first:end]) != size:
            return None
        found.append(range(first, end))
        first = end
    return found if first == len(split) else None


def viewed(view: Value) -> Value:
    """What the Reshape behind `view` reads."""
    while (inner := see_through(view)) is not None:
        view = inner
    x = view.node.inputs[0]
    assert x is not None
    return x


def split_view(op: Builder, x: Value, how: Groups, split: Shape) -> Value:
    """`x`, whose sizes are 1 or the merged ones where dimensions merge, in the view that broadcasts to `split`."""
    assert x.shape is not None
    behind = how[len(how) - len(x.shape) :]
    shape = list[Size]()
    for group, size in zip(behind, x.shape, strict=True):
        shape += [size] * len(group) if size == 1 or len(group) == 1 else split[group.start : group.stop]
    return op.reshape(x, tuple(shape)) if len(shape) > len(x.shape) else x


def merged_view(op: Builder, x: Value, how: Groups, whole: Value) -> Value:
    """`x`, which broadcasts to the shape of `whole` where that is merged, in the view that merges groups of dimensions.

    Where it broadcasts over a part of a group, that group is written out.
    """
    assert x.shape is not None
    assert whole.shape is not None
    padded = (1,) * (len(whole.shape) - len(x.shape)) + x.shape
    sizes = list(padded)
    for group in how:
        if len(group) > 1 and any(padded[axis] != 1 for axis in group):
            sizes[group.start : group.stop] = whole.shape[group.start : group.stop]
    if tuple(sizes) != padded:
        wider = [op.size(whole, axis) if size != padded[axis] else 1 for axis, size in enumerate(sizes)]
        x = op.expand(x, tuple(sizes), wider)
    spare = [_spare(sizes, group) for group in how]
    if x.rank == len(sizes) and None not in spare:
        ones = [axis for group in spare for axis in group or ()]
        return op.Squeeze(x, axes=ones) if ones else x
    return op.reshape(x, tuple(dims.product(sizes[axis] for axis in group) for group in how))


def _spare(sizes: Sequence[Size], group: range) -> list[int] | None:
    """The dimensions of a group beside its one that is not 1; None where there are more such."""
    wide = [axis for axis in group if sizes[axis] != 1] or [group[-1]]
    return [axis for axis in group if axis != wide[0]] if len(wide) == 1 else None
