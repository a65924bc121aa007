"""What models cost, side by side: time, memory, size, where their nodes run, and how far they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphopt.bench import (
    WARMUP,
    Observation,
    ShapeSet,
    Size,
    Timing,
    cores,
    cosine,
    observe,
    refuse_others,
    shape_sets,
    size_of,
    time_models,
)
from graphopt.bench.feeds import LENGTHS, batch_of, feeds_for
from graphopt.bench.shapes import Dims, Shapes
from graphopt.errors import UsageError
from graphopt.ir import Model, Source, load
from graphopt.pipeline.optimize import Progress
from graphopt.pipeline.verification import Inputs, arrays
from graphopt.runtime import RunError

PROFILED = 10
"""Runs of a model that a profile is the mean of."""

Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Series:
    """All models on one set of shapes. A run takes `batch` items (None: no input has a dimension for them).

    `observations` are of the models in their order; `cosines` how the first float output of each agrees with the first
    model's, None where they cannot be compared.
    """

    timing: Timing
    batch: int | None
    observations: tuple[Observation, ...]
    cosines: tuple[float | None, ...]

    def throughput(self, index: int) -> float:
        """Items a second of the model at `index`; runs a second where it takes no items."""
        return (self.batch or 1) / self.timing.latencies[index].wall.median


@dataclass(frozen=True)
class Bench:
    """What `models` cost, by their files or numbers; `series` is one for each set of shapes, `sizes` for each model.

    `profiled` says whether the profiles of the observations were asked for: else they come from one run. `given` says
    whether the inputs were the user's.
    """

    models: tuple[str, ...]
    sizes: tuple[Size, ...]
    series: tuple[Series, ...]
    profiled: bool
    given: bool


def bench(
    models: Sequence[Source],
    *,
    dims: Dims | None = None,
    shapes: Shapes | None = None,
    inputs: Inputs | None = None,
    runs: int = 30,
    warmup: int = WARMUP,
    threads: int | None = None,
    provider: str = "cpu",
    profile: bool = False,
    timeout: float | None = 300.0,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Bench:
    """Times the models in turn on the same inputs; the first is what the others are compared with.

    `dims` (by name) and `shapes` (by input) may have several values: the k-th of each belongs to the k-th set of
    shapes, a single one to all. Then each model runs alone, in a process of its own, for memory and where its nodes
    run; with `profile`, ten times for what each kind of op costs. Raises: UsageError for shapes and inputs that do not
    fit, GO111 where a model takes others than the first; ModelError for a bad model, RunError when onnxruntime refuses
    one, InconclusiveError where an input cannot be made, RuntimeCrash when onnxruntime dies or hangs.
    """
    if not models:
        raise UsageError("GO001", "there is no model to run")
    sets = shape_sets(dims or {}, shapes or {})
    loaded = [load(model) for model in models]
    names = tuple(str(model.path or f"model {number}") for number, model in enumerate(loaded, 1))
    known: dict[str, Any] = {"threads": threads or cores(), "provider": provider, "timeout": timeout, "memory": memory}
    made = []
    for index, bound in enumerate(sets):
        if progress is not None:
            progress("time", index, len(sets))
        feeds, timing = _timed(loaded, bound, inputs, {"names": names, "runs": runs, "warmup": warmup, **known})
        if progress is not None:
            progress("memory and providers", index, len(sets))
        made.append(_series(loaded, feeds, timing, {"runs": PROFILED if profile else 1, **known}))
    return Bench(names, tuple(map(size_of, loaded)), tuple(made), profile, inputs is not None)


def _timed(
    models: Sequence[Model], bound: ShapeSet, inputs: Inputs | None, options: dict[str, Any]
) -> tuple[Feeds, Timing]:
    """What the models are fed, and the times. A length that nobody asked for and that is refused is made shorter."""
    first = models[0]
    feed = partial(feeds_for, first, dims=bound.dims, shapes=bound.shapes, inputs=arrays(inputs))
    tried: list[dict[str, Any]] = []
    refusal: RunError | None = None
    for length in LENGTHS:
        feeds = feed(length=length)
        for other in models[1:]:
            refuse_others(other, feeds, first)
        shapes = {name: getattr(array, "shape", None) for name, array in feeds.items()}
        if shapes in tried:
            break
        tried.append(shapes)
        try:
            return feeds, time_models([model.path or model for model in models], feeds, **options)
        except RunError as error:
            if error.phase != "run":
                raise
            refusal = refusal or error
    assert refusal is not None
    if len(tried) > 1:
        refusal.hint = "pass --shape NAME=SIZES or --dim NAME=N with sizes that the model takes"
    raise refusal


def _series(models: Sequence[Model], feeds: Feeds, timing: Timing, options: dict[str, Any]) -> Series:
    seen: list[Observation] = []
    cosines: list[float | None] = []
    reference: dict[str, Any] | None = None
    for name, model in zip((one.model for one in timing.latencies), models, strict=True):
        observation, outputs = observe(model.path or model, feeds, name=name, **options)
        reference = outputs if reference is None else reference
        seen.append(observation)
        cosines.append(cosine(outputs, reference))
    return Series(timing, batch_of(models[0], feeds), tuple(seen), tuple(cosines))
