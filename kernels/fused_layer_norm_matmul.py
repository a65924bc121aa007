"""LayerNormalization(x)·w: a normalization and the product after it."""

import numpy as np

from graphopt.ir.fused import Body, FusedOp
from graphopt.ir.tensor import Array


def reference(x: Array, g: Array, b: Array, w: Array, epsilon: float = 1e-5) -> Array:
    """x (..., K), g (K), b (K), w (K, N); the result is (..., N). Source: Ba, Kiros and Hinton, 2016."""
    d = x - x.mean(axis=-1, keepdims=True)
    y: Array = (d / np.sqrt((d * d).mean(axis=-1, keepdims=True) + epsilon) * g + b) @ w
    return y


FUSED_LAYER_NORM_MATMUL = FusedOp(
    name="FusedLayerNormMatMul",
    summary="y = LayerNormalization(x, g, b)·w over the last axis, x (..., K), g (K), b (K), w (K, N)",
    inputs=("x", "g", "b", "w"),
    attributes={"epsilon": 1e-5},
    bodies=(
        Body(
            12,
            """d = Sub(x, ReduceMean(x, axes=[-1]))
               variance = Add(ReduceMean(Mul(d, d), axes=[-1]), Constant(value_float=@epsilon))
               y = MatMul(Add(Mul(Div(d, Sqrt(variance)), g), b), w)""",
            types=("float32",),
        ),
        # CastLike, and with it a float16 that is normalized in float32, came with opset 15.
        Body(
            15,
            """x32 = Cast(x, to=float32)
               d = Sub(x32, ReduceMean(x32, axes=[-1]))
               variance = Add(ReduceMean(Mul(d, d), axes=[-1]), Constant(value_float=@epsilon))
               y = MatMul(Add(Mul(CastLike(Div(d, Sqrt(variance)), x), g), b), w)""",
        ),
        Body(17, "y = MatMul(LayerNormalization(x, g, b, axis=-1, epsilon=@epsilon), w)"),
    ),
    reference=reference,
)
