"""The text form: what is read, what is written, and what is said of text that is wrong."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphopt.errors import ModelError
from graphopt.ir import Model, Tensor, dtypes, load, model_from_proto, model_to_proto
from graphopt.ir import text as text_form
from graphopt.ir.attributes import Reference, same_tensor
from graphopt.ir.dims import parse as dim
from graphopt.ir.text import parse, to_text
from graphopt.ir.validate import validate


def body(statements: str, signature: str = "(x: float32[N]) -> (y)") -> Model:
    return parse(f"{signature} {{ {statements} }}")


def constant(tensor: str) -> Tensor:
    """The tensor that `y = tensor` defines."""
    data = body(f"y = {tensor}").graph.names["y"].tensor
    assert data is not None
    return data


def attribute(written: str) -> object:
    return body(f"y = Foo(x, a={written})").graph.names["y"].node.attrs["a"]


WHOLE = """\
opset 20, com.microsoft 1
(x: float32[B, S, 64], c: bool[], limit = 6.0) -> (y, h: float32[B, S, 64]) {
  w = float32[64, 64] random(1)
  b = float32[64] random(2)
  h = MatMul(x, w)
  s, t = Split(h, axis=-1, num_outputs=2)
  _, u = TopK(s, [4])
  g = com.microsoft.BiasGelu(h, b)
  r = Clip(h, _, limit)
  m = ir.Attention(g, g, g, _, scale=0.125, softmax_dtype=float32)
  y = If(c, else_branch=() -> (q) {
    q = Loop(3, _, h, body=(i: int64[], go: bool[], a) -> (go: bool[], v) {
      v = Add(a, r)
    })
  }, then_branch=() -> (p) {
    p = Neg(h)
  })
}
"""


def test_text_is_written_as_it_was_read() -> None:
    assert to_text(parse(WHOLE)) == WHOLE


def test_what_is_read_keeps_the_invariants_of_a_graph() -> None:
    validate(parse(WHOLE))


def test_the_grammars_own_example_is_read() -> None:
    example = (text_form.__doc__ or "").split("\n\n")[1]
    model = parse(example)
    assert [node.op for node in model.graph.ops()] == ["MatMul", "Div", "Erf", "Split", "BiasGelu", "Clip", "If"]
    assert to_text(parse(to_text(model))) == to_text(model)


def test_what_is_read_is_a_model_that_onnx_knows() -> None:
    proto = model_to_proto(
        parse("""(x: float32[B, 4], ids: int64[B]) -> (y: float32[B, 4]) {
          y = Add(x, Gather(float32[8, 4] random(1), ids))
        }""")
    )
    onnx.checker.check_model(proto, full_check=True)
    assert to_text(model_from_proto(proto)) == to_text(model_from_proto(model_to_proto(model_from_proto(proto))))


def test_types_and_dimensions() -> None:
    model = body("y = Foo(x)", "(x: float16[B, 2*S + 1, 3, ?, ?], a: int4[], b: bool, c: ?, d) -> (y: ?[2])")
    x, a, b, c, d = (node.output for node in model.graph.inputs)
    assert x.dtype == dtypes.FLOAT16
    assert x.shape is not None
    assert x.shape[:3] == (dim("B"), dim("1 + S*2"), 3)
    assert x.shape[3] != x.shape[4]
    assert (dtypes.NAMES[a.dtype], a.shape) == ("int4", ())
    assert (dtypes.NAMES[b.dtype], b.shape) == ("bool", None)
    assert [(v.dtype, v.shape) for v in (c, d)] == [(0, None)] * 2


@pytest.mark.parametrize(
    ("text", "dtype", "shape", "elements"),
    [
        ("3", "int64", (), [3]),
        ("-0.5", "float32", (), [-0.5]),
        ("1e-5", "float32", (), [np.float32(1e-5)]),
        ("inf", "float32", (), [np.inf]),
        ("true", "bool", (), [True]),
        ('"a\\n\\"b"', "string", (), ['a\n"b']),
        ("[]", "int64", (0,), []),
        ("[1, -2]", "int64", (2,), [1, -2]),
        ("[1, 2.5]", "float32", (2,), [1, 2.5]),
        ("[true, false]", "bool", (2,), [True, False]),
        ('["a", "b"]', "string", (2,), ["a", "b"]),
        ("float16 0.5", "float16", (), [0.5]),
        ("float32[] 1", "float32", (), [1]),
        ("float32[1, 3] 0", "float32", (1, 3), [0, 0, 0]),
        ("int32[2, 2] {1, 2, 3, 4}", "int32", (2, 2), [1, 2, 3, 4]),
        ("uint4[2] {15, 0}", "uint4", (2,), [15, 0]),
        ("float32[0, 4] {}", "float32", (0, 4), []),
        ("bfloat16 -inf", "bfloat16", (), [-np.inf]),
    ],
)
def test_constants(text: str, dtype: str, shape: tuple[int, ...], elements: list[object]) -> None:
    tensor = constant(text)
    assert dtypes.NAMES[tensor.dtype] == dtype
    assert tensor.shape == shape
    assert tensor.numpy().reshape(-1).tolist() == elements
    assert same_tensor(constant(to_text(body(f"y = {text}")).split("y = ")[1].rsplit("\n}")[0]), tensor)


@settings(deadline=None)
@given(
    st.sampled_from(["float16", "float32", "float64", "bfloat16", "float8e4m3fn"]),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=8),
)
def test_floats_are_read_back_to_the_bit(dtype: str, numbers: list[float]) -> None:
    with np.errstate(over="ignore"):
        tensor = Tensor.of(numbers, dtypes.NUMBERS[dtype])
    assume(not np.isnan(tensor.numpy().astype(float)).any())  # of a NaN, sign and payload are not written
    model = Model.empty()
    node = model.graph.add_op("Foo", [model.graph.add_constant(tensor)], {"t": tensor})
    model.graph.add_slot(model.graph.output, node.output)
    (read,) = parse(to_text(model)).graph.ops()
    assert read.inputs[0] is not None
    for back in (read.inputs[0].tensor, read.attrs["t"]):
        assert back is not None
        assert same_tensor(back, tensor)


def test_random_weights_follow_from_type_shape_and_seed() -> None:
    weights = constant("float32[512, 64] random(7)")
    assert same_tensor(weights, constant("float32[512, 64] random(7)"))
    assert not same_tensor(weights, constant("float32[512, 64] random(8)"))
    assert weights.numpy().std() == pytest.approx(512**-0.5, rel=0.02)
    assert constant("float32[4096] random(1)").numpy().std() == pytest.approx(1, rel=0.05)
    assert constant("float32[64, 16, 3, 3] random(1)").numpy().std() == pytest.approx(144**-0.5, rel=0.05)
    assert set(constant("bool[64] random(1)").numpy().tolist()) == {True, False}
    assert np.ptp(constant("int8[4096] random(1)").numpy().astype(int)) > 250


def test_random_is_written_only_of_numbers_that_are() -> None:
    proto = model_to_proto(body("y = MatMul(x, float32[4, 4] random(1))"))
    (weights,) = proto.graph.initializer
    weights.raw_data = np.ones((4, 4), np.float32).tobytes()
    assert "float32[4, 4] 1.0" in to_text(model_from_proto(proto))
    weights.raw_data = np.arange(16, dtype=np.float32).tobytes()
    assert "float32[4, 4] data(" in to_text(model_from_proto(proto))


def test_numbers_that_were_not_written_cannot_be_read() -> None:
    first = Tensor.of(np.arange(12.0).reshape(3, 4), dtypes.FLOAT)
    model = Model.empty()
    model.graph.add_slot(model.graph.output, model.graph.add_op("Foo", [model.graph.add_constant(first)]).output)
    text = to_text(model)
    assert "float32[3, 4] data(" in text
    again = parse(text)
    assert to_text(again) == text
    tensor = again.graph.names["constant"].tensor
    assert tensor is not None
    with pytest.raises(ModelError, match=r"external data 'data\(\w{8}\)' is missing"):
        tensor.numpy()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1),
        ("1.0", 1.0),
        ('"tanh"', "tanh"),
        ("[1, 2]", [1, 2]),
        ("[1, 2.0]", [1.0, 2.0]),
        ('["a"]', ["a"]),
        ("[]", []),
        ("float16", 10),
        ("@alpha", Reference("alpha", 0)),
    ],
)
def test_attributes(written: str, value: object) -> None:
    found = attribute(written)
    assert found == value
    assert type(found) is type(value)


def test_an_attribute_with_a_type_is_a_tensor() -> None:
    found = attribute("float32[1] 0.5")
    assert isinstance(found, Tensor)
    assert same_tensor(found, Tensor.of([0.5], dtypes.FLOAT))


def test_element_types_are_written_by_name() -> None:
    assert "Cast(x, to=float16)" in to_text(body("y = Cast(x, to=10)"))
    assert body("y = Cast(x, to=float16)").graph.names["y"].node.attrs == {"to": 10}


def test_names_that_must_be_quoted() -> None:
    text = to_text(body("`a::b` = Neg(x) `12` = Abs(`a::b`) `/m/Neg_0` = Abs(`12`) `_` = Abs(/m/Neg_0) y = Neg(`_`)"))
    defined = [line.split(" =")[0].strip() for line in text.splitlines()[2:-1]]
    assert defined == ["`a::b`", "`12`", "/m/Neg_0", "`_`", "y"]


def test_any_name_is_read_back() -> None:
    names = ['a"b', "a`b", "a\\b", "a b", "ü", "float32", "true", "nan", "-1", "a:b", "x\ny", "v1"]
    model = Model.empty()
    value = model.graph.add_input("x", dtypes.FLOAT, ())
    for name in names:
        value = model.graph.add_op("Neg", [value], outputs=[name]).output
    model.graph.add_slot(model.graph.output, value)
    assert [node.output.name for node in parse(to_text(model)).graph.ops()] == names


def test_the_opset_is_the_callers_where_the_text_has_none() -> None:
    assert parse("() -> () {}", opset=13).opsets == {"": 13}
    assert parse("opset 11, ai.onnx.ml 3 () -> () {}", opset=13).opsets == {"": 11, "ai.onnx.ml": 3}
    assert body("y = com.microsoft.Gelu(ir.Attention(x, x, x))").opsets == {"": 20, "com.microsoft": 1}


def test_an_operator_that_only_a_newer_opset_has_is_written_in_it() -> None:
    model = parse("opset 17 (x: float32[N]) -> (y) { y = Gelu(Neg(x)) }")
    assert {node.op: node.version for node in model.graph.ops()} == {"Neg": 17, "Gelu": 20}


def test_an_overridable_initializer_is_an_input_with_a_default() -> None:
    model = parse("(x = float32[2] {1, 2}) -> (y) { y = Neg(x) }")
    x = model.graph.names["x"]
    assert x.tensor is None
    assert x.node.data is not None
    assert x.node.data.numpy().tolist() == [1, 2]
    assert "(x = [1.0, 2.0]) -> (y) {\n  y = Neg(x)" in to_text(model)


def test_a_branch_captures_through_every_scope() -> None:
    inner = "a=() -> (p) { p = If(c, a=() -> (q) { q = Neg(x) }) }"
    model = parse(f"(x: float32[N], c: bool[]) -> (y) {{ y = If(c, {inner}) }}")
    outer = model.graph.names["y"].node
    assert outer.graphs is not None
    (middle,) = outer.graphs["a"]
    assert [value.name for value in outer.inputs if value is not None] == ["c", "c", "x"]
    assert outer.arity == 1
    assert sorted(node.output.name for node in middle.captures.values()) == ["c", "x"]
    assert to_text(middle).startswith("() -> (p) {\n  p = If(c, a=() -> (q) {\n    q = Neg(x)\n")


def test_functions() -> None:
    text = """\
