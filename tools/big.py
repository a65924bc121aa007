"""What it takes to fuse a model of 8 GB: memory, CPU seconds, bytes written, beside its weights and in another folder.

    python tools/big.py                # 8 GB: a BERT of 40 layers, 2,048 wide, whose weights are one sparse file
    python tools/big.py --layers 5     # 1 GB
    python tools/big.py --verified     # with the default verification as well, which runs all of the weights

Each run is `graphopt fuse --max-new-weights 1MB` in a process of its own. Memory is that which no file backs
(`RssAnon`), the most of many looks, and all that was resident at most (`VmHWM`), of the process and its children; CPU
seconds are user and system time, imports and all; written is what the new files take on the disk. A model `loads` when
onnxruntime makes a session of it. The input's weights are `kept` when neither their blocks, their times nor samples of
them have changed. Exits 1 when a target is missed; targets are those of a run without verification.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import onnx
from onnx import TensorProto

from graphopt.bench.bert import BertConfig, bert

DATA = "weights.bin"
MOST_SECONDS = 2.0
MOST_WRITTEN = 1_000_000
MOST_BESIDE = 100e6
MOST_ELSEWHERE = 150e6

_GRAPHOPT = (sys.executable, "-c", "from graphopt.cli import main; main()")
_INTERVAL = 0.002
_LOAD = """
import sys, onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.add_session_config_entry("session.disable_prepacking", "1")
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


class Cost(NamedTuple):
    """Of one run: bytes that no file backs, bytes that were resident, CPU seconds, exit code."""

    own: int
    resident: int
    seconds: float
    code: int


def made(folder: Path, layers: int) -> Path:
    """The model, its weights in a file beside it that takes no room on the disk."""
    size = 0

    def weight(name: str, shape: tuple[int, ...]) -> TensorProto:
        nonlocal size
        proto = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        length = 4 * math.prod(shape)
        for key, value in (("location", DATA), ("offset", str(size)), ("length", str(length))):
            proto.external_data.add(key=key, value=value)
        size += -(-length // 4096) * 4096
        return proto

    path = folder / "model.onnx"
    onnx.save(bert(BertConfig(layers, 2048, 32, intermediate=8192, positions=2048), weight), path)
    with (folder / DATA).open("wb") as file:
        file.truncate(size)
    return path


def measured(command: Sequence[str]) -> Cost:
    """What a command takes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    own = resident = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return Cost(own, resident, usage.ru_utime + usage.ru_stime, process.returncode)
        found = [_memory(pid) for pid in (process.pid, *_children(process.pid))]
        own = max(own, sum(one for one, _ in found))
        resident = max(resident, sum(most for _, most in found))
        time.sleep(_INTERVAL)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _memory(pid: int) -> tuple[int, int]:
    """Bytes that no file backs now, and the most that were resident."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    own, most = (int(found[name][0]) << 10 if name in found else 0 for name in ("RssAnon", "VmHWM"))
    return own, most


def state(path: Path) -> tuple[int, int, int, int, str]:
    """What changes when a file is written to: inode, size, blocks, time, and a hash of a thousand samples."""
    there = path.stat()
    samples = hashlib.sha256()
    with path.open("rb") as file:
        for index in range(1000):
            file.seek(there.st_size * index // 1000)
            samples.update(file.read(64))
    return there.st_ino, there.st_size, there.st_blocks, there.st_mtime_ns, samples.hexdigest()


def fused(source: Path, output: Path, verify: str) -> tuple[Cost, int, bool]:
    """What fusing takes; the bytes that the new files take on the disk; whether the weights are what they were."""
    data = source.with_name(DATA)
    before, there = state(data), set(output.parent.iterdir())
    command = [*_GRAPHOPT, "fuse", str(source), "-o", str(output), "--verify", verify]
    cost = measured([*command, "--max-new-weights", "1MB", "--quiet"])
    written = sum(512 * file.stat().st_blocks for file in {*output.parent.iterdir()} - there)
    return cost, written, state(data) == before


def _nodes(path: Path) -> int:
    return len(onnx.load(path, load_external_data=False).graph.node)


@click.command(help=__doc__)
@click.option("--layers", default=40, show_default=True, help="200 MB each.")
@click.option("--verified", is_flag=True, help="With the default verification as well.")
@click.option("--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Where to work.")
def main(layers: int, verified: bool, folder: Path | None) -> None:
    met = True
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source = made(Path(scratch), layers)
        other = Path(scratch) / "other"
        other.mkdir()
        size = source.with_name(DATA).stat().st_size
        click.echo(
            f"{size / 1e9:.2f} GB of weights, {len(onnx.load(source, load_external_data=False).graph.node)} nodes"
        )
        click.echo(f"{'run':28} {'own MB':>7} {'all MB':>7} {'CPU s':>6} {'written kB':>11} {'nodes':>6} loads kept")
        runs = [("beside", source.with_name("beside.onnx"), "off", MOST_BESIDE)]
        runs += [("in another folder", other / "other.onnx", "off", MOST_ELSEWHERE)]
        runs += [("beside, verified", source.with_name("verified.onnx"), "sites", float("inf"))] * verified
        for name, output, verify, most in runs:
            cost, written, kept = fused(source, output, verify)
            nodes = _nodes(output) if not cost.code else 0
            loads = measured([sys.executable, "-c", _LOAD, str(output)]).code == 0
            click.echo(
                f"{name:28} {cost.own / 1e6:7.0f} {cost.resident / 1e6:7.0f} {cost.seconds:6.2f} {written / 1e3:11.0f} "
                f"{nodes:6} {'yes' if loads else 'no':5} {'yes' if kept else 'no'}"
            )
            quick = cost.seconds <= MOST_SECONDS or verify != "off"
            met &= cost.own <= most and quick and written <= MOST_WRITTEN and loads and kept and not cost.code
    click.echo(
        f"targets ({MOST_BESIDE / 1e6:.0f} and {MOST_ELSEWHERE / 1e6:.0f} MB, {MOST_SECONDS:g} CPU s, "
        f"{MOST_WRITTEN / 1e6:g} MB written): {'met' if met else 'missed'}"
    )
    raise SystemExit(not met)


if __name__ == "__main__":
    main()
