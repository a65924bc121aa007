"""What the operands of a node mean, whichever opset wrote them: as attributes, as constant inputs, or by default.

Axes are counted from 0. None always means that the answer is not known here, never that a default applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.ir import dtypes
from graphopt.ir.dims import Size
from graphopt.ir.node import Node, Value

CONTENT_LIMIT = 64
"""The elements of an integer tensor are followed up to this many."""

Content = tuple[Size, ...]


def scalar(value: Value | None) -> float | int | None:
    """The one element of a constant of any rank, as a Python number."""
    tensor = value.tensor if value is not None else None
    if tensor is None or tensor.size != 1 or tensor.dtype == dtypes.STRING:
        return None
    number: float | int = tensor.item()
    return number


def known_content(value: Value | None) -> Content | None:
    """The elements of a small integer or boolean tensor of rank 0 or 1, as dimensions."""
    if value is None:
        return None
    if value.content is None:
        tensor = value.tensor
        counted = tensor is not None and tensor.dtype in dtypes.COUNTED
        if tensor is not None and counted and len(tensor.shape) <= 1 and tensor.size <= CONTENT_LIMIT:
            value.content = tuple(map(int, tensor.numpy().reshape(-1).tolist()))
    return value.content


def known_integers(value: Value | None) -> list[int] | None:
    """`known_content` where every element is a number."""
    content = known_content(value)
    if content is None:
        return None
    found = [element for element in content if isinstance(element, int)]
    return found if len(found) == len(content) else None


def normalized(axis: int, rank: int | None) -> int | None:
    """`axis` counted from 0; None where the rank is not known or has no such axis."""
    if rank is None or not -rank <= axis < rank:
        return None
    return axis + rank if axis < 0 else axis


def axis(node: Node, default: int = 0) -> int | None:
    """The attribute `axis`, counted from 0 over the rank of the first input."""
    value = node.input(0)
    return normalized(node.attr("axis", default), value.rank) if value is not None else None


def axes(node: Node) -> list[int] | None:
    """The axes of Squeeze, Unsqueeze or a reduction, counted from 0 (of Unsqueeze: over the rank of its output)."""
    value = node.input(0)
    rank = value.rank if value is not None else None
    written = written_axes(node)
    if written is None or rank is None:
        return None
    if not written and node.op != "Unsqueeze":
        return _default_axes(node)
    if node.op == "Unsqueeze":
        rank += len(written)
    found = [counted for one in written if (counted := normalized(one, rank)) is not None]
    return found if len(found) == len(written) else None


def written_axes(node: Node) -> list[int] | None:
    """The axes as they are written, [] where there are none; None where they are computed at run time."""
    operand = node.input(1)
    return list(node.attr("axes") or []) if operand is None else known_integers(operand)


def _default_axes(node: Node) -> list[int] | None:
    value = node.inputs[0]
    assert value is not None
    assert value.shape is not None
    if node.op == "Squeeze":
        if not all(isinstance(size, int) for size in value.shape):
            return None
        return [position for position, size in enumerate(value.shape) if size == 1]
    return [] if node.attr("noop_with_empty_axes", 0) else list(range(len(value.shape)))


def perm(node: Node) -> list[int] | None:
    """The permutation of a Transpose; None where it is not known, or is none of so many axes."""
    written, value = node.attr("perm"), node.input(0)
    if written is not None:
        rank = value.rank if value is not None and value.rank is not None else len(written)
        return list(written) if sorted(written) == list(range(rank)) else None
    return list(reversed(range(value.rank))) if value is not None and value.rank is not None else None


@dataclass(frozen=True)
class Range:
    """start:end:step along one axis, as ONNX reads them (negative bounds count from the end)."""

    axis: int
    start: Size
    end: Size
    step: int


def slices(node: Node) -> list[Range] | None:
    """The ranges that a Slice takes; bounds may be symbolic."""
    value = node.input(0)
    rank = value.rank if value is not None else None
    bounds = _slice_operands(node)
    if bounds is None or rank is None:
        return None
    starts, ends, along, steps = bounds
    ranges = []
    for start, end, one, step in zip(starts, ends, along, steps, strict=False):
        counted = normalized(one, rank)
        if counted is None or step == 0:
            return None
        ranges.append(Range(counted, start, end, step))
    return ranges


def _slice_operands(node: Node) -> tuple[Sequence[Size], Sequence[Size], list[int], list[int]] | None:
    if node.attrs.get("starts") is not None:
        starts: Sequence[Size] | None = node.attrs["starts"]
        ends: Sequence[Size] | None = node.attrs.get("ends")
        along: list[int] | None = node.attrs.get("axes")
        steps: list[int] | None = None
        unknown = False
    else:
        starts, ends = known_content(node.input(1)), known_content(node.input(2))
        along, steps = known_integers(node.input(3)), known_integers(node.input(4))
        unknown = (node.input(3) is not None and along is None) or (node.input(4) is not None and steps is None)
    if starts is None or ends is None or unknown:
        return None
    count = len(starts)
    return starts, ends, list(range(count)) if along is None else along, [1] * count if steps is None else steps


def split_sizes(node: Node) -> Content | None:
    """The sizes that a Split writes along its axis, where they are given or follow from the input's size."""
    written = node.attrs.get("split")
    if written is not None:
        return tuple(written)
    if node.input(1) is not None:
        return known_content(node.input(1))
    along, value = axis(node), node.input(0)
    if along is None or value is None or value.shape is None:
        return None
    size, count = value.shape[along], len(node.outputs)
    if not isinstance(size, int) or not count:
        return None
    # The last part is the smaller one where the size does not divide.
    part = -(-size // count)
    return tuple(max(0, min(part, size - part * index)) for index in range(count))
