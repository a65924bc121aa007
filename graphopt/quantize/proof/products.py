"""The products with constant weights of a model as it is written, and of what onnxruntime's optimizer makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

Op = tuple[str, str]
"""An operator's domain and name."""

_STANDARD = ("", "ai.onnx")
_MS = "com.microsoft"

WEIGHTS: dict[str, Sequence[int]] = {
    **dict.fromkeys(("MatMul", "FusedMatMul", "TransposeMatMul", "MatMulInteger", "Gemm", "Einsum"), (1, 0)),
    **dict.fromkeys(("FusedGemm", "Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "ConvInteger"), (1,)),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM", "Attention", "QAttention"), (1,)),
    **dict.fromkeys(("MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"), (1,)),
    **dict.fromkeys(("QLinearMatMul", "QGemm", "QLinearConv", "QLinearConvTranspose"), (3,)),
    **dict.fromkeys(("Gather", "GatherBlockQuantized"), (0,)),
}
"""Products, by the slots in which weights may stand, the usual one first; and what reads tables."""

TABLES = {"Gather", "GatherBlockQuantized"}
"""Operators that read rows of a table: what makes it smaller is planned like a product, though it is none."""
_BYTES = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4}

_EXPECTS_MATRIX = {"MatMul", "FusedMatMul", "TransposeMatMul", "MatMulInteger", "Gemm"}

_FINISHES = {
    *("Add", "Sub", "Mul", "Div", "Cast", "Identity", "QuantizeLinear", "DequantizeLinear"),
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Relu", "Clip"),
}
"""What may stand between a product and the value in which it ends: scales, biases, roundings, moves."""
_FAR = 12
"""How many values in front of the last one of a product the product itself may be."""


