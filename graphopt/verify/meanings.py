"""What a model's inputs mean, from how they are used: indices and their range, masks, plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from graphopt.ir import Model, Node, Value, dtypes
from graphopt.ir.operands import scalar

Kind = Literal["index", "mask", "bias", "number", "count", "text"]

_LEAST_FILL: Final = -100.0
_REACH: Final = 12


@dataclass(frozen=True)
class Meaning:
    """What an input is taken for.

    `index`: an integer in [low, high); `mask`: 1 (or True) where something is kept; `bias`: 0 where something is kept
    and the lowest float where not, added to scores; `number`: a real number; `count`: a small integer.
    """

    kind: Kind
    low: int = 0
    high: int = 2


@dataclass
class _Evidence:
    low: int = 0
    high: int | None = None
    mask: bool = False
    bias: bool = False

    def index(self, size: int, offset: int) -> None:
        """`input + offset` chooses one of `size` rows."""
        self.low = max(self.low, -offset if offset < 0 else 0)
        self.high = size - offset if self.high is None else min(self.high, size - offset)


def meanings(model: Model) -> dict[str, Meaning]:
    """The meaning of every input, by name."""
    return {node.output.name: _meaning(model, node.output) for node in model.graph.inputs if node.op == "Input"}


def _meaning(model: Model, value: Value) -> Meaning:
    evidence = _evidence(model, value)
    named = "mask" in value.name.lower()
    if value.dtype == dtypes.STRING:
        return Meaning("text")
    if value.dtype == dtypes.BOOL:
        return Meaning("mask")
    if value.dtype in dtypes.INTEGERS:
        if evidence.high is not None and evidence.high > evidence.low:
            return Meaning("index", evidence.low, evidence.high)
        return Meaning("mask") if (evidence.mask or named) and value.rank != 0 else Meaning("count")
    if evidence.bias:
        return Meaning("bias")
    return Meaning("mask") if evidence.mask else Meaning("number")


def _evidence(model: Model, start: Value) -> _Evidence:
    """Walks forward through what passes elements on, and looks at who reads them."""
    found = _Evidence()
    seen: set[Value] = set()
    waiting = [(start, 0)]
    while waiting:
        value, offset = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        for node, slot in value.node.graph.consumers(value):
            if node is value.node.graph.output:
                continue
            if slot >= node.arity:
                waiting.extend((inner, offset) for inner in _captured(node, slot))
            elif (function := model.functions.get((node.domain, node.op, node.overload))) is not None:
                waiting.extend((inner.output, offset) for inner in function.graph.inputs[slot : slot + 1])
            else:
                _judge(found, node, slot, value, offset)
                step = _step(node, slot)
                if step is not None and node.outputs:
                    waiting.append((node.output, offset + step))
    return found


def _captured(holder: Node, slot: int) -> Iterator[Value]:
    return (graph.captures[slot].output for graph in holder.subgraphs if slot in graph.captures)


_PASSING = {
    *("Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Expand", "Tile", "Slice"),
    *("Gather", "GatherND", "GatherElements", "Concat", "Split", "Pad", "Clip", "Min", "Max"),
}
_ANY_SLOT = {"Concat", "Min", "Max"}


def _step(node: Node, slot: int) -> int | None:
    """What `node` adds to the elements that it passes on; None where it does not pass them on."""
    if node.domain:
        return None
    if node.op in _PASSING:
        return 0 if slot == 0 or node.op in _ANY_SLOT else None
    if node.op == "Where":
        return 0 if slot > 0 else None
    if node.op == "Add":
        other = scalar(node.input(1 - slot))
        return int(other) if other is not None and other == int(other) else 0
    if node.op == "Sub" and slot == 0:
        other = scalar(node.input(1))
        return -int(other) if other is not None and other == int(other) else 0
    return None


_INDEXING = {("", "Gather"): (1, 0), ("", "GatherElements"): (1, 0)}
_TABLES = {("com.microsoft", "EmbedLayerNormalization"): {0: 2, 1: 4}}
_MASKED = {
    ("com.microsoft", "Attention"): {3},
    ("com.microsoft", "MultiHeadAttention"): {4},
    ("com.microsoft", "EmbedLayerNormalization"): {7},
}
_BIASED = {
    ("com.microsoft", "Attention"): {5},
    ("com.microsoft", "MultiHeadAttention"): {5},
    ("", "Attention"): {3},
}
_DECIDING = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor"}


def _judge(found: _Evidence, node: Node, slot: int, value: Value, offset: int) -> None:
    """What it says of an input that `node` reads it, through `value`, in `slot`."""
    key = node.domain, node.op
    if slot in _MASKED.get(key, ()):
        found.mask = True
    elif slot in _BIASED.get(key, ()):
        found.bias = True
    elif slot in _TABLES.get(key, {}):
        size = _rows(node.input(_TABLES[key][slot]), 0)
        if size is not None:
            found.index(size, offset)
    elif key in _INDEXING and slot == 1:
        size = _rows(node.input(0), node.attr("axis", 0))
        if size is not None:
            found.index(size, offset)
    elif not node.domain:
        found.mask |= _decides(node, slot)
        found.bias |= node.op == "Add" and _is_scores(node.input(1 - slot)) and _reaches_softmax(node)


def _rows(table: Value | None, axis: int) -> int | None:
    if table is None or table.shape is None or not -len(table.shape) <= axis < len(table.shape):
        return None
    size = table.shape[axis]
    return size if isinstance(size, int) else None


def _decides(node: Node, slot: int) -> bool:
    """Whether `node` uses what it reads as yes or no: as a condition, as 1 - mask, as mask · fill."""
    if node.op == "Where":
        return slot == 0
    if node.op == "Cast":
        return bool(node.attr("to") == dtypes.BOOL)
    if node.op in _DECIDING:
        # A comparison of tokens with one number (padding) is no mask; tables are looked at before this.
        return True
    other = scalar(node.input(1 - slot)) if node.arity == 2 else None
    if node.op == "Sub":
        return slot == 1 and other == 1
    return node.op == "Mul" and other is not None and float(other) <= _LEAST_FILL


def _is_scores(value: Value | None) -> bool:
    """Whether `value` is a product of two computed matrices, perhaps scaled."""
    for _ in range(_REACH):
        if value is None or value.node.is_source:
            return False
        if value.node.op == "MatMul":
            return all(operand is not None and operand.tensor is None for operand in value.node.inputs[:2])
        if value.node.op not in ("Mul", "Div", "Add", "Reshape", "Cast"):
            return False
        value = next((v for v in value.node.inputs if v is not None and v.tensor is None), None)
    return False


def _reaches_softmax(node: Node) -> bool:
    for _ in range(_REACH):
        readers = [reader for value in node.outputs for reader, _ in node.graph.consumers(value)]
        if any(reader.op == "Softmax" for reader in readers):
            return True
        following = [r for r in readers if r.op in ("Cast", "Reshape", "Add", "Where", "Identity", "Max", "Clip")]
        if not following:
            return False
        node = following[0]
    return False


def lowest(dtype: int) -> float:
    """The lowest finite number of a float type, which exporters fill masks with."""
    return float(np.finfo(np.float16 if dtype == dtypes.FLOAT16 else np.float32).min)
