"""Applying rules to a fixpoint. What is safe is decided here, not by the authors of rules.

A worklist in topological order: after a rewrite only the neighbourhood is tried again. A site is taken only if no
inner value is seen from outside, the new values have the type of the old ones, and the graph is valid afterwards;
otherwise it is taken back. Budgets count steps, so the result is the same on every machine.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from graphopt.errors import GraphoptError
from graphopt.ir import IR_DOMAIN, CycleError, Graph, Model, Node, Shape, ValidationError, Value, dtypes, validate_site
from graphopt.rewrite.build import Builder, Declined
from graphopt.rewrite.facts import see_through
from graphopt.rewrite.matcher import Match, Matcher, StepsUsedUp
from graphopt.rewrite.rule import CompiledRule, Context
from graphopt.rewrite.trace import Refusal, RuleFailure, Site, Trace

SiteKey = tuple[str, str]
"""(rule, name of the root value): a site, the same in every replay."""

_Change = tuple[list[Node], list[Node]]
"""What a site made, and what reads its result or a value that it reads no more."""


@dataclass(frozen=True)
class Limits:
    """Step budgets, and how often a rule may fire before it is said to cycle."""

    steps_per_root: int = 20_000
    steps_per_node: int = 100
    """What one rule may use in one run, for each node of the model and `spare` more."""
    sites_per_node: int = 4
    """How often one rule may fire in one scope, for each node it had and `spare` more."""
    sites_per_root: int = 100
    new_bytes: int = 512 << 20
    """How much new weight data the rewrites of one rule may write together, in bytes."""
    spare: int = 1000


class NewWeightsLimit(GraphoptError):
    """A rule writes more new weights than is allowed: the model is half done, start again without the rule."""

    def __init__(self, rule: str, limit: int) -> None:
        super().__init__("GO065", f"its rewrites would write more than {limit / 1e6:g} MB of new weights", rule)
        self.rule = rule


class _Rejected(Exception):
    """A site was built and must be taken back; the message is the reason."""


@dataclass
class Engine:
    """Rules compiled for one stage, and what they did so far."""

    rules: Sequence[CompiledRule]
    context: Context = field(default_factory=Context)
    limits: Limits = field(default_factory=Limits)
    exclude: frozenset[SiteKey] = frozenset()
    trace: Trace = field(default_factory=Trace)

    def __post_init__(self) -> None:
        self._aside: set[str] = set()
        self._steps: Counter[str] = Counter()
        self._budget = 0
        self._rules = sorted(self.rules, key=lambda rule: (-rule.rule.priority, rule.name))
        self._reach = max((rule.pattern.depth for rule in self.rules), default=0)
        self._size = max((rule.pattern.size for rule in self.rules), default=0)

    def run(self, model: Model) -> int:
        """Applies the rules in every scope until none fires; returns the number of sites."""
        self._aside = {failure.rule for failure in self.trace.failures}
        self._steps.clear()
        self._budget = self.limits.steps_per_node * (model.node_count() + self.limits.spare)
        # What a subgraph no longer captures may then be inside a match around it.
        return sum([self._run_scope(model, graph) for graph in reversed(list(model.scopes()))])

    def _run_scope(self, model: Model, graph: Graph) -> int:
        by_root = self._usable(graph)
        sideways = {root for root, rules in by_root.items() if any(rule.pattern.sideways for rule in rules)}
        cap = self.limits.sites_per_node * (len(graph) + self.limits.spare)
        queue = _Worklist(graph, by_root.keys())
        queue.extend((node, 0) for node in graph.ops())
        fired: Counter[str] = Counter()
        start = settled = len(self.trace.sites)
        while True:
            while (waiting := queue.pop()) is not None:
                node, distance = waiting
                for rule in by_root[node.domain, node.op]:
                    if rule.name in self._aside or rule.pattern.depth < distance:
                        continue
                    seeds = self._try(model, rule, node)
                    if seeds is not None:
                        self._watch_cycles(rule, fired, cap)
                        queue.extend(self._neighbourhood(graph, seeds))
                        break
            if settled == len(self.trace.sites):
                return settled - start
            # What one site changed may concern a root that does not lie behind it.
            settled = len(self.trace.sites)
            queue.extend((node, 0) for node in graph.ops() if (node.domain, node.op) in sideways)

    def _usable(self, graph: Graph) -> dict[tuple[str, str], list[CompiledRule]]:
        """By root, the rules whose kernels the target has, in the order in which they are tried."""
        by_root: dict[tuple[str, str], list[CompiledRule]] = {}
        for rule in self._rules:
            if rule.needs and not any(self.context.has(kernel, graph) for kernel in rule.needs):
                missing = " or ".join(map(str, rule.needs))
                self.trace.count(rule.name).reasons[f"the target has no kernel {missing}"] += 1
                continue
            for root in rule.roots:
                by_root.setdefault(root, []).append(rule)
        return by_root

    # ---- one rule at one node ----------------------------------------------------------------------------------

    def _try(self, model: Model, rule: CompiledRule, node: Node) -> _Change | None:
        """Tries one rule with its root at `node`; None when it did not fire."""
        if rule.rule.once and any((rule.name, value.name) in self.trace.once for value in node.outputs):
            return None
        if self.exclude and any((rule.name, value.name) in self.exclude for value in node.outputs):
            return None
        count = self.trace.count(rule.name)
        count.tried += 1
        matcher = Matcher(rule.pattern, self.limits.steps_per_root)
        start = time.perf_counter()
        try:
            return self._first_match(model, rule, matcher, node)
        except StepsUsedUp:
            self._refuse(rule, node, node, "step budget used up")
        except ValidationError as error:
            self._set_aside(rule, f"what it writes is not valid: {error.message}", _name(node))
        except GraphoptError:
            raise
        except Exception as error:  # a rule is foreign code: whatever it raises, the others go on
            self._set_aside(rule, f"{type(error).__name__}: {error}", _name(node))
        finally:
            count.seconds += time.perf_counter() - start
            count.steps += matcher.steps
            self._steps[rule.name] += matcher.steps
            if self._steps[rule.name] > self._budget:
                self._aside.add(rule.name)
                self._refuse(rule, node, node, "step budget of the model used up")
        return None

    def _first_match(self, model: Model, rule: CompiledRule, matcher: Matcher, node: Node) -> _Change | None:
        matched = False
        for match in matcher.matches(node):
            matched = True
            root = match.roots[0]
            allowed = rule.where(match.bindings, root, self.context)
            if isinstance(allowed, str) or not allowed:
                self._refuse(rule, node, node, allowed or "the rule's condition")
                continue
            escape = "" if rule.rule.keeps_inner else _escape(match)
            if escape:
                self._refuse(rule, node, node, escape)
                continue
            change = self._apply(model, rule, match)
            if change is not None:
                self.trace.count(rule.name).matched += 1
                return change
        if matched:
            self.trace.count(rule.name).matched += 1
        elif matcher.miss.depth > 0 and matcher.miss.node is not None:
            self._refuse(rule, node, matcher.miss.node, matcher.miss.reason)
        return None

    def _apply(self, model: Model, rule: CompiledRule, match: Match) -> _Change | None:
        """Builds the replacement in a transaction; None when it was taken back."""
        count = self.trace.count(rule.name)
        graph = match.roots[0].node.graph
        before = max((root.node for root in match.roots), key=lambda n: n.rank)
        reads = _leaves(match)
        names = tuple(value.name for root in match.nodes for value in root.outputs)
        roots = tuple(value.name for value in match.roots)
        readers = [reader for root in match.roots for reader, _ in graph.consumers(root)]
        with model.ledger.transaction() as transaction:
            builder = Builder(graph, before)
            try:
                new = rule.rewrite(builder, match.bindings, match.roots[0], self.context)
                if new is None:
                    raise _Rejected("the rule declined")
                for old, value in _replaced(graph, match.roots, new):
                    _adopt_type(graph, old, value)
                    graph.replace(old, value, take_name=value.node in builder.made)
                _remove_dead(graph, match.nodes)
                _remove_dead(graph, builder.made)
                # A capture is a use in the scope around it.
                _remove_dead(graph, (value.node for value in reads if value.node.is_op("Capture", IR_DOMAIN)))
                alive = [node for node in builder.made if node in graph]
                validate_site(alive)
            except (_Rejected, Declined, CycleError) as error:
                transaction.rollback()
                self._refuse(rule, before, before, str(error))
                count.rolled_back += isinstance(error, CycleError)
                return None
            except Exception:
                transaction.rollback()
                count.rolled_back += 1
                raise
        count.applied += 1
        count.new_bytes += builder.new_bytes
        if count.new_bytes > self.limits.new_bytes:
            raise NewWeightsLimit(rule.name, self.limits.new_bytes)
        made = tuple(value.name for node in alive for value in node.outputs)
        if rule.rule.once:
            self.trace.once.update((rule.name, name) for name in made)
        self.trace.sites.append(Site(rule.name, roots[0], roots, names, made, tuple(v.name for v in reads)))
        # A value that has lost a reader may now be inside a match; not so a source, or one with too many others.
        freed = [v for v in reads if not v.node.is_source and v.uses <= self._size]
        return alive, [*readers, *(reader for v in freed for reader, _ in graph.consumers(v))]

    # ---- what happens next, and what is said -------------------------------------------------------------------

    def _neighbourhood(self, graph: Graph, change: _Change) -> Iterator[tuple[Node, int]]:
        """What depends on a change, as far as a pattern reaches, with the distance; plain copies have no length."""
        found: set[Node] = set()
        ring, following = change
        for distance in range(self._reach + 1):
            for node in ring:
                if node in graph and node not in found:
                    found.add(node)
                    yield node, distance
                    for reader in graph.successors(node):
                        is_copy = reader.outputs and see_through(reader.outputs[0]) is not None
                        (ring if is_copy else following).append(reader)
            ring, following = following, []

    def _watch_cycles(self, rule: CompiledRule, fired: Counter[str], cap: int) -> None:
        """Sets a rule aside that fires without end. Its name and those of the rules beside it are told."""
        site = self.trace.sites[-1]
        fired.update((rule.name, f"{rule.name} at {site.root}"))
        if fired[rule.name] > cap or fired[f"{rule.name} at {site.root}"] > self.limits.sites_per_root:
            names = sorted({site.rule for site in self.trace.sites[-self.limits.sites_per_root :]})
            cycle = f"with {', '.join(name for name in names if name != rule.name)}" if names[1:] else "alone"
            self._set_aside(rule, f"fired {fired[rule.name]} times: it undoes itself, {cycle}", site.root)
            fired.clear()

    def _refuse(self, rule: CompiledRule, root: Node, node: Node, reason: str) -> None:
        self.trace.count(rule.name).reasons[reason] += 1
        self.trace.refusals.append(Refusal(rule.name, _name(root), _name(node), reason))

    def _set_aside(self, rule: CompiledRule, message: str, place: str) -> None:
        self._aside.add(rule.name)
        self.trace.failures.append(RuleFailure(rule.name, rule.place, f"{message} (at {place})"))


class _Worklist:
    """Possible roots waiting, in topological order, each once, with its distance to the nearest change."""

    def __init__(self, graph: Graph, roots: Collection[tuple[str, str]]) -> None:
        self._graph = graph
        self._roots = roots
        self._heap: list[tuple[int, int, Node]] = []
        self._waiting: dict[Node, int] = {}
        self._serial = 0

    def extend(self, nodes: Iterable[tuple[Node, int]]) -> None:
        for node, distance in nodes:
            if (node.domain, node.op) not in self._roots:
                continue
            if node not in self._waiting:
                self._serial += 1
                heapq.heappush(self._heap, (node.rank, self._serial, node))
            self._waiting[node] = min(distance, self._waiting.get(node, distance))

    def pop(self) -> tuple[Node, int] | None:
        while self._heap:
            _, _, node = heapq.heappop(self._heap)
            distance = self._waiting.pop(node)
            if node in self._graph:
                return node, distance
        return None


def _name(node: Node) -> str:
    return node.name or (node.outputs[0].name if node.outputs else node.op)


def _escape(match: Match) -> str:
    """Why the match cannot be cut out: an inner value is seen from outside. Empty when it can."""
    inside, roots = set(match.nodes), set(match.roots)
    for node in match.nodes:
        for value in node.outputs:
            if value in roots or not value.uses:
                continue
            graph = node.graph
            for reader, slot in graph.consumers(value):
                # A node may be inside while a subgraph of it sees the value.
                if reader not in inside or slot >= reader.arity:
                    what = "a graph output" if reader is graph.output else f"also used by {_name(reader)}"
                    return f"{_name(node)} inside the match is {what}"
    return ""


def _leaves(match: Match) -> list[Value]:
    """The values that enter the match from outside."""
    inside = set(match.nodes)
    found = {v: None for node in match.nodes for v in node.inputs if v is not None and v.node not in inside}
    return list(found)


def _replaced(graph: Graph, old: Sequence[Value], new: Sequence[Value]) -> list[tuple[Value, Value]]:
    """The roots that are replaced, each with its new value; a root that is returned as it is stays.

    Raises: _Rejected when a new value cannot stand for the old one, TypeError when it is none of this graph.
    """
    if len(old) != len(new):
        raise TypeError(f"rewrite returns {len(new)} values for {len(old)} roots")
    for a, b in zip(old, new, strict=True):
        if not isinstance(b, Value):
            raise TypeError(f"rewrite returns {b!r}, not a value")
        if b.node not in graph:
            raise TypeError(f"rewrite returns {b!r} of another graph")
        if a.dtype and b.dtype and a.dtype != b.dtype:
            raise _Rejected(f"the new value is {dtypes.NAMES.get(b.dtype)}, the old one {dtypes.NAMES.get(a.dtype)}")
        if a.shape is not None and b.shape is not None and not _may_equal(a.shape, b.shape):
            raise _Rejected(f"the new value has shape {b.shape}, the old one {a.shape}")
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a is not b]
    if not pairs:
        raise _Rejected("the rewrite changes nothing")
    return pairs


def _may_equal(a: Shape, b: Shape) -> bool:
    sizes = [(p, q) for p, q in zip(a, b, strict=False) if isinstance(p, int) and isinstance(q, int)]
    return len(a) == len(b) and all(p == q for p, q in sizes)


def _adopt_type(graph: Graph, old: Value, new: Value) -> None:
    """What inference does not know of `new` is what was known of `old`; what a graph input declares stays."""
    if not new.node.is_source:
        graph.set_type(new, new.dtype or old.dtype, new.shape if new.shape is not None else old.shape)


def _remove_dead(graph: Graph, nodes: Iterable[Node]) -> None:
    """Removes those of `nodes` that nobody reads any more, users first."""
    for node in sorted((n for n in nodes if n in graph), key=lambda n: n.rank, reverse=True):
        if all(value.uses == 0 for value in node.outputs):
            graph.remove(node)
