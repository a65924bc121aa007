"""Whose fault it is: which sites touched a failing region, and which of them has to go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from graphopt.ir import Model
from graphopt.rewrite import Site, Trace
from graphopt.rewrite.engine import SiteKey
from graphopt.verify.cuts import Region


def blame(failing: Iterable[Region], trace: Trace) -> list[Site]:
    """The sites that made or matched a value of a failing region, in the order in which they fired.

    A site whose nodes later sites matched in their turn counts as well.
    """
    names = {name for region in failing for name in region.names}
    found = []
    for site in reversed(trace.sites):
        if names.intersection((*site.made, *site.nodes, *site.roots)):
            names.update(site.nodes)
            found.append(site)
    return found[::-1]


def key_of(site: Site) -> SiteKey:
    """What an engine is told to leave the site out."""
    return site.rule, site.root


def find_guilty(
    sites: Sequence[Site], replay: Callable[[frozenset[SiteKey]], Model], passes: Callable[[Model], bool]
) -> Site | None:
    """The first of `sites` without which, and without those after it, the check passes; None if it fails without all.

    `replay` makes the candidate again without some sites, `passes` checks it. Takes ⌈log₂ n⌉ + 1 replays at most.
    """

    def clean(kept: int) -> bool:
        return passes(replay(frozenset(map(key_of, sites[kept:]))))

    if not sites or not clean(0):
        return None
    # With `good` first sites in, the check passes; with `bad` of them it fails.
    good, bad = 0, len(sites)
    while bad - good > 1:
        middle = (good + bad) // 2
        if clean(middle):
            good = middle
        else:
            bad = middle
    return sites[good]
