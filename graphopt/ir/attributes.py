"""Attributes between protos and Python values.

int, float, str, bytes that are not UTF-8, lists of these, `Tensor`, and protos for types and sparse tensors. Subgraphs
are not here: they live in `Node.graphs`. An attribute that refers to one of the function's own is a `Reference`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import AttributeProto

from graphopt.ir.tensor import Tensor, text_of

if TYPE_CHECKING:
    from graphopt.ir.node import Node


@dataclass(frozen=True)
class Reference:
    """The value of the attribute `name` of the function that holds the node."""

    name: str
    type: int


def decode_one(proto: AttributeProto, base: Path | None = None) -> Any:
    """The Python value of one attribute, None for a subgraph; external data is relative to `base`."""
    if proto.ref_attr_name:
        return Reference(proto.ref_attr_name, proto.type)
    match proto.type:
        case AttributeProto.INT:
            return proto.i
        case AttributeProto.FLOAT:
            return proto.f
        case AttributeProto.STRING:
            return text_of(proto.s)
        case AttributeProto.INTS:
            return list(proto.ints)
        case AttributeProto.FLOATS:
            return list(proto.floats)
        case AttributeProto.STRINGS:
            return [text_of(raw) for raw in proto.strings]
        case AttributeProto.TENSOR:
            return Tensor(proto.t, base=base)
        case AttributeProto.TENSORS:
            return [Tensor(tensor, base=base) for tensor in proto.tensors]
        case AttributeProto.SPARSE_TENSOR:
            return proto.sparse_tensor
        case AttributeProto.SPARSE_TENSORS:
            return list(proto.sparse_tensors)
        case AttributeProto.TYPE_PROTO:
            return proto.tp
        case AttributeProto.TYPE_PROTOS:
            return list(proto.type_protos)
    return None


def decode(node: onnx.NodeProto, base: Path | None = None) -> dict[str, Any]:
    """The attributes of a node, without subgraphs; external data is relative to `base`."""
    pairs = ((attribute.name, decode_one(attribute, base)) for attribute in node.attribute)
    return {name: value for name, value in pairs if value is not None}


def encode(name: str, value: Any) -> AttributeProto:
    """The proto of one attribute that a rule wrote."""
    if isinstance(value, Tensor):
        return onnx.helper.make_attribute(name, value.to_proto(""))
    if isinstance(value, Reference):
        return AttributeProto(name=name, ref_attr_name=value.name, type=value.type)  # type: ignore[arg-type]
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, (list, tuple)) and not value:
        return onnx.helper.make_attribute(name, [], attr_type=AttributeProto.INTS)
    return onnx.helper.make_attribute(name, value)


def same(a: Any, b: Any) -> bool:
    """Whether two attribute values are equal; tensors by type, shape and bits."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return same_tensor(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


def same_tensor(a: Tensor, b: Tensor) -> bool:
    """Equal type, shape and bits (so that NaN equals NaN and 0.0 does not equal -0.0)."""
    if a is b:
        return True
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    x, y = a.numpy(), b.numpy()
    if x.dtype == object:
        return bool(np.array_equal(x, y))
    return x.tobytes() == y.tobytes()


def is_sparse(node: Node) -> bool:
    """Whether `node` is an ONNX `Constant` with a sparse value, which onnxruntime does not give out."""
    return node.is_op("Constant") and "sparse_value" in node.attrs


def constant_tensor(node: Node) -> Tensor | None:
    """The tensor of an ONNX `Constant` node; None for a sparse one or one whose value a function's caller gives."""
    if node.data is None:
        for name, value in node.attrs.items():
            if isinstance(value, Reference):
                return None
            match name:
                case "value":
                    node.data = value
                case "value_float" | "value_floats":
                    node.data = Tensor.of(np.asarray(value, np.float32))
                case "value_int" | "value_ints":
                    node.data = Tensor.of(np.asarray(value, np.int64))
                case "value_string" | "value_strings":
                    node.data = Tensor.of(np.asarray(value, object))
    return node.data
