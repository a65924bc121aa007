"""What the readers of an integer say of it: the range it must lie in, or the tensors that it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from graphopt.ir import Node, Shape, Value, dtypes
from graphopt.ir.dims import Size, add, mul, sub
from graphopt.ir.operands import known_integers, normalized
from graphopt.ir.schema import signature
from graphopt.verify.inputs.uses import Use

Contents = tuple[Size, ...]


@dataclass(frozen=True)
class Bound:
    """A reader takes integers from `low` to below `high`; the same minus `high` where it `wraps`.

    `contents` are whole tensors that it takes, one after another, where a range does not say it: shapes, axes.
    `distinct` where no element may be there twice.
    """

    low: Size
    high: Size
    wraps: bool = False
    contents: tuple[Contents, ...] = ()
    distinct: bool = False


Rule = Callable[[Node, int], Bound | None]

_FEW: Final = 5
_REACH: Final = 6
_SHOWING: Final = {"Unsqueeze", "Cast", "Reshape", "Expand", "Identity", "Tile"}


def bound(use: Use) -> Bound | None:
    """What this use says of the elements it reads; None where it takes any integer, or nothing is known."""
    rule = _RULES.get((*use.key, use.slot)) or _RULES.get((*use.key, -1))
    return rule(use.node, use.slot) if rule is not None and not use.decided else None


def before(found: Bound, use: Use) -> tuple[Size, Size] | None:
    """The range of the input, where `factor · x + offset` must lie in the range found; None where it is not known."""
    low, high = sub(found.low, use.offset), sub(found.high, use.offset)
    if use.factor == 1:
        return low, high
    if use.factor == -1:
        return sub(1, high), sub(1, low)
    if isinstance(low, int) and isinstance(high, int) and use.factor > 1:
        return -(-low // use.factor), (high - 1) // use.factor + 1
    return None


def _shape(node: Node, slot: int) -> Shape | None:
    value = node.input(slot)
    return value.shape if value is not None else None


def _size(node: Node, slot: int, axis: int) -> Size | None:
    shape = _shape(node, slot)
    counted = normalized(axis, len(shape)) if shape is not None else None
    return shape[counted] if shape is not None and counted is not None else None


def _declared(node: Node, index: int = 0) -> Shape | None:
    """The shape of an output, where the file or an inference says it."""
    shape = node.outputs[index].shape if index < len(node.outputs) else None
    return shape


def _rows(table: int, default: int, name: str = "axis") -> Rule:
    """Indices along an axis of the operand `table`."""

    def rule(node: Node, slot: int) -> Bound | None:
        size = _size(node, table, node.attr(name, default))
        return Bound(0, size, wraps=True) if size is not None else None

    return rule


def _row(table: int, axis: int) -> Rule:
    """Indices that may not be negative."""

    def rule(node: Node, slot: int) -> Bound | None:
        size = _size(node, table, axis)
        return Bound(0, size) if size is not None else None

    return rule


def _columns(distinct: bool) -> Rule:
    """Tuples of indices, of which the shortest axis says how far they go."""

    def rule(node: Node, slot: int) -> Bound | None:
        data, indices = _shape(node, 0), _shape(node, 1)
        width = indices[-1] if indices else None
        batch = node.attr("batch_dims", 0)
        sizes = data[batch : batch + width] if data is not None and isinstance(width, int) else ()
        numbers = [size for size in sizes if isinstance(size, int)]
        high: Size | None = min(numbers) if numbers else next(iter(sizes), None)
        alone = distinct and _overwrites(node)
        return Bound(0, high, wraps=True, distinct=alone) if high is not None else None

    return rule


def _scattered(node: Node, slot: int) -> Bound | None:
    size = _size(node, 0, node.attr("axis", 0))
    return Bound(0, size, wraps=True, distinct=_overwrites(node)) if size is not None else None


def _overwrites(node: Node) -> bool:
    """Whether a node that scatters leaves it open which of two updates of one place is the last."""
    return bool(node.attr("reduction", "none") == "none")


def _between(low: int, high: int, wraps: bool = False) -> Rule:
    return lambda node, slot: Bound(low, high, wraps)


def _up_to(operand: int, axis: int, low: int = 1, name: str = "") -> Rule:
    """Counts of at most the size of an axis."""

    def rule(node: Node, slot: int) -> Bound | None:
        size = _size(node, operand, node.attr(name, axis) if name else axis)
        return Bound(low, add(size, 1)) if size is not None else None

    return rule


def _axes(node: Node, slot: int) -> Bound | None:
    """Axes of the first operand, in order."""
    shape = _shape(node, 0)
    if shape is None:
        return None
    rank, count = len(shape), _count(node.input(slot))
    each = tuple((axis,) for axis in range(rank - 1, -1, -1)) if count in (None, 1) else ()
    several = (tuple(range(rank))[-count:],) if count is not None and 1 < count <= rank else ()
    return Bound(0, rank, wraps=True, contents=(*each, *several))


def _count(value: Value | None) -> int | None:
    """The number of elements of a vector or scalar."""
    shape = value.shape if value is not None else None
    if shape is None or len(shape) > 1:
        return None
    return 1 if not shape else shape[0] if isinstance(shape[0], int) else None


def _squeezed(node: Node, slot: int) -> Bound | None:
    shape, out = _shape(node, 0), _declared(node)
    ones = tuple(axis for axis, size in enumerate(shape or ()) if size == 1)
    count = _count(node.input(slot))
    if shape is not None and out is not None:
        count = len(shape) - len(out)
    return Bound(0, len(shape or ()), wraps=True, contents=(ones[:count],)) if shape is not None else None


def _unsqueezed(node: Node, slot: int) -> Bound | None:
    shape, out = _shape(node, 0), _declared(node)
    if shape is None:
        return None
    count = _count(node.input(slot)) or 1
    rank = len(shape) + count
    places = [axis for axis, size in enumerate(out or ()) if size == 1]
    contents = [tuple(places[:count])] if len(places) >= count else []
    return Bound(0, rank, wraps=True, contents=(*contents, tuple(range(count)), tuple(range(rank - count, rank))))


def _reshaped(node: Node, slot: int) -> Bound | None:
    """The shape that is declared, that of the data, and the data flattened."""
    data, out, count = _shape(node, 0), _declared(node), _count(node.input(slot))
    found: list[Contents] = []
    if out is not None:
        found.append(tuple(out))
    if data is not None and count is not None and 0 not in data:
        kept = data[: count - 1]
        found += [(*kept, *[1] * (count - 1 - len(kept)), -1), (-1, *[1] * (count - 1)), (*[1] * (count - 1), -1)]
    return Bound(1, 3, contents=tuple(found))


def _expanded(node: Node, slot: int) -> Bound | None:
    data, out, count = _shape(node, 0), _declared(node), _count(node.input(slot))
    found: list[Contents] = [tuple(out)] if out is not None else []
    if data is not None:
        width = count if count is not None else len(data)
        grown = tuple(3 if size == 1 else size for size in data)
        found += [(*[2] * (width - len(shape)), *shape)[-width:] for shape in (grown, data) if width]
    return Bound(1, 2, contents=tuple(found))


def _declared_sizes(low: int, high: int) -> Rule:
    """The sizes of the output."""

    def rule(node: Node, slot: int) -> Bound:
        out = _declared(node)
        return Bound(low, high, contents=(tuple(out),) if out is not None else ())

    return rule


def _tiled(node: Node, slot: int) -> Bound:
    return Bound(1, 4)


def _parts(node: Node, slot: int) -> Bound | None:
    """Sizes of parts that add up."""
    size = _size(node, 0, node.attr("axis", 0))
    count = _count(node.input(slot))
    count = len(node.outputs) if count is None and node.op == "Split" else count
    declared = [_declared(node, index) for index in range(len(node.outputs))]
    axis = node.attr("axis", 0)
    found: list[Contents] = []
    if node.op == "Split" and all(shape is not None for shape in declared):
        found.append(tuple(shape[axis] for shape in declared if shape is not None))
    if isinstance(size, int) and count:
        part = size // count
        found.append((*[part] * (count - 1), size - part * (count - 1)))
    return Bound(1, 2, contents=tuple(found))


def _sliced(node: Node, slot: int) -> Bound | None:
    """Starts and ends within the axes that are sliced, axes in order, steps of one and two."""
    shape = _shape(node, 0)
    count = _count(node.input(slot))
    if shape is None:
        return Bound(0, 1) if slot == 1 else Bound(1, 3)
    along = known_integers(node.input(3))
    along = list(range(len(shape))) if along is None else along
    sizes = [shape[axis] for axis in along if -len(shape) <= axis < len(shape)][: count or None]
    match slot:
        case 1:
            return Bound(0, _least(sizes), wraps=True, contents=(tuple(0 for _ in sizes), tuple(1 for _ in sizes)))
        case 2:
            ends = tuple(sizes), tuple(sub(size, 1) for size in sizes)
            return Bound(1, add(_least(sizes), 1), contents=ends)
        case 3:
            width = count or len(shape)
            return Bound(0, len(shape), wraps=True, contents=(tuple(range(len(shape)))[:width],))
    return Bound(1, 3)


def _least(sizes: list[Size]) -> Size:
    numbers = [size for size in sizes if isinstance(size, int)]
    return min(numbers) if numbers else sizes[0] if sizes else 1


def _padded(node: Node, slot: int) -> Bound | None:
    if slot == 3:
        return _axes_in_order(node)
    shape, out = _shape(node, 0), _declared(node)
    count = _count(node.input(slot))
    rank = count // 2 if count else len(shape or ())
    grown: list[Contents] = []
    if shape is not None and out is not None and len(shape) == len(out) == rank:
        more = [sub(after, size) for after, size in zip(out, shape, strict=True)]
        if all(isinstance(size, int) and size >= 0 for size in more):
            grown.append((*[0] * rank, *more))
    return Bound(0, 3 if node.attr("mode", "constant") == "constant" else 2, contents=tuple(grown))


def _axes_in_order(node: Node) -> Bound | None:
    shape = _shape(node, 0)
    return Bound(0, len(shape), contents=(tuple(range(len(shape))),)) if shape is not None else None


def _resized(node: Node, slot: int) -> Bound | None:
    data, out = _shape(node, 0), _declared(node)
    found: list[Contents] = [tuple(out)] if out is not None else []
    axes, count = node.attr("axes"), _count(node.input(slot))
    if axes and out is not None:
        found = [tuple(out[axis] for axis in axes)]
    if data is not None and not axes and count in (None, len(data)):
        found.append((*data[:2], *(mul(size, 2) for size in data[2:])))
    return Bound(1, 9, contents=tuple(found))


def _bits(node: Node, slot: int) -> Bound | None:
    value = node.input(0)
    return Bound(0, dtypes.bits(value.dtype) if value is not None and value.dtype in dtypes.INTEGERS else 8)


def _positions(node: Node, slot: int) -> Bound | None:
    """Places in a list: of `SequenceAt` and the like, the first two."""
    return Bound(0, 1 if node.op != "SequenceInsert" else 2)


def _unpooled(node: Node, slot: int) -> Bound | None:
    """Places in the flattened planes that `MaxPool` has told."""
    shape = _shape(node, 0)
    if shape is None:
        return None
    size: Size = 1
    for one in shape[2:]:
        size = mul(size, one)
    return Bound(0, size, distinct=True)


def _written(node: Node, slot: int) -> Bound | None:
    """Where a TensorScatter begins to write, so that what it writes fits."""
    axis = node.attr("axis", -2)
    whole, part = _size(node, 0, axis), _size(node, 1, axis)
    return Bound(0, add(sub(whole, part), 1)) if whole is not None and part is not None else None


def _spectrum(node: Node, slot: int) -> Bound | None:
    """The size of a transform; its signal's length."""
    size = _size(node, 0, 1)
    return Bound(size, add(size, 1)) if size is not None else Bound(4, 9)


