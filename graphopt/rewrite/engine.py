"""Applying rules to a fixpoint. What is safe is decided here, not by the authors of rules.

A worklist in topological order: after a rewrite only the neighbourhood is tried again, and in a later run only what
changed since the last. A site is taken only if no inner value is seen from outside, the new values have the type of the
old ones, and the graph is valid afterwards; otherwise it is taken back. Budgets count steps, so the result is the same
on every machine.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from graphopt.errors import GraphoptError, ModelError
from graphopt.ir import IR_DOMAIN, CycleError, Graph, Ledger, Model, Node, ValidationError, validate_site
from graphopt.ir.dims import TooLarge
from graphopt.rewrite.blame import Mistake, hint_of, said
from graphopt.rewrite.build import Builder, Declined
from graphopt.rewrite.explain import Explainer
from graphopt.rewrite.index import RuleIndex
from graphopt.rewrite.malformed import malformed
from graphopt.rewrite.matcher import Match, Matcher
from graphopt.rewrite.replacement import Rejected, adopt_type, escape, keeps_opset, operands_of, remove_unread, replaced
from graphopt.rewrite.rule import STAGES, CompiledRule, Context, Stage
from graphopt.rewrite.search import StepsUsedUp
from graphopt.rewrite.trace import Refusal, RuleFailure, Site, Trace
from graphopt.rewrite.worklist import FAR, Change, Worklist, captures_of

SiteKey = tuple[str, str]
"""(rule, name of the root value): a site, the same in every replay. One left out leaves no larger one of its rule."""

MODEL_BUDGET = "step budget of the model used up"

_MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError)
"""What comes of operands that are missing, and of attributes of another type or out of range."""
_RAISED = "where returns the reason why not, rewrite returns None to decline: neither raises"


@dataclass(frozen=True)
class Limits:
    """Step budgets, and how often a rule may fire before it is said to cycle."""

    steps_per_root: int = 20_000
    steps_per_node: int = 40
    """What one rule may use in one run, for each node of the model and `spare` more."""
    sites_per_node: int = 4
    """How often one rule may fire in one scope, and in one run, for each node that it had and `spare` more."""
    new_nodes_per_node: int = 20
    """How many nodes one rule may write in one run, for each node that the model had and `spare` more."""
    sites_per_root: int = 100
    new_bytes: int = 512 << 20
    """How much new weight data the rewrites of one rule may write together, in bytes."""
    spare: int = 1000


class NewWeightsLimit(GraphoptError):
    """A rule writes more new weights than is allowed: the model is half done, start again without the rule."""

    def __init__(self, rule: str, limit: int) -> None:
        super().__init__("GO065", f"its rewrites would write more than {limit / 1e6:g} MB of new weights", rule)
        self.rule = rule


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
        self._ledger: Ledger | None = None
        self._indexes: dict[tuple[CompiledRule, ...], RuleIndex] = {}
        self._aside: set[str] = set()
        self._steps: Counter[str] = Counter()
        self._spared: Counter[str] = Counter()
        self._size = 0
        self._fired: defaultdict[Graph, Counter[str]] = defaultdict(Counter)
        self._sites: Counter[str] = Counter()
        self._written: Counter[str] = Counter()
        self._nodes = 0
        self._budget = 0

    def run(self, model: Model, stages: Collection[Stage] = STAGES) -> int:
        """Applies the rules of `stages` in every scope until none fires; returns the number of sites.

        A rule that has run before looks only at what changed since.
        """
        self._aside = {failure.rule for failure in self.trace.failures}
        self._steps.clear()
        self._spared.clear()
        self._fired.clear()
        self._sites.clear()
        self._written.clear()
        self._nodes = model.node_count() + self.limits.spare
        self._budget = self.limits.steps_per_node * self._nodes
        rules = [rule for rule in self._rules if rule.stage in stages]
        ledger, start = model.graph.ledger, len(self.trace.sites)
        if ledger is not self._ledger:
            self._ledger = ledger
            self._settled.clear()
        scopes = list(model.scopes())
        # Without subgraphs nothing is captured, and nothing has to be walked.
        reach = max((rule.pattern.depth for rule in rules), default=0) if len(scopes) > 1 else -1
        touched = ledger.since(min((self._settled[r] for r in rules if r in self._settled), default=ledger.mark()))
        touched += captures_of(touched, reach)
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
                touched += [node for node in changed if node.graph is not graph] + captures_of(changed, reach)
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
        queue = Worklist(graph, index.reach)
        unseen = dict.fromkeys(graph.ops() if new else ())
        queue.extend((node, FAR) for node in unseen)
        self._size = max((rule.pattern.size for rule in rules), default=0)
        # A constant means what it meant: that it lost a reader matters to the few it has left.
        near = [node for node in touched if node.op != "Constant" or node.outputs[0].uses <= self._size]
        queue.spread(Change(near), reach)
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
                        self._watch_cycles(graph, rule, cap, len(change.made))
                        queue.spread(change, reach)
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
            if not rule.runs_in(graph, self.context):
                missing = " or ".join(map(str, rule.needs))
                self.trace.count(rule.name).reasons[f"the target has no kernel {missing}"] += 1
            else:
                usable.append(rule)
        key = tuple(usable)
        if key not in self._indexes:
            self._indexes[key] = RuleIndex(key)
        return self._indexes[key]

    # ---- one rule at one node ----------------------------------------------------------------------------------

    def _try(self, model: Model, rule: CompiledRule, node: Node, spared: bool) -> Change | None:
        """Tries one rule with its root at `node`; None when it did not fire.

        `spared` says that the index leaves it out: then it is for those who explain, and on a budget of its own.
        """
        if spared and self._spared[rule.name] > self._budget:
            return None
        # Early, what a match of such a rule would be refused for.
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
        except TooLarge as error:
            self._refuse(rule, node, node, f"{error} is too large to reason about")
        except ValidationError as error:
            self._set_aside(rule, f"what it writes is not valid: {error.message}", node.label, error)
        except (NewWeightsLimit, ModelError):
            raise
        except (Exception, SystemExit) as error:  # a rule is foreign code: whatever it raises, the others go on
            # A rule may rely on what an operator allows: of a model that says something else nobody need make sense.
            invalid = malformed(node, rule.pattern.depth) if isinstance(error, _MALFORMED) else ""
            if invalid:
                self._refuse(rule, node, node, invalid)
            else:
                self._set_aside(rule, said(error), node.label, error)
        finally:
            count.seconds += time.perf_counter() - start
            count.steps += matcher.steps
            (self._spared if spared else self._steps)[rule.name] += matcher.steps
            if self._steps[rule.name] > self._budget:
                self._aside.add(rule.name)
                self._use_up(rule, node, MODEL_BUDGET)
        return None

    def _first_match(self, model: Model, rule: CompiledRule, matcher: Matcher, node: Node) -> Change | None:
        matched = False
        for match in matcher.matches(node):
            if self.exclude and any(
                (rule.name, v.name) in self.exclude for inner in match.nodes for v in inner.outputs
            ):
                continue
            if rule.rule.once and any((rule.name, root.name) in self.trace.once for root in match.roots):
                continue
            if not matched:
                self.trace.count(rule.name).matched += 1
            matched = True
            refused = rule.why_not(match.bindings, match.roots[0], self.context)
            if refused:
                self._refuse(rule, node, node, refused)
                continue
            if any(root.node not in match.nodes for root in match.roots):
                self._refuse(rule, node, node, "what would be replaced is no part of the match")
                continue
            seen = None if rule.rule.keeps_inner else escape(match)
            if seen is not None:
                self._refuse(rule, node, *seen)
                continue
            change = self._apply(model, rule, match)
            if change is not None:
                return change
        if not matched and isinstance(matcher, Explainer) and matcher.miss.depth > 0 and matcher.miss.node is not None:
            self._refuse(rule, node, matcher.miss.node, matcher.miss.reason)
        return None

    def _apply(self, model: Model, rule: CompiledRule, match: Match) -> Change | None:
        """Builds the replacement in a transaction; None when it was taken back."""
        count = self.trace.count(rule.name)
        graph = match.roots[0].node.graph
        before = max((root.node for root in match.roots), key=lambda n: n.rank)
        reads = {value: value.uses for value in operands_of(match)}
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
                if self.context.keep_opset:
                    keeps_opset(graph, match, builder.made, has_kernel=bool(rule.needs))
                for old, value in replaced(graph, match.roots, [builder.here(value) for value in new]):
                    if adopt_type(graph, old, value) and value.node not in builder.made:
                        retyped.append(value.node)
                    graph.replace(old, value, take_name=value.node in builder.made)
                remove_unread(graph, match.nodes)
                remove_unread(graph, builder.made)
                # A capture is a use in the scope around it.
                remove_unread(graph, (value.node for value in reads if value.node.is_op("Capture", IR_DOMAIN)))
                alive = [node for node in builder.made if node in graph]
                validate_site(alive)
            except (Rejected, Declined, CycleError) as error:
                transaction.rollback()
                self._refuse(rule, before, before, str(error))
                count.declined += isinstance(error, Declined)
                count.rolled_back += not isinstance(error, Declined)
                return None
            except Exception:
                count.rolled_back += 1
                raise
        count.applied += 1
        count.new_bytes += builder.new_bytes
        # Integers take the place of the weights that they were made of.
        if count.new_bytes > self.limits.new_bytes and rule.stage != "quantize":
            raise NewWeightsLimit(rule.name, self.limits.new_bytes)
        made = tuple(value.name for node in alive for value in node.outputs)
        if rule.rule.once:
            self.trace.once.update((rule.name, name) for name in made)
        self.trace.sites.append(Site(rule.name, roots[0], roots, names, made, tuple(v.name for v in reads)))
        # A value that has lost a reader may now be inside a match; not so one with too many others, but as its root.
        freed = [v for v, before in reads.items() if v.uses < before and v.uses <= self._size and v.node in graph]
        readers += [reader for v in freed for reader, _ in graph.consumers(v)]
        return Change([*alive, *retyped], readers, [v.node for v in reads])

    # ---- what is said ------------------------------------------------------------------------------------------

    def _watch_cycles(self, graph: Graph, rule: CompiledRule, cap: int, made: int) -> None:
        """Sets a rule aside that fires, or writes, without end. Its name and those of the rules beside it are told."""
        root, limits = self.trace.sites[-1].root, self.limits
        fired = self._fired[graph]
        fired.update((rule.name, f"{rule.name} at {root}"))
        self._sites[rule.name] += 1
        self._written[rule.name] += made
        often = fired[rule.name] > cap or fired[f"{rule.name} at {root}"] > limits.sites_per_root
        often = often or self._sites[rule.name] > limits.sites_per_node * self._nodes
        if often or self._written[rule.name] > limits.new_nodes_per_node * self._nodes:
            names = sorted({site.rule for site in self.trace.sites[-limits.sites_per_root :]} - {rule.name})
            company = f"with {', '.join(names)}" if names else "alone"
            fault = f"it {'undoes itself' if often else 'writes without end'}, {company}"
            message = f"fired {self._sites[rule.name]} times and wrote {self._written[rule.name]} nodes: {fault}"
            self._set_aside(rule, message, root, Mistake(message, "let where refuse what is there already", ""))
            fired.clear()
            self._sites.clear()
            self._written.clear()

    def _refuse(self, rule: CompiledRule, root: Node, node: Node, reason: str) -> None:
        self.trace.count(rule.name).reasons[reason] += 1
        if isinstance(self._tried, Explainer):
            drawing = self._tried.drawing(node if node is not root else None)
            names = rule.name, root.label, node.label
            self.trace.refusals.append(Refusal(*names, reason, drawing.matched, drawing.size, drawing.parts))

    def _use_up(self, rule: CompiledRule, root: Node, reason: str) -> None:
        """A search that was not ended is told, explained or not."""
        self._refuse(rule, root, root, reason)
        self.trace.stopped.append(Refusal(rule.name, root.label, root.label, reason))

    def _set_aside(self, rule: CompiledRule, message: str, node: str, error: BaseException | None = None) -> None:
        self._aside.add(rule.name)
        place, hint = rule.place_of(error), hint_of(error, _RAISED)
        self.trace.failures.append(RuleFailure(rule.name, place, f"{message} (at {node})", hint))
