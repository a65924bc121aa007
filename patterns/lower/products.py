"""What the kernel for products of transposed and scaled matrices, com.microsoft FusedMatMul, wants."""

from __future__ import annotations

from typing import Any

from graphopt.ir import Shape, Value
from graphopt.rewrite import Builder


def is_quantized(*operands: Value | None) -> bool:
    """Whether an operand is made of integers: such a product has kernels of its own."""
    return any(x is not None and x.node.is_op("DequantizeLinear") for x in operands)


def fused_matmul(op: Builder, a: Value, b: Value, attrs: dict[str, Any]) -> Value:
    """com.microsoft FusedMatMul, without the attributes that have their defaults as float32; MatMul where all have."""
    default = {"alpha": 1.0, "transA": 0, "transB": 0, "transBatchA": 0, "transBatchB": 0}
    written = {name: value for name, value in attrs.items() if round(value, 7) != default[name]}
    return op.ms.FusedMatMul(a, b, **written) if written else op.MatMul(a, b)


def flags(side: str, perm: list[int] | None, rank: int, written: dict[str, Any]) -> dict[str, int] | None:
    """The attributes that stand for a Transpose of the operand on `side`, A or B, beside those that are written.

    trans exchanges the last two dimensions; before that, transBatch moves the first one behind all others but the last.
    None where the Transpose does something else.
    """
    matrix, batch = f"trans{side}", f"transBatch{side}"
    if written.get(batch):
        return None
    turned, turn = perm if perm is not None else list(reversed(range(rank))), written.get(matrix, 0)
    if turned == [*range(rank - 2), rank - 1, rank - 2]:
        return {matrix: 1 - turn}
    moved = list(range(1, rank - 1))
    if rank > 2 and turned in ([*moved, 0, rank - 1], [*moved, rank - 1, 0]):
        return {batch: 1, matrix: turn if turned[-1] == rank - 1 else 1 - turn}
    return None


def batches(x: Value, side: str, written: dict[str, Any]) -> Shape | None:
    """The leading dimensions of the operand on `side`, as the product with these attributes reads it."""
    if x.shape is None:
        return None
    return x.shape[1:-1] if written.get(f"transBatch{side}") else x.shape[:-2]
