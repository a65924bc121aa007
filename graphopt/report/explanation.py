"""Explanations for people: a histogram of what stood in the way, and the nearest misses as pattern trees."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.pipeline import Explanation, NodeReport, RuleReport
from graphopt.pipeline.explanation import RefusalGroup, first_told, nearest_first
from graphopt.pipeline.observation import Shadow
from graphopt.report.terminal import fact_grid, new_table
from graphopt.rewrite import Refusal
from graphopt.rewrite.trace import Part, State

_MARKS: dict[State, tuple[str, str]] = {
    "matched": ("✓", "green"),
    "open": ("…", "yellow"),
    "blocked": ("✗", "bold red"),
    "absent": ("-", "dim"),
    "not reached": ("·", "dim"),
}
_SCREEN = 36
"""Lines that nobody asked to exceed."""
_FEW = 8
"""Rows of a table that nobody asked to see whole."""
_NODES = 3
"""Nodes that are named before the rest is counted."""


def explanation(found: Explanation, *, verbose: bool = False) -> RenderableType:
    """Why rules fired or did not: those that were asked about, else what is nearest to one more fusion."""
    counts = ", ".join(f"{count} {meaning}" for meaning, count in found.fused.items()) or "nothing fused"
    parts: list[RenderableType] = [Text(f"{found.model} for {found.target}: {counts}", "bold"), *_required(found)]
    if found.nodes or found.asked:
        parts += [part for node in found.nodes for part in ("", *_node(node, verbose))]
        asked = [rule for rule in found.rules if rule.name in found.asked]
        parts += [part for rule in asked for part in ("", *_rule(rule, found, verbose))]
    elif not found.required or found.missing:
        parts += _overview(found, verbose)
    return Group(*parts)


def tree(parts: Iterable[Part], root: str = "") -> Table:
    """A pattern: what each part says, what stands there, and why it does not match; names in the scope of `root`."""
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for indent, part in _lines(parts, 1):
        mark, style = _MARKS[part.state]
        table.add_row(Text.assemble("  " * indent, (mark, style), f" {part.text}"), _there(part, root))
    return table


def plain_tree(parts: Iterable[Part], root: str = "") -> list[str]:
    """The same as lines of text."""
    rows = [
        (f"{'  ' * indent}{_MARKS[part.state][0]} {part.text}", _there(part, root)) for indent, part in _lines(parts, 0)
    ]
    width = max((len(text) for text, _ in rows), default=0)
    return [f"{text:{width}}  {there}".rstrip() for text, there in rows]


def _there(part: Part, root: str) -> str:
    at = brief(part.at, root) if part.at != part.text else ""
    return "  ".join(filter(None, [at, _in_scope(part.reason, root)]))


def brief(name: str, root: str) -> str:
    """A name without the scopes that it shares with `root`."""
    ours, theirs = name.split("/"), root.split("/")
    shared = 0
    while shared < min(len(ours), len(theirs)) - 1 and ours[shared] == theirs[shared]:
        shared += 1
    return "/".join(ours[shared:]) if shared > 1 else name


def _in_scope(reason: str, root: str) -> str:
    return " ".join(brief(word, root) for word in reason.split(" "))


def _lines(parts: Iterable[Part], depth: int) -> Iterator[tuple[int, Part]]:
    for part in parts:
        yield depth, part
        yield from _lines(part.parts, depth + 1)


# ---- the whole model -------------------------------------------------------------------------------------------------


def _required(found: Explanation) -> Iterator[RenderableType]:
    for one in found.required:
        yield Text(f"required: {one.wanted} {one.name}, found {one.found}", "green" if one.met else "bold red")


def _overview(found: Explanation, verbose: bool) -> list[RenderableType]:
    makers = {rule for one in found.missing for rule in one.rules}
    rules = [rule for rule in found.rules if (verbose or rule.stage != "clean") and (not makers or rule.name in makers)]
    rows = nearest_first(rules)
    if makers and not rows:
        rows = [(rule, group) for rule in rules for group in rule.groups[:1]]
    if not makers and not verbose:
        rows = list(first_told(rows))
    # A choice between two rules matters to who asked for what the other makes.
    hidden = [shadow for rule in rules for shadow in rule.shadows if makers or not shadow.whole]
    parts: list[RenderableType] = ["", _histogram(rows if verbose else rows[:_FEW])] if rows else []
    parts += _shadows(hidden, found)
    if not parts:
        parts += ["", "no rule came near another match"]
    left = _SCREEN - min(len(rows), _FEW) - 5 * len({shadow.rule for shadow in hidden})
    for rule, group in rows:
        left -= 4 + sum(1 for _ in _lines(group.nearest.parts, 0))
        if verbose or left >= 0:
            parts += ["", *_nearest(rule, group.nearest)]
    return [*parts, *_untried(rules, verbose or bool(makers))]


def _histogram(rows: Iterable[tuple[RuleReport, RefusalGroup]]) -> Table:
    table = new_table("rule", "fired", "blocked", "nodes", "because")
    for rule, group in rows:
        total = sum(other.roots for other in rule.near) or group.roots
        nearest = group.nearest
        table.add_row(
            rule.name,
            f"{rule.fired:,}",
            f"{group.roots} of {max(total, group.roots)}",
            f"{nearest.matched} of {nearest.size}",
            group.reason,
        )
    return table


def _nearest(rule: RuleReport, refusal: Refusal) -> Iterator[RenderableType]:
    yield Text.assemble((rule.name, "bold"), f" at {refusal.root}")
    yield Text(f"  {_place(rule.place)}", "dim")
    yield Text.assemble("  blocked at ", (refusal.node, "bold"), f": {_in_scope(refusal.reason, refusal.root)}")
    if refusal.parts:
        yield tree(refusal.parts, refusal.root)


def _shadows(shadows: Iterable[Shadow], found: Explanation) -> list[RenderableType]:
    """Matches that other rules took apart, counted by who took them."""
    takers: defaultdict[tuple[str, str], list[Shadow]] = defaultdict(list)
    for shadow in shadows:
        takers[shadow.rule, shadow.by.rule].append(shadow)
    parts: list[RenderableType] = []
    for (name, by), taken in takers.items():
        first = taken[0]
        nodes = [brief(node, first.by.root) for node in first.nodes]
        named = ", ".join(nodes[:_NODES])
        more = f" and {len(nodes) - _NODES} more" if len(nodes) > _NODES else ""
        parts += [
            "",
            Text.assemble((name, "bold"), f" matched at {first.root} when its stage began"),
            Text(f"  {_place(found.rule(name).place)}", "dim"),
            Text.assemble("  ", (by, "bold"), f" fired first at {first.by.root} and took {named}{more}"),
            Text(f"  {_place(found.rule(by).place)}", "dim"),
        ]
        if len(taken) > 1:
            parts.append(f"  so at {len(taken)} roots")
    return parts


def _place(place: str) -> str:
    """File and line, from here where that is shorter."""
    here = os.path.relpath(place)
    return here if len(here) < len(place) else place


def _untried(rules: Iterable[RuleReport], whole: bool) -> list[RenderableType]:
    """Rules that had no part in the run, by reason; unless `whole`, only those that could have had one."""
    notes: defaultdict[str, list[str]] = defaultdict(list)
    for rule in rules:
        if rule.note and not rule.fired and (whole or not rule.idle):
            notes[rule.note].append(rule.name)
    if not notes:
        return []
    facts = fact_grid()
    for note, names in notes.items():
        facts.add_row(", ".join(names), note)
    return ["", facts]


# ---- one rule, one node ----------------------------------------------------------------------------------------------


def _rule(rule: RuleReport, found: Explanation, verbose: bool) -> Iterator[RenderableType]:
    times = "once" if rule.fired == 1 else f"{rule.fired:,} times"
    yield Text.assemble((rule.name, "bold"), f" ({rule.stage}) fired {times}", (f"  {_place(rule.place)}", "dim"))
    if rule.note:
        yield f"  {rule.note}"
    total = sum(group.roots for group in rule.groups)
    table = new_table("blocked", "nodes", "because", "nearest at")
    for group in rule.groups if verbose else rule.groups[:_FEW]:
        nearest = group.nearest
        table.add_row(f"{group.roots} of {total}", f"{nearest.matched} of {nearest.size}", group.reason, nearest.root)
    if rule.groups:
        yield table
    yield from _shadows(rule.shadows, found)
    for group in rule.groups if verbose else rule.groups[:1]:
        yield ""
        yield from _nearest(rule, group.nearest)


def _node(node: NodeReport, verbose: bool) -> Iterator[RenderableType]:
    fate = "stands in the result" if node.kept else "was folded, merged or removed by a pass"
    if node.taken is not None:
        fate = f"was taken by {node.taken.rule} at {node.taken.root}"
    yield Text.assemble((node.name, "bold"), f" ({node.op}) {fate}")
    refusals = sorted(node.refusals, key=lambda one: -one.nearness)
    table = new_table("rule", "nodes", "because", "root")
    for one in refusals if verbose else refusals[:_FEW]:
        reason = _in_scope(one.reason, one.root)
        table.add_row(one.rule, f"{one.matched} of {one.size}", reason, brief(one.root, node.name))
    if refusals:
        yield table
    if refusals and refusals[0].matched > 1:
        yield ""
        yield Text.assemble((refusals[0].rule, "bold"), f" at {refusals[0].root}")
        yield tree(refusals[0].parts, refusals[0].root)
