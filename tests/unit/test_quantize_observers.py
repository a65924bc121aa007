"""Observers: ranges from one histogram, zero always inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphopt.errors import UsageError
from graphopt.quantize.observe.observers import OBSERVERS, observed_range
from graphopt.quantize.observe.statistics import Statistics
from graphopt.rewrite.grids import activation_grid, on_grid

Array = npt.NDArray[Any]


def seen(x: Array) -> Statistics:
    return Statistics.of(x.reshape(-1, 1))


def normal(*outliers: float, count: int = 50_000) -> Array:
    return np.array([*np.random.default_rng(0).normal(size=count), *outliers], np.float32)


def error(x: Array, low: float, high: float, symmetric: bool = False) -> float:
    return float(np.mean((x - on_grid(x, activation_grid(low, high, symmetric=symmetric))) ** 2))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("observer", OBSERVERS)
def test_zero_is_inside_and_nothing_is_beyond_what_was_seen(observer: str, symmetric: bool) -> None:
    for x in (normal(), np.abs(normal()) + 3, -np.abs(normal()) - 3, normal() * 1e-4, normal(90, -2)):
        low, high = observed_range(seen(x), observer, symmetric=symmetric)
        assert low <= 0 <= high
        assert low < high
        assert low >= min(x.min(), 0) or symmetric
        assert high <= max(x.max(), 0) or symmetric
        assert max(-low, high) <= np.abs(x).max()
        if symmetric:
            assert low == -high


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("observer", OBSERVERS)
def test_activations_that_do_not_vary(observer: str, symmetric: bool) -> None:
    assert observed_range(seen(np.zeros(100, np.float32)), observer, symmetric=symmetric) == (0, 0)
    assert observed_range(seen(np.zeros(0, np.float32)), observer, symmetric=symmetric) == (0, 0)
    for constant in (2.5, -1e-3):
        low, high = observed_range(seen(np.full(100, constant, np.float32)), observer, symmetric=symmetric)
        assert low <= min(constant, 0) * 0.99
        assert high >= max(constant, 0) * 0.99


def test_min_max_holds_every_number() -> None:
    x = normal(70)
    assert observed_range(seen(x), "min-max") == (float(x.min()), 70)
    assert observed_range(seen(x), "min-max", symmetric=True) == (-70, 70)


def test_percentiles_cut_half_at_either_end() -> None:
    x = normal(70, -30)
    low, high = observed_range(seen(x), "percentile-99.9")
    assert low == pytest.approx(np.quantile(x, 0.0005), rel=0.02)
    assert high == pytest.approx(np.quantile(x, 0.9995), rel=0.02)
    _, both = observed_range(seen(x), "percentile-99.9", symmetric=True)
    assert both == pytest.approx(np.quantile(np.abs(x), 0.999), rel=0.02)
    assert observed_range(seen(x), "percentile-100") == (-30, 70)
    # Nothing below zero: the range begins there.
    assert observed_range(seen(np.abs(x)), "percentile-99.9")[0] == 0


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("outliers", [(), (40.0,), (12.0, -9.0)])
def test_mse_has_less_error_than_any_other(outliers: tuple[float, ...], symmetric: bool) -> None:
    x = normal(*outliers)
    best = error(x, *observed_range(seen(x), "mse", symmetric=symmetric), symmetric)
    for observer in OBSERVERS:
        other = error(x, *observed_range(seen(x), observer, symmetric=symmetric), symmetric)
        assert best <= 1.02 * other, observer
    if outliers == (12.0, -9.0):
        assert best < 0.9 * error(x, *observed_range(seen(x), "min-max", symmetric=symmetric), symmetric)


def test_entropy_cuts_what_is_rare_and_keeps_what_is_not() -> None:
    rare = observed_range(seen(normal(400)), "entropy")[1]
    assert 3 < rare < 40
    uniform = np.random.default_rng(0).uniform(-1, 1, 50_000).astype(np.float32)
    low, high = observed_range(seen(uniform), "entropy")
    assert (low, high) == pytest.approx((-1, 1), rel=0.08)


@pytest.mark.parametrize("observer", ["entropyy", "percentile-", "percentile-101", "percentile-1"])
def test_an_observer_that_is_not_known(observer: str) -> None:
    with pytest.raises(UsageError) as caught:
        observed_range(seen(normal()), observer)
    assert caught.value.code == "GO123"
    assert "entropy" in caught.value.hint or "percentile" in caught.value.hint
