"""Quantization: fuse and verify, calibrate, decide what each product becomes, prove what runs, write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from graphopt.bench import Latency, cores, size_of, time_models
from graphopt.errors import GraphoptError, ModelError, UnequalError, UsageError, near
from graphopt.ir import Model, Source, load, save
from graphopt.ir.infer import infer
from graphopt.ir.save import External, check_output
from graphopt.pipeline.attempt import UNVERIFIED, attempted
from graphopt.pipeline.candidates import Candidate, Candidates, Tapped
from graphopt.pipeline.decision import Decided, Decider
from graphopt.pipeline.fusion import promises_named, target_for
from graphopt.pipeline.optimize import Progress, optimized
from graphopt.pipeline.quantized import Accuracy, Mode, Quantized, SiteResult
from graphopt.pipeline.samples import Samples, samples_for
from graphopt.pipeline.verification import libraries
from graphopt.pipeline.watch import Watch
from graphopt.quantize.calibration import Wanted, calibrate
from graphopt.quantize.cpu import CPUS, Cpu, detected
from graphopt.quantize.evaluate import Evaluator
from graphopt.quantize.integer_paths import integer_paths
from graphopt.quantize.levels import Choice, choice
from graphopt.quantize.metric import Metric, metric_named
from graphopt.quantize.padding import masks
from graphopt.quantize.proof import Planned, Proof, Run, prove
from graphopt.quantize.recipes import Options
from graphopt.quantize.search import Decision, Level
from graphopt.quantize.sites import Site, find_sites, matching
from graphopt.quantize.statistics import Statistics
from graphopt.rewrite import Limits, find_rules
from graphopt.runtime import Runner
from graphopt.verify import Checker, key_of
from graphopt.verify import Options as Checking

METADATA = "graphopt.quantized"
"""The key of the metadata by which a model is known that was quantized here."""
MODES: tuple[Mode, ...] = ("auto", "dynamic", "static", "weight-only", "float16")
LEVELS: tuple[Level, ...] = ("static", "dynamic", "weights8", "weights4", "float")

_RUNS = 21
"""How often the original and the quantized model are timed, in turn."""
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def quantize(
    source: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    mode: Mode = "auto",
    calib: Any = None,
    calib_batch: int | None = None,
    skip_bad: bool = False,
    metric: str = "cosine",
    max_drop: float | None = None,
    best_effort: bool = False,
    cpu: Cpu | None = None,
    schemes: Mapping[str, Level] | None = None,
    weight_bits: Literal[4, 8] = 8,
    block: int = 32,
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
    (`weight_bits`, of which `block` share a scale at 4), `float16`, or `auto`: for each group of products the cheapest
    of them by which the model loses at most `max_drop` in `metric`, or 0.001. `calib` is data as `calibration_data`
    takes it, of which half calibrates, a quarter is searched on and a quarter gives the figures; `calib_batch` samples
    of an array are one batch. `schemes` are levels by patterns of names, `exclude` patterns of what stays float,
    `smooth` an exponent, `observer` a name: looked for where not given. `require_integer` is the share of products with
    constant weights that must run on integer kernels. `threads` run inside one op where nothing is timed; times are of
    one thread. The other options are those of `fuse`.

    Nothing is written without `output`, with `dry_run`, or where something stands against it: see `errors`. Raises:
    UsageError for options and names that do not fit, ModelError for a model or data that is bad, or was quantized by us
    already; UnequalError GO146 where nothing can be quantized.
    """
    watch = Watch()
    chosen = find_rules(rules).select(only, disable)
    runs_on = target_for("ort-cuda" if target == "tensorrt" else target, emit_functions)
    promises = promises_named(assume)
    measure = metric_named(metric)
    processor = _processor(cpu)
    with watch("load"):
        original = load(source)
    _refuse_quantized(original)
    if mode == "static" and calib is None:
        hint = "give --calib DATA (an .npz file, a folder of them, or a .py with batches()), or choose --mode dynamic"
        raise UsageError("GO145", "static quantization needs calibration data", "", hint)
    if output is not None:
        check_output(original, output, in_place=in_place)
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
    with Checker(original, checking) if verify != "off" else nullcontext() as checker:
        unverified = "" if allow_unverified else UNVERIFIED
        attempt = attempted(partial(rewriting, progress=progress), checker, None, watch, progress, unverified)
    attempt.trace.failures[:0] = chosen.failures
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graphopt-")))
        runner = stack.enter_context(Runner(timeout=timeout, memory=memory, custom_ops=kernels))
        candidates = Candidates(rewriting, folder, frozenset(key_of(one.site) for one in attempt.guilty))
        samples = samples_for(original, calib, batch=calib_batch, skip_bad=skip_bad, dims=dims or {})
        reference = _on_disk(original, folder)
        infer(original)
        padding = masks(original, [value.name for value in original.graph.outputs])
        evaluator = stack.enter_context(Evaluator(runner, reference, measure, threads or cores(), padding))
        job = _Job(original, reference, candidates, samples, evaluator, measure, runner, watch, progress)
        settings = Options(processor, target, observer=observer or "min-max", block=block, smooth=_alpha(smooth))
        free = frozenset(
            ["correct", *(["observer"] if not observer else []), *(["smooth"] if smooth == "auto" else [])]
        )
        wanted = _effective(mode, samples)
        tapped, statistics = job.observed(embed, gram=weight_bits == 4)
        fixed = _fixed(tapped.sites, schemes or {}, exclude)
        choices = _choices(tapped.sites, wanted, weight_bits, statistics, samples, fixed)
        decider = Decider(
            candidates,
            evaluator,
            measure,
            samples,
            tapped.sites,
            statistics,
            settings,
            frozenset(free),
            partial(_stamp, mode=wanted),
            progress,
        )
        with watch("search"):
            decided = decider.decide(
                wanted, choices, fixed, None if wanted == "auto" and max_drop is None else max_drop
            )
            final = decider.build(decided.recipes, decided.found.decision)
        proof, accuracy, latency = job.judged(final, decided)
        size = sum(path.stat().st_size for path in final.path.parent.glob(f"{final.path.name}*"))
        sites = _sites(tapped.sites, decided, proof)
        errors = [
            *filter(None, [attempt.error if not attempt.acceptable(allow_unverified) else None]),
            *_missed(measure, accuracy, decided, None if best_effort else max_drop),
            *_refusals(proof, latency, require_integer, allow_slower),
        ]
        written = None
        if output is not None and not dry_run and not errors:
            with watch("save"):
                written = save(final.model, output, external=external, in_place=in_place)[-1]
        return Quantized(
            model=final.model,
            source=str(original.path or "model"),
            output=written,
            target=target,
            cpu=processor,
            mode=wanted,
            verdict=attempt.verdict,
            sites=sites,
            integer_planned=proof.planned,
            integer_running=proof.running,
            integer_all=proof.all,
            accuracy=accuracy,
            size_before=_bytes(reference),
            size_after=size,
            latency=latency.cpu_ratio if latency is not None else None,
            latency_wall=latency.ratio if latency is not None else None,
            steps=decided.steps,
            notes=_notes(mode, wanted, samples),
            verification=attempt.verification,
            seconds=watch.seconds,
            errors=(*errors, *(failure.error for failure in attempt.trace.failures)),
            observer=decided.recipes.options.observer,
            samples=_counted(samples),
        )


