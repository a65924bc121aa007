"""Quantization: fuse and verify, make integers or halves of the products, prove what runs, say what it costs, write."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from graphopt.bench import Latency, size_of
from graphopt.errors import GraphoptError, ModelError, UnequalError, UsageError, near
from graphopt.ir import Model, Source, load
from graphopt.ir.save import External, check_output, write
from graphopt.ir.schema import is_random
from graphopt.ir.versions import can_raise
from graphopt.pipeline.attempt import UNVERIFIED, attempted
from graphopt.pipeline.candidates import Candidates
from graphopt.pipeline.fusion import promises_named, target_for
from graphopt.pipeline.halves import halves
from graphopt.pipeline.integers import Request, integers
from graphopt.pipeline.optimize import Progress, optimized
from graphopt.pipeline.quantized import Accuracy, Mode, Quantized
from graphopt.pipeline.samples import Samples, samples_for
from graphopt.pipeline.verification import libraries, refuse_to_overwrite
from graphopt.pipeline.watch import Watch
from graphopt.pipeline.workspace import METADATA, Outcome, Workspace, nothing
from graphopt.quantize.cpu import CPUS, Cpu, detected
from graphopt.quantize.half.target import native_halves
from graphopt.quantize.metric import Metric, metric_named
from graphopt.quantize.observe.observers import check_observer
from graphopt.quantize.proof.prove import Proof
from graphopt.quantize.search import Level
from graphopt.rewrite import Limits, RuleSet, find_rules
from graphopt.runtime import Runner
from graphopt.verify import Checker, key_of
from graphopt.verify import Options as Checking

MODES: tuple[Mode, ...] = ("auto", "dynamic", "static", "weight-only", "float16")
BLOCKS = (16, 32, 64, 128, 256)
"""How many weights may share a scale: what MatMulNBits has."""


def quantize(
    source: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    mode: Mode = "auto",
    calib: Any = None,
    calib_batch: int | None = None,
    skip_bad: bool = False,
    cache: bool = False,
    metric: str | Callable[..., Any] = "cosine",
    max_drop: float | None = None,
    best_effort: bool = False,
    cpu: Cpu | None = None,
    schemes: Mapping[str, Level] | None = None,
    weight_bits: Literal[4, 8] = 8,
    block: int | None = None,
    smooth: float | Literal["auto", "off"] = "auto",
    observer: str | None = None,
    exclude: Iterable[str] = (),
    embed: bool = False,
    require_integer: float | None = None,
    allow_slower: bool = False,
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
    timeout: float | None = 300.0,
    memory: int | None = None,
    custom_ops: Iterable[str | os.PathLike[str]] = (),
    threads: int | None = None,
    external: External = "auto",
    in_place: bool = False,
    allow_unverified: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Quantized:
    """Quantizes a model for `target`, says what that costs in accuracy and which kernels run, and writes it.

    `mode` is `dynamic` (activations are rounded at run time), `static` (on grids that `calib` gives), `weight-only`
    (`weight_bits`, of which `block` share a scale: 32, in `auto` 128), `float16`, or `auto`: for each group of products
    the cheapest of them by which the model loses at most `max_drop` in `metric`, or 0.001. `calib` is data as
    `calibration_data` takes it, of which half calibrates, a quarter is searched on and a quarter gives the figures;
    `calib_batch` samples of an array are one batch, `skip_bad` leaves bad batches out, `cache` keeps what calibration
    found for another run. `schemes` are levels by patterns of names, `exclude` patterns of what stays float, `smooth`
    an exponent, `observer` a name: looked for where not given. `require_integer` is the share of products with constant
    weights that must run on integer kernels. `threads` run inside one op where nothing is timed; times are of one
    thread, and taken only where the target and `cpu` are those of this machine. The other options are those of `fuse`.

    Nothing is written without `output`, with `dry_run`, or where something stands against it: see `errors`. Raises:
    UsageError for options and names that do not fit, ModelError for a model or data that is bad, or was quantized by us
    already; UnequalError GO146 where nothing can be quantized.
    """
    _check(mode, weight_bits, block, smooth, max_drop, require_integer)
    watch = Watch()
    rules, custom_ops = tuple(rules), tuple(custom_ops)
    chosen = find_rules(rules).select(only, disable)
    runs_on = target_for(target, emit_functions)
    promises = promises_named(assume)
    measure = metric_named(metric)
    processor = _processor(cpu)
    if observer is not None:
        check_observer(observer)
    with watch("load"):
        original = load(source)
    _refuse_quantized(original)
    if calib is None and (mode == "static" or "static" in (schemes or {}).values()):
        hint = "give --calib DATA (an .npz file, a folder of them, or a .py with batches()), or choose --mode dynamic"
        raise UsageError("GO145", "static quantization needs calibration data", "", hint)
    if output is not None:
        check_output(original, output, in_place=in_place)
        measured = metric.rpartition(":")[0] if isinstance(metric, str) else ""
        refuse_to_overwrite(output, calib, measured, target, *rules, *custom_ops)
    rewriting = partial(
        optimized,
        partial(load, source),
        target=runs_on,
        rules=chosen.rules,
        keep_opset=keep_opset,
        keep_functions=frozenset(keep_functions),
        assume=promises,
        max_new_weights=max_new_weights,
    )
    level: Literal["sites", "full"] = "full" if verify == "full" else "sites"
    kernels = libraries(custom_ops)
    checking = Checking(dims or {}, None, ("cpu",), timeout, memory, level=level, assume=promises, custom_ops=kernels)
    runner = Runner(timeout=timeout, memory=memory, custom_ops=kernels)
    data = partial(samples_for, original, calib, batch=calib_batch, skip_bad=skip_bad, dims=dims or {})
    with Workspace(original, data, measure, runner, threads, watch, progress, cache) as workspace:
        with Checker(original, checking) if verify != "off" else nullcontext() as checker:
            unverified = "" if allow_unverified else UNVERIFIED
            attempt = attempted(partial(rewriting, progress=progress), checker, None, watch, progress, unverified)
        attempt.trace.failures[:0] = chosen.failures
        samples = workspace.samples
        guilty = frozenset(key_of(one.site) for one in attempt.guilty)
        candidates = Candidates(rewriting, workspace.folder, guilty)
        if mode == "float16":
            candidates = Candidates(partial(rewriting, target=native_halves(runs_on)), workspace.folder, guilty)
            made = halves(workspace, candidates, tuple(exclude), "no-empty-rows" in promises)
        else:
            asked = "dynamic" if mode == "auto" and samples.calibration is None else mode
            request = Request(
                asked,
                processor,
                target,
                weight_bits,
                block or (128 if asked == "auto" else 32),
                smooth,
                observer,
                schemes or {},
                tuple(exclude),
                embed,
                max_drop,
            )
            made = integers(workspace, candidates, request)
        here = runs_on.provider == "cpu" and processor == detected()
        elsewhere = "" if here else f"{target} on {processor}" if runs_on.provider == "cpu" else target
        accuracy, best = workspace.accuracy(made)
        proof, latency = workspace.proof(made), workspace.latency(made) if here else None
        errors = [
            *([attempt.error] if attempt.error is not None and not attempt.acceptable(allow_unverified) else []),
            *_missed(measure, accuracy, best, None if best_effort else max_drop),
            *_refusals(proof, latency, require_integer, allow_slower or mode == "float16"),
        ]
        if mode != "float16":
            errors[:0] = _unplaced(made, chosen, can_raise(original, runs_on.opset))
        failures = (*attempt.trace.failures, *made.final.trace.failures)
        result = Quantized(
            model=made.final.model,
            source=str(original.path or "model"),
            output=None,
            target=target,
            cpu=processor,
            mode=mode if mode == "float16" else request.mode,
            verdict=attempt.verdict,
            sites=made.results(proof),
            integer_planned=sum(bool(run.scheme) for run in proof.products),
            integer_running=sum(run.integer for run in proof.products),
            integer_all=proof.all,
            accuracy=accuracy,
            size_before=size_of(load(workspace.reference)).disk,
            size_after=made.bytes,
            latency=latency.cpu_ratio if latency is not None else None,
            latency_wall=latency.ratio if latency is not None else None,
            steps=made.steps,
            notes=(*_random(original), *_notes(mode, samples, elsewhere), *made.notes),
            verification=attempt.verification,
            seconds=watch.seconds,
            errors=(*errors, *(failure.error for failure in dict.fromkeys(failures))),
            observer=made.observer,
            samples=_counted(samples),
        )
        if output is None or dry_run or errors:
            return result
        with watch("save"):
            saved = write(made.final.model, output, external=external, in_place=in_place)
        return replace(result, output=saved.files[-1], saved=saved)


def _check(
    mode: str,
    bits: int,
    block: int | None,
    smooth: object,
    max_drop: float | None,
    require_integer: float | None,
) -> None:
    """Raises UsageError GO152 for a value that there is not: the command line refuses them before."""
    if mode not in MODES:
        raise UsageError("GO152", f"no mode is called '{mode}'", "mode", near(str(mode), MODES))
    known: dict[str, tuple[object, bool, str]] = {
        "weight_bits": (bits, bits in (8, 4), "8 or 4"),
        "block": (block, block is None or block in BLOCKS, ", ".join(map(str, BLOCKS))),
        "smooth": (smooth, smooth in ("auto", "off") or _within(smooth, 0, 1), "auto, off, or a number from 0 to 1"),
        "max_drop": (max_drop, max_drop is None or _within(max_drop, 0, math.inf), "a number from 0 on"),
        "require_integer": (require_integer, require_integer is None or _within(require_integer, 0, 1), "from 0 to 1"),
    }
    for name, (value, fits, allowed) in known.items():
        if not fits:
            raise UsageError("GO152", f"'{value}' is not a value of {name}", name, f"it is {allowed}")


def _within(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low <= value <= high


def _processor(name: str | None) -> Cpu:
    for known in CPUS:
        if name == known:
            return known
    if name is None:
        return detected()
    raise UsageError("GO147", f"no kind of processor is called '{name}'", "--cpu", near(name, CPUS))


def _refuse_quantized(model: Model) -> None:
    for entry in model.proto.metadata_props:
        if entry.key == METADATA:
            hint = "quantize the float model that it was made from"
            message = f"the model is quantized already, by graphopt ({entry.value})"
            raise ModelError("GO140", message, str(model.path or "model"), hint)


def _unplaced(made: Outcome, rules: RuleSet, old: str | None) -> list[GraphoptError]:
    """What stands against writing a model of which nothing became integers; `old` is why its opset is not raised."""
    if not made.schemes:
        return []
    placing = {rule.name for rule in rules.rules if rule.stage == "quantize"}
    if any(site.rule in placing for site in made.final.trace.sites):
        return []
    if set(made.schemes.values()) == {"float"}:
        return [nothing("the model loses too much by all that was tried")]
    return [nothing("; ".join(filter(None, ("no rule that places integers fired", old))))]


def _missed(metric: Metric, accuracy: Accuracy, best: float, max_drop: float | None) -> list[GraphoptError]:
    drop = metric.drop(accuracy.holdout, best)
    if max_drop is None or drop <= max_drop:
        return []
    text = f"the {metric.name} drops by {drop:.4g} on batches held out, not at most {max_drop:g}"
    return [UnequalError("GO149", text, "--max-drop", "--best-effort writes the best that was found")]


def _refusals(
    proof: Proof, latency: Latency | None, require_integer: float | None, allow_slower: bool
) -> list[GraphoptError]:
    """What stands against writing the model, of what runs and how fast."""
    errors: list[GraphoptError] = []
    if require_integer is not None and proof.share < require_integer:
        text = f"{proof.share:.0%} of the products with constant weights run on integers, not {require_integer:.0%}"
        errors.append(UnequalError("GO150", text, "--require-integer", "the report names the others, with the reasons"))
    if latency is not None and latency.cpu_ratio.difference == "slower" and not allow_slower:
        text = f"the quantized model is slower: {latency.cpu_ratio.ratio:.2f} times the time of the original"
        errors.append(UnequalError("GO151", text, "", "--allow-slower writes it all the same"))
    return errors


def _random(model: Model) -> tuple[str, ...]:
    drawn = any(is_random(node.domain, node.op) for graph in model.scopes() for node in graph.ops())
    return ("the model draws random numbers: the accuracy is that between two draws",) if drawn else ()


def _notes(mode: Mode, samples: Samples, elsewhere: str) -> tuple[str, ...]:
    """Sentences for the user; `elsewhere` is what the model will run on, where that is not this machine."""
    notes = list(samples.notes)
    if elsewhere:
        text = "so nothing was timed, and the kernels and the accuracy are those of onnxruntime on this processor"
        notes.insert(0, f"the model is for {elsewhere}, which is not here: {text}")
    if mode == "auto" and samples.calibration is None:
        notes.insert(0, "no calibration data: auto is dynamic quantization")
    return tuple(notes)


def _counted(samples: Samples) -> dict[str, int]:
    parts = {"calibration": samples.calibration, "search": samples.search, "holdout": samples.holdout}
    return {name: part.size or 0 for name, part in parts.items() if part is not None}
