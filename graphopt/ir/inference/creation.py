"""Operators that make tensors from nothing but numbers."""

from __future__ import annotations

import math

from graphopt.ir import dims, dtypes
from graphopt.ir.dims import Size
from graphopt.ir.inference import contents, sizes
from graphopt.ir.inference.outs import Out, Outs, Table, length, operand, unknown
from graphopt.ir.inference.shaping import filled
from graphopt.ir.inference.sizes import Part
from graphopt.ir.node import Node, Value
from graphopt.ir.operands import CONTENT_LIMIT, known_content
from graphopt.ir.tensor import Tensor


def constant(node: Node) -> Outs:
    value = node.output
    tensor = value.tensor
    return [Out(tensor.dtype, tensor.shape, known_content(value))] if tensor is not None else None


def constant_of_shape(node: Node) -> Outs:
    fill = node.attr("value")
    dtype = fill.dtype if isinstance(fill, Tensor) else dtypes.FLOAT
    wanted = known_content(operand(node, 0))
    if wanted is None:
        return [Out(dtype, unknown(length(operand(node, 0))))]
    shape = tuple(size if sizes.nonnegative(size) else None for size in wanted)
    counted = isinstance(fill, Tensor) and dtype in dtypes.COUNTED
    return [Out(dtype, shape, filled(shape, int(fill.item())) if counted else None)]


def range_(node: Node) -> Outs:
    bounds = [operand(node, slot) for slot in range(3)]
    dtype = bounds[0].dtype
    if dtype in dtypes.FLOATS:
        return [Out(dtype, (_counted(bounds),))]
    start, limit, delta = map(_element, bounds)
    if start is None or limit is None or delta is None:
        return [Out(dtype, (None,))]
    count = _steps(dims.sub(limit, start), delta)
    content = None
    if isinstance(count, int):
        content = contents.complete(
            dims.add(start, dims.mul(delta, index)) for index in range(min(count, CONTENT_LIMIT + 1))
        )
    return [Out(dtype, (count,), content)]


def _counted(bounds: list[Value]) -> int | None:
    """How many numbers with a fraction there are from the first bound to the second, in steps of the third."""
    start, limit, delta = (bound.resolved.tensor for bound in bounds)
    if start is None or limit is None or delta is None or not delta.item():
        return None
    count = (limit.numpy() - start.numpy()).item() / delta.item()
    return max(0, math.ceil(count)) if math.isfinite(count) else None


def _element(value: Value) -> Size | None:
    content = known_content(value)
    return content[0] if content else None


def _steps(distance: Size, delta: Size) -> Part:
    if isinstance(distance, int) and isinstance(delta, int):
        return max(0, -(-distance // delta)) if delta else None
    if delta == -1:
        distance, delta = dims.mul(distance, -1), 1
    if delta == 1:
        return sizes.clamped(distance)
    if isinstance(delta, int) and delta > 1:
        return sizes.quotient(dims.add(distance, delta - 1), delta)
    return None


TABLE: Table = {
    ("", "Constant"): constant,
    ("", "ConstantOfShape"): constant_of_shape,
    ("", "Range"): range_,
}
