"""What models cost, side by side, for people: a column for each model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from graphopt.bench import FEWEST, Latency, Observation, Ratio, Timing
from graphopt.pipeline import Bench, Demo, Series
from graphopt.report.terminal import changes, fact_grid, new_table, outcome, size
from graphopt.report.words import counted

Row = tuple[str, Sequence[str | Text]]
"""A figure's name, and what it is for each model."""

_FEW = 8
"""Rows of a profile, and names of nodes, that nobody asked to see whole."""
_COLUMNS = 3
"""Models in one table: more go into another one below it."""
_STYLES: Final = {"faster": "bold green", "slower": "bold red", "none": "dim"}
_TOO_FEW: Final = f"takes {FEWEST} runs"
_UNITS: Final = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


def bench(found: Bench, *, verbose: bool = False) -> RenderableType:
    """Times, memory and agreement on each set of shapes; then what each model is, and how it was measured."""
    names = short_names(found.models)
    blocks = [part for series in found.series for part in _series(found, series, names, verbose)]
    return Group(*blocks, *_tables(names, _models(found)), *_strays(found, names, verbose), *_method(found))


def demo(found: Demo, *, verbose: bool = False) -> RenderableType:
    """The whole of the demo."""
    title = Text("A transformer of BERT-base's size, as an exporter writes it", "bold")
    timed = ("", timing(found.timing)) if found.timing is not None else ()
    return Group(title, "", *changes(found.fusion, verbose), outcome(found.fusion), *timed)


def timing(found: Timing) -> RenderableType:
    """Models timed side by side on one set of shapes; the first is what the others are compared with."""
    names = short_names([one.model for one in found.latencies])
    how = Text(f"{_how(found)}; inputs {shapes_of(found)}", "dim")
    return Group(*_tables(names, _times(found.latencies)), how)


def difference(ratio: Ratio) -> Text:
    """What a ratio shows: `1.23x faster`, `1.10x slower`, or that there is no difference to be seen."""
    match ratio.difference:
        case "faster":
            text = f"{_factor(1 / ratio.ratio)} faster"
        case "slower":
            text = f"{_factor(ratio.ratio)} slower"
        case _:
            text = "no difference shown"
    return Text(text, _STYLES[ratio.difference])


def short_names(models: Sequence[str]) -> list[str]:
    """What models are called in a report: their files' names, or paths where two files have one name."""
    names = [Path(model).name for model in models]
    return names if len(set(names)) == len(set(models)) else list(models)


