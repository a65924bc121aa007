"""Every case of every file in this folder; `pytest tests/rules --update-cases` writes the expected graphs anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphopt.errors import GraphoptError
from graphopt.rewrite import CompiledRule
from graphopt.runtime import Runner
from graphopt.testing import Case, parse_cases, run_case, update_cases

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.rglob("*.txt"))
CASES = [case for path in FILES for case in parse_cases(path)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case, rules: tuple[CompiledRule, ...], runner: Runner, request: pytest.FixtureRequest) -> None:
    try:
        outcome = run_case(case, rules, runner)
    except GraphoptError as error:
        pytest.fail(str(error), pytrace=False)
    if outcome.problem and outcome.text and not case.borrowed and request.config.getoption("--update-cases", False):
        update_cases(case.path, {case.name: outcome.text})
        pytest.skip("the file says now what the rule does")
    if outcome.problem:
        pytest.fail(f"{case.path}:{case.line}\n{outcome.problem}", pytrace=False)
    assert outcome.compared == (case.expected is not None and not case.no_run)


def test_every_rule_has_cases_that_fire_and_cases_that_do_not(rules: tuple[CompiledRule, ...]) -> None:
    fires = [case.rules[0] for case in CASES if case.expected is not None]
    spares = [case.rules[0] for case in CASES if case.expected is None]
    print(f"{len(rules)} rules, {len(fires)} cases that must fire, {len(spares)} that must not")

    names = {rule.name for rule in rules}
    assert names - set(fires) == set(), "rules without a case that must fire"
    assert names - set(spares) == set(), "rules without a case that must not fire"


def test_case_files_stand_where_their_rules_do(rules: tuple[CompiledRule, ...]) -> None:
    modules = {rule.name: type(rule.rule).__module__ for rule in rules}
    for path in FILES:
        place = path.relative_to(FOLDER).with_suffix("").parts
        for case in parse_cases(path):
            module = modules.get(case.rules[0], "")
            assert module == ".".join(["graphopt", "patterns", *place]), f"{path} tests {case.rules[0]} of {module}"
