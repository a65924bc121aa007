"""Attributes between protos and Python values: every type there and back, what is the same, what is a constant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from graphopt.ir import Model, Node, Tensor, dtypes, model_from_proto, model_to_proto
from graphopt.ir.attributes import Reference, constant_tensor, decode_one, encode, same
from graphopt.ir.protos import tensors

TENSOR = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "t")
SPARSE = helper.make_sparse_tensor(
    numpy_helper.from_array(np.array([5.0], np.float32), "v"),
    numpy_helper.from_array(np.array([2], np.int64), "i"),
    [4],
)
TYPE = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, "n"])

PLAIN = {
    "int": (AttributeProto(name="a", type=AttributeProto.INT, i=-7), -7),
    "float": (AttributeProto(name="a", type=AttributeProto.FLOAT, f=0.5), 0.5),
    "string": (AttributeProto(name="a", type=AttributeProto.STRING, s="ü".encode()), "ü"),
    "bytes": (AttributeProto(name="a", type=AttributeProto.STRING, s=b"\xff\x00"), b"\xff\x00"),
    "ints": (AttributeProto(name="a", type=AttributeProto.INTS, ints=[1, -1]), [1, -1]),
    "no ints": (AttributeProto(name="a", type=AttributeProto.INTS), []),
    "floats": (AttributeProto(name="a", type=AttributeProto.FLOATS, floats=[0.5, -2.0]), [0.5, -2.0]),
    "strings": (AttributeProto(name="a", type=AttributeProto.STRINGS, strings=[b"x", b"\xff"]), ["x", b"\xff"]),
    "sparse": (AttributeProto(name="a", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=SPARSE), SPARSE),
    "type": (AttributeProto(name="a", type=AttributeProto.TYPE_PROTO, tp=TYPE), TYPE),
    "types": (AttributeProto(name="a", type=AttributeProto.TYPE_PROTOS, type_protos=[TYPE, TYPE]), [TYPE, TYPE]),
    "sparse ones": (
        AttributeProto(name="a", type=AttributeProto.SPARSE_TENSORS, sparse_tensors=[SPARSE, SPARSE]),
        [SPARSE, SPARSE],
    ),
    "reference": (
        AttributeProto(name="a", type=AttributeProto.INT, ref_attr_name="outer"),
        Reference("outer", AttributeProto.INT),
    ),
}


@pytest.mark.parametrize(("proto", "value"), PLAIN.values(), ids=PLAIN.keys())
def test_an_attribute_there_and_back(proto: AttributeProto, value: Any) -> None:
    found = decode_one(proto)
    assert found == value
    assert type(found) is type(value)
    assert encode("a", found) == proto


def test_tensors_there_and_back() -> None:
    one, two = (AttributeProto(name="a", type=AttributeProto.TENSOR, t=TENSOR), AttributeProto(name="a"))
    two.type = AttributeProto.TENSORS
    two.tensors.extend([TENSOR, TENSOR])
    assert decode_one(one).numpy().tolist() == [1.0, 2.0]
    assert [tensor.numpy().tolist() for tensor in decode_one(two)] == [[1.0, 2.0], [1.0, 2.0]]
    assert numpy_helper.to_array(encode("a", decode_one(one)).t).tolist() == [1.0, 2.0]


def test_a_subgraph_and_an_attribute_without_a_type_are_no_values() -> None:
    assert decode_one(AttributeProto(name="a", type=AttributeProto.GRAPH)) is None
    assert decode_one(AttributeProto(name="a")) is None


def test_a_truth_is_written_as_a_number() -> None:
    assert encode("a", True) == helper.make_attribute("a", 1)
    assert encode("a", ()) == AttributeProto(name="a", type=AttributeProto.INTS)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (1, True, False),
        ([1, 2], (1, 2), True),
        ([1, 2], [1], False),
        ([1], [1, 2], False),
        ([1, 2], [1, 3], False),
        ("x", b"x", False),
        ([], None, False),
        (Tensor.of([1.0]), Tensor.of([1.0]), True),
        (Tensor.of([0.0]), Tensor.of([-0.0]), False),
        (Tensor.of([float("nan")]), Tensor.of([float("nan")]), True),
        (Tensor.of([1], dtypes.INT64), Tensor.of([1], dtypes.INT32), False),
        (Tensor.of([[1, 2]], dtypes.INT64), Tensor.of([1, 2], dtypes.INT64), False),
        (Tensor.of(np.array(["x", "y"], object)), Tensor.of(np.array(["x", "y"], object)), True),
        (Tensor.of(np.array(["x", "y"], object)), Tensor.of(np.array(["x", "z"], object)), False),
        ([Tensor.of([1.0])], [Tensor.of([1.0])], True),
        ([Tensor.of([1.0])], [Tensor.of([2.0])], False),
        (Tensor.of([1.0]), 1.0, False),
        (TYPE, helper.make_tensor_type_proto(TensorProto.FLOAT, [1, "n"]), True),
        (TYPE, helper.make_tensor_type_proto(TensorProto.FLOAT, [1, "m"]), False),
    ],
)
def test_what_is_the_same(a: Any, b: Any, equal: bool) -> None:
    assert same(a, b) == equal
    assert same(b, a) == equal


def constant(**attributes: Any) -> Node:
    graph = Model.empty(20).graph
    return graph.add_op("Constant", [], attributes)


@pytest.mark.parametrize(
    ("attributes", "dtype", "numbers"),
    [
        ({"value": Tensor.of([[1.5]], dtypes.FLOAT16)}, dtypes.FLOAT16, [[1.5]]),
        ({"value_float": 2.5}, dtypes.FLOAT, 2.5),
        ({"value_floats": [2.5, 1.0]}, dtypes.FLOAT, [2.5, 1.0]),
        ({"value_int": 3}, dtypes.INT64, 3),
        ({"value_ints": [3, 4]}, dtypes.INT64, [3, 4]),
        ({"value_string": "a"}, dtypes.STRING, "a"),
        ({"value_strings": ["a", "b"]}, dtypes.STRING, ["a", "b"]),
    ],
)
def test_the_tensor_of_a_constant(attributes: dict[str, Any], dtype: int, numbers: Any) -> None:
    node = constant(**attributes)
    tensor = constant_tensor(node)
    assert tensor is not None
    assert (tensor.dtype, tensor.shape, tensor.numpy().tolist()) == (dtype, np.shape(numbers), numbers)
    assert constant_tensor(node) is tensor


@pytest.mark.parametrize("value", [Reference("outer", AttributeProto.TENSOR), SPARSE])
def test_constants_whose_numbers_are_not_in_one_tensor(value: Any) -> None:
    name = "value" if isinstance(value, Reference) else "sparse_value"
    assert constant_tensor(constant(**{name: value})) is None


# ---- all tensors of a model ---------------------------------------------------------------------------------------


def named(name: str) -> TensorProto:
    return numpy_helper.from_array(np.zeros(1, np.float32), name)


def sparse(name: str) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(named(f"{name} values"), named(f"{name} indices"), [4])


def graph_of(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    return onnx.GraphProto(name=name, node=nodes, initializer=[named(name)], sparse_initializer=[sparse(name)])


def node_with(*attributes: AttributeProto) -> onnx.NodeProto:
    return onnx.NodeProto(op_type="Any", domain="any", attribute=attributes)


def everywhere() -> onnx.ModelProto:
    inner = node_with(AttributeProto(name="g", type=AttributeProto.GRAPH, g=graph_of("in a graph")))
    main = node_with(
        AttributeProto(name="t", type=AttributeProto.TENSOR, t=named("one")),
        AttributeProto(name="ts", type=AttributeProto.TENSORS, tensors=[named("of two"), named("of two, too")]),
        AttributeProto(name="s", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse("sparse")),
        AttributeProto(name="ss", type=AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse("of sparse")]),
        AttributeProto(name="gs", type=AttributeProto.GRAPHS, graphs=[graph_of("of graphs", inner)]),
    )
    model = helper.make_model(graph_of("main", main))
    function = model.functions.add(name="f", domain="own", node=[node_with(helper.make_attribute("t", named("body")))])
    function.attribute_proto.append(helper.make_attribute("d", named("default")))
    model.training_info.add(initialization=graph_of("start"), algorithm=graph_of("step"))
    return model


def names() -> Iterator[str]:
    yield from ("one", "of two", "of two, too", "body", "default")
    for name in ("main", "in a graph", "of graphs", "start", "step"):
        yield from (name, f"{name} values", f"{name} indices")
    for name in ("sparse", "of sparse"):
        yield from (f"{name} values", f"{name} indices")


def test_every_tensor_of_a_model_is_found_once() -> None:
    assert sorted(tensor.name for tensor in tensors(everywhere())) == sorted(names())


def test_what_a_rule_may_not_write_comes_back_from_a_file() -> None:
    """All types of attributes on one node, through the IR and back."""
    attributes = [AttributeProto() for _ in PLAIN]
    for place, (made, (proto, _)) in enumerate(zip(attributes, PLAIN.values(), strict=True)):
        made.CopyFrom(proto)
        made.name = f"a{place}"
        made.ref_attr_name = ""
    node = onnx.NodeProto(op_type="Any", domain="any", output=["y"], attribute=attributes)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("any", 1)]
    model = helper.make_model(graph, opset_imports=imports)
    assert model_to_proto(model_from_proto(model)).graph.node[0] == node
