"""The main job: rewrite a model, check every region that changed, take back what is guilty, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

from graphopt.errors import GraphoptError, InconclusiveError, RuntimeCrash, UsageError, near
from graphopt.ir import Model, Source, load, save
from graphopt.ir.save import External, check_output
from graphopt.pipeline.meanings import count_ops
from graphopt.pipeline.optimize import ASSUMPTIONS, Progress, optimized
from graphopt.pipeline.result import Result, Rewrite
from graphopt.pipeline.verification import Inputs, arrays, error_of
from graphopt.pipeline.watch import Watch
from graphopt.rewrite import Limits, Site, Trace, find_rules
from graphopt.rewrite.engine import SiteKey
from graphopt.rewrite.rule import STAGES
from graphopt.runtime import Runner
from graphopt.targets import Target, target_named, with_functions
from graphopt.verify import Checker, Options, Verdict, Verification, blame, find_guilty, key_of

_ROUNDS = 8
"""How often guilty sites are taken back before the check is given up."""

_UNVERIFIED = "--allow-unverified writes the model all the same"


def fuse(
    source: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    target: str = "ort-cpu",
    verify: Literal["off", "sites", "full"] = "sites",
    only: Iterable[str] = (),
    disable: Iterable[str] = (),
    rules: Iterable[str] = (),
    emit_functions: bool = False,
    keep_opset: bool = False,
    keep_functions: Iterable[str] = (),
    assume: Iterable[str] = (),
    max_new_weights: int = Limits.new_bytes,
    dims: Mapping[str, int] | None = None,
    inputs: Inputs | None = None,
    providers: Iterable[str] = ("cpu",),
    timeout: float | None = 300.0,
    memory: int | None = None,
    external: External = "auto",
    in_place: bool = False,
    allow_unverified: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Rewrites a model for `target`, checks it against the original, and writes it to `output`.

    Nothing is written without `output`, with `dry_run`, where the check finds a difference that cannot be taken back,
    or where it cannot decide (unless `allow_unverified`); the result says so. Options mean what the command line's do:
    `emit_functions` adds the fused ops of `ai.graphopt` to the target, `only` and `disable` name rules, `rules` are
    files or modules that add some, `keep_functions` names functions that stay functions, by domain or `domain.op`,
    `timeout` (seconds) and `memory` (bytes) limit the process that runs models, `max_new_weights` (bytes) what the
    rewrites of one rule may add.
    Raises: UsageError for a name that is not known and for an output that would overwrite the input, ModelError for a
    model or data that is bad.
    """
    watch = Watch()
    chosen = find_rules(rules).select(only, disable)
    runs_on = target_for(target, emit_functions)
    promises = promises_named(assume)
    rewrite = partial(
        optimized,
        partial(load, source),
        target=runs_on,
        rules=chosen.rules,
        keep_opset=keep_opset,
        keep_functions=frozenset(keep_functions),
        assume=promises,
        max_new_weights=max_new_weights,
        progress=progress,
    )
    with watch("load"):
        original = load(source)
    if output is not None:
        check_output(original, output, in_place=in_place)
    level: Literal["sites", "full"] = "full" if verify == "full" else "sites"
    options = Options(dims or {}, arrays(inputs), tuple(providers), timeout, memory, level=level, assume=promises)
    checker = Checker(original, options)
    with checker if verify != "off" else nullcontext() as active:
        attempt = _attempt(rewrite, active, watch, progress)
    attempt.trace.failures[:0] = chosen.failures
    written = None
    if output is not None and not dry_run and attempt.acceptable(allow_unverified):
        with watch("save"):
            written = save(attempt.model, output, external=external, in_place=in_place)[-1]
    return Result(
        model=attempt.model,
        source=str(original.path or "model"),
        output=written,
        target=runs_on.name,
        verdict=attempt.verdict,
        ops_before=count_ops(original),
        ops_after=count_ops(attempt.model),
        rewrites=attempt.rewrites,
        trace=attempt.trace,
        verification=attempt.verification,
        seconds=watch.seconds,
        assume=tuple(sorted(promises)),
        errors=(*filter(None, [attempt.error]), *(failure.error for failure in attempt.trace.failures)),
    )