@dataclass
class _Job:
    """What the steps of one run share."""

    original: Model
    reference: Path
    candidates: Candidates
    samples: Samples
    evaluator: Evaluator
    metric: Metric
    runner: Runner
    watch: Watch
    progress: Progress | None

    def observed(self, embed: bool, gram: bool) -> tuple[Tapped, dict[str, Statistics]]:
        """The sites, and the statistics of what they read, where there is data to calibrate on.

        Raises: UnequalError GO146 where no product can be quantized.
        """
        tapped = self.candidates.tapped(embed=embed, more=_between)
        open_sites = [site for site in tapped.sites if not site.refusal]
        if not open_sites:
            raise _nothing(tapped.sites)
        if self.samples.calibration is None:
            return tapped, {}
        padding = masks(tapped.candidate.model, tapped.taps.values())
        images = {site.input for site in tapped.sites if site.op in _CONVOLUTIONS} | (
            tapped.taps.keys() - {site.input for site in tapped.sites}
        )
        wanted = {
            tap: Wanted(1 if name in images else -1, gram and name not in images, padding.get(tap))
            for name, tap in tapped.taps.items()
        }
        with (
            self.watch("calibrate"),
            self.runner.load(tapped.candidate.path, optimize=True, threads=cores(), name="the tapped model") as session,
        ):
            found = calibrate(session, wanted, self.samples.calibration, progress=_bounded(self.progress))
        tapped.candidate.discard()
        return tapped, {name: found[tap] for name, tap in tapped.taps.items()}

    def judged(self, final: Candidate, decided: Decided) -> tuple[Proof, Accuracy, Latency | None]:
        """Which kernels run, what the model loses on batches that nothing was chosen by, and how long it takes."""
        with self.watch("prove"):
            feed = next(iter(self.samples.holdout)).feeds
            planned = [
                Planned(_end(site, final), site.op, site.weights_name, _SCHEMES[level])
                for site in decided.recipes.sites.values()
                if (level := decided.found.decision.get(site.name, "float")) != "float"
            ]
            proof = prove(self.runner, final.path, planned, feeds=[feed])
        with self.watch("accuracy"):
            held = self.evaluator.score(final.path, "holdout", self.samples.holdout)
            accuracy = Accuracy(
                self.metric.name,
                held.mean,
                held.worst,
                held.samples,
                None if self.samples.made else decided.score.mean,
                self.samples.made,
                self.evaluator.unoptimized(final.path, [next(iter(self.samples.holdout))]),
            )
        with self.watch("time"):
            timing = time_models([self.reference, final.path], feed, runs=_RUNS, threads=1)
        return proof, accuracy, timing.latencies[1]


