"""Bodies of fused operators as functions of a model, each in the opset of the model that carries it.

onnxruntime takes a function's operators in the model's opset, whatever the function itself imports.
"""

from __future__ import annotations

from functools import cache

import onnx

from graphopt.ir import dtypes
from graphopt.ir.encode import function_to_proto
from graphopt.ir.fused import DOMAIN, Body, FusedOp, fused_ops
from graphopt.ir.load import add_function
from graphopt.ir.model import Model
from graphopt.ir.node import Node
from graphopt.ir.text import parse
from graphopt.ir.versions import NEWEST, raise_ir_version, raise_opset

# The first with functions. Their attributes have no defaults in it, and onnx's own evaluator fills in none.
_IR_VERSION = 8


@cache
def function_of(op: FusedOp, body: Body, opset: int) -> onnx.FunctionProto:
    """`body` of `op` as a function, in a standard opset that is not older than it."""
    parameters = [*op.inputs, *(f"{name}=@" for name in op.attributes if name in body.attributes)]
    header = f"function {DOMAIN}.{op.name}({', '.join(parameters)}) -> (y)"
    model = parse(f"opset {body.opset}\n() -> () {{}}\n{header} {{ {body.text} }}", where=op.name)
    raise_opset(model, opset)
    (function,) = model.functions.values()
    proto = function_to_proto(function)
    proto.doc_string = op.summary
    return proto


def oldest_opset(node: Node) -> int | None:
    """The oldest standard opset in which `node`, of our domain, has a body; None where none fits it."""
    op = fused_ops().get(node.op)
    x = node.input(0)
    return op.oldest(node.attrs, dtypes.NAMES.get(x.dtype, "") if x is not None else "") if op is not None else None


def settle_opset(model: Model, newest: int | None = 0) -> None:
    """Raises the model to the newest opset that one of its nodes is written in, and writes the bodies of fused ops.

    With None for `newest` the opset stays: what is written in a newer one is what the target takes in older ones.

    A fused op is raised to the newest body that is not newer than `newest`: it runs best. A function that the model
    has already is not written again. Raises: ModelError GO047 where the opset cannot be raised.
    """
    nodes = [node for graph in model.scopes() for node in graph.ops()]
    fused = [node for node in nodes if node.domain == DOMAIN and (DOMAIN, node.op, "") not in model.functions]
    if newest is not None:
        versions = [node.version for node in nodes if not node.domain]
        raise_opset(model, max((*versions, *(_wanted(node, newest) for node in fused)), default=0))
    for node in (node for node in fused if oldest_opset(node)):
        op = fused_ops()[node.op]
        body = op.body(model.opset)
        if body is None:
            continue
        for name, default in op.attributes.items():
            node.graph.set_attr(node, name, node.attr(name, default) if name in body.attributes else None)
        if (DOMAIN, node.op, "") not in model.functions:
            add_function(model, function_of(op, body, model.opset))
            # The node may stand in a function, which has imports of its own.
            model.graph.import_domain(DOMAIN)
            raise_ir_version(model, _IR_VERSION)


def withdraw_bodies(model: Model) -> frozenset[str]:
    """Takes the functions that `settle_opset` writes out of a model that is to be rewritten.

    Returns the names of fused ops for which the model has a function that says something else, which stays.
    """
    others = set()
    for domain, name, overload in list(model.functions):
        op = fused_ops().get(name)
        if domain == DOMAIN and op is not None:
            if not overload and _is_ours(op, function_to_proto(model.functions[domain, name, overload])):
                del model.functions[domain, name, overload]
            else:
                others.add(name)
    return frozenset(others)


def _wanted(node: Node, newest: int) -> int:
    """The opset that a fused op is best written in; 0 where it has no body."""
    oldest = oldest_opset(node)
    if oldest is None:
        return 0
    body = fused_ops()[node.op].body(newest)
    return max(oldest, body.opset if body is not None else 0)


def _is_ours(op: FusedOp, function: onnx.FunctionProto) -> bool:
    opset = next((entry.version for entry in function.opset_import if not entry.domain), 0)
    bodies = (body for body in op.bodies if body.opset <= opset <= NEWEST)
    return any(_bare(function_of(op, body, opset)) == _bare(function) for body in bodies)


def _bare(function: onnx.FunctionProto) -> onnx.FunctionProto:
    """What a function computes, without what is said of it."""
    bare = onnx.FunctionProto()
    for field in ("input", "output", "attribute", "attribute_proto", "node"):
        getattr(bare, field).extend(getattr(function, field))
    for node in bare.node:
        for said in ("name", "doc_string", "metadata_props"):
            node.ClearField(said)
    return bare
