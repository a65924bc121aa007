"""Whole models, side by side: with optimization off, which decides, and as onnxruntime runs them by default.

One feed after another, so that no more than one run's outputs are there at a time. Without optimization weights are
used where they lie; a default session copies them, so that only one is open at a time, and not beside the candidate's.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from graphopt.ir import Model
from graphopt.ir.infer import infer
from graphopt.runtime import Crash, RunError, Runner
from graphopt.verify.align import Alignment
from graphopt.verify.chunks import MOST_NODES, Chunks
from graphopt.verify.cuts import Cuts
from graphopt.verify.failures.cases import keep, keep_crash
from graphopt.verify.inputs.feeds import Feed
from graphopt.verify.interface import interface_difference
from graphopt.verify.locate import first_difference
from graphopt.verify.numbers.measure import NO_ELEMENTS, over_feeds
from graphopt.verify.pair import CannotRun, Pair
from graphopt.verify.parts import PartSession, Runnable, part
from graphopt.verify.placed import read_from_files
from graphopt.verify.placement import counted, elsewhere, fused_ops, not_needed, provider_result
from graphopt.verify.random_ops import difference as random_difference
from graphopt.verify.refusals import (
    bad_data,
    help_for,
    invalid,
    is_excused,
    is_invalid,
    of_reference,
    shortened,
    within_limits,
)
from graphopt.verify.results import WHOLE, Comparison, Counts, Crashed, Options, ProviderResult, Verification, worst
from graphopt.verify.retuned import first_wrong
from graphopt.verify.runs import Runs

MOST_LOADED: Final = 4 * MOST_NODES
"""Nodes of the largest model that is loaded as a whole."""

_ONLY: Final = "only the reference runs on"

_EQUAL: Final = Verification("equal", "structure", level="full")

Outputs = Mapping[str, Comparison]


def compare(
    reference: Model, candidate: Model, options: Options | None = None, runner: Runner | None = None
) -> Verification:
    """Whether two models, wherever they come from, compute the same; a `runner` that is open runs them, and stays open.

    Raises: InconclusiveError GO012 or GO017 where no inputs can be made, ModelError where the reference is no valid
    model or does not run on the data given, RuntimeCrash where onnxruntime needs too much memory, UsageError for
    options that do not fit the model. Where it crashes or runs out of time, the case is kept, and `crashes` says where.
    """
    start = time.perf_counter()
    with Runs(reference, options or Options(), runner) as runs:
        difference = interface_difference(reference, candidate) or random_difference(reference, candidate)
        if difference:
            found = replace(_EQUAL, verdict="unequal", reason=difference)
        else:
            try:
                found = _compared(runs, reference, candidate)
            except Crash as crash:
                found = _crashed(runs, crash)
    return replace(found, seconds=time.perf_counter() - start)


def _compared(runs: Runs, reference: Model, candidate: Model) -> Verification:
    alignment = Alignment(reference, candidate)
    if alignment.is_equal:
        outputs = len(reference.graph.outputs)
        reason = not_needed(runs.options.providers)
        return replace(_EQUAL, reason=reason, counts=Counts(outputs, outputs), parting=alignment.parting())
    found = compare_in(runs, reference, candidate, alignment)
    if found.verdict == "equal" and not any(map(is_large, (reference, candidate))):
        wrong = first_wrong(runs, reference, alignment.retuned())
        if wrong is not None:
            found = replace(found, verdict="unequal", decided_by="regions", reason=wrong.reason, regions=(wrong,))
    return found


def _crashed(runs: Runs, crash: Crash) -> Verification:
    """What is said where onnxruntime died: nothing of the models, and where the case is kept."""
    side = crash.where.removeprefix("the ")
    kept = Crashed(WHOLE, side, crash.code, crash.message, str(keep_crash(runs.options.keep, crash)))
    reason = f"{crash.message} {crash.where}"
    return replace(_EQUAL, verdict="inconclusive", decided_by="end-to-end", reason=reason, crashes=(kept,))


def compare_in(runs: Runs, reference: Model, candidate: Model, alignment: Alignment | None = None) -> Verification:
    """`compare` by running, in a child process that is there already."""
    installed, skipped = runs.providers()
    found = replace(_EQUAL, decided_by="end-to-end", providers=tuple(skipped))
    if not installed:
        return replace(found, verdict="skipped", reason=skipped[0].reason)
    alignment = alignment or Alignment(reference, candidate)
    infer(candidate)
    runs.seed(candidate)
    try:
        with closing(_session(runs, reference, "the reference", noisy=True)) as session:
            feeds = runs.feeds(session, thorough=True)
            outcomes = [_Trial(runs, session, reference, candidate, feeds, name).run() for name in installed]
    except RunError as error:
        if is_invalid(error):
            raise invalid(error, reference) from error
        reason, hint = of_reference(error)
        ran = tuple(ProviderResult(name, "inconclusive") for name in installed)
        return replace(found, verdict="inconclusive", reason=reason, hint=hint, providers=(*ran, *skipped))
    failed = next((outcome.failed for outcome in outcomes if outcome.failed is not None), None)
    parting = alignment.parting()
    notes = [outcome.note for outcome in outcomes]
    if failed is not None:
        notes.insert(0, _kept(runs, feeds[failed]))
        if not any(map(is_large, (reference, candidate))):
            value = first_difference(runs, reference, candidate, alignment.couples(), feeds, failed)
            parting = replace(parting, value=value)
    fed = feeds[: max(outcome.fed for outcome in outcomes)]
    concluded = _concluded(found, outcomes, skipped)
    return replace(
        concluded,
        inputs=tuple(line for feed in fed for line in feed.records()),
        parting=parting,
        hint=_hint(runs, concluded, notes),
    )


def _concluded(found: Verification, outcomes: Sequence[_Outcome], skipped: Sequence[ProviderResult]) -> Verification:
    """What all providers show together."""
    providers = (*(outcome.provider for outcome in outcomes), *skipped)
    verdict = worst(provider.verdict for provider in providers)
    outputs = tuple(one for outcome in outcomes for one in outcome.outputs)
    said = [f"'{one.name}': {one.reason}" for one in outputs if one.verdict == verdict and one.reason]
    said += [f"{one.name}: {one.reason}" for one in providers if one.verdict == verdict and one.reason]
    return replace(found, verdict=verdict, reason=next(iter(said), ""), outputs=outputs, providers=providers)


def _hint(runs: Runs, found: Verification, notes: Sequence[str]) -> str:
    """What may help, or is to be known."""
    if found.verdict == "inconclusive" and not runs.is_given:
        return "give real inputs with --inputs FILE.npz"
    return next(filter(None, [*notes, help_for(found.reason)]), "")


def _kept(runs: Runs, feed: Feed) -> str:
    """Where the inputs are that show a mistake, if such are to be kept."""
    if runs.options.keep is None or runs.is_given:
        return ""
    return f"run it again with --inputs {keep(runs.options.keep, 'unequal', {}, feed.arrays) / 'inputs.npz'}"


def is_large(model: Model) -> bool:
    """Whether a model has too many nodes for one session: to create one takes time by the square of its nodes."""
    return sum(1 for _ in model.graph.ops()) > MOST_LOADED


def _session(runs: Runs, model: Model, name: str, *, noisy: bool = False, **options: Any) -> PartSession | Chunks:
    """A whole model in one session; a large one, without optimization, in several."""
    if is_large(model):
        return Chunks(model, Cuts(frozenset()).cone(model.graph.outputs).nodes, model.graph.outputs, runs, **options)
    whole = part(model, model.graph.outputs, runs.weights, noisy=runs.data if noisy else None, seeds=runs.seeds)
    return (read_from_files(whole) if options.get("optimize") else whole).load(runs.runner, name, **options)


@dataclass(frozen=True)
class _Outcome:
    """What a provider shows of each output over the first `fed` feeds.

    `failed` is the one that showed a mistake, `note` what else is to be said.
    """

    provider: ProviderResult
    outputs: Sequence[Comparison]
    fed: int
    failed: int | None = None
    note: str = ""


@dataclass(frozen=True)
class _Trial:
    """The candidate on one provider, against a session of the reference on the CPU, under one feed after another."""

    runs: Runs
    session: PartSession | Chunks
    reference: Model
    candidate: Model
    feeds: Sequence[Feed]
    provider: str

    @property
    def _never_filled(self) -> set[str]:
        """The outputs one of whose sizes is always 0."""
        return {output.name for output in self.reference.graph.outputs if 0 in (output.shape or ())}

    def run(self) -> _Outcome:
        """Stops at the first feed that shows a mistake."""
        try:
            candidate = self._load(self.candidate, "the candidate", profile=self.provider != "cpu")
        except RunError as error:
            within_limits(error)
            return self._outcome(self._wrong(f"onnxruntime does not load the candidate: {shortened(error.message)}"), 0)
        rows: dict[str, list[Comparison]] = {}
        fed, failed = 0, None
        with closing(candidate):
            for number, outputs in self._against(candidate):
                fed = number + 1
                for name, one in outputs.items():
                    rows.setdefault(name, []).append(one)
                if any(one.verdict == "unequal" for one in outputs.values()):
                    failed = number
                    break
            fused = fused_ops(self.reference.graph.ops(), self.candidate.graph.ops())
            (complaint,) = elsewhere(candidate.kernels, self.provider, [fused])
        ordinary = {feed.label for feed in self.feeds if feed.is_ordinary}
        found = {name: counted(self._of_feeds(row, ordinary), complaint) for name, row in rows.items()}
        note = next((one.reason for row in rows.values() for one in row if one.reason.startswith(_ONLY)), "")
        if failed is None and not is_large(self.candidate):
            mistaken, changed = self._by_default()
            found |= mistaken
            note = changed or note
        return replace(self._outcome(found, fed, failed), note=note)

    def _of_feeds(self, row: Sequence[Comparison], ordinary: Collection[str]) -> Comparison:
        """What all feeds show of an output. One that never has elements is equal when its type and shape are."""
        found = over_feeds(row, ordinary)
        never = found.name in self._never_filled and all(one.reason == NO_ELEMENTS for one in row)
        return replace(found, verdict="equal", reason="") if never else found

    def _outcome(self, outputs: Outputs, fed: int, failed: int | None = None) -> _Outcome:
        return _Outcome(provider_result(self.provider, outputs.values()), list(outputs.values()), fed, failed)

    def _load(self, model: Model, name: str, **options: Any) -> PartSession | Chunks:
        return _session(self.runs, model, name, provider=self.provider, **options)

    def _wrong(self, reason: str, feed: str = "") -> dict[str, Comparison]:
        names = dict.fromkeys(output.name for output in self.candidate.graph.outputs)
        return {name: Comparison(name, "unequal", feed=feed, reason=reason) for name in names}

    def _refused(self, problem: CannotRun, feed: Feed) -> dict[str, Comparison]:
        """What it means that the candidate does not run on a feed. What is empty has no numbers to be wrong."""
        fed = (array for array in feed.arrays.values() if isinstance(array, np.ndarray))
        is_empty = problem.misses_nothing or any(np.size(array) == 0 for array in fed)
        if is_empty or is_excused(problem, feed):
            reason = f"{_ONLY} {'empty inputs' if is_empty else feed.kind} ({feed.label}): {shortened(str(problem))}"
            return {name: replace(one, verdict="skipped", reason=reason) for name, one in self._wrong("").items()}
        return self._wrong(f"onnxruntime does not run the candidate: {shortened(str(problem))}", feed.label)

    def _against(self, session: Runnable) -> Iterator[tuple[int, Outputs]]:
        """The outputs of `session` under each feed, by its number, but for those that the reference does not run on.

        Raises: RunError where that is every one, ModelError where it was given, RuntimeCrash.
        """
        pair = Pair(self.runs, self.session, session)
        refused: CannotRun | None = None
        ran = False
        for number, feed in enumerate(self.feeds):
            try:
                yield number, pair.run(feed.label, feed.arrays, number, feed.special)[1]
                ran = True
            except CannotRun as problem:
                within_limits(problem)
                if problem.side == "candidate":
                    yield number, self._refused(problem, feed)
                    ran = True
                elif self.runs.is_given:
                    raise bad_data(str(problem), self.reference) from problem
                refused = problem
        if refused is not None and not ran:
            raise RunError("run", "", str(refused), "the reference")

    def _by_default(self) -> tuple[dict[str, Comparison], str]:
        """The outputs that are wrong only in onnxruntime's default session, where the reference's are right.

        And a note where the reference's own are not: then the optimizer of onnxruntime is wrong, or coarse, for both.
        """
        wrong: dict[int, Outputs] = {}
        # A session takes most while it is created: the reference's comes back when it is next run.
        self.session.close()
        try:
            with closing(self._load(self.candidate, "the candidate in a default session", optimize=True)) as session:
                for number, outputs in self._against(session):
                    wrong[number] = {name: one for name, one in outputs.items() if one.verdict == "unequal"}
        except RunError as error:
            within_limits(error)
            wrong[0] = self._wrong(f"onnxruntime does not load the candidate: {shortened(error.message)}")
        if not any(wrong.values()):
            return {}, ""
        try:
            with closing(self._load(self.reference, "the reference in a default session", optimize=True)) as session:
                right = {number: outputs for number, outputs in self._against(session) if wrong.get(number)}
        except RunError as error:
            within_limits(error)
            return {}, ""
        mistaken = {
            name: replace(one, reason=f"in onnxruntime's default session: {one.reason}")
            for number, outputs in right.items()
            for name, one in wrong[number].items()
            if outputs[name].verdict == "equal" and not _is_as_close(one, outputs[name])
        }
        own = (outputs[name] for number, outputs in right.items() for name in wrong[number])
        return mistaken, next((_changed(one) for one in own if one.verdict == "unequal"), "")


def _is_as_close(new: Comparison, old: Comparison) -> bool:
    """Whether an error is no more than twice the error that was there before."""
    return new.ratio is not None and old.ratio is not None and new.ratio <= 2 * old.ratio


def _changed(own: Comparison) -> str:
    """The note for who runs the models in a session that is wrong for the reference as well."""
    what = f"'{own.name}' is {own.reason}" if own.reason.startswith("off by") else f"'{own.name}': {own.reason}"
    return f"onnxruntime's own optimizer changes the reference, and the candidate as well, in a default session: {what}"
