"""Quantization to float16: ranges first, so that what half precision does not hold stays in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from graphopt.ir import Model
from graphopt.pipeline.candidates import Candidates
from graphopt.pipeline.workspace import Outcome, Workspace, nothing, stamp
from graphopt.quantize.half.convert import HalfReport, needed, to_half
from graphopt.quantize.sites import matching


def halves(workspace: Workspace, candidates: Candidates, exclude: Collection[str], no_empty_rows: bool) -> Outcome:
    """The model in half precision. Raises: UnequalError GO146 where nothing can be in half precision."""
    tapped = candidates.tapped(more=lambda model: [value.name for value in needed(model)])
    statistics = workspace.statistics(
        tapped, workspace.samples.calibration or workspace.samples.holdout, channels=False
    )
    ranges = {
        name: float("inf") if one.infinite else float(one.absmax.max(initial=0.0)) for name, one in statistics.items()
    }
    keep = matching(tapped.sites, exclude)
    told: list[HalfReport] = []

    def convert(model: Model) -> None:
        stamp(model, "float16")
        told.append(to_half(model, keep=keep, ranges=ranges, no_empty_rows=no_empty_rows))

    final = candidates.build(convert)
    report = told[0]
    if not report.converted:
        raise nothing("no operation can be in half precision")
    kept = {one.name: one.reason for one in report.kept}
    reasons = {site.name: next((kept[name] for name in site.ends if name in kept), "") for site in tapped.sites}
    schemes = {site.name: "float" if reasons[site.name] else "float16" for site in tapped.sites}
    groups = {site.name: site.group for site in tapped.sites}
    return Outcome(final, tapped.sites, schemes, reasons, groups, notes=_notes(report))


def _notes(report: HalfReport) -> tuple[str, ...]:
    """What stayed in float32 and why, and what was lost."""
    notes = [f"{report.converted} operations in half precision, {report.casts} casts at borders"]
    for reason, count in Counter(one.reason for one in report.overflowing).most_common(5):
        name = next(one.name for one in report.overflowing if one.reason == reason)
        more = f" and {count - 1} more" if count > 1 else ""
        notes.append(f"in float32: {name}{more}: {reason}")
    if report.vanished:
        notes.append(f"{report.vanished} weights are too small for half precision and are 0")
    return tuple(notes)
