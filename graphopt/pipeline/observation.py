"""What is seen of a run while it goes on, for those who ask why a rule did not fire."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from graphopt.ir import Graph, Model, Node
from graphopt.rewrite import CompiledRule, Engine, Refusal, Site, Trace
from graphopt.rewrite.engine import MODEL_BUDGET
from graphopt.rewrite.index import RuleIndex
from graphopt.rewrite.matcher import Match, Matcher
from graphopt.rewrite.replacement import escape
from graphopt.rewrite.rule import Stage


@dataclass(frozen=True)
class Shadow:
    """A match of `rule` at `root` that was there when its stage began; the site `by` of another took `nodes` of it.

    `whole`: with those after it it took all of them, so it was a choice between two, not one in the way of the other.
    """

    rule: str
    root: str
    by: Site
    nodes: tuple[str, ...]
    whole: bool


@dataclass(frozen=True)
class Seen:
    """A refusal, and its reason in words that name no node, so that those for one reason can be counted."""

    refusal: Refusal
    reason: str


@dataclass
class Observer:
    """Watches `optimize`: at the beginning of each stage it looks for matches, at its end for what refused to match.

    Rules of stage `clean` run within every stage; what they refuse at the very end is what counts.
    """

    seen: list[Seen] = field(default_factory=list)
    shadows: list[Shadow] = field(default_factory=list)
    names: dict[str, frozenset[str]] = field(default_factory=dict)
    """For each name in the model at the beginning, of a node or a value, all names of that node."""
    ops: dict[str, str] = field(default_factory=dict)
    """The operator that each of these nodes is."""
    roots: set[tuple[str, str]] = field(default_factory=set)
    """(domain, op) of all nodes that there were at the beginning of a stage."""
    exhausted: set[str] = field(default_factory=set)
    """Rules that used up their step budget."""
    lacking: set[str] = field(default_factory=set)
    """Rules whose kernels the target lacks."""
    _waiting: list[tuple[CompiledRule, str, frozenset[str]]] = field(default_factory=list)
    _start: int = 0

    def begins(self, stage: Stage, model: Model, engine: Engine) -> None:
        """Called before the rules of a stage run."""
        self.roots.update((node.domain, node.op) for graph in model.scopes() for node in graph.ops())
        if stage == "clean":
            # A run that begins anew is the one that counts.
            self.seen, self.shadows = [], []
            self.names, self.ops = _names(model)
            return
        self._start = len(engine.trace.sites)
        rules = [rule for rule in engine.rules if rule.stage == stage]
        self._waiting = [found for graph in model.scopes() for found in _matches(engine, graph, rules)]

    def settled(self, stage: Stage, model: Model, engine: Engine) -> None:
        """Called when no rule of a stage fires any more."""
        sites = engine.trace.sites[self._start :]
        self.shadows += [shadow for waiting in self._waiting if (shadow := _shadow(*waiting, sites)) is not None]
        self._waiting = []
        counts = engine.trace.counts
        self.exhausted.update(name for name, count in counts.items() if MODEL_BUDGET in count.reasons)
        rules = [rule for rule in engine.rules if rule.stage == stage and rule.name not in self.exhausted]
        self.lacking.update(rule.name for rule in rules if not rule.runs_in(model.graph, engine.context))
        trace = Trace(failures=list(engine.trace.failures), once=engine.trace.once)
        # Rules that an index spares the engine are tried here as well.
        limits = replace(engine.limits, steps_per_node=10 * engine.limits.steps_per_node)
        Engine(rules, engine.context, limits, engine.exclude, trace, explain=True).run(model)
        ops = {node.label: node.op for graph in model.scopes() for node in graph.ops()}
        self.seen += [Seen(refusal, _general(refusal.reason, ops)) for refusal in trace.refusals]


def _names(model: Model) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    names: dict[str, frozenset[str]] = {}
    ops: dict[str, str] = {}
    for graph in model.scopes():
        for node in graph.ops():
            own = frozenset(filter(None, [node.name, *(value.name for value in node.outputs)]))
            for name in own:
                names[name] = names.get(name, frozenset()) | own
                ops.setdefault(name, node.op)
    return names, ops


def _matches(
    engine: Engine, graph: Graph, rules: list[CompiledRule]
) -> Iterator[tuple[CompiledRule, str, frozenset[str]]]:
    """The matches that would be taken now, one for each rule and root: the rule, the root, what its nodes write."""
    index = RuleIndex(rule for rule in rules if rule.runs_in(graph, engine.context))
    for node in graph.ops():
        for rule in index.candidates(node) if (node.domain, node.op) in index.roots else ():
            match = _first(engine, rule, Matcher(rule.pattern, engine.limits.steps_per_root), node)
            if match is not None:
                yield rule, match.roots[0].name, frozenset(v.name for inner in match.nodes for v in inner.outputs)


def _first(engine: Engine, rule: CompiledRule, matcher: Matcher, node: Node) -> Match | None:
    try:
        for match in matcher.matches(node):
            refused = rule.why_not(match.bindings, match.roots[0], engine.context)
            if not refused and (rule.rule.keeps_inner or escape(match) is None):
                return match
    except Exception:  # a rule is foreign code; the engine says what is wrong with it
        return None
    return None


def _shadow(rule: CompiledRule, root: str, names: frozenset[str], sites: list[Site]) -> Shadow | None:
    """Which site took nodes of a match; None where the rule had its turn, there or at a part of it."""
    takers = [site for site in sites if not names.isdisjoint(site.nodes)]
    if not takers or any(site.rule == rule.name for site in takers):
        return None
    first = takers[0]
    nodes = tuple(name for name in first.nodes if name in names)
    taken = frozenset(name for site in takers for name in site.nodes)
    return Shadow(rule.name, root, first, nodes, whole=names <= taken)


def _general(reason: str, ops: dict[str, str]) -> str:
    """A reason with operators in place of the names of nodes."""
    return "".join(ops.get(word, word) for word in re.split(r"([\s,'()]+)", reason))
