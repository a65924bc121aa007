"""Inferred types, shapes and contents of hand-built graphs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.ir import Graph, Model, Node, Tensor, Value, dims, dtypes, load
from graphopt.ir.dims import Size
from graphopt.ir.infer import infer, infer_node
from graphopt.ir.inference import sizes
from graphopt.ir.text import parse

B, S, T = dims.symbol("B"), dims.symbol("S"), dims.symbol("T")


@pytest.fixture
def graph() -> Graph:
    return Model.empty(20).graph


def given(graph: Graph, *shape: Size, dtype: int = dtypes.FLOAT) -> Value:
    return graph.add_input(graph.ledger.fresh("x"), dtype, shape)


def op(graph: Graph, name: str, *inputs: Value | None, outputs: int = 1, domain: str = "", **attrs: Any) -> Node:
    node = graph.add_op(name, inputs, attrs, outputs=outputs, domain=domain)
    infer_node(node)
    return node


def out(graph: Graph, name: str, *inputs: Value | None, domain: str = "", **attrs: Any) -> Value:
    return op(graph, name, *inputs, domain=domain, **attrs).output


def integers(graph: Graph, *numbers: int) -> Value:
    return graph.add_constant(list(numbers), dtype=dtypes.INT64)


def joined(graph: Graph, *parts: Value | int) -> Value:
    """Concat of one-element tensors, as exporters spell a shape."""
    values = [integers(graph, part) if isinstance(part, int) else part for part in parts]
    return out(graph, "Concat", *values, axis=0)


def size_at(graph: Graph, value: Value, position: int) -> Value:
    return out(graph, "Gather", out(graph, "Shape", value), integers(graph, position))


def is_unknown(size: Size) -> bool:
    return all(name.startswith("?") for name in dims.symbols(size)) and not isinstance(size, int)


# ---- shapes computed from shapes -----------------------------------------------------------------------------------


def test_heads_are_split_by_polynomial_division(graph: Graph) -> None:
    x = given(graph, B, S, 64)
    wanted = joined(graph, size_at(graph, x, 0), size_at(graph, x, 1), -1, 16)
    assert wanted.content == (B, S, -1, 16)
    heads = out(graph, "Transpose", out(graph, "Reshape", x, wanted), perm=[0, 2, 1, 3])
    assert heads.shape == (B, 4, S, 16)


def test_minus_one_divides_by_a_sum_that_is_a_factor(graph: Graph) -> None:
    x = given(graph, B, dims.add(S, T), 64)
    wanted = joined(graph, size_at(graph, x, 0), size_at(graph, x, 1), -1, 16)
    assert out(graph, "Reshape", x, wanted).shape == (B, dims.add(S, T), 4, 16)


@pytest.mark.parametrize(
    ("wanted", "allowzero", "expected"),
    [
        ([0, 0, -1], 0, (B, S, 64)),
        ([0, -1], 0, (B, dims.mul(S, 64))),
        ([-1, 64], 0, (dims.mul(B, S), 64)),
        ([0, 5], 1, (0, 5)),
        ([0, 0, 4, 16], 0, (B, S, 4, 16)),
    ],
)
def test_reshape(graph: Graph, wanted: list[int], allowzero: int, expected: tuple[Size, ...]) -> None:
    x = given(graph, B, S, 64)
    assert out(graph, "Reshape", x, integers(graph, *wanted), allowzero=allowzero).shape == expected


def test_reshape_that_does_not_divide_is_unknown(graph: Graph) -> None:
    shape = out(graph, "Reshape", given(graph, B, S), integers(graph, -1, 2)).shape
    assert shape is not None
    assert shape[1] == 2
    assert is_unknown(shape[0])


def test_expand_as_torch_spells_it(graph: Graph) -> None:
    """Where(Equal(shape, ConstantOfShape(1)·-1), 1, shape): a size is never -1."""
    x = given(graph, B, 1, 1, S)
    shape = joined(graph, size_at(graph, x, 0), -1, size_at(graph, x, 3), size_at(graph, x, 3))
    ones = out(graph, "ConstantOfShape", out(graph, "Shape", shape), value=Tensor.of([1], dtypes.INT64))
    minus = out(graph, "Mul", ones, integers(graph, -1))
    same = out(graph, "Equal", shape, minus)
    assert same.content == (0, 1, 0, 0)
    chosen = out(graph, "Where", same, ones, shape)
    assert chosen.content == (B, 1, S, S)
    assert out(graph, "Expand", x, chosen).shape == (B, 1, S, S)


def test_a_size_may_be_zero_or_one(graph: Graph) -> None:
    size = size_at(graph, given(graph, B), 0)
    for number in (0, 1, 7):
        assert out(graph, "Equal", size, integers(graph, number)).content is None
    assert out(graph, "GreaterOrEqual", size, integers(graph, 0)).content == (1,)
    assert out(graph, "Less", size, integers(graph, 0)).content == (0,)


def test_integer_arithmetic(graph: Graph) -> None:
    a, b = size_at(graph, given(graph, B), 0), size_at(graph, given(graph, S), 0)
    assert out(graph, "Sub", out(graph, "Add", a, b), a).content == (S,)
    assert out(graph, "Div", out(graph, "Mul", a, integers(graph, 6)), integers(graph, 3)).content == (dims.mul(B, 2),)
    assert out(graph, "Div", integers(graph, -7), integers(graph, 2)).content == (-3,)
    assert out(graph, "Div", a, integers(graph, 2)).content == (dims.floordiv(B, 2),)
    assert out(graph, "Div", out(graph, "Sub", a, b), integers(graph, 2)).content is None
    assert out(graph, "ReduceProd", joined(graph, a, b, 4), keepdims=0).content == (dims.mul(dims.mul(B, S), 4),)
    assert out(graph, "Cast", a, to=dtypes.INT32).content == (B,)
    assert out(graph, "Cast", a, to=dtypes.FLOAT).content is None
    assert out(graph, "Cast", integers(graph, 300), to=dtypes.NUMBERS["int8"]).content is None


def test_range_counts_and_lists(graph: Graph) -> None:
    zero, one = graph.add_constant(0, dtype=dtypes.INT64), graph.add_constant(1, dtype=dtypes.INT64)
    limit = out(graph, "Squeeze", size_at(graph, given(graph, S), 0))
    positions = out(graph, "Range", zero, limit, one)
    assert positions.shape == (S,)
    assert positions.dtype == dtypes.INT64
    assert out(graph, "Range", zero, graph.add_constant(3, dtype=dtypes.INT64), one).content == (0, 1, 2)
    assert out(graph, "Range", limit, zero, one).shape == (dims.symbol("max(-1*S,0)"),)


# ---- broadcasting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "count"),
    [((0.5, 8.0, 1.0), 8), ((1.0, -1.0, -0.25), 8), ((0.0, 1.0, -1.0), 0), ((0.0, 0.75, 0.5), 2)],
)
def test_range_counts_numbers_with_a_fraction(graph: Graph, bounds: tuple[float, ...], count: int) -> None:
    values = [graph.add_constant(np.array(bound, np.float32)) for bound in bounds]
    assert out(graph, "Range", *values).shape == (count,)
    (size,) = out(graph, "Range", values[0], given(graph), values[2]).shape or ()
    assert is_unknown(size)


def test_a_remainder_is_what_the_quotient_leaves(graph: Graph) -> None:
    x = given(graph, B, S)
    rest = out(graph, "Mod", size_at(graph, x, 1), integers(graph, 8))
    missing = out(graph, "Sub", integers(graph, 8), rest)
    rows = out(graph, "Pad", x, joined(graph, 0, 0, 0, missing))
    whole = dims.add(dims.floordiv(S, 8), 1)
    assert rows.shape == (B, dims.mul(8, whole))
    assert out(graph, "Div", size_at(graph, rows, 1), integers(graph, 8)).content == (whole,)


def test_pads_that_are_turned_about_as_a_matrix(graph: Graph) -> None:
    """As torch writes them: pairs from the last axis to the first, where ONNX wants all starts before all ends."""
    x = given(graph, B, S, 4)
    pairs = out(graph, "Reshape", joined(graph, 1, 2, 0, size_at(graph, x, 1), 0, 0), integers(graph, -1, 2))
    bounds = (integers(graph, number) for number in (-1, -(2**63) + 1, 0, -1))
    turned = out(graph, "Transpose", out(graph, "Slice", pairs, *bounds), perm=[1, 0])
    pads = out(graph, "Reshape", turned, integers(graph, -1))
    assert pads.content == (0, 0, 1, 0, S, 2)
    assert out(graph, "Pad", x, pads).shape == (B, dims.mul(2, S), 7)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [((B, S), (B, S), (B, S)), ((B, 1), (1, S), (B, S)), ((B, S), (4,), (B, 4)), ((B,), (), (B,)), ((0,), (S,), (0,))],
)
def test_broadcast(graph: Graph, a: tuple[Size, ...], b: tuple[Size, ...], expected: tuple[Size, ...]) -> None:
    assert out(graph, "Add", given(graph, *a), given(graph, *b)).shape == expected


def test_two_names_broadcast_to_a_symbol_that_says_so(graph: Graph) -> None:
    s, t = given(graph, S), given(graph, T)
    both = out(graph, "Add", s, t)
    assert both.shape == (dims.symbol("broadcast(S,T)"),)
    assert out(graph, "Add", t, s).shape == both.shape
    assert out(graph, "Add", both, s).shape == out(graph, "Add", t, both).shape == both.shape


@pytest.mark.parametrize(
    ("size", "whole", "expected"),
    [
        (1, S, True),
        (S, S, True),
        (S, 64, True),
        (S, 1, False),
        (64, S, False),
        (S, T, False),
        (S, dims.symbol("broadcast(S,T)"), True),
        (T, dims.symbol("broadcast(S,T)"), True),
        (B, dims.symbol("broadcast(S,T)"), False),
        (dims.symbol("min(S,64)"), S, True),
        (S, dims.symbol("min(S,64)"), True),
        (S, dims.symbol("min(S,1)"), False),
        (S, dims.symbol("min(S,T)"), False),
        (S, dims.symbol("min(S,min(T,64))"), False),
        (T, dims.symbol("min(S,64)"), False),
    ],
)
def test_what_does_not_widen(size: Size, whole: Size, expected: bool) -> None:
    assert sizes.fits(size, whole) == expected


def test_a_minimum_of_a_minimum_is_that() -> None:
    clipped = dims.symbol("min(S,64)")
    assert sizes.minimum(clipped, 64) == sizes.minimum(S, clipped) == clipped
    assert sizes.minimum(clipped, T) == dims.symbol("min(T,min(S,64))")


def test_positions_cut_from_a_table_broadcast_to_the_sequence(graph: Graph) -> None:
    x, table = given(graph, B, S, 8), given(graph, 1, 64, 8)
    cut = out(graph, "Slice", table, integers(graph, 0), size_at(graph, x, 1), integers(graph, 1), integers(graph, 1))
    assert cut.shape == (1, dims.symbol("min(S,64)"), 8)
    assert out(graph, "Add", x, cut).shape == (B, S, 8)
    assert out(graph, "Add", cut, x).shape == (B, S, 8)


# ---- slices ----------------------------------------------------------------------------------------------------------

_FAR = (1 << 63) - 1


@pytest.mark.parametrize(
    ("start", "end", "step", "of_seven", "of_s"),
    [
        (0, _FAR, 1, 7, S),
        (1, _FAR, 1, 6, dims.symbol("max(-1 + S,0)")),
        (0, -1, 1, 6, dims.symbol("max(-1 + S,0)")),
        (-1, _FAR, 1, 1, dims.symbol("min(S,1)")),
        (-_FAR, _FAR, 1, 7, S),
        (-1, -_FAR, -1, 7, S),
        (0, _FAR, 2, 4, dims.symbol("((1 + S)//(2))")),
        (5, 3, 1, 0, dims.symbol("?")),
        (-9, 2, 1, 2, dims.symbol("?")),
    ],
)
def test_slice(graph: Graph, start: int, end: int, step: int, of_seven: int, of_s: dims.Dim) -> None:
    bounds = [integers(graph, number) for number in (start, end, 0, step)]
    assert out(graph, "Slice", given(graph, 7), *bounds).shape == (of_seven,)
    shape = out(graph, "Slice", given(graph, S), *bounds).shape
    assert shape is not None
    assert is_unknown(shape[0]) if "?" in str(of_s) else shape == (of_s,)


def test_a_slice_backward_to_the_end_is_as_long_as_the_runtime_makes_it(graph: Graph) -> None:
    bounds = [integers(graph, number) for number in (-1, _FAR, 0, -1)]
    shape = out(graph, "Slice", given(graph, 1), *bounds).shape
    assert shape is not None
    assert is_unknown(shape[0])


def test_slice_of_a_shape_is_followed(graph: Graph) -> None:
    shape = out(graph, "Shape", given(graph, B, 4, S, 16))
    assert out(graph, "Slice", shape, integers(graph, -1), integers(graph, _FAR)).content == (16,)
    assert out(graph, "Slice", shape, integers(graph, -_FAR - 1), integers(graph, -2)).content == (B, 4)
    backwards = [integers(graph, number) for number in (3, -9, 0, -2)]
    assert out(graph, "Slice", shape, *backwards).content == (16, 4)


def test_slice_with_runtime_bounds_touches_only_its_axes(graph: Graph) -> None:
    bound = given(graph, 1, dtype=dtypes.INT64)
    shape = out(graph, "Slice", given(graph, B, S, 8), bound, bound, integers(graph, 1)).shape
    assert shape is not None
    assert (shape[0], shape[2]) == (B, 8)
    assert is_unknown(shape[1])


# ---- operators, one line each ----------------------------------------------------------------------------------------

F, I64, BOOL = dtypes.FLOAT, dtypes.INT64, dtypes.BOOL
_CASES: list[tuple[str, list[tuple[Size, ...]], dict[str, Any], int, tuple[Size, ...]]] = [
    ("MatMul", [(B, 4, S, 16), (B, 4, 16, T)], {}, F, (B, 4, S, T)),
    ("MatMul", [(B, S, 8), (8, 3)], {}, F, (B, S, 3)),
    ("MatMul", [(8,), (B, 8, 3)], {}, F, (B, 3)),
    ("MatMul", [(B, S, 8), (8,)], {}, F, (B, S)),
    ("MatMul", [(8,), (8,)], {}, F, ()),
    ("Gemm", [(8, B), (3, 8)], {"transA": 1, "transB": 1}, F, (B, 3)),
    ("Einsum", [(B, S, 8), (B, T, 8)], {"equation": "bsd, btd -> bst"}, F, (B, S, T)),
    ("Einsum", [(B, S, 8), (B, T, 8)], {"equation": "bsd,btd"}, F, (S, T)),
    ("Transpose", [(B, S, 8)], {}, F, (8, S, B)),
    ("Flatten", [(B, S, 8)], {"axis": 2}, F, (dims.mul(B, S), 8)),
    ("Concat", [(B, S), (B, T)], {"axis": 1}, F, (B, dims.add(S, T))),
    ("Concat", [(B, S), (4, T)], {"axis": -1}, F, (4, dims.add(S, T))),
    ("Softmax", [(B, S)], {}, F, (B, S)),
    ("ReduceMean", [(B, S, 8)], {"keepdims": 0}, F, ()),
    ("ReduceMean", [(B, S, 8)], {}, F, (1, 1, 1)),
    ("ArgMax", [(B, S, 8)], {"axis": 1, "keepdims": 0}, I64, (B, 8)),
    ("Greater", [(B, 1), (S,)], {}, BOOL, (B, S)),
    ("IsNaN", [(B, S)], {}, BOOL, (B, S)),
    ("Size", [(B, S)], {}, I64, ()),
    ("Conv", [(B, 3, 32, 32), (64, 3, 16, 16)], {"strides": [16, 16]}, F, (B, 64, 2, 2)),
    ("GlobalAveragePool", [(B, 3, 32, 32)], {}, F, (B, 3, 1, 1)),
    ("Cast", [(B, S)], {"to": dtypes.FLOAT16}, dtypes.FLOAT16, (B, S)),
    ("Cos", [(B, S)], {}, F, (B, S)),
]


@pytest.mark.parametrize(("name", "shapes", "attrs", "dtype", "expected"), _CASES, ids=lambda case: str(case)[:40])
def test_operator(
    graph: Graph,
    name: str,
    shapes: Sequence[tuple[Size, ...]],
    attrs: dict[str, Any],
    dtype: int,
    expected: tuple[Size, ...],
) -> None:
    value = out(graph, name, *(given(graph, *shape) for shape in shapes), **attrs)
    assert (value.dtype, value.shape) == (dtype, expected)


def test_gathers(graph: Graph) -> None:
    table, ids = given(graph, 100, 8), given(graph, B, S, dtype=I64)
    assert out(graph, "Gather", table, ids).shape == (B, S, 8)
    assert out(graph, "GatherND", table, given(graph, B, S, 1, dtype=I64)).shape == (B, S, 8)
    assert out(graph, "GatherElements", table, given(graph, 7, 3, dtype=I64)).shape == (7, 3)


def test_squeeze_and_unsqueeze(graph: Graph) -> None:
    x = given(graph, B, 1, S, 1)
    assert out(graph, "Squeeze", x, integers(graph, -1, 1)).shape == (B, S)
    assert out(graph, "Squeeze", x).shape is None, "B or S may be 1"
    assert out(graph, "Unsqueeze", given(graph, B, S), integers(graph, 0, -1)).shape == (1, B, S, 1)


def test_split_and_top_k(graph: Graph) -> None:
    parts = op(graph, "Split", given(graph, B, S, 24), outputs=3, axis=-1, num_outputs=3).outputs
    assert [part.shape for part in parts] == [(B, S, 8)] * 3
    parts = op(graph, "Split", given(graph, B, 7), outputs=2, axis=1, num_outputs=2).outputs
    assert [part.shape for part in parts] == [(B, 4), (B, 3)]
    values, indices = op(graph, "TopK", given(graph, B, S), integers(graph, 5), outputs=2).outputs
    assert (values.shape, indices.shape, indices.dtype) == ((B, 5), (B, 5), I64)


def test_normalization_writes_statistics(graph: Graph) -> None:
    x = given(graph, B, S, 8, dtype=dtypes.FLOAT16)
    y, mean, _ = op(graph, "LayerNormalization", x, given(graph, 8), outputs=3).outputs
    assert (y.dtype, y.shape, mean.dtype, mean.shape) == (dtypes.FLOAT16, (B, S, 8), F, (B, S, 1))


@pytest.mark.parametrize("name", ["RMSNormalization", "SimplifiedLayerNormalization"])
def test_rms_normalization_has_the_type_of_its_gain(graph: Graph, name: str) -> None:
    y = out(graph, name, given(graph, B, S, 8, dtype=dtypes.FLOAT16), given(graph, 8))
    assert (y.dtype, y.shape) == (F, (B, S, 8))


def test_attention_in_all_its_forms(graph: Graph) -> None:
    q, k, v = given(graph, B, 8, S, 16), given(graph, B, 2, T, 16), given(graph, B, 2, T, 32)
    past_k, past_v = given(graph, B, 2, 5, 16), given(graph, B, 2, 5, 32)
    y, keys, values = op(graph, "Attention", q, k, v, None, past_k, past_v, outputs=3, domain="ir").outputs
    assert (y.shape, keys.shape, values.shape) == (
        (B, 8, S, 32),
        (B, 2, dims.add(T, 5), 16),
        (B, 2, dims.add(T, 5), 32),
    )
    flat = [given(graph, B, S, 64), given(graph, B, T, 64), given(graph, B, T, 32)]
    assert out(graph, "MultiHeadAttention", *flat, domain="com.microsoft", num_heads=4).shape == (B, S, 32)
    packed = op(
        graph, "Attention", flat[0], given(graph, 64, 192), outputs=2, domain="com.microsoft", num_heads=4
    ).outputs
    assert [value.shape for value in packed] == [(B, S, 64), (2, B, 4, S, 16)]
    graph.opsets = {"": 23}
    standard = op(graph, "Attention", q, k, v, None, past_k, past_v, outputs=3)
    assert [value.shape for value in standard.outputs] == [y.shape, keys.shape, values.shape]
    assert out(graph, "Attention", *flat, q_num_heads=4, kv_num_heads=4).shape == (B, S, 32)


def test_contrib_operators(graph: Graph) -> None:
    x = given(graph, B, S, 8)
    outs = op(graph, "SkipLayerNormalization", x, x, given(graph, 8), outputs=4, domain="com.microsoft").outputs
    assert outs[0].shape == outs[3].shape == (B, S, 8)
    fused = out(graph, "FusedMatMul", x, given(graph, T, 8), domain="com.microsoft", transB=1)
    assert fused.shape == (B, S, T)


# ---- what is not known -----------------------------------------------------------------------------------------------


def test_unknown_sizes_differ_and_keep_their_names(graph: Graph) -> None:
    x = given(graph, S, T)
    first, second = op(graph, "NonZero", x), op(graph, "NonZero", x)
    assert first.output.shape is not None
    assert first.output.shape != second.output.shape
    before = first.output.shape
    infer_node(first)
    assert first.output.shape == before


def test_unknown_operators_keep_what_is_declared(graph: Graph) -> None:
    node = graph.add_op("Mystery", [given(graph, B)], domain="com.example")
    graph.set_type(node.output, F, (B, 3))
    infer_node(node)
    assert (node.output.dtype, node.output.shape) == (F, (B, 3))


@pytest.mark.parametrize(
    ("name", "attrs"), [("MatMul", {}), ("Transpose", {"perm": [5, 6]}), ("Concat", {"axis": "x"}), ("Gather", {})]
)
def test_malformed_nodes_say_nothing(graph: Graph, name: str, attrs: dict[str, Any]) -> None:
    assert out(graph, name, given(graph, B, S), **attrs).shape is None


def test_an_empty_slot_that_must_not_be_says_nothing(graph: Graph) -> None:
    assert out(graph, "GridSample", given(graph, B, 3, S, T), None).shape is None


def test_minima_do_not_grow_without_end(graph: Graph) -> None:
    x: Value = given(graph, B, S)
    for position in range(2, 60):
        other = given(graph, B, dims.symbol(f"n{position}"))
        size = out(graph, "Slice", out(graph, "Shape", x), integers(graph, 1), integers(graph, 2))
        x = out(graph, "Slice", other, integers(graph, 0), size, integers(graph, 1))
    assert len(str(x.shape)) < 200


# ---- whole models ----------------------------------------------------------------------------------------------------


def _info(name: str, dtype: int, shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], infos: Sequence[Any] = ()) -> Model:
    graph = helper.make_graph(nodes, "g", inputs, outputs, value_info=infos)
    model = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    infer(model)
    return model


def test_inference_wins_over_declarations_and_they_fill_its_gaps() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("NonZero", ["y"], ["z"])]
    infos = [_info("y", F, [7, "other"]), _info("z", I64, [9, "found"])]
    model = _model(nodes, [_info("x", F, ["B", "S"])], [_info("z", I64, None)], infos)
    assert model.graph.names["y"].shape == (B, S)
    assert model.graph.names["z"].shape == (2, dims.symbol("found"))


def test_branches_of_if_agree_on_what_both_know() -> None:
    one = helper.make_graph([helper.make_node("Relu", ["x"], ["p"])], "t", [], [_info("p", F, None)])
    two = helper.make_graph([helper.make_node("Concat", ["x", "x"], ["q"], axis=1)], "e", [], [_info("q", F, None)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=one, else_branch=two)
    inputs = [_info("c", BOOL, []), _info("x", F, ["B", "S", 8])]
    shape = _model([node], inputs, [_info("y", F, None)]).graph.names["y"].shape
    assert shape is not None
    assert (shape[0], shape[2]) == (B, 8)
    assert is_unknown(shape[1])


def test_what_a_loop_carries_may_change_its_shape() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["c2"]),
            helper.make_node("Concat", ["a", "x"], ["a2"], axis=0),
            helper.make_node("Relu", ["a"], ["s"]),
        ],
        "body",
        [_info("i", I64, []), _info("c", BOOL, []), helper.make_value_info("a", onnx.TypeProto())],
        [_info("c2", BOOL, []), _info("a2", F, None), _info("s", F, None)],
    )
    node = helper.make_node("Loop", ["n", "k", "x"], ["y", "all"], body=body)
    inputs = [_info("n", I64, []), _info("k", BOOL, []), _info("x", F, ["B", 4])]
    model = _model([node], inputs, [_info("y", F, None), _info("all", F, None)])
    assert model.graph.names["y"].shape is None
    assert model.graph.names["y"].dtype == F
    inner = next(iter(model.graph.ops())).graphs
    assert inner is not None
    assert inner["body"][0].names["s"].shape is None
    assert inner["body"][0].names["s"].dtype == TensorProto.FLOAT


def test_inferring_twice_changes_nothing(graph: Graph) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["y"]), helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0])]
    model = _model(nodes, [_info("x", F, ["B", "S"])], [_info("z", I64, None)])
    before = {name: value.shape for name, value in model.graph.names.items()}
    infer(model)
    assert {name: value.shape for name, value in model.graph.names.items()} == before


def test_what_did_not_change_is_not_inferred_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = parse("(x: float32[B, S], v: float32[B, S]) -> (z, w) { y = Relu(x)  z = Exp(y)  w = Neg(v) }")
    infer(model)
    seen: list[str] = []
    module = sys.modules[infer.__module__]
    monkeypatch.setattr(module, "infer_node", lambda node: (seen.append(node.op), infer_node(node)))
    infer(model)
    assert seen == []
    names = model.graph.names
    model.graph.set_input(names["y"].node, 0, given(model.graph, B, 7))
    infer(model)
    assert seen == ["Relu", "Exp"]
    assert names["z"].shape == (B, 7)


def test_a_branch_sees_what_changed_around_it() -> None:
    model = parse("""(c: bool[], x: float32[B, S]) -> (y) {
      h = Relu(x)
      y = If(c, then_branch=() -> (p) { p = Neg(h) }, else_branch=() -> (q) { q = Abs(h) }) }""")
    infer(model)
    graph = model.graph
    graph.set_input(graph.names["h"].node, 0, given(graph, B, 7))
    infer(model)
    assert graph.names["y"].shape == (B, 7)
