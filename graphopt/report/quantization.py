"""What `quantize` decided and what it cost, as a page that is read in ten seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.bench import Ratio
from graphopt.pipeline.quantized import Accuracy, Quantized, SiteResult
from graphopt.report.sites import groups, unfused
from graphopt.report.terminal import fact_grid, furthest, new_table, size, verdict_text, written
from graphopt.report.timing import difference
from graphopt.report.words import cost, counted, kernel, mixed, percent, reading, shortened

_FEW = 12
"""Rows of a table that nobody asked to see whole."""
_NAMES = 3
"""Sites that are named before the rest is counted."""
_FIGURES: Final = ("sites", "integer", "costs", "time")


def quantization(result: Quantized, *, verbose: bool = False) -> RenderableType:
    """What was decided for each group of products, what it cost and gained, and what is not on integer kernels."""
    facts = fact_grid()
    for name, text in _facts(result, verbose):
        facts.add_row(name, text)
    tables = [_groups(result, verbose)] if result.sites else []
    if verbose:
        tables += [table for table in (_sites(result), _steps(result)) if table.row_count]
    return Lines(*(part for table in tables for part in (table, "")), facts)


def _facts(result: Quantized, verbose: bool) -> Iterator[tuple[str, RenderableType]]:
    if result.accuracy is not None:
        yield "accuracy", _accuracy(result.accuracy)
        yield from _unoptimized(result.accuracy)
    yield "integer", _integer(result)
    yield from _unfused(result, verbose)
    if result.latency is not None:
        yield "speed", _latency(result.latency, result.latency_wall)
    yield "size", _size(result)
    if result.steps:
        yield "search", _search(result)
    if result.samples:
        yield "data", _data(result)
    for note in result.notes:
        yield "note", note
    yield "check", _check(result)
    yield "model", result.source
    yield "mode", f"{result.mode} for {result.target} on {result.cpu}"
    yield from written(result.saved)
    yield "time", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())


# ---- what was decided ------------------------------------------------------------------------------------------------


def _groups(result: Quantized, verbose: bool) -> Table:
    found = groups(result.sites)
    total = sum(group.micros for group in found)
    table = _table("group", "sites", "scheme", "kernel", "integer", "costs", "time")
    shown = found if verbose else found[:_FEW]
    for group, name in zip(shown, shortened([group.name for group in shown]), strict=True):
        table.add_row(
            name,
            f"{group.sites:,}",
            mixed(group.schemes),
            mixed({kernel(name): count for name, count in group.kernels.items()}),
            f"{group.integer} of {group.sites}",
            cost(group.sensitivity),
            percent(group.micros / total) if total else "",
        )
    if len(found) > table.row_count:
        table.add_row(f"and {len(found) - table.row_count:,} more", style="dim")
    return table


def _sites(result: Quantized) -> Table:
    table = _table("site", "op", "shape", "scheme", "kernel", "integer", "because")
    for site in result.sites:
        shape = "x".join(map(str, site.shape))
        because = "; ".join(filter(None, [site.reason, site.kernel_reason]))
        table.add_row(
            site.name, site.op, shape, _scheme(site), kernel(site.kernel), "yes" if site.integer else "no", because
        )
    return table


def _steps(result: Quantized) -> Table:
    metric = result.accuracy.metric if result.accuracy is not None else ""
    table = _table("step", metric or "metric", "")
    for step in result.steps:
        table.add_row(step.change, reading(metric, step.metric), "kept" if step.kept else "", style=_dim(not step.kept))
    return table


def _scheme(site: SiteResult) -> str:
    return site.scheme if site.smooth is None else f"{site.scheme}, smooth {site.smooth:.2g}"


# ---- what it cost and gained -----------------------------------------------------------------------------------------


def _accuracy(found: Accuracy) -> str:
    data = "made-up" if found.made else "held-out"
    text = f"{found.metric} {reading(found.metric, found.holdout)} on {counted(found.samples, f'{data} sample')}"
    text += f", the worst {reading(found.metric, found.worst)}"
    searched = found.search is not None
    return text + (f"; {reading(found.metric, found.search or 0.0)} where it was searched" if searched else "")


def _unoptimized(found: Accuracy) -> Iterator[tuple[str, str]]:
    if found.unoptimized is not None:
        yield "", f"{reading(found.metric, found.unoptimized)} between the runtime's optimizer on and off"


def _integer(result: Quantized) -> Text:
    if not result.integer_all:
        return Text("no product with constant weights")
    text = f"{percent(result.integer_share)}: {result.integer_running:,} of "
    text += f"{counted(result.integer_all, 'product')} with constant weights on integer kernels"
    missed = result.integer_planned - result.integer_running
    style = "yellow" if missed > 0 else ""
    return Text.assemble(text, (f", {result.integer_planned:,} were planned" if missed > 0 else "", style))


def _unfused(result: Quantized, verbose: bool) -> Iterator[tuple[str, RenderableType]]:
    """The sites that are not on integer kernels, by reason."""
    found = unfused(result.sites)
    for one in found if verbose else found[:_FEW]:
        names = one.sites if verbose else one.sites[:_NAMES]
        more = f" and {len(one.sites) - len(names):,} more" if len(one.sites) > len(names) else ""
        yield "not integer", f"{one.reason}: {', '.join(names)}{more}"
    if len(found) > _FEW and not verbose:
        yield "", f"and {counted(len(found) - _FEW, 'other reason')}"


def _latency(cpu: Ratio, wall: Ratio | None) -> Text:
    text = f", {cpu.ratio:.3f} of the original's CPU time (95 % interval {cpu.low:.3f} to {cpu.high:.3f})"
    return Text.assemble(difference(cpu), text, f", {wall.ratio:.3f} of its wall time" if wall is not None else "")


def _size(result: Quantized) -> str:
    share = f" ({percent(result.size_after / result.size_before)})" if result.size_before else ""
    return f"{size(result.size_before)} before, {size(result.size_after)} after{share}"


def _search(result: Quantized) -> str:
    kept = [step for step in result.steps if step.kept]
    last = f"; last {kept[-1].change}" if kept else ""
    return f"{counted(len(result.steps), 'step')}, {len(kept)} kept{last}"


def _data(result: Quantized) -> str:
    batches = ", ".join(f"{use} {count:,}" for use, count in result.samples.items())
    return f"batches: {batches}" + (f"; observer {result.observer}" if result.observer else "")


def _check(result: Quantized) -> Text:
    """The verdict on the rewrites of floats; how accurate what quantization did is, stands elsewhere."""
    found = result.verification
    distance = furthest(found.regions) if found is not None else ""
    return Text.assemble("float rewrites ", verdict_text(result.verdict), f": {distance}" if distance else "")


def _table(*titles: str) -> Table:
    """A table without rows; figures stand on the right."""
    table = new_table(*titles)
    for column in table.columns:
        if column.header in _FIGURES:
            column.justify = "right"
    return table


def _dim(dim: bool) -> str:
    return "dim" if dim else ""
