"""Checking a candidate against its original: by structure, then region by region, then end to end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from graphopt.ir import Model, Value
from graphopt.runtime import RunError
from graphopt.verify.cuts import Region, is_initializer, regions
from graphopt.verify.endtoend import compare_in
from graphopt.verify.feeds import PLAIN, Feed
from graphopt.verify.measure import compare, exactly_equal, over_feeds, worse
from graphopt.verify.parts import PartSession, part, type_of
from graphopt.verify.results import Comparison, Counts, FedInput, Options, ProviderResult, Verification, worst
from graphopt.verify.runs import Runs, interface_difference
from graphopt.verify.structure import Constants, Numbers, draws
from graphopt.verify.variants import Variants

_MOST_NODES: Final = 5_000
_MOST_BYTES: Final = 256 << 20


class _Refused(Exception):
    """A batch cannot be run: `side` says which of the two models' parts onnxruntime refuses."""

    def __init__(self, side: str, reason: str) -> None:
        super().__init__(reason)
        self.side = side


class _TooLarge(Exception):
    """The boundary values of a batch take more memory than they may."""


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
        self._numbers = Numbers()
        self._constants = Constants(original, self._numbers)
        self._known: dict[tuple[str, int, int], Comparison] = {}
        self._variants = Variants(original)
        self._tapped: PartSession | None = None
        self._random = any(draws(node) for node in original.graph.ops())

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
        found, free = regions(self._original, candidate, self._numbers, self._constants)
        todo = [region for region in found if region.key not in self._known]
        counts = Counts(free + len(found), free, len(todo), len(found) - len(todo))
        if not found:
            return Verification("equal", "structure", counts=counts)
        providers, skipped = self._runs.providers()
        if not providers:
            reason = "none of the providers is installed"
            return Verification("skipped", "regions", reason, providers=tuple(skipped), counts=counts)
        try:
            inputs = self._run(candidate, todo, providers)
        except RunError as error:
            ran = [ProviderResult(name, "inconclusive") for name in providers]
            reason = f"onnxruntime cannot run the original: {error.message}"
            return Verification("inconclusive", "regions", reason, providers=(*ran, *skipped), counts=counts)
        results = [self._known[region.key] for region in found]
        verdict = worst(result.verdict for result in results)
        failing = tuple(region for region in found if self._known[region.key].verdict == "unequal")
        verification = Verification(
            worst([verdict, *(provider.verdict for provider in skipped)]),
            "regions",
            _reason(results) or "".join(provider.reason for provider in skipped),
            tuple(results),
            (),
            failing,
            tuple(inputs),
            (*(ProviderResult(name, verdict) for name in providers), *skipped),
            counts,
        )
        if verdict == "inconclusive" or verdict == "equal" and self._options.level == "full":
            return _with_whole(verification, compare_in(self._runs, self._original, candidate))
        return verification

    # ---- running regions ---------------------------------------------------------------------------------------

    def _run(self, candidate: Model, todo: Sequence[Region], providers: Sequence[str]) -> list[FedInput]:
        """Fills in what is known of the regions `todo`; returns what was fed."""
        if self._random or any(draws(node) for node in candidate.graph.ops()):
            for region in todo:
                if region.is_random:
                    reason = "it draws random numbers: two runs differ"
                    self._known[region.key] = Comparison(region.output, "inconclusive", reason=reason)
        todo = [region for region in todo if region.key not in self._known]
        fixed = [region for region in todo if not region.inputs]
        for batch in _batches(fixed):
            self._run_batch(candidate, batch, [Feed("constants", self._options.seed, {})], providers)
        moving = [region for region in todo if region.inputs]
        if not moving:
            return []
        tap = self._tap(moving)
        feeds = self._runs.feeds(tap)
        for batch in _batches(moving):
            self._run_batch(candidate, batch, feeds, providers)
        return [record for feed in feeds for record in feed.records()]

    def _tap(self, moving: Sequence[Region]) -> PartSession:
        """A session of the original that computes the boundaries of these regions."""
        names = dict.fromkeys(name for region in moving for name in region.inputs)
        values = [self._original.graph.names[name] for name in names]
        roots = [value for value in values if not value.node.is_source] or self._original.graph.outputs[:1]
        if self._tapped is None or not {root.name for root in roots} <= self._tapped.part.outputs.keys():
            if self._tapped is not None:
                self._tapped.close()
            whole = part(self._original, roots, self._runs.weights)
            self._tapped = whole.load(self._runs.runner, "the original")
        return self._tapped

    def _run_batch(
        self, candidate: Model, regions: Sequence[Region], feeds: Sequence[Feed], providers: Sequence[str]
    ) -> None:
        """Runs a batch; one that cannot be run as a whole, in halves."""
        waiting = [list(regions)]
        while waiting:
            batch = waiting.pop()
            try:
                self._known.update(_Batch(self, candidate, batch, providers).run(feeds))
            except (_Refused, _TooLarge) as problem:
                middle = len(batch) // 2
                if middle:
                    waiting += [batch[middle:], batch[:middle]]
                    continue
                refused = problem.side if isinstance(problem, _Refused) else "original"
                verdict, subject = ("unequal", "candidate") if refused == "candidate" else ("inconclusive", "original")
                reason = f"onnxruntime does not run the {subject}'s part: {problem}"
                self._known[batch[0].key] = Comparison(batch[0].output, verdict, reason=reason)  # type: ignore[arg-type]
