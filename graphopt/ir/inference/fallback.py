"""What onnx itself infers, for operators that have no function here.

This builds protos, so it is slow: about 100 µs a node.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
from onnx import TensorProto, TypeProto, numpy_helper

from graphopt.ir import attributes, dtypes
from graphopt.ir.bodies import function_of
from graphopt.ir.dims import Size
from graphopt.ir.fused import DOMAIN, fused_ops
from graphopt.ir.inference.outs import Out
from graphopt.ir.inference.sizes import Part, Partial
from graphopt.ir.node import Node, Value
from graphopt.ir.operands import known_integers
from graphopt.ir.schema import onnx_schema

_DATA_LIMIT = 1024
_PLAIN = {("com.microsoft", "FusedConv"): "Conv"}
"""Standard operators of which others have the shapes."""
_REFUSALS = (onnx.shape_inference.InferenceError, onnx.checker.ValidationError)


@functools.cache
def _imports(items: tuple[tuple[str, int], ...]) -> list[onnx.OperatorSetIdProto]:
    return [onnx.helper.make_opsetid(domain, version) for domain, version in items]


def infer(node: Node) -> list[Out]:
    """What onnx says of the outputs; nothing where it has no schema, no rule, or refuses the node."""
    try:
        return _inferred(node)
    except (*_REFUSALS, RuntimeError, ValueError, TypeError, LookupError):
        return []


def refusal(node: Node) -> str:
    """Why onnx refuses a node; empty where it does not."""
    try:
        _inferred(node)
    except _REFUSALS as error:
        return str(error).strip().splitlines()[-1]
    except (RuntimeError, ValueError, TypeError, LookupError):
        return ""
    return ""


def _inferred(node: Node) -> list[Out]:
    if node.domain == DOMAIN:
        return _of_fused(node)
    domain, op, version = node.domain, node.op, node.version
    plain = _PLAIN.get((domain, op))
    if plain is not None:
        domain, op, version = "", plain, node.graph.opsets.get("", 1)
    schema = onnx_schema(domain, op, version)
    if schema is None or node.graphs or not schema.has_type_and_shape_inference_function:
        return []
    names = {value: f"i{slot}" for slot, value in enumerate(node.inputs[: node.arity]) if value is not None}
    proto = onnx.NodeProto(op_type=op, domain=domain)
    proto.input.extend(names[value] if value is not None else "" for value in node.inputs[: node.arity])
    proto.output.extend(f"o{index}" if value.name else "" for index, value in enumerate(node.outputs))
    proto.attribute.extend(
        attributes.encode(name, value) for name, value in node.attrs.items() if name in schema.attributes
    )
    symbols: dict[str, Size] = {}
    types = {name: _type(value, symbols) for value, name in names.items()}
    data = {name: tensor for value, name in names.items() if (tensor := _data(value)) is not None}
    imports = _imports(tuple(node.graph.opsets.items()))
    found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, None, imports)
    return [_out(found.get(f"o{index}"), symbols) for index in range(len(node.outputs))]


def _of_fused(node: Node) -> list[Out]:
    """What follows from the newest body of an operator of `ai.graphopt`."""
    op, operands = fused_ops().get(node.op), [v for v in node.inputs[: node.arity] if v is not None]
    if op is None or node.graphs:
        return []
    if len(operands) != node.arity or node.arity != len(op.inputs):
        raise _REFUSALS[0](f"{node.op} takes {len(op.inputs)} operands: {', '.join(op.inputs)}")
    body, kinds = op.bodies[-1], {value.dtype for value in operands if value.dtype}
    if len(kinds) > 1 or not all(dtypes.NAMES.get(kind) in body.types for kind in kinds):
        raise _REFUSALS[0](f"{node.op} takes operands of one type: {' or '.join(body.types)}")
    symbols: dict[str, Size] = {}
    attrs = [attributes.encode(name, value) for name, value in node.attrs.items()]
    function = function_of(op, body, body.opset)
    found = onnx.shape_inference.infer_function_output_types(function, [_type(v, symbols) for v in operands], attrs)
    return [_out(one, symbols) for one in found]


def _type(value: Value, symbols: dict[str, Size]) -> TypeProto:
    if value.dtype == 0:
        return value.info.type if value.info is not None else TypeProto()
    if value.shape is None:
        return onnx.helper.make_tensor_type_proto(value.dtype, None)
    sizes: list[int | str] = []
    for size in value.shape:
        sizes.append(size if isinstance(size, int) else str(size))
        symbols[str(size)] = size
    return onnx.helper.make_tensor_type_proto(value.dtype, sizes)


def _data(value: Value) -> TensorProto | None:
    tensor = value.tensor
    if tensor is not None:
        return tensor.to_proto("") if tensor.size <= _DATA_LIMIT and tensor.external is None else None
    numbers = known_integers(value)
    if numbers is None or value.shape is None:
        return None
    shape = (len(numbers),) if value.shape else ()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.dtype)
    return numpy_helper.from_array(np.array(numbers, dtype).reshape(shape))


def _out(proto: TypeProto | None, symbols: dict[str, Size]) -> Out:
    if proto is None or not proto.HasField("tensor_type"):
        return Out()
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return Out(tensor.elem_type)
    shape: Partial = tuple(_dim(dim, symbols) for dim in tensor.shape.dim)
    return Out(tensor.elem_type, shape)


def _dim(proto: onnx.TensorShapeProto.Dimension, symbols: dict[str, Size]) -> Part:
    return proto.dim_value if proto.HasField("dim_value") else symbols.get(proto.dim_param)
