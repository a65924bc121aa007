"""What each site may become in each mode, and why not what was asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.quantize.dialect import dialect_of
from graphopt.quantize.levels import Choice, Mode, asked, choice, grouped, within
from graphopt.quantize.search import Level
from graphopt.quantize.sites import Site, find_sites

W = "float32[8, 8] random(1)"
MATMUL = f"y = MatMul(x, {W})"
CONV = "y = Conv(x, float32[8, 8, 3] random(1))"
LSTM = "y = LSTM(x, float32[1, 20, 8] random(1), float32[1, 20, 5] random(2), hidden_size=5)"
NESTED = f"y = If(c, then_branch=() -> (p) {{ p = MatMul(x, {W}) }}, else_branch=() -> (q) {{ q = Neg(x) }})"
TABLE = f"y = Gather({W}, ids)"
REFUSED = "y = MatMul(x, float32[3, 8, 8] random(1))"


def site(statements: str) -> Site:
    model = parse(f"(x: float32[B, S, 8], c: bool[], ids: int64[B]) -> (y) {{ {statements} }}")
    infer(model)
    (found,) = find_sites(model, embed=True)
    return found


def told(answer: str | None) -> Callable[[str], str | None]:
    return lambda name: answer


FINE, HUGE, UNSEEN = told(""), told("has numbers of 3e38"), told(None)


@pytest.mark.parametrize(
    ("statements", "mode", "seen", "levels"),
    [
        (MATMUL, "dynamic", UNSEEN, ("dynamic", "float")),
        (MATMUL, "dynamic", FINE, ("dynamic", "float")),
        (MATMUL, "static", FINE, ("static", "float")),
        (MATMUL, "weight-only", UNSEEN, ("weights8", "float")),
        (MATMUL, "auto", FINE, ("static", "weights8", "float")),
        (MATMUL, "auto", UNSEEN, ("dynamic", "weights8", "float")),
        (CONV, "static", FINE, ("static", "float")),
        (CONV, "auto", FINE, ("static", "float")),
        (LSTM, "static", FINE, ("dynamic", "float")),
        (TABLE, "static", FINE, ("weights8", "float")),
    ],
)
def test_a_mode_gives_levels_from_the_cheapest_to_floats(
    statements: str, mode: Mode, seen: Callable[[str], str | None], levels: tuple[Level, ...]
) -> None:
    assert choice(site(statements), mode, 8, seen) == Choice(levels)


@pytest.mark.parametrize(
    ("statements", "mode", "seen", "levels", "words"),
    [
        (MATMUL, "static", HUGE, ("float",), "3e38"),
        (MATMUL, "dynamic", HUGE, ("float",), "3e38"),
        (MATMUL, "auto", HUGE, ("weights8", "float"), "3e38"),
        (NESTED, "static", FINE, ("dynamic", "float"), "subgraph"),
        (NESTED, "auto", FINE, ("dynamic", "weights8", "float"), "subgraph"),
        (CONV, "dynamic", UNSEEN, ("float",), "--calib"),
        (CONV, "weight-only", FINE, ("float",), "calibration"),
        (CONV, "static", HUGE, ("float",), "3e38"),
        (LSTM, "weight-only", UNSEEN, ("float",), "LSTM"),
        (REFUSED, "dynamic", FINE, ("float",), "batch of matrices"),
    ],
)
def test_what_a_site_cannot_become_is_said(
    statements: str, mode: Mode, seen: Callable[[str], str | None], levels: tuple[Level, ...], words: str
) -> None:
    found = choice(site(statements), mode, 8, seen)
    assert found.levels == levels
    assert words in found.reason


def test_four_bits_where_they_are_asked_for() -> None:
    assert choice(site(MATMUL), "weight-only", 4, UNSEEN).levels == ("weights4", "float")
    assert choice(site(MATMUL), "auto", 4, FINE).levels == ("static", "weights4", "float")
    assert choice(site(TABLE), "weight-only", 4, UNSEEN).levels == ("weights8", "float")


@pytest.mark.parametrize(
    ("statements", "level", "seen", "levels", "words"),
    [
        (MATMUL, "weights4", UNSEEN, ("weights4",), "as asked for"),
        (MATMUL, "static", FINE, ("static",), "as asked for"),
        (MATMUL, "float", FINE, ("float",), "as asked for"),
        (MATMUL, "static", HUGE, ("float",), "3e38"),
        (MATMUL, "static", UNSEEN, ("float",), "calibration data"),
        (NESTED, "static", UNSEEN, ("float",), "subgraph"),
        (NESTED, "dynamic", UNSEEN, ("dynamic",), "as asked for"),
        (CONV, "dynamic", FINE, ("float",), "no form"),
        (LSTM, "weights8", FINE, ("float",), "no form"),
        (REFUSED, "dynamic", FINE, ("float",), "batch of matrices"),
    ],
)
def test_a_level_that_was_asked_for_is_had_where_there_is_one(
    statements: str, level: Level, seen: Callable[[str], str | None], levels: tuple[Level, ...], words: str
) -> None:
    found = asked(site(statements), level, seen)
    assert found.levels == levels
    assert words in found.reason


def test_a_target_has_not_all_levels() -> None:
    all_of_them = Choice(("dynamic", "weights8", "float"))
    assert within(all_of_them, site(MATMUL), dialect_of("ort-cpu")) == all_of_them
    there = within(all_of_them, site(MATMUL), dialect_of("tensorrt"))
    assert there.levels == ("weights8", "float")
    assert "run time" in there.reason
    assert within(Choice(("dynamic",)), site(MATMUL), dialect_of("tensorrt")).levels == ("float",)
    assert within(Choice(("dynamic", "float")), site(LSTM), dialect_of("onnx")).levels == ("float",)


def test_groups_have_the_same_structure_and_the_same_choice() -> None:
    model = parse(
        f"(x: float32[B, 8]) -> (y) {{ h = Relu(x) a = MatMul(h, {W}) i = Relu(a) b = MatMul(i, {W}) j = Relu(b)"
        f" c = MatMul(j, {W}) k = Relu(c) d = MatMul(k, float32[8, 4] random(2)) y = Relu(d) }}"
    )
    sites = find_sites(model)
    both: tuple[Level, ...] = ("dynamic", "float")
    choices = {"a": Choice(both), "b": Choice(("weights8", "float")), "c": Choice(both), "d": Choice(("float",), "why")}
    found = grouped(sites, choices)
    assert [(group.name, group.sites, group.levels) for group in found] == [
        ("a", ("a", "c"), both),
        ("b", ("b",), ("weights8", "float")),
    ]
    assert found[0].cost == 2 * 64
