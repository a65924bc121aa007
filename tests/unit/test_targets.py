"""What a table's figures say about which kernels are written."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphopt.errors import UsageError
from graphopt.ir.infer import infer
from graphopt.ir.schema import signature
from graphopt.ir.text import parse
from graphopt.rewrite import Builder, CompiledRule, Context, Engine, Expr, Ops, Rule, Value, built_in_rules, kernel
from graphopt.targets import NOT_SLOWER, PAYS, SMALL, KernelEntry, Target, target_named, target_names

BY_TYPE_AND_SIZE = {"float32": {"small": 0.5, "large": 0.9}, "float16": 1.3}


def target(cost: Any, **more: Any) -> Target:
    return Target("t", 24, "cpu", {("my", "Op"): KernelEntry("my", "Op", cost=cost, **more)})


@pytest.mark.parametrize(
    ("cost", "dtype", "elements", "wanted"),
    [
        (0.7, "float16", None, 0.7),
        ({"float32": 0.7}, "float16", 1, 0.7),
        (BY_TYPE_AND_SIZE, "float32", SMALL, 0.5),
        (BY_TYPE_AND_SIZE, "float32", SMALL + 1, 0.9),
        (BY_TYPE_AND_SIZE, "float32", None, 0.7),
        (BY_TYPE_AND_SIZE, "float16", 1, 1.3),
        (None, "float32", 1, 0.0),
    ],
)
def test_cost_by_type_and_size(cost: Any, dtype: str, elements: int | None, wanted: float) -> None:
    assert target(cost).kernels["my", "Op"].cost_of(dtype, elements) == pytest.approx(wanted)


def test_a_kernel_is_there_for_the_types_it_pays_in() -> None:
    found = target(BY_TYPE_AND_SIZE, runs={"float32": "native", "float16": "cast", "float64": "absent"})
    assert found.has("my", "Op")
    assert found.has("my", "Op", dtype="float32")
    assert not found.has("my", "Op", dtype="float16")
    assert not found.has("my", "Op", dtype="float64")
    assert not found.has("my", "Other")


def test_a_gain_must_be_worth_it_where_one_is_asked_for() -> None:
    even = (PAYS + NOT_SLOWER) / 2
    assert target(even).has("my", "Op")
    assert not target(even).has("my", "Op", gain=True)
    assert not target(NOT_SLOWER + 0.01).has("my", "Op")


class Merged(Rule):
    """Two operators as one kernel."""

    stage = "lower"
    needs = kernel("my", "Op")

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Neg(op.Abs(x))

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Op(x, domain="my")


class Renamed(Rule):
    """One operator under another name."""

    stage = "lower"
    needs = kernel("my", "Op")

    def pattern(self, op: Ops, x: Value) -> Expr:
        return op.Abs(x)

    def rewrite(self, op: Builder, x: Value) -> Value:
        return op.Op(x, domain="my")


def sites(rule: type[Rule], found: Target, kind: str) -> tuple[int, str]:
    """How often `rule` fires on Neg(Abs(x)) with x of `kind`, and what it says."""
    model = parse(f"(x: {kind}) -> (y) {{ y = Neg(Abs(x)) }}", opset=20)
    infer(model)
    engine = Engine([CompiledRule(rule())], Context(found))
    return engine.run(model), " ".join(engine.trace.counts[rule.__name__].reasons)


@pytest.mark.parametrize(
    ("rule", "kind", "fires"),
    [
        (Merged, "float32[8]", 1),
        (Merged, "float32[N]", 1),
        (Merged, f"float32[{SMALL + 1}]", 0),
        (Merged, "float16[8]", 0),
        (Renamed, f"float32[{SMALL + 1}]", 1),
        (Renamed, "float16[8]", 0),
    ],
)
def test_rules_ask_for_the_type_and_size_of_their_site(rule: type[Rule], kind: str, fires: int) -> None:
    found = target({"float32": {"small": 0.5, "large": 1.0}, "float16": 1.3})
    number, said = sites(rule, found, kind)
    assert number == fires
    assert fires or f"no kernel my.Op that pays in {kind.partition('[')[0]}" in said


@pytest.mark.parametrize("name", target_names())
def test_built_in_tables_are_of_the_form(name: str) -> None:
    found = target_named(name)
    for entry in found.kernels.values():
        assert set(entry.runs.values()) <= {"native", "cast", "expanded", "absent"}
        assert entry.status in ("measured", "assumed")
        for dtype in ("float32", "float16", "float64"):
            assert entry.cost_of(dtype) >= 0


def test_every_rule_finds_a_kernel_that_it_needs_in_a_table_and_the_others_are_operators() -> None:
    rows = {key for name in target_names() for key in target_named(name).kernels}
    for rule in (rule for rule in built_in_rules() if rule.needs):
        there = [(one.domain, one.op) in rows or one.domain == "ai.graphopt" for one in rule.needs]
        assert any(there), f"{rule.name} needs {' or '.join(map(str, rule.needs))}"
        for needed, found in zip(rule.needs, there, strict=True):
            assert found or signature(needed.domain, needed.op, 24), f"{rule.name} needs {needed}"


def test_a_table_of_a_user_may_say_all_of_it(tmp_path: Path) -> None:
    row = {"domain": "my", "op": "Op", "cost": BY_TYPE_AND_SIZE, "runs": {"float16": "cast"}}
    table = {"name": "mine", "opset": 20, "provider": "cpu", "kernels": [row]}
    (tmp_path / "mine.json").write_text(json.dumps(table))
    found = target_named(str(tmp_path / "mine.json"))
    assert found == replace(target(BY_TYPE_AND_SIZE, runs={"float16": "cast"}), name="mine", opset=20)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"name": "a", "opset": "20", "provider": "cpu", "kernels": []}',
        '{"name": "a", "opset": null, "provider": "cpu", "kernels": []}',
        '{"name": ["a"], "opset": 20, "provider": "cpu", "kernels": []}',
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(UsageError, match="not a target table") as caught:
        target_named(str(tmp_path / "mine.json"))
    assert caught.value.code == "GO013"


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.json")
    with pytest.raises(UsageError, match="the target table cannot be read"):
        target_named(str(tmp_path / "mine.json"))
