"""What must be true of the factors and biases of attention's scores."""

from __future__ import annotations

import math

from graphopt.ir import Value
from graphopt.ir.inference.sizes import fits
from graphopt.rewrite import Reason


def can_scale(scale: float, cap: float | None) -> Reason:
    """Whether scores can be multiplied by `scale` and then capped: c·tanh(scale · q·kᵀ)."""
    if cap is not None and not 0 < cap < math.inf:
        return f"the cap is {cap:g}"
    return (scale > 0 and math.isfinite(scale)) or f"the scale is {scale}"


def keep_columns(kt: Value, v: Value, *biases: Value | None) -> Reason:
    """Whether `biases` have one column or as many as there are keys, and so do not widen the scores.

    Weights and values are multiplied, so the weights have as many columns as the values have rows. Where that is the
    number of keys, it follows; else the biases must say so.
    """
    assert kt.shape is not None
    assert v.shape is not None
    keys = kt.shape[-1]
    wide = [b.shape for b in biases if b is not None and not (b.shape and fits(b.shape[-1], keys))]
    return v.shape[-2] == keys or not wide or f"{v.shape[-2]} values, {keys} keys, and what is added is {wide[0]}"
