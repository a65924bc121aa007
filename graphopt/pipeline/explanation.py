"""Why rules fired or did not: the pipeline runs on a model, nothing is written, and what stood in the way is kept."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from graphopt.errors import GraphoptError, UsageError
from graphopt.ir import Model, Source, load
from graphopt.ir.node import qualified
from graphopt.pipeline.fusion import promises_named, target_for
from graphopt.pipeline.meanings import count_meanings, count_ops
from graphopt.pipeline.observation import Observer, Seen, Shadow
from graphopt.pipeline.optimize import Progress, optimized
from graphopt.pipeline.requirements import Requirement, requirement
from graphopt.rewrite import CompiledRule, Limits, Refusal, RuleSet, Site, Trace, find_rules
from graphopt.rewrite.trace import Part
from graphopt.targets import Target


@dataclass(frozen=True)
class RefusalGroup:
    """What a rule refused for one reason, in words that name no node; the nearest comes first."""

    reason: str
    refusals: tuple[Refusal, ...]

    @property
    def nearest(self) -> Refusal:
        return self.refusals[0]

    @property
    def roots(self) -> int:
        """At how many roots."""
        return len({refusal.root for refusal in self.refusals})


@dataclass(frozen=True)
class RuleReport:
    """What one rule did: how often it fired, what was near a match and why it was none, nearest first.

    `note` says why it was not tried at all, or set aside, and is empty otherwise; `idle` that this was because the
    target has no kernel for it, or the model no node to begin at. `shadows` are matches that another rule took apart.
    """

    name: str
    stage: str
    place: str
    fired: int = 0
    note: str = ""
    idle: bool = False
    groups: tuple[RefusalGroup, ...] = ()
    shadows: tuple[Shadow, ...] = ()

    @property
    def near(self) -> tuple[RefusalGroup, ...]:
        """The groups that came near: two nodes or more, and two fifths of the pattern.

        That a rule has a condition that two neighbours do not meet is no news, and left out.
        """
        return tuple(group for group in self.groups if _is_near(group.nearest))


@dataclass(frozen=True)
class NodeReport:
    """What became of a node: the site that took it, the sites that read it, and the rules that were refused there.

    `taken` is None where no rule took it; `kept` says whether it stands in the result.
    """

    name: str
    op: str
    kept: bool
    taken: Site | None
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class Explanation:
    """Why rules fired or did not in one model.

    `fused` counts meanings in the result, `rules` has every rule by stage, then name, `nodes` and `required` what was
    asked for, `asked` the names of the rules that were.
    """

    model: str
    target: str
    fused: Mapping[str, int]
    rules: tuple[RuleReport, ...]
    nodes: tuple[NodeReport, ...]
    required: tuple[Requirement, ...]
    asked: frozenset[str]
    errors: tuple[GraphoptError, ...]

    def rule(self, name: str) -> RuleReport:
        """The report of one rule. Raises: KeyError."""
        return {report.name: report for report in self.rules}[name]

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """What was required and is not there."""
        return tuple(one for one in self.required if not one.met)


def explain(
    source: Source,
    *,
    target: str = "ort-cpu",
    rule: str | Iterable[str] = (),
    node: str | Iterable[str] = (),
    require: Mapping[str, int] | None = None,
    disable: Iterable[str] = (),
    rules: Iterable[str] = (),
    emit_functions: bool = False,
    keep_opset: bool = False,
    keep_functions: Iterable[str] = (),
    assume: Iterable[str] = (),
    max_new_weights: int = Limits.new_bytes,
    progress: Progress | None = None,
) -> Explanation:
    """Rewrites a model as `fuse` does, without check and output, and says why each rule did not fire where it did not.

    `rule` names the rules that are asked about (all run), `node` nodes or values to report on, `require` how often a
    meaning (`Attention`) or an op must stand in the result: what is missing stands in `errors`. The other options are
    those of `fuse`. Raises: UsageError GO010 for an unknown rule, GO025 for an unknown node, GO026 for an unknown
    meaning; ModelError for a bad model.
    """
    asked, disable = frozenset(_listed(rule)), frozenset(disable)
    known = find_rules(rules)
    known.select(only=asked)
    chosen = known.select(disable=disable)
    runs_on = target_for(target, emit_functions)
    observer = Observer()
    model, trace = optimized(
        partial(load, source),
        target=runs_on,
        rules=chosen.rules,
        keep_opset=keep_opset,
        keep_functions=frozenset(keep_functions),
        assume=promises_named(assume),
        max_new_weights=max_new_weights,
        progress=progress,
        observer=observer,
    )
    for failure in chosen.failures:
        trace.failures.append(failure)
    reports = _reports(known, disable, runs_on, observer, trace)
    required = tuple(requirement(*item, model, chosen.rules) for item in (require or {}).items())
    missing = [one.error(str(model.path or "model")) for one in required if not one.met]
    return Explanation(
        model=str(model.path or "model"),
        target=runs_on.name,
        fused=count_meanings(count_ops(model)),
        rules=tuple(reports),
        nodes=tuple(_node(name, model, observer, trace) for name in _listed(node)),
        required=required,
        asked=asked,
        errors=(*missing, *(failure.error for failure in trace.failures)),
    )


def _listed(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


# ---- rules -----------------------------------------------------------------------------------------------------------


def _reports(
    known: RuleSet, disabled: frozenset[str], target: Target, observer: Observer, trace: Trace
) -> list[RuleReport]:
    fired = Counter(site.rule for site in trace.sites)
    seen: defaultdict[str, list[Seen]] = defaultdict(list)
    for one in observer.seen:
        seen[one.refusal.rule].append(one)
    return [
        RuleReport(
            rule.name,
            rule.stage,
            rule.place,
            fired[rule.name],
            *(_note(rule, disabled, target, observer, trace) or (_refused(rule, known, fired, trace), False)),
            _groups(seen[rule.name]),
            tuple(shadow for shadow in observer.shadows if shadow.rule == rule.name),
        )
        for rule in known.rules
    ]


def _note(
    rule: CompiledRule, disabled: frozenset[str], target: Target, observer: Observer, trace: Trace
) -> tuple[str, bool] | None:
    """Why a rule had no part in the run, and whether it is idle; None where it had."""
    if rule.name in disabled:
        return "disabled", False
    if rule.name in trace.left_out:
        return f"left out: {trace.left_out[rule.name]}", False
    for failure in trace.failures:
        if failure.rule == rule.name:
            return f"set aside: {failure.message}", False
    if rule.name in observer.exhausted:
        return "step budget of the model used up", False
    if rule.name in observer.lacking:
        return f"{target.name} has no kernel {' or '.join(map(str, rule.needs))}", True
    if not observer.roots.intersection(rule.roots):
        roots = " or ".join(qualified(*root) for root in rule.roots)
        return f"no {roots} in the model", True
    return None


def _refused(rule: CompiledRule, known: RuleSet, fired: Mapping[str, int], trace: Trace) -> str:
    """Why a rule wrote no kernel for a meaning that was spelled in parts in the end; empty where that is not so.

    What is left to look at then is the parts.
    """
    spelled = any(fired[other.name] for other in known.rules if other.roots == rule.roots and not other.needs)
    reasons = trace.count(rule.name).reasons
    if fired[rule.name] or not (rule.needs and spelled and reasons):
        return ""
    ((reason, times),) = reasons.most_common(1)
    return f"{times} spelled in parts: {reason}"


def _groups(seen: Iterable[Seen]) -> tuple[RefusalGroup, ...]:
    """Refusals by reason, nearest first; of those that are about the same nodes, or one root, only the nearest."""
    grouped: defaultdict[str, list[Refusal]] = defaultdict(list)
    roots: set[str] = set()
    taken: set[str] = set()
    for one in sorted(seen, key=lambda one: _distance(one.refusal)):
        region = _region(one.refusal)
        if one.refusal.root not in roots and not _overlaps(region, taken):
            grouped[one.reason].append(one.refusal)
            taken |= region
        roots.add(one.refusal.root)
    groups = [RefusalGroup(reason, tuple(found)) for reason, found in grouped.items()]
    return tuple(sorted(groups, key=lambda group: (-group.nearest.nearness, -group.roots)))


def nearest_first(rules: Iterable[RuleReport]) -> list[tuple[RuleReport, RefusalGroup]]:
    """What came near in `rules`: what would recover a meaning first, then what stood there whole or came furthest."""

    def order(row: tuple[RuleReport, RefusalGroup]) -> tuple[bool, bool, float, int]:
        nearest = row[1].nearest
        return row[0].stage != "recover", nearest.matched < nearest.size, *_distance(nearest)

    return sorted(((rule, group) for rule in rules for group in rule.near), key=order)


def first_told(rows: Iterable[tuple[RuleReport, RefusalGroup]]) -> Iterator[tuple[RuleReport, RefusalGroup]]:
    """Rows without those that are about nodes that the rows before them are about."""
    told: set[str] = set()
    for rule, group in rows:
        if not all(refusal.root in told or _overlaps(_region(refusal), told) for refusal in group.refusals):
            yield rule, group
        told = told.union(*map(_region, group.refusals))


def _region(refusal: Refusal) -> set[str]:
    """The nodes that the parts of a pattern stand at."""
    return {part.at for part in _walk(refusal.parts) if part.parts}


def _overlaps(region: set[str], told: set[str]) -> bool:
    """Whether most of a region has been told of."""
    return len(region & told) * 2 > len(region)


def _walk(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        yield from _walk(part.parts)


def _distance(refusal: Refusal) -> tuple[float, int]:
    """How far from a match; of two attempts at which equally many nodes stood, the one that reached more is nearer."""
    return -refusal.nearness, sum(part.state in ("open", "not reached") for part in _walk(refusal.parts))


def _is_near(refusal: Refusal) -> bool:
    if refusal.matched < 2 or refusal.matched < 0.4 * refusal.size:
        return False
    in_the_way = any(part.state == "blocked" and part.parts for part in _walk(refusal.parts))
    return refusal.matched > 2 or in_the_way


# ---- nodes -----------------------------------------------------------------------------------------------------------


def _node(name: str, model: Model, observer: Observer, trace: Trace) -> NodeReport:
    if name not in observer.names:
        place, hint = str(model.path or "model"), _like(name, observer.names)
        raise UsageError("GO025", f"no node or value is called '{name}'", place, hint)
    names = observer.names[name]
    taken = next((site for site in trace.sites if not names.isdisjoint(site.nodes)), None)
    refusals = [one.refusal for one in observer.seen if not names.isdisjoint((one.refusal.root, one.refusal.node))]
    left = {value.name for graph in model.scopes() for node in graph.ops() for value in node.outputs}
    return NodeReport(name, observer.ops[name], not names.isdisjoint(left), taken, tuple(refusals))


def _like(name: str, known: Iterable[str]) -> str:
    """A few names that have `name` in them, or are close to it."""
    word = name.lower()
    last = {one.rpartition("/")[2]: one for one in known}
    close = [one for one in known if word in one.lower()]
    close = close or [last[one] for one in difflib.get_close_matches(name.rpartition("/")[2], last, n=3, cutoff=0.5)]
    return f"did you mean {', '.join(sorted(close)[:3])}?" if close else "give the name of a node or value of the model"
