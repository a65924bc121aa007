"""What a matcher asks about values: what is a copy, a constant, a number, the same, of which shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphopt.ir import Model, Tensor, Value, dims, dtypes
from graphopt.ir.attributes import Reference
from graphopt.ir.dims import Size
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.rewrite.constraints import Sizes
from graphopt.rewrite.facts import (
    UNKNOWN,
    attribute,
    close,
    constant_of,
    inverse_of,
    is_default,
    keeps_rank,
    number_of,
    numbers_of,
    same_attribute,
    same_value,
    see_through,
    source_of,
)
from graphopt.rewrite.leaves import Inverse, Leaf, Scalar, parts_of, raises_rank
from graphopt.rewrite.pattern import Constraint

S, T = dims.symbol("S"), dims.symbol("T")


def value(text: str, opset: int = 20) -> Value:
    """The value `y` of a scope with the inputs x and z (float32), h (float16), i (int64), b (bool)."""
    inputs = "x: float32[S, 4], z: float32[S, 4], h: float16[S, 4], i: int64[4], b: bool, u: uint8[4]"
    model = parse(f"({inputs}) -> (y) {{ {text} }}", opset=opset)
    infer(model)
    return model.graph.names["y"]


def named(of: Value, name: str) -> Value:
    return of.node.graph.names[name]


# ---- copies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "opset"),
    [
        ("y = Identity(x)", 20),
        ("y = Cast(x, to=float32)", 20),
        ("y = Sum(x)", 20),
        ("y = Mean(x)", 20),
        ("y = Max(x)", 20),
        ("y = Min(x)", 20),
        ("y = Dropout(x)", 20),
        ("y = Dropout(x, 0.5)", 20),
        ("y = Dropout(x, 0.5, false)", 20),
        ("y = Dropout(x, ratio=0.5)", 10),
        ("y = Dropout(x, is_test=1)", 6),
    ],
)
def test_what_changes_nothing(text: str, opset: int) -> None:
    y = value(text, opset)
    assert see_through(y) is named(y, "x")
    assert source_of(y) is named(y, "x")


@pytest.mark.parametrize(
    ("text", "opset"),
    [
        ("y = Cast(x, to=float16)", 20),
        ("y = Sum(x, z)", 20),
        ("y = Mean(x, x)", 20),
        ("y = Max(x, z)", 20),
        ("y = Min(x, z)", 20),
        ("y = Dropout(x, 0.5, true)", 20),
        ("y = Dropout(x, 0.5, b)", 20),
        ("y = Dropout(x, is_test=0)", 6),
        ("y = Dropout(x)", 6),
        ("a, y = Dropout(x)", 20),
        ("y = own.Identity(x)", 20),
        ("y = Neg(x)", 20),
    ],
)
def test_what_may_change_something(text: str, opset: int) -> None:
    assert see_through(value(text, opset)) is None


@pytest.mark.parametrize("op", ["Identity", "Cast", "Dropout", "Max"])
def test_a_copy_of_nothing_is_none(op: str) -> None:
    graph = Model.empty(20).graph
    assert see_through(graph.add_op(op, [], {"to": 1}).output) is None
    assert see_through(graph.add_op(op, [None], {"to": 1}).output) is None


def test_a_cast_of_an_unknown_type_is_no_copy() -> None:
    graph = Model.empty(20).graph
    x = graph.add_input("x", 0, None)
    assert see_through(graph.add_op("Cast", [x], {"to": 0}).output) is None


# ---- constants ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("y = Identity(2.5)", 2.5),
        ("y = Identity([2.5])", 2.5),
        ("y = Identity(int64 -3)", -3.0),
        ("y = Identity(float16 0.5)", 0.5),
        ("y = Identity(inf)", math.inf),
        ("y = Identity(nan)", None),
        ("y = Identity(true)", None),
        ("y = Identity([1.0, 2.0])", None),
        ("y = Neg(x)", None),
        ("y = Identity(int64 9007199254740992)", 2.0**53),
        ("y = Identity(int64 9007199254740993)", None),
        ("y = Identity(int64 -9007199254740993)", None),
    ],
)
def test_the_number_of_a_constant(text: str, number: float | None) -> None:
    found = number_of(value(text))
    assert found == number
    assert found is None or type(found) is float


@pytest.mark.parametrize("item", [np.array("a", object), np.array(1 + 2j, np.complex64)])
def test_what_is_no_number(item: Any) -> None:
    assert number_of(Model.empty(20).graph.add_constant(Tensor.of(item))) is None


def test_numbers_are_read_only_and_of_constants_only() -> None:
    y = value("y = Identity([1.0, 2.0])")
    assert numbers_of(y).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="read-only"):
        numbers_of(y)[0] = 3.0
    with pytest.raises(TypeError, match="not a constant"):
        numbers_of(named(y, "x"))


def test_a_constant_of_a_scope_around() -> None:
    branch = "then_branch=() -> (p) { p = own.Two(Identity(x), Identity(c)) }, else_branch=() -> (q) { q = Neg(x) }"
    y = value(f"c = Identity([1.0, 2.0, 3.0, 4.0])  y = If(b, {branch})")
    inner = next(node for graph in y.node.subgraphs for node in graph.ops() if node.op == "Two")
    a, c = inner.inputs
    assert a is not None
    assert c is not None
    assert constant_of(a) is None
    assert numbers_of(c).tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("y = Add(x, x)", True),
        ("y = Add(x, Identity(x))", True),
        ("y = Add(x, z)", False),
        ("y = Add([1.0, 2.0], [1.0, 2.0])", True),
        ("y = Add([1.0, 2.0], [1.0, 3.0])", False),
        ("y = Add([1.0, 2.0], float32[1, 2] {1.0, 2.0})", False),
        ("y = Add(0.0, -0.0)", False),
        ("y = Add(x, 1.0)", False),
        ("y = Add(float32[4096] 1, Identity(float32[4096] 1))", True),
        ("y = Add(float32[4097] 1, Identity(float32[4097] 1))", False),
    ],
)
def test_what_is_one_value(text: str, same: bool) -> None:
    a, b = value(text).node.inputs
    assert a is not None
    assert b is not None
    assert same_value(a, b) == same
    assert same_value(b, a) == same


@pytest.mark.parametrize(
    ("op", "text", "wanted"),
    [
        ("Sub", "2.0", -2.0),
        ("Sub", "int64 2", -2.0),
        ("Sub", "uint8 2", None),
        ("Sub", "x", None),
        ("Div", "4.0", 0.25),
        ("Div", "float16 4.0", 0.25),
        ("Div", "0.0", None),
        ("Div", "int64 4", None),
        ("Div", "x", None),
    ],
)
def test_what_a_difference_adds_and_a_quotient_multiplies_with(op: str, text: str, wanted: float | None) -> None:
    assert inverse_of(op, value(f"y = Identity({text})")) == wanted


@pytest.mark.parametrize(
    ("constant", "other", "keeps"),
    [
        ("2.0", "x", True),
        ("[2.0]", "x", True),
        ("float32[1, 1] 2.0", "x", True),
        ("float32[1, 1, 1] 2.0", "x", False),
        ("float32[1, 1, 1] 2.0", "Reshape(x, i)", True),
        ("2.0", "own.Any(x)", True),
        ("[2.0]", "own.Any(x)", False),
    ],
)
def test_whether_a_constant_keeps_the_rank(constant: str, other: str, keeps: bool) -> None:
    a, b = value(f"y = own.Two(Identity({constant}), {other})").node.inputs
    assert a is not None
    assert b is not None
    assert keeps_rank(a, b) == keeps


@pytest.mark.parametrize(
    ("want", "found", "dtype", "equal"),
    [
        (1.0, 1.0, dtypes.INT64, True),
        (1.0, 1.0000001, dtypes.INT64, False),
        (1.0, 1.0000009, dtypes.FLOAT, True),
        (1.0, 1.0000011, dtypes.FLOAT, False),
        (-1.0, -1.0000009, dtypes.FLOAT, True),
        (-1.0, 1.0, dtypes.FLOAT, False),
        (1.0, 1.0 + 2.0**-9, dtypes.FLOAT16, True),
        (1.0, 1.0 + 2.0**-8, dtypes.FLOAT16, False),
        (1.0, 1.0 + 2.0**-6, dtypes.BFLOAT16, True),
        (1.0, 1.0 + 2.0**-5, dtypes.BFLOAT16, False),
        (0.0, 1e-30, dtypes.FLOAT, False),
        (math.inf, math.inf, dtypes.FLOAT, True),
        (math.inf, 1e38, dtypes.FLOAT, False),
        (1e38, -math.inf, dtypes.FLOAT, False),
    ],
)
def test_which_numbers_are_equal(want: float, found: float, dtype: int, equal: bool) -> None:
    assert close(want, found, dtype) == equal


# ---- attributes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "opset", "name", "wanted"),
    [
        ("y = Softmax(x, axis=0)", 20, "axis", 0),
        ("y = Softmax(x)", 20, "axis", -1),
        ("y = ReduceMean(x, axes=[1])", 13, "axes", [1]),
        ("y = ReduceMean(x, [1])", 20, "axes", [1]),
        ("y = ReduceMean(x, i)", 20, "axes", UNKNOWN),
        ("y = ReduceMean(x)", 20, "axes", None),
        ("y = Clip(x, 0.5)", 20, "min", 0.5),
        ("y = Clip(x, [0.5])", 20, "min", 0.5),
        ("y = own.Any(x)", 20, "axis", None),
        ("y = Unsqueeze(x, int64 1)", 20, "axes", 1),
    ],
)
def test_an_attribute_however_it_is_written(text: str, opset: int, name: str, wanted: Any) -> None:
    assert attribute(value(text, opset).node, name) == wanted


def test_the_list_of_an_attribute_is_a_copy() -> None:
    node = value("y = Transpose(x, perm=[1, 0])").node
    attribute(node, "perm").append(7)
    assert attribute(node, "perm") == [1, 0]


def test_what_the_caller_of_a_function_gives_is_not_known() -> None:
    graph = Model.empty(20).graph
    node = graph.add_op("Softmax", [graph.add_input("x", 1, (2,))], {"axis": Reference("axis", 2)})
    assert attribute(node, "axis") is UNKNOWN


@pytest.mark.parametrize(
    ("text", "name", "default"),
    [
        ("y = Softmax(x, axis=-1)", "axis", True),
        ("y = Softmax(x, axis=1)", "axis", True),
        ("y = Softmax(x, axis=0)", "axis", False),
        ('y = Gelu(x, approximate="none")', "approximate", True),
        ('y = Gelu(x, approximate="tanh")', "approximate", False),
        ("y = own.Any(x, k=1)", "k", False),
    ],
)
def test_what_is_the_default(text: str, name: str, default: bool) -> None:
    assert is_default(value(text).node, name) == default


@pytest.mark.parametrize(
    ("text", "name", "want", "found", "same"),
    [
        ("y = Softmax(x)", "axis", 1, -1, True),
        ("y = Softmax(x)", "axis", 0, -1, False),
        ("y = ReduceMean(x, [0, 1])", "axes", [0, 1], [-1, -2], True),
        ("y = ReduceMean(x, [0, 1])", "axes", [0, 1], [0], False),
        ("y = Unsqueeze(x, [0, -1])", "axes", [0, 3], [-1, 0], True),
        ("y = Unsqueeze(x, [0])", "axes", [2], [-1], True),
        ("y = Slice(x, [0, 0], [1, 1], [1, 0])", "axes", [0, 1], [1, 0], False),
        ("y = Slice(x, [0, 0], [1, 1], [1, 0])", "axes", [1, 0], [-1, 0], True),
        ("y = Softmax(own.Any(x))", "axis", 1, -1, False),
        ("y = Softmax(own.Any(x))", "axis", -1, -1, True),
        ("y = Softmax(x)", "axis", None, -1, False),
        ("y = Softmax(x)", "perm", [0, 1], (0, 1), True),
        ("y = Softmax(x)", "perm", [0, 1], [1, 0], False),
        ("y = Softmax(x)", "perm", [0, 1], [0], False),
        ("y = Softmax(x)", "alpha", 1.0, 1.0000001, True),
        ("y = Softmax(x)", "alpha", 1.0, 1.1, False),
        ("y = Softmax(x)", "alpha", 1.0, 1, True),
        ("y = Softmax(x)", "alpha", [1.0, 2.0], [1.0000001, 2.0], True),
        ("y = Softmax(x)", "mode", "a", "a", True),
        ("y = Softmax(x)", "mode", "a", "b", False),
    ],
)
def test_equal_attributes(text: str, name: str, want: Any, found: Any, same: bool) -> None:
    assert same_attribute(value(text).node, name, want, found) == same


# ---- what sums and products are made of ---------------------------------------------------------------------------


def told(leaf: Leaf) -> str:
    match leaf:
        case Scalar():
            return f"{leaf.number:g}"
        case Inverse():
            return f"/{leaf.value.name}"
    return leaf.name


@pytest.mark.parametrize(
    ("op", "text", "wanted"),
    [
        ("Add", "y = Add(x, z)", ["x", "z"]),
        ("Add", "y = Sum(x, z, x)", ["x", "z", "x"]),
        ("Add", "y = Sub(x, z)", ["x", "/z"]),
        ("Add", "y = Sub(x, 2.0)", ["x", "-2"]),
        ("Add", "y = Sub(i, int64 2)", ["i", "-2"]),
        ("Add", "y = Sub(x, float32[1, 1, 1] 2.0)", []),
        ("Add", "y = Sub(u, uint8 2)", []),
        ("Add", "y = Mul(x, z)", None),
        ("Add", "y = Sum(x)", None),
        ("Add", "y = own.Add(x, z)", None),
        ("Mul", "y = Mul(x, z)", ["x", "z"]),
        ("Mul", "y = Div(x, z)", ["x", "/z"]),
        ("Mul", "y = Div(x, 4.0)", ["x", "0.25"]),
        ("Mul", "y = Div(x, 0.0)", None),
        ("Mul", "y = Div(i, int64 2)", []),
        ("Mul", "y = Add(x, z)", None),
    ],
)
def test_parts(op: str, text: str, wanted: list[str] | None) -> None:
    found = parts_of(op, value(text).node)
    if text == "y = Div(x, 0.0)":
        assert found is not None
        assert [type(leaf) for leaf in found] == [Value, Inverse]
    else:
        assert (found if found is None else [told(leaf) for leaf in found]) == wanted


def test_an_operation_with_an_empty_slot_is_no_sum() -> None:
    graph = Model.empty(20).graph
    x = graph.add_input("x", dtypes.FLOAT, (2,))
    assert parts_of("Add", graph.add_op("Add", [x, None])) is None


@pytest.mark.parametrize(
    ("number", "beside", "raises"),
    [
        ("2.0", ["x"], False),
        ("[2.0]", ["x"], False),
        ("float32[1, 1, 1] 2.0", ["x"], True),
        ("float32[1, 1, 1] 2.0", [], False),
        ("float32[1, 1, 1] 2.0", ["x", "w"], False),
        ("[2.0]", ["k"], True),
        ("x", ["z"], False),
    ],
)
def test_a_number_that_raises_the_rank(number: str, beside: list[str], raises: bool) -> None:
    y = value(f"n = Identity({number})  k = Identity(3.0)  w = Unsqueeze(x, [0])  y = own.All(n, k, w)")
    assert raises_rank(named(y, "n"), [named(y, name) for name in beside]) == raises


def test_numbers_beside_a_number_say_nothing_of_the_rank() -> None:
    y = value("n = Identity([2.0])  y = own.All(n, x, z)")
    n, beside = named(y, "n"), Scalar(3.0, dtypes.FLOAT, y.node)
    assert not raises_rank(n, [beside, n, None])
    assert not raises_rank(n, [beside, named(y, "x")])
    assert not raises_rank(n, [Inverse(named(y, "z"), y.node)])


# ---- annotations --------------------------------------------------------------------------------------------------


def typed(dtype: int, *shape: Size) -> Value:
    return Model.empty(20).graph.add_input("v", dtype, shape)


@pytest.mark.parametrize(
    ("constraint", "of", "reason"),
    [
        (Constraint(rank=2), typed(1, S, 4), ""),
        (Constraint(rank=3), typed(1, S, 4), "has rank 2, wanted 3"),
        (Constraint(rank=(1, 3)), typed(1, S, 4), "has rank 2, wanted 1 or 3"),
        (Constraint(rank=(1, 2)), typed(1, S, 4), ""),
        (Constraint(dtype=frozenset({"float32", "float16"})), typed(1, S), ""),
        (Constraint(dtype=frozenset({"float32", "float16"})), typed(7, S), "is int64, wanted float16 or float32"),
        (Constraint(dtype=frozenset({"float32"})), typed(0, S), "is of unknown type, wanted float32"),
        (Constraint(constant=True), typed(1, S), "is not a constant"),
        (Constraint(dims=(4, "N")), typed(1, 4, S), ""),
        (Constraint(dims=(4, None)), typed(1, 4, S), ""),
        (Constraint(dims=(4, "N")), typed(1, 5, S), "has shape (5, S), wanted (4, N)"),
        (Constraint(dims=("N", "N")), typed(1, S, S), ""),
        (Constraint(dims=("N", "N")), typed(1, S, T), "has shape (S, T), wanted (S, S)"),
        (Constraint(dims=("N",)), typed(1, S, T), "has shape (S, T), wanted (N)"),
        (Constraint(dims=(..., "N")), typed(1, S, T, 4), ""),
        (Constraint(dims=(..., "N", "M")), typed(1, S), "has shape (S), wanted (N, M)"),
    ],
)
def test_what_an_annotation_asks_for(constraint: Constraint, of: Value, reason: str) -> None:
    assert Sizes().why_not(constraint, of).startswith(reason)
    assert bool(Sizes().why_not(constraint, of)) == bool(reason)


def test_a_shape_that_is_not_known_is_none_that_was_asked_for() -> None:
    unknown = Model.empty(20).graph.add_input("v", 1, None)
    assert Sizes().why_not(Constraint(dims=("N",)), unknown) == "has shape that is not known, wanted (N)"


def test_names_stand_for_one_size_each() -> None:
    sizes = Sizes()
    assert not sizes.why_not(Constraint(dims=(..., "N")), typed(1, S, T, 4))
    before = sizes.copy()
    assert not sizes.why_not(Constraint(dims=("N", "M")), typed(1, 4, 8))
    assert sizes.why_not(Constraint(dims=("M",)), typed(1, 4)) == "has shape (4), wanted (8)"
    assert not before.why_not(Constraint(dims=("M",)), typed(1, 4))
    assert sizes.why_not(Constraint(dims=(..., "N")), typed(1, S, S, 4)) == "has shape (S, S, 4), wanted (S, T, 4)"
    assert sizes.why_not(Constraint(dims=(..., "N")), typed(1, S, 1, 4)) == "has shape (S, 1, 4), wanted (S, T, 4)"


def test_leading_dimensions_may_be_shared() -> None:
    """Of a statistic beside what it was taken of: the last of the leading dimensions is 1."""
    sizes = Sizes()
    assert not sizes.why_not(Constraint(dims=(..., "N")), typed(1, S, T, 4))
    assert not sizes.why_not(Constraint(dims=(..., "N"), shared=True), typed(1, S, 1, 4))
    assert sizes.why_not(Constraint(dims=(..., "N"), shared=True), typed(1, 1, T, 4))
    single = Sizes()
    assert not single.why_not(Constraint(dims=(..., "N")), typed(1, S, 4))
    assert single.why_not(Constraint(dims=(..., "N"), shared=True), typed(1, 1, 4))


@pytest.mark.parametrize(
    ("of", "into", "fits"),
    [
        (typed(1, 4), (S, 4), True),
        (typed(1, S, 4), (S, 4), True),
        (typed(1, 1, 4), (S, 4), True),
        (typed(1, T, 4), (S, 4), False),
        (typed(1, 7, S, 4), (S, 4), False),
        (typed(1, 7), (S, None), True),
    ],
)
def test_what_broadcasts_into_a_shape(of: Value, into: tuple[Any, ...], fits: bool) -> None:
    assert (Sizes().widened(into, of) == "") == fits
