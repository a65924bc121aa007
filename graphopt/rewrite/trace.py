"""What happened: sites where rules fired, counts for every rule, and why the rest did not fire."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from graphopt.errors import RuleError


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


State = Literal["matched", "open", "blocked", "absent", "not reached"]
"""How a part of a pattern fared: it matched; it was still being matched; it did not match; it is optional and left out;
the search ended before it."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a pattern in one attempt: what the pattern says, how it fared, the node or value there, and why not."""

    text: str
    state: State
    at: str = ""
    reason: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """One match that was not taken: which rule, at which node, which node blocked, and why.

    `matched` of the `size` nodes of the pattern are there, `parts` is the pattern with what stood where.
    """

    rule: str
    root: str
    node: str
    reason: str
    matched: int = 0
    size: int = 0
    parts: tuple[Part, ...] = ()

    @property
    def nearness(self) -> float:
        """How near a match this came: a large part of a large pattern comes first."""
        return self.matched**2 / max(self.size, 1)


@dataclass
class RuleCount:
    """What one rule did in one run: at how many roots it was matched in full (most are ruled out by what stands behind
    them), how often it matched, fired, declined or was taken back, and for which reasons it did not fire.
    """

    tried: int = 0
    matched: int = 0
    applied: int = 0
    declined: int = 0
    rolled_back: int = 0
    new_bytes: int = 0
    """Weights that its rewrites wrote, in bytes."""
    steps: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class RuleFailure:
    """A rule that was set aside: it cannot be read, raised, wrote an invalid graph, or cycles.

    `rule` is the name of its source where that cannot be imported; `place` is file and line, `hint` what to change.
    """

    rule: str
    place: str
    message: str
    hint: str = ""

    @property
    def error(self) -> RuleError:
        """The same as an error for people."""
        return RuleError("GO064", f"the rule {self.rule} was set aside: {self.message}", self.place, self.hint)


@dataclass
class Trace:
    """The ordered list of sites, and what is known about what did not happen.

    `left_out` says of rules that were not tried at all, why; `once` holds (rule, value) where a rule that must not fire
    on its own output wrote the value. `stopped` are searches, and constants not folded, for which a budget did not
    suffice.
    """

    sites: list[Site] = field(default_factory=list)
    counts: dict[str, RuleCount] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    stopped: list[Refusal] = field(default_factory=list)
    failures: list[RuleFailure] = field(default_factory=list)
    once: set[tuple[str, str]] = field(default_factory=set)
    left_out: dict[str, str] = field(default_factory=dict)

    def count(self, rule: str) -> RuleCount:
        found = self.counts.get(rule)
        if found is None:
            found = self.counts[rule] = RuleCount()
        return found
