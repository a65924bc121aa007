"""Models that draw random numbers: draws are counted, and both models draw the same."""

from __future__ import annotations

import pytest

from graphopt.ir.text import parse
from graphopt.verify import Verification, check, compare
from graphopt.verify.random_ops import Seeds, count, difference

NOISE = """
opset 17
(x: float32[4, 8]) -> (y) {
  r = RandomNormalLike(x)
  s = RandomNormalLike(x)
  d = Sub(r, s)
  e = Mul(Mul(d, 2.0), 0.5)
  y = Add(x, e)
}
"""

BRANCH = """
opset 17, mine 1
(x: float32[8], c: bool[]) -> (y, z) {
  a = Mul(Mul(x, 4.0), 0.25)
  y = If(c, then_branch=() -> (p: float32[8]) { p = RandomUniformLike(a) },
            else_branch=() -> (q: float32[8]) { q = Neg(a) })
  f = mine.F(a)
  z = mine.F(f)
}
function mine.F(u) -> (v) { n = RandomNormalLike(u)\n v = Add(u, n) }
"""

DROPOUT = "opset 17\n(x: float32[64]) -> (y) {{ a = Mul(Mul(x, 4.0), 0.25)\n y = Dropout(a, 0.5, {}) }}"


def both(original: str, candidate: str) -> list[Verification]:
    """By regions, and by whole models."""
    return [function(parse(original), parse(candidate)) for function in (check, compare)]


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (NOISE, "Mul(Mul(d, 2.0), 0.5)", "Mul(d, 1.0)"),
        (BRANCH, "Mul(Mul(x, 4.0), 0.25)", "Mul(x, 1.0)"),
        (DROPOUT.format("true"), "Mul(Mul(x, 4.0), 0.25)", "Mul(x, 1.0)"),
    ],
)
def test_a_right_rewrite_of_what_is_random_is_equal(text: str, old: str, new: str) -> None:
    assert old in text
    assert [(found.verdict, found.decided_by) for found in both(text, text.replace(old, new))] == [
        ("equal", "regions"),
        ("equal", "end-to-end"),
    ]


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (NOISE, "Mul(Mul(d, 2.0), 0.5)", "Mul(d, 1.01)"),
        (NOISE, "d = Sub(r, s)", "d = Sub(r, r)\n t = Mul(s, 0.0)\n"),
        (BRANCH, "Add(u, n)", "Sub(u, n)"),
        (BRANCH, "p = RandomUniformLike(a)", "w = RandomUniformLike(a)\n p = Mul(w, 1.01)"),
    ],
)
def test_a_wrong_rewrite_of_what_is_random_is_unequal(text: str, old: str, new: str) -> None:
    assert old in text
    assert {found.verdict for found in both(text, text.replace(old, new))} == {"unequal"}


@pytest.mark.parametrize(
    ("text", "old", "new", "word"),
    [
        (NOISE, "Sub(r, s)", "Sub(r, r)", "RandomNormalLike: 2 and 1"),
        (NOISE, "s = RandomNormalLike(x)", "s = RandomNormalLike(x, scale=2.0)", "scale=2.0"),
        (BRANCH, "p = RandomUniformLike(a)", "p = Abs(a)", "RandomUniformLike: 1 and 0"),
        (BRANCH, "z = mine.F(f)", "z = Abs(f)", "RandomNormalLike: 2 and 1"),
        (DROPOUT.format("true"), "y = Dropout(a, 0.5, true)", "y = Identity(a)", "Dropout: 1 and 0"),
    ],
)
def test_another_number_of_draws_is_unequal_by_structure(text: str, old: str, new: str, word: str) -> None:
    assert old in text
    for found in both(text, text.replace(old, new)):
        assert (found.verdict, found.decided_by) == ("unequal", "structure")
        assert word in found.reason


def test_a_draw_that_nobody_needs_and_dropout_in_inference_do_not_count() -> None:
    text = NOISE.replace("d = Sub(r, s)", "t = RandomUniformLike(x)\n d = Sub(r, s)")
    assert difference(parse(NOISE), parse(text)) == ""
    assert not count(parse(DROPOUT.format("false")))


def test_a_dropout_of_nothing_is_no_draw() -> None:
    nothing = DROPOUT.format("true").replace("0.5", "0.0")
    removed = nothing.replace("Dropout(a, 0.0, true)", "Identity(a)")
    assert removed != nothing
    assert {found.verdict for found in both(nothing, removed)} == {"equal"}


def test_a_draw_of_which_only_the_known_size_is_read_does_not_count() -> None:
    text = "opset 17\n(x: float32[2, 3]) -> (y) {{ r = RandomUniformLike(Abs(x))\n s = Shape({})\n y = Expand(x, s) }}"
    assert {found.verdict for found in both(text.format("r"), text.format("x"))} == {"equal"}
    unknown = text.replace("float32[2, 3]", "float32[N, 3]").format("NonZero(r)")
    assert count(parse(unknown)).total() == 1


def test_a_function_called_twice_is_drawn_from_twice() -> None:
    twice = "opset 17, mine 1\n(x: float32[8]) -> (y) {{ a = mine.F(x)\n b = {}\n y = Sub(a, b) }}"
    body = "\nfunction mine.F(u) -> (v) { n = RandomNormalLike(u)\n v = Add(u, n) }"
    found = compare(parse(twice.format("mine.F(x)") + body), parse(twice.format("Identity(a)") + body))
    assert (found.verdict, found.decided_by) == ("unequal", "structure")


def test_a_function_that_draws_may_be_inlined() -> None:
    inlined = BRANCH[: BRANCH.index("function")].replace("f = mine.F(a)", "m = RandomNormalLike(a)\n f = Add(a, m)")
    inlined = inlined.replace("z = mine.F(f)", "o = RandomNormalLike(f)\n z = Add(f, o)")
    assert compare(parse(BRANCH), parse(inlined)).verdict == "equal"


def test_draws_stand_for_each_other_by_name_and_then_in_the_order_of_use() -> None:
    first, second = parse(NOISE), parse(NOISE.replace("r = R", "new = R").replace("Sub(r, s)", "Sub(new, s)"))
    seeds = Seeds(first, second)

    def seed(model: object, name: str) -> int:
        return seeds._of[model.graph.names[name].node]  # type: ignore[attr-defined]

    assert seed(first, "r") == seed(second, "new") != seed(first, "s") == seed(second, "s")


def test_a_seed_that_is_written_stays() -> None:
    text = "opset 17\n(x: float32[4]) -> (y) {{ r = RandomNormalLike(x, seed={}.0)\n y = Add(x, r) }}"
    assert compare(parse(text.format(1)), parse(text.format(2))).verdict == "unequal"
