"""From the IR to ONNX protos. What was not changed is written as it was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import onnx
from onnx import AttributeProto

from graphopt.ir import attributes
from graphopt.ir.dims import Shape
from graphopt.ir.graph import Graph
from graphopt.ir.model import Function, Model, canonical_domain
from graphopt.ir.node import Node, Value
from graphopt.ir.protos import copy_fields
from graphopt.ir.tensor import Tensor

_SLICE = 4096
_Pending = list[tuple[Graph, onnx.GraphProto]]
# Fields of a graph that are written from the IR.
_REWRITTEN = ("node", "input", "output", "initializer", "sparse_initializer", "value_info", "quantization_annotation")


def model_to_proto(model: Model) -> onnx.ModelProto:
    """The ModelProto of `model`; external tensors keep their entries."""
    proto = model_without_weights(model)
    proto.graph.initializer.extend(tensor.to_proto(name) for name, tensor in initializers(model.graph))
    return proto


def model_without_weights(model: Model) -> onnx.ModelProto:
    """The ModelProto of `model` without the initializers of its main graph."""
    proto = model_without_nodes(model)
    _write_scopes(_write_nodes(model.graph.ops(), proto.graph.node.add))
    return proto


def model_without_nodes(model: Model) -> onnx.ModelProto:
    """The ModelProto of `model` without the nodes and initializers of its main graph."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    _write_opsets(proto.opset_import, model.opsets)
    _write_surroundings(model.graph, proto.graph)
    for function in model.functions.values():
        _write_function(function.proto, function.graph, proto.functions.add())
    return proto


def nodes_in_slices(graph: Graph) -> Iterator[onnx.GraphProto]:
    """The nodes of a scope in GraphProtos of some thousand each: as protos all of them take much memory."""
    nodes = graph.ops()
    while some := list(islice(nodes, _SLICE)):
        proto = onnx.GraphProto()
        _write_scopes(_write_nodes(some, proto.node.add))
        yield proto


def node_to_proto(node: Node) -> onnx.NodeProto:
    """The proto of one node, with its subgraphs as they are now."""
    proto = onnx.NodeProto()
    _write_scopes(_write_node(node, proto))
    return proto


def function_to_proto(function: Function) -> onnx.FunctionProto:
    """The proto of one function, with its body as it is now."""
    proto = onnx.FunctionProto()
    _write_function(function.proto, function.graph, proto)
    return proto


def initializers(graph: Graph) -> list[tuple[str, Tensor]]:
    """The initializers of one scope by name: those of the file in its order, then the new ones, oldest first."""
    found = [
        (node.output.name, node.data)
        for node in [*graph.sources("Constant"), *graph.sources("Input")]
        if node.data is not None
    ]
    if graph.proto is not None:
        places = {tensor.name: index for index, tensor in enumerate(graph.proto.initializer)}
        found.sort(key=lambda item: places.get(item[0], len(places)))
    return found


def type_proto(dtype: int, shape: Shape | None) -> onnx.TypeProto:
    """The tensor type of a value; unknown dimensions are written as unknown."""
    sizes = None
    if shape is not None:
        sizes = [s if isinstance(s, int) else (None if "?" in str(s) else str(s)) for s in shape]
    return onnx.helper.make_tensor_type_proto(dtype, sizes)


def value_info(value: Value, name: str | None = None) -> onnx.ValueInfoProto:
    """What the file said of `value`, else what is known of it: no more than the name where that is no type."""
    if value.info is not None and name in (None, value.info.name):
        return value.info
    if not value.dtype:
        # onnxruntime infers a type that is not said, and refuses one that is said to be unknown.
        return onnx.ValueInfoProto(name=name or value.name)
    return onnx.helper.make_value_info(name or value.name, type_proto(value.dtype, value.shape))


def written_name(value: Value | None) -> str:
    """The name `value` has in a file: a capture is called what it captures."""
    return value.resolved.name if value is not None else ""


def declared_for(node: Node) -> dict[str, onnx.ValueInfoProto]:
    """What has to be said of the operands of a node, unless the file that it came from does.

    onnx's inference for Attention takes a size that it cannot infer for 0, and the model is refused when it is loaded.
    """
    values = [value for value in node.inputs if value is not None] if node.is_op("Attention") else []
    return {
        value.name: onnx.helper.make_tensor_value_info(
            value.name, value.dtype, [size if isinstance(size, int) else None for size in value.shape]
        )
        for value in values
        if value.shape is not None and not value.node.is_source and not node.graph.is_output(value)
    }


def _write_opsets(entries: Any, opsets: Mapping[str, int]) -> None:
    # Where a domain is imported twice the last one counts; both stay as long as that does.
    counts = {canonical_domain(entry.domain): entry.version for entry in entries}
    for index in reversed(range(len(entries))):
        domain = canonical_domain(entries[index].domain)
        if domain not in opsets:
            del entries[index]
        elif counts[domain] != opsets[domain]:
            entries[index].version = opsets[domain]
    entries.extend(onnx.helper.make_opsetid(domain, opsets[domain]) for domain in opsets if domain not in counts)


def _write_scopes(pending: _Pending) -> None:
    """Writes scopes, and those inside them, with their initializers."""
    while pending:
        graph, proto = pending.pop()
        pending.extend(_write_scope(graph, proto))
        proto.initializer.extend(tensor.to_proto(name) for name, tensor in initializers(graph))


