"""Every rule in every spelling of its pattern, and on graphs one step away from it."""

from __future__ import annotations

import pytest

from graphopt.rewrite import Rule, built_in_rules
from graphopt.rewrite.registry import BUILT_IN
from graphopt.testing import check_rule

RULES = [type(rule.rule) for rule in built_in_rules() if type(rule.rule).__module__.startswith(BUILT_IN)]
OF_INTEGERS = {
    *("TransposeOfIntegers", "IntegerGemm", "IntegerProduct", "IntegerProductBias", "IntegerProductDynamic"),
    *("CutAfterRounding", "UnsignedIntegers"),
    *(rule.__name__ for rule in RULES if rule.stage == "quantize" and rule.__name__ != "SmoothIntoNorm"),
}
"""Rules that ask a plan, or read bytes: the generators make neither, cases do."""
CHECKED = [rule for rule in RULES if rule.__name__ not in OF_INTEGERS]


@pytest.mark.parametrize("rule", CHECKED, ids=lambda rule: rule.__name__)
def test_rule(rule: type[Rule]) -> None:
    report = check_rule(rule)
    print(report)
    assert report.fired >= 20
    assert report.mutants >= 30
    assert report.unproven <= report.fired // 2


def test_what_rules_leave_out_is_counted() -> None:
    exempt = {rule.__name__: rule.exempt for rule in RULES if hasattr(rule, "exempt")}
    print(f"{len(exempt)} of {len(RULES)} rules leave out a generator: {exempt}")
    assert len(exempt) <= len(RULES) // 10
