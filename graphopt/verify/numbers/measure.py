"""Comparing two results: integers, strings, shapes, NaN and infinities exactly; numbers against the noise floor."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from graphopt.ir.tensor import Array
from graphopt.verify.numbers.judge import Judgement, Precision, is_believable, judge
from graphopt.verify.numbers.scales import blocks, has_far_columns, rows
from graphopt.verify.numbers.tolerance import K, epsilon, is_float, smallest
from graphopt.verify.results import Comparison, worst

NO_ELEMENTS: Final = "it has no elements to compare"
_NOTHING: Final = "every value is NaN"


def compare(
    name: str,
    reference: Any,
    candidate: Any,
    moved: Sequence[Any],
    *,
    feed: str = "",
    allowed: float = K,
    truth: Any = None,
    signs: bool = False,
) -> Comparison:
    """`candidate` against `reference`; `moved` are results of the reference when its inputs moved by one ulp.

    The verdict is `equal` up to `allowed` floors, `inconclusive` where the floor is as large as the signal, `skipped`
    where nothing but NaN is there to compare. `truth` is what the reference gives in float64: where it can be believed,
    `equal` is also what is no further from it than twice the reference. With `signs` zeros must have the same sign.
    """
    pairs = list(_leaves(reference)), list(_leaves(candidate))
    noise = [list(_leaves(draw)) for draw in moved]
    if len(pairs[0]) != len(pairs[1]):
        reason = f"{len(pairs[0])} tensors in the reference, {len(pairs[1])} in the candidate"
        return Comparison(name, "unequal", feed=feed, reason=reason)
    draws = [[draw[i] for draw in noise if len(draw) == len(pairs[0])] for i in range(len(pairs[0]))]
    exact: list[Array | None] = [*_leaves(truth)]
    if len(exact) != len(pairs[0]):
        exact = [None] * len(pairs[0])
    found = [
        _tensor(name, a, b, near, true, allowed, signs) for a, b, near, true in zip(*pairs, draws, exact, strict=True)
    ]
    return replace(worse(found) if found else Comparison(name, "equal"), feed=feed)


def worse(comparisons: Iterable[Comparison]) -> Comparison:
    """The one that decides: by verdict, then by the error in floors. `skipped` only when all are."""
    found = list(comparisons)
    decided = [one for one in found if one.verdict != "skipped"] or found
    verdict = worst(one.verdict for one in decided)
    return max((one for one in decided if one.verdict == verdict), key=lambda one: one.ratio or 0.0)


def over_feeds(comparisons: Sequence[Comparison], ordinary: Collection[str] = ()) -> Comparison:
    """What all feeds together say of one output; `ordinary` are labels of feeds.

    A feed on which the output is chaotic says nothing: it counts only where no other feed decides, or where it is so
    on all ordinary ones. Numbers that drown what is chaotic, or leave nothing of it, decide nothing then.
    """
    unequal = [one for one in comparisons if one.verdict == "unequal"]
    equal = [one for one in comparisons if one.verdict == "equal"]
    usual = [one for one in comparisons if one.feed in ordinary and one.verdict != "skipped"]
    lost = usual if all(one.verdict == "inconclusive" for one in usual) else []
    found = worse(unequal or lost or equal or comparisons)
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
        yield np.stack([array.real, array.imag], -1) if array.dtype.kind == "c" else array


def _tensor(
    name: str, a: Array, b: Array, moved: Sequence[Array], truth: Array | None, allowed: float, signs: bool
) -> Comparison:
    if a.dtype != b.dtype or a.shape != b.shape:
        kinds = [f"{x.dtype}{list(x.shape)}" for x in (a, b)]
        return Comparison(name, "unequal", reason=f"{kinds[0]} in the reference, {kinds[1]} in the candidate")
    if a.size == 0:
        return Comparison(name, "skipped", reason=NO_ELEMENTS)
    moved = [draw for draw in moved if draw.dtype == a.dtype and draw.shape == a.shape]
    if not is_float(a):
        return _exact(name, a, b, moved)
    if truth is not None and (truth.shape != a.shape or truth.dtype != np.float64):
        truth = None
    exact = None if truth is None else rows(truth)
    found = _floats(name, rows(a), rows(b), [rows(draw) for draw in moved], exact, allowed, signs)
    return found if found.same_pattern is None else replace(found, top1=_top1(a, b))


def _exact(name: str, a: Array, b: Array, moved: Sequence[Array]) -> Comparison:
    """Integers, bools, strings, and floats too narrow to have a floor."""
    # Where an ulp on the inputs turns an index or a decision over, it says nothing.
    settled = np.ones(a.shape, bool)
    for draw in moved:
        settled &= ~_differ(draw, a)
    different = _differ(a, b)
    wrong = int(np.count_nonzero(different & settled))
    mismatches = int(np.count_nonzero(different)) / a.size
    if wrong:
        reason = f"{wrong} of {a.size} elements differ"
        return Comparison(name, "unequal", mismatches=mismatches, top1=_top1(a, b), reason=reason)
    if np.count_nonzero(settled) * 2 < a.size:
        reason = "one ulp on the inputs turns more than half of the elements over"
        return Comparison(name, "inconclusive", mismatches=mismatches, reason=reason)
    return Comparison(name, "equal", mismatches=mismatches, top1=_top1(a, b))


def _differ(a: Array, b: Array) -> Array:
    different: Array = np.asarray(a != b)
    if a.dtype.name.startswith("float") and a.dtype.kind in "fV":
        # Narrow floats: NaN is what it is, and the two zeros are one.
        different &= a.view(f"u{a.itemsize}") != b.view(f"u{a.itemsize}")
    return different


def _floats(
    name: str,
    a: Array,
    b: Array,
    draws: Sequence[Array],
    truth: Array | None,
    allowed: float,
    signs: bool,
) -> Comparison:
    """Matrices of floats."""
    if bool((_bits(a) == _bits(b)).all()):
        return _identical(name, a)
    settled = np.ones(a.shape, bool)
    for draw in draws:
        settled &= _same_pattern(a, draw, signs)
    if np.count_nonzero(settled) * 2 < a.size:
        return Comparison(name, "inconclusive", reason="one ulp on the inputs makes NaN or infinity come and go")
    same = _same_pattern(a, b, signs)
    wrong = np.count_nonzero(~same & settled)
    if wrong:
        what = "NaN, infinity or -0" if signs else "NaN or infinity"
        reason = f"{what} in one and not in the other at {wrong} of {a.size} elements"
        share = int(np.count_nonzero(~same)) / a.size
        return Comparison(name, "unequal", mismatches=share, same_pattern=False, reason=reason)
    counted = settled & np.isfinite(a) & np.isfinite(b)
    if not counted.any():
        nothing = bool(np.isnan(a).all())
        return Comparison(name, "skipped" if nothing else "equal", reason=_NOTHING if nothing else "", ratio=0.0)
    return _finite_ones(name, a, b, draws, truth, counted, allowed)


def _finite_ones(
    name: str, a: Array, b: Array, draws: Sequence[Array], truth: Array | None, counted: Array, allowed: float
) -> Comparison:
    """Matrices of floats, of which those `counted` are finite."""
    precision = Precision(epsilon(a), smallest(a))
    if truth is not None:
        near = _same_pattern(a, truth, False).all() and is_believable(truth, a, counted, precision)
        truth = truth if near else None
    views = [judge(a, b, draws, truth, counted, precision, allowed)]
    if has_far_columns(a):
        turned = [x.T for x in draws]
        exact = None if truth is None else truth.T
        views.append(judge(a.T, b.T, turned, exact, counted.T, precision, allowed))
    off = max(sum(one.off for one in view) for view in views)
    found = worse(_judged(name, one, allowed, truth is not None) for view in views for one in view)
    return replace(found, ulp=_ulps(a, b, counted), mismatches=off / a.size, same_pattern=True)


def _judged(name: str, one: Judgement, allowed: float, against_truth: bool) -> Comparison:
    found = Comparison(
        name,
        "equal" if one.passes else "unequal",
        max_abs=one.max_abs,
        max_rel=one.max_abs / one.scale if one.scale else None,
        rms=one.rms,
        rms_rel=one.rms / one.scale if one.scale else None,
        cosine=one.cosine,
        floor=one.floor,
        ratio=one.ratio,
        reference_ratio=one.old if against_truth else None,
    )
    if not one.passes:
        found = replace(found, reason=f"off by {one.ratio:.3g} times the noise floor ({allowed:g} are allowed)")
    if one.ratio > 0 and one.chaotic:
        reason = "the output is chaotic: one ulp on the inputs moves it as much as a mistake would"
        found = replace(found, verdict="inconclusive", reason=reason)
    return found


def _identical(name: str, a: Array) -> Comparison:
    """The same bits."""
    if np.isnan(a).all():
        return Comparison(name, "skipped", reason=_NOTHING)
    scale = _rms(a)
    return Comparison(
        name,
        "equal",
        max_abs=0.0,
        max_rel=0.0,
        rms=0.0,
        rms_rel=0.0,
        cosine=1.0 if scale else None,
        floor=max(epsilon(a) * scale, smallest(a)),
        ratio=0.0,
        ulp=0,
        mismatches=0.0,
        same_pattern=True,
    )


def _rms(a: Array) -> float:
    """The rms of the finite elements of a matrix."""
    count, squares = 0, 0.0
    for part in blocks(a):
        block = a[part].astype(np.float64)
        block = block[np.isfinite(block)]
        with np.errstate(over="ignore"):
            count, squares = count + block.size, squares + float(np.square(block).sum())
    return math.sqrt(squares / count) if count else 0.0


def _same_pattern(a: Array, b: Array, signs: bool) -> Array:
    """Where both are finite, both NaN, or the same infinity; with `signs`, not where both are zero with other signs."""
    same: Array = np.isfinite(a) & np.isfinite(b)
    if not same.all():
        same |= (a == b) | np.isnan(a) & np.isnan(b)
    if signs:
        same &= ~((a == 0) & (b == 0) & (np.signbit(a) != np.signbit(b)))
    return same


def _ulps(a: Array, b: Array, counted: Array) -> int:
    """The largest distance in units in the last place: how many numbers of the type lie between."""
    largest = 0
    for part in blocks(a):
        apart = np.subtract(_place(a[part]), _place(b[part]), dtype=np.int64)
        if not counted[part].all():
            apart = np.where(counted[part], apart, 0)
        largest = max(largest, int(apart.max()), -int(apart.min()))
    return largest


def _place(array: Array) -> Array:
    """Where each number stands among all numbers of its type, zero at 0."""
    bits = _bits(array)
    sign = bits >> (8 * bits.itemsize - 1)
    place: Array = (bits ^ (sign & np.iinfo(bits.dtype).max)) - sign
    return place


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).view(f"i{array.itemsize}")


def _top1(a: Array, b: Array) -> float | None:
    """The share of rows, along the last axis, whose largest element is at the same place."""
    if a.ndim == 0 or a.shape[-1] < 2 or a.dtype.kind not in "fiu":
        return None
    return float(np.mean(a.argmax(-1) == b.argmax(-1)))


def lost_numbers(before: Any, after: Any) -> bool:
    """Whether `after` has NaN or infinities that `before` has not."""
    return any(_finite(b) < _finite(a) for a, b in zip(_leaves(before), _leaves(after), strict=False))


def _finite(array: Array) -> int:
    return int(np.count_nonzero(np.isfinite(array))) if is_float(array) else array.size
