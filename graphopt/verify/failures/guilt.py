"""Whose fault it is: which sites touched a failing region, which of them has to go, and what is known of each site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from graphopt.ir import Model
from graphopt.rewrite import Site, Trace
from graphopt.rewrite.engine import SiteKey
from graphopt.verify.checker import Checker
from graphopt.verify.cuts import Region
from graphopt.verify.pair import OVERTIME
from graphopt.verify.results import Comparison, Layer, Verdict, Verification, worst

_SEARCHES: Final = 8
"""Regions that are searched after one check; each takes replays. A rule that is found in one is not sought again."""

NOBODY: Final = "no rule is guilty: it is a pass that folds, merges or removes, or the change of the opset"

Rewritten = Callable[[frozenset[SiteKey]], tuple[Model, Trace]]
"""Makes the candidate again without some sites."""


@dataclass(frozen=True)
class Blamed:
    """A site that is guilty of what failed in `region` (None: in the model as a whole), the `reason` in figures, and
    the `feed` on which that was seen.

    It took `replays` rewrites of the model to find out, and runs of `runs` regions; none where its rule was known to be
    guilty at another site. `kept` is the folder of the crash that it caused, if it did; it `hangs` where that was that
    it took too long. `layer` is what found it.
    """

    site: Site
    region: Region | None
    reason: str
    feed: str = ""
    replays: int = 0
    runs: int = 0
    kept: str = ""
    hangs: bool = False
    layer: Layer = "regions"


@dataclass
class Search:
    """The search for the guilty ones of one candidate, the `model` that has the `trace`.

    `known` are sites that are not in it, since they were found guilty before. `cleared` where something fails that no
    site is guilty of.
    """

    model: Model
    trace: Trace
    verification: Verification
    known: Sequence[Site]
    rewritten: Rewritten
    checker: Checker
    cleared: bool = field(default=False, init=False)
    _replays: int = field(default=0, init=False)
    _runs: int = field(default=0, init=False)

    def guilty(self, *, wholesale: bool = False) -> list[Blamed]:
        """The sites that have to go before the next check; none when all is equal or nobody is found.

        A rule that was found guilty once is guilty in every region that fails and that it touched; with `wholesale`
        every rule is, since too many are wrong to look for each. So it is in regions that were not run.
        """
        if self.verification.verdict != "unequal":
            return []
        failing, figures = self.verification.failing, {one.name: one for one in self.verification.regions}
        if not any(figures[region.output].verdict == "unequal" for region in failing):
            # No region says it: what says that the model is not equal is the whole of it.
            figure = Comparison("", "unequal", reason=self.verification.reason)
            found_in_all = self._found_among(self.trace.sites, None, figure)
            return [replace(one, layer=self.verification.decided_by) for one in found_in_all]
        crashes = {crash.name: crash for crash in self.verification.crashes}
        regions = [*failing, *self.verification.unrun]
        rules = {site.rule for site in self.known}
        found: dict[SiteKey, Blamed] = {}
        searches = 0
        for region, suspects in zip(regions, suspects_of(regions, self.trace), strict=True):
            figure = figures[region.output]
            blamed = [
                Blamed(site, region, figure.reason, figure.feed) for site in suspects if wholesale or site.rule in rules
            ]
            if not blamed and searches < _SEARCHES and figure.verdict == "unequal":
                searches += 1
                blamed = self._found_among(suspects, region, figure)
            rules.update(one.site.rule for one in blamed)
            crash = crashes.get(region.output)
            if crash is not None:
                blamed = [replace(one, kept=crash.kept, hangs=crash.code == OVERTIME) for one in blamed]
            for one in blamed:
                found.setdefault(key_of(one.site), one)
        return list(found.values())

    def _found_among(self, suspects: Sequence[Site], region: Region | None, figure: Comparison) -> list[Blamed]:
        self._replays = self._runs = 0
        # To wait for what may take too long in other regions says nothing of this one.
        elsewhere = blame(self.verification.unrun, self.trace)
        apart = frozenset(map(key_of, elsewhere)) - frozenset(map(key_of, suspects))
        site = find_guilty(suspects, lambda excluded: self._suspects_without(excluded | apart, region))
        self.cleared = self.cleared or site is None
        if site is None:
            return []
        return [Blamed(site, region, figure.reason, figure.feed, self._replays, self._runs)]

    def _suspects_without(self, excluded: frozenset[SiteKey], region: Region | None) -> list[Site] | None:
        """What may be guilty in the candidate without some sites; None where `region`, or else all, is equal."""
        model, trace = self.rewritten(excluded | frozenset(map(key_of, self.known)))
        found = self.checker.check(model)
        self._replays += 1
        self._runs += found.counts.run
        if region is None:
            return None if found.verdict != "unequal" else trace.sites
        # What takes too long elsewhere is known from then on.
        while any(_computed(region) & _computed(other) for other in found.unrun):
            found = self.checker.check(model)
        failing = [other for other in found.failing if _computed(region) & _computed(other)]
        return blame(failing, trace) if failing else None


def _computed(region: Region) -> frozenset[str]:
    """What the original computes in a region; names of what rewrites made differ from one candidate to the next."""
    inner = (value.name for node in region.original_cone.nodes for value in node.outputs if value.name)
    return frozenset([region.output, *inner])


def key_of(site: Site) -> SiteKey:
    """What an engine is told to leave the site out."""
    return site.rule, site.root


def find_guilty(
    sites: Sequence[Site], suspects_without: Callable[[frozenset[SiteKey]], list[Site] | None]
) -> Site | None:
    """The first of `sites` without which, and without those after it, the check passes; None if it fails without all.

    `suspects_without` makes the candidate again without some sites and checks it: None where that passes, else the
    sites that may be guilty in it, since in place of one that is left out another may fire. Takes ⌈log₂ n⌉ + 1 calls,
    and one more for each time that others fire.
    """
    if not sites:
        return None
    left_out = frozenset(map(key_of, sites))
    while (others := suspects_without(left_out)) is not None:
        new = frozenset(map(key_of, others)) - left_out
        if not new:
            return None
        left_out |= new
    instead = left_out - frozenset(map(key_of, sites))
    # With `good` first sites in, the check passes; with `bad` of them it fails.
    good, bad = 0, len(sites)
    while bad - good > 1:
        middle = (good + bad) // 2
        if suspects_without(instead | frozenset(map(key_of, sites[middle:]))) is None:
            good = middle
        else:
            bad = middle
    return sites[good]


def blame(failing: Iterable[Region], trace: Trace) -> list[Site]:
    """The sites that made or matched a value of a failing region, in the order in which they fired.

    A site whose nodes later sites matched in their turn counts as well.
    """
    return [site for site, touched in zip(trace.sites, _touched(list(failing), trace.sites), strict=True) if touched]


def suspects_of(regions: Sequence[Region], trace: Trace) -> list[list[Site]]:
    """`blame` for each of the regions."""
    found: list[list[Site]] = [[] for _ in regions]
    for site, touched in zip(trace.sites, _touched(regions, trace.sites), strict=True):
        for index in touched:
            found[index].append(site)
    return found


def rulings(verification: Verification, trace: Trace) -> list[tuple[Verdict, Layer]]:
    """What is known of each site, in order, and which layer says so: the verdict of the regions that it touched.

    A site that touched none left what is equal by structure. Where no region was run, the model's verdict is theirs.
    """
    if not verification.compared:
        return [(verification.verdict, verification.decided_by)] * len(trace.sites)
    verdicts = [one.verdict for one in verification.regions]
    touched = _touched(verification.compared, trace.sites)
    return [_ruling([verdicts[index] for index in indexes], verification) for indexes in touched]


def _ruling(verdicts: Sequence[Verdict], verification: Verification) -> tuple[Verdict, Layer]:
    if not verdicts:
        return "equal", "structure"
    verdict = worst(verdicts)
    whole = verdict == "inconclusive" and verification.decided_by == "end-to-end"
    return (verification.verdict, "end-to-end") if whole else (verdict, "regions")


def _touched(regions: Sequence[Region], sites: Sequence[Site]) -> list[frozenset[int]]:
    """For each site the indexes of the regions of which it, or a later site that matched what it made, has a value."""
    within: dict[str, frozenset[int]] = {}
    for index, region in enumerate(regions):
        for name in region.names:
            within[name] = within.get(name, frozenset()) | {index}
    # An output that nobody wants has no name.
    within.pop("", None)
    found = []
    nowhere: frozenset[int] = frozenset()
    for site in reversed(sites):
        touched = nowhere.union(*(within[n] for n in (*site.made, *site.nodes, *site.roots) if n in within))
        if touched:
            for name in filter(None, site.nodes):
                within[name] = within.get(name, nowhere) | touched
        found.append(touched)
    return found[::-1]
