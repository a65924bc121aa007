"""Checking a candidate against its original: by structure, then region by region, then end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import onnx

from graphopt.errors import InconclusiveError
from graphopt.ir import Model
from graphopt.runtime import Crash, RunError, Runner
from graphopt.verify.batch import Batch
from graphopt.verify.cuts import Comparer, Region
from graphopt.verify.endtoend import MOST_LOADED, compare_in
from graphopt.verify.failures.cases import keep_crash, standalone
from graphopt.verify.inputs.feeds import Feed
from graphopt.verify.inputs.variants import Variants
from graphopt.verify.interface import interface_difference
from graphopt.verify.pair import CannotRun
from graphopt.verify.parts import part
from graphopt.verify.placement import not_needed, provider_result
from graphopt.verify.random_ops import difference as random_difference
from graphopt.verify.refusals import bad_data, of_reference, within_limits
from graphopt.verify.results import (
    WHOLE,
    Comparison,
    Counts,
    Crashed,
    Options,
    ProviderResult,
    Verification,
    worst,
)
from graphopt.verify.runs import Runs
from graphopt.verify.schedule import Ran, Schedule
from graphopt.verify.tap import Boundary, Tap
from graphopt.verify.weights import let_go

_MOST_KEPT = 8
"""Crashes that are kept: a rule that makes onnxruntime crash may have fired everywhere."""
_NOT_LOADED = "too large to be loaded as a whole: its parts were"


def check(original: Model, candidate: Model, options: Options | None = None) -> Verification:
    """Whether `candidate` computes what `original` does, from which it was made by rewriting.

    Where onnxruntime crashes or runs out of time the case is kept, and `crashes` of the result says where.
    Raises: InconclusiveError GO012 or GO017 where no inputs can be made, UsageError for options that do not fit the
    model.
    """
    with Checker(original, options) as checker:
        return checker.check(candidate)


class Checker:
    """Checks candidates of one original, and remembers the regions that it has seen; a context manager."""

    def __init__(self, original: Model, options: Options | None = None) -> None:
        self._original = original
        self._options = options or Options()
        self._runs = Runs(original, self._options)
        self._comparer = Comparer(original)
        self._known: dict[tuple[str, int, int], Comparison] = {}
        self._unrun: set[tuple[str, int, int]] = set()
        self._hung = False
        self._crashes: dict[str, Crashed] = {}
        self._kept = self._options.keep
        self._variants = Variants(self._runs.data)
        self._schedule = Schedule(original, self._runs, self._comparer.constants.number_of)

    def __enter__(self) -> Self:
        self._runs.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._runs.__exit__(kind, error, tb)

    def check(self, candidate: Model) -> Verification:
        """As the function `check`; regions that an earlier candidate had as well are not run again.

        After a region that takes too long no other one is run: to wait for each costs more than to check again.
        """
        start = time.perf_counter()
        self._hung = False
        for key in self._unrun:
            del self._known[key]
        self._unrun.clear()
        self._crashes.pop(WHOLE, None)
        try:
            found = self._check(candidate)
        except Crash as crash:
            reason = f"{self._note(WHOLE, 'original', crash).message} the original"
            found = Verification("inconclusive", "regions", reason)
        names = {WHOLE, *(one.name for one in found.regions if one.verdict != "equal")}
        crashes = (*found.crashes, *(crashed for name, crashed in self._crashes.items() if name in names))
        return replace(found, crashes=crashes, seconds=time.perf_counter() - start)

    @property
    def original(self) -> Model:
        return self._original

    @property
    def runner(self) -> Runner:
        """The child process in which all is run."""
        return self._runs.runner

    def boundary(self, names: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """What stands at values of the original when it runs, on every feed and variant; each with its label.

        Raises: RunError where it does not run.
        """
        with closing(Tap(self._original, names, self._runs)) as tap:
            for number, feed in enumerate(tap.feeds()):
                yield from self._variants.of(feed, tap.values(feed, names), first=number == 0)

    def parts(self, candidate: Model, region: Region) -> dict[str, onnx.ModelProto]:
        """What both compute in a region, as models of their own."""
        sides = {"case": (self._original, region.original), "candidate": (candidate, region.candidate)}
        return {
            name: standalone(part(model, [value], self._runs.weights, cuts=region.cuts))
            for name, (model, value) in sides.items()
        }

    def made_for(self, model: Model) -> list[Mapping[str, Any]]:
        """Inputs made for another model, which it runs on. Raises what `Runs.feeds` raises."""
        with Runs(model, Options(), self.runner) as runs, closing(Tap(model, (), runs)) as tap:
            return [feed.arrays for feed in tap.feeds()]

    def _check(self, candidate: Model) -> Verification:
        difference = interface_difference(self._original, candidate) or random_difference(self._original, candidate)
        if difference:
            return Verification("unequal", "structure", difference)
        found, free = self._comparer.regions(candidate)
        for model in (self._original, candidate):
            let_go(model)
        todo = [region for region in found if region.key not in self._known]
        counts = Counts(free + len(found), free, len(todo), len(found) - len(todo))
        if not found:
            reason = not_needed(self._options.providers)
            return Verification("equal", "structure", reason, counts=counts, level="full")
        installed, skipped = self._runs.providers()
        if not installed:
            return Verification("skipped", "regions", skipped[0].reason, providers=tuple(skipped), counts=counts)
        try:
            ran = self._run(candidate, todo, installed)
        except (InconclusiveError, RunError) as error:
            providers = (*(ProviderResult(name, "inconclusive") for name in installed), *skipped)
            return replace(self._without_reference(candidate, error, providers), counts=counts)
        verification = self._of_regions(found, installed, skipped)
        verification = replace(verification, inputs=ran.inputs, counts=replace(counts, alike=ran.alike))
        return self._as_a_whole(candidate, verification)

    def _without_reference(
        self, candidate: Model, error: InconclusiveError | RunError, providers: tuple[ProviderResult, ...]
    ) -> Verification:
        """What is said where the original gave `error` in place of numbers. Raises what is wrong with the inputs."""
        if isinstance(error, RunError):
            within_limits(error)
        refusal = self._refusal(candidate)
        if refusal:
            refusal += f"; it does not run the original: {error.message}" if isinstance(error, RunError) else ""
            return Verification("unequal", "structure", refusal)
        if isinstance(error, InconclusiveError):
            raise error
        if self._runs.is_given:
            raise bad_data(error.message, self._original) from error
        reason, hint = of_reference(error, "the original")
        return Verification("inconclusive", "regions", reason, providers=providers, hint=hint)

    def _of_regions(
        self, found: Sequence[Region], installed: Sequence[str], skipped: Sequence[ProviderResult]
    ) -> Verification:
        """What is known of all regions, in one verdict."""
        results = tuple(self._known[region.key] for region in found)
        return Verification(
            worst([*(one.verdict for one in results), *(one.verdict for one in skipped)]),
            "regions",
            _reason(results) or next((f"{p.name}: {p.reason}" for p in skipped), ""),
            regions=results,
            compared=tuple(found),
            failing=tuple(region for region in found if self._known[region.key].verdict == "unequal"),
            unrun=tuple(region for region in found if region.key in self._unrun),
            providers=(*(provider_result(name, results) for name in installed), *skipped),
        )

    def _as_a_whole(self, candidate: Model, of_regions: Verification) -> Verification:
        """The verdict, where regions that are equal, or that nobody can decide, have whole models looked at."""
        verdict = worst(region.verdict for region in of_regions.regions)
        refusal = self._refusal(candidate) if verdict == "equal" else ""
        if refusal:
            return replace(of_regions, verdict="unequal", decided_by="structure", reason=refusal)
        if verdict == "inconclusive" or (verdict == "equal" and self._options.level == "full"):
            undecided = tuple(one for one in of_regions.compared if self._known[one.key].verdict == "inconclusive")
            return _decided(of_regions, undecided, compare_in(self._runs, self._original, candidate))
        unseen = verdict == "equal" and not self._are_loaded(candidate)
        return replace(of_regions, reason=of_regions.reason or _NOT_LOADED) if unseen else of_regions

    def _refusal(self, candidate: Model) -> str:
        """Why onnxruntime loads the original, but not the candidate, whose parts it may run; empty where it does.

        Models larger than `MOST_LOADED` are not tried: creating a session takes time by the square of its nodes.
        """
        try:
            refusal = self._runs.refusal(candidate) if self._are_loaded(candidate) else ""
        except Crash as crash:
            refusal = self._note(WHOLE, "candidate", crash).message
        if not refusal or self._runs.refusal(self._original):
            return ""
        return f"onnxruntime loads the original, but not the candidate: {refusal}"

    def _are_loaded(self, candidate: Model) -> bool:
        """Whether the models are small enough to be loaded as a whole."""
        return all(sum(1 for _ in model.graph.ops()) <= MOST_LOADED for model in (self._original, candidate))

    def _run(self, candidate: Model, todo: Sequence[Region], providers: Sequence[str]) -> Ran:
        """Fills in what is known of the regions `todo`."""
        self._runs.seed(candidate)
        return self._schedule.run(todo, partial(self._run_batch, candidate, providers), self._known)

    def _run_batch(
        self,
        candidate: Model,
        providers: Sequence[str],
        batch: list[Region],
        tap: Boundary | None,
        feeds: Sequence[Feed],
        in_full: bool,
    ) -> None:
        """Runs a batch; one that cannot be run as a whole, in halves.

        Where it takes too long, and its first half does not, nobody waits for the second half as a whole again.
        """
        variants = self._variants if in_full else None
        waiting = [(batch, False)]
        while waiting:
            batch, hangs = waiting.pop()
            middle = len(batch) // 2
            if self._hung:
                unrun = {region.key: _unrun(region) for region in batch if region.key not in self._known}
                self._unrun.update(unrun)
                self._known.update(unrun)
                continue
            if hangs and middle:
                waiting += [(batch[middle:], True), (batch[:middle], False)]
                continue
            try:
                results = Batch(self._original, candidate, batch, self._runs).run(tap, feeds, variants, providers)
            except CannotRun as problem:
                if middle:
                    waiting += [(batch[middle:], problem.hangs), (batch[:middle], False)]
                    continue
                self._hung = problem.hangs
                if problem.crash is not None:
                    self._note(batch[0].output, problem.side, problem.crash)
                results = [_refused(batch[0], problem)]
            self._known.update(zip((region.key for region in batch), results, strict=True))

    def _note(self, name: str, side: str, crash: Crash) -> Crashed:
        """Remembers what onnxruntime died of, and keeps the case of it: the first of each region, and not too many."""
        known = self._crashes.get(name)
        if known is not None and known.side == side:
            return known
        kept = ""
        if len(self._crashes) < _MOST_KEPT:
            place = keep_crash(self._kept, crash)
            self._kept, kept = place.parent, str(place)
        self._crashes[name] = crashed = Crashed(name, side, crash.code, crash.message, kept)
        return crashed


def _refused(region: Region, problem: CannotRun) -> Comparison:
    region_of = f"this region of the {problem.side}"
    reason = f"onnxruntime does not run {region_of}: {problem}" if problem.crash is None else f"{problem} {region_of}"
    return Comparison(region.output, "unequal" if problem.is_wrong else "inconclusive", reason=reason)


def _unrun(region: Region) -> Comparison:
    return Comparison(region.output, "inconclusive", reason="not run, as another region took too long")


def _reason(results: Sequence[Comparison]) -> str:
    """Why the regions are not all equal, by the first of the worst ones."""
    verdict = worst(result.verdict for result in results)
    if verdict == "equal":
        return ""
    those = [result for result in results if result.verdict == verdict]
    rest = f" (and {len(those) - 1} more)" if len(those) > 1 else ""
    return f"'{those[0].name}': {those[0].reason}{rest}"


def _decided(regions: Verification, undecided: tuple[Region, ...], whole: Verification) -> Verification:
    """What regions and whole models say together: where regions are undecided, the whole decides."""
    return replace(
        regions,
        verdict=whole.verdict,
        decided_by=whole.decided_by,
        reason=whole.reason or regions.reason,
        failing=undecided if whole.verdict == "unequal" else (),
        outputs=whole.outputs,
        inputs=whole.inputs,
        providers=whole.providers,
        level=whole.level,
        parting=whole.parting,
        hint=whole.hint,
    )
