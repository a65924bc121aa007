"""Mutations of models that know what a model is; many of them leave it valid."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from random import Random

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Mutation = Callable[[ModelProto, Random], None]
Body = GraphProto | onnx.FunctionProto

_SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 64, -1, 1 << 31, (1 << 63) - 1)
_INTEGERS = (0, 1, -1, 2, 3, 4, -2, 7, 100, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-5, 1e-12, 0.044715, float("nan"), float("inf"), float("-inf"), 3e38)
_NAMES = ("", "x", "y", "0", "a b", "a'b\"c", "[bold]x", "\n", "Ω", "../x", "a" * 300, "ir", "Constant_0")
_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml", "ir", "ai.graphopt", "test.custom")
_UNARY = ("Relu", "Neg", "Abs", "Exp", "Sigmoid", "Tanh", "Erf", "Sqrt", "Identity", "Floor", "Softplus", "Not", "Sign")
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "MatMul", "Equal", "Less", "And", "PRelu")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceProd", "ReduceSumSquare")


def mutated(data: bytes, rng: Random) -> tuple[bytes, dict[str, bytes], str]:
    """A model after one to six mutations, the files beside it, and the names of the mutations."""
    proto = ModelProto.FromString(data)
    done = []
    files: dict[str, bytes] = {}
    for _ in range(rng.choice((1, 1, 2, 2, 3, 6))):
        mutation = rng.choice(MUTATIONS)
        try:
            mutation(proto, rng)
        except (IndexError, ValueError, TypeError, OverflowError, onnx.checker.ValidationError):
            continue  # nothing of the kind to mutate
        done.append(mutation.__name__.strip("_"))
    if rng.random() < 0.06:
        _move_data_out(proto, files, rng)
        done.append("data out")
    return proto.SerializeToString(), files, "+".join(done)


# ---- where -----------------------------------------------------------------------------------------------------------


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


def _body(proto: ModelProto, rng: Random) -> Body:
    """A graph or a function that has nodes; the main graph in half of all cases."""
    found: list[Body] = [graph for graph in graphs(proto) if graph.node]
    found += [function for function in proto.functions if function.node]
    return found[0] if rng.random() < 0.5 else rng.choice(found)


def _graph(proto: ModelProto, rng: Random) -> GraphProto:
    return proto.graph if rng.random() < 0.7 else rng.choice(list(graphs(proto)))


def _node(proto: ModelProto, rng: Random) -> NodeProto:
    return rng.choice(_body(proto, rng).node)


def _tensor(proto: ModelProto, rng: Random) -> TensorProto:
    found = [tensor for graph in graphs(proto) for tensor in graph.initializer]
    found += [a.t for graph in graphs(proto) for node in graph.node for a in node.attribute if a.HasField("t")]
    return rng.choice(found)


def _names(body: Body) -> list[str]:
    """Names of values that stand in a scope."""
    names = [name for node in body.node for name in node.output if name]
    if isinstance(body, GraphProto):
        return names + [value.name for value in (*body.input, *body.initializer)]
    return names + list(body.input)


def _all_names(proto: ModelProto) -> set[str]:
    names = {name for graph in graphs(proto) for name in _names(graph)}
    return names | {name for function in proto.functions for name in _names(function)}


def _fresh(proto: ModelProto, rng: Random) -> str:
    taken = _all_names(proto)
    while (name := "z" + "".join(rng.choices(string.ascii_lowercase, k=5))) in taken:
        pass
    return name


# ---- wires -----------------------------------------------------------------------------------------------------------


def rewire(proto: ModelProto, rng: Random) -> None:
    """An input of a node becomes any value of the scope: often an earlier one."""
    body = _body(proto, rng)
    index = rng.randrange(len(body.node))
    node = body.node[index]
    names = _names(body)
    if rng.random() < 0.8:
        later = {name for other in body.node[index:] for name in other.output}
        names = [name for name in names if name not in later]
    node.input[rng.randrange(len(node.input))] = rng.choice(names)


def rewire_to_anything(proto: ModelProto, rng: Random) -> None:
    node = _node(proto, rng)
    node.input[rng.randrange(len(node.input))] = rng.choice([*_NAMES, *sorted(_all_names(proto))])


def swap_operands(proto: ModelProto, rng: Random) -> None:
    node = _node(proto, rng)
    first, second = rng.sample(range(len(node.input)), 2)
    node.input[first], node.input[second] = node.input[second], node.input[first]


def drop_operand(proto: ModelProto, rng: Random) -> None:
    node = _node(proto, rng)
    index = rng.randrange(len(node.input))
    if rng.random() < 0.5:
        node.input[index] = ""
    else:
        del node.input[index:]


def add_operand(proto: ModelProto, rng: Random) -> None:
    body = _body(proto, rng)
    rng.choice(body.node).input.append(rng.choice([*_names(body), ""]))


def duplicate_node(proto: ModelProto, rng: Random) -> None:
    """A node twice, and half of the readers read the second."""
    body = _body(proto, rng)
    index = rng.randrange(len(body.node))
    copy = NodeProto()
    copy.CopyFrom(body.node[index])
    body.node.insert(index + 1, copy)
    if rng.random() < 0.15:
        return
    for slot, name in enumerate(copy.output):
        body.node[index + 1].output[slot] = fresh = _fresh(proto, rng)
        for reader in body.node[index + 2 :]:
            for at, read in enumerate(reader.input):
                if read == name and rng.random() < 0.5:
                    reader.input[at] = fresh


def delete_node(proto: ModelProto, rng: Random) -> None:
    """A node goes; its readers read its first input."""
    body = _body(proto, rng)
    node = body.node.pop(rng.randrange(len(body.node)))
    if rng.random() < 0.1:
        return
    for reader in body.node:
        for at, name in enumerate(reader.input):
            if name in node.output and name:
                reader.input[at] = node.input[0]


def swap_nodes(proto: ModelProto, rng: Random) -> None:
    body = _body(proto, rng)
    node = body.node.pop(rng.randrange(len(body.node)))
    body.node.insert(rng.randrange(len(body.node) + 1), node)


def insert_node(proto: ModelProto, rng: Random) -> None:
    """A node of one operand in front of an operand."""
    body = _body(proto, rng)
    index = rng.randrange(len(body.node))
    node = body.node[index]
    at = rng.randrange(len(node.input))
    name = _fresh(proto, rng)
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
    graph = _graph(proto, rng)
    name = _fresh(proto, rng)
    read = rng.choice([name for node in graph.node for name in node.output if name])
    graph.node.append(helper.make_node(rng.choice(_UNARY), [read], [name]))
    graph.output.append(helper.make_empty_tensor_value_info(name))
    graph.output[-1].type.tensor_type.elem_type = 1


def expose(proto: ModelProto, rng: Random) -> None:
    """An inner value, an input or an initializer is an output as well."""
    graph = _graph(proto, rng)
    info = helper.make_tensor_value_info(rng.choice(_names(graph)), rng.choice((1, 1, 1, 7, 10)), None)
    graph.output.insert(rng.randrange(len(graph.output) + 1), info)


def hide(proto: ModelProto, rng: Random) -> None:
    graph = _graph(proto, rng)
    del graph.output[rng.randrange(len(graph.output))]


def rename(proto: ModelProto, rng: Random) -> None:
    """A value gets another name everywhere in its scope: a fresh one, an odd one, or that of another value."""
    body = _body(proto, rng)
    names = _names(body)
    old = rng.choice(names)
    new = rng.choice((_fresh(proto, rng), rng.choice(_NAMES), rng.choice(names)))
    for node in body.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    if isinstance(body, GraphProto):
        for value in (*body.input, *body.output, *body.initializer, *body.value_info):
            if value.name == old:
                value.name = new


def rename_nodes(proto: ModelProto, rng: Random) -> None:
    name = rng.choice(_NAMES)
    for node in _body(proto, rng).node:
        if rng.random() < 0.5:
            node.name = name


# ---- operators and attributes ----------------------------------------------------------------------------------------


def change_operator(proto: ModelProto, rng: Random) -> None:
    node = _node(proto, rng)
    for kinds in (_UNARY, _BINARY, _REDUCTIONS):
        if node.op_type in kinds:
            node.op_type = rng.choice(kinds)
            return
    node.op_type = _node(proto, rng).op_type if rng.random() < 0.7 else rng.choice(("Nope", "", "Attention", "If"))


def change_domain(proto: ModelProto, rng: Random) -> None:
    _node(proto, rng).domain = rng.choice(_DOMAINS)


def change_attribute(proto: ModelProto, rng: Random) -> None:
    body = _body(proto, rng)
    node = rng.choice([node for node in body.node if node.attribute])
    attribute = rng.choice(node.attribute)
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice((attribute.i + 1, attribute.i - 1, -attribute.i, rng.choice(_INTEGERS)))
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice((attribute.f * 1.01, attribute.f + 1, -attribute.f, rng.choice(_FLOATS)))
    elif attribute.type == AttributeProto.INTS:
        _change_list(attribute.ints, rng, _INTEGERS)
    elif attribute.type == AttributeProto.FLOATS:
        _change_list(attribute.floats, rng, _FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice((b"", b"\xff", b"tanh", b"none", b"SAME_UPPER", b"linear", b"constant", b"reflect"))
    else:
        change_tensor(proto, rng)


def _change_list(values: list[int] | list[float], rng: Random, odd: Sequence[float]) -> None:
    choice = rng.randrange(5)
    if choice == 0 or not values:
        values.append(rng.choice(odd))  # type: ignore[arg-type]
    elif choice == 1:
        values.pop(rng.randrange(len(values)))
    elif choice == 2:
        order = list(values)
        rng.shuffle(order)
        values[:] = order  # type: ignore[assignment]
    else:
        values[rng.randrange(len(values))] = rng.choice((*odd, *values))  # type: ignore[call-overload]


def drop_attribute(proto: ModelProto, rng: Random) -> None:
    node = rng.choice([node for node in _body(proto, rng).node if node.attribute])
    del node.attribute[rng.randrange(len(node.attribute))]


def add_attribute(proto: ModelProto, rng: Random) -> None:
    """An attribute of another node, or one that nobody knows, or the same one twice."""
    body = _body(proto, rng)
    node = rng.choice(body.node)
    known = [attribute for other in body.node for attribute in other.attribute]
    names = ("axis", "axes", "keepdims", "to", "perm", "scale", "epsilon", "nobody")
    made = helper.make_attribute(rng.choice(names), rng.choice((1, 0, -1, 0.5, "x", [1, 0])))
    node.attribute.append(rng.choice([*known, made]))


def change_attribute_type(proto: ModelProto, rng: Random) -> None:
    node = rng.choice([node for node in _body(proto, rng).node if node.attribute])
    rng.choice(node.attribute).type = rng.choice(list(AttributeProto.AttributeType.values()))


# ---- types and shapes ------------------------------------------------------------------------------------------------


def change_type(proto: ModelProto, rng: Random) -> None:
    """The element type that is written beside an input, an output or an inner value."""
    graph = _graph(proto, rng)
    value = rng.choice([*graph.input, *graph.output, *graph.value_info])
    value.type.tensor_type.elem_type = rng.choice((1, 1, 2, 3, 6, 7, 9, 10, 11, 16, 8, 0, 23, 99))


def change_shape(proto: ModelProto, rng: Random) -> None:
    graph = _graph(proto, rng)
    value = rng.choice([*graph.input, *graph.input, *graph.output, *graph.value_info])
    shape = value.type.tensor_type.shape
    choice = rng.randrange(6)
    if choice == 0:
        value.type.tensor_type.ClearField("shape")
    elif choice == 1 or not shape.dim:
        shape.dim.add().dim_value = rng.choice(_SIZES)
    elif choice == 2:
        del shape.dim[rng.randrange(len(shape.dim))]
    elif choice == 3:
        rng.choice(shape.dim).dim_param = rng.choice(("N", "M", "N + 1", "", "2*N", "N/0", "?", "unk__1"))
    else:
        rng.choice(shape.dim).dim_value = rng.choice(_SIZES)


def forget_shapes(proto: ModelProto, rng: Random) -> None:
    for graph in graphs(proto):
        del graph.value_info[:]
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")


def free_dimension(proto: ModelProto, rng: Random) -> None:
    """One size of the inputs becomes a name."""
    sizes = [dim for value in proto.graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_value]
    size = rng.choice(sizes).dim_value
    for dim in sizes:
        if dim.dim_value == size and rng.random() < 0.8:
            dim.dim_param = "N"
    del proto.graph.value_info[:]


def lie_about_value(proto: ModelProto, rng: Random) -> None:
    """value_info that says something else than what the node writes."""
    graph = _graph(proto, rng)
    shape = rng.choice((None, [], [1], [2, 3], ["N"], ["N", 4], [0]))
    graph.value_info.append(helper.make_tensor_value_info(rng.choice(_names(graph)), rng.choice((1, 1, 7, 10)), shape))


def change_opset(proto: ModelProto, rng: Random) -> None:
    entry = rng.choice(proto.opset_import)
    entry.version = rng.choice((entry.version + 1, entry.version - 1, rng.randrange(7, 27), *_INTEGERS[:6], 1 << 40))


def add_opset(proto: ModelProto, rng: Random) -> None:
    proto.opset_import.add(domain=rng.choice(_DOMAINS), version=rng.choice((1, 1, 13, 17, 20, 24)))


def change_ir_version(proto: ModelProto, rng: Random) -> None:
    proto.ir_version = rng.choice((1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 0, 1 << 40))


# ---- constants -------------------------------------------------------------------------------------------------------


def change_tensor(proto: ModelProto, rng: Random) -> None:
    """Other numbers of the same type and shape."""
    tensor = _tensor(proto, rng)
    array = numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    at = rng.randrange(flat.size) if rng.random() < 0.5 else slice(None)
    if array.dtype.kind == "f":
        flat[at] = rng.choice((flat[at] * 1.001, flat[at] + 1, -flat[at], np.asarray(rng.choice(_FLOATS))))
    elif array.dtype.kind in "iu":
        flat[at] = rng.choice((flat[at] + 1, flat[at] - 1, flat[at] * 0, rng.choice((0, 1, 2, 3, 127))))
    else:
        flat[at] = ~flat[at]
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def change_tensor_shape(proto: ModelProto, rng: Random) -> None:
    """A constant of ones in front, of another rank or length; or dims that do not fit the data."""
    tensor = _tensor(proto, rng)
    if rng.random() < 0.3:
        tensor.dims[:] = rng.choice(([*tensor.dims, 1], [*tensor.dims[1:]], [rng.choice(_SIZES)], [*tensor.dims, 2]))
        return
    array = numpy_helper.to_array(tensor)
    made = rng.choice((array[None], array.reshape(-1), array[..., :1], array[:1], array.repeat(2, 0), array[:0]))
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(made), tensor.name))


def change_tensor_type(proto: ModelProto, rng: Random) -> None:
    tensor = _tensor(proto, rng)
    if rng.random() < 0.3:
        tensor.data_type = rng.choice((0, 1, 2, 7, 8, 10, 16, 22, 23, 99))
        return
    kind = rng.choice((np.float64, np.float16, np.float32, np.int64, np.int32, np.int8, np.uint8, np.bool_))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(kind), tensor.name))


def swap_tensors(proto: ModelProto, rng: Random) -> None:
    graph = _graph(proto, rng)
    first, second = rng.sample(list(graph.initializer), 2)
    first.name, second.name = second.name, first.name


def type_tensor(proto: ModelProto, rng: Random) -> None:
    """Numbers in the typed field instead of raw bytes; at times in both."""
    tensor = rng.choice([graph for graph in graphs(proto) if graph.initializer]).initializer[0]
    array = numpy_helper.to_array(tensor)
    raw = tensor.raw_data
    flat = array.astype(np.float64).ravel() if array.dtype.kind == "f" else array.ravel()
    tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, tensor.dims, flat.tolist()))
    if rng.random() < 0.2:
        tensor.raw_data = raw


def default_of_input(proto: ModelProto, rng: Random) -> None:
    """An initializer is an input as well, so that a caller may give another one."""
    tensor = rng.choice(proto.graph.initializer)
    proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def feed_tensor(proto: ModelProto, rng: Random) -> None:
    """An initializer becomes an input."""
    tensor = proto.graph.initializer.pop(rng.randrange(len(proto.graph.initializer)))
    proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def constant_of_tensor(proto: ModelProto, rng: Random) -> None:
    """An initializer becomes a Constant node."""
    graph = _graph(proto, rng)
    tensor = graph.initializer.pop(rng.randrange(len(graph.initializer)))
    node = helper.make_node("Constant", [], [tensor.name])
    node.attribute.append(helper.make_attribute("value", tensor))
    graph.node.insert(0, node)


def fix_input(proto: ModelProto, rng: Random) -> None:
    """An input becomes a constant."""
    value = proto.graph.input[index := rng.randrange(len(proto.graph.input))]
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
    numbers = np.random.default_rng(rng.getrandbits(32)).normal(size=shape) * rng.choice((0, 1, 1, 3))
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(numbers).astype(kind), value.name))
    del proto.graph.input[index]


# ---- structure -------------------------------------------------------------------------------------------------------


def branch(proto: ModelProto, rng: Random) -> None:
    """A node moves into both branches of an If, with captures; the condition is a constant, or an input."""
    index = rng.randrange(len(proto.graph.node))
    node = proto.graph.node[index]
    condition = _fresh(proto, rng)
    branches = []
    for side in ("t", "e"):
        inner = NodeProto()
        inner.CopyFrom(node)
        inner.output[:] = [name + side if name else "" for name in node.output]
        outputs = [helper.make_empty_tensor_value_info(name) for name in inner.output if name]
        branches.append(helper.make_graph([inner], side, [], outputs))
    made = helper.make_node(
        "If", [condition], [name for name in node.output if name], then_branch=branches[0], else_branch=branches[1]
    )
    node.CopyFrom(made)
    if rng.random() < 0.5:
        proto.graph.input.append(helper.make_tensor_value_info(condition, TensorProto.BOOL, []))
    else:
        proto.graph.initializer.append(numpy_helper.from_array(np.array(rng.random() < 0.5), condition))


def call(proto: ModelProto, rng: Random) -> None:
    """A run of nodes becomes a function, and a call of it."""
    nodes = proto.graph.node
    begin = rng.randrange(len(nodes))
    taken = [nodes.pop(begin) for _ in range(min(rng.choice((1, 2, 3, 5)), len(nodes) - begin))]
    written = [name for node in taken for name in node.output if name]
    read = [name for node in taken for name in node.input if name]
    inputs = list(dict.fromkeys(name for name in read if name not in written))
    name = "F" + _fresh(proto, rng)
    domain = rng.choice(("test.fns", "test.fns", "com.microsoft", ""))
    function = helper.make_function(domain, name, inputs, written, taken, proto.opset_import)
    proto.functions.append(function)
    if all(entry.domain != domain for entry in proto.opset_import):
        proto.opset_import.add(domain=domain, version=1)
    nodes.insert(begin, helper.make_node(name, inputs, written, domain=domain))


def call_itself(proto: ModelProto, rng: Random) -> None:
    function = rng.choice(proto.functions)
    node = rng.choice(function.node)
    node.op_type, node.domain = function.name, function.domain


def repeat(proto: ModelProto, rng: Random) -> None:
    """A node moves into a Loop that runs it once or more."""
    index = rng.randrange(len(proto.graph.node))
    node = proto.graph.node[index]
    trips, name = _fresh(proto, rng), _fresh(proto, rng)
    inner = NodeProto()
    inner.CopyFrom(node)
    inner.output[:] = [name + str(slot) for slot in range(len(node.output))]
    condition = helper.make_node("Identity", [name + "c"], [name + "d"])
    body = helper.make_graph(
        [condition, inner],
        name,
        [
            helper.make_tensor_value_info(name + "i", TensorProto.INT64, []),
            helper.make_tensor_value_info(name + "c", TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info(name + "d", TensorProto.BOOL, []),
            *(helper.make_empty_tensor_value_info(output) for output in inner.output),
        ],
    )
    stacked = [output and output + "_stacked" for output in node.output]
    heads = [
        helper.make_node("Squeeze", [one, name + "a"], [out]) for one, out in zip(stacked, node.output, strict=True)
    ]
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), name + "a"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(rng.choice((1, 1, 2, 0))), trips))
    node.CopyFrom(helper.make_node("Loop", [trips, ""], stacked, body=body))
    for offset, head in enumerate(heads, 1):
        proto.graph.node.insert(index + offset, head)


def annotate(proto: ModelProto, rng: Random) -> None:
    """What no kernel reads: doc strings, metadata, quantization annotations, sparse initializers, training info."""
    graph = _graph(proto, rng)
    choice = rng.randrange(6)
    if choice == 0:
        graph.doc_string = rng.choice(_NAMES)
        rng.choice(graph.node).doc_string = "\x1b[31m"
    elif choice == 1:
        proto.metadata_props.add(key=rng.choice(_NAMES), value=rng.choice(_NAMES))
        rng.choice(graph.node).metadata_props.add(key="k", value="v")
    elif choice == 2:
        graph.quantization_annotation.add(tensor_name=rng.choice(_names(graph)))
    elif choice == 3:
        sparse = graph.sparse_initializer.add()
        sparse.values.CopyFrom(numpy_helper.from_array(np.array([1.0], np.float32), _fresh(proto, rng)))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.array([rng.choice((0, 2, 9, -1))]), "i"))
        sparse.dims[:] = [rng.choice((3, 0, 1 << 40))]
    elif choice == 4:
        training = proto.training_info.add()
        training.algorithm.CopyFrom(proto.graph)
    else:
        proto.graph.name = rng.choice(_NAMES)
        proto.producer_name = rng.choice(_NAMES)


def _move_data_out(proto: ModelProto, files: dict[str, bytes], rng: Random) -> None:
    """Weights into a file beside the model; some of the entries then say something else."""
    data = b""
    for tensor in proto.graph.initializer:
        if not tensor.raw_data or rng.random() < 0.2:
            continue
        entries = {"location": "w.bin", "offset": str(len(data)), "length": str(len(tensor.raw_data))}
        data += tensor.raw_data + bytes(rng.choice((0, 0, 64)))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        if rng.random() < 0.3:
            key = rng.choice(list(entries))
            odd = (
                "../outside.bin",
                "/etc/passwd",
                "sub/../w.bin",
                "./w.bin",
                "",
                "nowhere.bin",
                "model.onnx",
                "w.bin/",
            )
            numbers = ("-1", "0", "", "1e3", "99999999", "0x10", " 8 ", "9" * 30, "٣")
            entries[key] = rng.choice(odd if key == "location" else numbers)
            if rng.random() < 0.2:
                del entries[key]
            if rng.random() < 0.2:
                entries["checksum"] = "x"
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    files["w.bin"] = data[: -rng.choice((0, 1, 100))] if rng.random() < 0.1 else data


MUTATIONS: tuple[Mutation, ...] = (
    *(rewire,) * 4,
    rewire_to_anything,
    *(swap_operands,) * 2,
    drop_operand,
    add_operand,
    *(duplicate_node,) * 2,
    *(delete_node,) * 2,
    *(swap_nodes,) * 2,
    *(insert_node,) * 3,
    *(widen,) * 2,
    *(expose,) * 3,
    hide,
    *(rename,) * 2,
    rename_nodes,
    *(change_operator,) * 2,
    change_domain,
    *(change_attribute,) * 4,
    drop_attribute,
    add_attribute,
    change_attribute_type,
    change_type,
    *(change_shape,) * 3,
    *(forget_shapes,) * 2,
    *(free_dimension,) * 2,
    lie_about_value,
    *(change_opset,) * 2,
    add_opset,
    change_ir_version,
    *(change_tensor,) * 3,
    *(change_tensor_shape,) * 3,
    change_tensor_type,
    swap_tensors,
    type_tensor,
    default_of_input,
    *(feed_tensor,) * 2,
    constant_of_tensor,
    *(fix_input,) * 2,
    *(branch,) * 2,
    *(call,) * 2,
    call_itself,
    *(repeat,) * 2,
    annotate,
)
