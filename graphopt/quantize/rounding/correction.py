"""Bias correction (Nagel et al. 2019, arXiv:1906.04721): what rounding takes away on average goes back."""

from __future__ import annotations

import numpy as np

from graphopt.ir.tensor import Array
from graphopt.rewrite.grids import on_grid
from graphopt.rewrite.plan import Grid


def bias_correction(mean: Array, exact: Array, found: Array) -> Array:
    """E[x] (W − Ŵ), (N,) float32: of `mean` (K,) and weights (K, N), exact and as the integers have them."""
    correction: Array = (mean.astype(np.float64) @ (exact.astype(np.float64) - found)).astype(np.float32)
    return correction


def static_correction(rows: Array, exact: Array, found: Array, grid: Grid, smooth: Array | None = None) -> Array:
    """E[x W − x̂ Ŵ], (N,) float32: with the mean error of rounding and clipping x on `grid`, over `rows` (R, K) of x.

    `smooth` (K,) divides x before it is rounded; `found` (K, N) is multiplied by it already, `exact` is not.
    """
    divided = rows if smooth is None else rows / smooth
    lost = rows.mean(axis=0, dtype=np.float64) @ exact - on_grid(divided, grid).mean(axis=0, dtype=np.float64) @ found
    correction: Array = lost.astype(np.float32)
    return correction
