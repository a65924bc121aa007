"""When two results are equal: exactly, up to the noise floor, or not at all."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphopt.verify.numbers.measure import compare, over_feeds
from graphopt.verify.numbers.tolerance import K, one_ulp
from graphopt.verify.results import Comparison

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


def noisy(scale: Any, seed: int) -> Any:
    """Noise of half an ulp or so of `scale`."""
    return (np.random.default_rng(seed).normal(size=(128, 256)) * scale * 6e-8).astype(np.float32)


ROWS = np.where(np.arange(128) == 5, 1e6, 1.0)[:, None]
COLUMNS = np.where(np.arange(256) == 3, 1e4, 1.0)[None]


@pytest.mark.parametrize("scale", [ROWS, COLUMNS], ids=["a row", "a column"])
def test_what_is_large_hides_nothing_in_what_is_not(scale: Any) -> None:
    a = (np.random.default_rng(1).normal(size=(128, 256)) * scale).astype(np.float32)
    moved = [a + noisy(scale, seed) for seed in range(3)]
    assert verdict(a, a + noisy(scale, 4), moved) == "equal"
    for draws in ([], moved):
        wrong = a.copy()
        wrong[7, 9] += np.float32(1e-4)
        assert verdict(a, wrong, draws) == "unequal"
        wrong = a.copy()
        wrong[7] *= np.float32(1.001)
        assert verdict(a, wrong, draws) == "unequal"


def test_one_large_activation_hides_nothing() -> None:
    a = np.random.default_rng(1).normal(size=(128, 256)).astype(np.float32)
    a[0, 3] = 20000.3
    wrong = a.copy()
    wrong[0, 4] += np.float32(1e-4)
    assert verdict(a, wrong, [one_ulp(a, RNG)]) == "unequal"
    wrong = a.copy()
    wrong[0, 3] *= np.float32(1.0001)
    assert verdict(a, wrong, [one_ulp(a, RNG)]) == "unequal"


def test_a_few_elements_of_their_kind_are_as_noisy_as_the_others() -> None:
    a = np.random.default_rng(1).normal(size=(128, 256)).astype(np.float32)
    a[0, 3] = 20000.3
    moved = a * (1 + 1e-5 * RNG.normal(size=a.shape)).astype(np.float32)
    moved[0, 3] = a[0, 3]  # by luck
    right, wrong = a.copy(), a.copy()
    right[0, 3] *= np.float32(1 + 3e-5)
    wrong[0, 3] *= np.float32(1.001)
    assert verdict(a, right, [moved]) == "equal"
    assert verdict(a, wrong, [moved]) == "unequal"


def test_rows_of_nearly_nothing_are_noise_beside_others_and_wrong_where_they_become_something() -> None:
    a = np.random.default_rng(1).normal(size=(128, 256)).astype(np.float32)
    a[:3] *= np.float32(1e-8)
    moved = a.copy()
    moved[:3] = RNG.permutation(moved[:3].reshape(-1)).reshape(3, -1)
    close, wrong = moved.copy(), moved.copy()
    close[:3] *= -1
    wrong[:3] += np.float32(0.1)
    assert verdict(a, close, [moved]) == "equal"
    assert verdict(a, wrong, [moved]) == "unequal"
    elsewhere = a.copy()
    elsewhere[50, 7] += np.float32(1e-3)
    assert verdict(a, elsewhere, [moved]) == "unequal"


@pytest.mark.parametrize("width", [1, 7, 64, 1000])
def test_rows_of_any_width(width: int) -> None:
    a = RNG.normal(size=(33, width)).astype(np.float32)
    assert verdict(a, one_ulp(a, RNG)) == "equal"
    wrong = a.copy()
    wrong[4, width // 2] += np.float32(1e-3)
    assert verdict(a, wrong) == "unequal"


def test_one_element_in_ten_million() -> None:
    a = np.ones(10_000_000, np.float32)
    a[::3] = 0.5
    wrong = a.copy()
    wrong[1_234_567] += np.float32(1e-3)
    found = compare("y", a, wrong, [])
    assert (found.verdict, found.mismatches) == ("unequal", 1e-7)


def test_zeros_scalars_constants_and_denormals() -> None:
    zeros = np.zeros((4, 64), np.float32)
    assert verdict(zeros, zeros.copy()) == "equal"
    assert verdict(zeros, zeros + np.float32(1e-30)) == "unequal"
    assert verdict(zeros, zeros + np.float32(1e-40)) == "equal"  # kernels may flush those
    constant = np.full((4, 64), 0.3, np.float32)
    assert verdict(constant, one_ulp(constant, RNG)) == "equal"
    assert verdict(constant, constant * np.float32(1.0001)) == "unequal"
    assert verdict(np.float32(1.5), np.float32(1.5000001)) == "equal"
    assert verdict(np.float32(1.5), np.float32(1.5001)) == "unequal"
    small = (X * 1e-3).astype(np.float16)
    assert verdict(small, one_ulp(small, RNG)) == "equal"
    assert verdict(small, (small.astype(np.float32) * 1.03).astype(np.float16)) == "unequal"


def test_zeros_among_numbers_may_be_noise_and_zeros_of_a_mask_may_not() -> None:
    relu = np.maximum(np.random.default_rng(1).normal(size=(64, 256)), 0).astype(np.float32)
    assert verdict(relu, relu + np.float32(1e-8)) == "equal"
    mask = np.where(np.tri(64, dtype=bool), 0, LOWEST).astype(np.float32)
    wrong = mask.copy()
    wrong[0, 0] = 1e-3
    assert verdict(mask, wrong) == "unequal"


def test_overflow_is_seen() -> None:
    a = np.array([65504, np.inf, 1], np.float16)
    assert verdict(a, np.array([65504, 65504, 1], np.float16)) == "unequal"


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_floats_of_eight_bits_are_exact(dtype: Any) -> None:
    a = np.array([1, 1.5, np.nan, 0, -3]).astype(dtype)
    assert verdict(a, a.copy()) == "equal"
    assert verdict(a, np.array([1, 1.75, np.nan, 0, -3]).astype(dtype)) == "unequal"
    assert verdict(a, np.array([1, 1.5, 1, 0, -3]).astype(dtype)) == "unequal"


def test_complex_numbers() -> None:
    a = (X + 1j * X[::-1]).astype(np.complex64)
    assert verdict(a, a.copy()) == "equal"
    assert verdict(a, a.conj()) == "unequal"
    assert verdict(np.complex64(1 + 2j), np.complex64(1 + 2j)) == "equal"


def test_the_sign_of_zero_counts_where_asked_for_and_where_an_ulp_leaves_it() -> None:
    a, b = np.array([0.0, -0.0, 1.5], np.float32), np.array([0.0, 0.0, 1.5], np.float32)
    assert verdict(a, b) == "equal"
    assert compare("y", a, b, [], signs=True).verdict == "unequal"
    assert compare("y", a, a.copy(), [], signs=True).verdict == "equal"
    assert compare("y", a, b, [b], signs=True).verdict == "equal"


def test_figures() -> None:
    a = np.array([[1.0, 2.0, 3.0], [4.0, 6.0, 5.0]], np.float32)
    b = a.copy()
    b[1, 2] = 6.5
    found = compare("y", a, b, [])
    assert (found.max_abs, found.mismatches, found.top1, found.same_pattern) == (1.5, 1 / 6, 0.5, True)
    assert found.rms == pytest.approx(1.5 / np.sqrt(6))
    assert found.rms_rel == pytest.approx(found.rms / np.sqrt(np.mean(a**2)))
    assert found.ulp == 1.5 * 2**21  # from 4 to 8 there are 2**23 numbers
    found = compare("y", a, a.copy(), [])
    assert (found.max_abs, found.ulp, found.mismatches, found.top1, found.cosine) == (0, 0, 0, 1, 1)
    assert compare("y", np.float32(-0.5), np.nextafter(np.float32(-0.5), np.float32(0)), []).ulp == 1


TRUE = np.random.default_rng(2).normal(size=(16, 256))
OLD = (TRUE + 1e-5 * np.random.default_rng(3).normal(size=TRUE.shape)).astype(np.float32)


def test_what_is_nearer_to_the_truth_than_the_reference_is_equal() -> None:
    exact = TRUE.astype(np.float32)
    assert verdict(OLD, exact) == "unequal"
    found = compare("y", OLD, exact, [], truth=TRUE)
    assert found.verdict == "equal"
    assert found.reference_ratio is not None
    assert found.reference_ratio > K


def test_what_is_not_much_further_from_the_truth_than_the_reference_is_equal() -> None:
    noise = np.random.default_rng(4).normal(size=TRUE.shape)
    for factor, expected in ((1.4, "equal"), (3.0, "unequal")):
        new = (TRUE + factor * 1e-5 * noise).astype(np.float32)
        assert verdict(OLD, new) == "unequal"
        assert compare("y", OLD, new, [], truth=TRUE).verdict == expected


@pytest.mark.parametrize(
    "wrong",
    [OLD * np.float32(1.001), OLD + np.float32(3e-5), np.roll(OLD, 1), TRUE.astype(np.float32) * np.float32(1.0001)],
)
def test_what_is_further_from_the_truth_is_not(wrong: Any) -> None:
    assert compare("y", OLD, wrong, [], truth=TRUE).verdict == "unequal"


def test_one_element_that_is_further_from_the_truth_is_seen() -> None:
    wrong = OLD.copy()
    wrong[3, 5] += np.float32(1e-3)
    assert compare("y", OLD, wrong, [], truth=TRUE).verdict == "unequal"


def test_a_truth_of_another_function_is_not_believed() -> None:
    # In the type of the model a score beside the lowest number is lost, and a masked row is uniform; in float64 not.
    a = np.full((4, 64), 1 / 64, np.float32)
    scores = np.exp(np.random.default_rng(0).normal(size=(4, 64)))
    truth = scores / scores.sum(axis=1, keepdims=True)
    found = compare("y", a, truth.astype(np.float32), [], truth=truth)
    assert (found.verdict, found.reference_ratio) == ("unequal", None)
    infinite = np.array([[1.0, -np.inf]], np.float32)
    for near in (1.0, 1.1):
        wrong = np.array([[near, LOWEST]], np.float32)
        assert compare("y", infinite, wrong, [], truth=np.array([[near, -6e38]])).verdict == "unequal"
    half = np.where(np.arange(256) < 250, TRUE, 2 * TRUE)
    assert compare("y", OLD, half.astype(np.float32), [], truth=half).verdict == "unequal"
