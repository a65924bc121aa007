"""Checking a candidate against its original: by structure, then region by region, then end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from graphopt.errors import InconclusiveError
from graphopt.ir import Model
from graphopt.runtime import RunError
from graphopt.verify.batch import MOST_NODES, Batch
from graphopt.verify.cuts import Comparer, Region
from graphopt.verify.endtoend import compare_in
from graphopt.verify.feeds import Feed
from graphopt.verify.pair import CannotRun
from graphopt.verify.results import Comparison, Counts, FedInput, Options, ProviderResult, Verification, worst
from graphopt.verify.runs import Runs, interface_difference
from graphopt.verify.structure import draws
from graphopt.verify.tap import Tap
from graphopt.verify.variants import Variants

MOST_LOADED = 4 * MOST_NODES
"""Nodes of the largest model that is loaded as a whole."""


def check(original: Model, candidate: Model, options: Options | None = None) -> Verification:
    """Whether `candidate` computes what `original` does, from which it was made by rewriting.

    Raises: InconclusiveError GO012 or GO017 where no inputs can be made, RuntimeCrash where onnxruntime crashed or ran
    out of time, UsageError for options that do not fit the model.
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
        self._variants = Variants(self._runs.data)
        self._tap: Tap | None = None

    def __enter__(self) -> Self:
        self._runs.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._runs.__exit__(kind, error, tb)

    def check(self, candidate: Model) -> Verification:
        """As the function `check`; regions that an earlier candidate had as well are not run again."""
        start = time.perf_counter()
        return replace(self._check(candidate), seconds=time.perf_counter() - start)

    def _check(self, candidate: Model) -> Verification:
        difference = interface_difference(self._original, candidate)
        if difference:
            return Verification("unequal", "structure", difference)
        found, free = self._comparer.regions(candidate)
        todo = [region for region in found if region.key not in self._known]
        counts = Counts(free + len(found), free, len(todo), len(found) - len(todo))
        if not found:
            return Verification("equal", "structure", counts=counts)
        installed, skipped = self._runs.providers()
        if not installed:
            return Verification("skipped", "regions", skipped[0].reason, providers=tuple(skipped), counts=counts)
        try:
            inputs = self._run(candidate, todo, installed)
        except (InconclusiveError, RunError) as error:
            refusal = self._refusal(candidate)
            if refusal:
                refusal += f"; it does not run the original: {error.message}" if isinstance(error, RunError) else ""
                return Verification("unequal", "structure", refusal, counts=counts)
            if isinstance(error, InconclusiveError):
                raise
            reason = f"onnxruntime does not run the original: {error.message}"
            ran = tuple(ProviderResult(name, "inconclusive") for name in installed)
            return Verification("inconclusive", "regions", reason, providers=(*ran, *skipped), counts=counts)
        results = tuple(self._known[region.key] for region in found)
        verdict = worst(result.verdict for result in results)
        verification = Verification(
            worst([verdict, *(provider.verdict for provider in skipped)]),
            "regions",
            _reason(results) or next((f"{p.name}: {p.reason}" for p in skipped), ""),
            regions=results,
            failing=tuple(region for region in found if self._known[region.key].verdict == "unequal"),
            inputs=inputs,
            providers=(*(ProviderResult(name, verdict) for name in installed), *skipped),
            counts=counts,
        )
        refusal = self._refusal(candidate) if verdict == "equal" else ""
        if refusal:
            return replace(verification, verdict="unequal", decided_by="structure", reason=refusal)
        if verdict == "inconclusive" or (verdict == "equal" and self._options.level == "full"):
            undecided = tuple(region for region in found if self._known[region.key].verdict == "inconclusive")
            return _decided(verification, undecided, compare_in(self._runs, self._original, candidate))
        return verification

    def _refusal(self, candidate: Model) -> str:
        """Why onnxruntime loads the original, but not the candidate, whose parts it may run; empty where it does.

        One that is larger than `MOST_LOADED` is not tried: creating a session takes time by the square of its nodes.
        """
        small = sum(1 for _ in candidate.graph.ops()) <= MOST_LOADED
        refusal = self._runs.refusal(candidate) if small else ""
        if not refusal or self._runs.refusal(self._original):
            return ""
        return f"onnxruntime loads the original, but not the candidate: {refusal}"

    def _run(self, candidate: Model, todo: Sequence[Region], providers: Sequence[str]) -> tuple[FedInput, ...]:
        """Fills in what is known of the regions `todo`; returns what was fed."""
        random = any(draws(node) for model in (self._original, candidate) for node in model.graph.ops())
        drawn = [region for region in todo if random and region.is_random]
        for region in drawn:
            reason = "it draws random numbers: two runs differ"
            self._known[region.key] = Comparison(region.output, "inconclusive", reason=reason)
        left = [region for region in todo if region not in drawn]
        for batch in _batches([region for region in left if not region.inputs]):
            self._run_batch(candidate, batch, None, [Feed("constants", self._options.seed, {})], providers)
        moving = [region for region in left if region.inputs]
        if not moving:
            return ()
        tap = self._tapping([name for region in moving for name in region.inputs])
        feeds = tap.feeds()
        for batch in _batches(moving):
            self._run_batch(candidate, batch, tap, feeds, providers)
        return tuple(record for feed in feeds for record in feed.records())

    def _tapping(self, names: Sequence[str]) -> Tap:
        if self._tap is None or not self._tap.has(names):
            if self._tap is not None:
                self._tap.close()
            self._tap = Tap(self._original, names, self._runs)
        return self._tap

    def _run_batch(
        self, candidate: Model, batch: list[Region], tap: Tap | None, feeds: Sequence[Feed], providers: Sequence[str]
    ) -> None:
        """Runs a batch; one that cannot be run as a whole, in halves."""
        waiting = [batch]
        while waiting:
            batch = waiting.pop()
            try:
                results = Batch(self._original, candidate, batch, self._runs).run(tap, feeds, self._variants, providers)
            except CannotRun as problem:
                middle = len(batch) // 2
                if middle:
                    waiting += [batch[middle:], batch[:middle]]
                    continue
                results = [_refused(batch[0], problem)]
            self._known.update(zip((region.key for region in batch), results, strict=True))


def _batches(regions: Sequence[Region]) -> Iterator[list[Region]]:
    """Regions in groups of at most `MOST_NODES` nodes."""
    batch: list[Region] = []
    size = 0
    for region in regions:
        count = len(region.original_cone.nodes) + len(region.candidate_cone.nodes)
        if batch and size + count > MOST_NODES:
            yield batch
            batch, size = [], 0
        batch.append(region)
        size += count
    if batch:
        yield batch


def _refused(region: Region, problem: CannotRun) -> Comparison:
    reason = f"onnxruntime does not run this region of the {problem.side}: {problem}"
    return Comparison(region.output, "unequal" if problem.is_wrong else "inconclusive", reason=reason)


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
    )
