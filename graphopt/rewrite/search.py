"""How one expression matches one value: complete backtracking over alternatives, operand orders, bracketings, options.

Every `_match_*` is a generator that yields once for each way to match, with the bindings of that way in place, and
takes them back when it is resumed. So a failure later on reopens every choice made earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from graphopt.ir import Node, Value
from graphopt.ir.schema import signature
from graphopt.rewrite.constraints import Sizes
from graphopt.rewrite.facts import (
    COPIES,
    UNKNOWN,
    attribute,
    close,
    inverse_of,
    is_default,
    keeps_rank,
    number_of,
    same_attribute,
    same_value,
    see_through,
    source_of,
)
from graphopt.rewrite.leaves import COMMUTATIVE, LINKS, Inverse, Leaf, Scalar, parts_of, raises_rank
from graphopt.rewrite.pattern import (
    Alt,
    Captured,
    Chain,
    Check,
    Expr,
    Literal,
    Op,
    Pattern,
    Scaled,
    SuchAs,
    Var,
    refusal,
)

_UNBOUND: Any = object()
_UNWANTED = "not as the pattern wants it"


class StepsUsedUp(Exception):
    """The step budget of one root and rule is spent."""


@dataclass
class Search:
    """One search: what is bound, what is inside. `steps` counts every value that is compared with an expression."""

    pattern: Pattern
    budget: int = 20_000
    steps: int = 0
    _bound: dict[str, Any] = field(default_factory=dict)
    _sizes: Sizes = field(default_factory=Sizes)
    _inside: dict[Node, int] = field(default_factory=dict)
    _outputs: dict[Op, Node] = field(default_factory=dict)
    _parts: dict[Expr, Value] = field(default_factory=dict)
    _taken: dict[Alt, Expr] = field(default_factory=dict)

    # ---- one generator for each kind of expression --------------------------------------------------------------

    def _match(self, e: Expr, value: Value) -> Iterator[None]:
        return self._match_part(e, value) if e in self.pattern.parts else self._match_kind(e, value)

    def _match_kind(self, e: Expr, value: Value) -> Iterator[None]:
        self._step()
        match e:
            case Var():
                return self._match_var(e, value)
            case Op():
                return self._match_op(e, value)
            case Chain():
                return self._match_chain(e, value)
            case Literal():
                return self._match_constant(e, value)
            case Scaled():
                return self._match_scaled(e, value)
            case Alt():
                return self._match_alt(e, value)
            case Check():
                return self._match_check(e, value)
            case Captured():
                return self._match_captured(e, value)
            case SuchAs(var=var):
                return self._match_var(var, value)
        raise TypeError(e)

    def _match_part(self, e: Expr, value: Value) -> Iterator[None]:
        before = self._parts.get(e)
        if before is not None and before is not value:
            self._fail(value.node, "another value for the same part")
            return
        for _ in self._match_kind(e, value):
            self._parts[e] = value
            yield
            if before is None:
                del self._parts[e]

    def _match_alt(self, e: Alt, value: Value) -> Iterator[None]:
        for branch in self._branches(e):
            yield from self._match(branch, value)

    def _branches(self, e: Alt) -> Iterator[Expr]:
        """The ways to match `e`; an expression that stands twice is one thing, and goes the same way both times."""
        taken = self._taken.get(e)
        if taken is not None:
            yield taken
            return
        for branch in e.branches:
            self._taken[e] = branch
            yield branch
        del self._taken[e]

    def _match_check(self, e: Check, value: Value) -> Iterator[None]:
        for _ in self._match(e.inner, value):
            refused = refusal(e.allowed(value), _UNWANTED)
            if refused:
                self._fail(value.node, "{}", refused)
            else:
                yield

    def _match_captured(self, e: Captured, value: Value) -> Iterator[None]:
        source = source_of(value)
        if source.node.slot < 0:
            self._fail(source.node, "not captured from the scope around it")
        else:
            yield from self._match(e.outer, source.resolved)

    def _match_var(self, e: Var, value: Value) -> Iterator[None]:
        if e.kind in ("number", "factor"):
            yield from self._match_constant(e, value)
            return
        bound = self._bound.get(e.name, _UNBOUND)
        if bound is not _UNBOUND:
            if isinstance(bound, Value) and same_value(bound, value):
                yield
            else:
                self._fail(value.node, "'{}' is another value here", e.name)
            return
        sizes = self._sizes
        if e.constraint.dims is not None:
            self._sizes = sizes.copy()
        reason = self._sizes.why_not(e.constraint, value)
        if reason:
            self._fail(value.node, "'{}' {}", e.name, reason)
        else:
            self._bound[e.name] = value
            yield
            del self._bound[e.name]
        self._sizes = sizes

    def _match_constant(self, e: Literal | Var, value: Value) -> Iterator[None]:
        number = number_of(value)
        if number is None:
            self._fail(value.node, "not a constant number, wanted {}", e)
        else:
            yield from self._match_number(e, Scalar(number, value.dtype, value.node))

    def _match_number(self, e: Expr, leaf: Scalar) -> Iterator[None]:
        number, dtype, node = leaf
        match e:
            case Literal(value=want):
                if close(want, number, dtype):
                    yield
                else:
                    self._fail(node, "{:.7g}, wanted {}", number, e)
            case Var(name=name, kind="number"):
                bound = self._bound.get(name, _UNBOUND)
                if bound is _UNBOUND:
                    self._bound[name] = number
                    yield
                    del self._bound[name]
                elif bound is not None and close(bound, number, dtype):
                    yield
                else:
                    self._fail(node, "'{}' is {:.7g} here and {} there", name, number, bound)
            case Var(name=name, kind="factor"):
                before = self._bound.get(name, 1.0)
                self._bound[name] = before * number
                yield
                self._bound[name] = before
            case Alt():
                for branch in self._branches(e):
                    yield from self._match_number(branch, leaf)

    def _match_scaled(self, e: Scaled, value: Value) -> Iterator[None]:
        node = value.node
        if node.domain or node.op not in ("Mul", "Div") or node.arity != 2:
            for inner in self._through(value, ("Mul", "Div")):
                yield from self._match_scaled(e, inner)
            return
        for slot, other in ((0, 1), (1, 0)) if node.op == "Mul" else ((0, 1),):
            x, k = node.inputs[slot], node.inputs[other]
            if x is None or k is None or not keeps_rank(k, x):
                continue
            factor = number_of(k) if node.op == "Mul" else inverse_of("Div", k)
            if factor is None:
                self._fail(node, "not scaled by a constant number")
                continue
            self._enter(node)
            for _ in self._match_number(e.factor, Scalar(factor, k.dtype, node)):
                yield from self._match(e.x, x)
            self._leave(node)

    def _match_op(self, e: Op, value: Value) -> Iterator[None]:
        found = value.node.op == e.op and value.node.domain == e.domain
        if found:
            yield from self._match_node(e, value)
        elif value.node.op not in COPIES:
            # Where most attempts end: there is nothing to look through.
            self._fail(value.node, "{}, wanted {}", value.node.op, e.op)
            return
        # A pattern of Casts may stand behind one that changes nothing.
        if not found or (e.op in COPIES and see_through(value) is not None):
            for inner in self._through(value, (e.op,)):
                yield from self._match_op(e, inner)

    def _match_node(self, e: Op, value: Value) -> Iterator[None]:
        node = value.node
        known = self._outputs.get(e.identity)
        if value.index != e.index or (known is not None and known is not node):
            self._fail(node, "another output")
            return
        if known is node:
            yield
            return
        slots, reason = self._slots(e, node)
        if reason:
            self._fail(node, reason)
            return
        self._outputs[e.identity] = node
        self._enter(node)
        for _ in self._match_attrs(e, node):
            if e.op in COMMUTATIVE and not e.domain:
                given = [value for value in (node.inputs[: node.arity] if e.rest else slots) if value is not None]
                yield from self._assign(_ordered(e.operands), given, given)
            else:
                yield from self._operands(e.operands, slots)
        self._leave(node)
        del self._outputs[e.identity]

    def _slots(self, e: Op, node: Node) -> tuple[list[Value | None], str]:
        """The inputs that stand for the pattern's operands; inputs that the pattern names as attributes are not."""
        slots = node.inputs[: node.arity]
        named = signature(node.domain, node.op, node.version) if e.attrs else None
        if named is not None:
            slots = [v for i, v in enumerate(slots) if i >= len(named.inputs) or named.inputs[i] not in e.attrs]
        while len(slots) > len(e.operands) and slots[-1] is None:
            slots.pop()
        if e.rest:
            slots = slots[: len(e.operands)]
        if len(slots) > len(e.operands):
            return [], f"{len(slots)} inputs, wanted {len(e.operands)}"
        return slots + [None] * (len(e.operands) - len(slots)), ""

    def _operands(self, operands: tuple[Expr | None, ...], slots: list[Value | None]) -> Iterator[None]:
        return self._operand(operands, slots, _order(operands), 0)

    def _operand(
        self, operands: tuple[Expr | None, ...], slots: list[Value | None], order: tuple[int, ...], at: int
    ) -> Iterator[None]:
        if at == len(order):
            yield
            return
        operand, value = operands[order[at]], slots[order[at]]
        if operand is None or value is None:
            found = self._absent(operand) if value is None else iter(())
        else:
            found = self._match_leaf(operand, value, slots)
        for _ in found:
            yield from self._operand(operands, slots, order, at + 1)

    def _absent(self, operand: Expr | None) -> Iterator[None]:
        """An empty slot: matches an operand that is left out, or an optional variable, which stays None."""
        match operand:
            case None:
                yield
            case Var(name=name, optional=True):
                bound = self._bound.get(name, _UNBOUND)
                if bound is _UNBOUND:
                    self._bound[name] = None
                    yield
                    del self._bound[name]
                elif bound is None:
                    yield
            case Alt():
                for branch in self._branches(operand):
                    yield from self._absent(branch)

    def _match_attrs(self, e: Op, node: Node) -> Iterator[None]:
        others = [name for name in node.attrs if name not in e.attrs]
        if e.kept is not None:
            return self._kept(e, e.kept.name, node, {name: attribute(node, name) for name in others})
        for name in others:
            if not e.rest and not is_default(node, name):
                self._fail(node, "{} is {}, not the default", name, node.attrs[name])
                return iter(())
        return self._attr(node, list(e.attrs.items()), 0)

    def _kept(self, e: Op, name: str, node: Node, others: dict[str, Any]) -> Iterator[None]:
        """Binds the attributes that the pattern does not name, as they are."""
        if UNKNOWN in others.values() or self._bound.get(name, others) != others:
            self._fail(node, "other attributes than '{}'", name)
            return
        before = self._bound.get(name, _UNBOUND)
        self._bound[name] = others
        yield from self._attr(node, list(e.attrs.items()), 0)
        if before is _UNBOUND:
            del self._bound[name]

    def _attr(self, node: Node, wanted: list[tuple[str, Any]], at: int) -> Iterator[None]:
        if at == len(wanted):
            yield
            return
        name, want = wanted[at]
        found = attribute(node, name)
        if found is UNKNOWN:
            self._fail(node, "{} is not a constant", name)
            return
        if isinstance(want, Var):
            bound = self._bound.get(want.name, _UNBOUND)
            if bound is _UNBOUND:
                self._bound[want.name] = found
                yield from self._attr(node, wanted, at + 1)
                del self._bound[want.name]
                return
            want = bound
        if callable(want):
            refused = refusal(want(found), _UNWANTED)
        else:
            refused = "" if same_attribute(node, name, want, found) else f"wanted {want}"
        if refused:
            self._fail(node, "{} {}, {}", name, found, refused)
        else:
            yield from self._attr(node, wanted, at + 1)

    # ---- sums and products --------------------------------------------------------------------------------------

    def _match_chain(self, e: Chain, value: Value) -> Iterator[None]:
        operands = _ordered(e.operands)
        for leaves in self._cuts(e.op, value, len(operands)):
            yield from self._assign(operands, leaves, leaves)

    def _cuts(self, op: str, leaf: Leaf, count: int) -> Iterator[list[Leaf]]:
        """Every way to read `leaf` as a chain of `op` with `count` operands."""
        self._step()
        if count == 1:
            yield [leaf]
        elif isinstance(leaf, Value):
            parts = parts_of(op, leaf.node)
            if parts is None:
                for inner in self._through(leaf, LINKS[op]):
                    yield from self._cuts(op, inner, count)
            elif parts:
                self._enter(leaf.node)
                yield from self._spread(op, parts, count)
                self._leave(leaf.node)

    def _spread(self, op: str, parts: Sequence[Leaf], count: int) -> Iterator[list[Leaf]]:
        """Every way to read `parts`, joined by `op`, as a chain with `count` operands."""
        first, *others = parts
        if not others:
            yield from self._cuts(op, first, count)
            return
        for share in range(1, count - len(others) + 1):
            for left in self._cuts(op, first, share):
                for right in self._spread(op, others, count - share):
                    yield [*left, *right]

    def _assign(
        self, operands: Sequence[Expr | None], leaves: Sequence[Leaf | None], whole: Sequence[Leaf | None]
    ) -> Iterator[None]:
        """Every way to give each operand one of `leaves`, which are left of the `whole` chain."""
        if not operands:
            yield
            return
        first = operands[0]
        if len(leaves) < len(operands):
            for _ in self._absent(first):
                yield from self._assign(operands[1:], leaves, whole)
        if first is None:
            return
        tried: set[Leaf] = set()
        for index, leaf in enumerate(leaves):
            if leaf is None or leaf in tried:
                continue
            tried.add(leaf)
            for _ in self._match_leaf(first, leaf, whole):
                yield from self._assign(operands[1:], [*leaves[:index], *leaves[index + 1 :]], whole)

    def _match_leaf(self, operand: Expr, leaf: Leaf, others: Sequence[Leaf | None]) -> Iterator[None]:
        """One operand beside `others`: a constant number must not raise the rank of the result."""
        if isinstance(leaf, Scalar):
            self._step()
            return self._match_number(operand, leaf)
        if isinstance(leaf, Inverse):
            self._step()
            return self._match_inverse(operand, leaf)
        if isinstance(operand, Alt) and operand not in self.pattern.parts:
            return (found for branch in self._branches(operand) for found in self._match_leaf(branch, leaf, others))
        if _is_number(operand) and raises_rank(leaf, others):
            self._fail(leaf.node, "a constant that raises the rank")
            return iter(())
        return self._match(operand, leaf)

    def _match_inverse(self, e: Expr, leaf: Inverse) -> Iterator[None]:
        """`x - y` is a sum with Neg(y), `x / y` a product with 1 / y."""
        subtracted = leaf.node.op == "Sub"
        match e:
            case Alt() if e not in self.pattern.parts:
                for branch in self._branches(e):
                    yield from self._match_inverse(branch, leaf)
            case Scaled(x=inner, factor=factor) if subtracted:
                for _ in self._match_number(factor, Scalar(-1.0, leaf.value.dtype, leaf.node)):
                    yield from self._match(inner, leaf.value)
            case Op(op="Neg", domain="", operands=(Expr() as inner,)) if subtracted:
                yield from self._match(inner, leaf.value)
            case Op(op="Reciprocal", domain="", operands=(Expr() as inner,)) if not subtracted:
                yield from self._match(inner, leaf.value)
            case Op(op="Div", domain="", operands=(Literal(value=1.0), Expr() as inner)) if not subtracted:
                yield from self._match(inner, leaf.value)

    # ---- bookkeeping --------------------------------------------------------------------------------------------

    def _enter(self, node: Node) -> None:
        """`node` is inside the match until `_leave`."""
        self._inside[node] = self._inside.get(node, 0) + 1

    def _leave(self, node: Node) -> None:
        self._inside[node] -= 1
        if not self._inside[node]:
            del self._inside[node]

    def _through(self, value: Value, ops: tuple[str, ...]) -> Iterator[Value]:
        """The nearest output of one of `ops` that `value` is a plain copy of; what lies between joins the match."""
        copies, inner = [value.node], see_through(value)
        while inner is not None and inner.node.op not in ops:
            copies.append(inner.node)
            inner = see_through(inner)
        if inner is None:
            self._fail(copies[-1], "{}, wanted {}", copies[-1].op, " or ".join(ops))
            return
        before = dict(self._inside)
        self._inside.update((node, self._inside.get(node, 0) + 1) for node in copies)
        yield inner
        self._inside = before

    def _fits(self) -> bool:
        """Whether what must broadcast into dimensions does; they are all known once everything is matched."""
        for var in self.pattern.spread:
            value, into = self._bound.get(var.name), var.constraint.into
            if isinstance(value, Value) and into is not None and (reason := self._sizes.widened(into, value)):
                self._fail(value.node, "'{}' {}", var.name, reason)
                return False
        return True

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self.budget:
            raise StepsUsedUp

    def _fail(self, node: Node, reason: str, *details: object) -> None:
        """Told why an attempt ended, in words that `details` go into: for those who explain."""


def _is_number(e: Expr) -> bool:
    """Whether `e` is a constant number, whatever is asked of it besides."""
    while isinstance(e, Check):
        e = e.inner
    return isinstance(e, Literal) or (isinstance(e, Var) and e.kind in ("number", "factor"))


def _ordered(operands: Sequence[Expr | None]) -> list[Expr | None]:
    return [operands[index] for index in _order(tuple(operands))]


@lru_cache(1 << 12)
def _order(operands: tuple[Expr | None, ...]) -> tuple[int, ...]:
    """The order in which operands are tried: those that fail cheaply first."""
    return tuple(sorted(range(len(operands)), key=lambda index: _cost(operands[index])))


def _cost(e: Expr | None) -> int:
    """Constants, then structures, then variables."""
    match e:
        case None | Literal():
            return 0
        case Var(kind="number" | "factor"):
            return 1
        case Var(constraint=c):
            return 4 if c.constant else 5
        case Check(inner=inner) | Captured(outer=inner) | SuchAs(var=inner):
            return _cost(inner)
        case Alt() | Scaled():
            return 3
    return 2
