"""When two results are equal: exactly, up to the noise floor, or not at all."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphopt.verify.measure import compare, over_feeds
from graphopt.verify.results import Comparison
from graphopt.verify.tolerance import K, one_ulp

RNG = np.random.default_rng(0)
X = RNG.normal(size=1000).astype(np.float32)
MOVED = [one_ulp(X, np.random.default_rng(i)) for i in range(3)]
LOWEST = np.finfo(np.float32).min


def verdict(a: Any, b: Any, moved: Any = ()) -> str:
    return compare("y", a, b, moved).verdict


def test_noise_is_equal_and_a_little_more_is_not() -> None:
    assert verdict(X, X, MOVED) == "equal"
    assert verdict(X, MOVED[0], MOVED) == "equal"
    assert verdict(X, X * np.float32(1 + 1e-7 * K), MOVED) == "equal"
    found = compare("y", X, X * np.float32(1.0001), MOVED)
    assert found.verdict == "unequal"
    assert found.ratio is not None
    assert found.ratio > 10 * K
    assert found.floor == pytest.approx(2.4e-7, rel=0.5)


def test_one_wrong_element_of_many_is_seen() -> None:
    wrong = X.copy()
    wrong[17] += np.float32(1e-4)
    assert verdict(X, wrong, MOVED) == "unequal"


def test_an_error_that_is_small_everywhere_is_seen_beside_one_noisy_element() -> None:
    moved = X.copy()
    moved[0] += np.float32(1e-2)  # the floor of the largest error hides what follows, that of the rms does not
    assert verdict(X, X + np.float32(1e-2), [moved]) == "unequal"
    assert verdict(X, moved, [moved]) == "equal"


def test_the_floor_is_never_less_than_the_types_epsilon() -> None:
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        a, eps = X.astype(dtype), float(ml_dtypes.finfo(dtype).eps)
        assert verdict(a, (a.astype(np.float64) + 4 * eps).astype(dtype)) == "equal", dtype
        assert verdict(a, (a.astype(np.float64) + 40 * eps).astype(dtype)) == "unequal", dtype


def test_nan_and_infinity_must_stand_at_the_same_places() -> None:
    a = np.array([1, np.nan, np.inf, -np.inf], np.float32)
    assert verdict(a, a.copy()) == "equal"
    for wrong in ([1, 2, np.inf, -np.inf], [1, np.nan, -np.inf, -np.inf], [np.nan, np.nan, np.inf, -np.inf]):
        assert verdict(a, np.array(wrong, np.float32)) == "unequal"


def test_the_fill_of_a_mask_hides_nothing_and_must_be_right_itself() -> None:
    for fill in (-1e4, -1e9, LOWEST):
        a = np.array([0.25, 0, fill, fill, 1, -0.5], np.float32)
        assert verdict(a, a.copy()) == "equal"
        for place, value in [(0, 0.2501), (1, 1e-3), (2, fill / 2), (2, 0.0)]:
            wrong = a.copy()
            wrong[place] = value
            assert verdict(a, wrong) == "unequal", (fill, place)


def test_integers_bools_and_strings_are_exact() -> None:
    for a in (np.arange(5), np.array([True, False]), np.array(["a", "b"], object), np.arange(4).astype(ml_dtypes.int4)):
        assert verdict(a, a.copy()) == "equal"
        assert verdict(a, np.roll(a, 1)) == "unequal"


def test_what_an_ulp_turns_over_says_nothing() -> None:
    a = np.array([3, 1, 4, 1])
    turned = np.array([3, 1, 2, 1])
    assert verdict(a, turned) == "unequal"
    assert verdict(a, turned, [turned]) == "equal"
    assert verdict(a, a.copy(), [a + 1]) == "inconclusive"


def test_types_and_shapes_are_exact() -> None:
    assert verdict(X, X.astype(np.float64)) == "unequal"
    assert verdict(X, X[None]) == "unequal"
    assert compare("y", X, X[:1], []).reason == "float32[1000] in the reference, float32[1] in the candidate"


def test_sequences_optionals_and_maps() -> None:
    assert verdict([X, X], [X, X]) == "equal"
    assert verdict([X, X], [X]) == "unequal"
    assert verdict([X, X], [X, -X]) == "unequal"
    assert verdict(None, None) == "equal"
    assert verdict(X, None) == "unequal"
    assert verdict([{1: 0.5}], [{1: 0.5}]) == "equal"
    assert verdict([{1: 0.5}], [{1: 0.75}]) == "unequal"


def test_a_chaotic_output_is_inconclusive_unless_it_is_exactly_equal() -> None:
    moved = [RNG.permutation(X)]
    assert verdict(X, RNG.permutation(X), moved) == "inconclusive"
    assert verdict(X, X.copy(), moved) == "equal"


def test_only_nan_is_never_a_pass() -> None:
    a = np.full(3, np.nan, np.float32)
    found = compare("y", a, a.copy(), [])
    assert found.verdict == "skipped"
    assert over_feeds([found, found]).verdict == "inconclusive"
    assert over_feeds([found, Comparison("y", "equal")]).verdict == "equal"


def test_over_feeds_the_worst_decides_and_a_chaotic_one_does_not_count() -> None:
    good, bad, lost = (
        Comparison("y", v, ratio=r) for v, r in [("equal", 2.0), ("unequal", 99.0), ("inconclusive", 1.0)]
    )
    assert over_feeds([good, bad, lost]).verdict == "unequal"
    assert over_feeds([good, lost]) == good
    assert over_feeds([lost, lost]).verdict == "inconclusive"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_one_ulp_moves_every_fraction_and_no_whole_number(dtype: Any) -> None:
    a = np.array([0, 1, -1, 0.3, -2.7, 1e4, np.inf, np.nan, float(ml_dtypes.finfo(dtype).min)]).astype(dtype)
    moved = one_ulp(a, np.random.default_rng(0))
    assert moved.dtype == a.dtype
    same = (moved == a) | np.isnan(a.astype(np.float64))
    assert same.tolist() == [True, True, True, False, False, True, True, True, True]
    assert np.abs(moved.astype(np.float64)[3:5] / a.astype(np.float64)[3:5] - 1).max() <= float(
        ml_dtypes.finfo(dtype).eps
    )
    assert one_ulp(np.arange(3), np.random.default_rng(0)).tolist() == [0, 1, 2]
