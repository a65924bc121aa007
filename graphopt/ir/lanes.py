"""Facts about the last axis of tensors, by proof from the operations that made them.

A lane is one position of the last axis: `x[..., j]`. `lanes` numbers the lanes of several values so that equal numbers
are equal lanes, and a negative number is the lane negated. So `y = Concat(Neg(b), a)` of `a, b = Split(x)` with
lanes 1 2 3 4 of `x` has lanes -3 -4 1 2, and `Cos(Concat(f, f))` has the lanes of `Cos(f)` twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeAlias

import numpy as np

from graphopt.ir import dtypes
from graphopt.ir.node import Node, Value
from graphopt.ir.operands import axis, known_content, known_integers, perm, slices, split_sizes

Lanes: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
"""Numbers of the lanes of trailing dimensions: one dimension of them, or more where a view has split the last one."""

# Tables are made in a few dozen operations; a longer history is not looked at.
_NODES = 200
_LANES = 8192
_NUMBERS = 1 << 21


def lanes(*values: Value, elementwise: bool = False) -> list[Lanes | None]:
    """The lanes of each value; None where the size of its last axis is not known.

    What moves lanes is seen through, with `elementwise` also what computes one lane from lanes in the same place.
    """
    rules = {**_MOVES, **_MAPS} if elementwise else _MOVES
    proof = _Proof()
    for node in _history(values, rules):
        for output in node.outputs:
            try:
                found = rules[node.op](proof, node, output)
            except (LookupError, ValueError):
                continue
            if 0 < found.size <= _LANES:
                proof.known[output] = found
    return [proof.of(value) for value in values]


def _history(values: Iterable[Value], rules: dict[str, Rule]) -> list[Node]:
    """The operations with a rule that the values are made by, in order; none where there are too many."""
    found: dict[Node, None] = {}
    stack = [value.node for value in values]
    while stack and len(found) <= _NODES:
        node = stack.pop()
        if node not in found and not node.domain and node.op in rules:
            found[node] = None
            stack.extend(node.producers())
    return sorted(found, key=lambda node: node.rank) if not stack else []


class _Proof:
    """The numbers given so far."""

    def __init__(self) -> None:
        self.known: dict[Value, Lanes] = {}
        self._numbers: dict[Hashable, int] = {}

    def of(self, value: Value | None) -> Lanes | None:
        """The lanes of `value`: those proved, or new ones."""
        if value is None or value.shape is None:
            return None
        if value not in self.known:
            last = value.shape[-1] if value.shape else 1
            if not isinstance(last, int) or not 0 < last <= _LANES:
                return None
            self.known[value] = self._number([(value, key) for key in _columns(value, last)])
        return self.known[value]

    def leading(self, node: Node, output: Value, *operands: Lanes, how: Hashable = None) -> Lanes:
        """The lanes of an operation on other axes, the same for all lanes; it commutes with a negation.

        `how` says what it does there, where the node does more.
        """
        signs = np.sign(operands[0]) if len(operands) == 1 else np.ones_like(operands[0])
        keys = zip(*((signs * lane).reshape(-1).tolist() for lane in operands), strict=True)
        how = how or _how(node, output)
        return signs * self._number([(how, key) for key in keys]).reshape(operands[0].shape)

    def mapped(self, node: Node, operands: Iterable[Lanes]) -> Lanes:
        """The lanes of an elementwise operation, whose operands are broadcast."""
        together = np.broadcast_arrays(*operands)
        how = (node.op, _ranks(node), _attributes(node))
        keys = zip(*(lane.reshape(-1).tolist() for lane in together), strict=True)
        return self._number([(how, key) for key in keys]).reshape(together[0].shape)

    def _number(self, keys: Iterable[Hashable]) -> Lanes:
        return np.array([self._numbers.setdefault(key, len(self._numbers) + 1) for key in keys], np.int64)


def _columns(value: Value, last: int) -> Iterable[Hashable]:
    """What tells the lanes of a value apart: of a constant its numbers, else the position."""
    tensor = value.tensor
    if tensor is None or tensor.dtype not in dtypes.FLOATS or tensor.size > _NUMBERS:
        return range(last)
    return [column.tobytes() for column in tensor.numpy().reshape(-1, last).T]


def _how(node: Node, output: Value) -> Hashable:
    """What an operation does to each lane of its first operand."""
    return node.op, output.index, output.rank, _ranks(node), _attributes(node), tuple(map(_told, node.inputs[1:]))


def _told(value: Value | None) -> Hashable:
    """A further operand: the elements of indices, axes and sizes, else the value itself."""
    content = known_content(value)
    return value if content is None or value is None else (value.rank, content)


def _ranks(node: Node) -> Hashable:
    """Lanes of equal numbers in values of one rank have their other dimensions in the same places."""
    return tuple(value.rank if value is not None else None for value in node.inputs)


def _attributes(node: Node) -> Hashable:
    return tuple((name, str(value)) for name, value in sorted(node.attrs.items()))


Rule: TypeAlias = Callable[[_Proof, Node, Value], Lanes]
"""The lanes of an output. Raises: LookupError or ValueError where nothing is known of them."""


def _inner(node: Node, lane: Lanes, along: int | None) -> int | None:
    """An axis of the operand as one of its lanes; None for one before them."""
    value = node.inputs[0]
    assert value is not None
    if along is None or value.rank is None:
        raise LookupError
    inner = along - (value.rank - lane.ndim)
    return inner if inner >= 0 else None


def _first(proof: _Proof, node: Node) -> Lanes:
    lane = proof.of(node.input(0))
    if lane is None:
        raise LookupError
    return lane


def _same(proof: _Proof, node: Node, output: Value) -> Lanes:
    return _first(proof, node)


def _cast(proof: _Proof, node: Node, output: Value) -> Lanes:
    value = node.inputs[0]
    if value is None or value.dtype != node.attr("to"):
        raise LookupError
    return _first(proof, node)


def _neg(proof: _Proof, node: Node, output: Value) -> Lanes:
    return -_first(proof, node)


def _slice(proof: _Proof, node: Node, output: Value) -> Lanes:
    lane, ranges = _first(proof, node), slices(node)
    if ranges is None:
        raise LookupError
    others = set[Hashable]()
    for one in ranges:
        inner = _inner(node, lane, one.axis)
        if inner is None:
            others.add((one.axis, one.start, one.end, one.step))
        elif isinstance(one.start, int) and isinstance(one.end, int) and one.step > 0:
            lane = lane[(slice(None),) * inner + (slice(one.start, one.end, one.step),)]
        else:
            raise LookupError
    return proof.leading(node, output, lane, how=("Slice", output.rank, frozenset(others))) if others else lane


def _split(proof: _Proof, node: Node, output: Value) -> Lanes:
    lane, sizes = _first(proof, node), split_sizes(node)
    inner = _inner(node, lane, axis(node))
    if inner is None:
        return proof.leading(node, output, lane)
    ends = [sum(part for part in (sizes or ())[: at + 1] if isinstance(part, int)) for at in range(len(sizes or ()))]
    if sizes is None or not ends or ends[-1] != lane.shape[inner]:
        raise LookupError
    return np.split(lane, ends[:-1], inner)[output.index]


def _gather(proof: _Proof, node: Node, output: Value) -> Lanes:
    lane = _first(proof, node)
    inner = _inner(node, lane, axis(node))
    if inner is None:
        return proof.leading(node, output, lane)
    indices, picked = node.input(1), known_integers(node.input(1))
    if indices is None or picked is None or (not indices.shape and lane.ndim == 1):
        raise LookupError
    return np.take(lane, np.array(picked).reshape([-1] if indices.shape else []), inner)


def _concat(proof: _Proof, node: Node, output: Value) -> Lanes:
    operands = [proof.of(value) for value in node.inputs]
    known = [lane for lane in operands if lane is not None]
    if len(known) < len(operands) or len({lane.ndim for lane in known}) > 1:
        raise LookupError
    inner = _inner(node, known[0], axis(node))
    if inner is not None:
        return np.concatenate(known, inner)
    if len({lane.shape for lane in known}) > 1:
        raise LookupError
    return proof.leading(node, output, *known)


def _view(proof: _Proof, node: Node, output: Value) -> Lanes:
    """Reshape, Flatten, Squeeze, Unsqueeze: of the lanes alone, or of what stands before them."""
    lane, value = _first(proof, node), node.inputs[0]
    if value is None or value.shape is None or output.shape is None:
        raise LookupError
    leading = value.shape[: len(value.shape) - lane.ndim]
    sizes = [size for size in output.shape[len(leading) :] if isinstance(size, int)]
    alone = output.shape[: len(leading)] == leading and len(sizes) == len(output.shape) - len(leading)
    if alone and sizes and math.prod(sizes) == lane.size:
        return lane.reshape(sizes)
    if output.shape[-1:] != value.shape[-1:] or lane.size != lane.shape[-1]:
        raise LookupError
    return proof.leading(node, output, lane.reshape(-1))


def _transpose(proof: _Proof, node: Node, output: Value) -> Lanes:
    lane, order = _first(proof, node), perm(node)
    if order is None:
        raise LookupError
    start = len(order) - lane.ndim
    inner = [one - start for one in order[start:]]
    if min(inner) < 0:
        raise LookupError
    moved = lane.transpose(inner)
    return moved if order[:start] == list(range(start)) else proof.leading(node, output, moved)


def _expand(proof: _Proof, node: Node, output: Value) -> Lanes:
    lane, value = _first(proof, node), node.inputs[0]
    if value is None or value.shape is None or output.shape is None:
        raise LookupError
    sizes = [size for size in output.shape[len(output.shape) - lane.ndim :] if isinstance(size, int)]
    if len(sizes) < lane.ndim:
        raise LookupError
    wide = np.tile(lane, [size // old for size, old in zip(sizes, lane.shape, strict=True)])
    same = output.shape[: -lane.ndim] == value.shape[: -lane.ndim]
    return wide if same else proof.leading(node, output, wide)


def _elementwise(proof: _Proof, node: Node, output: Value) -> Lanes:
    operands = [proof.of(value) for value in node.inputs]
    known = [lane.reshape(-1) for lane in operands if lane is not None and lane.size == lane.shape[-1]]
    if len(known) < len(operands):
        raise LookupError
    return proof.mapped(node, known)


_MOVES: dict[str, Rule] = {
    "Identity": _same,
    "Cast": _cast,
    "Neg": _neg,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Concat": _concat,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _view),
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _expand,
}
_MAPS: dict[str, Rule] = dict.fromkeys(
    (
        *("Abs", "Cast", "Cos", "Exp", "Reciprocal", "Sin", "Sqrt"),
        *("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub", "Where"),
    ),
    _elementwise,
)
MOVES = frozenset(_MOVES)
"""The operations that move lanes, or negate them."""
