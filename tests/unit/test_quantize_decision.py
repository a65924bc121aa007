"""What is tried on the search split, what is kept of it, and what a budget does in each mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from graphopt.ir import Model
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.pipeline.candidates import Candidates
from graphopt.pipeline.decision import Decided, Decider
from graphopt.pipeline.samples import Samples
from graphopt.quantize.evaluate import Evaluator
from graphopt.quantize.levels import Mode, choice
from graphopt.quantize.metric import Score, metric_named
from graphopt.quantize.observe.statistics import Statistics
from graphopt.quantize.recipes import DecidedPlan, Options
from graphopt.quantize.search import Decision, Level
from graphopt.quantize.sites import find_sites

BLOCK = """
  h{0} = Relu({1})
  up{0} = MatMul(h{0}, float32[8, 16] random({0}))
  g{0} = Gelu(up{0})
  down{0} = MatMul(g{0}, float32[16, 8] random({0}))
"""
LEFT = {"static": 1.0, "dynamic": 1.0, "weights8": 0.1, "float": 0.0}
ROWS = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)


def fresh(blocks: int) -> Model:
    body = "".join(BLOCK.format(index, f"down{index - 1}" if index else "x") for index in range(blocks))
    model = parse(f"(x: float32[B, 8]) -> (y) {{ {body} y = Relu(down{blocks - 1}) }}")
    infer(model)
    return model


@dataclass
class Tried:
    """Stands for the candidates and for what scores them: what a decision loses is what `errors` say of its sites,
    times what `factor` says of the options. Every plan that was asked for is kept."""

    errors: Mapping[str, float]
    blocks: int = 2
    factor: Callable[[Options], float] = lambda options: 1.0
    plans: list[DecidedPlan] = field(default_factory=list)
    splits: set[tuple[str, object]] = field(default_factory=set)
    discarded: int = 0
    path: int = 0

    def build(self, plan: Callable[[Model], DecidedPlan]) -> Tried:
        self.plans.append(plan(fresh(self.blocks)))
        return self

    def discard(self) -> None:
        self.discarded += 1

    def score(self, candidate: object, split: str, batches: object) -> Score:
        self.splits.add((split, batches))
        plan = self.plans[-1]
        lost = sum(
            error * LEFT[plan.decision.get(f"{name}{block}", "float")] / self.blocks
            for name, error in self.errors.items()
            for block in range(self.blocks)
        )
        mean = 1 - lost * self.factor(plan.recipes.options)
        return Score(mean, mean, 1, 1.0)


SEARCH = cast(Any, "the batches of the search split")


def decided(
    tried: Tried,
    mode: Mode,
    budget: float | None = None,
    *,
    fixed: Decision | None = None,
    free: frozenset[str] = frozenset(),
    calibrated: bool = True,
) -> Decided:
    sites = find_sites(fresh(tried.blocks))
    samples = Samples(None, SEARCH, cast(Any, "the batches held out"), False)
    statistics = {site.input: Statistics.of(ROWS[:, : site.shape[0]]) for site in sites} if calibrated else {}
    decider = Decider(
        cast(Candidates, tried),
        cast(Evaluator, tried),
        metric_named("cosine"),
        samples,
        sites,
        statistics,
        Options("x86-vnni", smooth=0.0 if "smooth" not in free else None, correct=False),
        free,
        lambda model: None,
    )

    def refused(name: str) -> str | None:
        return "" if calibrated else None

    choices = {site.name: choice(site, mode, 8, refused) for site in sites if site.name not in (fixed or {})}
    for name in fixed or {}:
        choices[name] = type(next(iter(choices.values())))(((fixed or {})[name],), "as asked for")
    return decider.decide(mode, choices, fixed or {}, budget)


def chosen(found: Decided) -> dict[str, Level]:
    return dict(sorted(found.found.decision.items()))


def both(up: Level, down: Level) -> dict[str, Level]:
    return {"down0": down, "down1": down, "up0": up, "up1": up}


@pytest.mark.parametrize(("mode", "level"), [("dynamic", "dynamic"), ("static", "static"), ("weight-only", "weights8")])
def test_without_a_budget_all_become_what_the_mode_says(mode: Mode, level: Level) -> None:
    found = decided(Tried({"up": 0.3, "down": 0.1}), mode)
    assert chosen(found) == both(level, level)
    assert found.found.sensitivity == pytest.approx({"up0": 0.3 * LEFT[level], "down0": 0.1 * LEFT[level]})
    assert found.score.mean == pytest.approx(1 - 0.4 * LEFT[level])


@pytest.mark.parametrize(("mode", "level"), [("dynamic", "dynamic"), ("static", "static")])
def test_a_budget_takes_single_groups_to_floats_in_any_mode(mode: Mode, level: Level) -> None:
    found = decided(Tried({"up": 0.3, "down": 0.01}), mode, 0.02)
    assert chosen(found) == both("float", level)
    assert found.score.mean >= 0.98


def test_auto_aims_by_itself_and_uses_all_levels() -> None:
    assert chosen(decided(Tried({"up": 0.005, "down": 0.0001}), "auto")) == both("weights8", "static")
    assert chosen(decided(Tried({"up": 0.0004, "down": 0.0001}), "auto")) == both("static", "static")
    assert chosen(decided(Tried({"up": 0.005, "down": 0.0001}), "auto", 0.01)) == both("static", "static")


def test_what_was_asked_for_stays_whatever_it_loses() -> None:
    fixed: Decision = {"up0": "dynamic", "down1": "float"}
    found = decided(Tried({"up": 0.3, "down": 0.3}), "static", 0.2, fixed=fixed)
    assert {name: found.found.decision[name] for name in fixed} == fixed
    assert {"up1": "float", "down0": "float"}.items() <= found.found.decision.items()


def test_ranges_are_observed_as_the_models_output_likes_it() -> None:
    free = frozenset({"observer", "smooth", "correct"})
    best = {"percentile-99.99": 0.5, "mse": 0.495}
    found = decided(Tried({"up": 0.1, "down": 0.1}, factor=lambda o: best.get(o.observer, 1.0)), "static", free=free)
    # One hundredth better is not worth another way.
    assert found.recipes.options.observer == "percentile-99.99"
    assert found.recipes.options.smooth is None
    kept = [step.change for step in found.steps if step.kept]
    assert kept[:2] == ["ranges by min-max", "observer percentile-99.99"]


def test_smoothing_that_spoils_the_model_is_left_out() -> None:
    tried = Tried({"up": 0.1, "down": 0.1}, factor=lambda options: 1.0 if options.smooth is None else 0.5)
    assert decided(tried, "dynamic", free=frozenset({"smooth"})).recipes.options.smooth == 0.0


def test_what_the_user_says_is_not_tried_otherwise() -> None:
    tried = Tried({"up": 0.1, "down": 0.1})
    decided(tried, "static", free=frozenset())
    assert {plan.recipes.options.observer for plan in tried.plans} == {"min-max"}
    tried = Tried({"up": 0.1, "down": 0.1})
    decided(tried, "dynamic", free=frozenset({"smooth", "observer", "correct"}), calibrated=False)
    assert len({plan.recipes.options for plan in tried.plans}) == 1


def test_only_the_search_split_is_looked_at_and_no_candidate_is_left() -> None:
    tried = Tried({"up": 0.3, "down": 0.01})
    decided(tried, "auto", free=frozenset({"smooth", "observer", "correct"}))
    assert tried.splits == {("search", SEARCH)}
    assert tried.discarded == len(tried.plans)


def test_no_decision_is_built_twice() -> None:
    tried = Tried({"up": 0.3, "down": 0.01}, blocks=6)
    decided(tried, "auto", 0.1)
    built = [(plan.recipes.options, frozenset(plan.decision.items())) for plan in tried.plans]
    assert len(built) == len(set(built))


def test_a_model_with_thousands_of_sites_is_built_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.pipeline.decision._MOST_SITES", 40)
    tried = Tried({"up": 0.3, "down": 0.3}, blocks=10)
    decided(tried, "auto", 0.1, free=frozenset({"smooth", "observer", "correct"}))
    assert len(tried.plans) <= 30


def test_what_groups_cost_is_not_asked_of_a_model_with_thousands_of_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried({"up": 0.3, "down": 0.3}, blocks=10)
    found = decided(tried, "static", None)
    assert found.found.sensitivity
    monkeypatch.setattr("graphopt.pipeline.decision._MOST_SITES", 40)
    assert not decided(Tried({"up": 0.3, "down": 0.3}, blocks=10), "static", None).found.sensitivity
