"""Mutations of operators, attributes, types, shapes and constants."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from onnx import AttributeProto, ModelProto, helper, numpy_helper

from fuzzing.places import body_of, graph_of, graphs, names_in, node_of, tensor_of

_SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 64, -1, 1 << 31, (1 << 63) - 1)
_INTEGERS = (0, 1, -1, 2, 3, 4, -2, 7, 100, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-5, 1e-12, 0.044715, float("nan"), float("inf"), float("-inf"), 3e38)
_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml", "ir", "ai.graphopt", "test.custom")
_UNARY = ("Relu", "Neg", "Abs", "Exp", "Sigmoid", "Tanh", "Erf", "Sqrt", "Identity", "Floor", "Softplus", "Not", "Sign")
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "MatMul", "Equal", "Less", "And", "PRelu")
_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceProd", "ReduceSumSquare")


def change_operator(proto: ModelProto, rng: Random) -> None:
    node = node_of(proto, rng)
    for kinds in (_UNARY, _BINARY, _REDUCTIONS):
        if node.op_type in kinds:
            node.op_type = rng.choice(kinds)
            return
    node.op_type = node_of(proto, rng).op_type if rng.random() < 0.7 else rng.choice(("Nope", "", "Attention", "If"))


def change_domain(proto: ModelProto, rng: Random) -> None:
    node_of(proto, rng).domain = rng.choice(_DOMAINS)


def change_attribute(proto: ModelProto, rng: Random) -> None:
    body = body_of(proto, rng)
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
    node = rng.choice([node for node in body_of(proto, rng).node if node.attribute])
    del node.attribute[rng.randrange(len(node.attribute))]


def add_attribute(proto: ModelProto, rng: Random) -> None:
    """An attribute of another node, or one that nobody knows, or the same one twice."""
    body = body_of(proto, rng)
    node = rng.choice(body.node)
    known = [attribute for other in body.node for attribute in other.attribute]
    names = ("axis", "axes", "keepdims", "to", "perm", "scale", "epsilon", "nobody")
    made = helper.make_attribute(rng.choice(names), rng.choice((1, 0, -1, 0.5, "x", [1, 0])))
    node.attribute.append(rng.choice([*known, made]))


def change_attribute_type(proto: ModelProto, rng: Random) -> None:
    node = rng.choice([node for node in body_of(proto, rng).node if node.attribute])
    rng.choice(node.attribute).type = rng.choice(list(AttributeProto.AttributeType.values()))


def change_type(proto: ModelProto, rng: Random) -> None:
    """The element type that is written beside an input, an output or an inner value."""
    graph = graph_of(proto, rng)
    value = rng.choice([*graph.input, *graph.output, *graph.value_info])
    value.type.tensor_type.elem_type = rng.choice((1, 1, 2, 3, 6, 7, 9, 10, 11, 16, 8, 0, 23, 99))


def change_shape(proto: ModelProto, rng: Random) -> None:
    graph = graph_of(proto, rng)
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
    graph = graph_of(proto, rng)
    shape = rng.choice((None, [], [1], [2, 3], ["N"], ["N", 4], [0]))
    graph.value_info.append(
        helper.make_tensor_value_info(rng.choice(names_in(graph)), rng.choice((1, 1, 7, 10)), shape)
    )


def change_opset(proto: ModelProto, rng: Random) -> None:
    entry = rng.choice(proto.opset_import)
    entry.version = rng.choice((entry.version + 1, entry.version - 1, rng.randrange(7, 27), *_INTEGERS[:6], 1 << 40))


def add_opset(proto: ModelProto, rng: Random) -> None:
    proto.opset_import.add(domain=rng.choice(_DOMAINS), version=rng.choice((1, 1, 13, 17, 20, 24)))


def change_ir_version(proto: ModelProto, rng: Random) -> None:
    proto.ir_version = rng.choice((1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 0, 1 << 40))


def change_tensor(proto: ModelProto, rng: Random) -> None:
    """Other numbers of the same type and shape."""
    tensor = tensor_of(proto, rng)
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
    tensor = tensor_of(proto, rng)
    if rng.random() < 0.3:
        tensor.dims[:] = rng.choice(([*tensor.dims, 1], [*tensor.dims[1:]], [rng.choice(_SIZES)], [*tensor.dims, 2]))
        return
    array = numpy_helper.to_array(tensor)
    made = rng.choice((array[None], array.reshape(-1), array[..., :1], array[:1], array.repeat(2, 0), array[:0]))
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(made), tensor.name))


def change_tensor_type(proto: ModelProto, rng: Random) -> None:
    tensor = tensor_of(proto, rng)
    if rng.random() < 0.3:
        tensor.data_type = rng.choice((0, 1, 2, 7, 8, 10, 16, 22, 23, 99))
        return
    kind = rng.choice((np.float64, np.float16, np.float32, np.int64, np.int32, np.int8, np.uint8, np.bool_))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(kind), tensor.name))


def swap_tensors(proto: ModelProto, rng: Random) -> None:
    graph = graph_of(proto, rng)
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
    graph = graph_of(proto, rng)
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
