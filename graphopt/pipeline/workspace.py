"""What the ways to quantize end in, and what they share on the way there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from graphopt.bench import Latency, cores, time_models
from graphopt.errors import UnequalError
from graphopt.ir import Model, save
from graphopt.ir.infer import infer
from graphopt.pipeline.candidates import Candidate, Tapped
from graphopt.pipeline.optimize import Progress
from graphopt.pipeline.quantized import Accuracy, SiteResult, Step
from graphopt.pipeline.samples import Samples
from graphopt.pipeline.watch import Watch
from graphopt.quantize.data.batches import Batches
from graphopt.quantize.data.padding import masks
from graphopt.quantize.evaluate import Evaluator
from graphopt.quantize.half.types import half_name
from graphopt.quantize.metric import Metric, Score
from graphopt.quantize.observe.cache import Cache, model_key
from graphopt.quantize.observe.calibration import Wanted, calibrate
from graphopt.quantize.observe.statistics import Statistics
from graphopt.quantize.proof.prove import Planned, Proof, Run, prove
from graphopt.quantize.recipes import Recipes
from graphopt.quantize.rounding.weights import quantized_name
from graphopt.quantize.sites import Site
from graphopt.runtime import Runner, Session

METADATA = "graphopt.quantized"
"""The key of the metadata by which a model is known that was quantized here."""
_RUNS = 21
"""How often the original and the quantized model are timed, in turn."""
_KINDS = {"static": "static", "dynamic": "dynamic", "weights8": "weights", "weights4": "weights"}
"""What the proof calls the schemes."""
CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Outcome:
    """A quantized model, and how its sites were decided: by name their `schemes`, with `reasons` where they are not
    what was asked for, and the `groups` that were decided together, whose `sensitivity` is known. `score` is that of
    the search split, None where nothing was chosen by it; `recipes` has what there is to say of single sites."""

    final: Candidate
    sites: Sequence[Site]
    schemes: Mapping[str, str]
    reasons: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    score: Score | None = None
    steps: tuple[Step, ...] = ()
    recipes: Recipes | None = None
    notes: tuple[str, ...] = ()

    @property
    def observer(self) -> str:
        """How ranges were observed; empty where none was."""
        static = "static" in self.schemes.values()
        return self.recipes.options.observer if self.recipes is not None and static else ""

    @property
    def bytes(self) -> int:
        """The size of the model with its weights."""
        path = self.final.path
        return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))

    @property
    def planned(self) -> list[Planned]:
        """The sites as the proof asks for them."""
        return [self._planned(site, self.schemes.get(site.name, "float")) for site in self.sites]

    def _planned(self, site: Site, scheme: str) -> Planned:
        if scheme == "float16":
            return Planned(half_name(site.name), site.op, site.weights_name, "", tuple(map(half_name, site.ends)))
        kind = _KINDS.get(scheme, "")
        weights = quantized_name(site.weights_name) if kind else site.weights_name
        return Planned(site.name, site.op, weights, kind, site.ends)

    def results(self, proof: Proof) -> tuple[SiteResult, ...]:
        """All sites, with the kernels that run them."""
        # The proof answers for those that were planned first, in their order.
        return tuple(self._result(site, run) for site, run in zip(self.sites, proof.runs, strict=False))

    def _result(self, site: Site, run: Run) -> SiteResult:
        scheme = self.schemes.get(site.name, "float")
        group = self.groups.get(site.name, site.name)
        smoothing = None
        if self.recipes is not None:
            smoothing = self.recipes.smoothing(site, scheme)
        return SiteResult(
            name=site.name,
            op=site.op,
            group=group,
            scheme=scheme,
            shape=site.shape,
            macs=site.macs,
            reason=self.reasons.get(site.name, ""),
            kernel=run.kernel,
            integer=run.integer,
            kernel_reason=run.reason if scheme != "float16" else "",
            micros=run.micros or 0.0,
            sensitivity=self.sensitivity.get(group),
            smooth=smoothing.alpha if smoothing is not None else None,
            range=self.recipes.range(site) if self.recipes and scheme == "static" else None,
        )


class Workspace:
    """Where candidates are made and run: a child process and its folder, the data, and the float model's outputs.

    `samples` gives the data, once there is a session of the float model. A context manager; entering it raises what
    that raises, and what creating the session raises.
    """

    def __init__(
        self,
        original: Model,
        samples: Callable[[Session], Samples],
        metric: Metric,
        runner: Runner,
        threads: int | None,
        watch: Watch,
        progress: Progress | None,
        cache: bool = False,
    ) -> None:
        self.original = original
        self._samples_for = samples
        self.metric = metric
        self.runner = runner
        self.threads = threads or cores()
        self.watch = watch
        self.progress = progress
        self._caches = cache

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.runner)
            self.folder = self.runner.folder
            path = self.original.path
            self.reference = path if path is not None else save(self.original, self.folder / "model.onnx")[-1]
            infer(self.original)
            padding = masks(self.original, [value.name for value in self.original.graph.outputs])
            name = str(path or "model")
            scores = Evaluator(self.runner, self.reference, self.metric, self.threads, padding, name)
            self.evaluator = stack.enter_context(scores)
            self.samples = self._samples_for(self.evaluator.session)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def statistics(
        self, tapped: Tapped, batches: Batches, *, gram: bool = False, channels: bool = True
    ) -> dict[str, Statistics]:
        """What the tapped activations are, by the names of the values; `gram` asks for what GPTQ needs, without
        `channels` each is taken as a whole."""
        padding = masks(tapped.candidate.model, tapped.taps.values())
        rows = {site.input for site in tapped.sites if site.op not in CONVOLUTIONS}
        wanted = {
            tap: Wanted(-1 if name in rows else 1, gram and name in rows, padding.get(tap))
            if channels
            else Wanted(None)
            for name, tap in tapped.taps.items()
        }
        if not channels:
            wanted = dict.fromkeys(wanted, Wanted(None))
        path = tapped.candidate.path
        with (
            self.watch("calibrate"),
            self.runner.load(path, optimize=True, threads=self.threads, name="the tapped model") as session,
        ):
            cache = Cache(model_key(tapped.candidate.model)) if self._caches else None
            found = calibrate(session, wanted, batches, progress=_bounded(self.progress), cache=cache)
        tapped.candidate.discard()
        return {name: found[tap] for name, tap in tapped.taps.items()}

    def proof(self, made: Outcome) -> Proof:
        """Which kernels run the products."""
        with self.watch("prove"):
            return prove(self.runner, made.final.path, made.planned, feeds=[self._feed])

    def accuracy(self, made: Outcome) -> tuple[Accuracy, float]:
        """What the model keeps on batches that nothing was chosen by, and the metric of the float model there."""
        with self.watch("accuracy"):
            held = self.evaluator.score(made.final.path, "holdout", self.samples.holdout)
            plain = self.evaluator.unoptimized(made.final.path, [next(iter(self.samples.holdout))])
        searched = made.score.mean if made.score is not None and not self.samples.made else None
        name = self.metric.name
        return Accuracy(name, held.mean, held.worst, held.samples, searched, self.samples.made, plain), held.reference

    def latency(self, made: Outcome) -> Latency:
        """The time of a run of one thread beside that of the original."""
        with self.watch("time"):
            paths = [self.reference, made.final.path]
            return time_models(paths, self._feed, runs=_RUNS, threads=1).latencies[1]

    @property
    def _feed(self) -> Mapping[str, Any]:
        return next(iter(self.samples.holdout)).feeds


def stamp(model: Model, mode: str) -> None:
    """Writes into the metadata that the model was quantized here."""
    model.proto.metadata_props.add(key=METADATA, value=mode)


def nothing(why: str) -> UnequalError:
    """What is said where nothing can be quantized."""
    return UnequalError("GO146", f"nothing can be quantized: {why}", "", "graphopt inspect MODEL lists what is in it")


def _bounded(progress: Progress | None) -> Callable[[str, int, int | None], None] | None:
    """For data whose length nobody knows."""
    if progress is None:
        return None
    return lambda what, done, total: progress(what, done, total if total is not None else done + 1)
