"""Why a pattern did not match: the attempt that came furthest, and what one part in the way hides.

A search that fails has failed in many places. Two attempts tell a person something: the one in which most of the
pattern stood before it ended, and the one that would have succeeded but for a single part (a number, an attribute, a
constraint, one node too many). The second is looked for only where the first search found no match.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphopt.ir import Node, Value
from graphopt.rewrite.drawing import Drawing, Miss, Standing, draw, rivals, title
from graphopt.rewrite.leaves import Inverse, Leaf, Scalar
from graphopt.rewrite.matcher import Match, Matcher
from graphopt.rewrite.pattern import Chain, EachUse, Expr, Literal, Op, Scaled, Var, own
from graphopt.rewrite.search import StepsUsedUp

_LENIENT_STEPS = 2000
"""What the search for one part in the way may use, for each root."""

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


@dataclass
class _Log:
    """What a search and the searches inside it share; `open` has the outermost part first.

    `whole` says that all parts were matched, and only what they broadcast into was wrong.
    """

    open: list[tuple[Expr, Leaf]] = field(default_factory=list)
    held: dict[Expr, list[Leaf]] = field(default_factory=dict)
    rank: tuple[int, int] = (-1, 0)
    best: Standing = field(default_factory=Standing)
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
        return draw(self.pattern, self._log.best, node)

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
            self._fail(found[0].node, "beside it there is no {}", title(root))
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

    def _standing(self, blocked: Expr | None = None, miss: Miss | None = None) -> Standing:
        held = {e: leaves[-1] for e, leaves in self._log.held.items() if leaves}
        return Standing(
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
        if reason == _OTHER_OP:
            any_of = rivals(self.pattern.roots).get(blocked, "")
            if any_of and details[0] not in any_of.split():
                details = details[0], any_of
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
