"""Operators that move elements without changing them: Reshape, Transpose, Slice, Concat, ..."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from graphopt.ir import dims, dtypes
from graphopt.ir.dims import Shape, Size
from graphopt.ir.inference import contents, sizes
from graphopt.ir.inference.outs import Out, Outs, Table, length, operand, shape_of, unknown
from graphopt.ir.inference.sizes import INFINITY, Part, Partial
from graphopt.ir.node import Node, Value
from graphopt.ir.operands import (
    CONTENT_LIMIT,
    Content,
    Range,
    axes,
    axis,
    known_content,
    known_integers,
    perm,
    slices,
    split_sizes,
    written_axes,
)

Order: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
_ARRANGED = ("Reshape", "Slice", "Transpose")
_FAR = 8


def _moved(value: Value, shape: Partial | None) -> Outs:
    """`value` in another shape: the same elements in the same order."""
    content = _unrolled(value) if shape is not None and len(shape) <= 1 else None
    return [Out(value.dtype, shape, content)]


def _unrolled(value: Value) -> Content | None:
    """The elements in order, also of what was moved about as a matrix, as exporters turn the pads of a Pad."""
    moves: list[Node] = []
    while (content := known_content(value)) is None and value.node.op in _ARRANGED and not value.node.domain:
        if len(moves) == _FAR or value.node.inputs[0] is None:
            return None
        moves.append(value.node)
        value = value.node.inputs[0]
    if content is None or not moves:
        return content
    order = np.arange(len(content))
    for node in reversed(moves):
        moved = _arranged(node, order)
        if moved is None:
            return None
        order = moved
    return contents.complete(content[place] for place in order.reshape(-1).tolist())


def _arranged(node: Node, order: Order) -> Order | None:
    """What a Reshape, Transpose or Slice makes of `order`; None where that is not known."""
    shape = node.output.shape
    if node.op == "Transpose" and (turned := perm(node)) is not None:
        return order.transpose(turned)
    if node.op == "Reshape" and shape is not None and all(isinstance(size, int) for size in shape):
        return order.reshape([int(str(size)) for size in shape])
    ranges = slices(node) if node.op == "Slice" else None
    for one in ranges or ():
        if not isinstance(one.start, int) or not isinstance(one.end, int) or _is_disputed(one):
            return None
        bounds = _python_slice(order.shape[one.axis], one.start, one.end, one.step)
        order = order[(slice(None),) * one.axis + (bounds,)]
    return order if ranges is not None else None


# ---- the same elements in the same order -----------------------------------------------------------------------------


def reshape(node: Node) -> Outs:
    value = operand(node, 0)
    written = node.attrs.get("shape")
    wanted = tuple(written) if written is not None else known_content(operand(node, 1))
    if wanted is None:
        return [Out(value.dtype, unknown(length(operand(node, 1))))]
    return _moved(value, reshaped(value.shape, wanted, bool(node.attr("allowzero", 0))))


def reshaped(shape: Shape | None, wanted: Content, allowzero: bool) -> Partial:
    """The result of a Reshape: 0 copies (unless `allowzero`), -1 is what is left.

    A symbolic size is taken as it is: where it is 0 at run time, so is what it would copy.
    """
    result: list[Part] = []
    for position, size in enumerate(wanted):
        if size == 0 and not allowzero:
            result.append(shape[position] if shape is not None and position < len(shape) else None)
        else:
            result.append(size if sizes.nonnegative(size) else None)
    if -1 in wanted and shape is not None:
        rest = [size for size in result if size is not None]
        if len(rest) == len(result) - 1:
            result[wanted.index(-1)] = sizes.ratio(shape, rest)
    return tuple(result)


def flatten(node: Node) -> Outs:
    value = operand(node, 0)
    if value.shape is None:
        return [Out(value.dtype, (None, None))]
    # Here the axis may be the rank itself.
    cut = node.attr("axis", 1)
    cut += len(value.shape) if cut < 0 else 0
    return [Out(value.dtype, (sizes.product(value.shape[:cut]), sizes.product(value.shape[cut:])))]


def squeeze(node: Node) -> Outs:
    value, gone = operand(node, 0), axes(node)
    if value.shape is None or gone is None:
        written = written_axes(node)
        return [Out(value.dtype, unknown(len(value.shape) - len(written) if value.shape and written else None))]
    return _moved(value, tuple(size for position, size in enumerate(value.shape) if position not in gone))


def unsqueeze(node: Node) -> Outs:
    value, new = operand(node, 0), axes(node)
    if value.shape is None or new is None:
        count = length(node.input(1))
        return [Out(value.dtype, unknown(len(value.shape) + count if value.shape is not None and count else None))]
    old = iter(value.shape)
    rank = len(value.shape) + len(new)
    return _moved(value, tuple(1 if position in new else next(old) for position in range(rank)))


def transpose(node: Node) -> Outs:
    value, order = operand(node, 0), perm(node)
    if value.shape is None or order is None:
        return [Out(value.dtype, unknown(len(order) if order is not None else None))]
    return _moved(value, tuple(value.shape[position] for position in order))


# ---- repeated --------------------------------------------------------------------------------------------------------


def expand(node: Node) -> Outs:
    value, wanted = operand(node, 0), known_content(operand(node, 1))
    if wanted is None:
        shape = sizes.broadcast(value.shape, unknown(length(operand(node, 1))))
        return [Out(value.dtype, shape)]
    shape = sizes.broadcast(value.shape, tuple(size if sizes.nonnegative(size) else None for size in wanted))
    content = known_content(value)
    if content is not None and shape is not None and len(content) == 1:
        return [Out(value.dtype, shape, filled(shape, content[0]))]
    return [Out(value.dtype, shape, content if shape == value.shape else None)]


def filled(shape: Partial, element: Size) -> Content | None:
    """The elements of a tensor that repeats one."""
    count = sizes.product(shape) if len(shape) <= 1 else None
    return contents.repeated((element,), count) if isinstance(count, int) else None


def tile(node: Node) -> Outs:
    value, repeats = operand(node, 0), known_content(operand(node, 1))
    if value.shape is None or repeats is None:
        rank = value.rank if value.shape is not None else length(operand(node, 1))
        return [Out(value.dtype, unknown(rank))]
    content = known_content(value)
    if content is not None and len(repeats) == 1 and isinstance(repeats[0], int):
        content = contents.repeated(content, repeats[0]) if len(value.shape) == 1 else None
    else:
        content = None
    return [Out(value.dtype, tuple(map(dims.mul, value.shape, repeats)), content)]


# ---- parts -----------------------------------------------------------------------------------------------------------


def slice_(node: Node) -> Outs:
    value, ranges = operand(node, 0), slices(node)
    if value.shape is None:
        return [Out(value.dtype)]
    if ranges is None:
        return [Out(value.dtype, _untouched(node, value.shape))]
    shape: list[Part] = list(value.shape)
    for one in ranges:
        shape[one.axis] = sliced(value.shape[one.axis], one)
    content = known_content(value)
    if content is not None and len(ranges) == 1:
        content = _sliced_content(content, ranges[0])
    return [Out(value.dtype, tuple(shape), content if len(ranges) <= 1 else None)]


def _untouched(node: Node, shape: Shape) -> Partial:
    """The shape after a Slice whose bounds are not known; the axes may be."""
    along = known_integers(node.input(3))
    if along is None:
        return unknown(len(shape)) or ()
    touched = {one % len(shape) for one in along}
    return tuple(None if position in touched else size for position, size in enumerate(shape))


def _sliced_content(content: Content, one: Range) -> Content | None:
    if _is_disputed(one):
        return None
    if isinstance(one.start, int) and isinstance(one.end, int):
        return content[_python_slice(len(content), one.start, one.end, one.step)]
    return content if one.start == 0 and one.step == 1 and _reaches(one.end, len(content)) else None


def _python_slice(size: int, start: int, end: int, step: int) -> slice:
    """The Python slice that takes what ONNX takes: they differ where a negative step meets bounds before the start."""
    if step > 0:
        return slice(start, end, step)
    return slice(max(start, -size), None if end < -size else end, step)


def sliced(size: Size, one: Range) -> Part:
    """The size that a Slice leaves of `size`."""
    start, end, step = one.start, one.end, one.step
    if _is_disputed(one):
        return None
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(size)[_python_slice(size, start, end, step)])
    to_the_end = _reaches(end, size)
    if isinstance(start, int) and start <= -INFINITY:
        start = 0
    if step == 1:
        return _contiguous(size, start, end, to_the_end)
    if step > 1 and start == 0 and to_the_end:
        return sizes.quotient(dims.add(size, step - 1), step)
    backwards = step == -1 and start == -1 and isinstance(end, int) and end <= -INFINITY
    return size if backwards else None


def _is_disputed(one: Range) -> bool:
    """Whether a range goes backward to "the end", which onnxruntime takes for the other end."""
    return one.step < 0 and isinstance(one.end, int) and one.end >= INFINITY


def _contiguous(size: Size, start: Size, end: Size, to_the_end: bool) -> Part:
    if isinstance(start, int) and start < 0:
        return sizes.minimum(size, -start) if to_the_end else None
    if not sizes.nonnegative(start):
        return None
    if to_the_end:
        return sizes.clamped(dims.sub(size, start))
    if isinstance(end, int) and end < 0:
        return sizes.clamped(dims.sub(dims.add(size, end), start))
    if not sizes.nonnegative(end):
        return None
    if start == 0:
        return sizes.minimum(size, end)
    count = dims.sub(end, start)
    if sizes.nonnegative(dims.sub(size, end)):
        return sizes.clamped(count)
    # min(end, size) - min(start, size)
    return sizes.minimum(count, sizes.clamped(dims.sub(size, start))) if sizes.nonnegative(count) else None


def _reaches(end: Size, size: Size) -> bool:
    """Whether `end` is certainly not before the end of `size`."""
    return (isinstance(end, int) and end >= INFINITY) or sizes.nonnegative(dims.sub(end, size))


def split(node: Node) -> Outs:
    value, along = operand(node, 0), axis(node)
    if value.shape is None or along is None:
        return [Out(value.dtype)] * len(node.outputs)
    parts: Sequence[Part] | None = split_sizes(node)
    if parts is None or len(parts) != len(node.outputs):
        parts = [_even_part(node, value.shape[along])] * len(node.outputs)
    shapes = [(*value.shape[:along], part, *value.shape[along + 1 :]) for part in parts]
    content, numbers = known_content(value), [part for part in parts if isinstance(part, int)]
    if content is None or len(numbers) < len(parts):
        return [Out(value.dtype, shape) for shape in shapes]
    ends = itertools.accumulate(numbers)
    return [
        Out(value.dtype, shape, content[end - part : end])
        for shape, part, end in zip(shapes, numbers, ends, strict=True)
    ]


def _even_part(node: Node, size: Size) -> Part:
    """The size of each part where a Split says nothing of sizes and they are equal."""
    return dims.divide(size, len(node.outputs)) if node.input(1) is None else None


# ---- put together ----------------------------------------------------------------------------------------------------


def concat(node: Node) -> Outs:
    values = [operand(node, slot) for slot in range(node.arity)]
    dtype = next((value.dtype for value in values if value.dtype), 0)
    shapes = [value.shape for value in values if value.shape is not None]
    if not shapes:
        return [Out(dtype)]
    rank = len(shapes[0])
    along: int = node.attr("axis", 1)
    along += rank if along < 0 else 0
    result = [sizes.agree([shape[position] for shape in shapes]) for position in range(rank)]
    result[along] = None
    if len(shapes) == len(values):
        result[along] = sizes.total(shape[along] for shape in shapes)
    return [Out(dtype, tuple(result), _joined(values) if rank == 1 else None)]


def _joined(values: Sequence[Value]) -> Content | None:
    joined: list[Size] = []
    for value in values:
        content = known_content(value)
        if content is None or len(joined) > CONTENT_LIMIT:
            return None
        joined.extend(content)
    return contents.complete(joined)


def pad(node: Node) -> Outs:
    value = operand(node, 0)
    written = node.attrs.get("pads", node.attrs.get("paddings"))
    pads = tuple(written) if written is not None else known_content(node.input(1))
    along = known_integers(node.input(3)) if node.input(3) is not None else range(value.rank or 0)
    if value.shape is None or pads is None or along is None:
        return [Out(value.dtype, unknown(value.rank))]
    shape: list[Part] = list(value.shape)
    for index, one in enumerate(along):
        shape[one] = sizes.clamped(dims.add(value.shape[one], dims.add(pads[index], pads[index + len(along)])))
    return [Out(value.dtype, tuple(shape))]


def one_hot(node: Node) -> Outs:
    indices, depth, dtype = operand(node, 0), known_content(operand(node, 1)), operand(node, 2).dtype
    if indices.shape is None:
        return [Out(dtype)]
    along = node.attr("axis", -1)
    along += len(indices.shape) + 1 if along < 0 else 0
    new = depth[0] if depth is not None and sizes.nonnegative(depth[0]) else None
    return [Out(dtype, (*indices.shape[:along], new, *indices.shape[along:]))]


def shape_out(node: Node) -> Outs:
    value = operand(node, 0)
    if value.shape is None:
        return [Out(dtypes.INT64, (None,))]
    found = value.shape[slice(node.attr("start", 0), node.attr("end"))]
    return [Out(dtypes.INT64, (len(found),), contents.complete(found))]


def size_out(node: Node) -> Outs:
    shape = shape_of(node, 0)
    return [Out(dtypes.INT64, (), contents.complete([sizes.product(shape)] if shape is not None else [None]))]


TABLE: Table = {
    ("", "Concat"): concat,
    ("", "Expand"): expand,
    ("", "Flatten"): flatten,
    ("", "OneHot"): one_hot,
    ("", "Pad"): pad,
    ("", "Reshape"): reshape,
    ("", "Shape"): shape_out,
    ("", "Size"): size_out,
    ("", "Slice"): slice_,
    ("", "Split"): split,
    ("", "Squeeze"): squeeze,
    ("", "Tile"): tile,
    ("", "Transpose"): transpose,
    ("", "Unsqueeze"): unsqueeze,
}
