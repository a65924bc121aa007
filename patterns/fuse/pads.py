"""What a Pad and the padding of the operator after it are together."""

from __future__ import annotations

from typing import Any

from graphopt.ir import Value
from graphopt.rewrite import Reason


def why_not(
    x: Value, around: list[int], axes: list[int] | None, fillers: list[Any], wanted: float, others: dict[str, Any]
) -> Reason:
    """Whether a Pad of the image `x` with `wanted` can be pads of an operator with the attributes `others`."""
    if x.rank is None or x.rank < 3:
        return "the rank is not known, or there is no image"
    found = next((_number(filler) for filler in fillers if filler is not None), 0.0)
    if found != wanted:
        return f"it is filled with {found:g}"
    if others.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "the operator pads by itself"
    if others.get("auto_pad") == "VALID" and any(others.get("pads") or ()):
        return "it is said both that the operator pads and that it does not"
    before, after = _by_axis(x.rank, around, axes)
    if min(before + after) < 0 or any(before[:2] + after[:2]):
        return f"pads {around} are not all around the image"
    return True


def inside_windows(x: Value, around: list[int], axes: list[int] | None, others: dict[str, Any]) -> Reason:
    """Whether every window of a pool sees the image, so that its own padding does what the Pad did."""
    if others.get("ceil_mode") or any(step != 1 for step in others.get("dilations") or ()):
        return "sizes are rounded up, or the kernel has holes"
    kernel = others["kernel_shape"]
    joined = joined_pads(x, around, axes, others)["pads"]
    return all(pad < size for pad, size in zip(joined, [*kernel, *kernel], strict=True)) or "pads beyond the kernel"


def joined_pads(x: Value, around: list[int], axes: list[int] | None, others: dict[str, Any]) -> dict[str, Any]:
    """The attributes of the operator that pads by itself: what the Pad added, and what it added before."""
    before, after = _by_axis(x.rank or 0, around, axes)
    outer = before[2:] + after[2:]
    own = others.get("pads") or [0] * len(outer)
    return {**others, "auto_pad": None, "pads": [a + b for a, b in zip(outer, own, strict=True)]}


def _by_axis(rank: int, around: list[int], axes: list[int] | None) -> tuple[list[int], list[int]]:
    """What is put before and after each axis of an operand of `rank`."""
    listed = range(rank) if axes is None else [axis % rank for axis in axes]
    before, after = [0] * rank, [0] * rank
    for at, axis in enumerate(listed):
        before[axis], after[axis] = around[at], around[len(listed) + at]
    return before, after


def _number(filler: Any) -> float:
    """The filler, written as a number or as a tensor of one."""
    while isinstance(filler, list):
        filler = filler[0] if filler else 0.0
    return float(filler)