def _theta(node: Node, slot: int) -> Bound | None:
    batch, count = _size(node, 0, 0), _count(node.input(1))
    out = _declared(node)
    declared = ((batch, 2, *out[1:-1]),) if batch is not None and out is not None and len(out) == count else ()
    rest = (2,) * ((count or 4) - 2)
    sizes: tuple[Contents, ...] = ((batch, 2, *(4 + i for i, _ in enumerate(rest))),) if batch is not None else ()
    return Bound(2, 5, contents=(*declared, *sizes))


def _classes(node: Node, slot: int) -> Bound | None:
    size = _size(node, 0, 1)
    return Bound(0, size) if size is not None else None


def _seen_keys(node: Node, slot: int) -> Bound | None:
    """GroupQueryAttention: the last place of the keys that a row has, those of the past and the new."""
    past, new = _size(node, 3, 2), _size(node, 1, 1) or _size(node, 0, 1)
    total = add(past or 0, new or 1)
    return Bound(sub(total, 1), total)


def _all_keys(node: Node, slot: int) -> Bound | None:
    """GroupQueryAttention: how many keys there are in all."""
    found = _seen_keys(node, slot)
    return Bound(found.high, add(found.high, 1)) if found is not None else None


def _counted(node: Node, slot: int) -> Bound | None:
    """A length, where it is compared with places: how many there are."""
    value = node.input(1 - slot)
    for _ in range(_REACH):
        if value is None or value.node.is_op("Range"):
            break
        value = value.node.input(0) if not value.node.domain and value.node.op in _SHOWING else None
    size = value.shape[0] if value is not None and value.shape else None
    return Bound(1, add(size, 1)) if size is not None else None


