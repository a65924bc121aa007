"""The bridge to onnx-graphsurgeon: nothing is lost or copied on the way, and rules work on its graphs."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

import graphopt
from graphopt.bench.bert import BertConfig, bert
from graphopt.errors import ModelError, UsageError
from graphopt.ir import dtypes, load, model_from_proto, model_to_proto, save, validate
from graphopt.ir.graphsurgeon import Weights, from_graphsurgeon, to_graphsurgeon
from graphopt.rewrite import Builder, Expr, Ops, Rule, Value
from graphopt.testing import assert_fuses, assert_unchanged


class Softplus(Rule):
    """log(1 + exp(x))."""

    stage = "recover"

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Log(op.Exp(x) + 1.0)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Softplus(x)


def back_and_forth(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = from_graphsurgeon(to_graphsurgeon(load(proto)))
    validate(model)
    return model_to_proto(model)


def same(a: onnx.ModelProto, b: onnx.ModelProto) -> bool:
    """Equal but for documentation of nodes and values, and the order in which constants and attributes are listed."""
    return _bare(a).SerializeToString(deterministic=True) == _bare(b).SerializeToString(deterministic=True)


def _bare(model: onnx.ModelProto) -> onnx.ModelProto:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for function in bare.functions:
        function.ClearField("value_info")
        _bare_nodes(function.node)
    _bare_graph(bare.graph)
    return bare


def _bare_graph(graph: onnx.GraphProto) -> None:
    graph.ClearField("value_info")
    _without_empty_texts(graph)
    graph.initializer.sort(key=lambda tensor: tensor.name)
    for tensor in graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    for info in (*graph.input, *graph.output):
        info.ClearField("doc_string")
    _bare_nodes(graph.node)


def _without_empty_texts(proto: onnx.GraphProto | onnx.NodeProto) -> None:
    for field, value in proto.ListFields():
        if value == "":
            proto.ClearField(field.name)


def _bare_nodes(nodes: list[onnx.NodeProto]) -> None:
    for node in nodes:
        node.ClearField("doc_string")
        _without_empty_texts(node)
        node.attribute.sort(key=lambda attribute: attribute.name)
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _bare_graph(attribute.g)
            elif attribute.type == AttributeProto.TENSOR:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t), attribute.t.name))


@pytest.mark.xdist_group("backend")
def test_backend_models_come_back() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = {case.name: case.model for case in collect_testcases(None)[::8] if case.model is not None}
    changed, unsaid = [], set()
    for name, proto in models.items():
        try:
            back = back_and_forth(proto)
        except ModelError as error:
            unsaid.add(error.message)
            continue
        # Some list the opset of the standard domain under its longer name.
        for entry in proto.opset_import:
            entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
        if not same(proto, back):
            changed.append(name)
    assert len(models) > 200
    assert not changed
    assert unsaid <= {"onnx-graphsurgeon has no word for values of optional type"}


def rich_model() -> onnx.ModelProto:
    """Functions with attributes and subgraphs, captures two levels up, defaults, metadata, domains."""
    model = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20, "here" : 3], producer_name: "someone", producer_version: "2",
     domain: "org", model_version: 7, doc_string: "about it", metadata_props: ["licence": "free"]>
    main (float[N, 2] x, float[2] z, bool flag) => (float[N, 2] y, seq(float[N, 2]) s)
    <float[2] a = {1, 2}, float[2] z = {5, 6}, float[2] b = {3, 4}, float[2] d = {9, 9}, float[N, 2] scaled> {
        scaled = Mul(x, a)
        chosen = If(flag) <
            else_branch = one () => (float[N, 2] e) { e = Add(scaled, b) },
            then_branch = two () => (float[N, 2] t) <float[2] inner = {7, 8}> {
                p = Add(scaled, inner)
                t = If(flag) <
                    then_branch = deep () => (float[N, 2] u) { u = Sub(p, d) },
                    else_branch = flat () => (float[N, 2] v) { v = Clip(x, , d) }
                >
            }
        >
        y = here.scaled<k = 2.0>(chosen, z)
        s = SequenceConstruct(y, chosen)
    }
    <domain: "here", opset_import: ["" : 20]> scaled <k, axes: ints = [0, 1]> (u, v) => (w) {
        c = Constant<value_float: float = @k>()
        m = Mul(u, c)
        w = Add(m, v)
    }
    """)
    model.graph.node[0].name = "first"
    model.functions[0].doc_string = "k·u + v"
    return model


