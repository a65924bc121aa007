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
_GRAPHOPT = (sys.executable, "-c", "from graphopt.cli import main; main()", "fuse", "--quiet")
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
    """The least of a few runs, of fewer where they take long; of one that fails or takes longer than `limit` s, that."""
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
_LIMIT_OPTION = click.option("--limit", type=float, default=120.0, show_default=True, help="Seconds that a run may take.")
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
    click.echo(f"{name}, nodes:".ljust(24) + "".join(f"{size:>22,}" for size in sizes) + f"{'grows as nodes^':>20}")
    tools = ["graphopt", *(tool for tool in TOOLS if peers and tool != "graphopt")]
    costs = {tool: _row(tool, files, limit) for tool in tools}
    verified = {size: measured(graphopt_command(file, _output(file)), limit) for size, file in files.items() if size in MOST_VERIFIED}
    ours = costs["graphopt"]


def _output(source: Path) -> Path:
    return source.with_suffix(".out.onnx")
