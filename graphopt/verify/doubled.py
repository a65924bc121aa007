"""A part of a model in float64: what its results would be if its own type rounded nothing.

What enters in a narrower type (inputs, weights, constants) is cast once, so weights stay where they lie and fills of
masks keep their values; casts between float types have no effect. Whatever may depend on the type is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx
from onnx import AttributeProto, TypeProto, helper, numpy_helper

from graphopt.ir import dtypes
from graphopt.runtime import Crash, RunError, Runner
from graphopt.verify.parts import Part

_NARROW: Final = dtypes.FLOATS - {dtypes.DOUBLE}
_TYPE_ATTRIBUTES: Final = {"Cast": "to", "EyeLike": "dtype", "SequenceEmpty": "dtype"}
_REFUSED: Final = {
    *("BitCast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Dropout"),
}
_STANDARD: Final = ("", "ai.onnx")
_MOST_BYTES: Final = 128 << 20
"""Of weights: what is larger is not doubled, for in float64 it is held a second time."""


class Unsure(Exception):
    """What a model computes may depend on its types."""


def run_doubled(part: Part, values: Mapping[str, Any], output: str, runner: Runner) -> Any:
    """What `output` of a part is in float64; None where onnxruntime has no kernels for that, or it may not be asked."""
    found = doubled(part, output) if part.proto else None
    if found is None:
        return None
    given = {_own(name): value for name, value in values.items()}
    try:
        with closing(found.load(runner, "the original in float64")) as session:
            return session.run({**values, **given})[output]
    except (RunError, Crash):
        return None


def doubled(part: Part, output: str) -> Part | None:
    """A part that computes one output in float64. Inputs keep their types; those that are cast have another name."""
    small = pruned(part, [output])
    if sum(place.length for place in small.external.values()) > _MOST_BYTES:
        return None
    proto = onnx.ModelProto.FromString(small.proto)
    try:
        renamed = _double_graph(proto.graph, is_main=True)
        for function in proto.functions:
            _double_nodes(function.node)
            _double_types(info.type for info in function.value_info)
    except Unsure:
        return None
    if not renamed and not proto.functions:
        return None
    external = {renamed.get(name, name): place for name, place in small.external.items()}
    inputs = frozenset(renamed.get(name, name) for name in small.inputs)
    return replace(small, proto=proto.SerializeToString(), external=external, inputs=inputs)


def pruned(part: Part, outputs: Collection[str], *, fixed: bool = True) -> Part:
    """The part of `part` that computes some of its outputs; its weights and gains cannot be overridden if `fixed`."""
    proto = onnx.ModelProto.FromString(part.proto)
    graph = proto.graph
    wanted = {part.outputs[name] for name in outputs}
    kept = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted.update(_read(node))
    nodes = kept[::-1]
    initializers = [tensor for tensor in graph.initializer if tensor.name in wanted]
    constants = {tensor.name for tensor in initializers}
    inputs = [info for info in graph.input if info.name in wanted and not (fixed and info.name in constants)]
    ends = [info for info in graph.output if info.name in {part.outputs[name] for name in outputs}]
    for field, found in ((graph.node, nodes), (graph.initializer, initializers), (graph.input, inputs)):
        _set(field, found)
    _set(graph.output, ends)
    return replace(
        part,
        proto=proto.SerializeToString(),
        external={name: place for name, place in part.external.items() if name in wanted},
        inputs=frozenset(info.name for info in inputs) - constants,
        outputs={name: part.outputs[name] for name in outputs},
        weights={} if fixed else {name: array for name, array in part.weights.items() if name in wanted},
        gains={} if fixed else {name: one for name, one in part.gains.items() if name in wanted},
    )


def _read(node: onnx.NodeProto) -> Iterable[str]:
    """The names that a node reads, and that its subgraphs may read from outside."""
    yield from node.input
    for graph in _graphs(node):
        for inner in graph.node:
            yield from _read(inner)
        yield from (info.name for info in graph.output)


def _graphs(node: onnx.NodeProto) -> Iterable[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _double_graph(graph: onnx.GraphProto, is_main: bool) -> dict[str, str]:
    """Makes a graph one of float64; returns the new names of what is cast on its way in."""
    if graph.sparse_initializer:
        raise Unsure
    _double_types(info.type for info in graph.value_info)
    _double_types(info.type for info in graph.output)
    entering = [(tensor, tensor.data_type) for tensor in graph.initializer]
    if is_main:
        entering += [(info, info.type.tensor_type.elem_type) for info in graph.input]
        if any(not info.type.HasField("tensor_type") for info in graph.input):
            raise Unsure
    else:
        _double_types(info.type for info in graph.input)
    renamed = {}
    casts = []
    for source, dtype in entering:
        if dtype in _NARROW:
            renamed[source.name] = _own(source.name)
            casts.append(helper.make_node("Cast", [_own(source.name)], [source.name], to=dtypes.DOUBLE))
            source.name = _own(source.name)
    _double_nodes(graph.node)
    nodes = [*casts, *graph.node]
    _set(graph.node, nodes)
    return renamed


def _double_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.domain in _STANDARD:
            _double_node(node)
        for graph in _graphs(node):
            _double_graph(graph, is_main=False)


def _double_node(node: onnx.NodeProto) -> None:
    if node.op_type in _REFUSED or any(a.ref_attr_name for a in node.attribute if a.type != AttributeProto.FLOAT):
        raise Unsure
    given = {attribute.name: attribute for attribute in node.attribute}
    wanted = given.get(_TYPE_ATTRIBUTES.get(node.op_type, ""))
    if wanted is not None and wanted.i in _NARROW:
        wanted.i = dtypes.DOUBLE
    if node.op_type == "ConstantOfShape" and "value" not in given:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
    elif node.op_type in ("Constant", "ConstantOfShape"):
        _double_constant(node)


def _double_constant(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        match attribute.name:
            case "value" if attribute.t.data_type in _NARROW:
                if attribute.t.data_location == onnx.TensorProto.EXTERNAL:
                    raise Unsure
                array = numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.t.CopyFrom(numpy_helper.from_array(array))
            case "value_float" | "value_floats":
                numbers = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                tensor = numpy_helper.from_array(np.array(numbers, np.float64))
                attribute.CopyFrom(helper.make_attribute("value", tensor))
            case "sparse_value":
                raise Unsure


def _double_types(types: Iterable[TypeProto]) -> None:
    for kind in types:
        match kind.WhichOneof("value"):
            case "tensor_type" if kind.tensor_type.elem_type in _NARROW:
                kind.tensor_type.elem_type = dtypes.DOUBLE
            case "sequence_type":
                _double_types([kind.sequence_type.elem_type])
            case "optional_type":
                _double_types([kind.optional_type.elem_type])
            case "map_type" | "sparse_tensor_type":
                raise Unsure


def _own(name: str) -> str:
    return f"{name} (own type)"


def _set(field: Any, items: list[Any]) -> None:
    """Puts `items`, which may be of the repeated field itself, in its place."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)
