"""What models cost, as a picture: latency with its interval, and size, latency and agreement together."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from graphopt.bench import Spread
from graphopt.errors import UsageError
from graphopt.pipeline import Bench, Series
from graphopt.report.terminal import size
from graphopt.report.timing import short_names, unit_of
from graphopt.report.whole import put_whole
from graphopt.report.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS: Final = (".png", ".svg")

# Okabe and Ito's, which stay apart for colour-blind readers.
_COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_INK: Final = "#333333"
_PAPER: Final = "#ffffff"
_LARGEST: Final = 900.0
"""Area of the largest model's mark, in square points."""
_BAR: Final = 0.8
_LEAST_SPREAD: Final = 1e-4
"""Of cosines: below it, models are drawn at one height, as nothing tells them apart."""
_LONGEST: Final = 30
"""Letters of a name."""


def check_picture(path: Path) -> None:
    """Raises what `draw` would raise before it draws, so that a long run can ask at its beginning.

    UsageError GO112 without matplotlib, GO113 where there cannot be a picture.
    """
    if path.suffix.lower() not in KINDS:
        raise UsageError("GO113", "a picture is a .png or an .svg file", str(path))
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError("GO113", "the picture cannot be written: no such folder", str(path))
    if path.exists() and not os.access(path, os.W_OK):
        raise UsageError("GO113", "the picture cannot be written: permission denied", str(path))
    if path.is_file() and not _may_be_picture(path):
        raise UsageError("GO113", "the picture would overwrite a file that is none", str(path))
    if find_spec("matplotlib") is None:
        raise UsageError("GO112", "a picture needs matplotlib", str(path), "pip install graphopt[plot]")


def _may_be_picture(path: Path) -> bool:
    """Whether a file is empty, or begins as pictures do."""
    with path.open("rb") as file:
        return file.read(5) in (b"", b"\x89PNG\r", b"<?xml", b"<svg ")


def draw(found: Bench, path: Path) -> None:
    """Draws latencies; beside them, where several models can be compared, size, latency and cosine.

    Raises: what `check_picture` raises.
    """
    check_picture(path)
    import matplotlib

    # The same bench gives the same file, and text in an SVG stays text.
    with matplotlib.rc_context({"svg.hashsalt": "graphopt", "svg.fonttype": "none", "font.size": 10}):
        kind, drawn = path.suffix.lower()[1:], BytesIO()
        _figure(found).savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    try:
        put_whole(path, drawn.getvalue())
    except OSError as error:
        raise UsageError("GO113", f"the picture cannot be written: {error.strerror}", str(path)) from error


def _figure(found: Bench) -> Figure:
    from matplotlib.figure import Figure

    names = [_shortened(name) for name in short_names(found.models)]
    panels = 2 if len(names) > 1 and None not in found.series[0].cosines else 1
    height = 1.8 + 0.36 * len(names) * len(found.series)
    figure = Figure(figsize=(6.5 * panels, max(2.6, height)), layout="constrained", facecolor=_PAPER)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _latencies(axes[0], found)
    if panels == 2:
        _trade(axes[1], found.series[0], [one.disk for one in found.sizes])
    labels = [f"{name}, {size(one.disk)}" for name, one in zip(names, found.sizes, strict=True)]
    bars = axes[0].containers[: len(names)]
    figure.legend(bars, labels, loc="outside upper left", ncols=min(2 * panels, len(names)), frameon=False, fontsize=9)
    first = found.series[0].timing
    how = f"{counted(first.runs, 'run')} of each model on {first.provider}, {counted(first.threads, 'thread')}"
    figure.supxlabel(how, fontsize=8, color=_INK)
    return figure


def _latencies(axes: Axes, found: Bench) -> None:
    """A bar to the median for each model, in a group for each set of shapes, with its 95 % interval."""
    count = len(found.models)
    walls = [[series.timing.latencies[index].wall for series in found.series] for index in range(count)]
    unit, factor = unit_of(max(wall.median for one in walls for wall in one))
    thickness = _BAR / count
    # All bars before all intervals: the legend takes the first containers.
    for index, one in enumerate(walls):
        places = [group - _BAR / 2 + (index + 0.5) * thickness for group in range(len(one))]
        axes.barh(places, [wall.median / factor for wall in one], 0.85 * thickness, color=_color(index))
    for index, one in enumerate(walls):
        for group, wall in enumerate(one):
            place = group - _BAR / 2 + (index + 0.5) * thickness
            low, high = _interval(wall)
            axes.errorbar(
                wall.median / factor,
                place,
                xerr=[[(wall.median - low) / factor], [(high - wall.median) / factor]],
                ecolor=_INK,
                elinewidth=1.2,
                capsize=3,
            )
            text, at = f"{wall.median / factor:.4g}", (high / factor, place)
            axes.annotate(text, at, (6, 0), textcoords="offset points", va="center", fontsize=9, color=_INK)
    axes.set_yticks(range(len(found.series)), list(map(_shapes, found.series)))
    axes.set_xlim(0, 1.2 * max(_interval(wall)[1] for one in walls for wall in one) / factor)
    axes.invert_yaxis()
    axes.set_xlabel(f"latency ({unit}): median, 95 % interval")
    _plain(axes, "x")


def _trade(axes: Axes, series: Series, sizes: Sequence[int]) -> None:
    """Where each model lies between fast and faithful on one set of shapes; the area is its size on disk."""
    unit, factor = unit_of(max(one.wall.median for one in series.timing.latencies))
    times = [one.wall.median / factor for one in series.timing.latencies]
    cosines = [cosine for cosine in series.cosines if cosine is not None]
    for index, point in enumerate(zip(times, cosines, strict=True)):
        area = _LARGEST * sizes[index] / max(sizes)
        axes.scatter(*point, s=area, color=_color(index), alpha=0.8, edgecolors=_PAPER, linewidths=1)
    margin = 0.25 * max(_LEAST_SPREAD, max(cosines) - min(cosines))
    axes.set_ylim(min(cosines) - margin, max(cosines) + margin)
    axes.set_xlim(0, 1.2 * max(times))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel(f"latency ({unit}) on {_shapes(series).replace(chr(10), ', ')}; area: size on disk")
    axes.set_ylabel("cosine to the first model's output")
    _plain(axes, "both")


def _interval(wall: Spread) -> tuple[float, float]:
    """The 95 % interval of a median; the median alone where there are too few runs for one."""
    return (wall.median, wall.median) if math.isnan(wall.low) else (wall.low, wall.high)


def _shapes(series: Series) -> str:
    """The shapes of the inputs, each once: whose they are is in the report."""
    return "\n".join(" × ".join(map(str, shape)) or "scalar" for shape in dict.fromkeys(series.timing.shapes.values()))


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[1 - _LONGEST // 2 :]}"


def _color(index: int) -> str:
    return _COLORS[index % len(_COLORS)]


def _plain(axes: Axes, grid: Literal["x", "both"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
