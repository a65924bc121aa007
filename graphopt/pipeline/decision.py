"""What each product becomes: ranges and smoothing by the model's output, then levels within the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphopt.ir import Model
from graphopt.pipeline.candidates import Candidate, Candidates
from graphopt.pipeline.quantized import Mode, Step
from graphopt.pipeline.samples import Samples
from graphopt.quantize.evaluate import Evaluator
from graphopt.quantize.levels import Choice, grouped
from graphopt.quantize.metric import Metric, Score
from graphopt.quantize.observe.statistics import Statistics
from graphopt.quantize.recipes import Options, Recipes, Smoothings
from graphopt.quantize.search import Decision, Found, Group, Level, Trial, cheapest, gathered, search, sensitivities
from graphopt.quantize.sites import Site
from graphopt.rewrite import Plan

AIM = 0.001
"""What `auto` may lose of its own accord."""
_GAIN = 0.02
"""The share of the loss that another way to observe must take away to be preferred."""
_OBSERVERS = ("percentile-99.999", "percentile-99.99", "mse")
_MOST_GROUPS = 24
"""How many groups are decided one by one; of more, those with the most multiplications."""
_MOST_PARTS = 16
"""In how many parts the sites of a group go back at most."""
_MOST_SITES = 6000
"""How many sites all candidates made for one purpose have together: one of a large model takes seconds."""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Decided:
    """What was decided: `recipes` and the level of each site, with what was tried on the way. `choices` are the levels
    that there were, and `groups` what was decided together."""

    recipes: Recipes
    found: Found
    groups: list[Group]
    choices: Mapping[str, Choice]
    steps: tuple[Step, ...]
    score: Score


@dataclass(frozen=True)
class Equalized:
    """The model after `change`, which makes channels between convolutions alike: its sites, and what their activations
    are."""

    sites: Sequence[Site]
    statistics: Mapping[str, Statistics]
    change: Callable[[Model], object]


@dataclass
class Decider:
    """Tries decisions on the search split. `observer` and `smooth` of `options` are looked for where they are not
    given: `free` names them. `equalized` is None where no channels are to be made alike."""

    candidates: Candidates
    evaluator: Evaluator
    metric: Metric
    samples: Samples
    sites: Sequence[Site]
    statistics: Mapping[str, Statistics]
    options: Options
    free: frozenset[str]
    prepare: Callable[[Model], None]
    tell: Tell | None = None
    equalized: Equalized | None = None
    steps: list[Step] = field(default_factory=list)
    _scores: dict[tuple[Options, frozenset[tuple[str, Level]]], Score] = field(default_factory=dict)
    _recipes: dict[Options, Recipes] = field(default_factory=dict)
    _smoothings: dict[tuple[float | None, bool], Smoothings] = field(default_factory=dict)

    def decide(self, mode: Mode, choices: Mapping[str, Choice], fixed: Decision, budget: float | None) -> Decided:
        """The recipes and levels of `mode`; sites of `fixed` have the level that it says. `budget` is what may be lost;
        None: `AIM` for `auto`, for the others whatever their cheapest levels lose."""
        if self.tell is not None:
            self.tell("search", 0, 1)
        groups = gathered(grouped(self.sites, choices), self._few(_MOST_GROUPS))
        start = {**cheapest(groups), **fixed}
        recipes = self._observed(start)
        loss = self._loss(recipes, fixed)
        if mode == "auto" or budget is not None:
            found = search(groups, loss, AIM if budget is None else budget, parts=self._few(_MOST_PARTS))
        else:
            found = Found(start, loss(start))
            found.trials.append(Trial("all as asked for", found.loss, True))
            # Nothing hangs on these, so of a large model a few are enough, or none.
            few = min(_MOST_GROUPS, _MOST_SITES // 3 // len(self.sites))
            largest = sorted(groups, key=lambda group: -group.cost)[:few]
            found.sensitivity = sensitivities(largest, start, loss, found.loss)
        found.decision = {**found.decision, **fixed}
        for trial in found.trials:
            self._tried(trial.change, trial.loss, trial.kept)
        return Decided(recipes, found, groups, choices, tuple(self.steps), self._score(recipes, found.decision))

    def build(self, recipes: Recipes, decision: Decision) -> Candidate:
        """The candidate of a decision."""

        def plan(model: Model) -> Plan:
            self.prepare(model)
            if recipes.options.equalize and self.equalized is not None:
                self.equalized.change(model)
            return recipes.plan(model, decision)

        return self.candidates.build(plan)

    def _observed(self, decision: Decision) -> Recipes:
        """The recipes under the options with which the model loses least: one option is changed at a time."""
        static = "static" in decision.values()
        rounded = static or "dynamic" in decision.values()
        best, least = self.options, self._lost(self.options, decision)
        self._tried(f"ranges by {best.observer}", least, True)
        changes: list[dict[str, object]] = []
        if static and self.equalized is not None:
            changes.append({"equalize": True})
        if rounded and "smooth" in self.free:
            changes.append({"smooth": 0.0})
        if rounded and "correct" in self.free:
            changes.append({"correct": not self.options.correct})
        if "weights4" in decision.values():
            changes.append({"gptq": False})
        if static and "observer" in self.free:
            changes += [{"observer": name} for name in _OBSERVERS]
        for change in changes[: self._few(len(changes))] if self.statistics else ():
            trial = replace(best, **change)  # type: ignore[arg-type]
            now = self._lost(trial, decision)
            kept = now < least * (1 - _GAIN)
            self._tried(", ".join(f"{name} {value}" for name, value in change.items()), now, kept)
            if kept:
                best, least = trial, now
        return self._made(best)

    def _tried(self, change: str, lost: float, kept: bool) -> None:
        best = next(iter(self._scores.values())).reference
        self.steps.append(Step(change, self.metric.at(lost, best), kept))

    def _few(self, most: int) -> int:
        """How many candidates are made for one purpose: `most`, fewer of a model with thousands of sites."""
        return max(2, min(most, _MOST_SITES // len(self.sites)))

    def _lost(self, options: Options, decision: Decision) -> float:
        return self._loss(self._made(options), {})(decision)

    def _made(self, options: Options) -> Recipes:
        if options not in self._recipes:
            of = self.equalized if options.equalize and self.equalized is not None else self
            known = self._smoothings.setdefault((options.smooth, of is self), {})
            self._recipes[options] = Recipes(of.sites, of.statistics, options, known)
        return self._recipes[options]

    def _loss(self, recipes: Recipes, fixed: Decision) -> Callable[[Decision], float]:
        def loss(decision: Decision) -> float:
            score = self._score(recipes, {**decision, **fixed})
            lost = self.metric.drop(score.mean, score.reference)
            return lost if not math.isnan(lost) else math.inf

        return loss

    def _score(self, recipes: Recipes, decision: Decision) -> Score:
        known = (recipes.options, frozenset(decision.items()))
        if known not in self._scores:
            candidate = self.build(recipes, decision)
            self._scores[known] = self.evaluator.score(candidate.path, "search", self.samples.search)
            candidate.discard()
            if self.tell is not None:
                self.tell("search", len(self._scores), len(self._scores) + 1)
        return self._scores[known]
