"""Batch normalization in inference: a factor and a term for each channel, wherever views have put the channels."""

from __future__ import annotations

import numpy as np

from graphopt.ir import Shape, Value
from graphopt.ir.dims import product
from graphopt.ir.tensor import Array
from graphopt.patterns.fuse.channels import float64
from graphopt.rewrite import Reason
from graphopt.rewrite.facts import source_of

# Five of the seven digits of float32 are left to the result.
_SPREADS = 100


def inference_only(root: Value, variance: Value, eps: float) -> Reason:
    """Whether the statistics are those given, of the type of the image, and can be divided by."""
    if root.node.version < 7 or sum(bool(value.name) for value in root.node.outputs) > 1:
        return "it may be in training mode"
    if len({value.dtype for value in root.node.inputs if value is not None}) > 1:
        return "operands of several types"
    return bool((float64(variance) + np.float32(eps) > 0).all()) or "a variance is not positive"


def moves_behind(product: Value, mean: Value, variance: Value, eps: float) -> Reason:
    """Whether the normalization that a product reads is one of inference, and its mean, subtracted behind the product,
    cancels no digits that count."""
    normal = product.node.inputs[0]
    assert normal is not None
    allowed = inference_only(source_of(normal), variance, eps)
    if allowed is not True:
        return allowed
    near = (abs(float64(mean)) <= _SPREADS * np.sqrt(float64(variance) + np.float32(eps))).all()
    return bool(near) or "a mean is far from zero, measured by its spread"


def affine(gain: Value, shift: Value, mean: Value, variance: Value, eps: float) -> tuple[Array, Array]:
    """k = γ / √(σ² + ε) and β − μ·k, for each channel."""
    factor = float64(gain) / np.sqrt(float64(variance) + np.float32(eps))
    return factor, float64(shift) - float64(mean) * factor


def views_before(root: Value) -> list[Value]:
    """The Transposes and Reshapes before an operation, the last one first."""
    found = []
    value = root.node.inputs[0]
    while value is not None and (value := source_of(value)).node.op in ("Transpose", "Reshape"):
        found.append(value)
        value = value.node.inputs[0]
    return found


def axis_before(view: Value, axis: int | None) -> int | None:
    """Where dimension `axis` of a view lies in what is viewed; None where that is not known, or it is no dimension."""
    whole = view.node.inputs[0]
    if axis is None or whole is None or whole.shape is None or view.shape is None:
        return None
    if view.node.op == "Transpose":
        perm: list[int] = view.node.attr("perm") or list(reversed(range(len(whole.shape))))
        return perm[axis]
    return next((at for at in range(len(whole.shape)) if _same(view.shape, axis, whole.shape, at)), None)


def _same(a: Shape, at: int, b: Shape, there: int) -> bool:
    """Whether a dimension of one shape is that of the other: as long, with as much before it."""
    return a[at] == b[there] and product(a[:at]) == product(b[:there])
