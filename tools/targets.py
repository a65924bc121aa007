"""Check a target's table against the installed runtime, and time its kernels beside their parts.

    python tools/targets.py ort-cpu
    python tools/targets.py ort-cpu --only SkipLayerNormalization
    python tools/targets.py ort-cpu --write

For each row, element type and size class of tools/targets.toml: does the operator load at the opset that the table
says, how does it run (native, cast to float32 and back, expanded at load, absent), and its time divided by that of its
parts. One thread, onnxruntime with its own optimizer off (on, it would fuse the parts itself); kernel and parts run in
turn, and the fast fifth of their runs is compared, which a busy machine disturbs least; of `PASSES` through all rows,
minutes apart, the middle counts. `?` stands where the table says something else: another verdict, or a cost that is
off by a quarter. `--write` puts the figures into the table. What is slower than its parts is listed at the end.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import graphopt.targets
from graphopt.errors import GraphoptError
from graphopt.ir import model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.node import qualified
from graphopt.ir.text import parse
from graphopt.runtime import Runner, Session
from graphopt.targets import NOT_SLOWER, PAYS, SMALL, KernelEntry, target_named

TYPES = ("float32", "float16")
CLASSES = ("small", "large")
OPSET = 23
"""What graphs are written in, where the operator is not newer."""
SECONDS = 0.4
"""How long one pair is timed, in seconds; at least `FEWEST` runs."""
FEWEST = 9
PASSES = 3


@dataclass(frozen=True)
class Spec:
    """How one row is run: what the graphs begin with, sizes by class, the kernel, its parts."""

    inputs: str
    before: str
    sizes: dict[str, dict[str, int]]
    kernel: str
    parts: str

    def graph(self, body: str, dtype: str) -> str:
        """A graph in the text form; its result is y."""
        return re.sub(r"\bT\b", dtype, f"({self.inputs}) -> (y) {{ {self.before}  {body} }}")


@dataclass(frozen=True)
class Timing:
    """Microseconds of kernel and parts."""

    kernel: float
    parts: float

    @property
    def cost(self) -> float:
        return self.kernel / self.parts


@dataclass(frozen=True)
class Row:
    """What was found of a row: how it runs by element type, timings by element type and size class, complaints."""

    entry: KernelEntry
    runs: dict[str, str]
    timings: dict[tuple[str, str], Timing]
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        return qualified(self.entry.domain, self.entry.op)


def specs() -> dict[str, Spec]:
    """By `domain.Op`, what tools/targets.toml says."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    found = {}
    for name, row in table["kernels"].items():
        frame = table["frames"][row["by"]]
        sizes = {size: frame[size] for size in CLASSES}
        found[name] = Spec(frame["inputs"], frame.get("before", ""), sizes, row["kernel"], row["parts"])
    return found


def model(text: str, opset: int = OPSET) -> bytes:
    built = parse(text, opset=opset)
    infer(built)
    serialized: bytes = model_to_proto(built).SerializeToString()
    return serialized


def feeds(session: Session, sizes: dict[str, int]) -> dict[str, Any]:
    """Normal numbers; zeros for ids and for the mask m."""
    drawn = np.random.default_rng(0)
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}
    found = {}
    for port in session.inputs:
        shape = [size if isinstance(size, int) else sizes[str(size)] for size in port.shape]
        kind = kinds.get(port.type, np.int64)
        plain = port.name == "m" or not issubclass(kind, np.floating)
        found[port.name] = np.zeros(shape, kind) if plain else drawn.normal(size=shape).astype(kind)
    return found


def how_it_runs(runner: Runner, spec: Spec, entry: KernelEntry, dtype: str, provider: str) -> str:
    """native, cast, expanded or absent."""
    serialized = model(spec.graph(spec.kernel, dtype), max(OPSET, entry.since))
    try:
        session = runner.load(serialized, optimize=False, provider=provider, profile=True)
        with session:
            session.run(feeds(session, spec.sizes["small"]))
            ran = {kernel.op for kernel in session.kernels()}
    except GraphoptError:
        return "absent"
    if entry.domain != "ir" and entry.op not in ran:
        return "expanded"
    return "cast" if "Cast" in ran and "Cast(" not in spec.kernel else "native"


def loads(runner: Runner, spec: Spec, opset: int, provider: str) -> str:
    """Why the kernel does not load in a model of `opset`; empty where it does."""
    try:
        runner.load(model(spec.graph(spec.kernel, "float32"), opset), optimize=False, provider=provider).close()
    except GraphoptError as error:
        return f"opset {opset}: {error.message}"
    return ""


def timing(runner: Runner, spec: Spec, since: int, dtype: str, size: str, provider: str) -> Timing:
    graphs = [model(spec.graph(body, dtype), max(OPSET, since)) for body in (spec.kernel, spec.parts)]
    entries = {"session.disable_prepacking": "0"}
    sessions = [runner.load(graph, optimize=False, provider=provider, entries=entries) for graph in graphs]
    given = feeds(sessions[0], spec.sizes[size])
    once = sum(float(np.median(times)) for times in runner.time(sessions, given, runs=3, warmup=2))
    runs = max(FEWEST, int(SECONDS / once))
    kernel, parts = (1e6 * np.quantile(times, 0.2) for times in runner.time(sessions, given, runs=runs, warmup=0))
    for session in sessions:
        session.close()
    return Timing(float(kernel), float(parts))


def as_expanded(time: Timing) -> Timing:
    """What is expanded at load is other parts: it is not slower than those of the table but by chance."""
    return Timing(min(time.kernel, time.parts), time.parts)


