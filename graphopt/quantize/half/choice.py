"""Which operations are computed in half precision, and why the others are not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from graphopt.ir import IR_DOMAIN, Model, Node, Value, dtypes
from graphopt.ir.fills import Fill, fills
from graphopt.quantize.half.reach import LARGEST, MOVERS, SMALLEST_NORMAL, Reach
from graphopt.quantize.half.slots import Slots, half_slots

Kind = Literal["asked", "large", "small", "sum", "angle", "count", "widened", "operator"]
"""Why an operation stays in float32: by wish; values that overflow; values that vanish; the sum of many numbers; an
angle, whose error is absolute; what is made of integers alone; what the model itself widened from half precision; an
operator that knows no half precision."""

LIMIT: Final = 2.0**15
"""Where values are kept in float32, if nobody says otherwise: half of the largest, since samples are not everything."""

MASK_SLOT: Final = 3
"""Where an attention has what is added to its scores."""

READS_ANY: Final = frozenset({"Shape", "Size", "Cast", "IsNaN", "IsInf"})
"""Operators that take what comes and say themselves what they make of it."""

_SUMS: Final = frozenset(
    {
        *("ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceProd", "ReduceLogSum"),
        *("ReduceLogSumExp", "CumSum", "GlobalAveragePool", "GlobalLpPool", "MeanVarianceNormalization"),
    }
)
_EXACT: Final = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "RoiAlign", "MaxRoiPool", "NonMaxSuppression"),
        *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"),
        *("Range", "EyeLike", "AffineGrid", "DFT", "STFT", "CastLike", "BitCast", "SequenceAt", "Det"),
    }
)
"""Operators with a type parameter for floats whose operands are places or scales, or whose results are told in
attributes, random, or of another type in half precision."""
_ANGLES: Final = frozenset({"Sin", "Cos", "Tan"})
_ELEMENTWISE: Final = MOVERS | {"Add", "Sub", "Mul", "Div", "Concat", "Where", "Mod", "Cast"}
_FAR: Final = 64
"""How many operations the arithmetic of one angle or mask has at most; behind them are activations."""


@dataclass(frozen=True)
class Reason:
    """Why an operation stays in float32."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Choice:
    """Operations that become half with the operands and results that do, and why others with floats stay."""

    half: dict[Node, Slots]
    single: dict[Node, Reason]
    reach: Reach


def choose(model: Model, reach: Reach, keep: Collection[str], limit: float) -> Choice:
    """Decides for every operation of `model`; `keep` are names of operations or of their results."""
    _given_masks(model, reach)
    choice = Choice({}, {}, reach)
    exact = _angles(model)
    for graph in model.graph.scopes():
        for node in graph.inputs:
            reach.source(node.output)
        for node in graph.ops():
            reach.follow(node)
            if node.domain == "" and node.op in READS_ANY:
                _note_widened(node, choice)
                continue
            slots = half_slots(node)
            reason = _reason(node, slots, choice, keep, exact, limit)
            if reason is None:
                choice.half[node] = slots
            elif reason.text:
                choice.single[node] = reason
    return choice


def _reason(
    node: Node, slots: Slots, choice: Choice, keep: Collection[str], angles: set[Node], limit: float
) -> Reason | None:
    """Why `node` stays in float32; None where it need not, and no text where it has no floats to speak of."""
    reach, floats = choice.reach, [value for value in node.inputs[: node.arity] if value is not None and _single(value)]
    results = [value for value in node.outputs if _single(value)]
    if not slots.inputs:
        return Reason("operator", f"{node.op} has no half precision" if floats or results else "")
    if not {node.label, node.name, *(value.name for value in node.outputs)}.isdisjoint(keep):
        return Reason("asked", "is to be kept")
    if not node.domain and node.op in _EXACT:
        return Reason("operator", f"{node.op} is exact only in float32")
    if node in angles:
        return Reason("angle", "computes an angle")
    if any(_is_widened(value, choice) for value in floats):
        return Reason("widened", "the model itself widens this to float32")
    if _only_counts(node, floats, reach):
        return Reason("count", "is made of integers alone")
    if not node.domain and (node.op in _SUMS or node.attr("reduction", "none") not in ("none", b"none")):
        return Reason("sum", f"{node.op} adds up many numbers")
    return _range_reason(node, floats, results, reach, limit)


def mask_of(node: Node) -> Value | None:
    """The float32 mask of an attention, where a fill of it may become the lowest half; None for anything else.

    The runtime's kernel for the standard operator makes one thing of the lowest number in both types.
    """
    mask = node.input(MASK_SLOT)
    if node.op != "Attention" or not _single(mask) or mask is None:
        return None
    lowest_alone = not node.domain and not (Fill.LOW | Fill.OTHER) & fills(mask)
    return mask if node.domain == IR_DOMAIN or lowest_alone else None


