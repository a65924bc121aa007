"""What it costs to verify every site of a rewritten model: CPU seconds beside those of the rewriting, and memory.

    python tools/verify_cost.py MODEL.onnx ...       # models of yours
    python tools/verify_cost.py --made               # made here: 10,000 and 50,000 nodes, 400 MB of weights

Each model is loaded, rewritten and saved, and then checked, in a process of its own that has done so with a small model
before (what is imported or made once does not count). CPU seconds are user and system time; those of verification are
the process's own and its child's, in which onnxruntime runs. Memory is the most that was resident at once while it
verified, in MB, the child's and the parent's together: `own` is what no file backs, `all` has pages of mapped files,
each counted once (`Pss` of /proc/PID/smaps_rollup). Exits 1 where verification takes more than four times as long as
the rest, or all memory is more than three times a model of 100 MB or more.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import onnx

from graphopt.bench.bert import BertConfig, bert
from graphopt.ir import load, save
from graphopt.pipeline.optimize import optimized
from graphopt.rewrite import find_rules
from graphopt.targets import target_named
from graphopt.verify import Checker

MOST_RATIO = 4.0
MOST_MEMORY = 3.0
LARGE = 100e6
"""Bytes from which on a model's memory counts: below, the interpreter and onnxruntime take the most of it."""

_INTERVAL = 0.02


class Cost(NamedTuple):
    """Of one model; seconds are CPU seconds, memory and size bytes."""

    nodes: int
    size: int
    verdict: str
    regions: int
    alike: int
    rewrite: float
    parent: float
    child: float
    own: int
    all: int

    @property
    def ratio(self) -> float:
        return (self.parent + self.child) / self.rewrite

    @property
    def is_met(self) -> bool:
        return self.ratio <= MOST_RATIO and (self.size < LARGE or self.all <= MOST_MEMORY * self.size)


class Peak:
    """The most memory that this process and its children had at once, in a thread that looks every now and then.

    `seconds` is the CPU time that looking took.
    """

    def __init__(self) -> None:
        self.own = self.all = 0
        self.seconds = 0.0
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL):
            # The child is one of the main thread, whose number is the process's.
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            found = [_memory(pid) for pid in ("self", *children)]
            self.own = max(self.own, sum(own for own, _ in found))
            self.all = max(self.all, sum(both for _, both in found))
        self.seconds = time.thread_time()


def _memory(pid: str) -> tuple[int, int]:
    """Bytes that no file backs, and all."""
    found: dict[str, int] = {}
    with suppress(OSError):
        for line in Path("/proc", pid, "smaps_rollup").read_text().splitlines()[1:]:
            name, size, *_ = line.split()
            found[name] = int(size) << 10
    return found.get("Anonymous:", 0), found.get("Pss:", 0)


def measure(path: Path) -> Cost:
    target, rules = target_named("ort-cpu"), find_rules(()).select((), ()).rules
    start = _cpu(resource.RUSAGE_SELF)
    candidate, _ = optimized(partial(load, path), target=target, rules=rules)
    with tempfile.TemporaryDirectory() as folder:
        save(candidate, Path(folder) / "saved.onnx")
    rewrite = _cpu(resource.RUSAGE_SELF) - start
    original = load(path)
    starts = _cpu(resource.RUSAGE_SELF), _cpu(resource.RUSAGE_CHILDREN)
    peak = Peak()
    with peak.watching(), Checker(original) as checker:
        found = checker.check(candidate)
    parent = _cpu(resource.RUSAGE_SELF) - starts[0] - peak.seconds
    child = _cpu(resource.RUSAGE_CHILDREN) - starts[1]
    size = sum(file.stat().st_size for file in (path, Path(f"{path}.data")) if file.exists())
    counts, nodes = found.counts, original.node_count()
    return Cost(nodes, size, found.verdict, counts.run, counts.alike, rewrite, parent, child, peak.own, peak.all)


def _cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def made(folder: Path) -> Iterator[Path]:
    """Two small models of many layers, and one of 400 MB with its weights beside it."""
    tiny = partial(BertConfig, hidden=8, heads=2, intermediate=16, vocabulary=32, positions=32)
    large = BertConfig(8, 1024, 16, intermediate=4096, vocabulary=1024, positions=512)
    for name, config in (("10,000 nodes", tiny(92)), ("50,000 nodes", tiny(459)), ("400 MB", large)):
        path = folder / f"{name}.onnx"
        onnx.save(bert(config), path, save_as_external_data=config is large, location=f"{path.name}.data")
        yield path


def measured(path: Path, warm: Path) -> Cost:
    """`measure` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "measure", warm, path], stdout=subprocess.PIPE, check=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


@click.command(help=__doc__)
@click.argument("models", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--made", "with_made", is_flag=True, help="Models that are made here as well.")
def main(models: Sequence[Path], with_made: bool) -> None:
    click.echo(
        f"{'model':30} {'nodes':>6} {'MB':>5} {'verdict':12} {'sites':>6} {'alike':>6} "
        f"{'rewrite':>8} {'parent':>7} {'child':>7} {'ratio':>6} {'own':>6} {'all':>6}"
    )
    met = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        warm = folder / "warm.onnx"
        onnx.save(bert(BertConfig(2, 8, 2, intermediate=16, vocabulary=32, positions=32)), warm)
        for path in [*models, *(made(folder) if with_made else ())]:
            cost = measured(path, warm)
            met &= cost.is_met
            click.echo(
                f"{path.stem:30} {cost.nodes:6} {cost.size / 1e6:5.0f} {cost.verdict:12} {cost.regions:6} "
                f"{cost.alike:6} {cost.rewrite:8.2f} {cost.parent:7.2f} {cost.child:7.2f} {cost.ratio:6.2f} "
                f"{cost.own / 1e6:6.0f} {cost.all / 1e6:6.0f}"
            )
    click.echo(f"targets ({MOST_RATIO:g} times the time, {MOST_MEMORY:g} times the size): {'met' if met else 'missed'}")
    raise SystemExit(not met)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]))
        print(json.dumps(measure(Path(sys.argv[3]))))
    else:
        main()
