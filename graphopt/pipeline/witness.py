"""What is kept of a guilty site: the smallest graph on which its rule is wrong, and a test of the rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphopt.errors import GraphoptError
from graphopt.ir import Model, Value, model_to_proto
from graphopt.pipeline.pasted import test_of
from graphopt.pipeline.result import Conviction
from graphopt.rewrite import CompiledRule, Context, Site, Trace, built_in_rules
from graphopt.targets import Target
from graphopt.verify import Blamed, Checker, Search, key_of
from graphopt.verify.failures.cases import keep
from graphopt.verify.failures.excerpt import excerpt
from graphopt.verify.failures.shrink import Case, shrunk
from graphopt.verify.failures.trial import Rewriting, Trial, alone

_MOST_FEEDS = 6


@dataclass(frozen=True)
class Witness:
    """Sees the model right before a guilty site fires, and keeps in `folder` what is left of it when it is shrunk.

    `rewrite` makes the candidate again, `optimize` rewrites a model in place, both by `rules` for `target`.
    """

    rewrite: Callable[..., tuple[Model, Trace]]
    optimize: Rewriting
    rules: Sequence[CompiledRule]
    target: Target
    assume: frozenset[str]
    folder: Path

    def testify(self, blamed: Blamed, search: Search) -> Conviction:
        """The conviction with its case: the smallest that a test can be made of, else the region that failed."""
        verdict = conviction(blamed)
        rule = next((rule for rule in self.rules if rule.name == blamed.site.rule), None)
        name = f"{blamed.site.rule} {blamed.site.root}"
        try:
            found = self._case(blamed, rule, search.known, search.checker)
        except GraphoptError:
            found = None
        if found is None and blamed.region is not None and not blamed.kept:
            region = blamed.region
            feed = next(iter(_feeds(region.inputs, blamed, search.checker)), {})
            place = keep(self.folder, name, search.checker.parts(search.model, region), feed)
            return replace(verdict, case=str(place), nodes=len(region.original_cone.nodes))
        if found is None:
            return verdict
        case, trial = found
        after = trial.rewritten(case.model)
        assert after is not None
        test = test_of(case.model, case.feed, rule, blamed, self.assume)
        both = {"case": trial.lowered(case.model), "candidate": trial.lowered(after)}
        models = {stem: model_to_proto(model) for stem, model in both.items()}
        place = keep(self.folder, name, models, case.feed, {"test_case.py": test})
        return replace(verdict, case=str(place), nodes=both["case"].node_count(), test=test)

    def _case(
        self, blamed: Blamed, rule: CompiledRule | None, known: Sequence[Site], checker: Checker
    ) -> tuple[Case, Trial] | None:
        """The case of the rule alone; else, as that of a pass, of everything on the region that failed."""
        lowering = [one for one in built_in_rules() if one.stage == "lower" and one.name != blamed.site.rule]
        before = self._before(blamed.site, rule, known, checker) if rule is not None else None
        if rule is not None and before is not None:
            for target in (None, self.target):
                trial = Trial(alone(rule, Context(target, self.assume)), lowering, checker.runner)
                feeds = _feeds_of(before, blamed, checker)
                case = shrunk(before, blamed.site.nodes, feeds, trial, hangs=blamed.hangs)
                if case is not None:
                    return case, trial
        if blamed.region is None:
            return None
        trial = Trial(self.optimize, lowering, checker.runner)
        names = checker.original.graph.names
        region = excerpt([names[blamed.region.output]], blamed.region.original_cone.boundary)
        case = shrunk(region, (), _feeds_of(region, blamed, checker), trial, hangs=blamed.hangs)
        return (case, trial) if case is not None else None

    def _before(self, site: Site, rule: CompiledRule, known: Sequence[Site], checker: Checker) -> Model | None:
        """The graph around the site right before it fired, back to values that the original has."""
        inputs = checker.original.graph.names.keys() - set(site.nodes)
        seen: list[Model] = []

        def look(root: Value) -> None:
            names = root.node.graph.names
            if root.name == site.root and all(name in names for name in (*site.nodes, *site.roots)):
                seen.append(excerpt([names[name] for name in site.roots], inputs))

        rules = [_Watched(one, look) if one is rule else one for one in self.rules]
        self.rewrite(rules=rules, exclude=frozenset(map(key_of, known)))
        return seen[-1] if seen else None


class _Watched(CompiledRule):
    """A rule that shows each value it is about to replace."""

    def __init__(self, rule: CompiledRule, look: Callable[[Value], None]) -> None:
        super().__init__(rule.rule)
        self._look = look

    def rewrite(self, op: Any, bindings: dict[str, Any], root: Value, ctx: Context) -> tuple[Value, ...] | None:
        self._look(root)
        return super().rewrite(op, bindings, root, ctx)


def conviction(blamed: Blamed) -> Conviction:
    """What is said of a guilty site of which nothing is kept, but what onnxruntime died of."""
    where = blamed.region.output if blamed.region is not None else ""
    site = blamed.site
    return Conviction(site.rule, site.root, where, blamed.reason, blamed.replays, blamed.runs, blamed.kept)


def convictions(found: Sequence[Blamed], witness: Witness | None, search: Search) -> Iterator[Conviction]:
    """What is said of guilty sites; of those that were searched for a case is kept, if there is a `witness`."""
    for blamed in found:
        if witness is not None and blamed.replays:
            yield witness.testify(blamed, search)
        else:
            yield conviction(blamed)


def _feeds_of(model: Model, blamed: Blamed, checker: Checker) -> list[Mapping[str, Any]]:
    """What the inputs of `model` are when the original runs, as far as it has them; else some that are made for it."""
    names = [node.output.name for node in model.graph.inputs]
    original = checker.original.graph.names
    if all(name in original and original[name].tensor is None for name in names):
        return _feeds(names, blamed, checker)
    return checker.made_for(model)[:_MOST_FEEDS]


def _feeds(names: Sequence[str], blamed: Blamed, checker: Checker) -> list[Mapping[str, Any]]:
    """What stands at values of the original when it runs, where the check failed first."""
    tapped = sorted(checker.boundary(names), key=lambda one: one[0] != blamed.feed)
    return [values for _, values in tapped[:_MOST_FEEDS]]
