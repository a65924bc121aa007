"""Matrix products."""

from __future__ import annotations

from graphopt.ir import dtypes
from graphopt.ir.dims import Shape
from graphopt.ir.inference import sizes
from graphopt.ir.inference.outs import Out, Outs, Table, dtype_of, operand
from graphopt.ir.inference.sizes import Part, Partial
from graphopt.ir.node import Node


def product(a: Shape | None, b: Shape | None) -> Partial | None:
    """The shape of a @ b as NumPy has it."""
    if not a or not b:
        return None
    rows: Partial = a[-2:-1]
    columns: Partial = b[-1:] if len(b) > 1 else ()
    batch = sizes.broadcast(a[:-2], b[:-2])
    return None if batch is None else batch + rows + columns


def matmul(node: Node) -> Outs:
    a, b = operand(node, 0), operand(node, 1)
    return [Out(a.dtype, product(a.shape, b.shape))]


def matmul_integer(node: Node) -> Outs:
    return [Out(dtypes.INT32, product(operand(node, 0).shape, operand(node, 1).shape))]


def matmul_integer_to_float(node: Node) -> Outs:
    return [Out(dtype_of(node, 2), product(operand(node, 0).shape, operand(node, 1).shape))]


def qlinear_matmul(node: Node) -> Outs:
    return [Out(dtype_of(node, 7), product(operand(node, 0).shape, operand(node, 3).shape))]


def fused_matmul(node: Node) -> Outs:
    a, b = operand(node, 0), operand(node, 1)
    left = _transposed(a.shape, node.attr("transA", 0), node.attr("transBatchA", 0))
    right = _transposed(b.shape, node.attr("transB", 0), node.attr("transBatchB", 0))
    return [Out(a.dtype, product(left, right))]


def _transposed(shape: Shape | None, matrix: int, batch: int) -> Shape | None:
    if shape is None or len(shape) < 2:
        return shape
    if batch:
        # The first axis moves behind the others but the last.
        shape = (*shape[1:-1], shape[0], shape[-1])
    return (*shape[:-2], shape[-1], shape[-2]) if matrix else shape


def matmul_nbits(node: Node) -> Outs:
    """a (..., K) times a packed matrix of N columns."""
    a = operand(node, 0)
    return [Out(a.dtype, (*a.shape[:-1], node.attr("N")) if a.shape else None)]


def gemm(node: Node) -> Outs:
    a, b = operand(node, 0), operand(node, 1)
    rows: Part = a.shape[1 if node.attr("transA", 0) else 0] if a.shape is not None else None
    columns: Part = b.shape[0 if node.attr("transB", 0) else 1] if b.shape is not None else None
    return [Out(a.dtype, (rows, columns))]


def einsum(node: Node) -> Outs:
    equation = "".join(str(node.attr("equation", "")).split())
    if "." in equation:
        return None
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    operands = [operand(node, slot) for slot in range(node.arity)]
    found: dict[str, Part] = {}
    for letters, value in zip(terms, operands, strict=True):
        if value.shape is None:
            continue
        for letter, size in zip(letters, value.shape, strict=True):
            found[letter] = sizes.broadcast_one(found.get(letter, 1), size)
    written = right if arrow else "".join(sorted(x for x in found if left.count(x) == 1))
    complete = arrow or all(value.shape is not None for value in operands)
    return [Out(operands[0].dtype, tuple(found.get(letter) for letter in written) if complete else None)]


TABLE: Table = {
    ("", "Einsum"): einsum,
    ("", "Gemm"): gemm,
    ("", "MatMul"): matmul,
    ("", "MatMulInteger"): matmul_integer,
    ("", "QLinearMatMul"): qlinear_matmul,
    ("com.microsoft", "DynamicQuantizeMatMul"): matmul,
    ("com.microsoft", "FusedGemm"): gemm,
    ("com.microsoft", "FusedMatMul"): fused_matmul,
    ("com.microsoft", "MatMulIntegerToFloat"): matmul_integer_to_float,
    ("com.microsoft", "MatMulNBits"): matmul_nbits,
}
