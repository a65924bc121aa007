"""Rounding that makes good what it does: each weight is rounded so that it repairs what rounding others before did.

The error of a layer with inputs of Gram matrix H = Σ xxᵀ is Σ d H dᵀ over its rows of weights, d = w − ŵ. With
H = U Uᵀ, U upper triangular, that is ‖d U‖², and column j of d U holds d₀ … dⱼ only: to make it least, given those
before,

    ŵⱼ = round(wⱼ + Σ_{i<j} dᵢ Uᵢⱼ / Uⱼⱼ)

which is GPTQ (Frantar et al. 2022, arXiv:2210.17323) without the inverse of H (the same steps: Chen et al. 2025,
arXiv:2507.18553).
"""

from __future__ import annotations

import numpy as np

from graphopt.ir.tensor import Array
from graphopt.quantize.rounding.nearest import Rounded, fitted, in_groups, rounded
from graphopt.rewrite.grids import levels

_COLUMNS = 128
_DAMPING = (0.01, 0.1, 1.0)
"""What is added to the diagonal of a matrix, as a share of its mean: the first that makes it definite."""


def compensated(
    rows: Array,
    gram: Array,
    bits: int,
    block: int = 0,
    symmetric: bool = True,
    *,
    count: int = 0,
) -> Rounded:
    """`rows` of weights (N, K) as integers, by the Gram matrix (K, K) of their inputs.

    `count` is over how many inputs that was summed: the fewer, the less of their correlations is believed (0: all). A
    block's grid is found when it is its turn. Rounding to the nearest, on the searched and on the plain grid, is what
    it is held against: the least error is returned.
    """
    if count:
        gram = shrunk(gram, count)
    found = [_nearest(rows, gram, bits, block, symmetric, search) for search in (False, True)]
    upper = _factor(gram)
    if upper is not None:
        found.append(_repaired(rows, gram, upper, bits, block, symmetric))
    return min(found, key=lambda each: layer_error(rows - _values(each, block), gram))


def shrunk(gram: Array, count: int) -> Array:
    """The Gram matrix of `count` rows with its correlations as much smaller as few rows have made them too large.

    Oracle approximating shrinkage (Chen et al. 2010, arXiv:0907.4698), of correlations towards none: they are
    multiplied by 1 − ρ, ρ = min(1, ((1 − 2/K) tr C² + K²) / ((n + 1 − 2/K) (tr C² − K))). Without it the errors that a
    layer makes on other inputs grow, while those on the inputs that were seen become small.
    """
    size = np.sqrt(np.maximum(gram.diagonal(), 0).astype(np.float64))
    size = np.where(size > 0, size, 1.0)
    depth = len(gram)
    square = float(np.square(gram / size / size[:, None], dtype=np.float64).sum())
    excess = (count + 1 - 2 / depth) * (square - depth)
    share = min(1.0, ((1 - 2 / depth) * square + depth**2) / excess) if excess > 0 else 1.0
    found: Array = ((1 - share) * gram).astype(np.float32)
    np.fill_diagonal(found, gram.diagonal())
    return found


def layer_error(differences: Array, gram: Array) -> float:
    """Σ d H dᵀ over the rows d (N, K) of `differences`: the squared error of the layer's outputs over all x."""
    return float(np.einsum("nk,nk->", differences @ gram.astype(np.float32), differences, dtype=np.float64))


def _nearest(rows: Array, gram: Array, bits: int, block: int, symmetric: bool, search: bool) -> Rounded:
    scale, zero = fitted(rows, bits, block, symmetric, search=search, importance=gram.diagonal())
    return rounded(rows, scale, zero, block, levels(bits, symmetric))


def _factor(gram: Array) -> Array | None:
    """U, float32; None where no damping makes the matrix definite."""
    mean = float(gram.diagonal().mean(dtype=np.float64))
    if not np.isfinite(mean) or mean <= 0:
        return None
    # A = L Lᵀ of the matrix turned about both ways is U Uᵀ, turned back.
    turned = gram[::-1, ::-1].astype(np.float64)
    for share in _DAMPING:
        try:
            lower = np.linalg.cholesky(turned + share * mean * np.eye(len(gram)))
        except np.linalg.LinAlgError:
            continue
        return np.ascontiguousarray(lower[::-1, ::-1].astype(np.float32))
    return None


def _repaired(rows: Array, gram: Array, upper: Array, bits: int, block: int, symmetric: bool) -> Rounded:
    """Rounded column by column, each group on the grid that is best for what is left of it by then."""
    limits = levels(bits, symmetric)
    depth = rows.shape[1]
    importance = gram.diagonal()
    done = np.zeros_like(rows)
    values = np.empty_like(rows)
    scale, zero = _unfitted(rows, bits, block, symmetric, importance)
    pull = upper / upper.diagonal()
    for start in range(0, depth, _COLUMNS):
        end = min(start + _COLUMNS, depth)
        wanted = rows[:, start:end] + done[:, :start] @ pull[:start, start:end]
        for column in range(start, end):
            group = column // (block or depth)
            if block and column % block == 0:
                span = slice(column, min(column + block, depth))
                moved = _best_real(rows, done, upper, span)
                scale[:, group], zero[:, group] = (
                    each[:, 0] for each in fitted(moved, bits, 0, symmetric, search=True, importance=importance[span])
                )
            target = wanted[:, column - start] + done[:, start:column] @ pull[start:column, column]
            steps = np.clip(np.rint(target / scale[:, group]), limits[0] - zero[:, group], limits[1] - zero[:, group])
            values[:, column] = steps + zero[:, group]
            done[:, column] = rows[:, column] - steps * scale[:, group]
    return Rounded(values, scale, zero)


def _unfitted(rows: Array, bits: int, block: int, symmetric: bool, importance: Array) -> tuple[Array, Array]:
    """Grids of whole rows; of blocks, those that are found later stand in."""
    return fitted(rows, bits, block, symmetric, search=not block, importance=importance)


def _best_real(weights: Array, done: Array, upper: Array, span: slice) -> Array:
    """What the columns of `span` would best be, were they not rounded: those that make their part of d U zero."""
    pushed = done[:, : span.start] @ upper[: span.start, span]
    return weights[:, span] + np.linalg.solve(upper[span, span].T, pushed.T).T


def _values(found: Rounded, block: int) -> Array:
    """The numbers that the integers stand for (N, K)."""
    groups = in_groups(found.values, block)
    numbers: Array = (groups - found.zero[..., None]) * found.scale[..., None]
    return numbers.reshape(len(found.values), -1)[:, : found.values.shape[1]]
