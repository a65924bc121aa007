"""Smoothing is taken where it helps, and the products stay what they are; what rounding takes on average comes back."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.ir.tensor import Array
from graphopt.quantize.rounding.correction import bias_correction, static_correction
from graphopt.quantize.rounding.smooth import Products, Smoothing, search_smoothing
from graphopt.rewrite.grids import activation_grid, on_grid

K = 96
# Two channels of great range, undone in the weights: as they are, these leave a few steps to all the others.
SIZES = np.ones(K)
SIZES[[5, 40]] = 60


def products(seed: int = 0, *, sizes: Array = SIZES, scheme: str = "static", **options: object) -> Products:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(200, K)) * sizes).astype(np.float32)
    weights = [(rng.normal(size=(K, count)) / sizes[:, None] / K**0.5).astype(np.float32) for count in (64, 32)]
    low, high = rows.min(axis=0), rows.max(axis=0)
    return Products(rows, weights, low, high, scheme=scheme, **options)  # type: ignore[arg-type]


def held_out(found: Smoothing, sizes: Array = SIZES) -> float:
    """The error on rows that the search has not seen, in the ranges of those that it has."""
    seen = products(sizes=sizes)
    rows = (np.random.default_rng(9).normal(size=(500, K)) * sizes).astype(np.float32)
    return Products(rows, seen.weights, seen.low, seen.high).error(found.factors)


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_outliers_go_into_the_weights(scheme: str) -> None:
    found = search_smoothing(products(scheme=scheme))
    assert found.alpha is not None
    assert found.factors.dtype == np.float32
    assert found.factors[[5, 40]].min() > 5 * np.median(found.factors)
    assert found.error < 0.02 * found.plain_error
    assert held_out(found) < 0.05 * held_out(Smoothing(np.ones(K, np.float32), None, 0, 0))


def test_the_way_down_ends_below_where_it_begins() -> None:
    for seed in range(3):
        sizes = np.exp(np.random.default_rng(seed).normal(size=K))
        given = products(seed, sizes=sizes)
        searched = search_smoothing(given, (0.5, 0.7))
        fixed = [search_smoothing(given, (alpha,)) for alpha in (0.5, 0.7)]
        assert searched.error < 0.97 * min(one.error for one in fixed)
        assert searched.error == pytest.approx(given.error(searched.factors))


def test_a_fixed_alpha_is_smoothquants_formula() -> None:
    given = products()
    found = search_smoothing(given, (0.6,))
    reach = np.abs(given.rows).max(axis=0)
    weight = np.max([np.abs(weights).max(axis=1) for weights in given.weights], axis=0)
    candidates = [reach**0.6 / weight**0.4, reach**0.6]
    expected = [candidate / np.exp(np.log(candidate).mean()) for candidate in candidates]
    assert any(found.factors == pytest.approx(one, rel=1e-4) for one in expected)


def test_nothing_is_smoothed_where_nothing_is_won() -> None:
    rows = np.random.default_rng(0).choice([-1.0, 1.0], (200, K)).astype(np.float32)
    weights = [np.random.default_rng(1).choice([-1.0, 1.0], (K, 32)).astype(np.float32)]
    found = search_smoothing(Products(rows, weights, rows.min(axis=0), rows.max(axis=0)))
    assert found.alpha is None
    assert (found.factors == 1).all()
    assert found.error == found.plain_error


def test_channels_that_never_moved_have_factor_one() -> None:
    given = products()
    given.rows[:, 7] = 0
    given.weights[0][8] = given.weights[1][8] = 0
    dead = Products(given.rows, given.weights, given.rows.min(axis=0), given.rows.max(axis=0))
    found = search_smoothing(dead)
    assert found.alpha is not None
    assert found.factors[7] == 1
    assert np.isfinite(found.factors).all()
    assert ((found.factors >= 1e-4) & (found.factors <= 1e4)).all()


def test_all_zero_rows_or_weights_do_no_harm() -> None:
    zeros = np.zeros((20, K), np.float32)
    weights = [np.ones((K, 8), np.float32)]
    for rows, each in ((zeros, weights), (zeros + 1, [np.zeros((K, 8), np.float32)])):
        found = search_smoothing(Products(rows, each, rows.min(axis=0), rows.max(axis=0)))
        assert found.alpha is None
        assert (found.factors == 1).all()


def test_the_grid_is_the_callers() -> None:
    asked: list[float] = []

    def grid(low: Array, high: Array) -> object:
        asked.append(float(high.max()))
        return activation_grid(float(low.min()), float(high.max()), "int8", symmetric=True)

    found = search_smoothing(products(grid=grid))
    assert len(asked) > 4
    assert found.error < found.plain_error


def test_weights_alone_are_scaled_by_what_they_meet() -> None:
    rng = np.random.default_rng(3)
    sizes = np.ones(K)
    sizes[::16] = 30
    rows = (rng.normal(size=(300, K)) * sizes).astype(np.float32)
    weights = [rng.normal(size=(K, 64)).astype(np.float32)]
    given = Products(
        rows, weights, rows.min(axis=0), rows.max(axis=0), scheme="weights", bits=4, block=32, symmetric=False
    )
    found = search_smoothing(given)
    assert found.alpha is not None
    assert found.error < 0.7 * found.plain_error
    assert found.factors[::16].min() > np.median(found.factors)


def test_the_mean_of_what_rounding_takes_comes_back() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(400, K)) + 2).astype(np.float32)
    exact = rng.normal(size=(K, 16)).astype(np.float32)
    found = exact + rng.normal(size=(K, 16)).astype(np.float32) * 0.02
    lost = (rows @ exact - rows @ found).mean(axis=0)
    correction = bias_correction(rows.mean(axis=0), exact, found)
    assert correction == pytest.approx(lost, abs=1e-4)
    assert np.abs(correction).max() > 0.05


@pytest.mark.parametrize("smoothed", [False, True])
def test_clipping_comes_back_as_well(smoothed: bool) -> None:
    rng = np.random.default_rng(0)
    rows = rng.exponential(size=(400, K)).astype(np.float32)
    exact = rng.normal(size=(K, 16)).astype(np.float32)
    smooth = rng.uniform(0.5, 2, K).astype(np.float32) if smoothed else None
    divided = rows if smooth is None else rows / smooth
    multiplied = exact if smooth is None else exact * smooth[:, None]
    grid = activation_grid(0.0, 2.0)
    before = rows @ exact - on_grid(divided, grid) @ multiplied
    correction = static_correction(rows, exact, multiplied, grid, smooth)
    assert np.abs(before.mean(axis=0)).max() > 0.1
    assert np.abs((before - correction).mean(axis=0)).max() < 1e-3
