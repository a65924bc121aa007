"""Smoothing: channels of great range give it to the weights, x W = (x / s) (s W), before both are rounded.

SmoothQuant (Xiao et al. 2022, arXiv:2211.10438) takes s = max|x|^α / max|W|^(1−α), AWQ (Lin et al. 2023,
arXiv:2306.00978) s = |x|^α for weights alone. Here these are where the search begins: from the best of them, s goes
downhill on what rounding is expected to do to the products,

    E(s) = Δ²/12 · Σⱼ sⱼ² ‖Wⱼ‖² + Σₙ δₙ²/12 · Σⱼ E[xⱼ²] / sⱼ²

with the step Δ = (max xⱼ/sⱼ − min xⱼ/sⱼ) / 255 of the activations and δₙ = maxⱼ sⱼ|Wⱼₙ| / 127 of output channel n. What
decides in the end is the error of the products on rows of activations, with both really rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from graphopt.ir.tensor import Array
from graphopt.quantize.rounding.nearest import fitted, rounded
from graphopt.rewrite.grids import activation_grid, levels, on_grid
from graphopt.rewrite.plan import Grid, Scheme

ALPHAS = (0.5, 0.7, 0.9)
_STEPS = 60
_RATE = 0.05
# Maxima are taken as norms of order 2⁴, so that those close to the greatest have a say.
_DOUBLINGS = 4
# So much less error than without is wanted: below, the difference may be the rows'.
_GAIN = 0.98
_LARGEST = 1e4
# How many output channels of a product are looked at.
_COLUMNS = 512


@dataclass(frozen=True, eq=False)
class Smoothing:
    """`factors` (K,) float32 by which activations are divided and weights multiplied, all 1 where nothing was better.

    `alpha` says where the search began (None: nothing was better). Errors are those of the products, relative to what
    they are in float and squared, as means over the products: `error` with the factors, `plain_error` without.
    """

    factors: Array
    alpha: float | None
    error: float
    plain_error: float


@dataclass(frozen=True, eq=False)
class Products:
    """The products that read one tensor x: some `rows` (R, K) of it, `weights` (K, N) each, and what is known of x.

    `low` and `high` (K,) are the range of each channel, over all that was seen. Weights are rounded to `bits`, per
    output channel or in blocks of K; activations on the grid that `grid` makes of the ranges of all channels, and not
    at all in scheme `weights`.
    """

    rows: Array
    weights: Sequence[Array]
    low: Array
    high: Array
    scheme: Scheme = "static"
    bits: int = 8
    block: int = 0
    symmetric: bool = True
    grid: Callable[[Array, Array], Grid] | None = None

    def error(self, factors: Array) -> float:
        """How far the products of rounded operands are from the exact ones: Σ (ŷ − y)² / Σ y², their mean."""
        x = (self.rows / factors).astype(np.float32)
        if self.scheme != "weights":
            make = self.grid or _whole_range
            x = on_grid(x, make(self.low / factors, self.high / factors))
        found = []
        for weights, exact in zip(self.weights, self._exact, strict=True):
            error = x @ self._rounded(weights, factors) - exact
            found.append(float(np.square(error).sum()) / (float(np.square(exact).sum()) or 1.0))
        return float(np.mean(found))

    @cached_property
    def _exact(self) -> list[Array]:
        return [self.rows @ weights for weights in self.weights]

    def _rounded(self, weights: Array, factors: Array) -> Array:
        smoothed = np.ascontiguousarray((weights * factors[:, None]).T, np.float32)
        scale, zero = fitted(smoothed, self.bits, self.block, self.symmetric)
        found = rounded(smoothed, scale, zero, self.block, levels(self.bits, self.symmetric))
        spread = np.repeat(scale, self.block, axis=1)[:, : len(factors)] if self.block else scale
        offset = np.repeat(zero, self.block, axis=1)[:, : len(factors)] if self.block else zero
        values: Array = ((found.values - offset) * spread).T
        return values


# Squares of numbers beyond 1e19 are infinite in float32, and so is the error of what they stand in: it is not chosen.
@np.errstate(over="ignore", invalid="ignore")
def search_smoothing(products: Products, alphas: Sequence[float] = ALPHAS) -> Smoothing:
    """The factors that make the products' error least; all 1 unless it becomes smaller by 2 %.

    One α alone is taken as it is; of several, the best is where the way down begins. Factors have a geometric mean of 1
    and lie between 1e-4 and 1e4. Channels that were always zero have 1.
    """
    products = replace(products, weights=[_some(weights) for weights in products.weights])
    none = np.ones(products.rows.shape[1], np.float32)
    plain = products.error(none)
    found = [(products.error(factors), alpha, factors) for alpha, factors in _beginnings(products, alphas)]
    if not found:
        return Smoothing(none, None, plain, plain)
    best = min(found, key=lambda each: each[0])
    if products.scheme != "weights" and len(alphas) > 1:
        lower = _downhill(products, best[2] if best[0] < plain else none)
        best = min(best, (products.error(lower), best[1], lower), key=lambda each: each[0])
    if not best[0] < _GAIN * plain:
        return Smoothing(none, None, plain, plain)
    return Smoothing(best[2], best[1], best[0], plain)


def _some(weights: Array) -> Array:
    """Columns evenly spaced, where there are many: they tell of the others."""
    return np.ascontiguousarray(weights[:, :: -(-weights.shape[1] // _COLUMNS)])


def _whole_range(low: Array, high: Array) -> Grid:
    return activation_grid(float(low.min()), float(high.max()))


def _beginnings(products: Products, alphas: Sequence[float]) -> Iterator[tuple[float, Array]]:
    """SmoothQuant's factors, with the greatest weight and with the root mean square one; AWQ's for weights alone."""
    if products.scheme == "weights":
        size = np.sqrt(np.square(products.rows).mean(axis=0))
        for alpha in alphas:
            yield alpha, _usable(size**alpha, size > 0)
        return
    reach = np.maximum(products.high, -products.low)
    greatest = np.max([np.abs(weights).max(axis=1) for weights in products.weights], axis=0)
    alive = (reach > 0) & (greatest > 0)
    for alpha in alphas:
        weight = np.where(alive, greatest, 1) ** (1 - alpha)
        yield alpha, _usable(np.where(alive, reach, 1) ** alpha / weight, alive)
        yield alpha, _usable(np.where(alive, reach, 1) ** alpha, alive)


def _usable(factors: Array, alive: Array) -> Array:
    """Around 1, neither huge nor tiny, and 1 where there is nothing to smooth."""
    if not alive.any():
        return np.ones(len(factors), np.float32)
    logs = np.where(alive, np.log(np.where(alive, factors, 1)), 0)
    logs = np.where(alive, logs - logs[alive].mean(), 0)
    found: Array = np.exp(np.clip(logs, -np.log(_LARGEST), np.log(_LARGEST))).astype(np.float32)
    return found


def _downhill(products: Products, factors: Array) -> Array:
    """The least E(s) on the way down from `factors`: normalized gradient steps on log s, ever shorter."""
    slope = _Expected(products)
    logs = np.log(factors.astype(np.float64))
    best, least = logs, np.inf
    mean, square = np.zeros_like(logs), np.zeros_like(logs)
    for step in range(_STEPS):
        value, gradient = slope(logs)
        if value < least:
            best, least = logs, value
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        logs = logs - _RATE * (1 - step / _STEPS) * mean / (np.sqrt(square) + 1e-8)
    alive = np.maximum(products.high, -products.low) > 0
    return _usable(np.exp(np.clip(best, -50, 50)), alive)


class _Expected:
    """E(s) as a function of t = log s, and its gradient divided by it: that of log E."""

    def __init__(self, products: Products) -> None:
        # Every product counts the same: its outputs are divided by their size.
        shares = [float(np.square(products.rows @ weights).mean(axis=0).sum()) or 1.0 for weights in products.weights]
        self._weights = np.abs(np.concatenate([weights.T for weights in products.weights]))
        count = np.concatenate(
            [np.full(w.shape[1], 1 / share) for w, share in zip(products.weights, shares, strict=True)]
        )
        self._count = count
        self._power = np.square(self._weights.T) @ count
        self._square = np.square(products.rows, dtype=np.float64).mean(axis=0)
        self._high = np.maximum(products.high, 0).astype(np.float64)
        self._low = np.maximum(-products.low, 0).astype(np.float64)
        self._last = levels(products.bits, True)[1]

    def __call__(self, logs: Array) -> tuple[float, Array]:
        factors = np.exp(logs)
        high, by_high = _norm(self._high / factors)
        low, by_low = _norm(self._low / factors)
        reach, by_weight = _norm(self._weights * factors.astype(np.float32))
        step = (high + low) / 255
        moved, inverse = self._power * factors**2, self._square / factors**2
        steps = np.square(reach[:, 0] / self._last) * self._count
        coarse, fine = step.item() ** 2 * moved.sum(), steps.sum() * inverse.sum()
        by_step = -2 * step.item() / 255 * (high.item() * by_high + low.item() * by_low)
        gradient = by_step * moved.sum() + step.item() ** 2 * 2 * moved
        gradient = gradient + 2 * (steps @ by_weight) * inverse.sum() - 2 * steps.sum() * inverse
        total = coarse + fine
        return float(total), gradient / max(total, np.finfo(np.float64).tiny)


def _norm(values: Array) -> tuple[Array, Array]:
    """The maximum along the last axis, nearly, and by how much of itself it grows with the log of each value."""
    greatest = np.maximum(values.max(axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    shares = values / greatest
    for _ in range(_DOUBLINGS):
        np.square(shares, out=shares)
    total = np.maximum(shares.sum(axis=-1, keepdims=True), 1.0)
    shares /= total
    return greatest * total ** (0.5**_DOUBLINGS), shares
