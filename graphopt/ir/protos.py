"""Protobuf messages in parts: copies that leave out what would be thrown away, walks over all tensors of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import onnx
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import AttributeProto, TensorProto

from graphopt.ir import wire

M = TypeVar("M", bound=Message)


def copy_fields(source: M, target: M, *without: str) -> M:
    """Adds to `target` what `source` says but for some fields; those that the schema does not know come along."""
    for field, value in source.ListFields():
        if field.name in without:
            continue
        if isinstance(value, (int, float, str, bytes)):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)
    unknown = UnknownFieldSet(source)
    if len(unknown):
        target.MergeFromString(wire.encode(unknown))
    return target


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model: initializers, attributes, sparse ones, in all scopes, functions and training graphs."""
    graphs = [model.graph]
    for training in model.training_info:
        graphs += [training.initialization, training.algorithm]
    for function in model.functions:
        yield from _in_attributes(function.attribute_proto, graphs)
        yield from _in_nodes(function.node, graphs)
    yield from tensors_in(graphs)


def tensors_in(graphs: list[onnx.GraphProto]) -> Iterator[TensorProto]:
    """Every tensor of these graphs, which are taken from the list, and of those inside them."""
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _in_nodes(graph.node, graphs)


def _in_nodes(nodes: Iterable[onnx.NodeProto], graphs: list[onnx.GraphProto]) -> Iterator[TensorProto]:
    for node in nodes:
        yield from _in_attributes(node.attribute, graphs)


def _in_attributes(attributes: Iterable[AttributeProto], graphs: list[onnx.GraphProto]) -> Iterator[TensorProto]:
    """The tensors that attributes hold; subgraphs are added to `graphs`."""
    for attribute in attributes:
        match attribute.type:
            case AttributeProto.GRAPH:
                graphs.append(attribute.g)
            case AttributeProto.GRAPHS:
                graphs.extend(attribute.graphs)
            case AttributeProto.TENSOR:
                yield attribute.t
            case AttributeProto.TENSORS:
                yield from attribute.tensors
            case AttributeProto.SPARSE_TENSOR:
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            case AttributeProto.SPARSE_TENSORS:
                for sparse in attribute.sparse_tensors:
                    yield from (sparse.values, sparse.indices)
