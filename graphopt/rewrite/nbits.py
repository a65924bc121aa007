"""Integer weights in the layout of com.microsoft.MatMulNBits: a row for each output channel, cut into blocks."""

from __future__ import annotations

from functools import partial

import numpy as np

from graphopt.ir import Tensor, dtypes
from graphopt.ir.tensor import Array
from graphopt.rewrite.plan import Integers

BLOCK = 128
"""The block of weights that have one scale for each channel: of those that the kernel takes, the fastest."""


def nbits_operands(weights: Integers, summed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """(B, scales, zero_points) of com.microsoft.MatMulNBits for a matrix of 4 or 8 bits that is summed over `summed`.

    B is uint8 (N, blocks, block · bits / 8), the first of two integers in the low half of a byte; scales (N, blocks);
    zero_points uint8 (N, ⌈blocks · bits / 8⌉), None where the operator's own, 2ᵇ⁻¹, is the one: integers with a sign
    are moved up by it. Weights without blocks have the scale of their channel in every block of `BLOCK`.
    """
    count, depth = weights.values.shape[1 - summed], weights.values.shape[summed]
    block = weights.block or BLOCK
    blocks, bits = -(-depth // block), dtypes.bits(weights.values.dtype)
    shape = count, blocks, block * bits // 8
    packed = Tensor.deferred(dtypes.NUMBERS["uint8"], shape, partial(_packed, weights.values, summed, block))
    scales = Tensor.deferred(weights.scale.dtype, (count, blocks), partial(_by_block, weights.scale, summed, shape[:2]))
    if weights.zero_point is None:
        return packed, scales, None
    zeros = partial(_packed_zeros, weights.zero_point, summed, shape[:2])
    return packed, scales, Tensor.deferred(dtypes.NUMBERS["uint8"], (count, -(-blocks * bits // 8)), zeros)


def _by_block(tensor: Tensor, summed: int, shape: tuple[int, int]) -> Array:
    """Scales or zero points as (N, blocks), whether there is one for each block, for each channel, or for all."""
    numbers = tensor.numpy()
    if numbers.ndim < 2:
        return np.ascontiguousarray(np.broadcast_to(numbers.reshape(-1, 1), shape))
    return np.ascontiguousarray(numbers if summed else numbers.T)


def _packed(values: Tensor, summed: int, block: int) -> Array:
    rows = values.numpy() if summed else values.numpy().T
    blocks, bits = -(-rows.shape[1] // block), dtypes.bits(values.dtype)
    filled = np.zeros((len(rows), blocks * block), np.uint8)
    filled[:, : rows.shape[1]] = _unsigned(rows, values.dtype)
    return _in_bytes(filled, bits).reshape(len(rows), blocks, -1)


def _packed_zeros(zeros: Tensor, summed: int, shape: tuple[int, int]) -> Array:
    return _in_bytes(_unsigned(_by_block(zeros, summed, shape), zeros.dtype), dtypes.bits(zeros.dtype))


def _unsigned(integers: Array, dtype: int) -> Array:
    """Integers as uint8, those with a sign moved up to begin at zero."""
    signed = dtypes.NAMES[dtype].startswith("int")
    bits = integers.astype(np.int8, copy=False).view(np.uint8)
    return bits + np.uint8(2 ** (dtypes.bits(dtype) - 1)) if signed else bits


def _in_bytes(rows: Array, bits: int) -> Array:
    """Integers of 4 bits by twos, the first one low; those of 8 as they are."""
    if bits == 8:
        return rows
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    both: Array = even[:, ::2] | (even[:, 1::2] << 4)
    return both
