"""Rounding that repairs itself: less error on the layer's outputs than rounding to the nearest, never more."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.ir import Tensor
from graphopt.ir.tensor import Array
from graphopt.quantize.rounding import gptq
from graphopt.quantize.rounding.gptq import compensated, layer_error, shrunk
from graphopt.quantize.rounding.nearest import Rounded, fitted, in_groups, rounded
from graphopt.quantize.rounding.weights import dequantized, integers
from graphopt.rewrite.grids import levels

RNG = np.random.default_rng(0)
K, N = 160, 48
MIX = RNG.normal(size=(K, K)) / K**0.5
X = ((RNG.normal(size=(1000, K)) @ MIX + 0.3 * RNG.normal(size=(1000, K))) * np.exp(RNG.normal(size=K))).astype(
    np.float32
)
GRAM = X.T @ X
W = (RNG.standard_t(4, size=(N, K)) / K**0.5).astype(np.float32)
SETTINGS = [(8, 0, True), (4, 0, True), (4, 32, True), (4, 32, False), (4, 48, False), (8, 64, True)]


def numbers(found: Rounded, block: int) -> Array:
    groups = in_groups(found.values, block)
    values: Array = ((groups - found.zero[..., None]) * found.scale[..., None]).reshape(len(groups), -1)
    return values[:, : found.values.shape[1]]


def nearest(bits: int, block: int, symmetric: bool, search: bool) -> Rounded:
    grid = fitted(W, bits, block, symmetric, search=search, importance=GRAM.diagonal())
    return rounded(W, *grid, block, levels(bits, symmetric))


def error(found: Rounded, block: int) -> float:
    return float(np.square(X @ (numbers(found, block) - W).T).sum())


@pytest.mark.parametrize(("bits", "block", "symmetric"), SETTINGS)
def test_it_has_less_error_than_the_nearest(bits: int, block: int, symmetric: bool) -> None:
    found = compensated(W, GRAM, bits, block, symmetric)
    first, last = levels(bits, symmetric)
    assert found.values.min() >= first
    assert found.values.max() <= last
    assert np.array_equal(found.values, np.rint(found.values))
    assert found.scale.shape == found.zero.shape == (N, -(-K // block) if block else 1)
    assert error(found, block) < 0.9 * error(nearest(bits, block, symmetric, search=True), block)
    assert error(found, block) < 0.8 * error(nearest(bits, block, symmetric, search=False), block)


def test_columns_across_the_batches_of_columns_count() -> None:
    whole = compensated(W, GRAM, 4, 0, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gptq, "_COLUMNS", 7)
        parts = compensated(W, GRAM, 4, 0, True)
    # Sums in another order may move a number that lies between two integers.
    assert np.mean(whole.values != parts.values) < 0.01
    assert error(parts, 0) == pytest.approx(error(whole, 0), rel=0.02)


@pytest.mark.parametrize(
    "gram",
    [np.zeros((K, K), np.float32), np.ones((K, K), np.float32), np.full((K, K), np.nan, np.float32), np.eye(K)],
    ids=["zero", "one direction", "NaN", "independent"],
)
def test_a_matrix_that_says_little_does_no_harm(gram: Array) -> None:
    found = compensated(W, gram.astype(np.float32), 4, 32, False)
    assert np.isfinite(found.values).all()
    assert np.isfinite(found.scale).all()
    assert np.abs(numbers(found, 32) - W).max() < 3 * np.abs(found.scale).max()
    if np.isfinite(gram).all():
        plain = layer_error(numbers(nearest(4, 32, False, search=False), 32) - W, gram)
        assert layer_error(numbers(found, 32) - W, gram) <= plain


def test_channels_that_were_never_seen_are_rounded_all_the_same() -> None:
    rows = X.copy()
    rows[:, 10:20] = 0
    found = compensated(W, rows.T @ rows, 8, 0, True)
    wanted = np.clip(W, -127 * found.scale, 127 * found.scale)
    assert (np.abs(numbers(found, 0) - wanted)[:, 10:20] <= 0.51 * found.scale).all()


def test_the_error_of_a_layer_is_that_of_its_outputs() -> None:
    difference = RNG.normal(size=(N, K)).astype(np.float32)
    assert layer_error(difference, GRAM) == pytest.approx(float(np.square(X @ difference.T).sum()), rel=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_integers_take_it_with_smoothing(transposed: bool) -> None:
    factors = np.exp(RNG.normal(size=K)).astype(np.float32)
    weights = Tensor.of(W if transposed else W.T)

    def outputs_error(method: str) -> float:
        found = integers(
            weights,
            axis=1 if transposed else 0,
            bits=4,
            block=32,
            symmetric=False,
            smooth=factors,
            method=method,  # type: ignore[arg-type]
            gram=GRAM,
        )
        back = dequantized(found) if transposed else dequantized(found).T
        return float(np.square(X @ (back / factors - W).T).sum())

    assert outputs_error("gptq") < 0.95 * outputs_error("search") < outputs_error("nearest")


@pytest.mark.parametrize("count", [60, 300])
def test_few_inputs_are_not_overrated(count: int) -> None:
    """Inputs without correlation: what a few rows show of it is chance, and repairing by it makes others worse."""
    sizes = np.exp(RNG.normal(size=K))
    seen = (RNG.normal(size=(count, K)) * sizes).astype(np.float32)
    others = (RNG.normal(size=(2000, K)) * sizes).astype(np.float32)

    def outputs_error(found: Rounded) -> float:
        return float(np.square(others @ (numbers(found, 32) - W).T).sum())

    gram = seen.T @ seen
    grid = fitted(W, 4, 32, False, search=True, importance=gram.diagonal())
    searched = outputs_error(rounded(W, *grid, 32, levels(4, False)))
    assert outputs_error(compensated(W, gram, 4, 32, False)) > 1.1 * searched
    assert outputs_error(compensated(W, gram, 4, 32, False, count=count)) < 1.03 * searched


def test_correlations_that_many_rows_show_are_kept() -> None:
    kept = shrunk(GRAM, 1000)
    assert np.array_equal(kept.diagonal(), GRAM.diagonal())
    share = (kept - np.diag(kept.diagonal())) / np.where(np.eye(K) > 0, 1, GRAM)
    assert 0.7 < np.median(share[~np.eye(K, dtype=bool)]) < 1
    assert (shrunk(GRAM, 10)[0, 1:] / GRAM[0, 1:]).max() < 0.5


def test_a_block_is_fitted_to_what_it_would_best_be() -> None:
    """With the columns of the block as real numbers, their part of d U can be made zero."""
    upper = np.linalg.cholesky(GRAM[::-1, ::-1] + np.eye(K))[::-1, ::-1].astype(np.float32)
    done = np.zeros_like(W)
    done[:, :32] = RNG.normal(size=(N, 32)) * 0.01
    span = slice(32, 64)
    done[:, span] = W[:, span] - gptq._best_real(W, done, upper, span)
    before = np.abs(done[:, :32] @ upper[:32, span]).max()
    assert np.abs(done @ upper)[:, span].max() < 1e-4 * before
