"""Constants that belong to the channels of a convolution, and weights in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphopt.ir import Value
from graphopt.ir.tensor import Array
from graphopt.rewrite import numbers_of


def float64(value: Value) -> Array:
    """The numbers of a constant, to compute with."""
    return numbers_of(value).astype(np.float64)


def factor_of(k: Value | None, divisor: Value | None) -> Array:
    """What is multiplied by: a constant, or the inverse of one; infinite where it is nothing."""
    if k is not None:
        return float64(k)
    assert divisor is not None
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / float64(divisor))


def by_channel(numbers: Array, w: Value | None, t: Value | None, group: int) -> Array | None:
    """A number for each channel, of numbers that are broadcast over the result of a convolution.

    Its kernel is `w` (O, I/group, ...), or `t` (I, O/group, ...) of a transposed one. None where they vary along
    another dimension, or would add one.
    """
    kernel = numbers_of(w) if w is not None else numbers_of(t) if t is not None else numbers
    channels = len(kernel) if w is not None else kernel.shape[1] * group
    if numbers.ndim > kernel.ndim:
        return None
    shape = (*(1,) * (kernel.ndim - numbers.ndim), *numbers.shape)
    if any(size != 1 for axis, size in enumerate(shape) if axis != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(numbers.reshape(-1), (channels,))


def by_input_channel(numbers: Array, x: Value, w: Value, group: int) -> Array | None:
    """Numbers broadcast over the image `x` of a convolution, in the layout of its kernel `w` (O, I/group, ...).

    None where they vary along another dimension than the channels, or would add one.
    """
    outputs, inputs, *size = numbers_of(w).shape
    channels = inputs * group
    if x.shape is None or len(x.shape) != len(size) + 2 or x.shape[1] != channels or numbers.ndim > len(x.shape):
        return None
    shape = (*(1,) * (len(x.shape) - numbers.ndim), *numbers.shape)
    if any(length != 1 for axis, length in enumerate(shape) if axis != 1) or shape[1] not in (1, channels):
        return None
    each = np.broadcast_to(numbers.reshape(-1), (channels,)).reshape(group, inputs)
    return np.repeat(each, outputs // group, axis=0).reshape(outputs, inputs, *(1,) * len(size))


def unpadded(others: dict[str, Any]) -> bool:
    """Whether a convolution with these attributes reads nothing but its image."""
    return others.get("auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(others.get("pads") or ())
