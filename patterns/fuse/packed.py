"""Several products of one input as one product."""

from __future__ import annotations

import numpy as np

from graphopt.ir import Value
from graphopt.rewrite import Builder, Reason, numbers_of

Linear = tuple[Value, Value | None]
"""The constants of a linear layer: weights (in, out) and, perhaps, a bias (out)."""


def fits(*layers: Linear) -> Reason:
    """Whether each bias is one number for each output of its layer."""
    matching = all(b is None or (w.shape is not None and b.shape == w.shape[1:]) for w, b in layers)
    return matching or "a bias does not match its weights"


def packed(op: Builder, x: Value, *layers: Linear) -> tuple[Value, ...]:
    """x·W + b of each layer, cut out of one product of `x` (..., in)."""
    sizes = [numbers_of(w).shape[1] for w, _ in layers]
    y = op.MatMul(x, op.const(np.concatenate([numbers_of(w) for w, _ in layers], axis=1), name="packed_weight"))
    if any(b is not None for _, b in layers):
        parts = [np.zeros_like(numbers_of(w)[0]) if b is None else numbers_of(b) for w, b in layers]
        y = op.Add(y, op.const(np.concatenate(parts), name="packed_bias"))
    return op.split(y, sizes, axis=-1)
