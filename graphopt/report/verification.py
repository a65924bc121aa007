"""What `verify` found, as a page that is read in ten seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from graphopt.report.terminal import fact_grid, new_table, verdict_text
from graphopt.verify import Comparison, Parting, Verification
from graphopt.verify.numbers.tolerance import K
from graphopt.verify.results import ORDER

_FEW = 10
"""Outputs that nobody asked to see whole."""
_KINDS = 5


def verification(found: Verification, *, verbose: bool = False) -> RenderableType:
    """The verdict and what says so, the outputs with the worst first, where the models part, and what they ran on."""
    facts = fact_grid()
    for name, text in _facts(found, verbose):
        facts.add_row(name, text)
    return Group(_headline(found), "", *_outputs(found.outputs, verbose), facts)


def _headline(found: Verification) -> Text:
    layer = {"structure": "by structure", "regions": "by regions", "end-to-end": "end to end"}[found.decided_by]
    claim = f"  decided {layer}"
    if found.decided_by != "structure":
        claim += f" ({found.level})"
    return Text.assemble(verdict_text(found.verdict), claim, f"; {found.reason}" if found.reason else "")


def _facts(found: Verification, verbose: bool) -> Iterator[tuple[str, RenderableType]]:
    if found.parting is not None:
        yield from _parting(found.parting)
    worst = next((one for one in _sorted(found.outputs) if one.feed and one.verdict != "equal"), None)
    if worst is not None:
        seeds = {line.seed for line in found.inputs if line.feed == worst.feed}
        seed = f" (seed {min(seeds)})" if seeds else ""
        yield "seen on", f"{worst.feed}{seed}"
    for provider in found.providers:
        yield f"on {provider.name}", Text.assemble(verdict_text(provider.verdict), f"  {provider.reason}")
    if found.inputs:
        yield "runs", _runs(found)
    if verbose:
        yield from ((f"input {name}", ", ".join(kinds)) for name, kinds in _fed(found).items())
    for crash in found.crashes:
        yield "crashed", f"{crash.message} the {crash.side}; {crash.kept or 'not kept'}"
    if found.hint:
        yield "note" if found.verdict == "equal" else "hint", found.hint


def _parting(parting: Parting) -> Iterator[tuple[str, RenderableType]]:
    yield "the same", f"{parting.same:,} of {parting.total:,} nodes"
    if parting.reference or parting.candidate:
        yield "they part at", _sides(parting) + (f": {parting.difference}" if parting.difference else "")
    if parting.value:
        yield "in numbers at", parting.value


def _sides(parting: Parting) -> str:
    if parting.reference == parting.candidate:
        return f"{parting.reference} in both"
    return f"{parting.reference or 'nothing'} in the reference, {parting.candidate or 'nothing'} in the candidate"


def _outputs(outputs: Sequence[Comparison], verbose: bool) -> tuple[RenderableType, ...]:
    if not outputs:
        return ()
    table = new_table("output", "verdict", "max abs", "floor", "floors", "allowed", "cosine")
    ordered = _sorted(outputs)
    shown = ordered if verbose else ordered[:_FEW]
    for one in shown:
        allowed = None if one.ratio is None else max(K, 2 * (one.reference_ratio or 0.0))
        figures = (one.max_abs, one.floor, one.ratio, allowed, one.cosine)
        table.add_row(one.name, verdict_text(one.verdict), *("" if x is None else f"{x:.4g}" for x in figures))
    left = ordered[len(shown) :]
    if left:
        kinds = {one.verdict for one in left}
        table.add_row(f"and {len(left)} more", verdict_text(min(kinds, key=ORDER.index)), style="dim")
    return table, ""


def _sorted(outputs: Sequence[Comparison]) -> list[Comparison]:
    """The worst first."""
    return sorted(outputs, key=lambda one: (ORDER.index(one.verdict), -(one.ratio or 0.0)))


def _runs(found: Verification) -> str:
    """How many runs there were, and the first kinds of them."""
    kinds = list(dict.fromkeys(one.feed for one in found.inputs))
    more = len(kinds) - _KINDS
    return f"{len(kinds)}: {', '.join(kinds[:_KINDS])}" + (f", and {more} more" if more > 0 else "")


def _fed(found: Verification) -> dict[str, list[str]]:
    """What each input was fed: shapes and kinds, without repetition."""
    fed: dict[str, list[str]] = {}
    for one in found.inputs:
        text = f"{'x'.join(map(str, one.shape)) or 'scalar'} {one.kind}"
        if text not in fed.setdefault(one.name, []):
            fed[one.name].append(text)
    return fed
