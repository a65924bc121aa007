"""A pattern with what stood at its parts in one attempt to match it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from graphopt.ir import Node, Value
from graphopt.ir.node import qualified
from graphopt.rewrite.facts import source_of
from graphopt.rewrite.leaves import Leaf
from graphopt.rewrite.pattern import (
    Alt,
    Anchor,
    Chain,
    EachUse,
    Expr,
    Literal,
    Op,
    Pattern,
    Scaled,
    Var,
    children,
    own,
    root_ops,
)
from graphopt.rewrite.trace import Part, State

_WIDTH = 60
"""Characters of a part that was not reached."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Miss:
    """Why an attempt ended: how many nodes were inside, the node that was in the way, and words."""

    depth: int = 0
    node: Node | None = None
    reason: str = ""


@dataclass(frozen=True)
class Drawing:
    """A pattern with what stands at its parts: `matched` of `size` nodes are there."""

    parts: tuple[Part, ...]
    matched: int
    size: int


@dataclass(frozen=True)
class Standing:
    """A moment of the search: what is being matched, what is matched, and which part was in the way, and why."""

    open: dict[Expr, Leaf] = field(default_factory=dict)
    held: dict[Expr, Leaf] = field(default_factory=dict)
    outputs: dict[Op, Node] = field(default_factory=dict)
    bound: dict[str, Any] = field(default_factory=dict)
    blocked: Expr | None = None
    miss: Miss = Miss()


def draw(pattern: Pattern, standing: Standing, in_the_way: Node | None = None) -> Drawing:
    """The pattern as it stood at one moment; `in_the_way` is a node that matched and yet forbids the match."""
    return _Pen(pattern, standing, in_the_way).drawing()


class _Pen:
    """Draws the parts of a pattern, each that stands in it twice in full once; remembers which are there."""

    def __init__(self, pattern: Pattern, standing: Standing, in_the_way: Node | None) -> None:
        self._pattern = pattern
        self._standing = standing
        matched = standing.blocked is None and in_the_way is not None
        self._in_the_way = in_the_way.label if matched and in_the_way is not None else None
        self._there: set[Expr] = set()
        self._wanted: set[Expr] = set()

    def drawing(self) -> Drawing:
        parts = tuple(map(self.part, self._pattern.roots))
        return Drawing(parts, sum(map(own, self._there)), sum(map(own, self._there | self._wanted)))

    def part(self, e: Expr) -> Part:
        standing = self._standing
        state: State
        if isinstance(e, Anchor):
            return self.part(e.whole)
        if isinstance(e, Alt) and e is not standing.blocked:
            return self._alternative(e)
        if isinstance(e, EachUse):
            state = "open" if standing.miss.reason else "matched"
            return Part("each use of", state, parts=tuple(map(self.part, _parts(e))))
        leaf = standing.held.get(e) or standing.open.get(e)
        if leaf is None and e is not standing.blocked:
            self._wanted.update(_nodes(e))
            absent = isinstance(e, Var) and e.optional and standing.bound.get(e.name, e) is None
            return Part(_short(str(e)), "absent" if absent else "not reached")
        at = self._place(e, leaf)
        state = "matched" if e in standing.held else "open"
        if e is standing.blocked and standing.miss.node is not None:
            state, at = "blocked", standing.miss.node.label
            if e not in standing.held:
                self._wanted.update(_nodes(e))
                return Part(rivals(self._pattern.roots).get(e, title(e)), state, at, standing.miss.reason)
        elif at == self._in_the_way:
            state = "blocked"
        reason = standing.miss.reason if e is standing.blocked else ""
        again = e in self._there
        (self._wanted if e is standing.blocked else self._there).add(e)
        return Part(title(e, standing.bound), state, at, reason, () if again else tuple(map(self.part, _parts(e))))

    def _alternative(self, e: Alt) -> Part:
        standing = self._standing
        for branch in e.branches:
            if branch in standing.held or branch in standing.open or branch is standing.blocked:
                return self.part(branch)
        self._wanted.update(_nodes(e))
        return Part(_short(str(e)), "not reached")

    def _place(self, e: Expr, leaf: Leaf | None) -> str:
        """The node or value at a part that matched; empty for a number, which many may read."""
        if isinstance(e, Literal) or (isinstance(e, Var) and e.kind != "value"):
            return ""
        if isinstance(e, Op) and e.identity in self._standing.outputs:
            return self._standing.outputs[e.identity].label
        if isinstance(leaf, Value):
            return leaf.name if isinstance(e, Var) else source_of(leaf).node.label
        return leaf.node.label if leaf is not None else ""


@lru_cache(1 << 8)
def rivals(roots: tuple[Expr, ...]) -> dict[Expr | None, str]:
    """For each branch of an alternative, what its node may be with that branch or another: `Softmax or Where`."""
    found: dict[Expr | None, str] = {}
    stack = list(roots)
    while stack:
        e = stack.pop()
        stack.extend(_parts(e))
        if isinstance(e, Alt):
            ops = sorted(qualified(*root) for root in root_ops(e))
            found.update((branch, " or ".join(ops)) for branch in e.branches if ops)
    return found


@lru_cache(1 << 12)
def _nodes(e: Expr) -> frozenset[Expr]:
    """The parts of `e` that are nodes, each once however often it stands there; of alternatives, the largest."""
    below = [_nodes(part) for part in _parts(e)]
    if isinstance(e, Alt):
        return max(below, key=lambda nodes: sum(map(own, nodes)))
    return frozenset({e} if own(e) else ()).union(*below)


def _parts(e: Expr) -> Sequence[Expr]:
    return (e.factor, e.x) if isinstance(e, Scaled) else children(e)


def title(e: Expr, bound: Mapping[str, Any] = _NOTHING) -> str:
    """What stands in a pattern, without its operands; with the attributes and numbers that are `bound`."""
    match e:
        case Op(op=op, domain=domain, attrs=attrs):
            values = {name: bound.get(a.name, a) if isinstance(a, Var) else a for name, a in attrs.items()}
            said = [f"{name}={value}" for name, value in values.items() if not callable(value)]
            return " ".join([qualified(domain, op), *said])
        case Chain(op=op, operands=operands):
            return f"{'sum' if op == 'Add' else 'product'} of {len(operands)}"
        case Scaled():
            return "scaled"
        case EachUse():
            return "each use"
        case Var(name=name, kind="number" | "factor") if isinstance(bound.get(name), float):
            return f"{name} = {bound[name]:.7g}"
    return _short(str(e))


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 4]} ..."
