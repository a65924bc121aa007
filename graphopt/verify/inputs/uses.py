"""Who reads an input, and what was done to its elements on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

from graphopt.ir import Model, Node, Value, dtypes
from graphopt.ir.dims import Size, add, mul, sub
from graphopt.ir.operands import known_content, scalar


@dataclass(frozen=True)
class Use:
    """`node` reads in `slot` a value whose elements are `factor · x + offset` for elements x of an input.

    `whole` where these are all elements of the input in their order, `decided` where they have become yes and no,
    `flipped` where yes became no. `low` and `high` are what a Clip on the way let through.
    """

    node: Node
    slot: int
    value: Value
    offset: Size = 0
    factor: int = 1
    whole: bool = True
    decided: bool = False
    flipped: bool = False
    low: int | None = None
    high: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The operator."""
        return self.node.domain, self.node.op


def uses(model: Model, start: Value) -> Iterator[Use]:
    """Every use of `start`, forward through what passes elements on: into subgraphs and function bodies too."""
    seen: set[Value] = set()
    waiting = [Use(start.node, -1, start)]
    while waiting:
        here = waiting.pop()
        if here.value in seen:
            continue
        seen.add(here.value)
        graph = here.value.node.graph
        for node, slot in graph.consumers(here.value):
            if node is graph.output:
                waiting.extend(_leaving(replace(here, slot=slot)))
            elif slot >= node.arity:
                inner = (g.captures[slot].output for g in node.subgraphs if slot in g.captures)
                waiting.extend(replace(here, value=value) for value in inner)
            elif (function := model.functions.get((node.domain, node.op, node.overload))) is not None:
                bodies = function.graph.inputs[slot : slot + 1]
                waiting.extend(replace(here, value=body.output) for body in bodies)
            else:
                use = replace(here, node=node, slot=slot)
                yield use
                waiting.extend(_following(use))


def origin(reader: Node, wanted: Collection[Value]) -> tuple[Value, int] | None:
    """One of the values `wanted` that an integer operand of `reader` is computed from, and the slot of that operand."""
    for slot, operand in enumerate(reader.inputs[: reader.arity]):
        seen: set[Value] = set()
        waiting = [operand]
        while waiting:
            value = waiting.pop()
            if value is None or value in seen or value.dtype not in dtypes.INTEGERS:
                continue
            if value in wanted:
                return value, slot
            seen.add(value)
            waiting.extend(value.node.inputs if value.node.op not in ("Shape", "Size") else ())
    return None


_SIZING: Final = {
    *((op, slot) for op in ("Range", "Loop", "OneHot", "ConstantOfShape", "EyeLike") for slot in (0, 1, 2)),
    *((op, slot) for op in ("Expand", "Tile", "Pad", "Reshape", "CenterCropPad", "AffineGrid") for slot in (1,)),
    *(("Resize", 3), ("Upsample", 1), ("Col2Im", 1), ("MaxUnpool", 2), ("DFT", 1)),
}


def gives_sizes(start: Value) -> bool:
    """Whether integers that are computed from `start` are sizes of something, or count turns: large ones are costly."""
    seen: set[Value] = set()
    waiting = [start]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        for node, slot in value.node.graph.consumers(value):
            if slot >= node.arity:
                waiting.extend(graph.captures[slot].output for graph in node.subgraphs if slot in graph.captures)
            elif not node.domain and (node.op, slot) in _SIZING:
                return True
            else:
                waiting.extend(one for one in node.outputs if one.dtype in dtypes.INTEGERS)
    return False


def _leaving(use: Use) -> Iterator[Use]:
    """Out of the branch of an If."""
    holder = use.value.node.graph.holder
    if holder is not None and holder.is_op("If") and use.slot < len(holder.outputs):
        yield replace(use, value=holder.outputs[use.slot])


_KEEPING: Final = {"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "SequenceConstruct"}
_PICKING: Final = {
    *("StringNormalizer", "StringSplit"),
    *("Transpose", "Expand", "Tile", "Slice", "Gather", "GatherND", "GatherElements", "Split", "Pad", "Compress"),
    *(
        "SplitToSequence",
        "SequenceAt",
        "ConcatFromSequence",
        "ReduceMax",
        "ReduceMin",
        "Optional",
        "OptionalGetElement",
    ),
}
_MERGING: Final = {"Concat", "Min", "Max", "StringConcat"}


def _following(use: Use) -> Iterator[Use]:
    """What the reader passes on."""
    node = use.node
    if node.is_op("Loop") or node.is_op("Scan"):
        yield from _entering(use)
    changed = None if node.domain or not node.outputs else _changed(use)
    if changed is not None:
        for value in node.outputs if node.op == "Split" else node.outputs[:1]:
            yield replace(changed, value=value)


def _entering(use: Use) -> Iterator[Use]:
    """Into the body of a Loop or Scan as a carried or scanned value."""
    for graph in use.node.subgraphs:
        place = use.slot
        if (use.node.op != "Loop" or place >= 2) and place < len(graph.inputs):
            yield replace(use, value=graph.inputs[place].output, whole=use.whole and use.node.op == "Loop")


def _changed(use: Use) -> Use | None:
    """The use with what its reader does to the elements; None where the reader does not pass them on."""
    node, slot, op = use.node, use.slot, use.node.op
    if op in _KEEPING:
        return use if slot == 0 else None
    if op in _PICKING:
        return replace(use, whole=False) if slot == 0 else None
    if op in _MERGING:
        return replace(use, whole=use.whole and node.arity == 1)
    if op == "Clip":
        bounds = [scalar(node.input(1)), scalar(node.input(2))]
        low, high = (int(b) if b is not None and abs(b) < 1 << 62 else None for b in bounds)
        return replace(use, low=low, high=high) if slot == 0 and use.factor == 1 and use.offset == 0 else None
    if op == "Where":
        return replace(use, whole=False) if slot > 0 else None
    if op == "Not":
        return replace(use, flipped=not use.flipped)
    if op in ("Equal", "Greater"):
        other = scalar(node.input(1 - slot))
        flips = op == "Equal" and other == 0
        return replace(use, decided=True, flipped=use.flipped != flips) if other in (0, 1) else None
    return _calculated(use) if op in ("Add", "Sub", "Mul", "Neg") else None


def _calculated(use: Use) -> Use | None:
    """Sums and products with one known number; a sum with what is not known counts as it is."""
    node, slot, op = use.node, use.slot, use.node.op
    if op == "Neg":
        return replace(use, offset=mul(use.offset, -1), factor=-use.factor)
    other = _number(node.input(1 - slot))
    match op:
        case "Add":
            integral = use.value.dtype in dtypes.INTEGERS
            return replace(use, offset=add(use.offset, other)) if other is not None else use if integral else None
        case "Sub" if slot == 0:
            return replace(use, offset=sub(use.offset, other)) if other is not None else None
        case "Sub" if other is not None:
            offset = sub(other, use.offset)
            return replace(use, offset=offset, factor=-use.factor, flipped=use.flipped != (other == 1))
        case "Mul" if isinstance(other, int) and other:
            return replace(use, offset=mul(use.offset, other), factor=use.factor * other)
    return None


def _number(value: Value | None) -> Size | None:
    """The one element of a constant, or of a computed size."""
    number = scalar(value)
    if number is not None:
        return int(number) if number == number and abs(number) < 1 << 62 and number == int(number) else None
    content = known_content(value)
    return content[0] if content is not None and len(content) == 1 else None