def _attended(node: Node, slot: int) -> Bound | None:
    """How many keys are there, of those that the mask has places for."""
    size = _size(node, 3, -1) or _size(node, 1, -2)
    return Bound(1, add(size, 1)) if size is not None else None


_MS: Final = "com.microsoft"
_REDUCTIONS: Final = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum"),
    *("ReduceLogSumExp", "ReduceSumSquare"),
)
_RECURRENT: Final = ("RNN", "GRU", "LSTM")
_RULES: Final[dict[tuple[str, str, int], Rule]] = {
    ("", "Gather", 1): _rows(0, 0),
    ("", "GatherElements", 1): _rows(0, 0),
    ("", "GatherND", 1): _columns(distinct=False),
    ("", "ScatterND", 1): _columns(distinct=True),
    ("", "ScatterElements", 1): _scattered,
    ("", "Scatter", 1): _scattered,
    ("", "TensorScatter", 2): _written,
    (_MS, "EmbedLayerNormalization", 0): _row(2, 0),
    (_MS, "EmbedLayerNormalization", 1): _row(4, 0),
    (_MS, "EmbedLayerNormalization", 8): _row(3, 0),
    (_MS, "RotaryEmbedding", 1): _row(2, 0),
    ("", "RotaryEmbedding", 3): _row(1, 0),
    (_MS, "GroupQueryAttention", 5): _seen_keys,
    (_MS, "GroupQueryAttention", 6): _all_keys,
    (_MS, "GatherBlockQuantized", 1): _rows(0, 0, "gather_axis"),
    (_MS, "GatherND", 1): _columns(distinct=False),
    ("ai.onnx.ml", "ArrayFeatureExtractor", 1): _row(0, -1),
    ("", "OneHot", 1): _between(2, 9),
    ("", "TopK", 1): _up_to(0, -1, name="axis"),
    ("", "Range", 0): _between(0, 3),
    ("", "Range", 1): _between(4, 10),
    ("", "Range", 2): _between(1, 3),
    ("", "ConstantOfShape", 0): _declared_sizes(0, _FEW),
    **{("", op, 0): _declared_sizes(1, _FEW) for op in ("RandomNormal", "RandomUniform")},
    ("", "Reshape", 1): _reshaped,
    ("", "Expand", 1): _expanded,
    ("", "Tile", 1): _tiled,
    ("", "Tile", 2): _axes,
    ("", "Pad", 1): _padded,
    ("", "Pad", 3): _padded,
    ("", "CenterCropPad", 1): _declared_sizes(1, 9),
    ("", "Slice", -1): lambda node, slot: _sliced(node, slot) if slot else None,
    ("", "Split", 1): _parts,
    ("", "SplitToSequence", 1): _parts,
    ("", "Squeeze", 1): _squeezed,
    ("", "Unsqueeze", 1): _unsqueezed,
    **{("", op, 1): _axes for op in _REDUCTIONS},
    ("", "CumSum", 1): _axes,
    ("", "CumProd", 1): _axes,
    ("", "Resize", 3): _resized,
    ("", "Col2Im", 1): _declared_sizes(2, 6),
    **{("", op, 4): _up_to(0, 0) for op in _RECURRENT},
    ("", "ReverseSequence", 1): lambda node, slot: _up_to(0, node.attr("time_axis", 0))(node, slot),
    ("", "Loop", 0): _between(0, _FEW),
    ("", "SequenceAt", 1): _positions,
    ("", "SequenceInsert", 2): _positions,
    ("", "SequenceErase", 1): _positions,
    ("", "BitShift", 1): _bits,
    ("", "Trilu", 1): _between(-2, 3),
    ("", "Div", 1): _between(1, 8),
    ("", "Mod", 1): _between(1, 8),
    ("", "Pow", 1): _between(0, 4),
    ("", "MaxUnpool", 1): _unpooled,
    ("", "MaxUnpool", 2): _declared_sizes(1, 9),
    ("", "NonMaxSuppression", 2): _between(1, 9),
    ("", "AffineGrid", 1): _theta,
    ("", "DFT", 1): _spectrum,
    ("", "DFT", 2): lambda node, slot: Bound(1, sub(len(_shape(node, 0) or (0, 0, 0)), 1)),
    ("", "STFT", 1): _between(1, 4),
    ("", "STFT", 3): _between(4, 5),
    **{("", op, 0): _between(1, 17) for op in ("HannWindow", "HammingWindow", "BlackmanWindow")},
    ("", "MelWeightMatrix", 0): _between(4, 9),
    ("", "MelWeightMatrix", 1): _between(16, 17),
    ("", "MelWeightMatrix", 2): _between(8000, 8001),
    ("", "NegativeLogLikelihoodLoss", 1): _classes,
    ("", "SoftmaxCrossEntropyLoss", 1): _classes,
    ("", "Attention", 6): _attended,
    **{("", op, -1): _counted for op in ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")},
}


def told(node: Node, slot: int) -> str:
    """Who reads it, for people: `it is read by TopK 'n12' as K`."""
    known = signature(node.domain, node.op, node.version)
    names = known.inputs if known is not None else ()
    operand = names[min(slot, len(names) - 1)] if names else f"operand {slot}"
    return f"it is read by {node.op} '{node.label}' as {operand}"
