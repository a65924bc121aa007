"""Masks: how an input is recognised as one, by its use, and the forms that masks take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from graphopt.ir import Node, Value, dtypes
from graphopt.ir.operands import scalar
from graphopt.ir.tensor import Array
from graphopt.verify.inputs.uses import Use

MASKS: Final = ("right-padded", "left-padded", "holes", "empty row", "full")
CAUSAL: Final = "causal"
WITH_EMPTY_ROWS: Final = ("left-padded", "empty row")
"""Padding on the left leaves rows with nothing allowed where the model is causal."""

_LOWEST: Final = {
    dtypes.FLOAT16: float(np.finfo(np.float16).min),
    dtypes.BFLOAT16: -(2 - 2.0**-7) * 2.0**127,
    dtypes.FLOAT: float(np.finfo(np.float32).min),
    dtypes.DOUBLE: float(np.finfo(np.float64).min),
}
_LEAST_FILL: Final = -100.0
_REACH: Final = 12


@dataclass(frozen=True)
class MaskUse:
    """How a reader uses what it reads as a mask: as yes or no, or added to scores.

    `drops` where a yes leaves something out, None where that cannot be told.
    """

    kind: Literal["mask", "bias"]
    drops: bool | None = None


_MASKED: Final = {
    ("com.microsoft", "Attention"): {3},
    ("com.microsoft", "MultiHeadAttention"): {4},
    ("com.microsoft", "EmbedLayerNormalization"): {7},
    ("com.microsoft", "QAttention"): {5},
}
_BIASED: Final = {
    ("com.microsoft", "Attention"): {5},
    ("com.microsoft", "MultiHeadAttention"): {5},
    ("com.microsoft", "GroupQueryAttention"): {10},
    ("", "Attention"): {3},
}
_COMPARING: Final = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
_DECIDING: Final = {"Not", "And", "Or", "Xor"}


def mask_use(use: Use) -> MaskUse | None:
    """Whether this use takes what it reads for a mask."""
    if use.slot in _MASKED.get(use.key, ()):
        return MaskUse("mask", use.flipped)
    if _is_added(use):
        return MaskUse("bias") if use.factor == 1 and use.offset == 0 and not use.decided else None
    return None if use.node.domain else _decision(use)


def _is_added(use: Use) -> bool:
    """Whether the reader adds what it reads to scores. Only if nothing was done to it before is it the input that is
    added: of (1 - mask) * fill the input is the mask."""
    if use.slot in _BIASED.get(use.key, ()):
        return True
    if use.key != ("", "Add"):
        return False
    return _is_scores(use.node.input(1 - use.slot)) and _reaches_softmax(use.node)


def _decision(use: Use) -> MaskUse | None:
    """Whether the reader uses what it reads as yes or no: as a condition, as 1 - mask, as mask · fill."""
    node, slot = use.node, use.slot
    real = use.value.dtype in dtypes.FLOATS
    if node.op == "Where":
        return MaskUse("mask", _dropped(node, use.flipped)) if slot == 0 else None
    if node.op == "Cast":
        return MaskUse("mask") if node.attr("to") == dtypes.BOOL else None
    other = scalar(node.input(1 - slot)) if node.arity == 2 else None
    if node.op in _DECIDING or (node.op in _COMPARING and not real and other in (0, 1)):
        # A comparison of tokens with one number (padding) is no mask; tables are looked at before this.
        return MaskUse("mask")
    if node.op == "Sub" and not real:
        return MaskUse("mask") if slot == 1 and other == 1 else None
    if node.op == "Mul" and other is not None and float(other) <= _LEAST_FILL:
        return MaskUse("mask", not use.flipped)
    return None


def _dropped(node: Node, flipped: bool) -> bool | None:
    """Whether a yes makes a Where choose a fill."""
    fills = [scalar(node.input(slot)) for slot in (1, 2)]
    for fill, drops in zip(fills, (True, False), strict=True):
        if fill is not None and float(fill) <= _LEAST_FILL:
            return drops != flipped
    return None


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
    return _LOWEST.get(dtype, _LOWEST[dtypes.FLOAT])


def kept(kind: str, shape: tuple[int, ...], rng: np.random.Generator, square: bool = False) -> Array:
    """Where a mask keeps something: rows along the first axis, positions along the last.

    `square` where the last two axes are places of one sequence, so that a mask may be causal.
    """
    if not shape:
        # A flag, such as the condition of an If: both of its branches are to be seen.
        return np.array(kind != "holes")
    rows, length = (shape[0] if len(shape) > 1 else 1), shape[-1]
    position = np.arange(length)
    lengths = _lengths(rows, length, rng)[:, None]
    keep = np.ones((rows, length), bool)
    match kind:
        case "right-padded":
            keep = position < lengths
        case "left-padded":
            keep = position >= length - lengths
        case "holes" | "empty row":
            keep = rng.random((rows, length)) < 0.7
            keep[:, :1] = True
    if kind == "empty row":
        keep[-1:] = False
    full = np.broadcast_to(keep.reshape(rows, *[1] * (len(shape) - 2), length) if len(shape) > 1 else keep[0], shape)
    if kind == CAUSAL and square:
        full = full & np.tri(shape[-2], length, length - shape[-2], dtype=bool)
    return np.array(full)


def _lengths(rows: int, length: int, rng: np.random.Generator) -> Array:
    """How much of each row is kept: at least half, less than all where there is more than one, not all the same."""
    least, most = (length + 1) // 2, max(length - 1, 1)
    return np.array(least + (rng.integers(0, max(most - least + 1, 1)) + np.arange(rows)) % max(most - least + 1, 1))
