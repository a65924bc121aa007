"""What happened: sites where rules fired, counts for every rule, and why the rest did not fire."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Site:
    """One place where a rule fired.

    `root` is the name of the value that was replaced (it keeps that name), `roots` all of them; `nodes` are the values
    the matched nodes wrote, `made` those the new nodes write, `reads` the values that went in.
    """

    rule: str
    root: str
    roots: tuple[str, ...]
    nodes: tuple[str, ...]
    made: tuple[str, ...]
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """One match that was not taken: which rule, at which node, which node blocked, and why."""

    rule: str
    root: str
    node: str
    reason: str


@dataclass
class RuleCount:
    """What one rule did in one run."""

    tried: int = 0
    matched: int = 0
    applied: int = 0
    rolled_back: int = 0
    new_bytes: int = 0
    """Weights that its rewrites wrote, in bytes."""
    steps: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class RuleFailure:
    """A rule that was set aside: it raised, wrote an invalid graph, or cycles."""

    rule: str
    place: str
    message: str


@dataclass
class Trace:
    """The ordered list of sites, and what is known about what did not happen.

    `left_out` says of rules that were not tried at all, why; `once` holds (rule, value) where a rule that must not fire
    on its own output wrote the value.
    """

    sites: list[Site] = field(default_factory=list)
    counts: dict[str, RuleCount] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    failures: list[RuleFailure] = field(default_factory=list)
    once: set[tuple[str, str]] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)

    def count(self, rule: str) -> RuleCount:
        found = self.counts.get(rule)
        if found is None:
            found = self.counts[rule] = RuleCount()
        return found
