"""Mutations of what reads what, and of names."""

from __future__ import annotations

from random import Random

from onnx import GraphProto, ModelProto, NodeProto, helper

from fuzzing.places import NAMES, all_names, body_of, fresh_name, graph_of, names_in, node_of

_UNARY = ("Relu", "Neg", "Abs", "Exp", "Sigmoid", "Tanh", "Erf", "Sqrt", "Identity", "Floor", "Softplus", "Not", "Sign")


def rewire(proto: ModelProto, rng: Random) -> None:
    """An input of a node becomes any value of the scope: often an earlier one."""
    body = body_of(proto, rng)
    index = rng.randrange(len(body.node))
    node = body.node[index]
    names = names_in(body)
    if rng.random() < 0.8:
        later = {name for other in body.node[index:] for name in other.output}
        names = [name for name in names if name not in later]
    node.input[rng.randrange(len(node.input))] = rng.choice(names)


def rewire_to_anything(proto: ModelProto, rng: Random) -> None:
    node = node_of(proto, rng)
    node.input[rng.randrange(len(node.input))] = rng.choice([*NAMES, *sorted(all_names(proto))])


def swap_operands(proto: ModelProto, rng: Random) -> None:
    node = node_of(proto, rng)
    first, second = rng.sample(range(len(node.input)), 2)
    node.input[first], node.input[second] = node.input[second], node.input[first]


def drop_operand(proto: ModelProto, rng: Random) -> None:
    node = node_of(proto, rng)
    index = rng.randrange(len(node.input))
    if rng.random() < 0.5:
        node.input[index] = ""
    else:
        del node.input[index:]


def add_operand(proto: ModelProto, rng: Random) -> None:
    body = body_of(proto, rng)
    rng.choice(body.node).input.append(rng.choice([*names_in(body), ""]))


def duplicate_node(proto: ModelProto, rng: Random) -> None:
    """A node twice, and half of the readers read the second."""
    body = body_of(proto, rng)
    index = rng.randrange(len(body.node))
    copy = NodeProto()
    copy.CopyFrom(body.node[index])
    body.node.insert(index + 1, copy)
    if rng.random() < 0.15:
        return
    for slot, name in enumerate(copy.output):
        body.node[index + 1].output[slot] = fresh = fresh_name(proto, rng)
        for reader in body.node[index + 2 :]:
            for at, read in enumerate(reader.input):
                if read == name and rng.random() < 0.5:
                    reader.input[at] = fresh


def delete_node(proto: ModelProto, rng: Random) -> None:
    """A node goes; its readers read its first input."""
    body = body_of(proto, rng)
    node = body.node.pop(rng.randrange(len(body.node)))
    if rng.random() < 0.1:
        return
    for reader in body.node:
        for at, name in enumerate(reader.input):
            if name in node.output and name:
                reader.input[at] = node.input[0]


def swap_nodes(proto: ModelProto, rng: Random) -> None:
    body = body_of(proto, rng)
    node = body.node.pop(rng.randrange(len(body.node)))
    body.node.insert(rng.randrange(len(body.node) + 1), node)


def insert_node(proto: ModelProto, rng: Random) -> None:
    """A node of one operand in front of an operand."""
    body = body_of(proto, rng)
    index = rng.randrange(len(body.node))
    node = body.node[index]
    at = rng.randrange(len(node.input))
    name = fresh_name(proto, rng)
    kind = rng.choice((*("Identity",) * 4, "Dropout", "Cast", "Neg", "Abs", "Relu", "Transpose", "Squeeze", "CastLike"))
    made = helper.make_node(kind, [node.input[at]], [name])
    if kind == "Cast":
        made.attribute.append(helper.make_attribute("to", rng.choice((1, 1, 10, 11, 6, 7, 9))))
    if kind == "CastLike":
        made.input.append(node.input[at])
    node.input[at] = name
    body.node.insert(index, made)


def widen(proto: ModelProto, rng: Random) -> None:
    """Another reader of an inner value, whose result is an output."""
    graph = graph_of(proto, rng)
    name = fresh_name(proto, rng)
    read = rng.choice([name for node in graph.node for name in node.output if name])
    graph.node.append(helper.make_node(rng.choice(_UNARY), [read], [name]))
    graph.output.append(helper.make_empty_tensor_value_info(name))
    graph.output[-1].type.tensor_type.elem_type = 1


def expose(proto: ModelProto, rng: Random) -> None:
    """An inner value, an input or an initializer is an output as well."""
    graph = graph_of(proto, rng)
    info = helper.make_tensor_value_info(rng.choice(names_in(graph)), rng.choice((1, 1, 1, 7, 10)), None)
    graph.output.insert(rng.randrange(len(graph.output) + 1), info)


def hide(proto: ModelProto, rng: Random) -> None:
    graph = graph_of(proto, rng)
    del graph.output[rng.randrange(len(graph.output))]


def rename(proto: ModelProto, rng: Random) -> None:
    """A value gets another name everywhere in its scope: a fresh one, an odd one, or that of another value."""
    body = body_of(proto, rng)
    names = names_in(body)
    old = rng.choice(names)
    new = rng.choice((fresh_name(proto, rng), rng.choice(NAMES), rng.choice(names)))
    for node in body.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    if isinstance(body, GraphProto):
        for value in (*body.input, *body.output, *body.initializer, *body.value_info):
            if value.name == old:
                value.name = new


def rename_nodes(proto: ModelProto, rng: Random) -> None:
    name = rng.choice(NAMES)
    for node in body_of(proto, rng).node:
        if rng.random() < 0.5:
            node.name = name
