"""Latency of models, side by side in one process."""

from __future__ import annotations

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
    """Wall time of one model in seconds. `ratio` is its median divided by that of the first model in the same run."""

    model: str
    median: float
    p90: float
    runs: int
    ratio: Ratio


def time_models(
    models: Sequence[Path],
    feeds: Mapping[str, Any],
    *,
    runs: int = 20,
    threads: int = 1,
    provider: str = "cpu",
    timeout: float | None = 300.0,
    memory: int | None = None,
) -> list[Latency]:
    """Runs the models in turn on the same feeds, each in onnxruntime's default session, `runs` times each.

    `threads` run inside one op. Raises: RunError when onnxruntime refuses a model, RuntimeCrash when it dies or takes
    longer than `timeout` seconds, Unavailable without onnxruntime or the provider.
    """
    with Runner(timeout=timeout, memory=memory) as runner, ExitStack() as stack:
        sessions = [
            stack.enter_context(runner.load(model, optimize=True, provider=provider, threads=threads))
            for model in models
        ]
        seconds = runner.time(sessions, feeds, runs=runs, warmup=_WARMUP)
    return [
        Latency(
            str(model),
            float(np.median(times)),
            float(np.percentile(times, 90)),
            runs,
            ratio_of_medians(times, seconds[0]),
        )
        for model, times in zip(models, seconds, strict=True)
    ]