_SCHEMES = {"static": "static", "dynamic": "dynamic", "weights8": "weights", "weights4": "weights"}


def _end(site: Site, made: Candidate) -> str:
    """The name of the value in which a product ends in the model that was made."""
    names = made.model.graph.names
    return next((name for name in site.ends if name in names), site.name)


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
            raise ModelError("GO140", f"the model is quantized already, by graphopt ({entry.value})", "", hint)


def _stamp(model: Model, mode: Mode) -> None:
    model.proto.metadata_props.add(key=METADATA, value=mode)


def _alpha(smooth: float | Literal["auto", "off"]) -> float | None:
    return None if smooth == "auto" else 0.0 if smooth == "off" else float(smooth)


def _effective(mode: Mode, samples: Samples) -> Mode:
    return "dynamic" if mode == "auto" and samples.calibration is None else mode


def _on_disk(model: Model, folder: Path) -> Path:
    """The file of a model, which is written where it has none."""
    return model.path if model.path is not None else save(model, folder / "model.onnx")[-1]


def _bytes(path: Path) -> int:
    return size_of(load(path)).disk


def _between(model: Model) -> list[str]:
    """The activations that may stay integer between convolutions."""
    images = [site for site in find_sites(model) if not site.refusal]
    return sorted(integer_paths(model, images)) if any(site.op in _CONVOLUTIONS for site in images) else []


def _bounded(progress: Progress | None) -> Any:
    if progress is None:
        return None
    return lambda what, done, total: progress(what, done, total if total is not None else done + 1)


