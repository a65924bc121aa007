"""Finding a pattern in a graph: its roots, through uses; the parts of an anchor; all consumers of a value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.ir import Node, Value
from graphopt.rewrite.facts import see_through, source_of
from graphopt.rewrite.pattern import Alt, Anchor, Chain, Check, EachUse, Expr, Op, Pattern, Var, children, names_in
from graphopt.rewrite.search import Search


@dataclass
class Match:
    """One way a pattern matches: variables, the nodes inside, and the values that the rewrite replaces."""

    bindings: dict[str, Any]
    nodes: list[Node]
    roots: list[Value]


class Matcher(Search):
    """Matches one pattern at one root."""

    def matches(self, node: Node) -> Iterator[Match]:
        """Every way the pattern matches with its first root at `node`.

        Raises: StepsUsedUp.
        """
        first = self.pattern.roots[0]
        if isinstance(first, EachUse):
            yield from self._each_use(first, node)
        elif isinstance(first, Anchor):
            yield from self._anchored(first, node)
        else:
            for value in _outputs(first, node):
                for _ in self._match(first, value):
                    yield from self._more_roots(1, [value])

    def _more_roots(self, number: int, found: list[Value]) -> Iterator[Match]:
        if number == len(self.pattern.roots):
            if self._fits():
                yield Match(self._bindings(), self._nodes(), found)
            return
        root = self.pattern.roots[number]
        for candidate in self._reached(root):
            if candidate not in found:
                for _ in self._match(root, candidate):
                    yield from self._more_roots(number + 1, [*found, candidate])

    def _bindings(self) -> dict[str, Any]:
        unbound = {name: 1.0 if var.kind == "factor" else None for name, var in self.pattern.variables.items()}
        return {name: self._bound.get(name, default) for name, default in unbound.items()}

    def _nodes(self) -> list[Node]:
        """The nodes inside, without what was only looked at in a scope around."""
        scope = next((node.graph for node in self._inside), None)
        return [node for node in self._inside if node.graph is scope]

    def _anchored(self, e: Anchor, node: Node) -> Iterator[Match]:
        value = _output(e.whole, node)
        for _ in self._match(e.whole, value) if value is not None else ():
            roots = [self._parts[part] for part in e.parts if part in self._parts]
            if len(set(roots)) < len(e.parts):
                self._fail(node, "two parts are one value, or a part is in a branch that is not taken")
                continue
            below: dict[Node, None] = {}
            stack = [root.node for root in roots]
            while stack:
                inner = stack.pop()
                if inner in self._inside and inner not in below:
                    below[inner] = None
                    stack.extend(inner.producers())
            if self._fits():
                yield Match(self._bindings(), list(below), roots)

    def _each_use(self, e: EachUse, node: Node) -> Iterator[Match]:
        value = _output(e.value, node)
        for _ in self._match(e.value, value) if value is not None else ():
            assert value is not None
            readers, copies = _uses(value)
            uses: list[Match] = []
            for reader in readers:
                use = self._one_use(e, value, reader)
                if use is None:
                    break
                uses.append(use)
            else:
                if uses:
                    single = {**dict.fromkeys(names_in(Pattern((e.value,), {}))), **self._bound}
                    lists = {name: [use.bindings[name] for use in uses] for name in self.pattern.variables}
                    nodes = dict.fromkeys([*self._inside, *copies, *(inner for use in uses for inner in use.nodes)])
                    yield Match({**lists, **single}, list(nodes), [use.roots[0] for use in uses])

    def _one_use(self, e: EachUse, value: Value, reader: Node) -> Match | None:
        """How one consumer of `value` matches; what is bound already holds in it, too."""
        use = self._for_use()
        use._bound = {**self._bound, e.seen.name: value}
        use._sizes, use._outputs, use._taken = self._sizes.copy(), dict(self._outputs), dict(self._taken)
        root = _output(e.use, reader)
        try:
            for _ in use._match(e.use, root) if root is not None else ():
                assert root is not None
                if use._fits():
                    return Match(use._bindings(), use._nodes(), [root])
        finally:
            self.steps = use.steps
        self._fail(reader, "{} uses the value in another way", "a graph output" if reader.op == "Output" else reader.op)
        return None

    def _for_use(self) -> Matcher:
        """A matcher for one consumer."""
        return Matcher(self.pattern, self.budget, self.steps)

    def _reached(self, e: Expr) -> list[Value]:
        """Values that `e` could be: reached by walking the uses of a variable in it that is bound already."""
        match e:
            case Var(name=name):
                bound = self._bound.get(name)
                return [source_of(bound)] if isinstance(bound, Value) else []
            case Alt(branches=branches):
                return list(dict.fromkeys(value for branch in branches for value in self._reached(branch)))
            case Op() if e.identity in self._outputs:
                return list(self._outputs[e.identity].outputs[e.index : e.index + 1])
        below = next(filter(None, map(self._reached, children(e))), [])
        if isinstance(e, Check):
            return below
        # A difference is a sum with Neg(y), though nothing computes that.
        found: dict[Value, None] = dict.fromkeys(below if isinstance(e, Chain) else ())
        for _ in range(len(e.operands) - 1 if isinstance(e, Chain) else 1):
            below = self._readers(below)
            found.update(dict.fromkeys(below))
        return list(found)

    def _readers(self, values: Sequence[Value]) -> list[Value]:
        """What is computed from one of `values`, or from a plain copy of it."""
        found: dict[Value, None] = {}
        stack = list(values)
        while stack:
            value = stack.pop()
            for reader, _ in value.node.graph.consumers(value):
                self._step()
                found.update(dict.fromkeys(reader.outputs))
                stack.extend(copy for copy in reader.outputs if see_through(copy) is value)
        return list(found)


def _uses(value: Value) -> tuple[list[Node], list[Node]]:
    """Who reads `value`, or a plain copy of it; and the nodes that copy."""
    readers: dict[Node, None] = {}
    copies: dict[Node, None] = {}
    stack = [value]
    while stack:
        value = stack.pop()
        for reader, _ in value.node.graph.consumers(value):
            copied = [output for output in reader.outputs if see_through(output) is value]
            (copies if copied else readers)[reader] = None
            stack.extend(copied)
    return list(readers), list(copies)


def _output(e: Expr, node: Node) -> Value | None:
    """The output of `node` that `e` means."""
    return next(iter(_outputs(e, node)), None)


def _outputs(e: Expr, node: Node) -> list[Value]:
    """The outputs of `node` that `e` may mean: branches may be several outputs of one operation."""
    if isinstance(e, Op):
        return list(node.outputs[e.index : e.index + 1]) if e.op == node.op else list(node.outputs[:1])
    branches = e.branches if isinstance(e, Alt) else (e,)
    meant = dict.fromkeys(b.index for b in branches if isinstance(b, Op) and b.op == node.op) or (0,)
    return [node.outputs[index] for index in meant if index < len(node.outputs)]
