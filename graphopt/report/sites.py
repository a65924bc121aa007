"""Sites of a quantized model as people look at them: by group, and by what keeps them off integer kernels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from graphopt.pipeline.quantized import SiteResult

_INTEGER_SCHEMES = ("static", "dynamic")


@dataclass(frozen=True)
class Group:
    """Sites that were decided together: how many have which scheme and which kernel, how many are on integer kernels,
    the time of their kernels in the profiled run, and what the group costs in the metric."""

    name: str
    sites: int
    schemes: dict[str, int]
    kernels: dict[str, int]
    integer: int
    micros: float
    sensitivity: float | None


@dataclass(frozen=True)
class Unfused:
    """Sites that do not run on integer kernels for one reason."""

    reason: str
    sites: tuple[str, ...]


def groups(sites: Iterable[SiteResult]) -> list[Group]:
    """The groups, the most sensitive first, those of unknown sensitivity last, else in the order of the graph."""
    members: dict[str, list[SiteResult]] = {}
    for site in sites:
        members.setdefault(site.group, []).append(site)
    return sorted((_group(name, found) for name, found in members.items()), key=_by_sensitivity)


def unfused(sites: Iterable[SiteResult]) -> list[Unfused]:
    """The sites that are not on integer kernels though they were planned there, or with a reason for it; by reason, the
    most frequent first."""
    names: dict[str, list[str]] = {}
    for site in sites:
        planned = site.scheme in _INTEGER_SCHEMES
        reason = (site.kernel_reason or site.reason) if planned else (site.reason or site.kernel_reason)
        if not site.integer and (reason or planned):
            names.setdefault(reason or f"runs as {site.kernel or 'no known kernel'}", []).append(site.name)
    return sorted((Unfused(reason, tuple(found)) for reason, found in names.items()), key=lambda one: -len(one.sites))


def _group(name: str, found: list[SiteResult]) -> Group:
    return Group(
        name=name,
        sites=len(found),
        schemes=dict(Counter(site.scheme for site in found).most_common()),
        kernels=dict(Counter(site.kernel for site in found if site.kernel).most_common()),
        integer=sum(site.integer for site in found),
        micros=sum(site.micros for site in found),
        sensitivity=found[0].sensitivity,
    )


def _by_sensitivity(group: Group) -> tuple[bool, float]:
    return group.sensitivity is None, -(group.sensitivity or 0.0)
