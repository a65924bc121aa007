"""What is written of a graph that has changed: the rest stays as the file had it, in its order."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from graphopt.ir import Model, Node, Tensor, dims, dtypes, load, model_from_proto, model_to_proto
from graphopt.ir.encode import declared_for, initializers, node_to_proto, type_proto, value_info
from graphopt.ir.infer import infer
from graphopt.ir.text import parse

NET = """
<ir_version: 10, opset_import: ["" : 20, "own" : 3, "spare" : 1]>
net (float[N] x, bool flag) => (float[N] y, float[M] z) <float[1] b = {2}, float[1] a = {1}, float[N] p, float[N] q> {
    p = Add(x, a)
    q = own.Any <k: int = 1, l: float = 2.0, m: string = "s"> (p, b)
    y = Neg(q)
    z = Abs(q)
}
"""


def net() -> Model:
    return load(onnx.parser.parse_model(NET))


def node(model: Model, name: str) -> Node:
    return model.graph.names[name].node


def names(messages: Any) -> list[str]:
    return [one.name for one in messages]


def test_initializers_keep_their_order_and_new_ones_follow() -> None:
    model = net()
    for name in ("d", "c"):
        model.graph.set_input(node(model, "p"), 1, model.graph.add_constant([3.0], name))
    assert names(model_to_proto(model).graph.initializer) == ["b", "a", "d", "c"]
    assert [name for name, _ in initializers(model.graph)] == ["b", "a", "d", "c"]


def test_what_the_file_said_of_values_that_are_gone_is_gone() -> None:
    proto = onnx.parser.parse_model(NET)
    for name in ("p", "q", "nobody"):
        proto.graph.quantization_annotation.add(tensor_name=name)
    model = load(proto)
    model.graph.replace(model.graph.names["p"], model.graph.names["x"])
    model.graph.remove(node(model, "p"))
    written = model_to_proto(model).graph
    assert names(written.value_info) == ["q"]
    assert [one.tensor_name for one in written.quantization_annotation] == ["q", "nobody"]


def test_a_declared_output_stays_as_long_as_its_type_does() -> None:
    model = net()
    declared = onnx.parser.parse_model(NET).graph.output
    for value in model.graph.outputs:
        model.graph.set_type(value, dtypes.FLOAT, (4,))
    assert list(model_to_proto(model).graph.output) == list(declared)
    model.graph.set_type(model.graph.outputs[1], dtypes.FLOAT16, (4,))
    model.graph.outputs[1].info = None
    first, second = model_to_proto(model).graph.output
    assert first == declared[0]
    assert second == helper.make_tensor_value_info("z", TensorProto.FLOAT16, [4])


def test_outputs_are_written_as_they_stand() -> None:
    model = net()
    graph, (y, z) = model.graph, model.graph.outputs
    graph.add_slot(graph.output, graph.names["q"])
    graph.set_input(graph.output, 0, z)
    graph.set_input(graph.output, 1, y)
    assert names(model_to_proto(model).graph.output) == ["z", "y", "q"]


@pytest.mark.parametrize(
    ("opsets", "wanted"),
    [
        ({"": 20, "own": 3, "spare": 1}, [("", 20), ("own", 3), ("spare", 1)]),
        ({"": 20, "own": 3}, [("", 20), ("own", 3)]),
        ({"": 24, "own": 3, "spare": 1}, [("", 24), ("own", 3), ("spare", 1)]),
        (
            {"": 20, "own": 3, "spare": 1, "com.microsoft": 1},
            [("", 20), ("own", 3), ("spare", 1), ("com.microsoft", 1)],
        ),
    ],
)
def test_opset_imports(opsets: dict[str, int], wanted: list[tuple[str, int]]) -> None:
    model = net()
    assert isinstance(model.opsets, dict)
    model.opsets.clear()
    model.opsets.update(opsets)
    assert [(one.domain, one.version) for one in model_to_proto(model).opset_import] == wanted


def test_a_domain_that_is_imported_twice_stays_so_until_it_changes() -> None:
    proto = onnx.parser.parse_model(NET)
    proto.opset_import.add(domain="own", version=5)
    model = load(proto)
    assert model_to_proto(model).opset_import == proto.opset_import
    assert isinstance(model.opsets, dict)
    model.opsets["own"] = 6
    assert {one.version for one in model_to_proto(model).opset_import if one.domain == "own"} == {6}


def test_attributes_that_change_keep_their_places() -> None:
    model = net()
    graph, q = model.graph, node(model, "q")
    graph.set_attr(q, "l", None)
    graph.set_attr(q, "k", 7)
    graph.set_attr(q, "new", [1, 2])
    graph.set_attr(q, "never", None)
    assert [(one.name, helper.get_attribute_value(one)) for one in node_to_proto(q).attribute] == [
        *(("k", 7), ("m", b"s"), ("new", [1, 2])),
    ]


def test_a_node_that_became_another() -> None:
    model = net()
    q = node(model, "q")
    q.name, q.overload = "renamed", "second"
    model.graph.set_op(q, "Other", "spare", 1)
    model.graph.set_input(q, 1, None)
    written = node_to_proto(q)
    assert (written.op_type, written.domain, written.name, written.overload) == ("Other", "spare", "renamed", "second")
    assert (list(written.input), list(written.output)) == (["p", ""], ["q"])


def test_a_graph_of_our_own_has_a_name() -> None:
    model = parse("(x: float32[N]) -> (y) { y = Neg(x) }")
    infer(model)
    proto = model_to_proto(model)
    assert proto.graph.name == "graph"
    onnx.checker.check_model(proto)


BRANCHES = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[N] x, bool flag) => (float[N] y) {
    y = If(flag) <
        then_branch = first () => (float[N] t) <float[1] w = {2}> { t = Add(x, w) },
        else_branch = second () => (float[N] e) { e = Neg(x) }
    >
}
"""


