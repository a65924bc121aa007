"""Latency of models, side by side in one process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from graphopt.bench.loading import Timed, loadable
from graphopt.bench.paired import Ratio, Spread, ratio_of_medians, spread
from graphopt.runtime import Clocked, Runner
from graphopt.verify.inputs.containers import shape_of
from graphopt.verify.weights import Weights

WARMUP = 3


@dataclass(frozen=True)
class Latency:
    """Times of one run of a model: `wall` by the clock, `cpu` of all threads, user and system.

    `ratio` and `cpu_ratio` are the medians divided by those of the first model in the same series of runs.
    """

    model: str
    wall: Spread
    cpu: Spread
    ratio: Ratio
    cpu_ratio: Ratio


@dataclass(frozen=True)
class Timing:
    """Models timed in turn on the same inputs; `shapes` are those of the inputs."""

    latencies: tuple[Latency, ...]
    shapes: dict[str, tuple[int, ...]]
    runs: int
    warmup: int
    threads: int
    provider: str


def time_models(
    models: Sequence[Timed],
    feeds: Mapping[str, Any],
    *,
    names: Sequence[str] | None = None,
    runs: int = 30,
    warmup: int = WARMUP,
    threads: int | None = None,
    provider: str = "cpu",
    timeout: float | None = 300.0,
    memory: int | None = None,
) -> Timing:
    """Runs the models in turn on the same feeds, each in onnxruntime's default session, `runs` times each.

    `names` are what the models are called (default: their files). `warmup` rounds are run and not counted. `threads`
    run inside one op (default: one for each core). `timeout` is in seconds, `memory` in bytes. Raises: ModelError for a
    proto that is no model, RunError when onnxruntime refuses a model, RuntimeCrash when it dies or hangs, Unavailable
    without onnxruntime or the provider.
    """
    threads = threads or cores()
    with Runner(timeout=timeout, memory=memory, tf32=True) as runner, Weights(runner) as weights, ExitStack() as stack:
        sessions = []
        for model, name in zip(models, names or [""] * len(models), strict=True):
            session = loadable(model, weights, name).open(runner, provider=provider, threads=threads)
            sessions.append(stack.enter_context(session))
        clocked = runner.clock(sessions, feeds, runs=runs, warmup=warmup)
    latencies = tuple(
        _latency(session.name, times, clocked[0]) for session, times in zip(sessions, clocked, strict=True)
    )
    return Timing(latencies, {name: shape_of(feed) for name, feed in feeds.items()}, runs, warmup, threads, provider)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _latency(model: str, times: Clocked, first: Clocked) -> Latency:
    return Latency(
        model,
        spread(times.wall),
        spread(times.cpu),
        ratio_of_medians(times.wall, first.wall),
        ratio_of_medians(times.cpu, first.cpu),
    )