def shapes_of(found: Timing) -> str:
    """`ids, mask (1, 128); image (1, 3, 224, 224)`: inputs of one shape are named together."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, shape in found.shapes.items():
        by_shape.setdefault(shape, []).append(name)
    said = (f"{', '.join(names)} ({', '.join(map(str, shape))})" for shape, names in by_shape.items())
    return "; ".join(said) or "none"


def unit_of(seconds: float) -> tuple[str, float]:
    """The unit in which a time is said, and how many seconds it has."""
    return next((one for one in _UNITS if seconds >= one[1]), _UNITS[-1])


# ---- parts -----------------------------------------------------------------------------------------------------------


def _series(found: Bench, series: Series, names: Sequence[str], verbose: bool) -> Iterator[RenderableType]:
    """One set of shapes."""
    yield Text(f"inputs {shapes_of(series.timing)}", "bold")
    yield from _tables(names, [*_times(series.timing.latencies), *_costs(series)])
    if found.profiled:
        for name, seen in zip(names, series.observations, strict=True):
            yield from _profile(name, seen, verbose)


def _tables(names: Sequence[str], rows: Iterable[Row]) -> Iterator[RenderableType]:
    """A column for each model, a few of them in each table."""
    rows = list(rows)
    for first in range(0, len(names), _COLUMNS):
        some = slice(first, first + _COLUMNS)
        table = new_table("", *names[some])
        for title, cells in rows:
            table.add_row(Text(title, "dim"), *cells[some])
        yield table
        yield ""


def _times(found: Sequence[Latency]) -> Iterator[Row]:
    """What single runs took; of the models after the first, beside what those of the first took."""
    walls = [one.wall for one in found]
    unit, factor = unit_of(min(wall.median for wall in walls))
    said = partial(_said, unit=unit, factor=factor)
    yield "median", [said(wall.median) for wall in walls]
    yield "95 % interval", [said(wall.low, wall.high) for wall in walls]
    yield "mean ± std", [said(wall.mean, wall.std, join=" ± ") for wall in walls]
    yield "min to max", [said(wall.min, wall.max) for wall in walls]
    yield "90th percentile", [said(wall.p90) for wall in walls]
    yield from _beside([one.ratio for one in found])
    yield "CPU time", [said(one.cpu.median) for one in found]
    yield from _beside([one.cpu_ratio for one in found])


def _said(*seconds: float, unit: str, factor: float, join: str = " to ") -> str:
    """`12.20 to 12.52 ms`"""
    if any(map(math.isnan, seconds)):
        return _TOO_FEW
    return f"{join.join(f'{one / factor:.2f}' for one in seconds)} {unit}"


def _beside(ratios: Sequence[Ratio]) -> Iterator[Row]:
    if len(ratios) > 1:
        yield "  difference", ["", *map(difference, ratios[1:])]
        yield "  ratio", ["1", *map(_ratio, ratios[1:])]


def _ratio(found: Ratio) -> str:
    bounds = _TOO_FEW if math.isnan(found.low) else f"{found.low:.3f} to {found.high:.3f}"
    return f"{found.ratio:.3f} ({bounds})"


def _factor(times: float) -> str:
    """`1.23x`; what rounds to one keeps more digits."""
    text = f"{times:.2f}x"
    return f"{times:.4f}x" if text == "1.00x" else text


def _costs(series: Series) -> Iterator[Row]:
    """Throughput, memory, agreement."""
    held = [seen.footprint for seen in series.observations]
    unit = "items" if series.batch is not None else "runs"
    yield "throughput", [f"{series.throughput(index):,.1f} {unit}/s" for index in range(len(held))]
    yield "peak memory", [size(one.peak) for one in held]
    yield "  model", [size(one.model) for one in held]
    yield "  activations", [size(one.activations) for one in held]
    if len(held) > 1:
        cosines = [f"{cosine:.6f}" if cosine is not None else "cannot be compared" for cosine in series.cosines[1:]]
        yield "cosine", ["1", *cosines]


def _profile(name: str, seen: Observation, verbose: bool) -> Iterator[RenderableType]:
    """What each kind of op of one model costs, the dearest first."""
    table = new_table(f"op of {name}", "count", "ms", "share", "provider")
    shown = seen.profile if verbose else seen.profile[:_FEW]
    rows = [(row.op, row.count, row.seconds, row.share, row.provider) for row in shown]
    rest = seen.profile[len(shown) :]
    if rest:
        count, seconds, share = (sum(getattr(row, what) for row in rest) for what in ("count", "seconds", "share"))
        rows.append((counted(len(rest), "other op"), count, seconds, share, ""))
    for op, count, seconds, share, provider in rows:
        table.add_row(op, f"{count:,}", f"{seconds * 1e3:.3f}", f"{100 * share:.1f} %", provider)
    yield table
    yield ""


def _models(found: Bench) -> Iterator[Row]:
    """What does not depend on shapes, and how many nodes ran where."""
    files = [f" in {len(one.files)} files" if len(one.files) > 1 else "" for one in found.sizes]
    yield "on disk", [size(one.disk) + more for one, more in zip(found.sizes, files, strict=True)]
    yield "weights", [size(one.weights) for one in found.sizes]
    placed = [seen.nodes for seen in found.series[0].observations]
    yield "nodes run", [", ".join(f"{count:,} on {provider}" for provider, count in one.items()) for one in placed]


def _strays(found: Bench, names: Sequence[str], verbose: bool) -> Iterator[RenderableType]:
    """The nodes that did not run on the provider that was asked for."""
    facts = fact_grid()
    for index, name in enumerate(names):
        nodes = list(dict.fromkeys(node for series in found.series for node in series.observations[index].elsewhere))
        shown = nodes if verbose else nodes[:_FEW]
        more = f", and {len(nodes) - len(shown)} more" if len(nodes) > len(shown) else ""
        if nodes:
            facts.add_row(f"fell back in {name}", ", ".join(shown) + more)
    if facts.row_count:
        yield facts
        yield ""


def _method(found: Bench) -> Iterator[RenderableType]:
    first = found.series[0].timing
    yield Text(f"{_how(first)}, after {first.warmup} to warm up", "dim")
    if len(found.models) > 1:
        told = "all places count, padding as well"
        if not found.given:
            told = (
                "inputs are made up, and may lie beyond what a quantized model was calibrated on: --inputs takes yours"
            )
        yield Text(f"cosine of the first output of floats; {told}", "dim")
    yield Text(
        "memory of a fresh process for each model: model is what loading adds to it, activations what runs add to that",
        "dim",
    )


def _how(found: Timing) -> str:
    turns = " each, in turn," if len(found.latencies) > 1 else ""
    where = f"on {found.provider} with {counted(found.threads, 'thread')}"
    return f"{counted(found.runs, 'run')}{turns} in onnxruntime's default session {where}"
