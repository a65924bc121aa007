"""Where rounding happens: which values of a model may be moved by an ulp to see how far its results move."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from graphopt.ir import Model, Node, Tensor, dtypes
from graphopt.ir.fused import DOMAIN

_WEIGHT_BYTES: Final = 1 << 18
_ROUNDED: Final = {
    *("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Attention"),
    *("Div", "Reciprocal", "Sqrt", "Pow", "Exp", "Log", "Sin", "Cos", "Softmax", "LogSoftmax"),
    *("Erf", "Tanh", "Sigmoid", "Softplus", "Elu", "Gelu", "Mish", "HardSwish"),
    *("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "AveragePool", "GlobalAveragePool"),
    *("LayerNormalization", "RMSNormalization", "GroupNormalization", "InstanceNormalization", "BatchNormalization"),
}
_FIRST_BROADCASTING_OPSET: Final = 7


def data_values(model: Model) -> frozenset[str]:
    """The values of the main graph that depend on what inputs hold, and not on their shapes alone."""
    found = {node.output for node in model.graph.sources("Input")}
    for node in model.graph.ops():
        if node.op not in ("Shape", "Size") and any(value in found for value in node.inputs):
            found.update(node.outputs)
    return frozenset(value.name for value in found)


def is_rounded(node: Node, data: Collection[str]) -> bool:
    """Whether the first output of `node` is a float that a kernel of another make may round otherwise.

    Exact and cheap operations do not count, among them those that masks are made of: an ulp there is no noise.
    """
    value = node.outputs[0]
    known = (node.op in _ROUNDED or node.domain == DOMAIN) and node.graph.opsets.get("", 1) >= _FIRST_BROADCASTING_OPSET
    return known and value.name in data and value.dtype in dtypes.FLOATS


def is_movable(tensor: Tensor) -> bool:
    """Whether a constant is a small vector or matrix of floats: gains, biases."""
    return tensor.size > 1 and tensor.nbytes <= _WEIGHT_BYTES and tensor.dtype in dtypes.FLOATS
