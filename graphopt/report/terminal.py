"""Results for people, as rich renderables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.ir.save import Saved
from graphopt.pipeline import Inspection, Port, Result, count_meanings, parts
from graphopt.rewrite import CompiledRule
from graphopt.verify import Comparison, Verdict, Verification
from graphopt.verify.numbers.tolerance import K

_STYLES: dict[Verdict, str] = {"equal": "green", "unequal": "bold red", "inconclusive": "yellow", "skipped": "yellow"}
_FEW = 12
"""Rows of a table that nobody asked to see whole."""
_SHARED = 3
"""Files that are named before the rest is counted."""

_NUMERIC = frozenset(
    {"count", "before", "after", "applied", "matched", "tried", "ms", "share"}
    | {"max abs", "noise floor", "in floors", "allowed", "cosine", "mismatches", "max rel", "rms", "ulp", "top-1"}
)


def fusion(result: Result, *, verbose: bool = False) -> RenderableType:
    """What `fuse` did, how it was checked, and where the time went."""
    facts = outcome(result)
    facts.add_row("model", result.source)
    facts.add_row("target", result.target)
    for name, text in written(result.saved):
        facts.add_row(name, text)
    return Group(*changes(result, verbose), *_applied(result, verbose), facts, *_tests(result))


def written(saved: Saved | None) -> Iterator[tuple[str, str]]:
    """The files that a model was written to, and those that it needs as well: they are the input's."""
    if saved is None:
        yield "written", "nothing"
        return
    yield "written", ", ".join(map(str, reversed(saved.files)))
    if saved.shared:
        more = f" and {len(saved.shared) - _SHARED:,} more files" if len(saved.shared) > _SHARED else ""
        yield "shared", f"weights stay in {', '.join(saved.shared[:_SHARED])}{more}, which the input uses, too"


def inspection(found: Inspection) -> RenderableType:
    """What is in a model."""
    facts = fact_grid()
    facts.add_row("model", found.model)
    facts.add_row("made by", found.producer or "unknown")
    facts.add_row("opsets", ", ".join(f"{name} {version}" for name, version in found.opsets.items()))
    facts.add_row("IR version", str(found.ir_version))
    for port in found.inputs:
        facts.add_row("input", _port(port))
    for port in found.outputs:
        facts.add_row("output", _port(port))
    facts.add_row("parameters", f"{found.parameters:,} in {size(found.weight_bytes)}")
    for file in found.external:
        facts.add_row("external data", file)
    facts.add_row("nodes", f"{found.nodes:,}" + (f", {found.subgraphs} subgraphs" if found.subgraphs else ""))
    for name in found.functions:
        facts.add_row("function", name)
    for name in found.unknown:
        facts.add_row("unknown op", name)
    for key, value in found.metadata.items():
        facts.add_row("metadata", f"{key} = {value}")
    fused = _counts("fused op", found.fused) if found.fused else ()
    return Group(facts, "", *fused, *_counts("op", found.ops))


def rules(known: Iterable[CompiledRule]) -> RenderableType:
    """The rules, one line each."""
    table = new_table("stage", "rule", "what it finds")
    stage = ""
    for shown in known:
        table.add_row("" if shown.stage == stage else shown.stage, shown.name, parts(shown)["What"].partition("\n")[0])
        stage = shown.stage
    return table


def rule(shown: CompiledRule) -> RenderableType:
    """One rule's page."""
    said = parts(shown)
    facts = fact_grid()
    for name, text in said.items():
        if name != "What":
            facts.add_row(name.lower(), Text(text))
    facts.add_row("stage", shown.stage)
    if shown.needs:
        facts.add_row("needs", f"a kernel {' or '.join(map(str, shown.needs))}")
    facts.add_row("file", shown.place)
    return Group(Text(shown.name, "bold"), Text(said["What"]), "", facts)


def pages(shown: Iterable[CompiledRule]) -> RenderableType:
    """Rules' pages, one after another."""
    return Group(*map(rule, shown))


def verdict_text(verdict: Verdict) -> Text:
    """A verdict in its colour."""
    return Text(verdict, _STYLES[verdict])


