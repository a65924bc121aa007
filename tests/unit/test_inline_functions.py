"""Functions put in place of their calls: what is written, what stays a call and why, and that it computes the same."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.ir import Model, load
from graphopt.ir.save import model_to_proto
from graphopt.ir.text import parse, to_text
from graphopt.ir.validate import validate
from graphopt.passes import inline_functions
from graphopt.pipeline import fuse
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import Trace, built_in_rules
from graphopt.targets import target_named
from tests.unit.test_passes import check_same, numbers, ops

F = "opset 17, my 1\n(x: float32[2, 3]) -> (y: float32) "


def inlined(model: Model, **options: object) -> tuple[Model, Trace]:
    trace = Trace()
    count = inline_functions(model, trace, **options)  # type: ignore[arg-type]
    validate(model)
    assert count == len(trace.sites)
    return model, trace


def assert_same(text: str, written: dict[str, int]) -> Model:
    before, (after, trace) = parse(text), inlined(parse(text))
    assert trace.left_out == {}
    assert not after.functions
    assert ops(after) == written
    check_same(before, after, {"x": numbers(2, 3)})
    return after


def test_an_attribute_is_the_callers_or_the_default() -> None:
    model = assert_same(
        F
        + """{ y = Add(my.Scale(x, by=3.0), my.Scale(x)) }
        function my.Scale(a, by=0.5) -> (b) { k = Constant(value_float=@by)  b = Mul(a, k) }""",
        {"Mul": 2, "Constant": 2, "Add": 1},
    )
    assert sorted(node.attrs["value_float"] for node in model.graph.ops() if node.op == "Constant") == [0.5, 3.0]


def test_an_attribute_that_nobody_gives_is_left_out() -> None:
    model = assert_same(
        F + "{ y = my.Turned(x) } function my.Turned(a, perm=@) -> (b) { b = Transpose(a, perm=@perm) }",
        {"Transpose": 1},
    )
    assert [node.attrs for node in model.graph.ops()] == [{}]


def test_an_attribute_and_a_value_reach_subgraphs() -> None:
    assert_same(
        F
        + """{ c = Greater(ReduceSum(x, keepdims=0), 100.0)  y = my.Either(x, c, axis=0) }
        function my.Either(a, c, axis=@) -> (b) {
          n = Neg(a)
          b = If(c, then_branch=() -> (p: float32) { p = my.Soft(n, axis=@axis) },
                    else_branch=() -> (q: float32) { q = Mul(my.Soft(a, axis=@axis), float32[3] random(1)) })
        }
        function my.Soft(a, axis=@) -> (b) { b = Softmax(a, axis=@axis) }""",
        {"ReduceSum": 1, "Greater": 1, "Neg": 1, "If": 1, "Softmax": 2, "Mul": 1},
    )


def test_an_operand_that_is_left_out_stays_so() -> None:
    model = assert_same(
        F
        + """{ y = my.Limited(my.Limited(x, _, 1.0)) }
        function my.Limited(a, low, high) -> (b) { b = Clip(a, low, high) }""",
        {"Clip": 2},
    )
    first, second = (node.inputs for node in model.graph.ops())
    assert [value is None for value in first] == [False, True, False]
    assert [value is None for value in second] == [False, True, True]


def test_outputs_keep_their_names_and_what_is_inside_is_called_after_the_call() -> None:
    text = """opset 17, my 1
    (x: float32[2, 3]) -> (y: float32, z: float32) { p, q = my.Both(x)  y = Add(p, q)  z, _ = my.Both(y) }
    function my.Both(a) -> (c, d) { s = my.Half(a)  c = Neg(s)  d = Abs(s) }
    function my.Half(a) -> (b) { t = Sqrt(Abs(a))  b = Mul(t, 0.5) }"""
    before, (after, trace) = parse(text), inlined(parse(text))
    check_same(before, after, {"x": numbers(2, 3)})
    assert {"p", "q", "y", "z", "p/s", "p/s/t", "z/s/t"} <= after.graph.names.keys()
    assert {site.rule for site in trace.sites} == {"inline_functions"}
    assert [site.root for site in trace.sites] == ["p", "p/s", "z", "z/s"]
    assert trace.sites[0].nodes == ("p", "q")


def test_what_is_passed_through_or_handed_out_twice_has_two_names() -> None:
    text = """opset 17, my 1
    (x: float32[2, 3]) -> (y, z, u) { h = Exp(x)  y, z, u = my.Same(h) }
    function my.Same(a) -> (a, b, b) { b = Neg(a) }"""
    model, _ = inlined(parse(text))
    assert {name: model.graph.names[name].node.op for name in "hyzu"} == {
        "h": "Exp",
        "y": "Identity",
        "z": "Neg",
        "u": "Identity",
    }


def test_names_of_the_model_and_of_bodies_do_not_mix() -> None:
    assert_same(
        F
        + """{ t = Exp(x)  h = my.Shadow(t)  `h/t` = Neg(h)  y = Add(`h/t`, my.Shadow(x)) }
        function my.Shadow(x) -> (h) { t = Abs(x)  h = Add(t, x) }""",
        {"Exp": 1, "Abs": 2, "Add": 3, "Neg": 1},
    )


def test_constants_are_shared_by_all_calls() -> None:
    model = assert_same(
        F
        + """{ y = my.Project(my.Project(my.Project(x))) }
        function my.Project(a) -> (b) { w = Constant(value=float32[3, 3] random(1))  b = MatMul(a, w) }""",
        {"MatMul": 3},
    )
    assert len(model.graph.sources("Constant")) == 1


# ---- what stays a call -----------------------------------------------------------------------------------------------


def test_what_the_target_or_the_user_has_a_kernel_for_stays() -> None:
    text = F + "{ y = my.Mine(my.Other(x)) } function my.Mine(a) -> (b) { b = Neg(a) }"
    text += " function my.Other(a) -> (b) { b = my.Mine(Abs(a)) }"
    model, trace = inlined(parse(text), stays=lambda domain, op: (domain, op) == ("my", "Mine"))
    assert [node.op for node in model.graph.ops()] == ["Abs", "Mine", "Mine"]
    assert list(model.functions) == [("my", "Mine", "")]
    assert trace.left_out == {}
    for keep in ("my", "my.Mine"):
        model = parse(text)
        optimize(model, target=target_named("ort-cpu"), rules=built_in_rules(), keep_functions=[keep])
        assert "Mine" in ops(model)


def test_a_function_called_as_an_operator_that_is_known_stays() -> None:
    text = "opset 17, com.microsoft 1\n(x: float32[2, 3]) -> (y) { y = com.microsoft.Gelu(x) }"
    model, trace = inlined(parse(text + " function com.microsoft.Gelu(a) -> (b) { b = Neg(a) }"))
    assert ops(model)["Gelu"] == 1
    assert (len(model.functions), trace.left_out) == (1, {})


@pytest.mark.parametrize("body", ["RandomNormalLike(a)", "Dropout(a, 0.5, true)"])
def test_two_draws_stay_two_calls_that_can_be_checked(body: str) -> None:
    text = f"""opset 17, my 1
    (x: float32[2, 3]) -> (y: float32[2, 3], z: float32[2, 3]) {{
      h = Abs(x)  y = Sub(my.Outer(h), my.Outer(h))  z = my.Plain(h) }}
    function my.Plain(a) -> (b) {{ b = Mul(a, Sigmoid(a)) }}
    function my.Outer(a) -> (b) {{ b = my.Noise(a) }}
    function my.Noise(a) -> (b) {{ b = {body} }}"""
    result = fuse(model_to_proto(parse(text)))
    assert result.verdict == "equal"
    assert [node.op for node in result.model.graph.ops()] == ["Abs", "Outer", "Outer", "Sub", "QuickGelu"]
    assert list(result.trace.left_out) == ["function my.Outer", "function my.Noise"]


def test_a_dropout_that_the_caller_does_not_train_is_no_draw() -> None:
    text = F + "{ y = my.Drop(x, false) } function my.Drop(a, train) -> (b) { b = Dropout(a, 0.5, train) }"
    assert ops(inlined(parse(text))[0]) == {"Dropout": 1}


def doubling(levels: int) -> str:
    steps = [f"function my.F{n}(a) -> (b) {{ b = my.F{n - 1}(my.F{n - 1}(a)) }}" for n in range(1, levels + 1)]
    return "\n".join([F + f"{{ y = my.F{levels}(my.Once(x)) }}", "function my.F0(a) -> (b) { b = Neg(a) }", *steps])


def test_what_would_grow_without_bound_stays_and_is_said() -> None:
    once = "\nfunction my.Once(a) -> (b) { b = Abs(a) }"
    text = doubling(1000) + once
    model, trace = inlined(parse(text))
    assert [node.op for node in model.graph.ops()] == ["Abs", "F1000"]
    assert trace.left_out == {"function my.F1000": "all calls together would write more than 200,000 nodes"}
    assert len(model.functions) == 1001
    assert ops(inlined(parse(doubling(6) + once))[0]) == {"Neg": 64, "Abs": 1}


def test_a_long_chain_of_calls_is_no_recursion() -> None:
    steps = [f"function my.F{n}(a) -> (b) {{ b = Abs(my.F{n - 1}(a)) }}" for n in range(1, 3000)]
    text = "\n".join([F + "{ y = my.F2999(x) }", "function my.F0(a) -> (b) { b = Neg(a) }", *steps])
    model, _ = inlined(parse(text))
    assert ops(model) == {"Abs": 2999, "Neg": 1}
    assert max(map(len, model.graph.names)) < 300


def test_a_function_that_calls_itself_stays() -> None:
    text = F + "{ y = my.F(x) } function my.F(a) -> (b) { b = my.G(a) } function my.G(a) -> (b) { b = my.F(a) }"
    model, trace = inlined(parse(text))
    assert ops(model) == {"F": 2, "G": 1}
    assert set(trace.left_out.values()) == {"it calls itself, or one that does"}


def test_a_site_that_was_found_guilty_stays() -> None:
    text = F + "{ h = my.F(x)  y = my.F(h) } function my.F(a) -> (b) { b = Abs(Neg(a)) }"
    model, trace = inlined(parse(text), exclude=frozenset({("inline_functions", "h")}))
    assert [node.op for node in model.graph.ops()] == ["F", "Neg", "Abs"]
    assert len(model.functions) == 1
    assert trace.count("inline_functions").applied == 1


def test_nothing_to_inline_changes_nothing() -> None:
    text = F + "{ y = Neg(x) } function my.Unused(a) -> (b) { b = Abs(a) }"
    model, trace = inlined(parse(text))
    assert to_text(model) == to_text(parse(text))
    assert trace.sites == []


# ---- protos ----------------------------------------------------------------------------------------------------------


def proto_of(nodes: list[onnx.NodeProto], opset: int, body_opset: int) -> onnx.ModelProto:
    body = helper.make_function("my", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", body_opset)])
    call = helper.make_node("F", ["x"], ["y"], "call", domain="my")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 4]) for name in "xy")
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    return helper.make_model(helper.make_graph([call], "g", [x], [y]), functions=[body], opset_imports=opsets)


@pytest.mark.parametrize(
    ("node", "body_opset", "opset", "stays"),
    [
        (helper.make_node("Relu", ["a"], ["b"]), 13, 17, False),
        (helper.make_node("Relu", ["a"], ["b"]), 20, 17, False),
        (helper.make_node("Softmax", ["a"], ["b"], axis=1), 11, 17, True),
        (helper.make_node("Softmax", ["a"], ["b"], axis=1), 13, 17, False),
        (helper.make_node("Gelu", ["a"], ["b"]), 20, 17, True),
        (helper.make_node("ReduceMean", ["a"], ["b"], axes=[1]), 13, 17, False),
    ],
)
def test_a_body_in_another_opset_is_read_in_the_models_or_stays(
    node: onnx.NodeProto, body_opset: int, opset: int, stays: bool
) -> None:
    model, trace = inlined(load(proto_of([node], opset, body_opset)))
    assert ("function my.F" in trace.left_out) == stays
    assert {node.version for node in model.graph.ops() if not node.domain} == (set() if stays else {opset})


def test_a_body_is_adapted_to_the_models_opset() -> None:
    mean = helper.make_node("ReduceMean", ["a"], ["b"], axes=[1])
    model, _ = inlined(load(proto_of([mean], 18, 17)))
    (node,) = model.graph.ops()
    axes = node.input(1)
    assert "axes" not in node.attrs
    assert axes is not None
    assert axes.tensor is not None
    assert axes.tensor.numpy().tolist() == [1]


def test_what_the_file_says_of_a_node_stays_and_the_file_as_well() -> None:
    node = helper.make_node("Relu", ["a"], ["b"], "inner", doc_string="why")
    node.metadata_props.add(key="scope", value="layer.0")
    proto = proto_of([node], 17, 17)
    before = proto.SerializeToString(deterministic=True)
    (written,) = model_to_proto(inlined(load(proto))[0]).graph.node
    assert (written.name, written.doc_string, written.metadata_props[0].value) == ("call/inner", "why", "layer.0")
    assert proto.SerializeToString(deterministic=True) == before


def test_a_tensor_that_the_caller_gives() -> None:
    constant = helper.make_node("Constant", [], ["k"])
    constant.attribute.append(onnx.AttributeProto(name="value", ref_attr_name="bias", type=onnx.AttributeProto.TENSOR))
    proto = proto_of([constant, helper.make_node("Add", ["a", "k"], ["b"])], 17, 17)
    proto.functions[0].attribute.append("bias")
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [4], [1, 2, 3, 4])
    proto.graph.node[0].attribute.append(helper.make_attribute("bias", bias))
    model, _ = inlined(load(proto))
    tensor = next(node.output.tensor for node in model.graph.ops() if node.op == "Constant")
    assert tensor is not None
    assert tensor.numpy().tolist() == [1, 2, 3, 4]


def test_an_overload_is_a_function_of_its_own() -> None:
    proto = proto_of([helper.make_node("Relu", ["a"], ["b"])], 17, 17)
    proto.ir_version = 10
    other = proto.functions.add()
    other.CopyFrom(proto.functions[0])
    other.overload, other.node[0].op_type = "two", "Neg"
    proto.graph.node[0].overload = "two"
    model, _ = inlined(load(proto))
    assert ops(model) == {"Neg": 1}


def test_a_subgraph_that_the_caller_gives_stays_outside() -> None:
    branch = onnx.AttributeProto(name="then_branch", ref_attr_name="body", type=onnx.AttributeProto.GRAPH)
    node = helper.make_node("If", ["a"], ["b"])
    node.attribute.append(branch)
    proto = proto_of([node], 17, 17)
    proto.functions[0].attribute.append("body")
    assert inlined(load(proto))[1].left_out == {"function my.F": "the caller gives a subgraph of If"}


# ---- the whole -------------------------------------------------------------------------------------------------------

ATTENTION = """opset 17, my 1
(x: float32[B, S, 64]) -> (y: float32[B, S, 64]) {
  h = my.Layer(x, float32[64, 64] random(1), float32[64, 64] random(2), float32[64, 64] random(3))
  y = my.Layer(h, float32[64, 64] random(4), float32[64, 64] random(5), float32[64, 64] random(6))
}
function my.Layer(x, wq, wk, wv) -> (y) {
  o = my.Attend(my.Heads(x, wq), my.Heads(x, wk), my.Heads(x, wv))
  t = Transpose(o, perm=[0, 2, 1, 3])
  y = my.Gelu(Add(Reshape(t, [0, 0, 64]), x))
}
function my.Heads(x, w) -> (h) {
  h = Transpose(Reshape(MatMul(x, w), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
}
function my.Attend(q, k, v) -> (o) {
  s = Mul(MatMul(q, Transpose(k, perm=[0, 1, 3, 2])), CastLike(0.25, q))
  o = MatMul(Softmax(s, axis=-1), v)
}
function my.Gelu(x) -> (y) { y = Mul(Mul(x, 0.5), Add(Erf(Div(x, 1.4142135)), 1.0)) }
"""


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
def test_attention_is_fused_across_the_borders_of_functions(target: str) -> None:
    result = fuse(model_to_proto(parse(ATTENTION)), target=target)
    assert result.verdict == "equal"
    assert {name: result.fused.get(name) for name in ("Attention", "Gelu")} == {"Attention": 2, "Gelu": 2}
    assert not result.model.functions
    assert result.trace.counts["inline_functions"].applied == 12


def test_a_function_that_onnxruntime_reads_otherwise_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("graphopt.passes.function_opset._READ_ANEW", frozenset())
    soft = helper.make_node("Softmax", ["a"], ["b"], axis=1)
    result = fuse(proto_of([soft], 17, 11), keep=tmp_path)
    assert [(site.rule, site.root) for site in result.rolled_back] == [("inline_functions", "y")]
    # No graph without the function shows it: the region is kept as it is.
    (place,) = tmp_path.iterdir()
    assert [(one.rule, one.case) for one in result.blamed] == [("inline_functions", str(place))]
    assert sorted(file.name for file in place.iterdir()) == ["candidate.onnx", "case.onnx", "inputs.npz"]
    assert (result.verdict, [node.op for node in result.model.graph.ops()]) == ("equal", ["F"])


def test_a_sparse_constant_reaches_an_output_through_an_identity() -> None:
    # onnxruntime runs no graph whose output is one.
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20, "f" : 1]> g (float[4] x) => (float[4] y, float[4] z) {
            y = f.Sparse(x) z = Neg(x) }
        <domain: "f", opset_import: ["" : 20]> Sparse (x) => (s) { s = Neg(x) }"""
    )
    values = helper.make_tensor("", TensorProto.FLOAT, [1], [9.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("", TensorProto.INT64, [1], [2]), [4])
    model.functions[0].node[0].CopyFrom(helper.make_node("Constant", [], ["s"], sparse_value=sparse))
    result = fuse(model, verify="full")
    assert (result.verdict, [site.rule for site in result.rolled_back]) == ("equal", [])
    assert [node.op_type for node in model_to_proto(result.model).graph.node] == ["Constant", "Identity", "Neg"]
