"""Where in a model something is changed."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from random import Random

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

Body = GraphProto | onnx.FunctionProto
NAMES = ("", "x", "y", "0", "a b", "a'b\"c", "[bold]x", "\n", "Ω", "../x", "a" * 300, "ir", "Constant_0")


def graphs(proto: ModelProto) -> Iterator[GraphProto]:
    """The main graph and all subgraphs, of functions too."""
    waiting = [proto.graph]
    bodies: list[Sequence[NodeProto]] = [function.node for function in proto.functions]
    while waiting or bodies:
        if waiting:
            graph = waiting.pop()
            yield graph
            bodies.append(graph.node)
        for node in bodies.pop():
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs


def body_of(proto: ModelProto, rng: Random) -> Body:
    """A graph or a function that has nodes; the main graph in half of all cases."""
    found: list[Body] = [graph for graph in graphs(proto) if graph.node]
    found += [function for function in proto.functions if function.node]
    return found[0] if rng.random() < 0.5 else rng.choice(found)


def graph_of(proto: ModelProto, rng: Random) -> GraphProto:
    return proto.graph if rng.random() < 0.7 else rng.choice(list(graphs(proto)))


def node_of(proto: ModelProto, rng: Random) -> NodeProto:
    return rng.choice(body_of(proto, rng).node)


def tensor_of(proto: ModelProto, rng: Random) -> TensorProto:
    found = [tensor for graph in graphs(proto) for tensor in graph.initializer]
    found += [a.t for graph in graphs(proto) for node in graph.node for a in node.attribute if a.HasField("t")]
    return rng.choice(found)


def names_in(body: Body) -> list[str]:
    """Names of values that stand in a scope."""
    names = [name for node in body.node for name in node.output if name]
    if isinstance(body, GraphProto):
        return names + [value.name for value in (*body.input, *body.initializer)]
    return names + list(body.input)


def all_names(proto: ModelProto) -> set[str]:
    names = {name for graph in graphs(proto) for name in names_in(graph)}
    return names | {name for function in proto.functions for name in names_in(function)}


def fresh_name(proto: ModelProto, rng: Random) -> str:
    taken = all_names(proto)
    while (name := "z" + "".join(rng.choices(string.ascii_lowercase, k=5))) in taken:
        pass
    return name
