"""Why onnxruntime runs a product on floats that was to run on integers, in words.

Each reason is a condition of a kernel that the written model does not meet (onnxruntime 1.31, CPU).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from onnx import NodeProto, TensorProto

from graphopt.quantize.proof.kernels import Computed
from graphopt.quantize.proof.products import TABLES, Product, Products, Scope, number

_HIDDEN = {"Attention", "FusedMatMul", "FusedGemm", "FusedConv", "NhwcFusedConv", "MultiHeadAttention"}
"""Products of com.microsoft that have no form with QuantizeLinear and DequantizeLinear around them."""

_MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Expand", "Concat", "Pad"}
_RELUS = {"Relu", "Clip"}
_TYPES = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "uint16",
}


class _Case(NamedTuple):
    """A product that stayed float: as written, the nodes around it, and what the optimizer made of it."""

    written: Products
    product: Product
    scheme: str
    made: NodeProto
    weights: NodeProto | None
    activation: NodeProto | None

    @property
    def scope(self) -> Scope:
        return self.product.scope

    def readers(self, name: str) -> list[NodeProto]:
        return [node for node, _ in self.written.readers.get(name, ())]


def why_float(written: Products, product: Product, found: Computed, scheme: str) -> str:
    """The first condition that a product planned in `scheme` does not meet."""
    assert found.node is not None
    makers = product.scope.maker
    case = _Case(written, product, scheme, found.node, makers(product.weights[0]), makers(product.activation))
    return next(_reasons(case))


def _reasons(case: _Case) -> Iterator[str]:
    node = case.product.node
    if node.op_type in TABLES:
        yield "the whole table is dequantized in each run, before rows are read"
    if node.op_type in _HIDDEN:
        yield f"{node.domain}.{node.op_type} has no integer form behind DequantizeLinear"
    if not _dequantizes(case.weights):
        yield "its weights are not written as integers"
    if _dequantizes(case.activation):
        yield from _activation(case)
        yield from _bias(case)
        yield from _result(case)
    elif (source := _moved(case)) is not None:
        yield f"{source.op_type} stands between DequantizeLinear and the product"
    elif case.scheme == "weights":
        yield from _weights_only(case)
    else:
        yield "its activation is not written as integers"
    yield "onnxruntime did not fuse it, and no condition is known that it does not meet"


def _activation(case: _Case) -> Iterator[str]:
    assert case.activation is not None
    _, scale, *zeros = case.activation.input
    if not all(case.written.is_constant(case.scope, name) for name in (scale, *filter(None, zeros))):
        yield "the scale or the zero point of its activation is not constant"
    if number(case.activation, "block_size", 0):
        yield "its activation has a scale per block"
    kind = _zero_type(case, zeros)
    if kind in (TensorProto.INT16, TensorProto.UINT16):
        yield f"its activations are {TensorProto.DataType.Name(kind).lower()}, for which there is no kernel"


def _bias(case: _Case) -> Iterator[str]:
    """A Gemm, also one that the optimizer made of MatMul and Add, wants its bias in the integers of its products."""
    node = case.product.node
    if node.op_type == "MatMul" and case.made.op_type in ("Gemm", "FusedGemm"):
        yield (
            "onnxruntime makes a Gemm of it and the Add behind it, as its input has two dimensions, and a Gemm is "
            "integer only with an int32 bias"
        )
    if node.op_type in ("Gemm", "Conv", "ConvTranspose") and len(node.input) > 2 and node.input[2]:
        bias = case.scope.maker(node.input[2])
        if bias is None or not _dequantizes(bias):
            yield "its bias is float32, and its integer kernel takes int32 (DequantizeLinear of it)"
    if node.op_type == "Gemm" and any(_factor(node, name) != 1.0 for name in ("alpha", "beta")):
        yield "it has factors alpha and beta"


def _result(case: _Case) -> Iterator[str]:
    """Conv is integer only where its result is quantized, by one reader."""
    if case.product.node.op_type not in ("Conv", "ConvTranspose"):
        zero = _zero_type(case, list(case.activation.input[2:]) if case.activation is not None else [])
        if zero == TensorProto.INT8:
            yield "its activations are int8, x86 has kernels for uint8 only, and somebody else reads the int8 values"
        return
    readers = case.readers(case.product.node.output[0])
    if len(readers) == 1 and readers[0].op_type in _RELUS:
        behind = case.readers(readers[0].output[0])
        if len(behind) == 1 and behind[0].op_type == "QuantizeLinear":
            yield f"{readers[0].op_type} vanishes only where the zero point behind it is the smallest integer"
    if len(readers) > 1 and any(one.op_type == "QuantizeLinear" for one in readers):
        yield f"its result is read by {len(readers)} nodes, not by QuantizeLinear alone"
    if not any(one.op_type == "QuantizeLinear" for one in readers):
        yield "its result is not quantized, and its integer kernel gives integers only"


def _weights_only(case: _Case) -> Iterator[str]:
    node, product = case.product.node, case.product
    if node.op_type not in ("MatMul", "Gemm"):
        yield f"there is no kernel of {node.op_type} for integer weights and float activations"
    assert case.weights is not None
    readers = sum(len(case.readers(name)) for name in dict.fromkeys((product.weights[0], product.weights[-1])))
    if readers > 2:
        yield "its weights are read by several nodes, and MatMulNBits wants them for itself"
    if node.op_type == "Gemm" and number(node, "transB", 0):
        yield "it is a Gemm with transB, which does not become MatMulNBits"
    if number(case.weights, "block_size", 0) == 0 and number(case.weights, "axis", 1) not in (1, -1):
        yield "its weights have scales along the axis that is summed over"
    if product.slot != 1:
        yield "its weights are the first operand"


def _moved(case: _Case) -> NodeProto | None:
    """The first of some nodes that move values between a DequantizeLinear and the product; None without either."""
    node = first = case.activation
    while node is not None and node.op_type in _MOVES and node.input:
        node = case.scope.maker(node.input[0])
    return first if node is not first and _dequantizes(node) else None


def _zero_type(case: _Case, zeros: list[str]) -> int:
    known = case.scope.initializer(zeros[0]) if zeros and zeros[0] else None
    return known.data_type if known is not None else TensorProto.UINT8


def _dequantizes(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def _factor(node: NodeProto, name: str) -> float:
    return next((attribute.f for attribute in node.attribute if attribute.name == name), 1.0)
