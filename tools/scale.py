"""What load, save and the rules cost per node: CPU seconds, memory, and how they grow with the graph.

    python tools/scale.py                     # load and save: 1,000, 10,000 and 100,000 nodes
    python tools/scale.py --nodes 500000
    python tools/scale.py rules               # all rules to a fixpoint, other optimizers, rules that nearly match
    python tools/scale.py fuse                # the whole command on long models, beside other optimizers
    python tools/scale.py fuse --nodes 500000
    python tools/scale.py wide                # and on wide and deep ones

Each size runs in a process of its own. Exits 1 when a target is missed.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click
import onnx
from scale_fuse import fuse, wide
from scale_models import blocks
from scale_rules import rules

from graphopt.ir import load, save

MOST_SECONDS = 0.05
MOST_BYTES = 2500
RUNS = 2


class Cost(NamedTuple):
    """Of one size: nodes, CPU seconds to load and to save, bytes of resident memory that the loaded model takes."""

    nodes: int
    load: float
    save: float
    memory: int


def measure(path: Path) -> Cost:
    """Loads and saves the model a few times: the fastest run, and the memory of the first."""
    loads, saves, memory, nodes = [], [], 0, 0
    for _ in range(RUNS):
        resident, start = _resident(), time.process_time()
        model = load(path)
        loads.append(time.process_time() - start)
        memory = memory or _resident() - resident
        start = time.process_time()
        save(model, path.with_suffix(".saved.onnx"))
        saves.append(time.process_time() - start)
        nodes = model.node_count()
    return Cost(nodes, min(loads), min(saves), memory)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@click.group(invoke_without_command=True, help=__doc__)
@click.option("--nodes", type=int, multiple=True, default=(1_000, 10_000, 100_000), show_default=True)
@click.pass_context
def main(context: click.Context, nodes: tuple[int, ...]) -> None:
    if context.invoked_subcommand is None:
        raise SystemExit(not files(sorted(nodes)))


def files(nodes: Sequence[int]) -> bool:
    """Prints CPU seconds per 1,000 nodes and bytes per node of load and save; whether the targets are met."""
    costs = []
    click.echo(f"{'nodes':>8} {'load':>8} {'save':>8} {'both':>8}  CPU s per 1,000 nodes {'bytes per node':>16}")
    with tempfile.TemporaryDirectory() as folder:
        for count in nodes:
            path = Path(folder) / f"{count}.onnx"
            onnx.save(blocks(count), path)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                cost = pool.submit(measure, path).result()
            costs.append(cost)
            load_s, save_s = (1000 * seconds / cost.nodes for seconds in (cost.load, cost.save))
            bytes_each = cost.memory / cost.nodes
            click.echo(f"{cost.nodes:8} {load_s:8.4f} {save_s:8.4f} {load_s + save_s:8.4f} {bytes_each:39.0f}")
    first, last = costs[0], costs[-1]
    seconds = last.load + last.save
    if first.nodes < last.nodes:
        growth = math.log(seconds / (first.load + first.save)) / math.log(last.nodes / first.nodes)
        click.echo(f"time grows as nodes^{growth:.2f}")
    met = seconds / last.nodes * 1000 <= MOST_SECONDS and last.memory / last.nodes <= MOST_BYTES
    click.echo(f"targets at {last.nodes} nodes: {MOST_SECONDS} CPU s, {MOST_BYTES} bytes: {'met' if met else 'missed'}")
    return met


for command in (rules, fuse, wide):
    main.add_command(command)


if __name__ == "__main__":
    main()
