"""The main job: rewrite a model, check every region that changed, take back what is guilty, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from graphopt.errors import GraphoptError, InconclusiveError, RuntimeCrash, UsageError, near
from graphopt.ir import Model, Source, load, save
from graphopt.ir.save import External, check_output
from graphopt.pipeline.meanings import count_ops
from graphopt.pipeline.optimize import ASSUMPTIONS, Progress, optimize, optimized
from graphopt.pipeline.result import Conviction, Result, Rewrite
from graphopt.pipeline.verification import Inputs, arrays, error_of, libraries
from graphopt.pipeline.watch import Watch
from graphopt.pipeline.witness import Witness, convictions
from graphopt.rewrite import Limits, Trace, find_rules
from graphopt.rewrite.engine import SiteKey
from graphopt.rewrite.rule import STAGES
from graphopt.runtime import Runner
from graphopt.targets import Target, target_named, with_functions
from graphopt.verify import NOBODY, Blamed, Checker, Options, Search, Verdict, Verification, key_of, rulings
from graphopt.verify.failures.cases import folder_for_cases

_ROUNDS = 8
"""How often a model is checked before it is given up: each time but the last guilty sites are taken back."""
_WHOLESALE = 2
"""The last times, all that touched what fails is taken back: each of many rules may be wrong, one behind the other."""

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
    keep: str | os.PathLike[str] | None = None,
    custom_ops: Iterable[str | os.PathLike[str]] = (),
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
    rewrites of one rule may add, `keep` is the folder for what failed, `custom_ops` are libraries of kernels.
    Raises: UsageError for a name that is not known and for an output that would overwrite the input, ModelError for a
    model or data that is bad.
    """
    watch = Watch()
    chosen = find_rules(rules).select(only, disable)
    runs_on = target_for(target, emit_functions)
    promises = promises_named(assume)
    rewriting = partial(
        optimize,
        target=runs_on,
        rules=chosen.rules,
        keep_opset=keep_opset,
        keep_functions=frozenset(keep_functions),
        assume=promises,
        max_new_weights=max_new_weights,
    )
    rewrite = partial(optimized, partial(load, source), **rewriting.keywords, progress=progress)
    with watch("load"):
        original = load(source)
    if output is not None:
        check_output(original, output, in_place=in_place)
    level: Literal["sites", "full"] = "full" if verify == "full" else "sites"
    kept = folder_for_cases(Path(keep)) if keep is not None else None
    kernels = libraries(custom_ops)
    options = Options(
        dims or {},
        arrays(inputs),
        tuple(providers),
        timeout,
        memory,
        level=level,
        assume=promises,
        keep=kept,
        custom_ops=kernels,
    )
    checker = Checker(original, options)
    witness = Witness(rewrite, rewriting, chosen.rules, runs_on, promises, kept) if kept is not None else None
    with checker if verify != "off" else nullcontext() as active:
        attempt = _attempt(rewrite, active, witness, watch, progress, "" if allow_unverified else _UNVERIFIED)
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
        blamed=attempt.blamed,
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


def _attempt(
    rewrite: Callable[..., tuple[Model, Trace]],
    checker: Checker | None,
    witness: Witness | None,
    watch: Watch,
    progress: Progress | None,
    hint: str,
) -> _Attempt:
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
            return _Attempt(model, trace, "skipped")
        if progress is not None:
            progress("verify", len(STAGES), len(STAGES) + 1)
        try:
            with watch("verify"):
                verification = checker.check(model)
                search = Search(model, trace, verification, known, without, checker)
                found = search.guilty(wholesale=left <= _WHOLESALE) if left else []
                blamed += tuple(convictions(found, witness, search))
        except (InconclusiveError, RuntimeCrash) as error:
            return _Attempt(model, trace, "inconclusive", guilty, blamed, error=error)
        if not found:
            break
        guilty += tuple(found)
    if search.cleared:
        verification = replace(verification, reason=f"{verification.reason}; {NOBODY}")
    error_found = error_of(verification, hint)
    return _Attempt(model, trace, verification.verdict, guilty, blamed, verification, error_found)


def _rewritten(
    rewrite: Callable[..., tuple[Model, Trace]], watch: Watch, exclude: frozenset[SiteKey]
) -> tuple[Model, Trace]:
    with watch("rewrite"):
        return rewrite(exclude=exclude)
