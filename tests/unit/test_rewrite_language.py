"""The pattern language: what matches, how often, with which bindings, and what must not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest

from graphopt.ir import Model, Value
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.rewrite import Attr, Attrs, Expr, Factor, Number, Ops, all_of, const, like
from graphopt.rewrite.explain import Explainer
from graphopt.rewrite.language import read_pattern
from graphopt.rewrite.matcher import Match, Matcher
from graphopt.rewrite.pattern import expr

Const = Annotated[Value, const()]


def graph(text: str, opset: int = 20) -> Model:
    """A model from statements over float x, y (N, 4, 8), boolean c; or from a whole text."""
    if not text.startswith("("):
        text = f"(x: float32[N, 4, 8], y: float32[N, 4, 8], c: bool[]) -> (z) {{ {text} }}"
    model = parse(text, opset=opset)
    infer(model)
    return model


def always(value: Value) -> bool:
    return True


def matches(pattern: Callable[..., Any], model: Model, root: str = "z") -> list[Match]:
    return list(_matches(pattern, model, root))


def _matches(pattern: Callable[..., Any], model: Model, root: str) -> Iterator[Match]:
    matcher = Matcher(read_pattern(pattern), budget=1_000_000)
    for match in matcher.matches(model.graph.names[root].node):
        yield Match(dict(match.bindings), list(match.nodes), list(match.roots))
    left = (matcher._bound, matcher._inside, matcher._outputs, matcher._sizes._known, matcher._parts, matcher._taken)
    assert not any(left)


def fits(pattern: Callable[..., Any], text: str, opset: int = 20) -> bool:
    return bool(matches(pattern, graph(text, opset)))


def bound(match: Match) -> dict[str, str]:
    return {name: value.name for name, value in match.bindings.items() if isinstance(value, Value)}


# ---- sums and products -----------------------------------------------------------------------------------------------


def bracketings(operands: list[str], op: str) -> Iterator[str]:
    """Every bracketing of operands in this order."""
    if len(operands) == 1:
        yield operands[0]
    for cut in range(1, len(operands)):
        for left in bracketings(operands[:cut], op):
            for right in bracketings(operands[cut:], op):
                yield f"{op}({left}, {right})"


PARTS = ["Relu(x)", "Exp(x)", "Abs(x)", "Neg(x)", "Tanh(x)", "Erf(x)"]


@pytest.mark.parametrize(("op", "name"), [("sum", "Add"), ("prod", "Mul")])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_chain_matches_in_every_order_and_bracketing(op: str, name: str, count: int) -> None:
    def pattern(ops: Ops, x: Value) -> Expr:
        kinds = ("Relu", "Exp", "Abs", "Neg")[:count]
        return getattr(ops, op)(*(getattr(ops, kind)(x) for kind in kinds))  # type: ignore[no-any-return]

    for order in itertools.permutations(PARTS[:count]):
        for text in bracketings(list(order), name):
            (match,) = matches(pattern, graph(f"z = {text}"))
            assert len(match.nodes) == 2 * count - 1


def test_six_operands_match_in_every_bracketing() -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return op.sum(op.Relu(x), op.Exp(x), op.Abs(x), op.Neg(x), op.Tanh(x), op.Erf(x))

    orders = [PARTS, PARTS[::-1], [*PARTS[3:], *PARTS[:3]], [*PARTS[::2], *PARTS[1::2]]]
    for order in orders:
        for text in bracketings(order, "Add"):
            assert fits(pattern, f"z = {text}")


def test_operators_flatten_into_one_chain() -> None:
    def pattern(op: Ops, a: Value, b: Value) -> Expr:
        return (a + op.Exp(b)) + 1.0

    assert fits(pattern, "z = Add(x, Add(1.0, Exp(y)))")


def test_fewer_or_more_operands_do_not_match_and_a_subchain_is_one_operand() -> None:
    def pattern(op: Ops, a: Value, b: Value) -> Expr:
        return op.sum(op.Relu(a), b)

    assert [bound(m) for m in matches(pattern, graph("z = Add(Add(x, y), Relu(x))"))] == [{"a": "x", "b": "add"}]
    assert not fits(pattern, "z = Add(Add(x, Relu(x)), y)")
    assert not fits(lambda op, a: op.sum(op.Relu(a), a, a), "z = Add(Relu(x), x)")


def test_equal_operands_are_tried_once() -> None:
    assert len(matches(lambda op, a, b: op.Add(a, b), graph("z = Add(x, x)"))) == 1
    assert len(matches(lambda op, a, b: op.sum(a, b), graph("z = Add(x, x)"))) == 1
    assert len(matches(lambda op, a, b: op.sum(a, b), graph("z = Add(x, y)"))) == 2


def test_a_difference_and_a_quotient_are_chains_of_constants_only() -> None:
    def minus(op: Ops, a: Value) -> Expr:
        return op.sum(a, -0.5)

    def half(op: Ops, a: Value) -> Expr:
        return op.prod(a, 0.5)

    assert fits(minus, "z = Sub(x, 0.5)")
    assert not fits(minus, "z = Sub(0.5, x)")
    assert not fits(minus, "z = Sub(x, -0.5)")
    assert fits(half, "z = Div(x, 2.0)")
    assert not fits(half, "z = Div(2.0, x)")
    assert not fits(half, "z = Div(x, 0.0)")


def test_a_quotient_of_integers_is_no_product() -> None:
    text = "(x: int64[N]) -> (z) { z = Div(x, 2) }"

    def scaled(op: Ops, x: Value, k: Number) -> Expr:
        return op.scaled(x, k)

    def product(op: Ops, x: Value, k: Number) -> Expr:
        return op.prod(x, k)

    assert not fits(scaled, text)
    assert not fits(product, text)
    assert fits(scaled, text.replace("Div", "Mul"))


def test_a_difference_of_unsigned_numbers_is_no_sum() -> None:
    def pattern(op: Ops, x: Value, k: Number) -> Expr:
        return op.sum(x, k)

    assert not fits(pattern, "(x: uint8[N]) -> (z) { z = Sub(x, uint8 1) }")
    assert fits(pattern, "(x: int8[N]) -> (z) { z = Sub(x, int8 1) }")


# ---- backtracking ----------------------------------------------------------------------------------------------------


def test_a_later_failure_reopens_an_alternative() -> None:
    def pattern(op: Ops, a: Value, b: Value) -> Expr:
        return op.Sub(op.Exp(op.Div(a, b) | op.Div(b, a)), op.Neg(a))

    def scaled(op: Ops, a: Value, b: Value) -> Expr:
        return op.Sub(op.Exp(op.scaled(op.Div(a, b) | op.Div(b, a), 0.5)), op.Neg(a))

    for first, second in ("xy", "yx"):
        (match,) = matches(pattern, graph(f"z = Sub(Exp(Div(x, y)), Neg({first}))"))
        assert bound(match) == {"a": first, "b": second}
        (match,) = matches(scaled, graph(f"z = Sub(Exp(Mul(Div(x, y), 0.5)), Neg({first}))"))
        assert bound(match) == {"a": first, "b": second}


def test_a_later_failure_reopens_an_alternative_that_binds_nothing() -> None:
    def pattern(op: Ops, a: Value, k: Number | None = None) -> Expr:
        return op.Sub(op.scaled(a, k) | a, op.Exp(a))

    assert [m.bindings["k"] for m in matches(pattern, graph("m = Mul(x, 2.0) z = Sub(m, Exp(m))"))] == [None]
    assert [m.bindings["k"] for m in matches(pattern, graph("z = Sub(Mul(x, 2.0), Exp(x))"))] == [2.0]


def test_a_repeated_variable_reopens_an_order_of_operands() -> None:
    def pattern(op: Ops, a: Value, b: Value) -> Expr:
        return op.Sub(op.sum(a, b), op.Concat(a, b, axis=0))

    assert bound(matches(pattern, graph("z = Sub(Add(x, y), Concat(y, x, axis=0))"))[0]) == {"a": "y", "b": "x"}
    assert not fits(pattern, "z = Sub(Add(x, y), Concat(x, x, axis=0))")


def test_a_check_inside_an_alternative_takes_part_in_the_search() -> None:
    def pattern(op: Ops, a: Value, axis: Attr) -> Expr:
        return op.Softmax(a, axis=lambda axis: axis == 1 or "not 1") | op.Softmax(a, axis=axis)

    assert [m.bindings["axis"] for m in matches(pattern, graph("z = Softmax(x, axis=1)"))] == [None, 1]
    assert [m.bindings["axis"] for m in matches(pattern, graph("z = Softmax(x, axis=2)"))] == [2]


def test_every_way_to_match_is_found_once() -> None:
    def pattern(op: Ops, a: Value, b: Value, d: Value) -> Expr:
        return op.sum(a, b, d)

    found = [tuple(bound(m).values()) for m in matches(pattern, graph("z = Add(Add(x, y), Relu(x))"))]
    assert sorted(found) == sorted(itertools.permutations(["x", "y", "relu"]))


# ---- constants -------------------------------------------------------------------------------------------------------

SPELLINGS = {
    "initializer": "k = {}",
    "a vector of one": "k = [{}]",
    "Constant node": "k = Constant(value_float={})",
    "Constant node with a tensor": "k = Constant(value=float32[1] {})",
    "through Identity": "k = Identity({})",
    "through a Cast to the same type": "k = Cast({}, to=float32)",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("call", ["Mul(x, k)", "Mul(k, x)", "Div(x, k)"])
def test_scaled_reads_a_constant_however_it_is_written(spelling: str, call: str) -> None:
    def pattern(op: Ops, x: Value, k: Number) -> Expr:
        return op.Erf(op.scaled(x, k))

    number = 4.0 if "Div" in call else 0.25
    (match,) = matches(pattern, graph(f"{spelling.format(number)} z = Erf({call})"))
    assert match.bindings["k"] == 0.25
    assert fits(lambda op, x: op.Erf(op.scaled(x, 0.25)), f"{spelling.format(number)} z = Erf({call})")


def test_scaled_needs_a_constant_that_is_not_zero_below() -> None:
    def pattern(op: Ops, a: Value, k: Number) -> Expr:
        return op.scaled(a, k)

    assert not fits(pattern, "z = Div(x, 0.0)")
    assert not fits(pattern, "z = Div(2.0, x)")
    assert not fits(pattern, "z = Mul(x, y)")
    assert not fits(pattern, "z = Mul(x, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])")
    assert not fits(pattern, "(x: float32[N], k = 2.0) -> (z) { z = Mul(x, k) }"), "it may be overridden"
    assert not fits(pattern, "(x: float32[N], k: float32[]) -> (z) { z = Mul(x, k) }")


@pytest.mark.parametrize(
    ("number", "good"), [("0.70710678", True), ("0.7071068", True), ("0.7071", False), ("-0.70710678", False)]
)
def test_numbers_match_within_their_tolerance(number: str, good: bool) -> None:
    assert fits(lambda op, x: op.scaled(x, math.sqrt(0.5)), f"z = Mul(x, {number})") is good
    assert fits(lambda op, x: op.prod(x, math.sqrt(0.5)), f"z = Mul(x, {number})") is good
    assert fits(lambda op, x: op.Pow(x, math.sqrt(0.5)), f"z = Pow(x, {number})") is good


@pytest.mark.parametrize("call", ["Mul(x, float16 0.70710678)", "Div(x, float16 1.41421356)"])
def test_numbers_match_within_the_tolerance_of_their_own_type(call: str) -> None:
    text = f"(x: float16[N]) -> (z) {{ z = {call} }}"
    assert fits(lambda op, x: op.scaled(x, math.sqrt(0.5)), text)
    assert fits(lambda op, x: op.prod(x, math.sqrt(0.5)), text)
    assert not fits(lambda op, x: op.scaled(x, 0.70), text)


def test_one_number_in_two_places_is_one_number() -> None:
    def pattern(op: Ops, a: Value, k: Number) -> Expr:
        return op.Sub(op.scaled(a, k), op.Pow(a, k))

    assert fits(pattern, "z = Sub(Mul(x, 0.5), Pow(x, 0.5))")
    assert fits(pattern, "z = Sub(Div(x, 2.0), Pow(x, 0.5))")
    assert not fits(pattern, "z = Sub(Div(x, 2.0), Pow(x, 2.0))")


def test_a_number_that_is_absent_in_one_place_is_absent_in_the_other() -> None:
    def pattern(op: Ops, a: Value, k: Number | None = None) -> Expr:
        return op.Sub(op.Clip(a, k, 6.0), op.Clip(a, k, 7.0))

    assert fits(pattern, "z = Sub(Clip(x, _, 6.0), Clip(x, _, 7.0))")
    assert fits(pattern, "z = Sub(Clip(x, 1.0, 6.0), Clip(x, 1.0, 7.0))")
    assert not fits(pattern, "z = Sub(Clip(x, _, 6.0), Clip(x, 1.0, 7.0))")
    assert not fits(pattern, "z = Sub(Clip(x, 1.0, 6.0), Clip(x, _, 7.0))")


@pytest.mark.parametrize("shape", ["float32[1]", "float32[1, 1]"])
def test_a_constant_that_keeps_the_rank_is_a_number(shape: str) -> None:
    for call in ("Mul(x, K)", "Mul(K, x)"):
        text = f"(x: float32[N, 4]) -> (z) {{ z = {call.replace('K', shape + ' 0.5')} }}"
        assert fits(lambda op, x: op.scaled(x, 0.5), text)
        assert fits(lambda op, x: op.prod(x, 0.5), text)
        assert fits(lambda op, x: op.Mul(x, 0.5), text)


def number_in_pow(op: Ops, x: Value, k: Number) -> Expr:
    return op.Pow(x, k)


def either_number(op: Ops, x: Value, k: Number) -> Expr:
    return op.prod(x, op.Relu(x) | k)


def number_in_where(op: Ops, x: Value, k: Number) -> Expr:
    return op.Where(op.IsNaN(x), k, x)


@pytest.mark.parametrize(
    ("pattern", "call"),
    [
        (lambda op, x: op.scaled(x, 0.5), "Mul(x, K)"),
        (lambda op, x: op.scaled(x, 2.0), "Div(x, K)"),
        (lambda op, x: op.prod(x, 0.5), "Mul(K, x)"),
        (lambda op, x: op.prod(x, 2.0), "Div(x, K)"),
        (lambda op, x: op.sum(x, -0.5), "Sub(x, K)"),
        (lambda op, x: op.Pow(x, 0.5), "Pow(x, K)"),
        (lambda op, x: op.sum(op.Relu(x), 0.5, x), "Add(Relu(x), Add(x, K))"),
        (lambda op, x: op.prod(x, 0.5, 1.0 + op.Erf(x)), "Mul(x, Mul(K, Add(Erf(x), 1.0)))"),
        (lambda op, x: op.prod(x, 0.5, 0.25), "Mul(Mul(x, K), float32[1, 1, 1, 1] 0.25)"),
        (lambda op, x: op.Add(op.Relu(x), op.check(0.5, always)), "Add(Relu(x), K)"),
        (lambda op, x: op.sum(0.5, op.Neg(op.Relu(x))), "Sub(K, Relu(x))"),
        (lambda op, x: op.prod(0.5, op.Reciprocal(op.Exp(x))), "Div(K, Exp(x))"),
        (number_in_pow, "Pow(x, K)"),
        (either_number, "Mul(x, K)"),
        (number_in_where, "Where(IsNaN(x), K, x)"),
    ],
)
def test_a_constant_that_raises_the_rank_is_no_number(pattern: Callable[..., Any], call: str) -> None:
    def text(constant: str) -> str:
        return f"(x: float32[N, 4]) -> (z) {{ z = {call.replace('K', constant).replace('[1, 1, 1, 1]', shape)} }}"

    for shape, good in (("[1, 1]", True), ("[1, 1, 1, 1]", False)):
        assert fits(pattern, text(f"float32{shape} 0.5")) is good


def test_a_constant_beside_a_value_of_unknown_rank_must_be_a_scalar() -> None:
    assert fits(lambda op, x: op.scaled(x, 0.5), "(x: float32) -> (z) { z = Mul(x, 0.5) }")
    assert not fits(lambda op, x: op.scaled(x, 0.5), "(x: float32) -> (z) { z = Mul(x, [0.5]) }")


def test_an_overridable_initializer_is_no_constant() -> None:
    def pattern(op: Ops, x: Value, w: Const) -> Expr:
        return op.MatMul(x, w)

    assert fits(pattern, "(x: float32[N, 2]) -> (z) { z = MatMul(x, float32[2, 2] random(1)) }")
    assert not fits(pattern, "(x: float32[N, 2], w = float32[2, 2] random(1)) -> (z) { z = MatMul(x, w) }")
    assert not fits(pattern, "(x: float32[N, 2], w: float32[2, 2]) -> (z) { z = MatMul(x, w) }")


def test_two_equal_constants_are_the_same_value_and_two_others_are_not() -> None:
    def pattern(op: Ops, a: Value, w: Const) -> Expr:
        return op.Sub(op.MatMul(a, w), op.Add(a, w))

    text = "(x: float32[2, 2]) -> (z) {{ z = Sub(MatMul(x, float32[2, 2] random(1)), Add(x, float32[2, 2] {})) }}"
    assert fits(pattern, text.format("random(1)"))
    assert not fits(pattern, text.format("random(2)"))


# ---- operands, alternatives, options ---------------------------------------------------------------------------------


def exp_first_of(kind: str) -> Callable[..., Any]:
    return lambda op, a: getattr(op, kind)(op.Exp(a), a)


def test_operands_of_a_commutative_operation_match_in_both_orders_and_of_others_in_one() -> None:
    for op in ("Add", "Mul", "Max", "Min"):
        assert fits(exp_first_of(op), f"z = {op}(x, Exp(x))")
    for op in ("Sub", "Div", "Pow", "MatMul"):
        assert not fits(exp_first_of(op), f"z = {op}(x, Exp(x))")


def norm(op: Ops, x: Value, g: Value, b: Value | None = None) -> Expr:
    return op.LayerNormalization(x, g, b)


def test_an_optional_operand_is_bound_or_none() -> None:
    weights = "g = float32[8] random(1) b = float32[8] random(2) "
    (match,) = matches(norm, graph(weights + "z = LayerNormalization(x, g, b)"))
    assert bound(match) == {"x": "x", "g": "g", "b": "b"}
    for call in ("LayerNormalization(x, g)", "LayerNormalization(x, g, _)"):
        (match,) = matches(norm, graph(weights + f"z = {call}"))
        assert match.bindings["b"] is None


def test_an_operand_that_is_not_optional_must_be_there() -> None:
    def pattern(op: Ops, x: Value, g: Value, b: Value) -> Expr:
        return op.LayerNormalization(x, g, b)

    assert not fits(pattern, "z = LayerNormalization(x, float32[8] 1.0)")


def test_an_empty_slot_is_matched_by_an_empty_slot() -> None:
    def lower_only(op: Ops, x: Value, lo: Number) -> Expr:
        return op.Clip(x, lo)

    def upper_only(op: Ops, x: Value, hi: Number) -> Expr:
        return op.Clip(x, None, hi)

    assert fits(lower_only, "z = Clip(x, 0.0)")
    assert not fits(lower_only, "z = Clip(x, 0.0, 6.0)")
    assert not fits(lower_only, "z = Clip(x, _, 6.0)")
    assert fits(upper_only, "z = Clip(x, _, 6.0)")
    assert not fits(upper_only, "z = Clip(x, 0.0, 6.0)")


def test_an_optional_operand_may_stand_in_an_alternative() -> None:
    def pattern(op: Ops, x: Value, g: Value, b: Value | None = None) -> Expr:
        return op.LayerNormalization(x, g, op.Neg(b) | b)

    weights = "g = float32[8] random(1) b = float32[8] random(2) "
    assert fits(pattern, weights + "z = LayerNormalization(x, g)")
    (first, *_) = matches(pattern, graph(weights + "z = LayerNormalization(x, g, Neg(b))"))
    assert bound(first)["b"] == "b"


def test_the_rest_does_not_matter() -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return op.Reshape(x, ...)

    assert fits(pattern, "z = Reshape(x, [0, -1])")
    assert fits(pattern, "z = Reshape(x, Shape(y), allowzero=1)")
    assert not fits(lambda op, x, s: op.Reshape(x, s), "z = Reshape(x, Shape(y), allowzero=1)")
    assert fits(lambda op, x, s: op.Reshape(x, s, allowzero=1), "z = Reshape(x, Shape(y), allowzero=1)")
    assert not fits(lambda op, x: op.Reshape(x, ..., allowzero=0), "z = Reshape(x, Shape(y), allowzero=1)")


def test_outputs_of_one_operation_belong_together() -> None:
    def swapped(op: Ops, x: Value) -> Expr:
        parts = op.Split(x, axis=-1, num_outputs=2)
        return op.Concat(op.Neg(parts[1]), parts[0], axis=-1)

    one = "a, b = Split(x, axis=-1, num_outputs=2) z = Concat(Neg({}), {}, axis=-1)"
    assert fits(swapped, one.format("b", "a"))
    assert not fits(swapped, one.format("a", "b"))
    assert not fits(swapped, one.format("b", "b"))
    two = "a, b = Split(x, axis=-1, num_outputs=2) c, d = Split(x, axis=-1, num_outputs=2) "
    assert not fits(swapped, f"(x: float32[N, 8]) -> (z) {{ {two} z = Concat(Neg(b), c, axis=-1) }}")


def test_a_root_may_be_another_output_than_the_first() -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return op.Split(x, axis=-1, num_outputs=2)[1]

    model = graph("(x: float32[N, 8]) -> (a, z) { a, z = Split(x, axis=-1, num_outputs=2) }")
    (match,) = matches(pattern, model)
    assert [root.name for root in match.roots] == ["z"]


# ---- attributes ------------------------------------------------------------------------------------------------------


def softmax_2(op: Ops, a: Value) -> Expr:
    return op.Softmax(a, axis=2)


def softmax_last(op: Ops, a: Value) -> Expr:
    return op.Softmax(a, axis=-1)


def test_an_axis_counts_from_either_end() -> None:
    for pattern in (softmax_2, softmax_last):
        assert fits(pattern, "z = Softmax(x, axis=-1)")
        assert fits(pattern, "z = Softmax(x, axis=2)")
        assert fits(pattern, "z = Softmax(x)"), "the default is the last axis"
        assert not fits(pattern, "z = Softmax(x, axis=1)")
    assert not fits(softmax_last, "z = Softmax(x)", opset=11), "the default was 1"


def mean_last(op: Ops, a: Value) -> Expr:
    return op.ReduceMean(a, axes=[-1])


@pytest.mark.parametrize(
    ("call", "opset", "good"),
    [
        ("ReduceMean(x, axes=[-1])", 11, True),
        ("ReduceMean(x, axes=[2])", 13, True),
        ("ReduceMean(x, [2])", 18, True),
        ("ReduceMean(x, Constant(value_ints=[-1]))", 18, True),
        ("ReduceMean(x, axes=[1])", 13, False),
        ("ReduceMean(x, [1])", 18, False),
        ("ReduceMean(x, [1, 2])", 18, False),
        ("ReduceMean(x)", 18, False),
        ("ReduceMean(x, [-1], keepdims=0)", 18, False),
        ("ReduceMean(x, [-1], keepdims=1)", 18, True),
        ("ReduceMean(x, Cast(Shape(x), to=int64))", 18, False),
    ],
)
def test_axes_mean_the_same_as_attribute_and_as_input(call: str, opset: int, good: bool) -> None:
    assert fits(mean_last, f"z = {call}", opset) is good


def test_axes_that_are_computed_bind_no_variable() -> None:
    def pattern(op: Ops, a: Value, axes: Attr) -> Expr:
        return op.ReduceMean(a, axes=axes)

    text = "(x: float32[N, 4, 8], axes: int64[1]) -> (z) { z = ReduceMean(x, axes) }"
    assert not matches(pattern, graph(text))
    (match,) = matches(pattern, graph("z = ReduceMean(x)"))
    assert match.bindings["axes"] is None


def test_axes_of_an_unsqueeze_count_in_its_output() -> None:
    def before_last(op: Ops, a: Value) -> Expr:
        return op.Unsqueeze(a, axes=[2])

    def last(op: Ops, a: Value) -> Expr:
        return op.Unsqueeze(a, axes=[3])

    assert fits(last, "z = Unsqueeze(x, [-1])")
    assert not fits(before_last, "z = Unsqueeze(x, [-1])")
    assert fits(before_last, "z = Unsqueeze(x, [-2])")


def test_axes_of_a_slice_keep_their_order() -> None:
    def pattern(op: Ops, a: Value) -> Expr:
        return op.Slice(a, axes=[0, 1], starts=[1, 2], ends=[3, 4])

    assert fits(pattern, "z = Slice(x, [1, 2], [3, 4], [0, 1])")
    assert not fits(pattern, "z = Slice(x, [1, 2], [3, 4], [1, 0])")


def test_an_attribute_left_out_must_have_its_default() -> None:
    def transposed(op: Ops, a: Value, b: Value) -> Expr:
        return op.Gemm(a, b)

    text = "(x: float32[4, 4], y: float32[4, 4]) -> (z) {{ z = Gemm(x, y{}) }}"
    for attributes, good in (("", True), (", alpha=1.0", True), (", transA=0", True), (", transA=1", False)):
        assert fits(transposed, text.format(attributes)) is good
    assert fits(norm, "z = LayerNormalization(x, float32[8] 1.0, epsilon=1e-5)")
    assert fits(norm, "z = LayerNormalization(x, float32[8] 1.0, axis=2)")
    assert not fits(norm, "z = LayerNormalization(x, float32[8] 1.0, epsilon=1e-6)")


def test_an_attribute_the_schema_does_not_know_is_no_default() -> None:
    assert not fits(lambda op, a: op.Relu(a), "z = Relu(x, consumed=1)")


def test_an_attribute_may_be_a_variable_in_two_places() -> None:
    def pattern(op: Ops, a: Value, p: Attr) -> Expr:
        return op.Transpose(op.Transpose(a, perm=p), perm=p)

    assert fits(pattern, "z = Transpose(Transpose(x, perm=[0, 2, 1]), perm=[0, 2, 1])")
    assert not fits(pattern, "z = Transpose(Transpose(x, perm=[0, 2, 1]), perm=[1, 0, 2])")


def test_a_list_may_be_written_as_a_tuple() -> None:
    assert fits(lambda op, a: op.Transpose(a, perm=(0, 2, 1)), "z = Transpose(x, perm=[0, 2, 1])")


def test_a_predicate_answers_true_or_a_reason() -> None:
    def pattern(op: Ops, a: Value) -> Expr:
        return op.Transpose(a, perm=lambda perm: perm[0] == 0 or "the batch moves")

    assert fits(pattern, "z = Transpose(x, perm=[0, 2, 1])")
    model = graph("z = Transpose(x, perm=[1, 0, 2])")
    matcher = Explainer(read_pattern(pattern))
    assert not list(matcher.matches(model.graph.names["z"].node))
    assert "the batch moves" in matcher.miss.reason


def test_an_attribute_that_the_caller_of_a_function_gives_is_not_known() -> None:
    body = "function my.F (a, p = @) -> (b) { b = Transpose(a, perm=@p) }"
    model = parse(f"(x: float32[2, 2]) -> (y) {{ y = my.F(x, p=[1, 0]) }} {body}")
    infer(model)
    (inner,) = [function.graph for function in model.functions.values()]

    def pattern(op: Ops, a: Value, p: Attr) -> Expr:
        return op.Transpose(a, perm=p)

    assert not list(Matcher(read_pattern(pattern)).matches(inner.names["b"].node))


# ---- constraints -----------------------------------------------------------------------------------------------------


def test_ranks_and_types() -> None:
    def matrix(op: Ops, x: Value, w: Annotated[Value, const(rank=2)]) -> Expr:
        return op.MatMul(x, w)

    def half(op: Ops, x: Annotated[Value, like(rank=(2, 3), dtype=("float16", "bfloat16"))]) -> Expr:
        return op.Relu(x)

    assert fits(matrix, "z = MatMul(x, float32[8, 8] random(1))")
    assert not fits(matrix, "z = MatMul(x, float32[2, 8, 8] random(1))")
    assert not fits(half, "z = Relu(x)")
    assert fits(half, "(x: float16[N, 2]) -> (z) { z = Relu(x) }")
    assert not fits(half, "(x: float16[N]) -> (z) { z = Relu(x) }")


def test_dimensions_with_one_name_are_equal_across_parameters() -> None:
    def pattern(
        op: Ops, x: Annotated[Value, like(dims=("M", "K"))], w: Annotated[Value, like(dims=("K", "K"))]
    ) -> Expr:
        return op.MatMul(x, w)

    text = "(x: float32[N, 4], w: float32[4, {}]) -> (z) {{ z = MatMul(x, w) }}"
    assert fits(pattern, text.format(4))
    assert not fits(pattern, text.format(5))


def test_dimensions_are_forgotten_when_a_choice_is_reopened() -> None:
    def pattern(op: Ops, a: Annotated[Value, like(dims=("M", 4))], b: Annotated[Value, like(dims=(4, "M"))]) -> Expr:
        return op.Sub(op.sum(a, b), op.Neg(a))

    text = "(x: float32[4, 4], y: float32[4, 4]) -> (z) { z = Sub(Add(x, y), Neg(y)) }"
    assert bound(matches(pattern, graph(text))[0]) == {"a": "y", "b": "x"}


# ---- what is seen through --------------------------------------------------------------------------------------------

COPIES = {
    "Identity": "Identity({})",
    "Cast": "Cast({}, to=float32)",
    "Dropout": "Dropout({})",
    "Dropout in inference": "Dropout({}, 0.5, false)",
    "all of them": "Identity(Cast(Dropout(Identity({})), to=float32))",
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (lambda op, x: op.Exp(op.Relu(x)), "z = Exp(C[Relu(x)])"),
        (lambda op, x: op.Exp(op.scaled(x, 0.5)), "z = Exp(C[Mul(x, 0.5)])"),
        (lambda op, x: op.Exp(op.sum(x, 0.5, op.Relu(x))), "z = Exp(C[Add(x, C[Add(C[Relu(x)], 0.5)])])"),
        (lambda op, x: op.Exp(op.Relu(x) | op.Abs(x)), "z = Exp(C[Abs(x)])"),
    ],
)
def test_plain_copies_are_seen_through_and_join_the_match(copy: str, pattern: Callable[..., Any], text: str) -> None:
    while "C[" in text:
        head, _, tail = text.rpartition("C[")
        inner, _, tail = tail.partition("]")
        text = head + copy.format(inner) + tail
    model = graph(text)
    inside = matches(pattern, model)[0].nodes
    assert all(node in inside for node in model.graph.ops() if node.op not in ("Identity", "Cast", "Dropout"))
    assert all(node in inside for node in model.graph.ops() if node.inputs[0] is not model.graph.names["x"])


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_a_value_and_its_copy_are_one_value(copy: str) -> None:
    assert fits(lambda op, a: op.sum(a, op.Relu(a)), f"z = Add({copy.format('x')}, Relu(x))")
    assert fits(lambda op, a: op.sum(a, op.Relu(a)), f"z = Add(x, Relu({copy.format('x')}))")


@pytest.mark.parametrize(
    ("call", "opset"),
    [
        ("Dropout(Relu(x), 0.5, true)", 20),
        ("Dropout(Relu(x), 0.5, c)", 20),
        ("Cast(Cast(Relu(x), to=float16), to=float32)", 20),
        ("Dropout(Relu(x))", 6),
        ("Max(Relu(x), y)", 20),
    ],
)
def test_what_changes_something_is_not_seen_through(call: str, opset: int) -> None:
    assert not fits(lambda op, x: op.Exp(op.Relu(x)), f"z = Exp({call})", opset)


def test_a_chain_of_copies_may_be_long() -> None:
    text = "a0 = Relu(x) " + " ".join(f"a{i + 1} = Identity(a{i})" for i in range(3000)) + " z = Exp(a3000)"
    (match,) = matches(lambda op, x: op.Exp(op.Relu(x)), graph(text))
    assert len(match.nodes) == 3002


def test_a_copy_may_be_asked_for_by_name() -> None:
    assert fits(lambda op, x: op.Exp(op.Identity(x)), "z = Exp(Identity(x))")
    assert fits(lambda op, x: op.Exp(op.Identity(op.Relu(x))), "z = Exp(Identity(Dropout(Relu(x))))")
    assert not fits(lambda op, x: op.Exp(op.Identity(x)), "z = Exp(Dropout(x))")


# ---- several roots ---------------------------------------------------------------------------------------------------


def two_products(op: Ops, x: Value, v: Const, w: Const) -> tuple[Expr, Expr]:
    return op.MatMul(x, v), op.MatMul(x, w)


def test_further_roots_are_found_through_uses() -> None:
    weights = "a = float32[2, 2] random(1) b = float32[2, 2] random(2)"
    text = f"(x: float32[N, 2]) -> (z, u) {{ {weights} z = MatMul(x, a) u = MatMul(%s, b) }}"
    for way in ("x", "Identity(x)", "Dropout(Identity(x))"):
        (match,) = matches(two_products, graph(text % way))
        assert [root.name for root in match.roots] == ["z", "u"]
    assert not matches(two_products, graph(text % "Relu(x)"))
    (match,) = matches(two_products, graph(text % "Identity(x)"), root="u")
    assert [root.name for root in match.roots] == ["u", "z"]


def test_a_further_root_may_be_a_chain_or_an_alternative() -> None:
    def pattern(op: Ops, x: Value) -> tuple[Expr, Expr]:
        return op.Relu(x), op.sum(x, op.Exp(x), 1.0)

    def either(op: Ops, x: Value) -> tuple[Expr, Expr]:
        return op.Relu(x), op.Abs(x) | op.Neg(op.Exp(x))

    text = "(x: float32[N]) -> (z, u) {{ z = Relu(x) u = {} }}"
    assert matches(pattern, graph(text.format("Add(Exp(x), Add(x, 1.0))")))
    assert matches(pattern, graph(text.format("Add(Add(Exp(x), x), 1.0)")))
    assert matches(either, graph(text.format("Abs(x)")))
    assert matches(either, graph(text.format("Neg(Exp(x))")))


def test_a_root_may_lie_inside_another() -> None:
    def pattern(op: Ops, x: Value) -> tuple[Expr, Expr]:
        inner = op.Exp(x)
        return op.Relu(inner), inner

    model = graph("(x: float32[N]) -> (z, h) { h = Exp(x) z = Relu(h) other = Exp(x) }")
    (match,) = matches(pattern, model)
    assert [root.name for root in match.roots] == ["z", "h"]


def each(op: Ops, x: Value, w: Const) -> Expr:
    return op.each_use(op.Relu(x), lambda y: op.MatMul(y, w))


def test_each_use_takes_all_consumers_or_none() -> None:
    def found(output: str, rest: str = "") -> list[Match]:
        first = "z = Relu(x) a = MatMul(z, float32[2, 2] random(1))"
        return matches(each, graph(f"(x: float32[2, 2], c: bool[]) -> (a, {output}) {{ {first} {rest} }}"))

    (match,) = found("b", "b = MatMul(z, float32[2, 2] random(2))")
    assert [root.name for root in match.roots] == ["a", "b"]
    assert len(match.bindings["w"]) == 2
    assert not found("b", "b = Neg(z)"), "another operation"
    assert not found("b", "b = MatMul(z, x)"), "no constant"
    assert not found("b", "b = MatMul(float32[2, 2] random(2), z)"), "the other operand"
    assert not found("z"), "an output of the graph"
    branches = "then_branch=() -> (p) { p = Neg(z) }, else_branch=() -> (q) { q = Neg(x) }"
    assert not found("b", f"b = If(c, {branches})"), "captured"


def test_each_use_counts_a_consumer_once_that_reads_the_value_twice() -> None:
    def pattern(op: Ops, x: Value, w: Value) -> Expr:
        return op.each_use(op.Relu(x), lambda y: op.Add(y, w))

    model = graph("(x: float32[N]) -> (a) { z = Relu(x) a = Add(z, z) }")
    assert [[root.name for root in match.roots] for match in matches(pattern, model)] == [["a"]]


def test_each_use_unifies_dimensions_with_what_is_bound_outside() -> None:
    def pattern(
        op: Ops,
        x: Annotated[Value, like(dims=("N", "K"))],
        w: Annotated[Value, const(rank=2)],
        b: Annotated[Value, like(dims=("K",))],
    ) -> Expr:
        return op.each_use(op.Relu(x), lambda y: op.Add(op.MatMul(y, w), b) | op.Add(y, b))

    text = "(x: float32[N, {}]) -> (a) {{ z = Relu(x) a = Add(z, float32[4] random(1)) }}"
    assert matches(pattern, graph(text.format(4)))
    assert not matches(pattern, graph(text.format(1)))


def anchored(op: Ops, x: Value) -> Expr:
    a, b = op.Exp(op.Relu(x)), op.Abs(x)
    return op.anchor(op.Concat(op.Neg(a), b, axis=0), a, b)


def test_an_anchor_finds_the_whole_and_replaces_parts() -> None:
    (match,) = matches(anchored, graph("z = Concat(Neg(Exp(Relu(x))), Abs(x), axis=0)"))
    assert [root.name for root in match.roots] == ["exp", "abs"]
    assert sorted(node.op for node in match.nodes) == ["Abs", "Exp", "Relu"]


def test_parts_of_an_anchor_are_seen_through_copies() -> None:
    (match,) = matches(anchored, graph("z = Concat(Neg(Identity(Exp(Relu(x)))), Abs(x), axis=0)"))
    assert sorted(node.op for node in match.nodes) == ["Abs", "Exp", "Identity", "Relu"]


def test_parts_of_an_anchor_are_two_values_in_branches_that_are_taken() -> None:
    def same(op: Ops, x: Value) -> Expr:
        a, b = op.Exp(x), op.Exp(x)
        return op.anchor(op.Concat(a, b, axis=0), a, b)

    def branch(op: Ops, x: Value) -> Expr:
        a = op.Exp(op.Relu(x))
        return op.anchor(op.Neg(op.Abs(a) | op.Abs(op.Exp(op.Abs(x)))), a)

    assert not fits(same, "e = Exp(x) z = Concat(e, e, axis=0)")
    assert fits(same, "z = Concat(Exp(x), Exp(x), axis=0)")
    assert fits(branch, "z = Neg(Abs(Exp(Relu(x))))")
    assert not fits(branch, "z = Neg(Abs(Exp(Abs(x))))")


# ---- patterns that cannot be read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        lambda op, x: None,
        lambda op, x: x,
        lambda op, x: 1.0,
        lambda op, x: (),
        lambda op, x: op.Relu("x"),
        lambda op, x: op.Relu(x) / 0,
        lambda op, x: op.anchor(op.Relu(x), x),
    ],
)
def test_a_pattern_that_is_no_operation_is_refused(pattern: Callable[..., Any]) -> None:
    with pytest.raises((TypeError, ArithmeticError)):
        read_pattern(pattern)


# ---- dimensions ------------------------------------------------------------------------------------------------------


def product_of(x: Any, w: Any) -> Callable[..., Any]:
    def pattern(op: Ops, x: Value, w: Value) -> Expr:
        return op.MatMul(x, w)

    pattern.__annotations__.update(x=Annotated[Value, x], w=Annotated[Value, w])
    return pattern


@pytest.mark.parametrize(
    ("x", "w", "agree"),
    [
        ("N, 4, 8", "N, 8, 6", True),
        ("2, N, 4, 8", "2, N, 8, 6", True),
        ("4, 8", "8, 6", True),
        ("N, 4, 8", "1, 8, 6", False),
        ("N, 4, 8", "8, 6", False),
        ("N, 4, 8", "N, 8, K", True),
        ("N, 4, M", "N, M, 6", True),
    ],
)
def test_leading_dimensions_are_the_same_in_all_parameters(x: str, w: str, agree: bool) -> None:
    pattern = product_of(like(dims=(..., "S", None)), like(dims=(..., None, "T")))
    assert fits(pattern, f"(x: float32[{x}], w: float32[{w}]) -> (z) {{ z = MatMul(x, w) }}") is agree


def test_all_of_several_reasons_the_first_that_is_not_true_counts() -> None:
    assert all_of() is True
    assert all_of(True, True) is True
    assert all_of(True, "too wide", False) == "too wide"
    assert all_of(False, "too wide") is False


def test_an_example_has_no_part_in_a_match() -> None:
    def pattern(op: Ops, y: Value, x: Value | None = None) -> Expr:
        return op.Neg(op.such_as(y, op.Exp(x)))

    for text in ("z = Neg(Exp(x))", "z = Neg(Abs(x))", "z = Neg(x)"):
        (found,) = matches(pattern, graph(f"(x: float32[N]) -> (z) {{ {text} }}"))
        assert found.bindings["y"] is found.roots[0].node.inputs[0]
        assert found.bindings["x"] is None


@pytest.mark.parametrize(
    ("x", "w", "agree"),
    [
        ("N, 4, 5, 8", "N, 1, 8, 6", True),
        ("N, 4, 5, 8", "N, 4, 8, 6", True),
        ("N, 4, 5, 8", "1, 1, 8, 6", False),
        ("N, 4, 5, 8", "N, 2, 8, 6", False),
        ("N, 1, 5, 8", "N, 4, 8, 6", False),
        ("N, 5, 8", "1, 8, 6", False),
    ],
)
def test_the_last_leading_dimension_may_be_shared(x: str, w: str, agree: bool) -> None:
    pattern = product_of(like(dims=(..., "S", None)), like(dims=(..., None, "T"), shared=True))
    assert fits(pattern, f"(x: float32[{x}], w: float32[{w}]) -> (z) {{ z = MatMul(x, w) }}") is agree


def test_a_value_of_fewer_dimensions_than_asked_for_does_not_match() -> None:
    assert not fits(product_of(like(dims=("S", None)), like()), "z = MatMul(x, Transpose(y, perm=[0, 2, 1]))")
    pattern = product_of(like(dims=(..., 2, "S", None)), like())
    assert not fits(pattern, "(x: float32[4, 8], w: float32[8, 6]) -> (z) { z = MatMul(x, w) }")
    assert fits(pattern, "(x: float32[2, 4, 8], w: float32[8, 6]) -> (z) { z = MatMul(x, w) }")


@pytest.mark.parametrize(
    ("bias", "agree"),
    [("N, 4, 6", True), ("6", True), ("1, 1, 1", True), ("4, 1", True), ("2, N, 4, 6", False), ("4, 4, 6", False)],
)
def test_a_value_broadcasts_into_dimensions_that_are_matched_after_it(bias: str, agree: bool) -> None:
    def pattern(
        op: Ops,
        b: Annotated[Value, like(into=(..., "S", "T"))],
        x: Annotated[Value, like(dims=(..., "S", None))],
        w: Annotated[Value, like(dims=(..., None, "T"))],
    ) -> Expr:
        return op.Sub(b, op.MatMul(x, w))

    text = f"(x: float32[N, 4, 8], w: float32[N, 8, 6], b: float32[{bias}]) -> (z) {{ z = Sub(b, MatMul(x, w)) }}"
    assert fits(pattern, text) is agree


def test_what_does_not_broadcast_reopens_the_search() -> None:
    def pattern(op: Ops, x: Annotated[Value, like(dims=(4, 8))], b: Annotated[Value, like(into=(4, 8))]) -> Expr:
        return op.sum(x, b)

    (match,) = matches(
        pattern, graph("(a: float32[1, 4, 8], b: float32[8], x: float32[4, 8]) -> (z) { z = Add(b, x) }")
    )
    assert bound(match) == {"x": "x", "b": "b"}


# ---- predicates on values, outputs by name, operands in any order ----------------------------------------------------


def test_a_predicate_inside_a_branch_takes_part_in_the_search() -> None:
    asked = []

    def small(value: Value) -> bool | str:
        asked.append(value.name)
        return value.name == "x" or f"{value.name} is too large"

    def pattern(op: Ops, a: Value, b: Value) -> Expr:
        return op.Neg(op.check(a, small) + op.Exp(b) | op.Sub(a, b))

    (match,) = matches(pattern, graph("z = Neg(Add(Exp(x), x))"))
    assert (bound(match), asked) == ({"a": "x", "b": "x"}, ["x"])
    assert not fits(pattern, "z = Neg(Add(Exp(x), y))")
    assert fits(pattern, "z = Neg(Sub(y, x))"), "the branch without the predicate"


def test_an_output_may_be_named() -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return op.Cast(op.Dropout(x, ...)["mask"], ...)

    text = "(x: float32[4]) -> (z, d) { d, m = Dropout(x) z = Cast(m, to=float32) }"
    assert fits(pattern, text)
    assert not fits(pattern, text.replace("Cast(m", "Cast(d"))
    with pytest.raises(TypeError, match="Dropout has no output 'maks'"):
        read_pattern(lambda op, x: op.Cast(op.Dropout(x, ...)["maks"], ...))


@pytest.mark.parametrize("order", list(itertools.permutations(["Exp(x)", "Neg(x)", "x"])))
@pytest.mark.parametrize("op", ["Max", "Min", "Sum", "Mean"])
def test_variadic_operations_match_in_any_order(op: str, order: tuple[str, ...]) -> None:
    def pattern(ops: Ops, x: Value) -> Expr:
        return getattr(ops, op)(x, ops.Neg(x), ops.Exp(x))  # type: ignore[no-any-return]

    assert fits(pattern, f"z = {op}({', '.join(order)})")
    assert not fits(pattern, f"z = {op}({', '.join([*order[:2], 'Tanh(x)'])})")
    assert not fits(pattern, f"z = {op}({', '.join(order)}, y)")


@pytest.mark.parametrize(
    "text", ["Sum(Exp(x), Neg(x), Abs(x))", "Add(Sum(Abs(x), Exp(x)), Neg(x))", "Sum(Sum(Neg(x), Abs(x)), Exp(x))"]
)
def test_a_sum_may_be_written_as_one_operation(text: str) -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return op.sum(op.Exp(x), op.Neg(x), op.Abs(x))

    assert fits(pattern, f"z = {text}")
    assert not fits(pattern, "z = Sum(Exp(x), Neg(x))")


# ---- scopes ----------------------------------------------------------------------------------------------------------

INNER = (
    "(x: float32[4], c: bool[]) -> (z) { h = Exp(x) k = Identity(0.5) "
    "z = If(c, then_branch=() -> (p) { p = Mul(Neg(h), k) }, else_branch=() -> (q) { q = Abs(x) }) }"
)


def inside(pattern: Callable[..., Any]) -> list[Match]:
    model = graph(INNER)
    (scope,) = (scope for scope in model.scopes() if "p" in scope.names)
    return list(Matcher(read_pattern(pattern)).matches(scope.names["p"].node))


def test_nothing_is_matched_across_scopes_unless_it_is_asked_for() -> None:
    assert not inside(lambda op, x, k: op.Mul(op.Neg(op.Exp(x)), k))
    (match,) = inside(lambda op, x, k: op.Mul(op.Neg(op.captured(op.Exp(x))), k))
    assert bound(match)["x"] == "x"
    assert [node.op for node in match.nodes] == ["Mul", "Neg"], "what stands outside is looked at only"
    with pytest.raises(TypeError, match="not an operation"):
        read_pattern(lambda op, x: op.captured(op.Neg(x)))


def test_a_captured_constant_is_a_constant() -> None:
    assert inside(lambda op, x: op.Mul(x, 0.5))
    assert not inside(lambda op, x: op.Mul(x, 0.25))


def test_a_value_of_the_same_scope_is_not_captured() -> None:
    assert not fits(lambda op, x: op.Exp(op.captured(op.Neg(x))), "z = Exp(Neg(x))")


# ---- what is not what it looks like ----------------------------------------------------------------------------------


def test_an_overridable_number_is_no_number_of_the_pattern() -> None:
    for given, inside, good in ((", k = 0.5", "", False), ("", "k = 0.5", True)):
        text = f"(x: float32[N]{given}) -> (z) {{ {inside} z = Mul(x, k) }}"
        assert fits(lambda op, x: op.prod(x, 0.5), text) is good
        assert fits(lambda op, x: op.scaled(x, 0.5), text) is good
        assert fits(lambda op, x: op.Mul(x, 0.5), text) is good


def test_overridable_axes_are_not_known() -> None:
    for given, inside, good in ((", a = [-1]", "", False), ("", "a = [-1]", True)):
        assert fits(mean_last, f"(x: float32[N, 4]{given}) -> (z) {{ {inside} z = ReduceMean(x, a) }}") is good


def test_overridable_initializers_are_not_equal_constants() -> None:
    def pattern(op: Ops, a: Value, w: Value) -> Expr:
        return op.Sub(op.MatMul(a, w), op.Add(a, w))

    weights = "v = float32[2, 2] random(1){0} w = float32[2, 2] random(1)"
    for given, inside, good in ((", " + weights.format(","), "", False), ("", weights.format(""), True)):
        text = f"(x: float32[2, 2]{given}) -> (z) {{ {inside} z = Sub(MatMul(x, v), Add(x, w)) }}"
        assert fits(pattern, text) is good


def test_an_infinite_number_is_close_to_itself_only() -> None:
    for number, good in (("-inf", True), ("-3.4028235e38", False), ("-1e4", False), ("inf", False), ("nan", False)):
        assert fits(lambda op, x: op.Max(x, -math.inf), f"z = Max(x, {number})") is good
        assert not fits(lambda op, x: op.Max(x, -1e30), f"z = Max(x, {number})")


def in_two_domains(text: str) -> str:
    return f"opset 20, my 1 (x: float32[N, 4], y: float32[N, 4]) -> (z) {{ {text} }}"


def parsed(pattern: Callable[..., Any], text: str) -> bool:
    model = parse(in_two_domains(text))
    infer(model)
    return bool(matches(pattern, model))


def test_a_cast_of_unknown_type_a_mask_and_a_namesake_are_no_copies() -> None:
    def exp_of_mine(op: Ops, x: Value) -> Expr:
        return op.Exp(op.Unheard(x, domain="my"))

    assert parsed(exp_of_mine, "z = Exp(my.Unheard(x))")
    assert not parsed(exp_of_mine, "z = Exp(Cast(my.Unheard(x), to=float32))")
    assert not parsed(lambda op, x: op.Exp(op.Relu(x)), "z = Exp(my.Identity(Relu(x)))")
    for read, good in (("m", False), ("d", True)):
        text = f"d, m = Dropout(Relu(x)) z = Cast({read}, to=float16)"
        assert parsed(lambda op, x: op.Cast(op.Relu(x), ...), text) is good


def test_an_operation_of_another_domain_is_another() -> None:
    def scaled(op: Ops, x: Value) -> Expr:
        return op.Exp(op.scaled(x, 0.5))

    def summed(op: Ops, x: Value) -> Expr:
        return op.Exp(op.sum(x, 0.5))

    def added(op: Ops, x: Value) -> Expr:
        return op.Add(op.Exp(x), x, domain="my")

    assert parsed(lambda op, x: op.Relu(x), "z = Relu(x)")
    assert not parsed(lambda op, x: op.Relu(x), "z = my.Relu(x)")
    assert parsed(scaled, "z = Exp(Mul(x, 0.5))")
    assert not parsed(scaled, "z = Exp(my.Mul(x, 0.5))")
    assert parsed(summed, "z = Exp(Add(x, 0.5))")
    assert not parsed(summed, "z = Exp(my.Add(x, 0.5))")
    assert parsed(added, "z = my.Add(Exp(x), x)")
    assert not parsed(added, "z = my.Add(x, Exp(x))")


def test_a_default_is_that_of_the_opset() -> None:
    def pattern(op: Ops, a: Value) -> Expr:
        return op.Softmax(a)

    for opset, axis in ((11, 1), (20, -1)):
        assert fits(pattern, f"z = Softmax(x, axis={axis})", opset)
        assert not fits(pattern, "z = Softmax(x, axis=0)", opset)


# ---- each_use and roots ----------------------------------------------------------------------------------------------


def test_what_is_bound_before_each_use_holds_in_every_use() -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return op.each_use(op.Relu(x), lambda y: op.Add(y, x))

    text = "(x: float32[4], u: float32[4]) -> (a) {{ z = Relu(x) a = Add(z, {}) }}"
    assert matches(pattern, graph(text.format("x")))
    assert not matches(pattern, graph(text.format("u")))


def test_what_must_broadcast_in_a_use_does() -> None:
    def pattern(op: Ops, x: Annotated[Value, like(dims=("N", "K"))], b: Annotated[Value, like(into=("K",))]) -> Expr:
        return op.each_use(op.Relu(x), lambda y: op.Add(y, b))

    text = "(x: float32[N, 4]) -> (a) {{ z = Relu(x) a = Add(z, float32[{}] random(1)) }}"
    assert matches(pattern, graph(text.format("4")))
    assert not matches(pattern, graph(text.format("1, 4")))


def test_two_roots_are_two_values() -> None:
    assert not matches(two_products, graph("(x: float32[N, 2]) -> (z) { z = MatMul(x, float32[2, 2] random(1)) }"))


# ---- complete backtracking, one choice at a time ---------------------------------------------------------------------


def test_a_later_failure_reopens_the_operands_of_one_node() -> None:
    def pattern(op: Ops, a: Value, b: Value) -> Expr:
        return op.Sub(op.Add(a, b), op.Neg(a))

    for first in "xy":
        (match,) = matches(pattern, graph(f"z = Sub(Add(x, y), Neg({first}))"))
        assert bound(match)["a"] == first


def test_an_operand_is_matched_in_another_way_where_the_next_fails() -> None:
    def pattern(op: Ops, a: Value, b: Value) -> Expr:
        return op.sum(op.Exp(op.Add(a, b)), op.Neg(a))

    for first in "xy":
        (match,) = matches(pattern, graph(f"z = Add(Exp(Add(x, y)), Neg({first}))"))
        assert bound(match)["a"] == first


def test_every_way_to_read_a_sum_is_tried() -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return op.sum(op.Add(op.Relu(x), op.Exp(x)), op.Abs(x), op.Neg(x), op.Tanh(x))

    kept, split = "Add(Relu(x), Exp(x))", "Add(Abs(x), Neg(x))"
    for order in (f"{kept}, {split}", f"{split}, {kept}"):
        assert fits(pattern, f"z = Add(Add({order}), Tanh(x))")
        assert fits(pattern, f"z = Add(Tanh(x), Add({order}))")


def test_a_later_failure_reopens_a_number_that_may_be_either() -> None:
    def pattern(op: Ops, x: Value, a: Number | None = None, b: Number | None = None) -> Expr:
        return op.Sub(op.Neg(op.scaled(x, expr(a) | expr(b))), op.Pow(x, a))

    (match,) = matches(pattern, graph("z = Sub(Neg(Div(x, 2.0)), Pow(x, 3.0))"))
    assert (match.bindings["a"], match.bindings["b"]) == (3.0, 0.5)


def test_a_later_failure_reopens_which_of_two_is_absent() -> None:
    def pattern(op: Ops, x: Value, a: Number | None = None, b: Number | None = None) -> Expr:
        return op.Sub(op.Clip(x, expr(a) | expr(b), 6.0), op.Clip(x, a, 7.0))

    (match,) = matches(pattern, graph("z = Sub(Clip(x, _, 6.0), Clip(x, 1.0, 7.0))"))
    assert (match.bindings["a"], match.bindings["b"]) == (1.0, None)


def test_an_alternative_forgets_its_factors() -> None:
    def pattern(op: Ops, a: Value, s: Factor) -> Expr:
        return op.Sub(op.prod(a, s) | a, op.Exp(a))

    model = graph("m = Mul(x, 2.0) z = Sub(m, Exp(m))")
    (match,) = Matcher(read_pattern(pattern)).matches(model.graph.names["z"].node)
    assert (match.bindings["a"].name, match.bindings["s"]) == ("m", 1.0)


@pytest.mark.parametrize("name", ["Add", "Mul", "Max", "Min", "Sum", "Mean", "Equal"])
def test_operands_that_may_change_places(name: str) -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return getattr(op, name)(op.Relu(x), op.Exp(x))

    assert fits(pattern, f"z = {name}(Exp(x), Relu(x))")
    assert not fits(pattern, f"z = {name}(Exp(x), Exp(x))")


def test_a_factor_that_was_never_tried_is_one_and_a_number_none() -> None:
    def pattern(op: Ops, a: Value, s: Factor, k: Number | None = None) -> Expr:
        return op.Exp(op.Neg(a) | op.prod(a, s) | op.Clip(a, k))

    (match,) = matches(pattern, graph("z = Exp(Neg(x))"))
    assert (match.bindings["s"], match.bindings["k"]) == (1.0, None)


# ---- what is subtracted or divided by --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "agree"),
    [
        ("Div(Mul(x, Exp(x)), Sqrt(x))", True),
        ("Mul(Exp(x), Div(x, Sqrt(x)))", True),
        ("Mul(Mul(Div(1.0, Sqrt(x)), x), Exp(x))", True),
        ("Div(x, Div(Sqrt(x), Exp(x)))", False),
        ("Div(Sqrt(x), Mul(x, Exp(x)))", False),
        ("Mul(Mul(x, Sqrt(x)), Exp(x))", False),
    ],
)
def test_a_product_with_an_inverse_may_be_a_division(text: str, agree: bool) -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return op.prod(x, op.Exp(x), 1.0 / op.Sqrt(x))

    assert fits(pattern, f"z = {text}") is agree


@pytest.mark.parametrize(
    ("text", "agree"),
    [
        ("Sub(x, Exp(x))", True),
        ("Add(Neg(Exp(x)), x)", True),
        ("Add(x, Mul(Exp(x), -1.0))", True),
        ("Sub(Exp(x), x)", False),
        ("Add(x, Exp(x))", False),
        ("Sub(x, Neg(Exp(x)))", False),
    ],
)
def test_a_sum_with_a_negated_value_may_be_a_difference(text: str, agree: bool) -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        return op.sum(x, op.Neg(op.Exp(x)) | op.scaled(op.Exp(x), -1.0))

    assert fits(pattern, f"z = {text}") is agree


def test_a_division_of_integers_is_no_product() -> None:
    def pattern(op: Ops, x: Value, y: Value) -> Expr:
        return op.prod(x, op.Reciprocal(y))

    assert fits(pattern, "(x: float32[4], y: float32[4]) -> (z) { z = Div(x, y) }")
    assert not fits(pattern, "(x: int32[4], y: int32[4]) -> (z) { z = Div(x, y) }")


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_two_constants_that_raise_the_rank_do_not_excuse_each_other() -> None:
    def chosen(op: Ops, c: Value) -> Expr:
        return op.Where(c, 0.0, 1.0)

    text = "(c: bool[N, 4]) -> (z) {{ z = Where(c, float32[{0}] 0.0, float32[{0}] 1.0) }}"
    assert fits(chosen, text.format("1, 1"))
    assert not fits(chosen, text.format("1, 1, 1"))


def test_integers_are_equal_or_not() -> None:
    for number, good in ((10_000_000, True), (10_000_001, False)):
        assert fits(lambda op, x: op.sum(x, 1e7), f"(x: int64[N]) -> (z) {{ z = Add(x, {number}) }}") is good


def number_added(op: Ops, x: Value, k: Number) -> Expr:
    return op.sum(x, k)


def test_what_a_float_cannot_hold_is_no_number() -> None:
    assert fits(number_added, f"(x: int64[N]) -> (z) {{ z = Add(x, {1 << 53}) }}")
    assert not fits(number_added, f"(x: int64[N]) -> (z) {{ z = Add(x, {(1 << 53) + 1}) }}")
    assert fits(number_added, "z = Add(x, inf)")
    assert not fits(number_added, "z = Add(x, nan)")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (lambda op, x, y: op.prod(x, op.Neg(y)), "z = Div(x, y)"),
        (lambda op, x, y: op.prod(x, op.scaled(y, -1.0)), "z = Div(x, y)"),
        (lambda op, x, y: op.prod(x, op.Div(2.0, y)), "z = Div(x, y)"),
        (lambda op, x, y: op.sum(x, op.Reciprocal(y)), "z = Sub(x, y)"),
        (lambda op, x, y: op.sum(x, op.Div(1.0, y)), "z = Sub(x, y)"),
        (lambda op, x, y: op.sum(x, op.scaled(y, -2.0)), "z = Sub(x, y)"),
    ],
)
def test_what_is_subtracted_is_no_divisor(pattern: Callable[..., Any], text: str) -> None:
    assert not fits(pattern, text)


def test_each_use_takes_what_reads_a_copy() -> None:
    text = "(x: float32[2, 2]) -> (a, b) {{ z = Relu(x) a = MatMul(z, float32[2, 2] random(1)) b = {} }}"
    (match,) = matches(each, graph(text.format("MatMul(Identity(z), float32[2, 2] random(2))")))
    assert [root.name for root in match.roots] == ["a", "b"]
    assert sorted(node.op for node in match.nodes) == ["Identity", "MatMul", "MatMul", "Relu"]
    assert not matches(each, graph(text.format("Neg(Identity(z))")))


def test_a_number_in_an_alternative_does_not_raise_the_rank() -> None:
    def pattern(op: Ops, x: Value, y: Value) -> Expr:
        return op.Add(op.Relu(x), op.Neg(y) | 1.0)

    assert fits(pattern, "(x: float32) -> (z) { z = Add(Relu(x), float32 1.0) }")
    assert fits(pattern, "(x: float32[1]) -> (z) { z = Add(Relu(x), float32[1] {1}) }")
    assert not fits(pattern, "(x: float32) -> (z) { z = Add(Relu(x), float32[1] {1}) }")


@pytest.mark.parametrize(
    ("inverse", "text"),
    [
        (lambda op, x, y, domain: op.sum(x, op.Neg(y, domain=domain)), "z = Sub(x, y)"),
        (lambda op, x, y, domain: op.prod(x, op.Reciprocal(y, domain=domain)), "z = Div(x, y)"),
        (lambda op, x, y, domain: op.prod(x, op.Div(1.0, y, domain=domain)), "z = Div(x, y)"),
    ],
)
def test_what_another_domain_computes_is_neither_subtracted_nor_a_divisor(
    inverse: Callable[..., Expr], text: str
) -> None:
    assert fits(lambda op, x, y: inverse(op, x, y, ""), text)
    assert not fits(lambda op, x, y: inverse(op, x, y, "my"), text)


# ---- parts and roots, however they are written -----------------------------------------------------------------------


def test_a_part_of_an_anchor_that_stands_twice_is_one_value() -> None:
    def relu(op: Ops, x: Value) -> Expr:
        part = op.Relu(x)
        return op.anchor(op.Mul(part, part), part)

    def chain(op: Ops, x: Value) -> Expr:
        part = op.sum(op.check(x, always) | op.Exp(x), 1.0)
        return op.anchor(op.Mul(part, part), part)

    for pattern, part in ((relu, "Relu(x)"), (chain, "Add(x, 1.0)")):
        assert [match.roots[0].name for match in matches(pattern, graph(f"r = {part} z = Mul(r, r)"))] == ["r"]
        assert not fits(pattern, f"z = Mul({part}, {part})")


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (lambda op, x, y: op.check(op.Relu(x), always), "u = Relu(x)"),
        (lambda op, x, y: op.Neg(op.check(op.Relu(x), always)), "u = Neg(Relu(x))"),
        (lambda op, x, y: op.Neg(op.check(x, always)), "u = Neg(x)"),
        (lambda op, x, y: op.sum(y, op.Neg(x)), "u = Sub(y, x)"),
        (lambda op, x, y: op.prod(y, op.Reciprocal(x)), "u = Div(y, x)"),
        (lambda op, x, y: op.prod(y, 1.0 / op.check(x, always)), "u = Div(y, x)"),
    ],
)
def test_a_further_root_may_be_checked_or_an_inverse(second: Callable[..., Expr], text: str) -> None:
    def pattern(op: Ops, x: Value, y: Value) -> tuple[Expr, Expr]:
        return op.Exp(x), second(op, x, y)

    model = graph(f"(x: float32[4], y: float32[4]) -> (z, u) {{ z = Exp(x) {text} }}")
    assert [[root.name for root in match.roots] for match in matches(pattern, model)] == [["z", "u"]]


def optional_last(op: Ops, x: Value, b: Const | None = None) -> Expr:
    return op.Max(op.Relu(x), op.Exp(x), b)


def optional_first(op: Ops, x: Value, b: Const | None = None) -> Expr:
    return op.Max(b, op.Relu(x), op.Exp(x))


def with_more(op: Ops, x: Value) -> Expr:
    return op.Max(op.Relu(x), op.Exp(x), ...)


@pytest.mark.parametrize("pattern", [optional_last, optional_first, with_more])
def test_operands_match_in_any_order_where_some_may_be_missing(pattern: Callable[..., Any]) -> None:
    for operands in (["Relu(x)", "Exp(x)"], ["Relu(x)", "Exp(x)", "2.0"]):
        for order in itertools.permutations(operands):
            assert len(matches(pattern, graph(f"z = Max({', '.join(order)})"))) == 1
    assert not fits(pattern, "z = Max(Exp(x), 2.0)")
    assert fits(pattern, "z = Max(y, Exp(x), Relu(x))") is (pattern is with_more)


def softmax_of(op: Ops, x: Value, others: Attrs) -> Expr:
    return op.Softmax(op.Split(x, others=others)[1], axis=-1)


def test_attributes_that_are_not_named_are_kept_as_they_are() -> None:
    (match,) = matches(softmax_of, graph("a, b = Split(x, axis=2, num_outputs=2)  z = Softmax(b, axis=2)"))
    assert match.bindings["others"] == {"axis": 2, "num_outputs": 2}
    assert not fits(softmax_of, "a, b = Split(x, axis=2, num_outputs=2)  z = Softmax(b, axis=1)")


def test_attributes_that_a_caller_gives_are_not_kept() -> None:
    def pattern(op: Ops, x: Value, others: Attrs) -> Expr:
        return op.Softmax(x, others=others)

    model = parse(
        "(x: float32[4]) -> (y) { y = f.g(x) } function f.g (a, axis = @) -> (z) { z = Softmax(a, axis=@axis) }"
    )
    (function,) = model.functions.values()
    assert not list(Matcher(read_pattern(pattern), budget=100).matches(function.graph.names["z"].node))


def test_attributes_of_two_operations_are_the_same() -> None:
    def pattern(op: Ops, x: Value, others: Attrs) -> Expr:
        return op.Softmax(op.Softmax(x, others=others), others=others)

    assert fits(pattern, "z = Softmax(Softmax(x, axis=1), axis=1)")
    assert not fits(pattern, "z = Softmax(Softmax(x, axis=1), axis=2)")


def test_a_branch_that_was_not_taken_before_each_use_binds_nothing() -> None:
    def pattern(op: Ops, x: Value, k: Const | None = None, d: Const | None = None, w: Const | None = None) -> Expr:
        return op.each_use(op.Mul(x, k) | op.Div(x, d), lambda y: op.MatMul(y, w))

    model = graph("h = Mul(x, 2.0)  z = MatMul(h, float32[8, 8] random(1))")
    (match,) = matches(pattern, model, "h")
    assert match.bindings["d"] is None
    assert isinstance(match.bindings["k"], Value)
    assert len(match.bindings["w"]) == 1


def test_an_alternative_that_stands_twice_goes_the_same_way_both_times() -> None:
    def pattern(op: Ops, x: Value) -> Expr:
        either = op.Exp(x) | op.Exp(op.Neg(x)) | op.Exp(x) * 2.0
        return op.Div(either, op.ReduceSum(either, axes=[-1]))

    for one in ("Exp(x)", "Exp(Neg(x))", "Mul(Exp(x), 2.0)"):
        assert fits(pattern, f"e = {one} z = Div(e, ReduceSum(e, [-1]))")
    assert not fits(pattern, "z = Div(Exp(x), ReduceSum(Exp(Neg(x)), [-1]))")
    assert not fits(pattern, "z = Div(Exp(Neg(x)), ReduceSum(Exp(x), [-1]))")
