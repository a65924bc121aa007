"""Two models side by side: how much is the same, where they part, and where their numbers do."""

from __future__ import annotations

import pytest

from graphopt.ir.text import parse
from graphopt.verify import Parting, compare
from graphopt.verify.align import Alignment

NET = """
opset 20
(x: float32[N, 16], m: int64[N]) -> (y, k) {
  w = float32[16, 16] random(1)
  g = float32[16] random(2)
  a = MatMul(x, w)
  b = Gelu(a)
  c = Mul(b, g)
  d = Relu(Add(c, 0.25))
  y = Softmax(d, axis=-1)
  k = Add(m, 1)
}
"""


def renamed(text: str) -> str:
    """The same model with other names inside."""
    for name in "abcdwg":
        for before, after in (" {} ", " {} "), ("({},", "({},"), ("({})", "({})"), (", {})", ", {})"):
            text = text.replace(before.format(name), after.format(f"t{name}"))
    return text


def parting(old: str, new: str) -> Parting:
    assert old in NET
    found = compare(parse(NET), parse(renamed(NET.replace(old, new)))).parting
    assert found is not None
    return found


def test_a_model_with_other_names_is_the_same() -> None:
    alignment = Alignment(parse(NET), parse(renamed(NET)))
    assert alignment.is_equal
    assert alignment.parting() == Parting(7, 7)
    # Not names, but what they stand for: here two have changed places.
    swapped = (
        NET.replace(" b = ", " q = ").replace("Mul(b", "Mul(q").replace(" a = ", " b = ").replace("Gelu(a", "Gelu(b")
    )
    assert Alignment(parse(NET), parse(swapped)).is_equal


@pytest.mark.parametrize(
    ("old", "new", "place", "difference"),
    [
        ("axis=-1", "axis=0", "'y' (Softmax)", "axis is -1 and 0"),
        ("0.25", "0.26", "(Add)", "is 0.25 and 0.26"),
        ("random(1)", "random(3)", "'a' (MatMul)", "the constant 'w' float32[16, 16] holds other numbers"),
        ("Gelu(a)", 'Gelu(a, approximate="tanh")', "'b' (Gelu)", "approximate is none and tanh"),
        ("Add(m, 1)", "Sub(m, 1)", "'k' (Add)", ""),
    ],
)
def test_one_node_that_differs_is_found_from_both_sides(old: str, new: str, place: str, difference: str) -> None:
    found = parting(old, new)
    assert (found.same, found.total) == (6, 7)
    assert place in found.reference
    assert difference in found.difference
    assert found.value


def test_what_was_spelled_in_parts_parts_there_and_is_the_same_after() -> None:
    found = parting("b = Gelu(a)", "b = Mul(Mul(a, Add(Tanh(Div(a, 1.4142135)), 1.0)), 0.5)")
    assert (found.same, found.total) == (6, 11)
    assert (found.reference, found.candidate) == ("'b' (Gelu)", "'tb' (Mul)")
    assert found.value.startswith("'b' and 'tb' (Gelu), off by")


def test_operands_in_another_order_are_the_same_ones() -> None:
    found = parting("c = Mul(b, g)", "c = Mul(g, b)")
    assert found.value == ""
    wrong = parting("c = Mul(b, g)", "c = Mul(g, Abs(b))")
    assert (wrong.same, wrong.total) == (7, 8)
    assert wrong.difference == "it reads 'b' (Gelu) and 'abs' (Abs)"
    assert wrong.value.startswith("'b' and 'abs' (Gelu)")


def test_another_order_of_operands_is_said() -> None:
    text = "opset 20\n(x: float32[N], z: float32[N]) -> (y) {{ a = Add({}) y = {} }}"
    found = compare(parse(text.format("x, z", "Neg(a)")), parse(text.format("z, x", "Sub(0.0, a)"))).parting
    assert found is not None
    assert found.difference == "it reads the same in another order"


def test_the_first_of_many_values_is_found() -> None:
    def chain(changed: int) -> str:
        lines = [f"v{i + 1} = {'Tanh' if i == changed else 'Atan'}(v{i})" for i in range(200)]
        return f"opset 17\n(v0: float32[8]) -> (v200) {{ {chr(10).join(lines)} }}"

    found = compare(parse(chain(-1)), parse(chain(123)))
    assert found.parting is not None
    assert (found.parting.same, found.parting.total) == (199, 200)
    assert found.parting.reference == "'v124' (Atan)"
    assert found.parting.value.startswith("'v124' (Atan)")


def test_what_differs_where_the_outputs_are_equal_is_no_place() -> None:
    text = "opset 17\n(x: float32[N, 4]) -> (y) {{ t = Mul(x, {})\n s = Mul(t, {})\n q = {}\n y = Add(q, 3.0) }}"
    found = compare(parse(text.format(2.0, 0.5, "Abs(s)")), parse(text.format(4.0, 0.25, "Min(Abs(s), 50.0)")))
    assert found.verdict == "unequal"  # for large numbers
    assert found.parting is not None
    assert found.parting.value.startswith("'q' (Abs)")


def test_names_tell_what_corresponds_where_most_survive() -> None:
    text = "(x: float32[N, 4]) -> (y) {{ p = Exp({0}) q = Neg({0}) s = Add({1}) r = Relu(s) t = Tanh(r) y = Erf(t) }}"
    models = parse(text.format("x", "p, q")), parse(text.format("Mul(x, 1.5)", "q, p"))
    names = [(a.name, b.name) for a, b in Alignment(*models).couples()]
    assert names == [(name, name) for name in "pqsrty"]
