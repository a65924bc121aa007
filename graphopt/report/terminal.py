"""Results for people, as rich renderables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.pipeline import Inspection, Port, page
from graphopt.rewrite import CompiledRule


def inspection(found: Inspection) -> RenderableType:
    """What is in a model."""
    facts = _facts()
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
    return Group(facts, "", *(_counts("fused op", found.fused) if found.fused else ()), *_counts("op", found.ops))


def rules(known: Iterable[CompiledRule]) -> RenderableType:
    """The rules, one line each."""
    table = _table("stage", "rule", "what it does")
    stage = ""
    for rule in known:
        table.add_row("" if rule.stage == stage else rule.stage, rule.name, page(rule).partition("\n")[0])
        stage = rule.stage
    return table


def rule(shown: CompiledRule) -> RenderableType:
    """One rule's page."""
    facts = _facts()
    facts.add_row("stage", shown.stage)
    for kernel in shown.needs:
        facts.add_row("needs", str(kernel))
    facts.add_row("file", shown.place)
    return Group(Text(shown.name, "bold"), "", Text(page(shown)), "", facts)


def size(count: int) -> str:
    """Bytes for people: `438.2 MB`."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def _port(port: Port) -> Text:
    shape = "?" if port.shape is None else f"({', '.join(map(str, port.shape))})"
    return Text(f"{port.name}: {port.dtype or 'not a tensor'} {shape}")


def _counts(title: str, counts: Mapping[str, int]) -> tuple[RenderableType, ...]:
    table = _table(title, "count")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, f"{count:,}")
    return table, ""


def _facts() -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    return facts


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, overflow="fold")
    for title in others:
        numeric = title in ("count", "before", "after")
        table.add_column(title, justify="right" if numeric else "left", overflow="fold")
    return table