opset 20, my 1
(x: float32[N]) -> (y) {
  y = my.Scaled(x, alpha=2.0)
}
function my.Scaled(a, alpha=@, beta=0.5) -> (b) {
  c = Selu(a, alpha=@alpha, gamma=@beta)
  b = Neg(c)
}
"""
    model = parse(text)
    assert to_text(model) == text
    (proto,) = model_to_proto(model).functions
    assert (list(proto.input), list(proto.output), list(proto.attribute)) == (["a"], ["b"], ["alpha"])
    assert [(a.ref_attr_name, a.type) for a in proto.node[0].attribute] == [("alpha", 1), ("beta", 1)]


def test_functions_of_one_name_are_told_apart_by_their_overload() -> None:
    text = """opset 20, f 1
(x: float32[3], c: bool[]) -> (y: float32[3]) {
  t = f.A:one(x)
  y = If(c, else_branch=() -> (q) {
    q = f.A(t)
  }, then_branch=() -> (p) {
    p = f.A:`2`(t)
  })
}
function f.A(x) -> (y) {
  y = Neg(x)
}
function f.A:`2`(x) -> (y) {
  y = Exp(x)
}
function f.A:one(x) -> (y) {
  y = Abs(x)
}
"""
    model = parse(text)
    assert to_text(model) == text
    assert sorted(model.functions) == [("f", "A", ""), ("f", "A", "2"), ("f", "A", "one")]
    assert [function.overload for function in model_to_proto(model).functions] == ["", "2", "one"]


def test_graphs_are_compared_in_an_order_of_their_own() -> None:
    text = to_text(body("dead = Erf(x) h = Neg(x) y = Abs(h) deader = Sqrt(dead)"), names=False)
    assert text.splitlines()[2:] == ["  v1 = Neg(x)", "  y = Abs(v1)", "  v2 = Erf(x)", "  v3 = Sqrt(v2)", "}"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a = Neg(x) b = Abs(x) y = Add(a, b)", "b = Abs(x) a = Neg(x) y = Add(a, b)"),
        ("y = Mul(x, 0.5)", "half = 0.5 y = Mul(x, half)"),
        ("y = Mul(x, 0.5)", "y = Mul(x, Constant(value=float32 0.5))"),
        ("y = Mul(x, 0.5)", "y = Mul(x, Constant(value_float=0.5))"),
        ("y = MatMul(x, float32[4, 4] random(1))", "w = float32[4, 4] random(1) y = MatMul(x, w)"),
        ("y = Softmax(x)", "y = Softmax(x, axis=-1)"),
        ("y = Clip(x)", "y = Clip(x, _, _)"),
        ("y: float32[N] = Neg(x)", "y = Neg(x)"),
    ],
)
def test_equal_graphs_have_one_text(one: str, other: str) -> None:
    assert to_text(body(one), names=False) == to_text(body(other), names=False)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("y = Sub(x, 0.5)", "y = Sub(0.5, x)"),
        ("y = Mul(x, 0.5)", "y = Mul(x, [0.5])"),
        ("y = Mul(x, 0.5)", "y = Mul(x, float16 0.5)"),
        ("y = Mul(x, 0.0)", "y = Mul(x, -0.0)"),
        ("y = MatMul(x, float32[4, 4] random(1))", "y = MatMul(x, float32[4, 4] random(2))"),
        ("y = Softmax(x, axis=0)", "y = Softmax(x)"),
        ("y = Clip(x, _, 1.0)", "y = Clip(x, 1.0)"),
        ("y = Neg(x) z = Abs(x)", "y = Neg(x)"),
        ("y, z = Split(x)", "y = Split(x)"),
        ("y = Neg(Abs(x))", "y = Abs(Neg(x))"),
        ("y = Gelu(x)", "y = com.microsoft.Gelu(x)"),
    ],
)
def test_different_graphs_have_different_texts(one: str, other: str) -> None:
    assert to_text(body(one), names=False) != to_text(body(other), names=False)


def test_the_interface_keeps_its_names() -> None:
    text = to_text(parse("(v1: float32[N]) -> (y) { h = Neg(v1) y = Abs(h) }"), names=False)
    assert text.splitlines()[1:4] == ["(v1: float32[N]) -> (y) {", "  v2 = Neg(v1)", "  y = Abs(v2)"]


def test_text_without_names_is_read_back() -> None:
    text = to_text(parse(WHOLE), names=False)
    assert to_text(parse(text), names=False) == text


def test_types_of_inner_values_are_written_when_asked_for() -> None:
    text = to_text(body("h: float32[N] = Neg(x) y = Abs(h)"), types=True)
    assert "h: float32[N] = Neg(x)\n  y = Abs(h)" in text
    assert to_text(parse(text), types=True) == text


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("", "1:1: ", "expected '(', found the end", ""),
        ("opset x", "1:7: opset x", "expected an integer, found 'x'", ""),
        ("opset 1.5", "1:7: opset 1.5", "expected an integer, found '1.5'", ""),
        ("opset -1", "1:7: opset -1", "expected an integer, found '-1'", ""),
        ("(x) -> (y) {\n  y = Mul(x, w)\n}", "2:14: y = Mul(x, w)", "nothing defines 'w' before this", "known: x"),
        ("(x) -> (y) {\n  x = Neg(x)\n}", "2:3: x = Neg(x)", "'x' is defined twice", ""),
        ("(x) -> (y) { y, y = Split(x) }", "1:14: (x) -> (y) { y, y = Split(x) }", "'y' is defined twice", ""),
        ("(x) -> (y) { y = If(x, a=() -> (x) { x = Neg(x) }) }", "1:38: ", "'x' is defined twice", ""),
        ("(x) -> (h) {}", "1:9: ", "nothing defines 'h' before this", "known: x"),
        ("(x: float3[2]) -> () {}", "1:5: ", "no element type is called 'float3'", "did you mean float32, float64, "),
        ("(true) -> () {}", "1:2: ", "'true' is a word of the language", "as a name, write `true`"),
        ("(x) -> (y) { y = Neg(x, }", "1:25: ", "expected an operand, found '}'", ""),
        ("(x) -> (y) { y = Neg(x y) }", "1:24: ", "expected ',' or ')', found 'y'", ""),
        ("(x) -> (y) { y = Neg(x, a=1, a=2) }", "1:30: ", "'a' is given twice", ""),
        ("(x) -> (y) { y = Neg(axis=1, x) }", "1:31: ", "expected '=', found ')'", ""),
        ("(x) -> (y) { y, z = 0.5 }", "1:21: ", "expected an operation, found '0.5'", ""),
        ("(x) -> (y) { y = $ }", "1:18: ", "expected a constant, found '$'", ""),
        ('(x) -> (y) { y = "a', "1:18: ", "expected a constant, found '\"'", ""),
        ("(x) -> (y) { y = int8 300 }", "1:18: ", "int8 does not hold these elements", ""),
        ("(x) -> (y) { y = int64 0.5 }", "1:18: ", "int64 does not hold these elements", ""),
        ("(x) -> (y) { y = int4 9 }", "1:18: ", "int4 does not hold these elements", ""),
        ('(x) -> (y) { y = float32 "a" }', "1:18: ", "float32 does not hold these elements", ""),
        ('(x) -> (y) { y = [1, "a"] }', "1:19: ", "the elements of a list are of one kind", ""),
        ("(x) -> (y) { y = float32[3] {1} }", "1:18: ", "3 elements expected, 1 given", ""),
        ("(x) -> (y) { y = float32[N] 0 }", "1:18: ", "the dimensions of a constant are numbers", ""),
        (
            "(x) -> (y) { y = int64[2] random(1) }",
            "1:18: ",
            "random() makes floats, bool, int8 and uint8, not int64",
            "",
        ),
        ("(x) -> (y) { y = float32 random(a) }", "1:18: ", "the seed of random() is a number", ""),
        ("(x: float32[, 2]) -> () {}", "1:13: ", "expected a dimension, found ','", ""),
        (r"(x) -> (`a\q`) {}", "1:9: ", "a wrong escape", ""),
        ("() -> () {} 5", "1:13: ", "expected the end, found '5'", ""),
    ],
)
def test_errors(text: str, place: str, message: str, hint: str) -> None:
    with pytest.raises(ModelError) as caught:
        parse(text, where="case.txt")
    assert caught.value.code == "GO046"
    assert caught.value.message == message
    assert caught.value.where.startswith(f"case.txt:{place}")
    assert caught.value.hint.startswith(hint)
    assert bool(caught.value.hint) == bool(hint)


def test_what_has_no_text_form_is_shown_by_its_kind() -> None:
    """Sparse tensors: as an attribute, and as an initializer, of which the type and the shape are shown."""
    values = onnx.numpy_helper.from_array(np.array([5.0], np.float32), "s")
    indices = onnx.numpy_helper.from_array(np.array([2], np.int64), "i")
    sparse = onnx.helper.make_sparse_tensor(values, indices, [4])
    nodes = [
        onnx.helper.make_node("Constant", [], ["c"], sparse_value=sparse),
        onnx.helper.make_node("Add", ["c", "s"], ["y"]),
    ]
    output = onnx.helper.make_tensor_value_info("y", 1, [4])
    graph = onnx.helper.make_graph(nodes, "g", [], [output], sparse_initializer=[sparse])
    text = to_text(load(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])))
    assert "c = Constant(sparse_value=<SparseTensorProto>)" in text
    assert "s = float32[4] data()" in text
    assert "y = Add(c, s)" in text


def test_errors_count_lines_from_where_the_text_begins() -> None:
    with pytest.raises(ModelError) as caught:
        parse("(x) -> (y) {\n  y = 5 5\n}", where="f", line=40)
    assert caught.value.where == "f:41:9: y = 5 5"


def test_models_of_others_are_read_back(corpus: Path) -> None:
    models = [model for path in sorted(corpus.rglob("*.onnx")) if (model := small_model(path))]
    assert len(models) > 50
    for model in models:
        again = parse(to_text(model))
        assert to_text(again) == to_text(model), model.path
        assert to_text(again, names=False) == to_text(model, names=False), model.path


def small_model(path: Path) -> Model | None:
    """The model in a file; None for one that is large or bad."""
    with suppress(ModelError):
        return load(path) if path.stat().st_size < 50_000 else None
    return None