def test_everything_a_model_says_comes_back() -> None:
    proto = rich_model()
    back = back_and_forth(proto)
    assert same(proto, back)
    assert [entry.key for entry in back.metadata_props] == ["licence"]
    assert [tensor.name for tensor in back.graph.initializer if tensor.name != "z"] == ["a", "b", "d"]
    onnx.checker.check_model(back)


def test_a_graph_of_graphsurgeon_is_read_as_it_exports_it() -> None:
    graph = gs.import_onnx(rich_model())
    names = {node.name: list(node.outputs) for node in graph.nodes}
    back = model_to_proto(from_graphsurgeon(graph))
    exported = model_to_proto(model_from_proto(gs.export_onnx(graph)))
    assert {node.name: list(node.outputs) for node in graph.nodes} == names
    # The exporter writes a constant into each scope that reads it, we what several read into the main graph.
    assert [tensor.name for tensor in back.graph.initializer] == ["a", "z", "d"]
    feed = {"x": np.ones((3, 2), np.float32), "flag": np.array(False)}
    for wanted, found in zip(run(exported, feed), run(back, feed), strict=True):
        np.testing.assert_array_equal(wanted, found)


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, feed)
    return found


def test_weights_are_not_copied(tmp_path: Path) -> None:
    array = np.arange(40_000, dtype=np.float32)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [40_000]) for name in "xy"]
    graph = helper.make_graph([node], "g", info[:1], info[1:], [numpy_helper.from_array(array, "w")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    model = load(proto)
    surgeon = to_graphsurgeon(model)
    values = surgeon.tensors()["w"]._values
    assert isinstance(values, Weights)
    assert values.source is model.graph.names["w"].tensor
    assert from_graphsurgeon(surgeon).graph.names["w"].tensor is values.source

    surgeon.tensors()["w"].values = array
    tensor = from_graphsurgeon(surgeon).graph.names["w"].tensor
    assert tensor is not None
    assert np.shares_memory(tensor.numpy(), array)


def test_external_data_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = bert(BertConfig(layers=1, hidden=32, heads=2, intermediate=64, vocabulary=50))
    save(load(proto), tmp_path / "model.onnx", external="always")

    surgeon = to_graphsurgeon(load(tmp_path / "model.onnx"))
    back = load(surgeon)
    assert back.path == tmp_path / "model.onnx"
    with pytest.raises(UsageError, match="the output is the input"):
        save(back, tmp_path / "model.onnx")
    assert save(back, tmp_path / "copy.onnx") == [tmp_path / "copy.onnx"]
    assert load(tmp_path / "copy.onnx").data_files == back.data_files

    # A script that only graphsurgeon read: its protos are relative to the current folder.
    monkeypatch.chdir(tmp_path)
    read = gs.import_onnx(onnx.load("model.onnx", load_external_data=False))
    assert load(read).data_files == {"model.onnx.data": tmp_path / "model.onnx.data"}

    # Without the model's file, the weights are still found.
    monkeypatch.chdir("/")
    assert load(surgeon.copy()).data_files == {}
    exported = gs.export_onnx(surgeon)
    assert not any(tensor.external_data for tensor in exported.graph.initializer)


@pytest.mark.parametrize("kind", ["bfloat16", "float8e4m3fnuz", "int4", "uint4", "bool"])
def test_narrow_types_come_back_read_or_not(kind: str) -> None:
    array = np.array([0, 1, 3, 1, 0], dtypes.to_numpy(dtypes.NUMBERS[kind]))
    number = dtypes.from_numpy(array.dtype)
    nodes = [helper.make_node("Identity", ["w"], ["y"]), helper.make_node("Constant", [], ["c"])]
    nodes[1].attribute.append(helper.make_attribute("value", numpy_helper.from_array(array, "c")))
    infos = [helper.make_tensor_value_info(name, number, [5]) for name in "yc"]
    graph = helper.make_graph(nodes, "g", [], infos, [numpy_helper.from_array(array, "w")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    assert same(back_and_forth(proto), proto)

    surgeon = to_graphsurgeon(load(proto))
    assert (surgeon.tensors()["w"].values == array).all()
    assert (surgeon.nodes[1].attrs["value"].values == array).all()
    assert same(model_to_proto(from_graphsurgeon(surgeon)), proto)


def test_an_array_is_exported_as_another_type() -> None:
    half = gs.Constant("half", np.full(2, 0.5, np.float32), export_dtype=TensorProto.BFLOAT16)
    tensor = from_graphsurgeon(add(half, half)).graph.names["half"].tensor
    assert tensor is not None
    assert (tensor.dtype, tensor.numpy().tolist()) == (dtypes.BFLOAT16, [0.5, 0.5])


def test_sparse_initializers_come_back() -> None:
    values = numpy_helper.from_array(np.array([2.0], np.float32), "w")
    indices = numpy_helper.from_array(np.array([1]), "indices")
    node = helper.make_node("Add", ["x", "w"], ["y"])
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert same(back_and_forth(proto), proto)


def test_a_script_edits_sorts_and_gives_back() -> None:
    proto = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]> main (float[N, 4] x) => (float[N, 4] y) {
        unused = Neg(x)
        y = Tanh(x)
    }
    """)
    graph = to_graphsurgeon(load(proto))
    tanh = graph.nodes[1]
    one = gs.Constant("one", np.ones(1, np.float32))
    exp, sum_, log = (gs.Variable(name, np.float32) for name in ("exp", "sum", "log"))
    # In an order that is not one.
    graph.nodes += [
        gs.Node("Log", "log", inputs=[sum_], outputs=[log]),
        gs.Node("Add", "add", inputs=[exp, one], outputs=[sum_]),
        gs.Node("Exp", "exp", inputs=tanh.inputs[:], outputs=[exp]),
        gs.Node("Cast", "cast", {"to": np.float32}, [log], [gs.Variable("casted", np.float32)]),
    ]
    tanh.inputs = [graph.nodes[-1].outputs[0]]
    graph.cleanup().toposort()

    model = from_graphsurgeon(graph)
    assert [node.op for node in model.graph.ops()] == ["Exp", "Add", "Log", "Cast", "Tanh"]
    assert_fuses(graph, Softplus, into={"Softplus": 1, "Exp": 0})
    (found,) = graphopt.find(graph, Softplus)
    assert found.root.name == "log"
    assert found.bindings["x"].name == "x"

    graph.nodes[1].inputs[1].values = np.full(1, 2, np.float32)
    assert_unchanged(graph, Softplus, because="wanted 1")


def test_fusing_a_graph_of_graphsurgeon() -> None:
    proto = bert(BertConfig(layers=1, hidden=32, heads=2, intermediate=64, vocabulary=50))
    graph = to_graphsurgeon(load(proto))
    result = graphopt.fuse(graph)
    assert result.verdict == "equal"
    assert result.fused == graphopt.fuse(proto).fused
    assert graphopt.verify(gs.export_onnx(to_graphsurgeon(result.model)), proto).verdict == "equal"


def test_what_has_no_word_is_told() -> None:
    optional = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]> main (optional(float[N]) x) => (bool y) { y = OptionalHasElement(x) }
    """)
    with pytest.raises(ModelError, match="no word for values of optional type"):
        to_graphsurgeon(load(optional))

    overload = rich_model()
    overload.functions[0].overload = "two"
    with pytest.raises(ModelError, match="no word for overloads"):
        to_graphsurgeon(load(overload))


def add(a: gs.Tensor, b: gs.Tensor, **attrs: object) -> gs.Graph:
    y = gs.Variable("y", np.float32, (2,))
    return gs.Graph([gs.Node("Add", "sum", attrs, [a, b], [y])], [], [y], opset=20)


def test_what_is_not_onnx_is_told_with_its_place() -> None:
    c = gs.Constant("c", np.zeros(2, np.float32))
    with pytest.raises(ModelError, match="two tensors called 'c'"):
        from_graphsurgeon(add(c, gs.Constant("c", np.ones(2, np.float32))))
    with pytest.raises(ModelError, match="not ONNX") as raised:
        from_graphsurgeon(add(c, c, odd=object()))
    assert raised.value.where == "node 'sum' (Add)"
    with pytest.raises(ModelError, match="no element type of ONNX is datetime64"):
        from_graphsurgeon(add(c, gs.Constant("d", np.zeros(2, "datetime64[s]"))))
    with pytest.raises(ModelError, match="nothing produces 'n'"):
        from_graphsurgeon(add(c, gs.Variable("n")))
    with pytest.raises(TypeError, match="a model is a path"):
        load(7)  # type: ignore[arg-type]


def test_a_graph_without_versions_gets_some() -> None:
    c = gs.Constant("c", np.zeros(2, np.float32))
    graph = add(c, c)
    graph.nodes[0].domain = "elsewhere"
    model = from_graphsurgeon(graph)
    assert model.opsets == {"": 20, "elsewhere": 1}
    assert model.proto.ir_version == 9
    assert graph.import_domains is None


def test_graphsurgeon_is_imported_only_for_its_graphs() -> None:
    code = """
import onnx, sys, graphopt
graphopt.load(onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (y) { y = Exp(x) }'))
assert "onnx_graphsurgeon" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
