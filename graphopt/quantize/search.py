"""Which group of sites is computed how: the cheapest decision whose loss is within a budget.

Groups are raised from integers towards floats, those first whose error costs the model most, until the loss is within
the budget; then single sites go back as far as the budget allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["static", "dynamic", "weights8", "weights4", "float"]
Decision = Mapping[str, Level]
"""The level of each site, by name."""
Loss = Callable[[Decision], float]
"""What a decision loses beside the float model; 0 for nothing."""

_WORTH = 0.5
"""A level that gains less of what floats would gain than this is passed over for the next."""
_LEAST = 1e-9


@dataclass(frozen=True)
class Group:
    """Sites that are decided together, `cost` of all of them in multiplications, and the `levels` that they may have,
    from the cheapest to `float`."""

    name: str
    sites: tuple[str, ...]
    cost: float
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Trial:
    """One decision that was tried: what was changed, what it loses, whether it was kept."""

    change: str
    loss: float
    kept: bool


@dataclass
class Found:
    """The decision, what it loses, and how it was found; `sensitivity` is what each group costs, in loss."""

    decision: dict[str, Level]
    loss: float
    sensitivity: dict[str, float] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)


def cheapest(groups: Sequence[Group]) -> dict[str, Level]:
    """Every site at the first level of its group."""
    return {site: group.levels[0] for group in groups for site in group.sites}


def gathered(groups: Sequence[Group], most: int) -> list[Group]:
    """About `most` groups: those with the fewest multiplications are decided together with others that have the same
    levels, however different they are."""
    if len(groups) <= most:
        return list(groups)
    ranked = sorted(groups, key=lambda group: -group.cost)
    kinds = dict.fromkeys(group.levels for group in groups)
    alone = max(most - len(kinds), 0)
    rest = [[group for group in ranked[alone:] if group.levels == levels] for levels in kinds]
    return [*ranked[:alone], *(_together(members) for members in rest if members)]


def _together(groups: Sequence[Group]) -> Group:
    sites = tuple(site for group in groups for site in group.sites)
    return Group(groups[0].name, sites, sum(group.cost for group in groups), groups[0].levels)


def sensitivities(groups: Sequence[Group], decision: Decision, loss: Loss, start: float) -> dict[str, float]:
    """For each group what the model loses by it: `start`, the loss of `decision`, less that with the group in float."""
    found = {}
    for group in groups:
        if any(decision[site] != "float" for site in group.sites):
            now = loss(_with(decision, group.sites, "float"))
            # Where both are infinite nothing is known.
            found[group.name] = start - now if math.isfinite(now) else 0.0
    return found


def search(groups: Sequence[Group], loss: Loss, budget: float, parts: int = 16) -> Found:
    """The cheapest decision found whose loss is at most `budget`, or the one that loses least where none is.

    The sites of a group go back in at most so many `parts`. Of each group it asks for two losses more than it has
    levels, and where it was raised for `parts` + log₂ `parts` of each level below floats.
    """
    found = Found(cheapest(groups), 0.0)
    found.loss = loss(found.decision)
    found.trials.append(Trial("all at the cheapest", found.loss, True))
    found.sensitivity = sensitivities(groups, found.decision, loss, found.loss)
    # Most error taken away for each multiplication that becomes dearer.
    ranked = sorted(groups, key=lambda group: -found.sensitivity.get(group.name, 0.0) / max(group.cost, 1.0))
    best = found.loss, found.decision
    # Errors may cancel out: what gains nothing alone is raised all the same before the budget is given up.
    for step in (_raise, _give_up):
        for group in ranked:
            if found.loss <= budget:
                break
            step(found, group, loss)
            best = min(best, (found.loss, found.decision), key=lambda one: one[0])
    if found.loss > budget:
        found.loss, found.decision = best
        return found
    for group in reversed(ranked):
        for level in group.levels[:-1]:
            _lower(found, group, level, loss, budget, parts)
    return found


def _raise(found: Found, group: Group, loss: Loss) -> None:
    """Takes a group to the first level that gains enough, or the one that gains most."""
    wanted = found.sensitivity.get(group.name, 0.0)
    if wanted < _LEAST:
        return
    losses: dict[Level, float] = {}
    for level in group.levels[1:]:
        losses[level] = loss(_with(found.decision, group.sites, level))
        if found.loss - losses[level] >= wanted * _WORTH:
            break
    best = min(losses, key=lambda level: losses[level])
    gains = found.loss - losses[best] >= _LEAST
    found.trials += [Trial(f"{group.name} → {level}", now, gains and level == best) for level, now in losses.items()]
    if gains:
        found.loss, found.decision = losses[best], _with(found.decision, group.sites, best)


def _give_up(found: Found, group: Group, loss: Loss) -> None:
    """Takes a group to floats, whatever that gains."""
    if all(found.decision[site] == "float" for site in group.sites):
        return
    found.decision = _with(found.decision, group.sites, "float")
    found.loss = loss(found.decision)
    found.trials.append(Trial(f"{group.name} → float", found.loss, True))


def _lower(found: Found, group: Group, level: Level, loss: Loss, budget: float, most: int) -> None:
    """Takes as many sites of a group down to `level` as the budget allows, those first that lose least."""
    lower = group.levels[: group.levels.index(level) + 1]
    parts = _parts([site for site in group.sites if found.decision[site] not in lower], most)
    if len(parts) > 1:
        losses = [loss(_with(found.decision, part, level)) for part in parts]
        parts = [part for _, part in sorted(zip(losses, parts, strict=True), key=lambda one: one[0])]
    low, high = 0, len(parts) + 1
    start = found.decision
    while high - low > 1:
        count = (low + high) // 2
        sites = [site for part in parts[:count] for site in part]
        decision = _with(start, sites, level)
        now = loss(decision)
        found.trials.append(Trial(f"{len(sites)} of {len(group.sites)} of {group.name} → {level}", now, now <= budget))
        if now <= budget:
            low, found.decision, found.loss = count, decision, now
        else:
            high = count


def _parts(sites: Sequence[str], most: int) -> list[Sequence[str]]:
    """At most `most` runs of neighbours, of about the same length."""
    size = -(-len(sites) // most) or 1
    return [sites[start : start + size] for start in range(0, len(sites), size)]


def _with(decision: Decision, sites: Sequence[str], level: Level) -> dict[str, Level]:
    return {**decision, **dict.fromkeys(sites, level)}
