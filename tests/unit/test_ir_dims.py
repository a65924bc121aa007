"""Symbolic dimensions: arithmetic on them is arithmetic on the numbers they stand for, and their text says it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.ir import dims
from graphopt.ir.dims import Dim, Size
from graphopt.ir.inference import sizes
from graphopt.ir.inference.shaping import sliced
from graphopt.ir.inference.sizes import INFINITY
from graphopt.ir.operands import Range

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


# ---- opaque sizes, evaluated: what is said of symbols holds of all numbers -------------------------------------------


class Numbers(dict[str, int]):
    """Numbers for names; an opaque name such as `min(a,3)` says itself what it is."""

    def __missing__(self, name: str) -> int:
        return int(eval(name, {"min": min, "max": max}, dict(self)))


plain_sizes = st.sampled_from([0, 1, 2, 5, A, B, dims.add(A, 2), dims.add(A, B), dims.mul(A, 3), dims.sub(A, 1)])
bounds = st.one_of(st.integers(-4, 4), st.sampled_from([A, B, dims.add(A, 1), dims.sub(A, 2), INFINITY, -INFINITY]))
at_numbers = st.fixed_dictionaries({"a": st.integers(1, 7), "b": st.integers(0, 7)})
many = settings(max_examples=300, deadline=None)


@many
@given(size=plain_sizes, start=bounds, end=bounds, step=st.sampled_from([1, 1, 1, 2, 3, -1]), at=at_numbers)
def test_the_size_that_a_slice_leaves(size: Size, start: Size, end: Size, step: int, at: dict[str, int]) -> None:
    found = sliced(size, Range(0, start, end, step))
    whole, low, high = (dims.evaluate(one, at) for one in (size, start, end))
    if found is not None:
        low = max(low, -whole) if step < 0 else low
        last: int | None = None if step < 0 and high < -whole else high
        assert dims.evaluate(found, Numbers(at)) == len(range(whole)[low:last:step])


@many
@given(a=plain_sizes, b=plain_sizes, at=at_numbers)
def test_minima_quotients_and_what_is_left_of_nothing(a: Size, b: Size, at: dict[str, int]) -> None:
    x, y = dims.evaluate(a, at), dims.evaluate(b, at)
    smaller, share = sizes.minimum(a, b), sizes.quotient(a, b)
    assert smaller is None or dims.evaluate(smaller, Numbers(at)) == min(x, y)
    assert share is None or not y or dims.evaluate(share, Numbers(at)) == int(x / y)
    assert dims.evaluate(sizes.clamped(a), Numbers(at)) == max(x, 0)


@many
@given(a=plain_sizes, b=plain_sizes, at=at_numbers)
def test_what_broadcasts(a: Size, b: Size, at: dict[str, int]) -> None:
    """Where the numbers broadcast at all, and what is said is no new name."""
    x, y = dims.evaluate(a, at), dims.evaluate(b, at)
    found = sizes.broadcast_one(a, b)
    if found is not None and "broadcast" not in str(found) and (x == y or 1 in (x, y)):
        assert dims.evaluate(found, at) == (y if x == 1 else x)
    if sizes.fits(a, b) and (x == y or 1 in (x, y)):
        assert y == (y if x == 1 else x)


@many
@given(whole=st.lists(plain_sizes, max_size=3), parts=st.lists(plain_sizes, max_size=2), at=at_numbers)
def test_what_a_reshape_has_left(whole: list[Size], parts: list[Size], at: dict[str, int]) -> None:
    found = sizes.ratio(whole, parts)
    below = math.prod(dims.evaluate(part, at) for part in parts)
    if found is not None and below:
        assert dims.evaluate(found, at) * below == math.prod(dims.evaluate(size, at) for size in whole)
    if found is not None:
        assert dims.evaluate(found, at) >= 0


@pytest.mark.parametrize(
    ("start", "end", "step", "text"),
    [
        (0, INFINITY, 1, "a"),
        (2, INFINITY, 1, "max(-2 + a,0)"),
        (-3, INFINITY, 1, "min(a,3)"),
        (0, 3, 1, "min(a,3)"),
        (0, -1, 1, "max(-1 + a,0)"),
        (B, INFINITY, 1, "max(a + -1*b,0)"),
        (-INFINITY, 3, 1, "min(a,3)"),
        (0, INFINITY, 2, "((1 + a)//(2))"),
        (-1, -INFINITY, -1, "a"),
        (-1, INFINITY, -1, "None"),
        (-3, -1, 1, "None"),
        (dims.sub(B, 1), INFINITY, 1, "None"),
        (1, dims.sub(B, 1), 1, "None"),
        (B, dims.add(B, 2), 1, "min(max(a + -1*b,0),2)"),
    ],
)
def test_slices_of_a_symbol(start: Size, end: Size, step: int, text: str) -> None:
    assert str(sliced(A, Range(0, start, end, step))) == text