def _fixed(sites: Sequence[Site], schemes: Mapping[str, Level], exclude: Iterable[str]) -> dict[str, Level]:
    """The sites whose level is said. Raises: UsageError GO141 for a pattern that matches none, GO148 for a level."""
    fixed: dict[str, Level] = {}
    for pattern, level in schemes.items():
        if level not in LEVELS:
            raise UsageError("GO148", f"no scheme is called '{level}'", "--scheme", near(level, LEVELS))
        fixed |= dict.fromkeys(matching(sites, [pattern]), level)
    fixed |= dict.fromkeys(matching(sites, exclude), "float")
    return fixed


def _choices(
    sites: Sequence[Site],
    mode: Mode,
    bits: int,
    statistics: Mapping[str, Statistics],
    samples: Samples,
    fixed: Decision,
) -> dict[str, Choice]:
    """What each site may become. Raises: UnequalError GO146 where all stay float."""
    assert mode != "float16"

    def refused(name: str) -> str | None:
        return statistics[name].refused if name in statistics else None

    found = {
        site.name: Choice((fixed[site.name],), "as asked for")
        if site.name in fixed
        else choice(site, mode, bits, refused)
        for site in sites
    }
    if all(one.levels == ("float",) for one in found.values()):
        raise _nothing(sites, {name: one.reason for name, one in found.items()})
    return found


def _nothing(sites: Sequence[Site], reasons: Mapping[str, str] | None = None) -> UnequalError:
    told = {(reasons or {}).get(site.name) or site.refusal for site in sites}
    why = "; ".join(sorted(filter(None, told))) if sites else "the model has no product with constant float weights"
    return UnequalError("GO146", f"nothing can be quantized: {why}", "", "graphopt inspect MODEL lists what is in it")


def _missed(metric: Metric, accuracy: Accuracy, decided: Decided, max_drop: float | None) -> list[GraphoptError]:
    drop = metric.drop(accuracy.holdout, decided.score.reference)
    if max_drop is None or drop <= max_drop:
        return []
    text = f"the {metric.name} drops by {drop:.2g} on batches held out, not at most {max_drop:g}"
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


def _sites(sites: Sequence[Site], decided: Decided, proof: Proof) -> tuple[SiteResult, ...]:
    runs: dict[str, Run] = {run.name: run for run in proof.runs}
    by_weight = {run.weight: run for run in proof.runs}
    groups = {name: group.name for group in decided.groups for name in group.sites}
    found = []
    for site in sites:
        level = decided.found.decision.get(site.name, "float")
        run = next((runs[name] for name in site.ends if name in runs), by_weight.get(site.weights_name))
        smoothing = decided.recipes.smoothing(site) if level in ("static", "dynamic") else None
        found.append(
            SiteResult(
                name=site.name,
                op=site.op,
                group=groups.get(site.name, site.name),
                scheme=level,
                shape=site.shape,
                macs=site.macs,
                reason=decided.choices[site.name].reason,
                kernel=run.kernel if run is not None else "",
                integer=run is not None and run.integer,
                kernel_reason=run.reason if run is not None else "",
                micros=(run.micros or 0.0) if run is not None else 0.0,
                sensitivity=decided.found.sensitivity.get(groups.get(site.name, "")),
                smooth=smoothing.alpha if smoothing is not None else None,
                range=decided.recipes.range(site) if level == "static" else None,
            )
        )
    return tuple(found)


def _notes(asked: Mode, mode: Mode, samples: Samples) -> tuple[str, ...]:
    told = "no calibration data: auto is dynamic quantization" if asked != mode else ""
    return tuple(filter(None, [told, *samples.notes]))


def _counted(samples: Samples) -> dict[str, int]:
    parts = {"calibration": samples.calibration, "search": samples.search, "holdout": samples.holdout}
    return {name: part.size or 0 for name, part in parts.items() if part is not None}
