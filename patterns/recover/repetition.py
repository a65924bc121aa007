"""Where slices of a tensor were repeated along a dimension, each with its copies right behind it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphopt.ir import Node, Value
from graphopt.rewrite import Builder, constant_of
from graphopt.rewrite.facts import same_value, source_of

_FAR = 8
"""So many views and rotations at most stand between a repetition and who reads it."""


@dataclass(frozen=True)
class Once:
    """What a value would be with each slice once; `copies` of each stand there now, one after the other."""

    copies: int
    write: Callable[[Builder], Value]


def once(value: Value, axis: int, far: int = _FAR) -> Once | str:
    """`value` with each slice along `axis` once, or the reason why not: `axis` counts from 0."""
    value = source_of(value)
    node, shape = value.node, value.shape
    x = node.input(0)
    if x is None or x.shape is None or shape is None or not isinstance(shape[axis], int) or not far:
        return f"nothing says that {value.name} repeats its heads"
    match node.domain, node.op:
        case "", "Expand" | "Tile":
            return _broadcast(value, x, axis)
        case "", "Concat" if node.attr("axis") % len(shape) == axis and _one_value(node.inputs):
            return _broadcast(value, x, axis)
        case "", "Concat":
            return _beside(node, axis, far)
        case "", "Gather" if node.attr("axis", 0) % len(x.shape) == axis:
            return _gathered(value, x, axis)
        case "", "Transpose" if (perm := node.attr("perm")) is not None:
            return _through(once(x, perm[axis], far - 1), lambda op, y: op.Transpose(y, perm=perm))
        case "", "Cast":
            to = node.attr("to")
            return _through(once(x, axis, far - 1), lambda op, y: op.Cast(y, to=to))
        case "", "RotaryEmbedding" if axis == 1 and len(x.shape) == 4:
            rest, attrs = node.inputs[1:], dict(node.attrs)
            return _through(once(x, 1, far - 1), lambda op, y: op.RotaryEmbedding(y, *rest, **attrs))
        case "", "Reshape" if len(x.shape) == len(shape) + 1 and x.shape[axis + 2 :] == shape[axis + 1 :]:
            return _merged(value, x, axis, far)
    return f"nothing says that {value.name} repeats its heads"


def _through(found: Once | str, write: Callable[[Builder, Value], Value]) -> Once | str:
    return found if isinstance(found, str) else Once(found.copies, lambda op: write(op, found.write(op)))


def _broadcast(value: Value, x: Value, axis: int) -> Once | str:
    assert value.shape is not None
    copies = value.shape[axis]
    if x.shape is not None and x.shape[axis : axis + 1] != (1,):
        return f"the heads of {value.name} are repeated in turn, not one by one"
    alone = x.shape == (*value.shape[:axis], 1, *value.shape[axis + 1 :]) and isinstance(copies, int)
    return Once(int(str(copies)), lambda op: x) if alone else f"{value.name} repeats more than the heads"


def _beside(node: Node, axis: int, far: int) -> Once | str:
    """Repetitions of several values, put together along another axis."""
    along, found = node.attr("axis"), [once(x, axis, far - 1) for x in node.inputs if x is not None]
    wrong = next((one for one in found if isinstance(one, str)), None)
    known = [one for one in found if isinstance(one, Once)]
    if wrong is not None or len({one.copies for one in known}) > 1:
        return wrong or "not all are repeated as often"
    return Once(known[0].copies, lambda op: op.Concat(*(one.write(op) for one in known), axis=along))


def _one_value(values: list[Value | None]) -> bool:
    return all(a is not None and values[0] is not None and same_value(a, values[0]) for a in values)


def _gathered(value: Value, x: Value, axis: int) -> Once | str:
    """Gather(x, [a, a, b, b]) is [a, b] of x, each twice."""
    index = value.node.input(1)
    tensor = constant_of(index) if index is not None else None
    if tensor is None or len(tensor.shape) != 1:
        return f"nothing says that {value.name} repeats its heads"
    order = tensor.numpy()
    groups = [n for n in range(order.size, 1, -1) if order.size % n == 0 and (order == np.repeat(order[::n], n)).all()]
    if not groups:
        return f"the heads of {value.name} are not repeated one by one"
    once_each = order[:: groups[0]]
    if x.shape is not None and (x.shape[axis],) == once_each.shape and (once_each == np.arange(once_each.size)).all():
        return Once(groups[0], lambda op: x)
    return Once(groups[0], lambda op: op.Gather(x, op.ints(*map(int, once_each)), axis=axis))


def _merged(value: Value, x: Value, axis: int, far: int) -> Once | str:
    """Heads and their copies, (K, G), merged into one dimension of K·G."""
    assert value.shape is not None
    assert x.shape is not None
    before, heads, copies, after = value.shape[:axis], x.shape[axis], x.shape[axis + 1], value.shape[axis + 1 :]
    found = once(x, axis + 1, far - 1)
    if isinstance(found, str) or found.copies != copies or x.shape[:axis] != before:
        in_turn = isinstance(found, str) and isinstance(once(x, axis, far - 1), Once)
        wrong = f"the heads of {value.name} are repeated in turn, not one by one"
        return wrong if in_turn else found if isinstance(found, str) else f"{value.name} repeats more than the heads"
    return _through(found, lambda op, y: op.reshape(y, (*before, heads, *after)))
