"""Whole models, side by side: with optimization off, which decides, and as onnxruntime runs them by default."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from graphopt.ir import Model
from graphopt.runtime import RunError
from graphopt.verify.cuts import regions
from graphopt.verify.feeds import Feed
from graphopt.verify.measure import compare as compare_values
from graphopt.verify.measure import over_feeds
from graphopt.verify.parts import Part, part
from graphopt.verify.results import Comparison, Counts, Options, ProviderResult, Verification, worst
from graphopt.verify.runs import Runs, interface_difference
from graphopt.verify.tolerance import K

Values = Mapping[str, Any]


@dataclass(frozen=True)
class _Expected:
    """What the reference gives under one feed: `moved` when inputs and small weights move by an ulp, `default` in
    onnxruntime's default session (None: it does not run there)."""

    feed: Feed
    outputs: Values
    moved: Sequence[Values]
    default: Values | None


def compare(reference: Model, candidate: Model, options: Options | None = None) -> Verification:
    """Whether two models, wherever they come from, compute the same.

    Raises: InconclusiveError GO012 or GO017 where no inputs can be made, RuntimeCrash where onnxruntime crashed or ran
    out of time, UsageError for options that do not fit the model.
    """
    start = time.perf_counter()
    with Runs(reference, options or Options()) as runs:
        found = _structural(reference, candidate) or compare_in(runs, reference, candidate)
    return replace(found, seconds=time.perf_counter() - start)


def _structural(reference: Model, candidate: Model) -> Verification | None:
    difference = interface_difference(reference, candidate)
    if difference:
        return Verification("unequal", "structure", difference)
    found, free = regions(reference, candidate)
    return None if found else Verification("equal", "structure", counts=Counts(free, free))


def compare_in(runs: Runs, reference: Model, candidate: Model) -> Verification:
    """`compare` by running, in a child process that is there already."""
    installed, skipped = runs.providers()
    if not installed:
        return Verification("skipped", "end-to-end", skipped[0].reason, providers=tuple(skipped))
    try:
        expected = _expected(runs, reference)
    except RunError as error:
        reason = f"onnxruntime does not run the reference: {error.message}"
        ran = tuple(ProviderResult(name, "inconclusive") for name in installed)
        return Verification("inconclusive", "end-to-end", reason, providers=(*ran, *skipped))
    new = part(candidate, candidate.graph.outputs, runs.weights)
    found = {provider: _outputs(runs, new, provider, expected) for provider in installed}
    results = [*(ProviderResult(p, worst(o.verdict for o in some)) for p, some in found.items()), *skipped]
    outputs = tuple(output for some in found.values() for output in some)
    verdict = worst(result.verdict for result in results)
    off = next((f"'{o.name}': {o.reason}" for o in outputs if o.verdict == verdict and o.reason), "")
    return Verification(
        verdict,
        "end-to-end",
        off or next((f"{p.name}: {p.reason}" for p in skipped), ""),
        outputs=outputs,
        inputs=tuple(record for one in expected for record in one.feed.records()),
        providers=tuple(results),
    )


def _expected(runs: Runs, reference: Model) -> list[_Expected]:
    """Raises RunError where onnxruntime refuses the reference with optimization off."""
    roots = reference.graph.outputs
    with closing(part(reference, roots, runs.weights, noisy=runs.data).load(runs.runner, "the reference")) as session:
        feeds = runs.feeds(session)
        plain = [session.run(feed.arrays) for feed in feeds]
        moved = [[session.run(f) for f in runs.moved(feed.arrays, session, n)] for n, feed in enumerate(feeds)]
    default = _default(runs, part(reference, roots, runs.weights), feeds)
    return [_Expected(*one) for one in zip(feeds, plain, moved, default, strict=True)]


def _default(runs: Runs, whole: Part, feeds: Sequence[Feed], provider: str = "cpu") -> Sequence[Values | None]:
    """What the model gives in onnxruntime's default session; None where it is refused."""
    try:
        with closing(whole.load(runs.runner, "default session", optimize=True, provider=provider)) as session:
            return [session.run(feed.arrays) for feed in feeds]
    except RunError:
        return [None] * len(feeds)


def _outputs(runs: Runs, whole: Part, provider: str, expected: Sequence[_Expected]) -> list[Comparison]:
    """Every output of the candidate on one provider."""
    feeds = [one.feed for one in expected]
    try:
        with closing(whole.load(runs.runner, "the candidate", provider=provider)) as session:
            plain = [session.run(feed.arrays) for feed in feeds]
    except RunError as error:
        reason = f"onnxruntime does not run the candidate: {error.message}"
        return [Comparison(name, "unequal", reason=reason) for name in whole.outputs]
    default = _default(runs, whole, feeds, provider)
    return [_output(name, expected, plain, default) for name in whole.outputs]


def _output(
    name: str, expected: Sequence[_Expected], plain: Sequence[Values], default: Sequence[Values | None]
) -> Comparison:
    """Decided with optimization off; the default session can only show what is off there and was not before."""
    found = over_feeds([_compared(name, one, values) for one, values in zip(expected, plain, strict=True)])
    if found.verdict == "unequal":
        return found
    for one, values in zip(expected, default, strict=True):
        if one.default is None:
            continue
        before = _compared(name, one, one.default)
        if before.verdict != "equal":
            continue
        if values is None:
            return Comparison(name, "unequal", reason="only the reference runs in onnxruntime's default session")
        after = _compared(name, one, values, max(K, 2 * (before.ratio or 0)))
        if after.verdict == "unequal":
            return replace(after, reason=f"in onnxruntime's default session: {after.reason}")
    return found


def _compared(name: str, one: _Expected, values: Values, allowed: float = K) -> Comparison:
    moved = [draw[name] for draw in one.moved]
    return compare_values(name, one.outputs[name], values[name], moved, feed=one.feed.label, allowed=allowed)
