"""Figures in words, the same in every report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

MINUS = "−"
_DIGITS = 7
"""Decimals at most."""


def reading(metric: str, value: float | None) -> str:
    """A metric's value with its unit: `0.99941`, `34.2 dB`, `98.40 %`; a dash where it is no number."""
    if value is None:
        return "–"
    match metric:
        case "cosine":
            text = f"{value:.5f}" if value < 0.99995 else f"{value:.7f}"
        case "sqnr":
            text = f"{value:.1f} dB"
        case "top1":
            text = f"{100 * value:.2f} %"
        case _:
            text = f"{value:.5g}"
    return text.replace("-", MINUS)


def cost(value: float | None) -> str:
    """What something takes from a metric, in two figures and never as a power of ten; empty where it is not known."""
    if value is None or not math.isfinite(value):
        return ""
    digits = 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(digits, 0), _DIGITS)}f}".replace("-", MINUS)


def percent(share: float) -> str:
    """A share of 1: `97 %`, `0.4 %`; never 100 % or 0 % for what is nearly so."""
    if 0 < share < 0.01 or 0.99 < share < 1:
        return f"{min(max(100 * share, 0.1), 99.9):.1f} %"
    return f"{100 * share:.0f} %"


def shortened(names: Sequence[str]) -> list[str]:
    """The names without the parts, up to a `/`, with which all of them begin, or end: `layer.0/query`, `layer.1/query`
    of `/encoder/layer.0/query/MatMul` and `/encoder/layer.1/query/MatMul`."""
    parts = [name.split("/") for name in names]
    first, last = _common(parts), _common([one[::-1] for one in parts])
    return ["/".join(one[first : len(one) - last]) for one in parts]


def _common(parts: Sequence[Sequence[str]]) -> int:
    """With how many parts all begin; at least one part of each is left, and as much for the other end."""
    most = (min(map(len, parts), default=1) - 1) // 2
    return next((count for count in range(most) if len({one[count] for one in parts}) > 1), max(most, 0))


def counted(number: int, one: str, many: str = "") -> str:
    """`1 step`, `36 steps`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def kernel(name: str) -> str:
    """A kernel without its domain: `MatMulIntegerToFloat` for `com.microsoft.MatMulIntegerToFloat`."""
    return name.rpartition(".")[2]


def mixed(counts: Mapping[str, int]) -> str:
    """`static`, or `static 17, float 1`."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
