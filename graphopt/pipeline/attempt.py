"""Rewriting and checking in turn, until what is left is equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from graphopt.errors import GraphoptError, InconclusiveError, RuntimeCrash
from graphopt.ir import Model
from graphopt.pipeline.optimize import Progress
from graphopt.pipeline.result import Conviction, Rewrite
from graphopt.pipeline.verification import error_of
from graphopt.pipeline.watch import Watch
from graphopt.pipeline.witness import Witness, convictions
from graphopt.rewrite import Trace
from graphopt.rewrite.engine import SiteKey
from graphopt.rewrite.rule import STAGES
from graphopt.verify import NOBODY, Blamed, Checker, Search, Verdict, Verification, key_of, rulings

_ROUNDS = 8
"""How often a model is checked before it is given up: each time but the last guilty sites are taken back."""
_WHOLESALE = 2
"""The last times, all that touched what fails is taken back: each of many rules may be wrong, one behind the other."""

UNVERIFIED = "--allow-unverified writes the model all the same"


@dataclass(frozen=True)
class Attempt:
    """A rewritten model, and what the check says of it; `guilty` are sites of earlier attempts that are not in it, and
    `blamed` says so with what was kept."""

    model: Model
    trace: Trace
    verdict: Verdict
    guilty: tuple[Blamed, ...] = ()
    blamed: tuple[Conviction, ...] = ()
    verification: Verification | None = None
    error: GraphoptError | None = None

    def acceptable(self, unverified: bool) -> bool:
        """Whether the model may be published; `unverified` if also when the check could not decide."""
        return self.error is None or (unverified and self.verdict not in ("equal", "unequal"))

    @property
    def rewrites(self) -> tuple[Rewrite, ...]:
        found = self.verification or Verification(self.verdict, "regions")
        sites = zip(self.trace.sites, rulings(found, self.trace), strict=True)
        guilty = (Rewrite(b.site.rule, b.site.root, b.site.nodes, "unequal", b.layer, True) for b in self.guilty)
        return (*guilty, *(Rewrite(s.rule, s.root, s.nodes, *ruling) for s, ruling in sites))


def attempted(
    rewrite: Callable[..., tuple[Model, Trace]],
    checker: Checker | None,
    witness: Witness | None,
    watch: Watch,
    progress: Progress | None,
    hint: str,
) -> Attempt:
    """Rewrites and checks until what is left is equal, or nobody is found guilty of what is not.

    `hint` says what may be done where the check cannot decide.
    """
    guilty: tuple[Blamed, ...] = ()
    blamed: tuple[Conviction, ...] = ()
    for left in reversed(range(_ROUNDS)):
        without = partial(_rewritten, rewrite, watch)
        known = [one.site for one in guilty]
        model, trace = without(frozenset(map(key_of, known)))
        if checker is None:
            return Attempt(model, trace, "skipped")
        if progress is not None:
            progress("verify", len(STAGES), len(STAGES) + 1)
        try:
            with watch("verify"):
                verification = checker.check(model)
                search = Search(model, trace, verification, known, without, checker)
                found = search.guilty(wholesale=left <= _WHOLESALE) if left else []
                blamed += tuple(convictions(found, witness, search))
        except (InconclusiveError, RuntimeCrash) as error:
            return Attempt(model, trace, "inconclusive", guilty, blamed, error=error)
        if not found:
            break
        guilty += tuple(found)
    if search.cleared:
        verification = replace(verification, reason=f"{verification.reason}; {NOBODY}")
    error_found = error_of(verification, hint)
    return Attempt(model, trace, verification.verdict, guilty, blamed, verification, error_found)


def _rewritten(
    rewrite: Callable[..., tuple[Model, Trace]], watch: Watch, exclude: frozenset[SiteKey]
) -> tuple[Model, Trace]:
    with watch("rewrite"):
        return rewrite(exclude=exclude)
