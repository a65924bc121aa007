"""What one model does alone, in a process of its own: memory, where its nodes run, what each kind of op costs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.bench.loading import Timed, loadable
from graphopt.runtime import PROVIDERS, Kernel, Runner
from graphopt.verify.weights import Weights

_NAMES = {theirs: ours for ours, theirs in PROVIDERS.items()}


@dataclass(frozen=True)
class Footprint:
    """Bytes in memory of a fresh process: with onnxruntime and no model, with the model `loaded`, after its runs.

    `loading` and `running` are the most there were at a time until it was loaded, and from then on.
    """

    empty: int
    loaded: int
    loading: int
    running: int
    ran: int

    @property
    def peak(self) -> int:
        """The most of all."""
        return max(self.loading, self.running)

    @property
    def model(self) -> int:
        """What the loaded model takes: weights, as they are packed, and the session."""
        return max(0, self.loaded - self.empty)

    @property
    def activations(self) -> int:
        """What runs take beyond the loaded model: inputs, activations and outputs at their peak."""
        return max(0, self.running - self.loaded)


@dataclass(frozen=True)
class OpTime:
    """What a kind of op costs in one run on one provider: seconds, their share of all ops, and how many there are."""

    op: str
    provider: str
    count: int
    seconds: float
    share: float


@dataclass(frozen=True)
class Observation:
    """What one model did on one set of inputs.

    `nodes` counts those that ran once, by provider; `elsewhere` names those that did not run on the one asked for.
    `profile` begins with what takes longest.
    """

    footprint: Footprint
    nodes: Mapping[str, int]
    elsewhere: tuple[str, ...]
    profile: tuple[OpTime, ...]


def observe(
    model: Timed,
    feeds: Mapping[str, Any],
    *,
    name: str = "",
    runs: int = 1,
    threads: int = 1,
    provider: str = "cpu",
    timeout: float | None = 300.0,
    memory: int | None = None,
) -> tuple[Observation, dict[str, Any]]:
    """Loads the model in a fresh process and runs it twice, then with onnxruntime's profiler `runs` times and once to
    warm up; returns the outputs as well. Raises: as `time_models`."""
    with Runner(timeout=timeout, memory=memory, tf32=True) as runner, Weights(runner) as weights:
        source = loadable(model, weights, name)
        empty = runner.resident()
        with source.open(runner, provider=provider, threads=threads) as session:
            loaded = runner.resident()
            outputs = session.run(feeds)
            session.run(feeds)
            ran = runner.resident()
        with source.open(runner, provider=provider, threads=threads, profile=True) as profiled:
            for _ in range(1 + runs):
                profiled.run(feeds)
            kernels = profiled.kernels()
    footprint = Footprint(empty.now, loaded.now, loaded.peak, ran.peak, ran.now)
    seen = Observation(footprint, *_placed(kernels, 1 + runs, provider), op_times(kernels, 1 + runs))
    return seen, outputs


def op_times(kernels: Sequence[Kernel], runs: int) -> tuple[OpTime, ...]:
    """What each kind of op costs in one of so many `runs` of a model, without the first run; the dearest first."""
    kinds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for kernel in kernels:
        kinds[kernel.op, kernel.provider].append(kernel.micros)
    # In a loop or a branch not every run need have the same nodes; of each kind, the first part is the first run's.
    spent = {kind: 1e-6 * sum(taken[len(taken) // runs :]) / max(1, runs - 1) for kind, taken in kinds.items()}
    total = sum(spent.values())
    rows = [
        OpTime(op, _ours(provider), round(len(taken) / runs), spent[op, provider], spent[op, provider] / (total or 1.0))
        for (op, provider), taken in kinds.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.seconds, row.op)))


def _placed(kernels: Sequence[Kernel], runs: int, provider: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """How many nodes of one run each provider ran, and the names of those that ran elsewhere than asked for."""
    counts = Counter(_ours(kernel.provider) for kernel in kernels)
    strays = [f"{kernel.node} ({kernel.op})" for kernel in kernels if _ours(kernel.provider) != provider]
    return {name: round(count / runs) for name, count in counts.items()}, tuple(dict.fromkeys(strays))


def _ours(provider: str) -> str:
    return _NAMES.get(provider, provider)
