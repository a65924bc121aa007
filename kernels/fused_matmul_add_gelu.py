"""Gelu(x·w + b): the first half of a transformer's feed-forward network."""

import math

import numpy as np

from graphopt.ir.fused import Body, FusedOp
from graphopt.ir.tensor import Array

_erf = np.vectorize(math.erf, otypes=[np.float64])


def reference(x: Array, w: Array, b: Array, approximate: str = "none") -> Array:
    """x (..., K), w (K, N), b (N); the result is (..., N). Source: Hendrycks and Gimpel, 2016."""
    h: Array = x @ w + b
    tanh = np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))
    y: Array = 0.5 * h * (1 + (tanh if approximate == "tanh" else _erf(h / math.sqrt(2))))
    return y


FUSED_MATMUL_ADD_GELU = FusedOp(
    name="FusedMatMulAddGelu",
    summary="y = Gelu(x·w + b), x (..., K), w (K, N), b (N); approximate is none or tanh, as of Gelu",
    inputs=("x", "w", "b"),
    attributes={"approximate": "none"},
    bodies=(
        # A number of the type of b, without a cast to a type that a function does not know: HardSigmoid(s, α, β) is
        # α·s + β, cut off at 0 and 1. So √½ is HardSigmoid(0·s + √½), and Φ(h) = ½ + ½·erf(√½·h).
        Body(
            11,
            """h = Add(MatMul(x, w), b)
               root = HardSigmoid(Sign(b), alpha=0.0, beta=0.70710678)
               y = Mul(h, HardSigmoid(Erf(Mul(h, root)), alpha=0.5, beta=0.5))""",
        ),
        # The spelling that runtimes recognize, in the type of h by CastLike.
        Body(
            15,
            """h = Add(MatMul(x, w), b)
               doubled = Mul(h, Add(Erf(Div(h, CastLike(1.4142135, h))), CastLike(1.0, h)))
               y = Mul(doubled, CastLike(0.5, h))""",
        ),
        Body(20, "y = Gelu(Add(MatMul(x, w), b), approximate=@approximate)"),
    ),
    reference=reference,
)
