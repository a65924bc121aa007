"""Case files of rules: what is read, what is checked, and that a wrong rule does not pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphopt.errors import ModelError, UsageError
from graphopt.ir import Value
from graphopt.rewrite import CompiledRule, Expr, Ops, Reason, Rule
from graphopt.runtime import Runner
from graphopt.testing import Outcome, parse_cases, run_case, update_cases

FILE = """\
# What the rule does.
rule: AddToItself
opset: 17

[case doubled]
dim N: 3
(x: float32[N]) -> (y) {
  y = Abs(Add(x, x))   # twice
}
[out]
t = Mul(x, 2.0)
y = Abs(t)

[case again]
target: onnx
feed x: 0.5..2
opset 20
(x: float32[N]) -> (y) { y = Abs(Add(x, x)) }
[out of doubled]

[case two_values]
no-run: for no reason
(x: float32[N], z: float32[N]) -> (y) { y = Add(x, z) }
[unchanged] not the same
"""


class AddToItself(Rule):
    """x + x is 2·x."""

    stage = "clean"
    factor = 2.0

    def pattern(self, op: Ops, x: Value, z: Value) -> Expr:
        return op.Add(x, z)

    def where(self, x: Value, z: Value) -> Reason:
        return x is z or "not the same"

    def rewrite(self, op: Any, x: Value) -> Value:
        return op.Mul(x, op.const(self.factor, like=x))  # type: ignore[no-any-return]


class AlmostTwice(AddToItself):
    """As above, by 0.1 % too much."""

    factor = 2.002


class Failing(AddToItself):
    """Raises."""

    def rewrite(self, op: Any, x: Value) -> Value:
        raise RuntimeError("no luck")


RULES = [CompiledRule(rule()) for rule in (AddToItself, AlmostTwice, Failing)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "clean" / "add_to_itself.txt"
    file.parent.mkdir()
    file.write_text(FILE)
    return file


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner(timeout=60) as runner:
        yield runner


def test_a_file_is_read(path: Path) -> None:
    doubled, again, other = parse_cases(path)
    assert (str(doubled), doubled.rules, doubled.opset, doubled.dims) == (
        "clean/add_to_itself:doubled",
        ("AddToItself",),
        17,
        {"N": 3},
    )
    assert (doubled.line, doubled.expected_line, doubled.expected) == (7, 11, "t = Mul(x, 2.0)\ny = Abs(t)\n")
    assert (again.expected, again.borrowed, again.feeds, again.target) == (
        doubled.expected,
        True,
        {"x": (0.5, 2.0)},
        "onnx",
    )
    assert (other.expected, other.reason, other.no_run) == (None, "not the same", "for no reason")


def test_cases_that_hold(path: Path, runner: Runner) -> None:
    doubled, again, other = [run_case(case, RULES, runner) for case in parse_cases(path)]
    assert doubled == again == Outcome("", True, "add = Mul(x, 2.0)\ny = Abs(add)")
    assert other == Outcome("")


def test_another_graph_than_expected_is_shown_as_a_difference(path: Path) -> None:
    case = replace(parse_cases(path)[0], expected="y = Abs(Mul(x, 3.0))")
    problem = run_case(case, RULES).problem
    assert "-  v1 = Mul(x, 3.0)\n+  v1 = Mul(x, 2.0)\n   y = Abs(v1)" in problem


def test_wrong_numbers_are_seen_where_the_graph_is_as_expected(path: Path, runner: Runner) -> None:
    case = replace(parse_cases(path)[0], rules=("AlmostTwice",), expected="y = Abs(Mul(x, 2.002))")
    assert run_case(case, RULES).problem == ""
    outcome = run_case(case, RULES, runner)
    assert outcome.compared
    assert outcome.problem.startswith("output 'y' differs by 0.00")


def test_a_rule_that_does_not_fire_says_why(path: Path) -> None:
    case = replace(parse_cases(path)[2], expected="y = Neg(x)")
    assert run_case(case, RULES).problem == "AddToItself did not fire\n  y: not the same"


def test_a_rule_that_fires_where_it_must_not(path: Path) -> None:
    assert run_case(replace(parse_cases(path)[0], expected=None), RULES).problem == "AddToItself fired"


def test_another_reason_than_expected(path: Path) -> None:
    case = replace(parse_cases(path)[2], reason="too large")
    assert run_case(case, RULES).problem == "AddToItself does not say 'too large'\n  y: not the same"


def test_a_rule_that_raises(path: Path) -> None:
    case = replace(parse_cases(path)[0], rules=("Failing",))
    assert run_case(case, RULES).problem.startswith("Failing failed: RuntimeError: no luck")


def test_a_graph_that_does_not_run_is_a_problem(path: Path, runner: Runner) -> None:
    text = "(x: float32[N]) -> (y) { y = my.Foo(Add(x, x)) }"
    case = replace(parse_cases(path)[0], text=text, expected="y = my.Foo(Mul(x, 2.0))")
    assert run_case(case, RULES, runner).problem.startswith("the graph does not run: ")
    assert run_case(replace(case, no_run="there is no kernel"), RULES, runner).problem == ""


def test_internal_operators_must_be_lowered_to_be_run(path: Path, runner: Runner) -> None:
    text = "(x: float32[1, 1, N, 4]) -> (y) { h = Add(x, x) y = ir.Attention(h, h, h, scale=0.5) }"
    case = replace(parse_cases(path)[0], text=text, expected="h = Mul(x, 2.0) y = ir.Attention(h, h, h, scale=0.5)")
    assert run_case(case, RULES, runner).problem == "ir.Attention is not lowered: the numbers cannot be compared"


def test_an_unknown_rule_is_an_error(path: Path) -> None:
    with pytest.raises(UsageError, match="no rule is called 'AddToItselff'"):
        run_case(replace(parse_cases(path)[0], rules=("AddToItselff",)), RULES)


def test_errors_in_graphs_have_the_files_lines(path: Path) -> None:
    path.write_text(FILE.replace("t = Mul(x, 2.0)", "t = Mul(z, 2.0)").replace("Add(x, z)", "Add(x, w)"))
    doubled, _, other = parse_cases(path)
    for case, place in ((doubled, "11:9: t = Mul(z, 2.0)"), (other, "23:52: (x")):
        with pytest.raises(ModelError) as caught:
            run_case(case, RULES)
        assert caught.value.where.startswith(f"{path}:{place}")


def test_expected_text_is_written_anew(path: Path) -> None:
    update_cases(path, {"doubled": "y = Foo(x)", "two_values": "never"})
    assert path.read_text() == FILE.replace("t = Mul(x, 2.0)\ny = Abs(t)\n", "y = Foo(x)\n")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("rule: AddToItself", "rules: AddToItself", 2, "expected [case NAME]"),
        ("rule: AddToItself", "", 1, "no rule is named"),
        ("[case again]", "[case doubled]", 14, "two cases are called 'doubled'"),
        ("[case again]", "[case]", 14, "expected [case NAME]"),
        ("[out of doubled]", "[out of double]", 19, "no case 'double' stands before this"),
        ("[out of doubled]", "", 14, "neither [out] nor [unchanged] follows"),
        ("[unchanged] not", "[unchanged]\nnot", 25, "nothing may follow [unchanged]"),
        ("dim N: 3", "dim: 3", 6, "expected `dim NAME: SIZE`, `feed NAME: LOW..HIGH`, or `KEY: VALUE`"),
        ("dim N: 3", "dim N: three", 6, "'three' is not what 'dim' takes"),
        ("0.5..2", "0.5", 16, "'0.5' is not what 'feed' takes"),
    ],
)
def test_files_that_are_wrong(path: Path, old: str, new: str, line: int, message: str) -> None:
    assert old in FILE
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ModelError) as caught:
        parse_cases(path)
    assert (caught.value.code, caught.value.message) == ("GO048", message)
    assert caught.value.where.startswith(f"{path}:{line}: ")
