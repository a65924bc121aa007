"""Pictures in SVG. What is horizontal is in percent: they take the width that there is, and text keeps its size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from graphopt.report.html.markup import Markup, element, join
from graphopt.report.words import reading

_BAR = 10
"""Height of a bar in pixels; the interval's ends are as high."""
_CHART = 120
"""Height of the search's line in pixels."""
_ROOM = 0.12
"""What is left free above and below the line, as a share of its height."""


@dataclass(frozen=True)
class Bar:
    """One bar with its name on the left and its figure on the right; `length` is a share of the width, as are the ends
    of `interval`. What a bar is compared with is `plain`."""

    label: str
    figure: str
    length: float
    interval: tuple[float, float] | None = None
    plain: bool = False


def bars(rows: Sequence[Bar]) -> Markup:
    """Bars below each other on one scale."""
    lines = (
        join(
            element("span", row.label, class_="label"),
            element("svg", _bar(row), height=_BAR, role="presentation"),
            element("span", row.figure, class_="figure"),
        )
        for row in rows
    )
    return element("div", *lines, class_="bars")


def _bar(row: Bar) -> Markup:
    bar = element("rect", width=_percent(row.length), height=_BAR, class_="plain" if row.plain else "bar")
    if row.interval is None:
        return bar
    low, high = map(_percent, row.interval)
    middle = _BAR / 2
    ends = (element("line", x1=x, x2=x, y1=1, y2=_BAR - 1, class_="whisker") for x in (low, high))
    return join(bar, element("line", x1=low, x2=high, y1=middle, y2=middle, class_="whisker"), *ends)


def search(steps: Sequence[dict[str, Any]], metric: str) -> Markup:
    """The metric over the steps of a search: a line through those that were kept, dots for all.

    The axis spans what was kept and what beat it; a step that fell below it is drawn at its lower edge, as a triangle.
    """
    values = [step["metric"] for step in steps]
    low, high = _scale(steps)
    places = [(_across(index, len(steps)), _down(value, low, high)) for index, value in enumerate(values)]
    path = [place for place, step in zip(places, steps, strict=True) if step["kept"]]
    line = (element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="path") for (x1, y1), (x2, y2) in pairwise(path))
    dots = (_dot(step, place, metric) for step, place in zip(steps, places, strict=True))
    grid = (_level(value, low, high, metric) for value in dict.fromkeys((high, low)))
    ticks = (
        element("text", f"step {number}", x=_across(number - 1, len(steps)), y=_CHART + 18, class_="tick middle")
        for number in dict.fromkeys((1, len(steps)))
    )
    label = f"{metric or 'metric'} over {len(steps)} steps"
    return element(
        "svg", *grid, *line, *dots, *ticks, height=_CHART + 24, class_="search", role="img", aria_label=label
    )


def below(steps: Sequence[dict[str, Any]]) -> bool:
    """Whether a step is off the scale that `search` draws."""
    low, _ = _scale(steps)
    return any(step["metric"] is None or step["metric"] < low for step in steps)


def _scale(steps: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """The least that was kept, and the most that was seen; 0 where there are no numbers."""
    values = [(step["metric"], step["kept"]) for step in steps if step["metric"] is not None]
    low = min((value for value, kept in values if kept), default=min(values, default=(0.0, False))[0])
    return low, max((value for value, _ in values), default=low)


def _level(value: float, low: float, high: float, metric: str) -> Markup:
    y = _down(value, low, high)
    text = element("text", reading(metric, value), x=-10, y=y, dy="0.35em", class_="tick end")
    return join(element("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"), text)


def _dot(step: dict[str, Any], place: tuple[str, float], metric: str) -> Markup:
    x, y = place
    name = element("title", f"{step['change']}: {reading(metric, step['metric'])}{', kept' if step['kept'] else ''}")
    if y >= _CHART:
        mark = element("path", d=f"M-4 {_CHART - 7}h8l-4 7z", class_="left")
        return element("svg", name, mark, x=x, class_="mark")
    return element("g", name, element("circle", cx=x, cy=y, r=4, class_="kept" if step["kept"] else "left"))


def _across(index: int, count: int) -> str:
    return _percent((index + 0.5) / count)


def _down(value: float | None, low: float, high: float) -> float:
    """Where a value stands in pixels from the top; at the bottom what is below `low` or no number."""
    if value is None or value < low:
        return _CHART
    share = (value - low) / (high - low) if high > low else 0.5
    return round(_CHART * (1 - _ROOM - share * (1 - 2 * _ROOM)), 1)


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"