def test_a_subgraph_that_changed_is_written_in_its_place() -> None:
    original = onnx.parser.parse_model(BRANCHES)
    model = load(original)
    y = node(model, "y")
    assert model_to_proto(model) == original
    first, second = y.subgraphs
    first.set_op(next(first.ops()), "Mul", "", 14)
    second.replace(second.outputs[0], second.capture(model.graph.names["x"]))
    written = node_to_proto(y)
    assert [(one.name, one.g.name, [n.op_type for n in one.g.node]) for one in written.attribute] == [
        *(("then_branch", "first", ["Mul"]), ("else_branch", "second", ["Identity", "Neg"])),
    ]
    assert names(written.attribute[0].g.initializer) == ["w"]
    copy = written.attribute[1].g.node[0]
    assert (list(copy.input), list(copy.output)) == (["x"], ["e"])


def test_new_nodes_may_have_subgraphs() -> None:
    model, other = load(onnx.parser.parse_model(BRANCHES)), net()
    graphs = node(model, "y").graphs
    made = other.graph.add_op("If", [other.graph.names["flag"]], outputs=["w"])
    made.graphs = graphs
    written = node_to_proto(made)
    assert [(one.name, one.type) for one in written.attribute] == [
        *(("then_branch", AttributeProto.GRAPH), ("else_branch", AttributeProto.GRAPH)),
    ]


def test_a_function_keeps_its_own_and_has_constants_as_nodes() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20, "f" : 1]> g (float[N] x) => (float[N] y) { y = f.F(x) }'
        '<domain: "f", opset_import: ["" : 20, "own" : 2]> F (a) => (c) { b = Relu(a) c = Neg(b) }'
    )
    proto.functions[0].value_info.extend([helper.make_tensor_value_info(name, 1, [4]) for name in ("b", "nobody")])
    model = load(proto)
    assert model_to_proto(model) == proto
    (function,) = model.functions.values()
    graph = function.graph
    b = graph.names["b"]
    sum_ = graph.add_op("Add", [graph.names["a"], graph.add_constant(np.float32(2), "two")], before=b.node)
    graph.replace(b, sum_.output)
    graph.remove(b.node)
    (written,) = model_to_proto(model).functions
    assert [one.op_type for one in written.node] == ["Constant", "Add", "Neg"]
    assert numpy_helper.to_array(written.node[0].attribute[0].t) == 2
    assert names(written.value_info) == ["nobody"]
    assert [(one.domain, one.version) for one in written.opset_import] == [("", 20), ("own", 2)]


