"""Real numbers of many kinds, and what the readers of an input say of those it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from graphopt.ir.dims import Size
from graphopt.ir.operands import scalar
from graphopt.ir.tensor import Array
from graphopt.verify.inputs.uses import Use

NORMAL: Final = "normal"
POSITIVE: Final = "positive"
ONES: Final = "ones"
UNIFORM: Final = "uniform"
TIES: Final = "ties"
KINDS: Final = (UNIFORM, "large", TIES, "constant rows", "negative", "tiny", "offset", "zeros")
LONE: Final = "minus infinity"
"""For what has one element only: infinities of both signs are in one feed otherwise."""

NAN: Final = "nan"
SPECIAL: Final = (NAN, "infinities", LONE, "negative zeros")


@dataclass(frozen=True)
class Span:
    """The numbers that a reader takes, from `low` to `high`; `strict` where no feed may hold others.

    `content` are the very numbers, as many as there are elements.
    """

    low: float
    high: float
    strict: bool = False
    content: tuple[float, ...] = ()


_ABOVE_ZERO: Final = Span(0.05, 3.0)
_SPANS: Final[dict[tuple[str, int], Span]] = {
    **{(op, 0): _ABOVE_ZERO for op in ("Log", "Sqrt", "Pow")},
    ("Acosh", 0): Span(1.0, 3.0),
    **{(op, 0): Span(-0.95, 0.95) for op in ("Asin", "Acos", "Atanh")},
    ("Bernoulli", 0): Span(0.0, 1.0, strict=True),
    ("Dropout", 1): Span(0.0, 0.9, strict=True),
    ("BatchNormalization", 4): Span(0.1, 2.0),
    **{(op, 1): Span(0.01, 0.1, strict=True) for op in ("QuantizeLinear", "DequantizeLinear")},
    ("Clip", 1): Span(-1.5, -0.5),
    ("Clip", 2): Span(0.5, 1.5),
    ("Resize", 1): Span(0.0, 1.0),
    ("Resize", 2): Span(0.5, 2.5, strict=True),
    ("Upsample", 1): Span(1.0, 2.5, strict=True),
    ("Range", 0): Span(0.0, 2.0, strict=True),
    ("Range", 1): Span(4.0, 9.0, strict=True),
    ("Range", 2): Span(0.5, 1.5, strict=True),
    ("NonMaxSuppression", 3): Span(0.2, 0.8, strict=True),
    ("NonMaxSuppression", 4): Span(0.0, 0.5, strict=True),
}


def span(uses: Sequence[Use]) -> Span | None:
    """The numbers that all of these uses take; None for any."""
    found = [_scales(use) or _SPANS[use.node.op, use.slot] for use in uses if _applies(use)]
    exact = next((one for one in found if one.content), None)
    if exact is not None or not found:
        return exact
    low, high = max(one.low for one in found), min(one.high for one in found)
    return Span(low, high, any(one.strict for one in found)) if low <= high else found[0]


def _scales(use: Use) -> Span | None:
    """The factors of a Resize or Upsample: those that are declared, else such that batch and channels stay."""
    is_scales = use.node.op in ("Resize", "Upsample") and use.slot == use.node.arity - 1
    data = use.node.input(0)
    shape = data.shape if data is not None else None
    if not is_scales or shape is None:
        return None
    axes = use.node.attr("axes") or range(len(shape))
    out = use.node.outputs[0].shape or ()
    declared = [_ratio(shape[axis], out[axis]) for axis in axes] if len(out) == len(shape) else [0.0]
    usual = [1.0 if axis < 2 else 2.0 for axis in axes]
    return Span(0.5, 2.5, strict=True, content=tuple(declared if all(declared) else usual))


def _ratio(before: Size, after: Size) -> float:
    """The factor between two sizes, a little more where it is rounded; 0 where they are not numbers."""
    if before == after:
        return 1.0
    return (after + 1e-3) / before if isinstance(before, int) and isinstance(after, int) and before else 0.0


def _applies(use: Use) -> bool:
    if use.node.domain or use.decided or (use.node.op, use.slot) not in _SPANS:
        return False
    exponent = scalar(use.node.input(1)) if use.node.op == "Pow" else None
    # A whole power takes any base, of which the sign matters.
    return exponent is None or float(exponent) != int(exponent)


def numbers(
    kind: str, shape: tuple[int, ...], dtype: np.dtype[Any], within: Span | None, rng: np.random.Generator
) -> Array:
    """An array of this kind of numbers; those of a `strict` span are always within it."""
    if within is not None and len(within.content) == np.prod(shape, dtype=int):
        return np.array(within.content, dtype).reshape(shape)
    if within is not None and (within.strict or kind in (NORMAL, POSITIVE, UNIFORM)):
        found = rng.uniform(within.low, within.high, shape)
        return found.astype(dtype)
    wide = dtype.itemsize > 2
    with np.errstate(over="ignore"):
        found = _drawn(kind, shape, rng, 1e4 if wide else 100.0, 1e-5 if wide else 1e-3).astype(dtype)
    return np.abs(found) if within is _ABOVE_ZERO and kind not in ("negative", *SPECIAL) else found


def _drawn(kind: str, shape: tuple[int, ...], rng: np.random.Generator, large: float, tiny: float) -> Array:
    drawn = rng.normal(size=shape)
    match kind:
        case "positive":
            return rng.uniform(0.5, 2.0, shape)
        case "ones":
            return np.ones(shape)
        case "uniform":
            return rng.uniform(0.0, 1.0, shape)
        case "tiny":
            return drawn * tiny
        case "large":
            return drawn * large
        case "offset":
            return drawn + large
        case "negative":
            return -np.abs(drawn) - 0.1
        case "zeros":
            return np.zeros(shape)
        case "ties":
            return _tied(shape, rng)
        case "constant rows":
            return np.array(np.broadcast_to(drawn[..., :1], shape)) if shape and shape[-1] else drawn
    return _dotted(kind, drawn, rng)


_TIED: Final = (0.5, -1.0, 0.0, 1.0)


def _tied(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Few distinct numbers, each of them as often as the others, and rows that are equal.

    One is half-way between two integers.
    """
    found = rng.permutation(np.resize(_TIED, np.prod(shape, dtype=int))).reshape(shape)
    if len(shape) > 1:
        found[..., 1::2, :] = found[..., 0::2, :][..., : found[..., 1::2, :].shape[-2], :]
    return found


_DOTS: Final = {
    NAN: (np.nan,),
    "infinities": (np.inf, -np.inf),
    LONE: (-np.inf,),
    "negative zeros": (-0.0, 0.0),
}


def _dotted(kind: str, drawn: Array, rng: np.random.Generator) -> Array:
    """A few elements that are no plain numbers, in the last of the rows, so that the others stay as they are."""
    dots = _DOTS.get(kind, ())
    if not dots or not drawn.size:
        return drawn
    # A vector is one row; of rows that are too short there are several.
    row = drawn[-1:] if drawn.ndim > 1 else drawn.reshape(-1)
    row = row if row.size >= len(dots) else drawn[-len(dots) :] if drawn.ndim else row
    flat = row.reshape(-1)
    count = min(flat.size, max(len(dots), flat.size // (4 if kind == "negative zeros" else 16)))
    places = rng.permutation(flat.size)[:count]
    flat[places] = [dots[i % len(dots)] for i in range(count)]
    row[...] = flat.reshape(row.shape)
    return drawn
