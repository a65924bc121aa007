"""Finding a pattern in a graph: complete backtracking over alternatives, operand orders, bracketings and options.

Every `_match_*` is a generator that yields once for each way to match, with the bindings of that way in place, and
takes them back when it is resumed. So a failure later on reopens every choice made earlier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from graphopt.ir import Node, Value, dtypes
from graphopt.ir.schema import signature
from graphopt.rewrite.facts import (
    UNKNOWN,
    attribute,
    close,
    constant_of,
    inverse_of,
    is_default,
    keeps_rank,
    number_of,
    same_attribute,
    same_value,
    see_through,
    source_of,
)
from graphopt.rewrite.pattern import (
    Alt,
    Anchor,
    Chain,
    Constraint,
    EachUse,
    Expr,
    Literal,
    Op,
    Pattern,
    Scaled,
    Var,
    children,
)

_COMMUTATIVE = frozenset({"Add", "Mul", "And", "Or", "Xor", "Equal", "Max", "Min"})
_INVERSE = {"Add": "Sub", "Mul": "Div"}
_UNBOUND: Any = object()


class Scalar(NamedTuple):
    """A constant number of a node: as it is written, or what `x - c` adds and `x / c` multiplies with."""

    number: float
    dtype: int
    node: Node


Leaf = Value | Scalar


class StepsUsedUp(Exception):
    """The step budget of one root and rule is spent."""


@dataclass
class Match:
    """One way a pattern matches: variables, the nodes inside, and the values that the rewrite replaces."""

    bindings: dict[str, Any]
    nodes: list[Node]
    roots: list[Value]


@dataclass
class Miss:
    """Why the attempt that came furthest failed. Data for `explain`: the node that blocked and the words."""

    depth: int = -1
    node: Node | None = None
    reason: str = ""


@dataclass
class Matcher:
    """Matches one pattern at one root. `steps` counts every value compared with an expression."""

    pattern: Pattern
    budget: int = 20_000
    steps: int = 0
    miss: Miss = field(default_factory=Miss)
    _bound: dict[str, Any] = field(default_factory=dict)
    _dims: dict[str, Any] = field(default_factory=dict)
    _inside: dict[Node, int] = field(default_factory=dict)
    _outputs: dict[Op, Node] = field(default_factory=dict)
    _parts: dict[Expr, Value] = field(default_factory=dict)

    def matches(self, node: Node) -> Iterator[Match]:
        """Every way the pattern matches with its first root at `node`.

        Raises: StepsUsedUp.
        """
        first = self.pattern.roots[0]
        if isinstance(first, EachUse):
            yield from self._each_use(first, node)
        elif isinstance(first, Anchor):
            yield from self._anchored(first, node)
        elif (value := _output(first, node)) is not None:
            for _ in self._match(first, value):
                yield from self._more_roots(1, [value])

    def _more_roots(self, number: int, found: list[Value]) -> Iterator[Match]:
        if number == len(self.pattern.roots):
            yield Match(self._bindings(), list(self._inside), found)
            return
        root = self.pattern.roots[number]
        for candidate in self._reached(root):
            if candidate not in found:
                for _ in self._match(root, candidate):
                    yield from self._more_roots(number + 1, [*found, candidate])

    def _bindings(self) -> dict[str, Any]:
        unbound = {name: 1.0 if var.kind == "factor" else None for name, var in self.pattern.variables.items()}
        return {name: self._bound.get(name, default) for name, default in unbound.items()}

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
            yield Match(self._bindings(), list(below), roots)

    def _each_use(self, e: EachUse, node: Node) -> Iterator[Match]:
        value = _output(e.value, node)
        for _ in self._match(e.value, value) if value is not None else ():
            assert value is not None
            readers = dict.fromkeys(reader for reader, _ in node.graph.consumers(value))
            uses: list[Match] = []
            for reader in readers:
                use = self._one_use(e, value, reader)
                if use is None:
                    break
                uses.append(use)
            else:
                if uses:
                    lists = {name: [use.bindings[name] for use in uses] for name in self.pattern.variables}
                    nodes = dict.fromkeys([*self._inside, *(inner for use in uses for inner in use.nodes)])
                    yield Match({**lists, **self._bound}, list(nodes), [use.roots[0] for use in uses])

    def _one_use(self, e: EachUse, value: Value, reader: Node) -> Match | None:
        """How one consumer of `value` matches; what is bound already holds in it, too."""
        use = Matcher(self.pattern, self.budget, self.steps, self.miss)
        use._bound = {**self._bound, e.seen.name: value}
        use._dims, use._outputs = dict(self._dims), dict(self._outputs)
        root = _output(e.use, reader)
        try:
            for _ in use._match(e.use, root) if root is not None else ():
                assert root is not None
                return Match(use._bindings(), list(use._inside), [root])
        finally:
            self.steps = use.steps
        self._fail(reader, "{} uses the value in another way", reader.op)
        return None

    def _reached(self, e: Expr) -> list[Value]:
        """Values that `e` could be: reached by walking the uses of a variable in it that is bound already."""
        match e:
            case Var(name=name):
                bound = self._bound.get(name)
                return [source_of(bound)] if isinstance(bound, Value) else []
            case Alt(branches=branches):
                return list(dict.fromkeys(value for branch in branches for value in self._reached(branch)))
            case Op() if e.identity in self._outputs:
                return [self._outputs[e.identity].outputs[e.index]]
        below = next(filter(None, map(self._reached, children(e))), [])
        found: dict[Value, None] = {}
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
        raise TypeError(e)

    def _match_part(self, e: Expr, value: Value) -> Iterator[None]:
        for _ in self._match_kind(e, value):
            self._parts[e] = value
            yield
            del self._parts[e]

    def _match_alt(self, e: Alt, value: Value) -> Iterator[None]:
        for branch in e.branches:
            yield from self._match(branch, value)

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
        dims = dict(self._dims)
        reason = self._constraint(e.constraint, value)
        if reason:
            self._dims = dims
            self._fail(value.node, "'{}' {}", e.name, reason)
            return
        self._bound[e.name] = value
        yield
        del self._bound[e.name]
        self._dims = dims

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
                    self._fail(node, "{:.9g}, wanted {}", number, e)
            case Var(name=name, kind="number"):
                bound = self._bound.get(name, _UNBOUND)
                if bound is _UNBOUND:
                    self._bound[name] = number
                    yield
                    del self._bound[name]
                elif bound is not None and close(bound, number, dtype):
                    yield
                else:
                    self._fail(node, "'{}' is {:.9g} here and {} there", name, number, bound)
            case Var(name=name, kind="factor"):
                before = self._bound.get(name, 1.0)
                self._bound[name] = before * number
                yield
                self._bound[name] = before
            case Alt(branches=branches):
                for branch in branches:
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
            for _ in self._enter(node):
                for _ in self._match_number(e.factor, Scalar(factor, k.dtype, node)):
                    yield from self._match(e.x, x)

    def _match_op(self, e: Op, value: Value) -> Iterator[None]:
        node = value.node
        if node.op != e.op or node.domain != e.domain:
            for inner in self._through(value, (e.op,)):
                yield from self._match_op(e, inner)
            return
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
        for _ in self._enter(node):
            for _ in self._match_attrs(e, node):
                yield from self._operands(e.operands, slots)
                if e.op in _COMMUTATIVE and not e.domain and len(slots) == 2 and slots[0] is not slots[1]:
                    yield from self._operands(e.operands, slots[::-1])
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
            case Alt(branches=branches):
                for branch in branches:
                    yield from self._absent(branch)

    def _match_attrs(self, e: Op, node: Node) -> Iterator[None]:
        for name in node.attrs:
            if not e.rest and name not in e.attrs and not is_default(node, name):
                self._fail(node, "{} is {}, not the default", name, node.attrs[name])
                return iter(())
        return self._attr(node, list(e.attrs.items()), 0)

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
        answer = want(found) if callable(want) else same_attribute(node, name, want, found)
        if isinstance(answer, str) or not answer:
            said = answer or "not as the pattern wants it" if callable(want) else f"wanted {want}"
            self._fail(node, "{} {}, {}", name, found, said)
        else:
            yield from self._attr(node, wanted, at + 1)

    # ---- sums and products --------------------------------------------------------------------------------------

    def _match_chain(self, e: Chain, value: Value) -> Iterator[None]:
        operands = [e.operands[index] for index in _order(e.operands)]
        for leaves in self._cuts(e.op, value, len(operands)):
            yield from self._assign(operands, leaves)

    def _cuts(self, op: str, value: Value, count: int) -> Iterator[list[Leaf]]:
        """Every way to read `value` as a chain of `op` with `count` operands."""
        self._step()
        if count == 1:
            yield [value]
            return
        node, inverse = value.node, _INVERSE[op]
        if node.domain or node.arity != 2 or node.op not in (op, inverse):
            for inner in self._through(value, (op, inverse)):
                yield from self._cuts(op, inner, count)
            return
        a, b = node.inputs[:2]
        if a is None or b is None:
            return
        number = inverse_of(inverse, b) if node.op == inverse else None
        for _ in self._enter(node):
            if node.op == op:
                for split in range(1, count):
                    for left in self._cuts(op, a, split):
                        for right in self._cuts(op, b, count - split):
                            yield [*left, *right]
            elif number is not None and keeps_rank(b, a):
                for left in self._cuts(op, a, count - 1):
                    yield [*left, Scalar(number, b.dtype, node)]

    def _assign(self, operands: list[Expr], leaves: list[Leaf]) -> Iterator[None]:
        if not operands:
            yield
            return
        tried: set[Leaf] = set()
        for index, leaf in enumerate(leaves):
            if leaf in tried:
                continue
            tried.add(leaf)
            others = [*leaves[:index], *leaves[index + 1 :]]
            for _ in self._match_leaf(operands[0], leaf, others):
                yield from self._assign(operands[1:], others)

    def _match_leaf(self, operand: Expr, leaf: Leaf, others: Sequence[Leaf | None]) -> Iterator[None]:
        """One operand beside `others`: a constant number must not raise the rank of the result."""
        if isinstance(leaf, Scalar):
            self._step()
            return self._match_number(operand, leaf)
        if isinstance(operand, Alt) and operand not in self.pattern.parts:
            return (found for branch in operand.branches for found in self._match_leaf(branch, leaf, others))
        is_number = isinstance(operand, Literal) or (isinstance(operand, Var) and operand.kind in ("number", "factor"))
        if is_number and _raises_rank(leaf, others):
            self._fail(leaf.node, "a constant that raises the rank")
            return iter(())
        return self._match(operand, leaf)

    # ---- bookkeeping --------------------------------------------------------------------------------------------

    def _enter(self, node: Node) -> Iterator[None]:
        """`node` is inside the match while the caller looks further."""
        self._inside[node] = self._inside.get(node, 0) + 1
        yield
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

    def _constraint(self, c: Constraint, value: Value) -> str:
        """Why `value` does not satisfy `c`; empty when it does."""
        if c.constant and constant_of(value) is None:
            return "is not a constant"
        if c.rank is not None:
            ranks = (c.rank,) if isinstance(c.rank, int) else c.rank
            if value.rank not in ranks:
                return f"has rank {value.rank}, wanted {' or '.join(map(str, ranks))}"
        if c.dtype is not None and dtypes.NAMES.get(value.dtype) not in c.dtype:
            return f"is {dtypes.NAMES.get(value.dtype, 'of unknown type')}, wanted {' or '.join(sorted(c.dtype))}"
        if c.dims is not None:
            if value.shape is None or len(value.shape) != len(c.dims):
                return f"has shape {value.shape}, wanted {c.dims}"
            for want, size in zip(c.dims, value.shape, strict=True):
                if (self._dims.setdefault(want, size) if isinstance(want, str) else want) != size:
                    return f"has shape {value.shape}, wanted {c.dims}"
        return ""

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self.budget:
            raise StepsUsedUp

    def _fail(self, node: Node, reason: str, *details: object) -> None:
        """Notes why an attempt ended, if none came further. Most are forgotten, so words are put together late."""
        depth = len(self._inside)
        if depth > self.miss.depth:
            self.miss.depth, self.miss.node, self.miss.reason = depth, node, reason.format(*details)


def _output(e: Expr, node: Node) -> Value | None:
    """The output of `node` that `e` means."""
    index = e.index if isinstance(e, Op) else 0
    return node.outputs[index] if index < len(node.outputs) else None


def _raises_rank(number: Value, others: Sequence[Leaf | None]) -> bool:
    """Whether the one-element constant `number` has more dimensions than everything beside it."""
    tensor = constant_of(number)
    if tensor is None or not tensor.shape:
        return False
    values = [other for other in others if isinstance(other, Value) and other is not number]
    return bool(values) and not any(keeps_rank(number, other) and number_of(other) is None for other in values)


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
        case Alt() | Scaled():
            return 3
    return 2
