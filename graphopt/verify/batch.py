"""Many regions in one pair of sessions: the cones of the original in one model, those of the candidate in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from onnx import TypeProto

from graphopt.ir import Model
from graphopt.runtime import Crash, RunError
from graphopt.verify.chunks import known_sizes
from graphopt.verify.cuts import Region
from graphopt.verify.inputs.feeds import Feed
from graphopt.verify.inputs.variants import Variants
from graphopt.verify.numbers.measure import lost_numbers, over_feeds
from graphopt.verify.pair import CannotRun, Pair, Side, Values
from graphopt.verify.parts import Part, PartSession, part, type_of
from graphopt.verify.placement import Op, counted, elsewhere, fused_ops, over_providers
from graphopt.verify.refusals import is_excused
from graphopt.verify.results import Comparison
from graphopt.verify.runs import Runs
from graphopt.verify.tap import Boundary


class Batch:
    """Some regions that are run together, once for each feed and each variant of it."""

    def __init__(self, original: Model, candidate: Model, regions: Sequence[Region], runs: Runs) -> None:
        self._models: dict[Side, Model] = {"original": original, "candidate": candidate}
        self._regions = regions
        self._runs = runs
        self._boundary = list(dict.fromkeys(name for region in regions for name in region.inputs))

    def run(
        self, tap: Boundary | None, feeds: Sequence[Feed], variants: Variants | None, providers: Sequence[str]
    ) -> list[Comparison]:
        """What each region's output shows over all feeds and `providers`, in order.

        Without a `tap` the regions read constants only; without `variants` they are run on what was tapped alone.
        Raises: CannotRun where onnxruntime refuses one of the parts, RunError where it refuses the original as a whole.
        """
        found = {provider: self._run(tap, feeds, variants, provider) for provider in providers}
        return [over_providers(dict(zip(found, row, strict=True))) for row in zip(*found.values(), strict=True)]

    def _run(
        self, tap: Boundary | None, feeds: Sequence[Feed], variants: Variants | None, provider: str
    ) -> list[Comparison]:
        """What each region's output shows over all feeds on one provider."""
        rows: list[list[Comparison]] = [[] for _ in self._regions]
        with ExitStack() as stack:
            pair: Pair | None = None
            for number, feed in enumerate(feeds):
                values = tap.values(feed, self._boundary) if tap is not None else {}
                if pair is None:
                    original, candidate = self._sessions(tap, values, provider, stack)
                    pair = Pair(self._runs, original, candidate)
                plain: Values = {}
                plainly = [(feed.label, values)]
                varied_values = plainly if variants is None else variants.of(feed, values, first=number == 0)
                for label, varied in varied_values:
                    try:
                        reference, found = pair.run(label, varied, number)
                    except CannotRun as problem:
                        if len(self._regions) == 1 and is_excused(problem, feed):
                            continue
                        raise
                    plain = plain or reference
                    changed = {name for name in values if varied[name] is not values[name]}
                    for row, region in zip(rows, self._regions, strict=True):
                        lost = lost_numbers(plain[region.output], reference[region.output])
                        if not lost and _is_fair(region, changed):
                            row.append(found[region.output])
            complaints = elsewhere(candidate.kernels, provider, [_fused(region) for region in self._regions])
        ordinary = {feed.label for feed in feeds if feed.is_ordinary}
        return [counted(over_feeds(row, ordinary), complaint) for row, complaint in zip(rows, complaints, strict=True)]

    def _sessions(
        self, tap: Boundary | None, values: Values, provider: str, stack: ExitStack
    ) -> tuple[PartSession, PartSession]:
        """The original's on the CPU, and the candidate's on a provider, for values like these."""
        kinds = tap.types if tap is not None else {}
        typed = values.keys() & kinds.keys()
        types = {name: type_of(kinds[name], values[name], self._sizes(name)) for name in typed}
        original = self._load("original", self._part("original", types), "cpu", stack)
        return original, self._load("candidate", self._part("candidate", types), provider, stack)

    def _sizes(self, name: str) -> Sequence[int | None]:
        return known_sizes(model.graph.names[name] for model in self._models.values() if name in model.graph.names)

    def _part(self, side: Side, types: Mapping[str, TypeProto]) -> Part:
        roots = [region.original if side == "original" else region.candidate for region in self._regions]
        cuts, noisy = self._regions[0].cuts, self._runs.data if side == "original" else None
        return part(
            self._models[side], roots, self._runs.weights, cuts=cuts, types=types, noisy=noisy, seeds=self._runs.seeds
        )

    def _load(self, side: Side, part: Part, provider: str, stack: ExitStack) -> PartSession:
        try:
            profile = provider != "cpu"
            session = part.load(self._runs.runner, f"regions of the {side}", provider=provider, profile=profile)
        except RunError as error:
            raise CannotRun(side, error.message) from error
        except Crash as crash:
            raise CannotRun(side, crash.message, is_wrong=side == "candidate", crash=crash) from crash
        stack.callback(session.close)
        return session


def _fused(region: Region) -> frozenset[Op]:
    return fused_ops(region.original_cone.nodes, region.candidate_cone.nodes)


def _is_fair(region: Region, changed: set[str]) -> bool:
    """Whether a variant that changes these may be held against a rewrite.

    Where the two sides start from different cuts, the rewrite may have used how these depend on each other, which
    values changed one by one do not keep.
    """
    before, after = region.original_cone.boundary, region.candidate_cone.boundary
    return changed.intersection(before) == changed.intersection(after)
