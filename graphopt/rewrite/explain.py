"""Why a pattern did not match: the attempt that came furthest, and what one part in the way hides.

A search that fails has failed in many places. Two attempts tell a person something: the one in which most of the
pattern stood before it ended, and the one that would have succeeded but for a single part (a number, an attribute, a
constraint, one node too many). The second is looked for only where the first search found no match.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from graphopt.ir import Node, Value
from graphopt.rewrite.facts import source_of
from graphopt.rewrite.leaves import Inverse, Leaf, Scalar
from graphopt.rewrite.matcher import Match, Matcher, StepsUsedUp
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

_LENIENT_STEPS = 2000
"""What the search for one part in the way may use, for each root."""

_WIDTH = 60
"""Characters of a part that was not reached."""

# Of two attempts that came equally far, the one that ended for a reason that tells more.
_TELLING = {
    "{:.7g}, wanted {}": 2,
    "a constant that raises the rank": 2,
    "{} {}, {}": 2,
    "{} uses the value in another way": 1,
    "'{}' {}": 1,
    "not scaled by a constant number": 1,
    "{} by what is not a constant number": 1,
    "{} by what is not a constant number of lower rank": 1,
    "an input of {} is missing": 1,
    "'{}' is another value here": -1,
    "not a constant number, wanted {}": -1,
    "another output": -1,
}
# What a matcher passes over without a word.
_UNSAID: dict[type[Expr], str] = {
    Op: "an input of {} is missing",
    Chain: "{} by what is not a constant number",
    Scaled: "{} by what is not a constant number of lower rank",
}
_OTHER_OP = "{}, wanted {}"


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
class _Standing:
    """A moment of the search: what is being matched, what is matched, and which part was in the way, and why."""

    open: dict[Expr, Leaf] = field(default_factory=dict)
    held: dict[Expr, Leaf] = field(default_factory=dict)
    outputs: dict[Op, Node] = field(default_factory=dict)
    bound: dict[str, Any] = field(default_factory=dict)
    blocked: Expr | None = None
    miss: Miss = Miss()


@dataclass
class _Log:
    """What a search and the searches inside it share; `open` has the outermost part first.

    `whole` says that all parts were matched, and only what they broadcast into was wrong.
    """

    open: list[tuple[Expr, Leaf]] = field(default_factory=list)
    held: dict[Expr, list[Leaf]] = field(default_factory=dict)
    rank: tuple[int, int] = (-1, 0)
    best: _Standing = _Standing()
    fails: int = 0
    lenient: bool = False
    whole: bool = False
    excused: tuple[Expr, Node, str] | None = None
    said: tuple[Expr | None, Node, str, tuple[object, ...]] | None = None


@dataclass
class Explainer(Matcher):
    """A matcher that remembers what stood where when it came furthest."""

    _log: _Log = field(default_factory=_Log)

    @property
    def miss(self) -> Miss:
        """Why the attempt ended that came furthest."""
        return self._log.best.miss

    def drawing(self, node: Node | None = None) -> Drawing:
        """The pattern as it stood in the match that is in place, else in the attempt that came furthest.

        `node` is one that matched and yet is in the way.
        """
        return _Pen(self.pattern, self._log.best, node).drawing()

    def matches(self, node: Node) -> Iterator[Match]:
        """Every way the pattern matches, as a Matcher finds it; where there is none, `miss` then says why.

        Raises: StepsUsedUp.
        """
        found = False
        for match in super().matches(node):
            found, self._log.best = True, self._standing()
            yield match
        if not found and not self._log.whole and self.miss.depth > 0:
            self._look_past_one_part(node)

    def _more_roots(self, number: int, found: list[Value]) -> Iterator[Match]:
        fits = False
        for match in super()._more_roots(number, found):
            fits = True
            yield match
        if not fits and number < len(self.pattern.roots):
            root = self.pattern.roots[number]
            self._log.open.append((root, found[-1]))
            self._fail(found[0].node, "beside it there is no {}", _title(root, {}))
            self._log.open.pop()

    def _fits(self) -> bool:
        fits = super()._fits()
        self._log.whole |= not fits
        return fits

    def _for_use(self) -> Explainer:
        return Explainer(self.pattern, self.budget, self.steps, _log=self._log)

    # ---- what stands where --------------------------------------------------------------------------------------

    def _match(self, e: Expr, value: Value) -> Iterator[None]:
        fits, fails = False, self._log.fails
        for _ in self._standing_while(e, value, super()._match(e, value)):
            fits = True
            yield
        if not fits and self._log.fails == fails:
            self._log.open.append((e, value))
            self._fail(value.node, _UNSAID.get(type(e), "{} does not match"), value.node.op)
            self._log.open.pop()
        if self._log.lenient and not fits:
            yield from self._match_without(e, value)

    def _match_number(self, e: Expr, leaf: Scalar) -> Iterator[None]:
        fits = False
        for _ in self._standing_while(e, leaf, super()._match_number(e, leaf)):
            fits = True
            yield
        if not fits and isinstance(e, Literal):
            yield from self._standing_while(e, leaf, self._excusing(e))

    def _match_inverse(self, e: Expr, leaf: Inverse) -> Iterator[None]:
        return self._standing_while(e, leaf.value, super()._match_inverse(e, leaf))

    def _match_attrs(self, e: Op, node: Node) -> Iterator[None]:
        fits = False
        for _ in super()._match_attrs(e, node):
            fits = True
            yield
        if not fits:
            yield from self._excusing(e)

    def _standing_while(self, e: Expr, leaf: Leaf, ways: Iterator[None]) -> Iterator[None]:
        """`e` is open while one of `ways` is looked for, and held at `leaf` while one is in place."""
        stack, held = self._log.open, self._log.held.setdefault(e, [])
        stack.append((e, leaf))
        for _ in ways:
            stack.pop()
            held.append(leaf)
            yield
            held.pop()
            stack.append((e, leaf))
        stack.pop()

    def _standing(self, blocked: Expr | None = None, miss: Miss | None = None) -> _Standing:
        held = {e: leaves[-1] for e, leaves in self._log.held.items() if leaves}
        return _Standing(
            dict(self._log.open), held, dict(self._outputs), dict(self._bound), blocked, miss or Miss(len(self._inside))
        )

    def _fail(self, node: Node, reason: str, *details: object) -> None:
        log = self._log
        log.fails += 1
        root = self.pattern.roots[0]
        blocked = log.open[-1][0] if log.open else root.use if isinstance(root, EachUse) else None
        if log.lenient:
            log.said = blocked, node, reason, details
            return
        matched = sum(own(e) for e, leaves in log.held.items() if leaves) + sum(own(e) for e, _ in log.open[:-1])
        rank = matched, _TELLING.get(reason, 0)
        if reason == _OTHER_OP and details[0] not in (wanted := _rivals(self.pattern.roots).get(blocked, "")).split():
            details = details[0], wanted or details[1]
        if rank > log.rank:
            miss = Miss(max(len(self._inside), matched), self._reader(node), reason.format(*details))
            log.rank, log.best = rank, self._standing(blocked, miss)

    def _reader(self, node: Node) -> Node:
        """The node inside that reads a constant; other nodes themselves. Many may read one constant."""
        if node.op != "Constant":
            return node
        readers = (reader for reader, _ in node.graph.consumers(node.outputs[0]))
        return next((reader for reader in readers if reader in self._inside), node)

    # ---- but for one part ---------------------------------------------------------------------------------------

    def _look_past_one_part(self, node: Node) -> None:
        """Searches again, for a match but for one part."""
        log, steps = self._log, self.steps
        self.steps, log.lenient = max(0, self.budget - _LENIENT_STEPS), True
        try:
            for match in super().matches(node):
                if log.excused is not None:
                    blocked, at, reason = log.excused
                    log.best = self._standing(blocked, Miss(len(match.nodes), at, reason))
                    break
        except StepsUsedUp:
            pass
        finally:
            self.steps, log.lenient = steps, False

    def _match_without(self, e: Expr, value: Value) -> Iterator[None]:
        """What does not match, taken as matched: a value of another kind; a node before one that does match."""
        if isinstance(e, Var) and e.kind == "value" and e.name not in self._bound:
            yield from self._standing_while(e, value, self._excusing(e))
        elif isinstance(e, Op | Chain | Scaled) and self._log.open:
            for inner in value.node.inputs[: value.node.arity]:
                if inner is not None and inner.tensor is None:
                    for _ in self._excusing(e, f"{value.node.op} in between", value.node):
                        yield from self._standing_while(e, inner, super()._match(e, inner))

    def _excusing(self, e: Expr, instead: str = "", at: Node | None = None) -> Iterator[None]:
        """`e` counts as matched for once, if it is what the search just failed at, and nothing else was excused."""
        log = self._log
        if log.lenient and log.excused is None and log.said is not None and log.said[0] is e:
            _, node, reason, details = log.said
            log.excused = e, at or self._reader(node), instead or reason.format(*details)
            yield
            log.excused = None


class _Pen:
    """Draws the parts of a pattern, each that stands in it twice in full once; remembers which are there."""

    def __init__(self, pattern: Pattern, standing: _Standing, in_the_way: Node | None) -> None:
        self._pattern = pattern
        self._standing = standing
        matched = standing.blocked is None and in_the_way is not None
        self._in_the_way = name_of(in_the_way) if matched and in_the_way is not None else None
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
            state, at = "blocked", name_of(standing.miss.node)
            if e not in standing.held:
                self._wanted.update(_nodes(e))
                return Part(_rivals(self._pattern.roots).get(e, _title(e, {})), state, at, standing.miss.reason)
        elif at == self._in_the_way:
            state = "blocked"
        reason = standing.miss.reason if e is standing.blocked else ""
        again = e in self._there
        (self._wanted if e is standing.blocked else self._there).add(e)
        return Part(_title(e, standing.bound), state, at, reason, () if again else tuple(map(self.part, _parts(e))))

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
            return name_of(self._standing.outputs[e.identity])
        if isinstance(leaf, Value):
            return leaf.name if isinstance(e, Var) else name_of(source_of(leaf).node)
        return name_of(leaf.node) if leaf is not None else ""


@lru_cache(1 << 8)
def _rivals(roots: tuple[Expr, ...]) -> dict[Expr | None, str]:
    """For each branch of an alternative, what its node may be with that branch or another: `Softmax or Where`."""
    found: dict[Expr | None, str] = {}
    stack = list(roots)
    while stack:
        e = stack.pop()
        stack.extend(_parts(e))
        if isinstance(e, Alt):
            ops = sorted(f"{domain}.{op}" if domain else op for domain, op in root_ops(e))
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


def _title(e: Expr, bound: dict[str, Any]) -> str:
    """What stands in a pattern, without its operands."""
    match e:
        case Op(op=op, domain=domain, attrs=attrs):
            values = {name: bound.get(a.name, a) if isinstance(a, Var) else a for name, a in attrs.items()}
            said = [f"{name}={value}" for name, value in values.items() if not callable(value)]
            return " ".join([f"{domain}.{op}" if domain else op, *said])
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


def name_of(node: Node) -> str:
    """What people know a node by: its name, else that of its first output, else its operator."""
    return node.name or (node.outputs[0].name if node.outputs else node.op)
