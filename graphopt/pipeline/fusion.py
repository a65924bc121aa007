"""The main job: rewrite a model, check every region that changed, take back what is guilty, write."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from graphopt.errors import UsageError, near
from graphopt.ir import Model, Source, load
from graphopt.ir.save import External, check_output, write
from graphopt.pipeline.attempt import UNVERIFIED, attempted
from graphopt.pipeline.meanings import count_ops
from graphopt.pipeline.optimize import ASSUMPTIONS, Progress, optimize, optimized
from graphopt.pipeline.result import Result
from graphopt.pipeline.verification import Inputs, arrays, libraries, refuse_to_overwrite
from graphopt.pipeline.watch import Watch
from graphopt.pipeline.witness import Witness
from graphopt.rewrite import Limits, find_rules
from graphopt.runtime import Runner
from graphopt.targets import Target, target_named, with_functions
from graphopt.verify import Checker, Options, check_options
from graphopt.verify.failures.cases import folder_for_cases


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
    rules, custom_ops = tuple(rules), tuple(custom_ops)
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
    with watch("load"):
        original = load(source)
    if output is not None:
        check_output(original, output, in_place=in_place)
        refuse_to_overwrite(output, inputs, target, *rules, *custom_ops)
    ops_before, where = count_ops(original), str(original.path or "model")
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
    check_options(original, options)
    checker = Checker(original, options) if verify != "off" else None
    # Where nothing is compared with it, it is what is rewritten, and not read twice.
    unused = [original] if checker is None else []
    del original
    fresh = partial(_model_of, source, unused)
    rewrite = partial(optimized, fresh, **rewriting.keywords, progress=progress)
    witness = Witness(rewrite, rewriting, chosen.rules, runs_on, promises, kept) if kept is not None else None
    with checker or nullcontext() as active:
        attempt = attempted(rewrite, active, witness, watch, progress, "" if allow_unverified else UNVERIFIED)
    attempt.trace.failures[:0] = chosen.failures
    saved = None
    if output is not None and not dry_run and attempt.acceptable(allow_unverified):
        with watch("save"):
            saved = write(attempt.model, output, external=external, in_place=in_place)
    return Result(
        model=attempt.model,
        source=where,
        output=saved.files[-1] if saved is not None else None,
        target=runs_on.name,
        verdict=attempt.verdict,
        ops_before=ops_before,
        ops_after=count_ops(attempt.model),
        rewrites=attempt.rewrites,
        blamed=attempt.blamed,
        trace=attempt.trace,
        verification=attempt.verification,
        seconds=watch.seconds,
        assume=tuple(sorted(promises)),
        errors=(*filter(None, [attempt.error]), *(failure.error for failure in attempt.trace.failures)),
        saved=saved,
    )


def _model_of(source: Source, unused: list[Model]) -> Model:
    """A model of `source` to be rewritten: one of the `unused`, which it then is not, or read anew."""
    return unused.pop() if unused else load(source)


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
