"""Symbolic dimensions: arithmetic on them is arithmetic on the numbers they stand for, and their text says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.ir import dims
from graphopt.ir.dims import Dim, Size
from graphopt.ir.inference import sizes

A, B = dims.symbol("a"), dims.symbol("b")

small = st.integers(-6, 6)
polynomials: st.SearchStrategy[Size] = st.recursive(
    st.one_of(small, st.sampled_from([A, B, dims.symbol("c d")])),
    lambda inner: st.one_of(
        *(st.builds(operation, inner, inner) for operation in (dims.add, dims.sub)),
        st.builds(dims.mul, inner, small | st.just(A)),
    ),
    max_leaves=6,
)
numbers = st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.integers(0, 9), "c d": st.integers(0, 9)})
quick = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize(
    ("operation", "meant"),
    [(dims.add, int.__add__), (dims.sub, int.__sub__), (dims.mul, int.__mul__)],
    ids=["add", "sub", "mul"],
)
@quick
@given(a=polynomials, b=polynomials, at=numbers)
def test_arithmetic_is_that_of_numbers(
    operation: Callable[[Size, Size], Size], meant: Callable[[int, int], int], a: Size, b: Size, at: Mapping[str, int]
) -> None:
    found = operation(a, b)
    assert dims.evaluate(found, at) == meant(dims.evaluate(a, at), dims.evaluate(b, at))
    assert isinstance(found, int) or dims.symbols(found)


@quick
@given(a=polynomials, b=polynomials)
def test_one_polynomial_has_one_form(a: Size, b: Size) -> None:
    assert dims.add(a, b) == dims.add(b, a)
    assert dims.mul(a, b) == dims.mul(b, a)
    assert dims.sub(dims.add(a, b), b) == a
    assert hash(dims.sub(dims.add(a, b), b)) == hash(a)


@quick
@given(a=polynomials, factor=st.sampled_from([1, 2, -3, A, dims.mul(A, 2), dims.mul(A, B)]))
def test_what_was_multiplied_divides(a: Size, factor: Size) -> None:
    assert dims.divide(dims.mul(a, factor), factor) == a


@quick
@given(a=polynomials, b=polynomials, at=numbers)
def test_a_quotient_that_is_said_is_exact(a: Size, b: Size, at: Mapping[str, int]) -> None:
    found = dims.divide(a, b)
    below = dims.evaluate(b, at)
    if found is not None and below:
        assert dims.evaluate(found, at) * below == dims.evaluate(a, at)


@quick
@given(a=polynomials)
def test_text_says_what_a_polynomial_is(a: Size) -> None:
    """But for a number that no size can be, and a name that is no identifier."""
    opaque = isinstance(a, int) and a < 0
    assert dims.parse(str(a)) == (dims.symbol(str(a)) if opaque else a) or "c d" in dims.symbols(a)


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        (6, 3, 2),
        (7, 3, None),
        (7, 0, None),
        (0, A, 0),
        (dims.add(A, B), dims.add(A, B), 1),
        (dims.add(A, B), dims.add(A, 1), None),
        (dims.mul(A, 3), dims.mul(A, 2), None),
        (dims.mul(A, B), dims.mul(A, A), None),
        (A, B, None),
    ],
)
def test_divide(a: Size, b: Size, wanted: Size | None) -> None:
    assert dims.divide(a, b) == wanted


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [(7, 2, "3"), (-7, 2, "-4"), (dims.mul(A, 4), 2, "2*a"), (A, 2, "((a)//(2))"), (A, B, "((a)//(b))")],
)
def test_floordiv(a: Size, b: Size, text: str) -> None:
    assert str(dims.floordiv(a, b)) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("batch", dims.symbol("batch")),
        ("2*s0 + 1", dims.add(dims.mul(dims.symbol("s0"), 2), 1)),
        ("a - b", dims.sub(A, B)),
        ("(a + b)*2", dims.mul(dims.add(A, B), 2)),
        ("6 // 2", 3),
        ("4*a//2", dims.mul(A, 2)),
        ("batch size", dims.symbol("batch size")),
        ("a/b", dims.symbol("a/b")),
        ("-1 + a", dims.sub(A, 1)),
        ("a + -2*b", dims.sub(A, dims.mul(B, 2))),
        ("-1", dims.symbol("-1")),
        ("+a", dims.symbol("+a")),
        ("a % 2", dims.symbol("a % 2")),
        ("a.b", dims.symbol("a.b")),
        ("f(a)", dims.symbol("f(a)")),
        ("1.5", dims.symbol("1.5")),
        ("", dims.symbol("")),
        ("a +", dims.symbol("a +")),
    ],
)
def test_what_a_name_of_a_file_means(text: str, wanted: Size) -> None:
    assert dims.parse(text) == wanted


def test_symbols_and_products() -> None:
    whole = dims.product([A, 2, dims.add(B, 1)])
    assert whole == dims.add(dims.mul(dims.mul(A, B), 2), dims.mul(A, 2))
    assert dims.product([]) == 1
    assert dims.symbols(whole) == {"a", "b"}
    assert dims.symbols(7) == set()
    with pytest.raises(KeyError):
        dims.evaluate(whole, {"a": 1})


def test_unknowns_differ_from_each_other() -> None:
    fresh = dims.Unknowns().fresh
    assert len({fresh() for _ in range(5)}) == 5


def test_a_dimension_is_no_number_and_no_text() -> None:
    assert Dim((((), 3),)) != 3
    assert A != "a"
    assert A != B


# ---- what follows of sizes that are not negative --------------------------------------------------------------------


@quick
@given(a=polynomials, b=polynomials, at=numbers)
def test_what_is_said_of_sizes_holds_of_numbers(a: Size, b: Size, at: Mapping[str, int]) -> None:
    x, y = dims.evaluate(a, at), dims.evaluate(b, at)
    assert not sizes.nonnegative(a) or x >= 0
    assert not sizes.positive(a) or x > 0
    assert sizes.equal(a, b) in (None, x == y)
    assert sizes.less(a, b) in (None, x < y)


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        (7, 2, 3),
        (-7, 2, -3),
        (7, -2, -3),
        (-7, -2, 3),
        (0, 5, 0),
        (5, 0, None),
        (A, 0, None),
        (dims.mul(A, 6), 3, dims.mul(A, 2)),
        (A, 2, dims.floordiv(A, 2)),
        (dims.sub(A, 1), 2, None),
    ],
)
def test_integer_division_of_onnx(a: Size, b: Size, wanted: Size | None) -> None:
    assert sizes.quotient(a, b) == wanted


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (3, 5, "3"),
        (5, 3, "3"),
        (A, dims.add(A, 1), "a"),
        (dims.add(A, 1), A, "a"),
        (A, 5, "min(a,5)"),
        (5, A, "min(a,5)"),
        (B, A, "min(a,b)"),
        (dims.symbol("min(a,5)"), A, "min(a,5)"),
        (A, dims.symbol("min(a,5)"), "min(a,5)"),
        (A, None, "None"),
        (dims.sub(A, 1), B, "None"),
    ],
)
def test_minimum(a: Size | None, b: Size | None, text: str) -> None:
    assert str(sizes.minimum(a, b)) == text


@pytest.mark.parametrize(("a", "text"), [(3, "3"), (-3, "0"), (A, "a"), (dims.sub(A, 1), "max(-1 + a,0)")])
def test_clamped(a: Size, text: str) -> None:
    assert str(sizes.clamped(a)) == text


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        (1, A, A),
        (A, 1, A),
        (A, A, A),
        (7, A, 7),
        (A, 7, 7),
        (None, 7, 7),
        (7, None, 7),
        (None, A, None),
        (A, None, None),
        (None, 1, None),
        (A, B, dims.symbol("broadcast(a,b)")),
        (B, A, dims.symbol("broadcast(a,b)")),
        (dims.symbol("broadcast(a,b)"), A, dims.symbol("broadcast(a,b)")),
        (B, dims.symbol("broadcast(a,b)"), dims.symbol("broadcast(a,b)")),
        (dims.symbol("min(a,5)"), A, A),
        (A, dims.symbol("min(a,5)"), A),
    ],
)
def test_what_two_sizes_broadcast_to(a: Size | None, b: Size | None, wanted: Size | None) -> None:
    assert sizes.broadcast_one(a, b) == wanted