@dataclass(eq=False)
class Scope:
    """A graph: `prefix` tells the names of its values from those of others, as in `If_0:1/y`."""

    prefix: str
    outer: Scope | None
    initializers: dict[str, TensorProto]
    makers: dict[str, NodeProto] = field(default_factory=dict)

    def maker(self, name: str) -> NodeProto | None:
        """The node that makes a value, here or outside; None for inputs and initializers."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.makers:
                return scope.makers[name]
            scope = scope.outer
        return None

    def initializer(self, name: str) -> TensorProto | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.initializers:
                return scope.initializers[name]
            scope = scope.outer
        return None


@dataclass(frozen=True, eq=False)
class Product:
    """A node that multiplies an activation by constant weights.

    `weights` are the names of the values from its operand, in `slot`, back to the initializer.
    """

    node: NodeProto
    scope: Scope
    slot: int
    weights: tuple[str, ...]

    @property
    def op(self) -> Op:
        return ("" if self.node.domain in _STANDARD else self.node.domain), self.node.op_type

    @property
    def name(self) -> str:
        """The name of the value that it makes, behind those of what holds its scope."""
        return f"{self.scope.prefix}{self.node.output[0]}"

    @property
    def activation(self) -> str:
        """The name of the operand that is no constant."""
        first = 0 if self.slot else 1
        return str(self.node.input[first])


class Products:
    """The products of one model, in its order, and which nodes read and make what around them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._constant: dict[tuple[Scope, str], bool] = {}
        self.nodes: list[tuple[NodeProto, Scope]] = []
        self._collect(model.graph, "", None)
        self.all = [found for node, scope in self.nodes if (found := self._product(node, scope)) is not None]

    @cached_property
    def readers(self) -> dict[str, list[tuple[NodeProto, Scope]]]:
        """The nodes that read each name, whatever their scope."""
        found: dict[str, list[tuple[NodeProto, Scope]]] = {}
        for node, scope in self.nodes:
            for name in dict.fromkeys(filter(None, node.input)):
                found.setdefault(name, []).append((node, scope))
        return found

    @cached_property
    def of_node(self) -> dict[int, Product]:
        """The products by the `id` of their nodes, which are no keys."""
        return {id(product.node): product for product in self.all}

    @cached_property
    def _makers(self) -> dict[str, tuple[NodeProto, Scope]]:
        return {scope.prefix + name: (node, scope) for node, scope in self.nodes for name in node.output}

    def behind(self, key: str) -> Product | None:
        """The product that ends in a value, behind what scales, rounds, moves or shifts its result; None without one.

        `key` is the value's name behind those of what holds its scope.
        """
        waiting, seen = [key], set[str]()
        for name in waiting:
            if name not in self._makers or name in seen or len(seen) > _FAR:
                continue
            seen.add(name)
            node, scope = self._makers[name]
            if id(node) in self.of_node:
                return self.of_node[id(node)]
            waiting += [scope.prefix + one for one in node.input if one and node.op_type in _FINISHES]
        return None

    def is_constant(self, scope: Scope, name: str) -> bool:
        """Whether a value is an initializer, or computed from those alone."""
        waiting = [name]
        while waiting:
            top = waiting[-1]
            if (scope, top) in self._constant:
                waiting.pop()
                continue
            node = scope.maker(top)
            if node is None:
                self._constant[scope, top] = scope.initializer(top) is not None
                continue
            inputs = [one for one in node.input if one]
            open_ones = [one for one in inputs if (scope, one) not in self._constant]
            if open_ones and not subgraphs(node):
                waiting += open_ones
                continue
            fixed = node.op_type == "Constant" or bool(inputs)
            self._constant[scope, top] = (
                fixed and not subgraphs(node) and all(self._constant[scope, one] for one in inputs)
            )
        return self._constant[scope, name]

    def _collect(self, graph: GraphProto, prefix: str, outer: Scope | None) -> None:
        open_ones = {value.name for value in graph.input}  # a default that a caller may replace is no constant
        initializers = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in open_ones}
        initializers |= {tensor.values.name: tensor.values for tensor in graph.sparse_initializer}
        scope = Scope(prefix, outer, initializers)
        for node in graph.node:
            self.nodes.append((node, scope))
            scope.makers |= dict.fromkeys(filter(None, node.output), node)
            for index, inner in enumerate(subgraphs(node)):
                self._collect(inner, f"{prefix}{node.output[0]}:{index}/", scope)

    def _product(self, node: NodeProto, scope: Scope) -> Product | None:
        slots = WEIGHTS.get(node.op_type, ())
        for slot in slots:
            if slot < len(node.input) and node.input[slot] and self.is_constant(scope, node.input[slot]):
                found = Product(node, scope, slot, tuple(self._chain(scope, node.input[slot])))
                other = found.activation
                if self._sums(found) and other and not self.is_constant(scope, other):
                    return found
        return None

    def _chain(self, scope: Scope, name: str) -> Iterator[str]:
        """The names from a constant to the initializer that its first operands lead to."""
        while name:
            yield name
            node = scope.maker(name)
            name = node.input[0] if node is not None and node.input else ""

    def _sums(self, product: Product) -> bool:
        """Whether more than one product is added up to an element: an outer product, or a factor, is none.

        Of tables, those of integers count.
        """
        tensor = product.scope.initializer(product.weights[-1])
        if product.node.op_type in TABLES:
            return tensor is not None and tensor.data_type in _BYTES and len(tensor.dims) > 1
        if tensor is None or product.node.op_type not in _EXPECTS_MATRIX or len(product.weights) > 2:
            return True
        dims = list(tensor.dims)
        if product.node.op_type == "Gemm":
            transposed = number(product.node, "transB" if product.slot else "transA", 0)
            return dims[(1 - product.slot) ^ transposed] > 1 if len(dims) == 2 else False
        return len(dims) > 1 and dims[-2 if product.slot else -1] > 1


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs that a node holds, in the order of its attributes."""
    return [
        graph
        for attribute in node.attribute
        for graph in ([attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs)
    ]


def number(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)