def _range_reason(node: Node, floats: list[Value], results: list[Value], reach: Reach, limit: float) -> Reason | None:
    mask = mask_of(node)
    for value in (*floats, *results):
        if value is mask:
            if mask.rank is None and _over(reach.peak(mask), LARGEST):
                return Reason("large", "nothing is known of the shape of its mask")
            continue
        found = reach.fit(value)
        if found is not None and found.reason:
            return Reason("large" if found.peak > LARGEST else "small", f"'{value.name}' {found.reason}")
        peak, floor = reach.peak(value), reach.floor(value)
        if found is None and _over(peak, limit):
            return Reason("large", f"nothing bounds '{value.name}'" if peak == math.inf else _reaches(value, peak))
        if floor is not None and floor < SMALLEST_NORMAL:
            return Reason("small", f"'{value.name}' may be as small as {floor:.2g}")
    scores = _scores(node, reach) if node.op == "Attention" and node.domain in ("", IR_DOMAIN) else None
    return Reason("large", f"its scores may reach {scores:.3g}") if _over(scores, limit) else None


def _reaches(value: Value, peak: float | None) -> str:
    return f"'{value.name}' reaches {peak:.3g}"


def _over(peak: float | None, limit: float) -> bool:
    return peak is not None and not peak <= limit


def _scores(node: Node, reach: Reach) -> float | None:
    """What |scale · q·k| is at most; None where that is not known."""
    q, k = node.input(0), node.input(1)
    peaks = reach.peak(q), reach.peak(k)
    width = q.shape[-1] if q is not None and q.shape else None
    if peaks[0] is None or peaks[1] is None or not isinstance(width, int):
        return None
    heads = node.attr("q_num_heads") or 1
    scale = node.attr("scale") or (width / heads) ** -0.5
    return float(scale) * width / heads * peaks[0] * peaks[1]


def _single(value: Value | None) -> bool:
    return value is not None and value.dtype == dtypes.FLOAT


def _only_counts(node: Node, floats: list[Value], reach: Reach) -> bool:
    varying = [value for value in floats if value.resolved.tensor is None]
    results = [value for value in node.outputs if _single(value)]
    if results:
        return all(value in reach.counted for value in results)
    return bool(varying) and all(value.resolved in reach.counted for value in varying)


def _note_widened(node: Node, choice: Choice) -> None:
    """A Cast from a narrower float to float32 begins what the model keeps in float32 on purpose."""
    x = node.input(0)
    if node.op == "Cast" and x is not None and x.dtype in (dtypes.FLOAT16, dtypes.BFLOAT16) and _single(node.output):
        choice.single[node] = Reason("widened", "the model itself widens this to float32")


def _is_widened(value: Value, choice: Choice) -> bool:
    reason = choice.single.get(value.resolved.node)
    return reason is not None and reason.kind == "widened"


def _angles(model: Model) -> set[Node]:
    """Sin, Cos, and the arithmetic that makes their operands: an error of an angle is not relative to it."""
    found: set[Node] = set()
    for graph in model.graph.scopes():
        for node in graph.ops():
            if not node.domain and node.op in _ANGLES:
                found.add(node)
                found.update(_behind(node.input(0), _ELEMENTWISE))
    return found


def _behind(value: Value | None, ops: Collection[str]) -> Iterator[Node]:
    """The operations among `ops` that `value` is made by, with nothing else in between; the nearest first."""
    pending = [value.resolved.node] if value is not None else []
    seen: set[Node] = set()
    while pending and len(seen) < _FAR:
        node = pending.pop(0)
        if node in seen or node.domain or node.op not in ops:
            continue
        seen.add(node)
        yield node
        pending += [x.resolved.node for x in node.inputs if x is not None]


def _given_masks(model: Model, reach: Reach) -> None:
    """A mask that is a graph input may hold any number, whatever samples have in it."""
    for graph in model.graph.scopes():
        for node in graph.ops():
            mask = node.input(MASK_SLOT)
            if node.op != "Attention" or node.domain not in ("", IR_DOMAIN) or mask is None:
                continue
            made = [mask, *(x for inner in _behind(mask, _ELEMENTWISE) for x in inner.inputs if x is not None)]
            for value in made:
                if value.resolved.node.op == "Input" and value.dtype == dtypes.FLOAT:
                    reach.given(value.resolved)
