"""The table of all sites, with a box to filter it."""

from __future__ import annotations

from math import prod
from typing import Any

from graphopt.report.html.markup import Markup, breakable, element
from graphopt.report.html.table import Column, cell, data_bar, row, table
from graphopt.report.schema import Report
from graphopt.report.words import cost, counted, kernel

_COLUMNS = (
    Column("#", number=True, hint="place in the order of the graph"),
    Column("site", hint="the value that the product makes"),
    Column("op"),
    Column("weights", number=True, hint="shape of the weights; sorted by how many there are"),
    Column("scheme", hint="how it is computed; α is the exponent of smoothing"),
    Column("kernel", hint="the operator that ran"),
    Column("integer", hint="whether the kernel computes with integers"),
    Column("costs", number=True, hint="what the metric gains when the group is left in float"),
    Column("time", number=True, hint="share of the profiled time of these products"),
    Column("because"),
)


def sites(report: Report) -> Markup:
    """What was decided for each product with constant weights, and the kernel that proves it."""
    found = report["sites"]
    if not found:
        return Markup("")
    most = max((site["sensitivity"] or 0.0 for site in found), default=0.0)
    total = sum(site["micros"] for site in found)
    longest = max(site["micros"] for site in found)
    rows = (_row(number, site, most, total, longest) for number, site in enumerate(found, 1))
    count = element("output", counted(len(found), "site"), id="count", for_="filter")
    box = element("input", id="filter", type="search", placeholder="name, scheme, kernel, reason", autocomplete="off")
    more = element("button", id="more", type="button", hidden=True)
    filtered = element("p", element("label", "Filter ", box, hidden=True), count, more, class_="controls")
    return element("section", element("h2", "Sites"), filtered, table(_COLUMNS, rows, id_="sites"))


def _row(number: int, site: dict[str, Any], most: float, total: float, longest: float) -> Markup:
    shape = site["shape"]
    because = "; ".join(filter(None, (site["reason"], site["kernel_reason"])))
    smooth = "" if site["smooth"] is None else f", α {site['smooth']:.2g}"
    integer = "yes" if site["integer"] else "no"
    time = f"{100 * site['micros'] / total:.1f} %" if total and site["micros"] else ""
    cells = (
        cell(str(number), value=number, class_="quiet"),
        cell(breakable(site["name"]), class_="name"),
        cell(site["op"]),
        cell(" × ".join(map(str, shape)), value=prod(shape)),
        cell(site["scheme"] + smooth, class_="scheme", title=_range(site["range"])),
        cell(kernel(site["kernel"]), title=site["kernel"]),
        cell(integer, class_=integer),
        data_bar(cost(site["sensitivity"]), site["sensitivity"], most),
        data_bar(time, site["micros"] if time else None, longest),
        cell(because, class_="because"),
    )
    return row(*cells, group=site["group"])


def _range(found: tuple[float | None, float | None] | None) -> str:
    if found is None or None in found:
        return ""
    return f"activations from {found[0]:.4g} to {found[1]:.4g}"
