"""What is proved of the numbers in a mask."""

from __future__ import annotations

import pytest

from graphopt.ir.fills import Fill, fills, is_indicator
from graphopt.ir.infer import infer
from graphopt.ir.text import parse

LOWEST = "Where(m, 0.0, -3.4028235e38)"


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        ("Where(m, 0.0, -1e4)", Fill.ORDINARY),
        ("Where(m, 0.0, -3e38)", Fill.ORDINARY | Fill.LOW),
        (LOWEST, Fill.ORDINARY | Fill.LOWEST),
        ("Where(m, 0.0, -inf)", Fill.ORDINARY | Fill.NEGATIVE_INFINITY),
        (f"Max({LOWEST}, -3.4028233e38)", Fill.ORDINARY | Fill.LOW),
        ("Max(Where(m, 0.0, -inf), -1e4)", Fill.ORDINARY),
        (f"Max({LOWEST}, -3.4028235e38)", Fill.ORDINARY | Fill.LOWEST),
        (f"Add({LOWEST}, Where(m, 0.0, -1e4))", Fill.ORDINARY | Fill.LOWEST),
        ("Add(Where(m, 0.0, -3e38), Where(n, 0.0, -3e38))", ~Fill.OTHER),
        ("Where(m, 0.0, nan)", Fill.ORDINARY | Fill.OTHER),
        ("Where(m, 0.0, inf)", Fill.ORDINARY | Fill.OTHER),
        ("Where(m, 0.0, 3e38)", Fill.ORDINARY | Fill.OTHER),
        ("Trilu(Expand(-inf, [3, 3]), 1)", Fill.ORDINARY | Fill.NEGATIVE_INFINITY),
        ("ConstantOfShape([3])", Fill.ORDINARY),
        ("ConstantOfShape([3], value=float32[1] -inf)", Fill.NEGATIVE_INFINITY),
        ("ConstantOfShape([3], value=int64[1] -9)", Fill.ORDINARY),
        ("Min(Where(m, 0.0, -inf), 1.0)", Fill.ORDINARY | Fill.NEGATIVE_INFINITY),
        ("Cast(Where(m, 0.0, -inf), to=float32)", Fill.ORDINARY | Fill.NEGATIVE_INFINITY),
        ("Cast(m, to=float32)", Fill.ORDINARY),
        ("Cast(Cast(m, to=int64), to=float32)", Fill.ORDINARY),
        ("Mul(Cast(m, to=float32), -1e4)", Fill.ORDINARY),
        ("Mul(-3.4028235e38, Cast(m, to=float32))", Fill.ORDINARY | Fill.LOWEST),
        ("Mul(Cast(m, to=float32), nan)", Fill.ORDINARY | Fill.OTHER),
        ("Mul(Where(m, 2.0, 3.0), 0.5)", Fill.ORDINARY),
        ("Mul(Where(m, 2.0, 3.0), -1.0)", Fill.ORDINARY),
        ("Div(Where(m, 2.0, 3.0), -8.0)", Fill.ORDINARY),
        ("Add(Where(m, 0.0, -inf), Where(n, 0.0, -inf))", Fill.ORDINARY | Fill.NEGATIVE_INFINITY),
    ],
)
def test_fills(made: str, wanted: Fill) -> None:
    model = parse(f"(m: bool[N], n: bool[N]) -> (y) {{ y = {made} }}", opset=20)
    infer(model)
    assert fills(model.graph.outputs[0]) == wanted


@pytest.mark.parametrize(
    "made",
    [
        *("x", "Max(x, -1e4)", "Mul(x, 2.0)", "Div(x, 2.0)", "Cast(x, to=float32)", "Sub(1.0, x)", "Add(x, 1.0)"),
        *("Cast(Cast(x, to=float16), to=float32)", "Mul(Where(Equal(x, x), 2.0, 3.0), 2.0)"),
        *("Div(Where(Equal(x, x), 2.0, 3.0), 0.5)", "Mul(Cast(Equal(x, x), to=float32), -inf)"),
        *("Cast(Cast(x, to=int64), to=float16)", "Cast(MatMul(Cast(x, to=float16), float16[3, 3] 1), to=float16)"),
    ],
)
def test_of_what_is_given_nothing_is_proved(made: str) -> None:
    model = parse(f"(x: float32[3]) -> (y) {{ y = Identity({made}) }}", opset=20)
    infer(model)
    assert Fill.OTHER in fills(model.graph.outputs[0])


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        ("Cast(m, to=float32)", True),
        ("Sub(1.0, Cast(m, to=float32))", True),
        ("Slice(float32[3, 3] {1, 0, 0, 1, 1, 0, 1, 1, 1}, [0], n, [1])", True),
        ("float32[2] {1, 0.5}", False),
        ("Cast(n, to=float32)", False),
        ("Sub(2.0, Cast(m, to=float32))", False),
        ("Cast(Cast(m, to=int64), to=int32)", True),
        ("Trilu(Expand(Cast(Slice(m, [0], [1]), to=float32), [3, 3]))", True),
        ("Where(m, 1.0, 0.0)", False),
    ],
)
def test_what_is_0_or_1(made: str, wanted: bool) -> None:
    model = parse(f"(m: bool[N], n: int64[1]) -> (y) {{ y = Identity({made}) }}", opset=20)
    infer(model)
    assert is_indicator(model.graph.outputs[0]) == wanted
