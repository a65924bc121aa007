"""What the whole command costs, imports and all: CPU seconds, memory, how both grow, other optimizers beside it.

Each figure is that of a process of its own with all its children: the least of a few runs. Models are made in processes
of their own too: a child is charged with the memory of who started it.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import onnx
from preserved_tools import TOOLS
from scale_models import WIDE, Shape, bert_like, blocks

MOST_SECONDS = {10_000: 3.0, 100_000: 40.0}
"""CPU seconds without verification."""
MOST_MEMORY = {500_000: 2_000.0}
"""MB, likewise."""
MOST_GROWTH = 1.15
"""The exponent between these two sizes, of what is above a graph of `_FEW` nodes."""
MOST_VERIFIED = {10_000: 6.0}
"""CPU seconds with the default verification."""
MOST_WIDE = 10.0

_MODELS: dict[str, Shape] = {"blocks": blocks, "BERT": bert_like}
_FEW = 100
_RUNS = 3
_ENOUGH = 10.0
_INTERVAL = 0.01
_NAMES = 32
_GRAPHOPT = (sys.executable, "-c", "from graphopt.cli import main; main()", "fuse", "--quiet")
OFF = ("--verify", "off")
_PEER = """
import logging, sys
from pathlib import Path
from preserved_tools import TOOLS
logging.disable(logging.WARNING)
TOOLS[sys.argv[1]][1](Path(sys.argv[2]), Path(sys.argv[3]))
"""


@dataclass(frozen=True)
class Cost:
    """Of one process: CPU seconds, MB of memory of the largest of its processes; or why there are none."""

    seconds: float = math.nan
    memory: float = math.nan
    failure: str = ""

    def __str__(self) -> str:
        return self.failure or f"{self.seconds:.2f} s {self.memory:6.0f} MB"


def graphopt_command(source: Path, output: Path, *flags: str) -> list[str]:
    """`graphopt fuse`."""
    return [*_GRAPHOPT, *flags, str(source), "-o", str(output)]


def peer_command(tool: str, source: Path, output: Path) -> list[str]:
    """Another tool that reads a file and writes one."""
    return [sys.executable, "-c", _PEER, tool, str(source), str(output)]


def measured(command: Sequence[str], limit: float, runs: int = _RUNS) -> Cost:
    """The least of a few runs, of fewer where they take long; of one that fails or takes over `limit` s, that."""
    costs: list[Cost] = []
    while len(costs) < runs and sum(cost.seconds for cost in costs) < _ENOUGH:
        cost = _once(command, limit)
        if cost.failure:
            return cost
        costs.append(cost)
    return Cost(min(cost.seconds for cost in costs), min(cost.memory for cost in costs))


def _once(command: Sequence[str], limit: float) -> Cost:
    tools = str(Path(__file__).parent)
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(
        command, stdout=quiet, stderr=quiet, start_new_session=True, env={**os.environ, "PYTHONPATH": tools}
    )
    end = time.monotonic() + limit
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            failure = f"exit code {child.returncode}" if child.returncode else ""
            return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3, failure)
        if time.monotonic() > end:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return Cost(failure="-")
        time.sleep(_INTERVAL)


def saved(folder: Path, name: str, shape: Shape, number: int) -> Path:
    """The file with that model."""
    path = folder / f"{name}-{number}.onnx"
    if not path.exists():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(_save, shape, number, path).result()
    return path


def _save(shape: Shape, number: int, path: Path) -> None:
    onnx.save(shape(number), path)


_SCRATCH = partial(tempfile.TemporaryDirectory, prefix="graphopt-scale-")
_LIMIT_OPTION = click.option(
    "--limit", type=float, default=120.0, show_default=True, help="Seconds for a run of a peer."
)
_PEERS_OPTION = click.option("--peers/--no-peers", default=True, help="Other optimizers as well.")


@click.command()
@click.option("--nodes", type=int, multiple=True, default=(10_000, 100_000), show_default=True)
@_LIMIT_OPTION
@_PEERS_OPTION
def fuse(nodes: tuple[int, ...], limit: float, peers: bool) -> None:
    """The whole command on long models, without and with verification, other optimizers beside it."""
    with _SCRATCH() as scratch:
        met = [kept for name in _MODELS for kept in _long(Path(scratch), name, sorted(nodes), limit, peers)]
    raise SystemExit(not all(met))


def _long(folder: Path, name: str, sizes: Sequence[int], limit: float, peers: bool) -> Iterator[bool]:
    files = {size: saved(folder, name, _MODELS[name], size) for size in (_FEW, *sizes)}
    click.echo(f"{name} of nodes".ljust(_NAMES) + "".join(f"{size:>20,}" for size in files) + "   growth")
    plain = _row("graphopt", files, limit)
    for tool in TOOLS:
        if peers and tool != "graphopt":
            _row(tool, files, limit)
    checked = {size: file for size, file in files.items() if size == _FEW or size in MOST_VERIFIED}
    verified = _row("graphopt, verified", checked, limit)
    for what, costs, targets in (("CPU s", plain, MOST_SECONDS), ("CPU s, verified", verified, MOST_VERIFIED)):
        for size in costs.keys() & targets:
            yield _target(f"{what} at {size:,} nodes", costs[size].seconds, targets[size])
    for size in plain.keys() & MOST_MEMORY:
        yield _target(f"MB at {size:,} nodes", plain[size].memory, MOST_MEMORY[size])
    if plain.keys() >= MOST_SECONDS.keys():
        yield _target("growth exponent", _growth(plain), MOST_GROWTH)


def _row(name: str, files: dict[int, Path], limit: float) -> dict[int, Cost]:
    """What a tool takes for each size, printed; nothing is tried beyond a size that failed."""
    costs: dict[int, Cost] = {}
    for size, file in files.items():
        failed = next((cost for cost in costs.values() if cost.failure), None)
        costs[size] = failed or measured(_command(name, file), _limit(name, limit))
    growth = _growth(costs)
    cells = "".join(f"{cost!s:>20}" for cost in costs.values())
    click.echo(name.ljust(_NAMES) + cells + ("" if math.isnan(growth) else f"   {growth:.2f}"))
    return costs


def _command(name: str, source: Path) -> list[str]:
    output = source.with_suffix(".out.onnx")
    if name.startswith("graphopt"):
        return graphopt_command(source, output, *(() if "verified" in name else OFF))
    return peer_command(name, source, output)


def _limit(name: str, limit: float) -> float:
    """What takes too long here is to be seen."""
    return 10 * limit if name.startswith("graphopt") else limit


def _growth(costs: dict[int, Cost]) -> float:
    """The exponent between the two sizes of the target; NaN where one is missing."""
    small, large = sorted(MOST_SECONDS)
    if not costs.keys() >= {_FEW, small, large}:
        return math.nan
    first, last = (costs[size].seconds - costs[_FEW].seconds for size in (small, large))
    return math.log(last / first) / math.log(large / small) if first > 0 and last > 0 else math.nan


@click.command()
@_LIMIT_OPTION
@_PEERS_OPTION
def wide(limit: float, peers: bool) -> None:
    """The whole command on wide and deep graphs, without and with verification, other optimizers beside it."""
    tools = ["graphopt", "graphopt, verified", *(tool for tool in TOOLS if peers and tool != "graphopt")]
    met = []
    click.echo(" " * _NAMES + "".join(f"{tool:>20}" for tool in tools))
    with _SCRATCH() as scratch:
        for name, (shape, number) in WIDE.items():
            file = saved(Path(scratch), shape.__name__, shape, number)
            costs = {tool: measured(_command(tool, file), _limit(tool, limit)) for tool in tools}
            click.echo(name.ljust(_NAMES) + "".join(f"{cost!s:>20}" for cost in costs.values()))
            met += [costs[tool].seconds <= MOST_WIDE for tool in tools[:2]]
    click.echo(f"graphopt within {MOST_WIDE:.0f} CPU s: {sum(met)} of {len(met)}")
    raise SystemExit(not all(met))


def _target(name: str, found: float, most: float) -> bool:
    click.echo(f"{name}: {found:.2f}, target {most:g}: {'met' if found <= most else 'missed'}")
    return found <= most
