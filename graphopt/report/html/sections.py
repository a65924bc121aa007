"""The parts of the page, from top to bottom; each is made of the report and is empty where that has nothing to say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from graphopt.bench import Ratio
from graphopt.report.html.figures import Bar, bars, below
from graphopt.report.html.figures import search as search_picture
from graphopt.report.html.markup import Markup, breakable, element, join
from graphopt.report.html.table import Column, cell, data_bar, row, table
from graphopt.report.schema import Report
from graphopt.report.terminal import size
from graphopt.report.timing import difference
from graphopt.report.words import cost, counted, kernel, mixed, percent, reading

_NAMES: Final = 200
"""Sites that are named before the rest is counted."""


def header(report: Report) -> Markup:
    """What was quantized, how, and in one sentence what came of it."""
    verdict = element("span", f"float rewrites {report['verdict']}", class_=f"verdict {report['verdict']}")
    written = f"written to {report['output']}" if report["output"] else "nothing was written"
    return element(
        "header",
        element("p", "graphopt quantize", class_="kind"),
        element("button", id="theme", type="button", hidden=True),
        element("h1", Path(report["model"]).name),
        element("p", ". ".join(_summary(report)), ".", class_="lead"),
        element(
            "p",
            verdict,
            _listed(f"mode {report['mode']}", f"{report['target']} on {report['cpu']}", written),
            class_="how",
        ),
    )


def errors(report: Report) -> Markup:
    """What stands against the model."""
    return join(*(_error(error) for error in report["errors"]))


def figures(report: Report) -> Markup:
    """Accuracy, speed, size and integer kernels, each with one figure that is read from afar."""
    tiles = (_accuracy(report["accuracy"]), _speed(report), _size(report["size"]), _integer(report["integer"]))
    return element("section", *tiles, class_="tiles", aria_label="Figures")


def decisions(report: Report) -> Markup:
    """What was decided for each group."""
    groups = report["groups"]
    if not groups:
        return Markup("")
    most = max((group["sensitivity"] or 0.0 for group in groups), default=0.0)
    total = sum(group["micros"] for group in groups)
    columns = (
        Column("group"),
        Column("sites", number=True),
        Column("scheme"),
        Column("kernel"),
        Column("on integer kernels", number=True),
        Column("costs", number=True),
        Column("time", number=True),
    )
    rows = (
        row(
            cell(breakable(group["name"]), class_="name"),
            cell(f"{group['sites']:,}", value=group["sites"]),
            cell(mixed(group["schemes"])),
            cell(mixed({kernel(name): count for name, count in group["kernels"].items()})),
            cell(f"{group['integer']:,} of {group['sites']:,}", value=group["integer"] / group["sites"]),
            data_bar(cost(group["sensitivity"]), group["sensitivity"], most),
            data_bar(percent(group["micros"] / total) if total else "", group["micros"] if total else None, total),
        )
        for group in groups
    )
    said = f"costs: what {_metric(report) or 'the metric'} gains where the group is left in float; "
    said += "time: share of the profiled time of these products"
    return _section("Decisions by group", element("p", said, class_="quiet"), table(columns, rows))


def unfused(report: Report) -> Markup:
    """The sites that are not on integer kernels, by reason."""
    found = report["unfused"]
    if not found:
        return Markup("")
    items = (
        element(
            "li",
            element("b", one["reason"]),
            element("span", counted(len(one["sites"]), "site"), class_="quiet"),
            element("span", breakable(_names(one["sites"])), class_="names"),
        )
        for one in found
    )
    return _section("Not on integer kernels", element("ul", *items, class_="reasons"))


def search(report: Report) -> Markup:
    """The candidates that were tried."""
    steps = report["steps"]
    if not steps:
        return Markup("")
    metric = _metric(report)
    columns = (Column("step", number=True), Column("change"), Column(metric or "metric", number=True), Column("kept"))
    rows = (
        row(
            cell(str(number), value=number),
            cell(step["change"]),
            cell(reading(metric, step["metric"]), value=step["metric"]),
            cell("kept" if step["kept"] else ""),
        )
        for number, step in enumerate(steps, 1)
    )
    kept = sum(step["kept"] for step in steps)
    said = f"{metric or 'metric'} on the search split; {counted(len(steps), 'step')}, {kept} kept (filled dots)"
    said += "; ▽ lies below the scale" if below(steps) else ""
    listed = element("details", element("summary", "All steps"), table(columns, rows))
    return _section("Search", element("p", said, class_="quiet"), search_picture(steps, metric), listed)


def colophon(report: Report) -> Markup:
    """What the figures come from."""
    facts = [fact for name, text in _facts(report) for fact in (element("dt", name), element("dd", text))]
    foot = element("footer", "Made by graphopt; the same as ", element("code", "--json"), ", schema ", report["schema"])
    return join(_section("How it was made", element("dl", *facts)), foot)


# ---- header ----------------------------------------------------------------------------------------------------------


def _summary(report: Report) -> Iterator[str]:
    """Sentences without their stops."""
    gains = [_shown(report["latency"]).replace("difference", "difference in speed")] if report["latency"] else []
    before, after = report["size"]["before"], report["size"]["after"]
    if before:
        gains.append(f"{percent(abs(1 - after / before))} {'smaller' if after <= before else 'larger'}")
    if gains:
        yield ", ".join(gains).capitalize()
    counts = report["integer"]
    if counts["all"]:
        products = counted(counts["all"], "product")
        yield f"{counts['running']:,} of {products} with constant weights run on integer kernels"
    found = report["accuracy"]
    if found:
        named = found["metric"].capitalize() if "." not in found["metric"] else found["metric"]
        yield f"{named} {reading(found['metric'], found['holdout'])} on {_samples(found)}"


def _error(error: Report) -> Markup:
    return element(
        "section",
        element("p", element("b", error["code"]), " ", error["message"]),
        element("p", error["where"]) if error["where"] else None,
        element("p", "Hint: ", error["hint"]) if error["hint"] else None,
        class_="error",
        role="alert",
    )


# ---- tiles -----------------------------------------------------------------------------------------------------------


def _accuracy(found: Report | None) -> Markup:
    if found is None:
        return _tile("Accuracy", "not measured", "")
    metric = found["metric"]
    rows = [("worst sample", found["worst"])]
    if found["search"] is not None:
        rows.append(("search split", found["search"]))
    if found["unoptimized"] is not None:
        rows.append(("optimizer on against off", found["unoptimized"]))
    listed = [part for name, value in rows for part in (element("dt", name), element("dd", reading(metric, value)))]
    return _tile("Accuracy", reading(metric, found["holdout"]), f"{metric}, {_samples(found)}", element("dl", *listed))


def _speed(report: Report) -> Markup:
    timed = {name: report[key] for name, key in (("CPU", "latency"), ("wall", "latency_wall")) if report[key]}
    if not timed:
        return _tile("Speed", "not measured", "")
    top = max(1.0, *(one["interval"][1] or 0.0 for one in timed.values()))
    rows = [Bar("original", "1", 1 / top, plain=True)]
    rows += [_timed(name, one, top) for name, one in timed.items()]
    first = next(iter(timed.values()))
    return _tile("Speed", _shown(first), "relative time, 95 % interval", bars(rows))


def _timed(name: str, one: Report, top: float) -> Bar:
    ratio, (low, high) = one["ratio"], one["interval"]
    if None in (ratio, low, high):
        return Bar(name, "–", 0.0)
    return Bar(name, f"{ratio:.3f}", ratio / top, (low / top, high / top))


def _size(found: Report) -> Markup:
    before, after = found["before"], found["after"]
    top = max(before, after, 1)
    rows = [Bar("before", size(before), before / top, plain=True), Bar("after", size(after), after / top)]
    share = f"{percent(after / before)} of the original" if before else ""
    return _tile("Size", size(after), share, bars(rows))


def _integer(found: Report) -> Markup:
    if not found["all"]:
        return _tile("Integer kernels", "none", "no product with constant weights")
    rows = [
        Bar(name, f"{found[key]:,}", found[key] / found["all"], plain=key == "all")
        for name, key in (("products", "all"), ("planned", "planned"), ("running", "running"))
    ]
    return _tile("Integer kernels", percent(found["share"]), "of products with constant weights", bars(rows))


def _tile(name: str, figure: str, said: str, *more: Markup) -> Markup:
    head = (element("h2", name), element("p", figure, class_="big"), element("p", said, class_="quiet"))
    return element("div", *head, *more, class_="tile")


# ---- the rest --------------------------------------------------------------------------------------------------------


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    for note in report["notes"]:
        yield "note", note
    if report["samples"]:
        yield "batches", ", ".join(f"{count:,} {use}" for use, count in report["samples"].items())
    if report["observer"]:
        yield "observer", report["observer"]
    checked = report["verification"]
    if checked and checked["reason"]:
        yield "check", f"{report['verdict']}: {checked['reason']}"
    yield "model", report["model"]
    yield "seconds", ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in report["seconds"].items())


def _section(title: str, *content: Markup) -> Markup:
    return element("section", element("h2", title), *content)


def _names(sites: list[str]) -> str:
    more = len(sites) - _NAMES
    return ", ".join(sites[:_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _listed(*parts: str) -> Markup:
    return join(*(element("span", part) for part in parts))


def _samples(found: Report) -> str:
    return counted(found["samples"], f"{'made-up' if found['made'] else 'held-out'} sample")


def _shown(one: Report) -> str:
    low, high = (float("nan") if bound is None else bound for bound in one["interval"])
    return difference(Ratio(one["ratio"] or float("nan"), low, high, one["pairs"])).plain


def _metric(report: Report) -> str:
    return str((report["accuracy"] or {}).get("metric", ""))