def test_sparse_initializers_stay_as_long_as_they_are_read() -> None:
    proto = onnx.parser.parse_model(NET)
    values, indices = (numpy_helper.from_array(np.array([1], kind), "s") for kind in (np.float32, np.int64))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    proto.graph.node.add(op_type="Neg", input=["s"], output=["t"])
    model = model_from_proto(proto)
    assert model_to_proto(model) == proto
    for name in ("t", "s"):
        model.graph.remove(node(model, name))
    assert not model_to_proto(model).graph.sparse_initializer


def test_types_are_written_as_far_as_they_are_known() -> None:
    n, unknown = dims.symbol("N"), dims.Unknowns().fresh()
    assert type_proto(dtypes.FLOAT, (4, n, unknown)) == helper.make_tensor_type_proto(1, [4, "N", None])
    assert type_proto(dtypes.FLOAT, None) == helper.make_tensor_type_proto(1, None)
    graph = Model.empty(20).graph
    untyped = graph.add_input("u", 0, None)
    assert value_info(untyped) == onnx.ValueInfoProto(name="u")
    assert value_info(untyped, "other") == onnx.ValueInfoProto(name="other")
    known = graph.add_input("x", dtypes.FLOAT, (n,))
    assert value_info(known) == helper.make_tensor_value_info("x", 1, ["N"])
    assert value_info(known, "other") == helper.make_tensor_value_info("other", 1, ["N"])


def test_the_operands_of_an_attention_are_declared() -> None:
    """But for those that are anyway: graph inputs, constants, graph outputs."""
    model = parse("""opset 23
    (q: float32[B, 2, S, 8], k: float32[B, 2, T, 8]) -> (y, w) {
      a = Neg(q)  w = Abs(k)  y = Attention(a, k, w)
    }""")
    a = model.graph.names["a"]
    model.graph.set_type(a, dtypes.FLOAT, (dims.symbol("B"), 2, dims.symbol("S"), 8))
    wanted = helper.make_tensor_value_info("a", TensorProto.FLOAT, [None, 2, None, 8])
    assert declared_for(node(model, "y")) == {"a": wanted}
    assert list(model_to_proto(model).graph.value_info) == [wanted]
    assert declared_for(node(model, "w")) == {}


def test_a_changed_tensor_is_written_anew() -> None:
    model = net()
    node(model, "a").data = Tensor.of(np.array([5.0], np.float32))
    assert [numpy_helper.to_array(one).tolist() for one in model_to_proto(model).graph.initializer] == [[2.0], [5.0]]


def test_a_list_of_subgraphs_stays_one() -> None:
    original = onnx.parser.parse_model(NET)
    scopes = []
    for name in ("first", "second"):
        output = helper.make_tensor_value_info(f"{name} out", TensorProto.FLOAT, None)
        scopes.append(helper.make_graph([helper.make_node("Neg", ["x"], [output.name])], name, [], [output]))
    original.graph.node[1].attribute.append(AttributeProto(name="gs", type=AttributeProto.GRAPHS, graphs=scopes))
    model = load(original)
    assert model_to_proto(model) == original
    next(node(model, "q").subgraphs[1].ops()).name = "renamed"
    (written,) = (one for one in model_to_proto(model).graph.node[1].attribute if one.name == "gs")
    assert [(one.name, one.node[0].name) for one in written.graphs] == [("first", ""), ("second", "renamed")]