def promises_named(names: Iterable[str]) -> frozenset[str]:
    """The promises called `names`. Raises: UsageError GO019 for one that nobody knows."""
    for name in (promises := frozenset(names)):
        if name not in ASSUMPTIONS:
            raise UsageError("GO019", f"no assumption is called '{name}'", "", near(name, ASSUMPTIONS))
    return promises


def target_for(name: str, emit_functions: bool = False) -> Target:
    """The target called `name`; `auto` is the one of the providers that are installed. With functions, if asked for."""
    if name == "auto":
        with Runner() as runner:
            name = "ort-cuda" if "cuda" in runner.available_providers() else "ort-cpu"
    return with_functions(target_named(name)) if emit_functions else target_named(name)


@dataclass(frozen=True)
class _Attempt:
    """A rewritten model, and what the check says of it; `guilty` are sites of earlier attempts that are not in it."""

    model: Model
    trace: Trace
    verdict: Verdict
    guilty: tuple[Site, ...] = ()
    verification: Verification | None = None
    error: GraphoptError | None = None

    def acceptable(self, unverified: bool) -> bool:
        """Whether the model may be published; `unverified` if also when the check could not decide."""
        return self.error is None or (unverified and self.verdict not in ("equal", "unequal"))

    @property
    def rewrites(self) -> tuple[Rewrite, ...]:
        guilty = tuple(Rewrite(site.rule, site.root, site.nodes, "unequal") for site in self.guilty)
        return guilty + tuple(Rewrite(s.rule, s.root, s.nodes, self.verdict) for s in self.trace.sites)


def _attempt(
    rewrite: Callable[..., tuple[Model, Trace]],
    checker: Checker | None,
    watch: Watch,
    progress: Progress | None,
) -> _Attempt:
    """Rewrites and checks until what is left is equal, or nobody is found guilty of what is not."""
    guilty: tuple[Site, ...] = ()
    for _ in range(_ROUNDS):
        model, trace = _rewritten(rewrite, map(key_of, guilty), watch)
        if checker is None:
            return _Attempt(model, trace, "skipped")
        if progress is not None:
            progress("verify", len(STAGES), len(STAGES) + 1)
        try:
            with watch("verify"):
                verification = checker.check(model)
            found = _guilty_sites(verification, trace, guilty, partial(_rewritten, rewrite, watch=watch), checker)
        except (InconclusiveError, RuntimeCrash) as error:
            return _Attempt(model, trace, "inconclusive", guilty, error=error)
        if not found:
            break
        guilty = (*guilty, *found)
    return _Attempt(model, trace, verification.verdict, guilty, verification, error_of(verification, _UNVERIFIED))


def _rewritten(
    rewrite: Callable[..., tuple[Model, Trace]], exclude: Iterable[SiteKey], watch: Watch
) -> tuple[Model, Trace]:
    with watch("rewrite"):
        return rewrite(exclude=frozenset(exclude))


def _guilty_sites(
    verification: Verification,
    trace: Trace,
    known: Iterable[Site],
    rewritten: Callable[[Iterable[SiteKey]], tuple[Model, Trace]],
    checker: Checker,
) -> list[Site]:
    """The sites that have to go before the next check; none when all is equal or nobody is found.

    A rule that was found guilty once is guilty in every region that still fails; else the first region is searched.
    """
    again = {site.rule for site in known}
    found = [site for site in blame(verification.failing, trace) if site.rule in again]
    if found or not verification.failing:
        return found
    first = verification.failing[0]

    def passes(model: Model) -> bool:
        return not any(first.names & region.names for region in checker.check(model).failing)

    site = find_guilty(blame([first], trace), lambda exclude: rewritten(exclude | set(map(key_of, known)))[0], passes)
    return [site] if site is not None else []
