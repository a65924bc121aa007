"""Many regions in one pair of sessions: the cones of the original in one model, those of the candidate in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

import numpy as np
from onnx import TypeProto

from graphopt.ir import Model
from graphopt.runtime import RunError
from graphopt.verify.cuts import Region
from graphopt.verify.feeds import Feed
from graphopt.verify.measure import lost_numbers, over_feeds
from graphopt.verify.pair import CannotRun, Pair, Side, Values
from graphopt.verify.parts import Part, PartSession, part, type_of
from graphopt.verify.results import Comparison
from graphopt.verify.runs import Runs
from graphopt.verify.tap import Tap
from graphopt.verify.variants import Variants

MOST_NODES: Final = 5_000
MOST_BYTES: Final = 256 << 20


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
            pair: Pair | None = None
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

    def _pair(self, tap: Tap | None, values: Values, providers: Sequence[str], stack: ExitStack) -> Pair:
        kinds = tap.types if tap is not None else {}
        typed = values.keys() & kinds.keys()
        types = {name: type_of(kinds[name], values[name], self._sizes(name)) for name in typed}
        original = self._load("original", self._part("original", types), "cpu", stack)
        part = self._part("candidate", types)
        return Pair(self._runs, original, [self._load("candidate", part, name, stack) for name in providers])

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
