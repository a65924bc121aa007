"""Which group of sites is computed how: the cheapest decision whose loss is within a budget.

Groups are raised from integers towards floats, those first whose error costs the model most, until the loss is within
the budget; then single sites go back as far as the budget allows.
"""

from __future__ import annotations

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


def sensitivities(groups: Sequence[Group], decision: Decision, loss: Loss, start: float) -> dict[str, float]:
    """For each group what the model loses by it: `start`, the loss of `decision`, less that with the group in float."""
    found = {}
    for group in groups:
        if any(decision[site] != "float" for site in group.sites):
            found[group.name] = start - loss(_with(decision, group.sites, "float"))
    return found


def search(groups: Sequence[Group], loss: Loss, budget: float) -> Found:
    """The cheapest decision found whose loss is at most `budget`, or the one that loses least where none is."""
    found = Found(cheapest(groups), 0.0)
    found.loss = loss(found.decision)
    found.trials.append(Trial("all at the cheapest", found.loss, True))
    found.sensitivity = sensitivities(groups, found.decision, loss, found.loss)
    raised: list[tuple[Group, Level]] = []
    # Most error taken away for each multiplication that becomes dearer.
    for group in sorted(groups, key=lambda group: -found.sensitivity.get(group.name, 0.0) / max(group.cost, 1.0)):
        if found.loss <= budget:
            break
        before = found.decision[group.sites[0]]
        if _raise(found, group, loss):
            raised.append((group, before))
    if found.loss <= budget:
        for group, before in reversed(raised):
            _lower(found, group, before, loss, budget)
    return found


def _raise(found: Found, group: Group, loss: Loss) -> bool:
    """Takes a group to the first level that gains enough; whether there is one."""
    wanted = found.sensitivity.get(group.name, 0.0) * _WORTH
    best: tuple[float, Level] | None = None
    for level in group.levels[group.levels.index(found.decision[group.sites[0]]) + 1 :]:
        now = loss(_with(found.decision, group.sites, level))
        enough = found.loss - now >= max(wanted, _LEAST)
        if best is None or now < best[0]:
            best = now, level
        found.trials.append(Trial(f"{group.name} → {level}", now, enough))
        if enough:
            break
    if best is None or found.loss - best[0] < _LEAST:
        return False
    found.decision = _with(found.decision, group.sites, best[1])
    found.loss = best[0]
    return True


def _lower(found: Found, group: Group, level: Level, loss: Loss, budget: float) -> None:
    """Takes as many sites of a group back to `level` as the budget allows, those first that lose least."""
    losses = {site: loss(_with(found.decision, (site,), level)) for site in group.sites}
    order = sorted(group.sites, key=lambda site: (losses[site], site))
    kept, known = 0, found.loss
    low, high = 0, len(order) + 1
    while high - low > 1:
        count = (low + high) // 2
        now = loss(_with(found.decision, order[:count], level))
        fits = now <= budget
        found.trials.append(Trial(f"{count} of {len(order)} of {group.name} → {level}", now, fits))
        if fits:
            low, kept, known = count, count, now
        else:
            high = count
    found.decision = _with(found.decision, order[:kept], level)
    found.loss = known


def _with(decision: Decision, sites: Sequence[str], level: Level) -> dict[str, Level]:
    return {**decision, **dict.fromkeys(sites, level)}