def size(count: int) -> str:
    """Bytes for people: `438.2 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def changes(result: Result, verbose: bool) -> tuple[RenderableType, ...]:
    """Meanings, and the ops whose number changed most."""
    before, after = result.ops_before, result.ops_after
    known = Counter(count_meanings(before)), Counter(result.fused)
    meanings = (_before_after("meaning", *known), "") if any(known) else ()
    changed = [op for op in before | after if before[op] != after[op]]
    changed.sort(key=lambda op: (-abs(before[op] - after[op]), op))
    shown = changed if verbose else changed[:_FEW]
    ops = _before_after("op", *(Counter({op: counts[op] for op in shown}) for counts in (before, after)))
    if len(shown) < len(changed):
        ops.add_row(f"{len(changed) - len(shown)} other ops", "", "", style="dim")
    ops.add_row("all nodes", f"{before.total():,}", f"{after.total():,}", style="bold")
    return *meanings, ops, ""


def _applied(result: Result, verbose: bool) -> tuple[RenderableType, ...]:
    counts = sorted(result.trace.counts.items(), key=lambda item: (-item[1].applied, item[0]))
    if verbose:
        table = new_table("rule", "applied", "matched", "tried", "ms")
        for name, count in counts:
            table.add_row(
                name, *(f"{n:,}" for n in (count.applied, count.matched, count.tried)), f"{count.seconds * 1000:.1f}"
            )
        return table, ""
    fired = [(name, count) for name, count in counts if count.applied]
    table = new_table("rule", "applied")
    for name, count in fired:
        table.add_row(name, f"{count.applied:,}")
    return (table, "") if fired else ()


def outcome(result: Result) -> Table:
    """How a fusion was checked, what was set aside, and where the time went."""
    facts = fact_grid()
    facts.add_row("check", _check(result))
    for name, text in _rolled_back(result):
        facts.add_row(name, text)
    for rule, reason in result.trace.left_out.items():
        facts.add_row("left out", f"{rule}: {reason}")
    for rule, roots in groupby(sorted(result.trace.stopped, key=lambda stop: stop.rule), key=lambda stop: stop.rule):
        first, *others = roots
        more = f" and {len(others):,} more" if others else ""
        facts.add_row("stopped", f"{rule} at '{first.root}'{more}: {first.reason}")
    for failure in result.trace.failures:
        facts.add_row("set aside", f"{failure.rule} ({failure.place}): {failure.message}")
    facts.add_row("time", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items()))
    return facts


def _rolled_back(result: Result) -> Iterator[tuple[str, str]]:
    """The rules that were wrong: the first site of each in figures, and where the case of it is."""
    for rule, sites in groupby(sorted(result.blamed, key=lambda one: one.rule), key=lambda one: one.rule):
        first, *others = sorted(sites, key=lambda one: not one.case)
        more = f" and at {len(others):,} more" if others else ""
        yield "rolled back", f"{rule} at '{first.root}'{more}: it changed what the model computes; {first.reason}"
        size = f" ({first.nodes} nodes)" if first.nodes else ""
        if first.case or first.region:
            yield "", f"kept in {first.case}{size}" if first.case else "--keep-failed DIR keeps the smallest case of it"


def _tests(result: Result) -> Iterator[RenderableType]:
    """The tests of what was kept, to paste."""
    for one in result.blamed:
        if one.test:
            yield ""
            yield Text(one.test.rstrip(), no_wrap=True, overflow="ignore")


def _check(result: Result) -> Text:
    found = result.verification
    if found is None:
        return verdict_text(result.verdict)
    counts = found.counts
    regions = counts.run + counts.known
    changed = f"{regions} region{'' if regions == 1 else 's'} changed"
    if found.regions:
        changed += " and was run" if regions == 1 else " and were run"
    claim = f" ({found.level})" if found.verdict == "equal" else ""
    text = f"{claim}: {changed}, {counts.free} {'is' if counts.free == 1 else 'are'} equal by structure"
    ran = "".join(f"; {distance}" for distance in (furthest(found.regions),) if distance)
    whole = f"; the whole models in {runs(found)}" if found.outputs else ""
    return Text.assemble(verdict_text(result.verdict), text, ran, whole)


def runs(found: Verification) -> str:
    """How many runs whole models were compared in, and how far apart they were: `16 runs, at most 1.1 noise ...`."""
    count = len({(one.feed, one.seed) for one in found.inputs})
    said = f"{count} run{'' if count == 1 else 's'}" if count else ""
    return ", ".join(filter(None, [said, furthest(found.outputs)]))


def furthest(compared: Sequence[Comparison]) -> str:
    """How far apart what was compared is at most; empty where no numbers were."""
    measured = [one for one in compared if one.ratio is not None]
    if not measured:
        return ""
    most = max(measured, key=lambda one: (one.ratio or 0.0) / allowed(one))
    return f"at most {most.ratio:.1f} noise floors apart, {allowed(most):.3g} are allowed"


def allowed(one: Comparison) -> float:
    """How many noise floors an output may be apart."""
    return max(K, 2 * (one.reference_ratio or 0.0))


def _port(port: Port) -> str:
    shape = "of unknown rank" if port.shape is None else f"({', '.join(map(str, port.shape))})"
    return f"{port.name}: {port.dtype or 'not a tensor'} {shape}"


def _counts(title: str, counts: Mapping[str, int]) -> tuple[RenderableType, ...]:
    table = new_table(title, "count")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, f"{count:,}")
    return table, ""


def _before_after(title: str, before: Counter[str], after: Counter[str]) -> Table:
    table = new_table(title, "before", "after")
    for name in sorted(before | after, key=lambda name: (-max(before[name], after[name]), name)):
        table.add_row(name, f"{before[name]:,}", f"{after[name]:,}")
    return table


def fact_grid() -> Table:
    """A table of names and what they stand for, to add rows to."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    return facts


def new_table(*titles: str) -> Table:
    """A table without rows; figures stand on the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in titles:
        table.add_column(title, justify="right" if title in _NUMERIC else "left", overflow="fold")
    return table