def measured(runner: Runner, entry: KernelEntry, spec: Spec, provider: str) -> Row:
    runs = {dtype: how_it_runs(runner, spec, entry, dtype, provider) for dtype in TYPES}
    able = [dtype for dtype in TYPES if runs[dtype] != "absent"]
    timings: dict[tuple[str, str], Timing] = {}
    # Below 9, weights would have to be inputs.
    problems = [] if entry.domain else [loads(runner, spec, max(entry.since, 9), provider)]
    for dtype in able:
        for size in CLASSES:
            try:
                time = timing(runner, spec, entry.since, dtype, size, provider)
                timings[dtype, size] = as_expanded(time) if runs[dtype] == "expanded" else time
            except GraphoptError as error:
                problems.append(f"{dtype}: {error.message}")
    return Row(entry, runs, timings, tuple(filter(None, problems)))


def middle(passes: list[Row]) -> Row:
    """The row with, of the timings of each type and size, the one whose cost is the middle one."""
    keys = [key for key in passes[0].timings if all(key in row.timings for row in passes)]
    ordered = {key: sorted((row.timings[key] for row in passes), key=lambda time: time.cost) for key in keys}
    return replace(passes[0], timings={key: times[len(times) // 2] for key, times in ordered.items()})


def doubts(row: Row) -> str:
    """Where the table says something else."""
    entry, found = row.entry, []
    for (dtype, size), time in row.timings.items():
        said = entry.cost_of(dtype, SMALL if size == "small" else SMALL + 1)
        if verdict(said) != verdict(time.cost) or (said and abs(said / time.cost - 1) > 0.25):
            found.append(f"{dtype} {size}: {said:g}")
    changed = [dtype for dtype in TYPES if entry.runs.get(dtype, row.runs[dtype]) != row.runs[dtype]]
    return " ".join([*(f"{one}?" for one in found), *(f"{one} {entry.runs[one]}?" for one in changed), *row.problems])


def verdict(cost: float) -> tuple[bool, bool]:
    return cost <= PAYS, cost <= NOT_SLOWER


def written(table: dict[str, Any], rows: list[Row], runtime: str, command: str) -> str:
    """The table as text, one row a line, with the figures of `rows`."""
    found = {(row.entry.domain, row.entry.op): row for row in rows}
    for line in table["kernels"]:
        row = found.get((line["domain"], line["op"]))
        if row is None or not row.timings:
            continue
        line["cost"] = {
            dtype: {size: round(row.timings[dtype, size].cost, 2) for size in CLASSES if (dtype, size) in row.timings}
            for dtype in TYPES
            if (dtype, CLASSES[0]) in row.timings
        }
        line["runs"], line["status"] = row.runs, "measured"
    head = {**table, "runtime": f"onnxruntime {runtime}", "cpu": cpu(), "command": command}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items() if key != "kernels"]
    kernels = ",\n".join(f"  {json.dumps(line, ensure_ascii=False)}" for line in table["kernels"])
    return "{\n" + ",\n".join(lines) + ',\n "kernels": [\n' + kernels + "\n ]\n}\n"


def cpu() -> str:
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{names[0] if names else 'unknown'}, {os.cpu_count()} cores"


def show(rows: list[Row], console: Console) -> None:
    table = Table("kernel", *(f"{dtype} {size}" for dtype in TYPES for size in CLASSES), "runs", "the table says")
    for row in rows:
        cells = [row.timings.get((dtype, size)) for dtype in TYPES for size in CLASSES]
        runs = ", ".join(dict.fromkeys(row.runs.values()))
        table.add_row(row.name, *(f"{cell.cost:.2f}" if cell else "-" for cell in cells), runs, doubts(row))
    console.print(table)
    timings = [(row.name, at, time) for row in rows for at, time in row.timings.items()]
    for name, (dtype, size), time in sorted(timings, key=lambda one: -one[2].cost):
        if time.cost > NOT_SLOWER:
            took = f"{time.kernel:.0f} us, its parts {time.parts:.0f}"
            console.print(f"{time.cost:.2f} times its parts: {name}, {dtype} {size} ({took})")


@click.command(help=__doc__)
@click.argument("name", default="ort-cpu")
@click.option("--only", multiple=True, help="A row, by the name of its operator; repeatable.")
@click.option("--write", is_flag=True, help="Put the figures into the table.")
def main(name: str, only: tuple[str, ...], write: bool) -> None:
    target, known, console = target_named(name), specs(), Console(width=180)
    wanted = [entry for entry in target.kernels.values() if not only or entry.op in only]
    timed = [entry for entry in wanted if qualified(entry.domain, entry.op) in known]
    with Runner(tf32=True) as runner:
        found = [
            measured(runner, entry, known[qualified(entry.domain, entry.op)], target.provider)
            for entry in track(PASSES * timed, console=Console(stderr=True))
        ]
        rows = [middle(found[at :: len(timed)]) for at in range(len(timed))]
        runtime = runner.version()
    show(rows, console)
    untimed = ", ".join(qualified(entry.domain, entry.op) for entry in wanted if entry not in timed)
    console.print(f"not in targets.toml: {untimed}" if untimed else "")
    if write:
        path = Path(graphopt.targets.__file__).parent / "tables" / f"{name}.json"
        command = f"python tools/targets.py {name} --write"
        path.write_text(written(json.loads(path.read_text()), rows, runtime, command))


if __name__ == "__main__":
    main()
