"""Comparing two results: integers, strings, shapes, NaN and infinities exactly; numbers against the noise floor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from graphopt.ir.tensor import Array
from graphopt.verify.results import Comparison, worst
from graphopt.verify.tolerance import CHAOTIC, K, epsilon, is_float, smallest

_FILL: Final = 5e3
"""From this magnitude on a value may be the fill of a mask: such are held against themselves and hide nothing else."""

_NOTHING = "every value is NaN"


def compare(
    name: str, reference: Any, candidate: Any, moved: Sequence[Any], *, feed: str = "", allowed: float = K
) -> Comparison:
    """`candidate` against `reference`; `moved` are results of the reference when its inputs moved by one ulp.

    The verdict is `equal` up to `allowed` floors, `inconclusive` where the floor is as large as the signal, `skipped`
    where nothing but NaN is there to compare.
    """
    pairs = list(_leaves(reference)), list(_leaves(candidate))
    noise = [list(_leaves(draw)) for draw in moved]
    if len(pairs[0]) != len(pairs[1]):
        reason = f"{len(pairs[0])} tensors in the reference, {len(pairs[1])} in the candidate"
        return Comparison(name, "unequal", feed=feed, reason=reason)
    draws = [[draw[i] for draw in noise if len(draw) == len(pairs[0])] for i in range(len(pairs[0]))]
    found = [_tensor(name, a, b, near, allowed) for a, b, near in zip(*pairs, draws, strict=True)]
    return replace(worse(found) if found else Comparison(name, "equal"), feed=feed)


def worse(comparisons: Iterable[Comparison]) -> Comparison:
    """The one that decides: by verdict, then by the error in floors. `skipped` only when all are."""
    found = list(comparisons)
    decided = [one for one in found if one.verdict != "skipped"] or found
    verdict = worst(one.verdict for one in decided)
    return max((one for one in decided if one.verdict == verdict), key=lambda one: one.ratio or 0.0)


def over_feeds(comparisons: Sequence[Comparison]) -> Comparison:
    """What all feeds together say of one output.

    A feed on which the output is chaotic says nothing: it counts only where no other feed decides.
    """
    unequal = [one for one in comparisons if one.verdict == "unequal"]
    equal = [one for one in comparisons if one.verdict == "equal"]
    found = worse(unequal or equal or comparisons)
    return replace(found, verdict="inconclusive") if found.verdict == "skipped" else found


def _leaves(value: Any) -> Iterable[Array]:
    """The tensors of a result: of a sequence, a map, an optional."""
    if value is None:
        return
    if isinstance(value, dict):
        yield np.array(list(value.keys()))
        yield np.array(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        array = np.asarray(value)
        yield array.view(array.real.dtype) if array.dtype.kind == "c" else array


def _tensor(name: str, a: Array, b: Array, moved: Sequence[Array], allowed: float) -> Comparison:
    if a.dtype != b.dtype or a.shape != b.shape:
        kinds = [f"{x.dtype}{list(x.shape)}" for x in (a, b)]
        return Comparison(name, "unequal", reason=f"{kinds[0]} in the reference, {kinds[1]} in the candidate")
    if a.size == 0:
        return Comparison(name, "skipped", reason="it is empty")
    moved = [draw for draw in moved if draw.dtype == a.dtype and draw.shape == a.shape]
    if is_float(a):
        return _floats(name, a, b, moved, allowed)
    # Where an ulp on the inputs turns an index or a decision over, it says nothing.
    settled = np.ones(a.shape, bool)
    for draw in moved:
        settled &= np.asarray(draw == a)
    wrong = int(np.count_nonzero((a != b) & settled))
    if wrong:
        return Comparison(name, "unequal", reason=f"{wrong} of {a.size} elements differ")
    if np.count_nonzero(settled) * 2 < a.size:
        return Comparison(
            name, "inconclusive", reason="one ulp on the inputs turns more than half of the elements over"
        )
    return Comparison(name, "equal")


def _floats(name: str, reference: Array, candidate: Array, moved: Sequence[Array], allowed: float) -> Comparison:
    a, b = (x.astype(np.float64).reshape(-1) for x in (reference, candidate))
    draws = [x.astype(np.float64).reshape(-1) for x in moved]
    settled = np.ones(a.shape, bool)
    for draw in draws:
        settled &= _same_pattern(a, draw)
    if np.count_nonzero(settled) * 2 < a.size:
        return Comparison(name, "inconclusive", reason="one ulp on the inputs makes NaN or infinity come and go")
    wrong = np.count_nonzero(~_same_pattern(a, b) & settled)
    if wrong:
        reason = f"NaN or infinity in one and not in the other at {wrong} of {a.size} elements"
        return Comparison(name, "unequal", reason=reason)
    if np.isnan(a).all():
        return Comparison(name, "skipped", reason=_NOTHING)
    compared = settled & np.isfinite(a) & np.isfinite(b)
    fills = compared & (np.abs(a) >= _FILL)
    found = []
    for mask in (compared & ~fills, fills):
        if mask.any():
            # Where all are meant, as nearly always, nothing has to be copied.
            chosen = slice(None) if mask.all() else mask
            noise = np.zeros(np.count_nonzero(mask))
            for draw in draws:
                np.maximum(noise, np.abs(draw[chosen] - a[chosen]), out=noise)
            found.append(_numbers(name, a[chosen], b[chosen], noise, epsilon(reference), smallest(reference), allowed))
    return worse(found) if found else Comparison(name, "equal", ratio=0.0)


def _same_pattern(a: Array, b: Array) -> Array:
    """Where both are finite, both NaN, or the same infinity."""
    same: Array = np.isfinite(a) & np.isfinite(b)
    if not same.all():
        same = np.where(np.isfinite(a), same, (a == b) | np.isnan(a) & np.isnan(b))
    return same


def _numbers(name: str, a: Array, b: Array, noise: Array, eps: float, tiny: float, allowed: float) -> Comparison:
    """Finite numbers of one order of magnitude.

    Both the largest error is held against the largest noise, and the rms error against the rms noise: the first finds
    what is wrong in one place, the second what is a little wrong everywhere.
    """
    error = np.abs(b - a)
    scale = _rms(a)
    least = max(eps * scale, tiny)
    floor = max(float(noise.max()), least)
    rms = _rms(error)
    ratio = max(float((error / np.maximum(floor, eps * np.abs(a))).max()), rms / max(_rms(noise), least))
    cosine = float(np.mean((a / scale) * (b / _rms(b)))) if scale and b.any() else None
    found = Comparison(
        name,
        "equal" if ratio <= allowed else "unequal",
        max_abs=float(error.max()),
        max_rel=float(error.max()) / scale if scale else None,
        rms=rms,
        cosine=cosine,
        floor=floor,
        ratio=ratio,
    )
    if ratio > allowed:
        found = replace(found, reason=f"off by {ratio:.3g} times the noise floor ({allowed:g} are allowed)")
    if ratio > 0 and K * _rms(noise) > CHAOTIC * scale and scale > 0:
        reason = "the output is chaotic: one ulp on the inputs moves it as much as a mistake would"
        found = replace(found, verdict="inconclusive", reason=reason)
    return found


def _rms(x: Array) -> float:
    # Scaled, so that the lowest float64 does not overflow; no BLAS, whose threads wait for each other on small arrays.
    largest = float(np.abs(x).max())
    return largest * math.sqrt(float(np.square(x / largest).mean())) if largest else 0.0


def lost_numbers(before: Any, after: Any) -> bool:
    """Whether `after` has NaN or infinities that `before` has not."""
    return any(_finite(b) < _finite(a) for a, b in zip(_leaves(before), _leaves(after), strict=False))


def _finite(array: Array) -> int:
    return int(np.count_nonzero(np.isfinite(array))) if is_float(array) else array.size