def _write_scope(graph: Graph, proto: onnx.GraphProto) -> _Pending:
    """Writes one scope but for its initializers; returns its subgraphs with the protos that wait for them."""
    _write_surroundings(graph, proto)
    return _write_nodes(graph.ops(), proto.node.add)


def _write_surroundings(graph: Graph, proto: onnx.GraphProto) -> None:
    """Writes one scope but for its nodes and initializers."""
    original = graph.proto
    if original is not None:
        copy_fields(original, proto, *_REWRITTEN)
        lost = _names_of(original) - graph.names.keys()
        proto.value_info.extend(info for info in original.value_info if info.name not in lost)
        proto.quantization_annotation.extend(q for q in original.quantization_annotation if q.tensor_name not in lost)
    else:
        proto.name = "graph"
    proto.input.extend(value_info(node.output) for node in graph.inputs)
    declared = list(original.output) if original is not None else []
    for slot, value in enumerate(graph.outputs):
        name = written_name(value)
        same = slot < len(declared) and declared[slot].name == name and _says(declared[slot], value)
        proto.output.append(declared[slot] if same else value_info(value, name))
    told = {info.name for info in proto.value_info}
    ours = (node for node in graph.ops() if node.proto is None)
    for name, info in (item for node in ours for item in declared_for(node).items()):
        if name not in told:
            told.add(name)
            proto.value_info.append(info)
    for node, sparse in graph.sparse.items():
        if node in graph:
            written = proto.sparse_initializer.add()
            written.CopyFrom(sparse)
            written.values.name = node.output.name


def _says(info: onnx.ValueInfoProto, value: Value) -> bool:
    """Whether `info` says the element type of `value`, where both are known."""
    return not value.dtype or info.type.tensor_type.elem_type in (0, value.dtype)


def _names_of(proto: onnx.GraphProto) -> set[str]:
    names = {info.name for info in proto.input}
    names.update(tensor.name for tensor in proto.initializer)
    names.update(sparse.values.name for sparse in proto.sparse_initializer)
    for node in proto.node:
        names.update(node.output)
    return names


def _write_function(original: onnx.FunctionProto, graph: Graph, proto: onnx.FunctionProto) -> None:
    copy_fields(original, proto, "node", "value_info")
    lost = {name for node in original.node for name in node.output} - graph.names.keys()
    proto.value_info.extend(info for info in original.value_info if info.name not in lost)
    if original.opset_import:
        _write_opsets(proto.opset_import, graph.opsets)
    # A function body has no initializers: its constants are nodes.
    for name, tensor in initializers(graph):
        proto.node.append(onnx.helper.make_node("Constant", [], [name], value=tensor.to_proto(name)))
    _write_scopes(_write_nodes(graph.ops(), proto.node.add))


def _write_nodes(nodes: Iterable[Node], new: Callable[[], onnx.NodeProto]) -> _Pending:
    waiting: _Pending = []
    for node in nodes:
        waiting.extend(_write_node(node, new()))
    return waiting


def _write_node(node: Node, proto: onnx.NodeProto) -> _Pending:
    """Writes one node: what its proto says, but for what has changed. Returns its subgraphs."""
    original = node.proto
    waiting: _Pending = []
    if node.graphs is not None:
        waiting = _write_subgraphs(node.graphs, original, proto)
    elif original is not None:
        proto.CopyFrom(original)
    inputs = [written_name(value) for value in node.inputs[: node.arity]]
    outputs = [value.name for value in node.outputs]
    if list(proto.input) != inputs:
        proto.input[:] = inputs
    if list(proto.output) != outputs:
        proto.output[:] = outputs
    if proto.op_type != node.op:
        proto.op_type = node.op
    if canonical_domain(proto.domain) != node.domain:
        proto.domain = node.domain
    if proto.name != node.name:
        proto.name = node.name
    if proto.overload != node.overload:
        proto.overload = node.overload
    for name, value in node.edits.items():
        place = next((index for index, a in enumerate(proto.attribute) if a.name == name), None)
        if place is not None:
            del proto.attribute[place]
        if value is not None:
            proto.attribute.insert(len(proto.attribute) if place is None else place, attributes.encode(name, value))
    return waiting


def _write_subgraphs(
    graphs: Mapping[str, list[Graph]], original: onnx.NodeProto | None, proto: onnx.NodeProto
) -> _Pending:
    """Copies `original`, but leaves each subgraph empty; returns the subgraphs with the protos that wait for them."""
    waiting: _Pending = []
    given = list(original.attribute) if original is not None else []
    if original is not None:
        copy_fields(original, proto, "attribute")
    new = graphs.keys() - {attribute.name for attribute in given}
    given += [AttributeProto(name=name, type=_kind(graphs[name])) for name in graphs if name in new]
    for attribute in given:
        written = copy_fields(attribute, proto.attribute.add(), "g", "graphs")
        for graph in graphs.get(attribute.name, []):
            place = written.g if attribute.type == AttributeProto.GRAPH else written.graphs.add()
            place.SetInParent()
            waiting.append((graph, place))
    return waiting


def _kind(graphs: list[Graph]) -> AttributeProto.AttributeType:
    return AttributeProto.GRAPH if len(graphs) == 1 else AttributeProto.GRAPHS
