"""Where a pattern stands in a model: matching without rewriting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphopt.errors import InconclusiveError, RuleError
from graphopt.ir import Graph, Model, Node, Source, Value, load
from graphopt.ir.infer import infer
from graphopt.rewrite import CompiledRule, Context, Limits, Rule
from graphopt.rewrite.blame import line_of, said
from graphopt.rewrite.language import read_pattern
from graphopt.rewrite.matcher import Match, Matcher
from graphopt.rewrite.pattern import Pattern, names_in, root_ops
from graphopt.rewrite.search import StepsUsedUp


@dataclass(frozen=True, repr=False)
class Found:
    """One place where a pattern matches.

    `roots` are the values that the pattern's roots match, `bindings` what its parameters stand for (a Value, a float,
    an attribute, None), `nodes` the operations inside, in topological order. `scope` is `main graph`, `function
    DOMAIN.NAME`, or a subgraph of one, `then_branch of NODE, main graph`.
    """

    roots: tuple[Value, ...]
    bindings: Mapping[str, Any]
    nodes: tuple[Node, ...]
    scope: str

    @property
    def root(self) -> Value:
        """The first root."""
        return self.roots[0]

    def __repr__(self) -> str:
        bound = ", ".join(f"{name}={_said(value)}" for name, value in self.bindings.items())
        roots = ", ".join(value.name for value in self.roots)
        return f"<{roots} in the {self.scope}: {bound}; nodes {', '.join(node.label for node in self.nodes)}>"


def find(model: Source | Model, pattern: Callable[..., Any] | type[Rule], *, steps: int | None = None) -> list[Found]:
    """Every place where `pattern` matches, at most one for each node that can be its (first) root.

    `pattern` is a function written like a rule's `pattern` method, `def twice(op, x: Value): return
    op.Relu(op.Relu(x))`, or a rule, whose `where` then must hold. Scopes are searched one by one (the main graph,
    subgraphs, functions), each in topological order; no match reaches out of its scope, but where the pattern asks for
    a captured value. Nothing is rewritten, so an inner value that is read elsewhere forbids nothing, and matches may
    overlap. A Model is searched as it is, but inference adds the types it lacks. Raises: InconclusiveError GO066 when
    matching at one node takes more than `steps` (20,000): a list that lacks something would pass for whole; RuleError
    GO060 for a pattern that cannot be read.
    """
    read, holds = _pattern(pattern)
    searched = model if isinstance(model, Model) else load(model)
    infer(searched)
    roots = root_ops(read.roots[0])
    found = []
    for graph in searched.scopes():
        for node in graph.ops():
            if (node.domain, node.op) in roots:
                match = _first(read, node, holds, steps or Limits.steps_per_root)
                if match is not None:
                    nodes = tuple(sorted(match.nodes, key=lambda inner: inner.rank))
                    found.append(Found(tuple(match.roots), match.bindings, nodes, _scope(searched, graph)))
    return found


def _pattern(pattern: Callable[..., Any] | type[Rule]) -> tuple[Pattern, Callable[[Match], bool]]:
    """The pattern, and whether a match of it holds."""
    if isinstance(pattern, type):
        rule = CompiledRule(pattern())
        return rule.pattern, lambda match: not rule.why_not(match.bindings, match.roots[0], Context())
    try:
        read = read_pattern(pattern)
    except Exception as error:
        place = line_of(pattern) or ""
        raise RuleError("GO060", f"the pattern cannot be read: {said(error)}", place) from error
    unused = ", ".join(sorted(read.variables.keys() - names_in(read)))
    if unused:
        message = f"the pattern takes {unused}, and returns nothing that has it"
        raise RuleError("GO060", message, line_of(pattern), "use every parameter, or leave it out")
    return read, lambda match: True


def _first(pattern: Pattern, node: Node, holds: Callable[[Match], bool], steps: int) -> Match | None:
    try:
        return next(filter(holds, Matcher(pattern, steps).matches(node)), None)
    except StepsUsedUp as error:
        hint = "write what is rare before what is frequent, or allow more with `steps`"
        raise InconclusiveError("GO066", f"matching takes more than {steps} steps", node.place, hint) from error


def _scope(model: Model, graph: Graph) -> str:
    """Where a scope is, from the inside out."""
    parts = list(_holders(graph))
    while graph.holder is not None:
        graph = graph.holder.graph
    functions = (key for key, function in model.functions.items() if function.graph is graph)
    whole = next((f"function {domain}.{name}" for domain, name, _ in functions), "main graph")
    return ", ".join([*parts, whole])


def _holders(graph: Graph) -> Iterator[str]:
    while (holder := graph.holder) is not None:
        attribute = next(name for name, inner in (holder.graphs or {}).items() if graph in inner)
        yield f"{attribute} of {holder.label}"
        graph = holder.graph


def _said(value: Any) -> str:
    match value:
        case Value():
            return value.name
        case float():
            return f"{value:g}"
        case list():
            return f"[{', '.join(map(_said, value))}]"
    return repr(value)
