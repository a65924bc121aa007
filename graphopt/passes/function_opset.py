"""Bodies of functions in the opset of the model that carries them, which is how onnxruntime reads them."""

from __future__ import annotations

from typing import Final

import onnx

from graphopt.ir.attributes import Reference
from graphopt.ir.model import Function, Model
from graphopt.ir.node import Node
from graphopt.ir.schema import onnx_schema
from graphopt.ir.versions import CHANGES, OLDEST, can_raise, raise_opset

_READ_ANEW: Final = frozenset({"Hardmax", "LogSoftmax", "RoiAlign", "Softmax"})
"""What an older opset wrote of these is valid in a newer one, where onnxruntime takes it for something else."""
_GRAPHS: Final = frozenset({onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS})


def refusal(model: Model, function: Function, adaptable: bool) -> str | None:
    """Why no call of `function` can be inlined; its body may be written anew where it is `adaptable`."""
    adapting = False
    for node in (node for scope in function.graph.scopes() for node in scope.ops()):
        version = model.opsets.get(node.domain, node.version)
        if any(isinstance(given, Reference) and given.type in _GRAPHS for given in node.attrs.values()):
            return f"the caller gives a subgraph of {node.op}"
        if (node.domain, node.op, node.overload) in model.functions or _reads_alike(node, version):
            continue
        if not adaptable or node.domain or node.version > version or node.op in _READ_ANEW:
            return f"{node.op} is written in opset {node.version}, and the model's is {version}"
        adapting = True
    return can_raise(_alone(function), model.opset) if adapting else None


def _reads_alike(node: Node, version: int) -> bool:
    """Whether `node` means in opset `version` of its domain what it means in its own."""
    old, new = onnx_schema(node.domain, node.op, node.version), onnx_schema(node.domain, node.op, version)
    if node.version == version or old is new is None:
        return node.version == version
    if old is None or new is None:
        return False
    first, last = sorted((node.version, version))
    changes = any(first < since <= last for since, _ in CHANGES.get(node.op, ()))
    if node.domain or first < OLDEST or changes:
        return old.since_version == new.since_version
    return node.attrs.keys() <= new.attributes.keys() and node.arity <= new.max_input


def adapt(model: Model, function: Function) -> None:
    """Writes a body in the model's opsets: onnxruntime reads it so, whatever it says itself."""
    for node in (node for scope in function.graph.scopes() for node in scope.ops()):
        version = model.opsets.get(node.domain, node.version)
        if _reads_alike(node, version):
            node.graph.set_op(node, node.op, node.domain, version)
    raise_opset(_alone(function), model.opset)


def _alone(function: Function) -> Model:
    proto = onnx.ModelProto(ir_version=onnx.IR_VERSION)
    return Model(function.graph, function.graph.opsets, function.graph.ledger, proto)
