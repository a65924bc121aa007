"""Latency of models, side by side in one process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.bench.paired import Ratio, ratio_of_medians
from graphopt.runtime import Runner

_WARMUP = 3


@dataclass(frozen=True)
class Latency:
    """Wall time of one run of a model in seconds: median and 90th percentile.

    `ratio` is the median divided by that of the first model in the same series of runs.
    """

    model: str
    median: float
    p90: float
    ratio: Ratio


@dataclass(frozen=True)
class Timing:
    """Models timed in turn on the same inputs; `shapes` are those of the inputs."""

    latencies: tuple[Latency, ...]
    shapes: dict[str, tuple[int, ...]]
    runs: int
    threads: int
    provider: str


def time_models(
    models: Sequence[Path],
    feeds: Mapping[str, Any],
    *,
    runs: int = 30,
    threads: int | None = None,
    provider: str = "cpu",
    timeout: float | None = 300.0,
    memory: int | None = None,
) -> Timing:
    """Runs the models in turn on the same feeds, each in onnxruntime's default session, `runs` times each.

    `threads` run inside one op (default: one for each core). `timeout` is in seconds, `memory` in bytes. Raises:
    RunError when onnxruntime refuses a model, RuntimeCrash when it dies or hangs, Unavailable without onnxruntime or
    the provider.
    """
    threads = threads or cores()
    with Runner(timeout=timeout, memory=memory, tf32=True) as runner, ExitStack() as stack:
        load = runner.load
        sessions = [load(model, optimize=True, provider=provider, threads=threads) for model in models]
        for session in sessions:
            stack.enter_context(session)
        seconds = runner.time(sessions, feeds, runs=runs, warmup=_WARMUP)
    latencies = tuple(_latency(model, times, seconds[0]) for model, times in zip(models, seconds, strict=True))
    return Timing(latencies, {name: np.shape(feed) for name, feed in feeds.items()}, runs, threads, provider)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _latency(model: Path, times: Sequence[float], first: Sequence[float]) -> Latency:
    return Latency(str(model), float(np.median(times)), float(np.percentile(times, 90)), ratio_of_medians(times, first))
