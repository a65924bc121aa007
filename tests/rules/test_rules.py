"""Every rule has cases, in the right place; each case is a test of its own, which graphopt's pytest plug-in runs."""

from __future__ import annotations

from pathlib import Path

from graphopt.rewrite import CompiledRule
from graphopt.testing import parse_cases

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.rglob("*.txt"))
CASES = [case for path in FILES for case in parse_cases(path)]


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
