"""Many regions in one pair of sessions: the cones of the original in one model, those of the candidate in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, Literal

import numpy as np
from onnx import TypeProto

from graphopt.ir import Model
from graphopt.runtime import RunError
from graphopt.verify.cuts import Region
from graphopt.verify.feeds import Feed
from graphopt.verify.measure import compare, lost_numbers, over_feeds, worse
from graphopt.verify.parts import Part, PartSession, part, type_of
from graphopt.verify.results import Comparison
from graphopt.verify.runs import Runs
from graphopt.verify.variants import Variants

MOST_NODES: Final = 5_000
MOST_BYTES: Final = 256 << 20

Values = Mapping[str, Any]
Side = Literal["original", "candidate"]


class CannotRun(Exception):
    """The batch cannot be run as a whole: onnxruntime refuses the part of one `side`, or there is too much of it.

    `is_wrong` where the candidate's part was loaded and then failed on values that the original's part took.
    """

    def __init__(self, side: Side, reason: str, is_wrong: bool = False) -> None:
        super().__init__(reason)
        self.side = side
        self.is_wrong = is_wrong


class Tap:
    """The original, in a session that also gives the values at the boundaries of regions."""

    def __init__(self, model: Model, names: Sequence[str], runs: Runs) -> None:
        self._runs = runs
        values = [model.graph.names[name] for name in dict.fromkeys(names)]
        roots = [value for value in values if not value.node.is_source] or model.graph.outputs[:1]
        self._session = part(model, roots, runs.weights).load(runs.runner, "the original")
        self._inputs = {node.output.name for node in model.graph.inputs}
        self.types = self._session.types()

    def has(self, names: Sequence[str]) -> bool:
        """Whether this tap gives the values of all of these."""
        return all(name in self.types or name in self._inputs for name in names)

    def feeds(self) -> list[Feed]:
        """The feeds under which the original runs. Raises what `Runs.feeds` raises."""
        return self._runs.feeds(self._session)

    def values(self, feed: Feed, names: Sequence[str]) -> dict[str, Any]:
        """The values called `names` under `feed`. Raises RunError."""
        given = {name: feed.arrays[name] for name in names if name in feed.arrays}
        return given | self._session.run(feed.arrays, [name for name in names if name in self.types])

    def close(self) -> None:
        self._session.close()


class Batch:
    """Some regions that are run together, once for each feed and each variant of it."""

    def __init__(self, original: Model, candidate: Model, regions: Sequence[Region], runs: Runs) -> None:
        self._models: dict[Side, Model] = {"original": original, "candidate": candidate}
        self._regions = regions
        self._runs = runs
        self._boundary = list(dict.fromkeys(name for region in regions for name in region.inputs))

    def run(
        self, tap: Tap | None, feeds: Sequence[Feed], variants: Variants, providers: Sequence[str]
    ) -> list[Comparison]:
        """What each region's output shows over all feeds, in order; without a `tap` the regions read constants only.

        Raises: CannotRun where onnxruntime refuses one of the parts, RunError where it refuses the original as a whole.
        """
        rows: list[list[Comparison]] = [[] for _ in self._regions]
        with ExitStack() as stack:
            pair: _Pair | None = None
            for number, feed in enumerate(feeds):
                values = tap.values(feed, self._boundary) if tap is not None else {}
                if pair is None:
                    self._refuse_large(values)
                    pair = self._pair(tap, values, providers, stack)
                plain: Values = {}
                for label, varied in variants.of(feed, values, first=number == 0):
                    reference, found = pair.run(label, varied, number)
                    plain = plain or reference
                    changed = {name for name in values if varied[name] is not values[name]}
                    for row, region in zip(rows, self._regions, strict=True):
                        lost = lost_numbers(plain[region.output], reference[region.output])
                        if not lost and _is_fair(region, changed):
                            row.append(found[region.output])
        return [over_feeds(row) for row in rows]

    def _refuse_large(self, values: Values) -> None:
        size = sum(value.nbytes for value in values.values() if isinstance(value, np.ndarray))
        if size > MOST_BYTES and len(self._regions) > 1:
            raise CannotRun("original", f"{size} bytes of boundary values")

    def _pair(self, tap: Tap | None, values: Values, providers: Sequence[str], stack: ExitStack) -> _Pair:
        kinds = tap.types if tap is not None else {}
        typed = values.keys() & kinds.keys()
        types = {name: type_of(kinds[name], values[name], self._sizes(name)) for name in typed}
        original = self._load("original", self._part("original", types), "cpu", stack)
        part = self._part("candidate", types)
        return _Pair(self._runs, original, [self._load("candidate", part, name, stack) for name in providers])

    def _sizes(self, name: str) -> Sequence[int | None]:
        """The sizes of a boundary value that do not depend on the feed; onnxruntime misjudges some ops without them."""
        shapes = [model.graph.names[name].shape for model in self._models.values() if name in model.graph.names]
        known = next((shape for shape in shapes if shape is not None), ())
        return [size if isinstance(size, int) else None for size in known]

    def _part(self, side: Side, types: Mapping[str, TypeProto]) -> Part:
        roots = [region.original if side == "original" else region.candidate for region in self._regions]
        cuts, noisy = self._regions[0].cuts, self._runs.data if side == "original" else None
        return part(self._models[side], roots, self._runs.weights, cuts=cuts, types=types, noisy=noisy)

    def _load(self, side: Side, part: Part, provider: str, stack: ExitStack) -> PartSession:
        try:
            session = part.load(self._runs.runner, f"regions of the {side}", provider=provider)
        except RunError as error:
            raise CannotRun(side, error.message) from error
        stack.callback(session.close)
        return session


def _is_fair(region: Region, changed: set[str]) -> bool:
    """Whether a variant that changes these may be held against a rewrite.

    Where the two sides start from different cuts, the rewrite may have used how these depend on each other, which
    values changed one by one do not keep.
    """
    before, after = region.original_cone.boundary, region.candidate_cone.boundary
    return changed.intersection(before) == changed.intersection(after)


class _Pair:
    """The original's part, and the candidate's on each provider."""

    def __init__(self, runs: Runs, original: PartSession, candidates: Sequence[PartSession]) -> None:
        self._runs = runs
        self._original = original
        self._candidates = candidates

    def run(self, label: str, values: Values, number: int) -> tuple[Values, dict[str, Comparison]]:
        """What the original gives on `values`, and how the candidate compares. Raises CannotRun."""
        reference = _run("original", self._original, values)
        results = [_run("candidate", session, values) for session in self._candidates]
        found = {name: _worst(name, reference, results, (), label) for name in reference}
        unsure = [name for name, one in found.items() if one.verdict == "unequal"]
        if unsure:
            # What agrees as far as its type allows needs no floor: to measure one takes more runs than to compare.
            draws = self._runs.moved(values, self._original, number)
            moved = [run for draw in draws if (run := _attempt(self._original, draw, unsure)) is not None]
            found |= {name: _worst(name, reference, results, moved, label) for name in unsure}
        return reference, found


def _worst(name: str, reference: Values, results: Sequence[Values], moved: Sequence[Values], label: str) -> Comparison:
    near = [draw[name] for draw in moved]
    return worse([compare(name, reference[name], result[name], near, feed=label) for result in results])


def _attempt(session: PartSession, values: Values, outputs: Sequence[str]) -> Values | None:
    """What a session gives for some of its outputs; None where an ulp makes it fail."""
    try:
        return session.run(values, outputs)
    except RunError:
        return None


def _run(side: Side, session: PartSession, values: Values) -> Values:
    try:
        return session.run(values)
    except RunError as error:
        raise CannotRun(side, error.message, is_wrong=side == "candidate") from error
