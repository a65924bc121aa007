"""What `verify` found, as a page that is read in ten seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from graphopt.report.terminal import allowed, fact_grid, furthest, new_table, runs, verdict_text
from graphopt.verify import Comparison, Parting, Verification
from graphopt.verify.inputs.feeds import DEFAULT, GIVEN
from graphopt.verify.results import ORDER, FedInput

_FEW = 10
"""Outputs that nobody asked to see whole."""
_KINDS = 5
_FIGURES: Final[Mapping[str, Callable[[Comparison], float | None]]] = {
    "max abs": lambda one: one.max_abs,
    "noise floor": lambda one: one.floor,
    "in floors": lambda one: one.ratio,
    "allowed": lambda one: None if one.ratio is None else allowed(one),
    "mismatches": lambda one: one.mismatches or None,
    "cosine": lambda one: one.cosine,
}
_MORE: Final[Mapping[str, Callable[[Comparison], float | None]]] = {
    "max rel": lambda one: one.max_rel,
    "rms": lambda one: one.rms,
    "ulp": lambda one: one.ulp,
    "top-1": lambda one: one.top1,
}
_SHARES: Final = ("mismatches", "top-1")
_LAYERS: Final = {"structure": "by structure", "regions": "by regions", "end-to-end": "end to end"}


def verification(found: Verification, *, verbose: bool = False) -> RenderableType:
    """The verdict and what says so, the outputs with the worst first, where the models part, and what they ran on."""
    facts = fact_grid()
    for name, text in _facts(found, verbose):
        facts.add_row(name, text)
    return Group(_headline(found), "", *_outputs(found.outputs, verbose), facts)


def _headline(found: Verification) -> Text:
    """The verdict, which layer decided and what that claims; `equal` with how much was run and how far apart it is."""
    claim = f"  decided {_LAYERS[found.decided_by]}"
    if found.decided_by != "structure":
        claim += f" ({found.level})"
    match found.verdict:
        case "skipped":
            claim = "  not checked"
        case "inconclusive":
            claim = "  not decided"
        case "equal":
            ran = "; ".join(filter(None, [furthest(found.regions), runs(found) if found.outputs else ""]))
            claim += f": {ran}" if ran else ""
    return Text.assemble(verdict_text(found.verdict), claim, f"; {found.reason}" if found.reason else "")


def _facts(found: Verification, verbose: bool) -> Iterator[tuple[str, RenderableType]]:
    if found.parting is not None:
        yield from _parting(found.parting)
    worst = next((one for one in _sorted(found.outputs) if one.feed and one.verdict != "equal"), None)
    if worst is not None:
        yield "seen on", f"{worst.feed}{_seeds(line for line in found.inputs if line.feed == worst.feed)}"
    alone = len(found.providers) == 1 and not found.providers[0].reason
    for provider in () if alone else found.providers:
        yield f"on {provider.name}", Text.assemble(verdict_text(provider.verdict), f"  {provider.reason}")
    if found.inputs:
        yield "runs", _runs(found)
    if verbose:
        yield from ((f"input {name}", ", ".join(kinds)) for name, kinds in _fed(found).items())
    for crash in found.crashes:
        yield "crashed", f"{crash.message} the {crash.side}; {f'kept in {crash.kept}' if crash.kept else 'not kept'}"
    if found.hint and found.verdict == "equal":
        yield "note", found.hint


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
    figures = {**_FIGURES, **(_MORE if verbose else {})}
    known = {title: figure for title, figure in figures.items() if any(figure(one) is not None for one in outputs)}
    table = new_table("output", "verdict", *known)
    ordered = _sorted(outputs)
    shown = ordered if verbose else ordered[:_FEW]
    for one in shown:
        texts = (_figure(title, figure(one)) for title, figure in known.items())
        table.add_row(one.name, verdict_text(one.verdict), *texts)
    left = ordered[len(shown) :]
    if left:
        kinds = {one.verdict for one in left}
        table.add_row(f"and {len(left)} more", verdict_text(min(kinds, key=ORDER.index)), style="dim")
    return table, ""


def _figure(title: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{100 * value:.3g} %" if title in _SHARES else f"{value:.4g}"


def _sorted(outputs: Sequence[Comparison]) -> list[Comparison]:
    """The worst first."""
    return sorted(outputs, key=lambda one: (ORDER.index(one.verdict), -(one.ratio or 0.0)))


def _runs(found: Verification) -> str:
    """How many runs there were, with which seeds and on what, and the first kinds of them."""
    kinds = list(dict.fromkeys(one.feed for one in found.inputs))
    place = ", ".join(one.name for one in found.providers if one.verdict != "skipped")
    more = len(kinds) - _KINDS
    first = ", ".join(kinds[:_KINDS]) + (f", and {more} more" if more > 0 else "")
    count = len({(one.feed, one.seed) for one in found.inputs})
    return f"{count} on {place or 'none'}{_seeds(found.inputs)}: {first}"


def _seeds(lines: Iterable[FedInput]) -> str:
    """The seeds of what was made, in brackets."""
    seeds = sorted({one.seed for one in lines if one.kind not in (GIVEN, DEFAULT)})
    if not seeds:
        return ""
    return f" (seed {seeds[0]})" if len(seeds) == 1 else f" (seeds {seeds[0]} to {seeds[-1]})"


def _fed(found: Verification) -> dict[str, list[str]]:
    """What each input was fed: shapes and kinds, without repetition."""
    fed: dict[str, list[str]] = {}
    for one in found.inputs:
        text = f"{'x'.join(map(str, one.shape)) or 'scalar'} {one.kind}"
        if text not in fed.setdefault(one.name, []):
            fed[one.name].append(text)
    return fed
