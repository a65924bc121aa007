"""Which regions run with which, and on how much: one of each form on everything, the others of it on one feed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from graphopt.ir import Model, Tensor
from graphopt.verify import chunks
from graphopt.verify.cuts import Cuts, Region
from graphopt.verify.forms import form
from graphopt.verify.inputs.feeds import Feed
from graphopt.verify.results import Comparison, FedInput
from graphopt.verify.runs import Runs
from graphopt.verify.tap import Boundary, Shared, Tap

_MANY_RUNS: Final = 3
_LARGE_SHARE: Final = 0.5
_TIMES: Final = 8
"""Of what regions start from, so many times the size is there at once: what both sides make of it, and of it moved."""

Known = Mapping[tuple[str, int, int], Comparison]
RunBatch = Callable[[list[Region], Boundary | None, Sequence[Feed], bool], None]
"""Runs some regions on feeds, in all variants or as they are, and makes the results known."""


@dataclass(frozen=True)
class Ran:
    """What regions were run on, and how many of them on the first feed alone, as their form was known to be right."""

    feeds: Sequence[Feed] = ()
    alike: int = 0

    @property
    def inputs(self) -> tuple[FedInput, ...]:
        """The lines of the report."""
        return tuple(record for feed in self.feeds for record in feed.records())


class Schedule:
    """Runs regions of candidates of one original, and remembers the forms that were equal in everything."""

    def __init__(self, original: Model, runs: Runs, number_of: Callable[[Tensor], int]) -> None:
        self._original = original
        self._runs = runs
        self._number_of = number_of
        self._right: set[Hashable] = set()
        self._tap: Tap | None = None

    def run(self, regions: Sequence[Region], run_batch: RunBatch, known: Known) -> Ran:
        """Runs `regions` by `run_batch`, which fills in `known`. Raises what that and `Tap.feeds` raise."""
        for batch in batches([region for region in regions if not region.inputs], {}):
            run_batch(batch, None, [Feed("constants", self._runs.options.seed, {})], True)
        moving = [region for region in regions if region.inputs]
        if not moving:
            return Ran()
        tap = self._tapping(_boundary(moving))
        feeds = tap.feeds()
        forms = {region: form(region, self._number_of) for region in moving}
        first = {of_form: region for region, of_form in reversed(forms.items()) if of_form not in self._right}
        tried = set(first.values())
        self._run([region for region in moving if region in tried], tap, feeds, run_batch, in_full=True)
        self._right.update(of_form for of_form, region in first.items() if _is_equal(region, known))
        alike = [region for region in moving if region not in tried and forms[region] in self._right]
        self._run(alike, tap, feeds[:1], run_batch, in_full=False)
        left = [region for region in moving if region not in tried and not _is_equal(region, known)]
        self._run(left, tap, feeds, run_batch, in_full=True)
        return Ran(feeds, len(alike) - sum(region in left for region in alike))

    def _run(
        self, regions: Sequence[Region], whole: Tap, feeds: Sequence[Feed], run_batch: RunBatch, in_full: bool
    ) -> None:
        if not regions:
            return
        names = _boundary(regions)
        with self._nearest(whole, names, len(feeds)) as tap:
            shared = Shared(tap, names)
            groups = list(batches(regions, shared.sizes(feeds[0])))
            shared.expect([*map(_boundary, groups)] * len(self._runs.options.providers))
            for group in groups:
                run_batch(group, shared, feeds, in_full)

    @contextmanager
    def _nearest(self, whole: Tap, names: Sequence[str], runs: int) -> Iterator[Tap]:
        """A tap that runs no more of the original than it takes, where that is worth a session more."""
        values = [self._original.graph.names[name] for name in names]
        needed = len(Cuts(frozenset()).cone(value for value in values if not value.node.is_source).nodes)
        if runs < _MANY_RUNS or _LARGE_SHARE * whole.nodes < needed:
            yield whole
            return
        tap = Tap(self._original, names, self._runs)
        try:
            yield tap
        finally:
            tap.close()

    def _tapping(self, names: Sequence[str]) -> Tap:
        if self._tap is None or not self._tap.has(names):
            if self._tap is not None:
                self._tap.close()
            self._tap = Tap(self._original, names, self._runs)
        return self._tap


def batches(regions: Sequence[Region], sizes: Mapping[str, int]) -> Iterator[list[Region]]:
    """Regions in groups of at most `MOST_NODES` nodes and `MOST_BYTES` bytes of values.

    `sizes` are bytes of boundary values by name. A region that is larger is alone.
    """
    batch: list[Region] = []
    nodes, size, names = 0, 0, set[str]()
    for region in regions:
        count = len(region.original_cone.nodes) + len(region.candidate_cone.nodes)
        more = _bytes(set(region.inputs) - names, sizes)
        if batch and (nodes + count > chunks.MOST_NODES or size + more > chunks.MOST_BYTES):
            yield batch
            batch, nodes, size, names = [], 0, 0, set()
            more = _bytes(set(region.inputs), sizes)
        batch.append(region)
        nodes, size = nodes + count, size + more
        names.update(region.inputs)
    if batch:
        yield batch


def _bytes(names: Collection[str], sizes: Mapping[str, int]) -> int:
    """The bytes that the values called so take in a run."""
    return _TIMES * sum(sizes.get(name, 0) for name in names)


def _boundary(regions: Sequence[Region]) -> list[str]:
    return list(dict.fromkeys(name for region in regions for name in region.inputs))


def _is_equal(region: Region, known: Known) -> bool:
    return region.key in known and known[region.key].verdict == "equal"
