"""Applying rules to a fixpoint. What is safe is decided here, not by the authors of rules.

A worklist in topological order: after a rewrite only the neighbourhood is tried again, and in a later run only what
changed since the last. A site is taken only if no inner value is seen from outside, the new values have the type of the
old ones, and the graph is valid afterwards; otherwise it is taken back. Budgets count steps, so the result is the same
on every machine.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from graphopt.errors import GraphoptError, ModelError
from graphopt.ir import IR_DOMAIN, CycleError, Graph, Model, Node, Shape, ValidationError, Value, dtypes, validate_site
from graphopt.rewrite.blame import Mistake, hint_of, said
from graphopt.rewrite.build import Builder, Declined
from graphopt.rewrite.explain import Explainer, name_of
from graphopt.rewrite.facts import see_through
from graphopt.rewrite.index import RuleIndex
from graphopt.rewrite.matcher import Match, Matcher, StepsUsedUp
from graphopt.rewrite.rule import STAGES, CompiledRule, Context, Stage
from graphopt.rewrite.trace import Refusal, RuleFailure, Site, Trace

SiteKey = tuple[str, str]
"""(rule, name of the root value): a site, the same in every replay. Left out, the rule makes no larger one of it either."""


class _Change(NamedTuple):
    """What a site made; what reads its result, or a value that it reads no more; what it reads no more."""

    made: list[Node]
    readers: Sequence[Node] = ()
    alone: Sequence[Node] = ()


MODEL_BUDGET = "step budget of the model used up"

_RAISED = "where returns the reason why not, rewrite returns None to decline: neither raises"
_FAR = 1 << 30
"""The distance of a node that no change concerns."""


@dataclass(frozen=True)
class Limits:
    """Step budgets, and how often a rule may fire before it is said to cycle."""

    steps_per_root: int = 20_000
    steps_per_node: int = 40
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
    """Rules, and what they did so far.

    `explain` tries every rule at every root in full, and writes into the trace why it did not fire.
    """

    rules: Sequence[CompiledRule]
    context: Context = field(default_factory=Context)
    limits: Limits = field(default_factory=Limits)
    exclude: frozenset[SiteKey] = frozenset()
    trace: Trace = field(default_factory=Trace)
    explain: bool = False

    def __post_init__(self) -> None:
        self._rules = sorted(self.rules, key=lambda rule: (-rule.rule.priority, rule.name))
        self._matcher = Explainer if self.explain else Matcher
        self._tried: Matcher | None = None
        self._settled: dict[CompiledRule, int] = {}
        self._indexes: dict[tuple[CompiledRule, ...], RuleIndex] = {}
        self._aside: set[str] = set()
        self._steps: Counter[str] = Counter()
        self._spared: Counter[str] = Counter()
        self._size = 0
        self._fired: defaultdict[Graph, Counter[str]] = defaultdict(Counter)
        self._budget = 0

    def run(self, model: Model, stages: Collection[Stage] = STAGES) -> int:
        """Applies the rules of `stages` in every scope until none fires; returns the number of sites.

        A rule that has run before looks only at what changed since.
        """
        self._aside = {failure.rule for failure in self.trace.failures}
        self._steps.clear()
        self._spared.clear()
        self._fired.clear()
        self._budget = self.limits.steps_per_node * (model.node_count() + self.limits.spare)
        rules = [rule for rule in self._rules if rule.stage in stages]
        ledger, start = model.graph.ledger, len(self.trace.sites)
        scopes = list(model.scopes())
        reach = max((rule.pattern.depth for rule in rules), default=0) if len(scopes) > 1 else 0
        touched = ledger.since(min((self._settled[r] for r in rules if r in self._settled), default=ledger.mark()))
        touched += _captures(touched, reach)
        changes: defaultdict[Graph, list[Node]] = defaultdict(list)
        # What a subgraph no longer captures may then be inside a match around it.
        waiting = scopes[::-1]
        new = frozenset(rule for rule in rules if rule not in self._settled)
        while waiting:
            for node in touched:
                changes[node.graph].append(node)
            touched = []
            for graph in waiting:
                if graph.holder is not None and graph.holder not in graph.holder.graph:
                    continue
                mark = ledger.mark()
                self._run_scope(model, graph, rules, new, changes.pop(graph, []))
                changed = ledger.since(mark)
                touched += [node for node in changed if node.graph is not graph] + _captures(changed, reach)
            waiting, new = list(dict.fromkeys(node.graph for node in touched)), frozenset()
        self._settled.update(dict.fromkeys(rules, ledger.mark()))
        return len(self.trace.sites) - start

    def _run_scope(
        self,
        model: Model,
        graph: Graph,
        rules: Sequence[CompiledRule],
        new: Collection[CompiledRule],
        touched: list[Node],
    ) -> None:
        """Applies `rules` in one scope: those that are `new` everywhere, the others around what was `touched`."""
        index = self._index(graph, rules)
        sideways = {root for root, found in index.roots.items() if any(rule.pattern.sideways for rule in found)}
        reach = max((rule.pattern.depth for rule in rules), default=0)
        cap = self.limits.sites_per_node * (len(graph) + self.limits.spare)
        queue = _Worklist(graph, index.roots.keys())
        unseen = dict.fromkeys(graph.ops() if new else ())
        queue.extend((node, _FAR) for node in unseen)
        self._size = max((rule.pattern.size for rule in rules), default=0)
        # A constant means what it meant: that it lost a reader matters to the few it has left.
        near = [node for node in touched if node.op != "Constant" or node.outputs[0].uses <= self._size]
        queue.extend(_neighbourhood(graph, _Change(near), reach))
        settled = -1 if touched else len(self.trace.sites)
        while True:
            while (waiting := queue.pop()) is not None:
                node, distance = waiting
                likely = index.candidates(node)
                for rule in index.roots[node.domain, node.op] if self.explain else likely:
                    concerned = rule.pattern.depth >= distance or (node in unseen and rule in new)
                    if not concerned or rule.name in self._aside:
                        continue
                    change = self._try(model, rule, node, spared=self.explain and rule not in likely)
                    if change is not None:
                        self._watch_cycles(graph, rule, cap)
                        queue.extend(_neighbourhood(graph, change, reach))
                        queue.extend((root, 0) for root in change.alone)
                        # A root that stays, as that of an anchor does, is for the other rules to see.
                        queue.extend([(node, distance)] if node in graph else ())
                        break
                else:
                    unseen.pop(node, None)
            if settled == len(self.trace.sites):
                return
            # What one site changed may concern a root that does not lie behind it.
            settled = len(self.trace.sites)
            queue.extend((node, 0) for node in graph.ops() if (node.domain, node.op) in sideways)

    def _index(self, graph: Graph, rules: Sequence[CompiledRule]) -> RuleIndex:
        """The rules whose kernels the target has."""
        usable = []
        for rule in rules:
            if rule.needs and not any(self.context.has(kernel, graph) for kernel in rule.needs):
                missing = " or ".join(map(str, rule.needs))
                self.trace.count(rule.name).reasons[f"the target has no kernel {missing}"] += 1
            else:
                usable.append(rule)
        key = tuple(usable)
        if key not in self._indexes:
            self._indexes[key] = RuleIndex(key)
        return self._indexes[key]

    # ---- one rule at one node ----------------------------------------------------------------------------------

    def _try(self, model: Model, rule: CompiledRule, node: Node, spared: bool) -> _Change | None:
        """Tries one rule with its root at `node`; None when it did not fire.

        `spared` says that the index leaves it out: then it is for those who explain, and on a budget of its own.
        """
        if spared and self._spared[rule.name] > self._budget:
            return None
        if rule.rule.once and any((rule.name, value.name) in self.trace.once for value in node.outputs):
            return None
        count = self.trace.count(rule.name)
        count.tried += 1
        matcher = self._tried = self._matcher(rule.pattern, self.limits.steps_per_root)
        start = time.perf_counter()
        try:
            return self._first_match(model, rule, matcher, node)
        except StepsUsedUp:
            self._use_up(rule, node, "step budget used up")
        except ValidationError as error:
            self._set_aside(rule, f"what it writes is not valid: {error.message}", name_of(node), error)
        except (NewWeightsLimit, ModelError):
            raise
        except (Exception, SystemExit) as error:  # a rule is foreign code: whatever it raises, the others go on
            self._set_aside(rule, said(error), name_of(node), error)
        finally:
            count.seconds += time.perf_counter() - start
            count.steps += matcher.steps
            (self._spared if spared else self._steps)[rule.name] += matcher.steps
            if self._steps[rule.name] > self._budget:
                self._aside.add(rule.name)
                self._use_up(rule, node, MODEL_BUDGET)
        return None

    def _first_match(self, model: Model, rule: CompiledRule, matcher: Matcher, node: Node) -> _Change | None:
        matched = False
        for match in matcher.matches(node):
            if self.exclude and any((rule.name, v.name) in self.exclude for inner in match.nodes for v in inner.outputs):
                continue
            matched = True
            root = match.roots[0]
            allowed = rule.where(match.bindings, root, self.context)
            if isinstance(allowed, str) or not allowed:
                self._refuse(rule, node, node, allowed or "the rule's condition")
                continue
            seen = None if rule.rule.keeps_inner else escape(match)
            if seen is not None:
                self._refuse(rule, node, *seen)
                continue
            change = self._apply(model, rule, match)
            if change is not None:
                self.trace.count(rule.name).matched += 1
                return change
        if matched:
            self.trace.count(rule.name).matched += 1
        elif isinstance(matcher, Explainer) and matcher.miss.depth > 0 and matcher.miss.node is not None:
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
        retyped: list[Node] = []
        with model.ledger.transaction() as transaction:
            builder = Builder(graph, before)
            try:
                new = rule.rewrite(builder, match.bindings, match.roots[0], self.context)
                if new is None:
                    raise Declined("the rule declined")
                for old, value in _replaced(graph, match.roots, [builder.here(value) for value in new]):
                    if _adopt_type(graph, old, value) and value.node not in builder.made:
                        retyped.append(value.node)
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
                count.declined += isinstance(error, Declined)
                count.rolled_back += not isinstance(error, Declined)
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
        # A value that has lost a reader may now be inside a match; not so one with too many others, but as its root.
        freed = [v for v in reads if v.uses <= self._size and v.node in graph]
        readers += [reader for v in freed for reader, _ in graph.consumers(v)]
        return _Change([*alive, *retyped], readers, [v.node for v in reads])

    # ---- what is said ------------------------------------------------------------------------------------------

    def _watch_cycles(self, graph: Graph, rule: CompiledRule, cap: int) -> None:
        """Sets a rule aside that fires without end in one scope. Its name and those of the rules beside it are told."""
        root = self.trace.sites[-1].root
        fired = self._fired[graph]
        fired.update((rule.name, f"{rule.name} at {root}"))
        if fired[rule.name] > cap or fired[f"{rule.name} at {root}"] > self.limits.sites_per_root:
            names = sorted({site.rule for site in self.trace.sites[-self.limits.sites_per_root :]})
            cycle = f"with {', '.join(name for name in names if name != rule.name)}" if names[1:] else "alone"
            message = f"fired {fired[rule.name]} times: it undoes itself, {cycle}"
            self._set_aside(rule, message, root, Mistake(message, "let where refuse what is there already", ""))
            fired.clear()

    def _refuse(self, rule: CompiledRule, root: Node, node: Node, reason: str) -> None:
        self.trace.count(rule.name).reasons[reason] += 1
        if isinstance(self._tried, Explainer):
            drawing = self._tried.drawing(node if node is not root else None)
            names = rule.name, name_of(root), name_of(node)
            self.trace.refusals.append(Refusal(*names, reason, drawing.matched, drawing.size, drawing.parts))

    def _use_up(self, rule: CompiledRule, root: Node, reason: str) -> None:
        """A search that was not ended is told, explained or not."""
        self._refuse(rule, root, root, reason)
        self.trace.stopped.append(Refusal(rule.name, name_of(root), name_of(root), reason))

    def _set_aside(self, rule: CompiledRule, message: str, node: str, error: BaseException | None = None) -> None:
        self._aside.add(rule.name)
        place, hint = rule.place_of(error), hint_of(error, _RAISED)
        self.trace.failures.append(RuleFailure(rule.name, place, f"{message} (at {node})", hint))


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


def _neighbourhood(graph: Graph, change: _Change, reach: int) -> Iterator[tuple[Node, int]]:
    """What depends on a change, as far as `reach` nodes, with the distance; plain copies have no length."""
    found: set[Node] = set()
    ring, following = list(change.made), list(change.readers)
    for distance in range(reach + 1):
        for node in ring:
            if node in graph and node not in found:
                found.add(node)
                yield node, distance
                for reader in graph.successors(node):
                    is_copy = reader.outputs and see_through(reader.outputs[0]) is not None
                    (ring if is_copy else following).append(reader)
        ring, following = following, []


def escape(match: Match) -> tuple[Node, str] | None:
    """Why the match cannot be cut out: the inner node that is seen from outside, and words. None when it can."""
    inside, roots = set(match.nodes), set(match.roots)
    for node in match.nodes:
        for value in node.outputs:
            if value in roots or not value.uses:
                continue
            graph = node.graph
            for reader, slot in graph.consumers(value):
                # A node may be inside while a subgraph of it sees the value.
                if reader not in inside or slot >= reader.arity:
                    what = "a graph output" if reader is graph.output else f"also used by {name_of(reader)}"
                    return node, f"{name_of(node)} inside the match is {what}"
    return None


def _leaves(match: Match) -> list[Value]:
    """The values that enter the match from outside."""
    inside = set(match.nodes)
    found = {v: None for node in match.nodes for v in node.inputs if v is not None and v.node not in inside}
    return list(found)


def _captures(nodes: Iterable[Node], reach: int) -> list[Node]:
    """The captures in subgraphs that see one of `nodes`, or what depends on it as far as `reach` nodes."""
    found: dict[Node, None] = {}
    ring = list(dict.fromkeys(nodes))
    for _ in range(reach):
        following: dict[Node, None] = {}
        for node in ring:
            for reader, slots in node.graph.adj[node].items():
                inner = [g.captures[slot] for g in reader.subgraphs for slot in slots if slot in g.captures]
                found.update(dict.fromkeys(inner))
                following.update(dict.fromkeys([reader, *inner]))
        ring = list(following)
    return list(found)


def _replaced(graph: Graph, old: Sequence[Value], new: Sequence[Value]) -> list[tuple[Value, Value]]:
    """The roots that are replaced, each with its new value; a root that is returned as it is stays.

    Raises: Mistake when a new value cannot stand for the old one, _Rejected when nothing would change.
    """
    if len(old) != len(new):
        roots = "1 root" if len(old) == 1 else f"{len(old)} roots"
        raise Mistake(f"rewrite returns {len(new)} values for {roots}", "return one value for each root")
    for a, b in zip(old, new, strict=True):
        if not isinstance(b, Value):
            raise Mistake(f"rewrite returns {b!r}, not a value", "return what op.Name(...) returns, or None to decline")
        if b.node not in graph:
            raise Mistake(f"rewrite returns {b!r} of another graph", "return a value of this match, or a new one")
        if a.dtype and b.dtype and a.dtype != b.dtype:
            found, wanted = (dtypes.NAMES.get(value.dtype) for value in (b, a))
            raise Mistake(f"rewrite returns {found}, the value it replaces is {wanted}", f"cast it to {wanted}")
        if a.shape is not None and b.shape is not None and not _may_equal(a.shape, b.shape):
            message = f"rewrite returns a value of shape {b.shape}, the one it replaces has {a.shape}"
            raise Mistake(message, "say in where when the shapes agree, and return its reason when they do not")
        if b in old and new[old.index(b)] is not b:
            message = f"rewrite returns '{b.name}', which it replaces by something else"
            raise Mistake(message, "return an Identity of it, or another value")
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a is not b]
    if not pairs:
        raise _Rejected("the rewrite changes nothing")
    return pairs


def _may_equal(a: Shape, b: Shape) -> bool:
    sizes = [(p, q) for p, q in zip(a, b, strict=False) if isinstance(p, int) and isinstance(q, int)]
    return len(a) == len(b) and all(p == q for p, q in sizes)


def _adopt_type(graph: Graph, old: Value, new: Value) -> bool:
    """What inference does not know of `new` is what was known of `old`; what a graph input declares stays.

    Whether this made more known.
    """
    before = new.dtype, new.shape
    if not new.node.is_source:
        graph.set_type(new, new.dtype or old.dtype, new.shape if new.shape is not None else old.shape)
    return before != (new.dtype, new.shape)


def _remove_dead(graph: Graph, nodes: Iterable[Node]) -> None:
    """Removes those of `nodes` that nobody reads any more, users first."""
    for node in sorted((n for n in nodes if n in graph), key=lambda n: n.rank, reverse=True):
        if all(value.uses == 0 for value in node.outputs):
            graph.remove(node)
