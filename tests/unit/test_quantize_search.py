"""The search finds cheap decisions within the budget, whatever the loss is like, and asks for few of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import pytest

from graphopt.quantize.search import Decision, Found, Group, Level, cheapest, gathered, search, sensitivities

THREE: tuple[Level, ...] = ("static", "weights8", "float")
TWO: tuple[Level, ...] = ("dynamic", "float")
# What of a site's error is left at each level.
LEFT = {"static": 1.0, "dynamic": 1.0, "weights8": 0.1, "weights4": 0.3, "float": 0.0}


class Asked:
    """A loss that sums the errors of sites, and `more` of the decision; `count` is how often it was asked for."""

    def __init__(self, errors: Mapping[str, float], more: Callable[[Decision], float] = lambda _: 0.0) -> None:
        self.errors, self.more, self.count = errors, more, 0

    def __call__(self, decision: Decision) -> float:
        self.count += 1
        return sum(self.errors[site] * LEFT[level] for site, level in decision.items()) + self.more(decision)


def group(name: str, count: int = 1, cost: float = 100.0, levels: tuple[Level, ...] = TWO) -> Group:
    return Group(name, tuple(f"{name}{index}" for index in range(count)), cost, levels)


def errors(groups: list[Group], **each: float) -> dict[str, float]:
    """The error of each site: that of its group."""
    return {site: each[group.name] for group in groups for site in group.sites}


def levels(found: Found) -> dict[str, set[Level]]:
    """The levels that the sites of each group have."""
    result: dict[str, set[Level]] = {}
    for site, level in found.decision.items():
        result.setdefault(site.rstrip("0123456789"), set()).add(level)
    return result


# ---- within the budget -----------------------------------------------------------------------------------------------


def test_nothing_is_raised_within_the_budget() -> None:
    groups = [group("a"), group("b")]
    found = search(groups, Asked(errors(groups, a=0.1, b=0.2)), budget=1.0)
    assert found.decision == cheapest(groups)
    assert found.loss == pytest.approx(0.3)
    assert found.sensitivity == pytest.approx({"a": 0.1, "b": 0.2})


def test_the_group_that_costs_most_is_raised_alone() -> None:
    groups = [group("a"), group("b"), group("c")]
    found = search(groups, Asked(errors(groups, a=0.01, b=1.0, c=0.01)), budget=0.1)
    assert levels(found) == {"a": {"dynamic"}, "b": {"float"}, "c": {"dynamic"}}


def test_of_two_that_cost_the_same_the_small_one_is_raised() -> None:
    groups = [group("large", cost=1000), group("small", cost=10)]
    found = search(groups, Asked(errors(groups, large=1.0, small=1.0)), budget=1.5)
    assert levels(found) == {"large": {"dynamic"}, "small": {"float"}}


def test_the_first_level_that_gains_enough_is_taken() -> None:
    groups = [group("a", levels=THREE)]
    assert levels(search(groups, Asked({"a0": 1.0}), budget=0.2)) == {"a": {"weights8"}}


def test_a_level_that_gains_little_is_passed_over() -> None:
    left = {"static": 1.0, "weights8": 0.9, "float": 0.0}
    found = search([group("a", levels=THREE)], lambda decision: left[decision["a0"]], budget=0.95)
    assert [(trial.change, trial.kept) for trial in found.trials][:3] == [
        ("all at the cheapest", True),
        ("a → weights8", False),
        ("a → float", True),
    ]
    # There is room for it all the same.
    assert found.decision == {"a0": "weights8"}


def test_a_level_that_was_not_enough_is_raised_again() -> None:
    groups = [group("a", levels=THREE), group("b", levels=THREE)]
    found = search(groups, Asked(errors(groups, a=1.0, b=1.0)), budget=0.05)
    assert found.loss <= 0.05
    assert levels(found) == {"a": {"float"}, "b": {"float"}}


def test_as_many_sites_go_back_as_the_budget_allows() -> None:
    groups = [group("a", count=10)]
    each = {f"a{index}": 1.0 if index == 4 else 0.01 for index in range(10)}
    found = search(groups, Asked(each), budget=0.1)
    assert [site for site, level in found.decision.items() if level == "float"] == ["a4"]
    assert found.loss == pytest.approx(0.09)


def test_sites_that_must_be_floats_do_not_keep_others_from_the_middle_level() -> None:
    groups = [group("a", count=8, levels=THREE)]
    each = {f"a{index}": 10.0 if index == 0 else 0.1 for index in range(8)}
    found = search(groups, Asked(each), budget=0.08)
    assert found.loss <= 0.08
    assert found.decision["a0"] == "float"
    assert set(found.decision.values()) - {"float"}


@pytest.mark.parametrize("budget", [0.0, 0.05, 0.3, 1.0, 3.0])
def test_it_is_as_cheap_as_the_best_of_all_decisions_where_errors_add_up(budget: float) -> None:
    groups = [group(name, cost=1.0) for name in "abcdef"]
    each = errors(groups, a=0.02, b=0.9, c=0.2, d=0.01, e=0.5, f=0.05)
    found = search(groups, Asked(each), budget)
    best = min(
        sum(level == "float" for level in combination)
        for combination in itertools.product(TWO, repeat=6)
        if Asked(each)(dict(zip(each, combination, strict=True))) <= budget
    )
    assert found.loss <= budget
    assert sum(level == "float" for level in found.decision.values()) == best


# ---- losses that are not sums ----------------------------------------------------------------------------------------


def test_errors_that_cancel_out_do_not_keep_it_above_the_budget() -> None:
    groups = [group("a"), group("b"), group("c")]

    def cancelling(decision: Decision) -> float:
        integers = {site[0] for site, level in decision.items() if level != "float"}
        # Either of a and b alone is worse than both.
        return {0: 0.0, 1: 3.0, 2: 1.0}[len(integers & {"a", "b"})] + 0.1 * ("c" in integers)

    found = search(groups, cancelling, budget=0.2)
    assert found.sensitivity["a"] < 0
    assert found.loss <= 0.2
    assert levels(found) == {"a": {"float"}, "b": {"float"}, "c": {"dynamic"}}


def test_what_it_says_it_loses_is_what_the_decision_loses() -> None:
    groups = [group("a", 5, levels=THREE), group("b", 3, levels=THREE), group("c", 2)]

    def bumpy(decision: Decision) -> float:
        return (hash(tuple(LEFT[level] for _, level in sorted(decision.items()))) % 1000) / 1000

    for budget in (0.01, 0.1, 0.5):
        found = search(groups, bumpy, budget)
        assert found.loss == bumpy(found.decision)


def test_where_no_decision_is_within_the_budget_it_is_the_one_that_loses_least() -> None:
    groups = [group("a"), group("b")]
    always = Asked(errors(groups, a=0.5, b=0.5), more=lambda decision: 1.0 + (decision["b0"] == "float"))
    found = search(groups, always, budget=0.1)
    assert levels(found) == {"a": {"float"}, "b": {"dynamic"}}
    assert found.loss == pytest.approx(1.5)


def test_a_group_that_makes_the_loss_infinite_is_raised() -> None:
    groups = [group("a"), group("b"), group("c")]
    each = errors(groups, a=0.01, b=0.0, c=0.01)
    found = search(groups, Asked(each, more=lambda d: math.inf if d["b0"] != "float" else 0.0), budget=0.1)
    assert levels(found) == {"a": {"dynamic"}, "b": {"float"}, "c": {"dynamic"}}
    both = Asked(each, more=lambda d: math.inf if "dynamic" in (d["a0"], d["b0"]) else 0.0)
    found = search(groups, both, budget=0.1)
    assert levels(found) == {"a": {"float"}, "b": {"float"}, "c": {"dynamic"}}
    assert found.sensitivity == {"a": 0, "b": 0, "c": 0}


# ---- effort ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0.0, 0.5, 100.0])
def test_it_asks_for_few_losses(budget: float) -> None:
    groups = [group(f"g{index}_", count=1500, levels=THREE) for index in range(5)]
    asked = Asked({site: 1 / 1500 for group in groups for site in group.sites})
    search(groups, asked, budget, parts=8)
    below, steps = 2, 4
    assert asked.count <= 1 + len(groups) * (len(THREE) + 1 + below * (8 + steps))


def test_it_decides_the_same_each_time() -> None:
    groups = [group("a", 4, levels=THREE), group("b", 4, levels=THREE)]
    each = errors(groups, a=0.5, b=0.5)
    first, second = (search(groups, Asked(each), 0.3) for _ in range(2))
    assert first == second


def test_what_is_kept_of_the_trials_leads_to_the_decision() -> None:
    groups = [group("a", levels=THREE), group("b")]
    found = search(groups, Asked(errors(groups, a=1.0, b=0.0)), budget=0.2)
    assert [(trial.change, trial.kept) for trial in found.trials][:2] == [
        ("all at the cheapest", True),
        ("a → weights8", True),
    ]


def test_sensitivities_leave_out_what_is_float_already() -> None:
    groups = [group("a"), group("b")]
    decision: Decision = {"a0": "float", "b0": "dynamic"}
    asked = Asked(errors(groups, a=1.0, b=0.25))
    assert sensitivities(groups, decision, asked, 0.25) == {"b": 0.25}
    assert asked.count == 1


def test_many_groups_are_decided_together_and_none_is_lost() -> None:
    groups = [group(f"g{index}_", cost=float(index), levels=TWO if index % 3 else THREE) for index in range(60)]
    few = gathered(groups, 10)
    assert len(few) <= 10
    assert {site for one in few for site in one.sites} == {site for one in groups for site in one.sites}
    assert sum(one.cost for one in few) == sum(one.cost for one in groups)
    assert cheapest(few) == cheapest(groups)
    assert {one.name for one in groups[-8:]} <= {one.name for one in few if len(one.sites) == 1}
    assert gathered(groups, 60) == groups
