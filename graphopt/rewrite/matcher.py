"""Finding a pattern in a graph: complete backtracking over alternatives, operand orders, bracketings and options.

Every `_match_*` is a generator that yields once for each way to match, with the bindings of that way in place, and
takes them back when it is resumed. So a failure later on reopens every choice made earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.ir import Node, Tensor, Value, dtypes
from graphopt.ir.attributes import same_tensor
from graphopt.ir.schema import signature
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

Leaf = Value | float


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
    _found: dict[Expr, Value] = field(default_factory=dict)

    def matches(self, node: Node) -> Iterator[Match]:
        """Every way the pattern matches with its first root at `node`.

        Raises: StepsUsedUp.
        """
        first = self.pattern.roots[0]
        if isinstance(first, EachUse):
            yield from self._each_use(first, node)
            return
        if isinstance(first, Anchor):
            yield from self._anchored(first, node)
            return
        index = first.index if isinstance(first, Op) else 0
        if index >= len(node.outputs):
            return
        for _ in self._match(first, node.outputs[index]):
            yield from self._more_roots(1, [node.outputs[index]])

    def _more_roots(self, number: int, found: list[Value]) -> Iterator[Match]:
        if number == len(self.pattern.roots):
            bindings = {name: self._bound.get(name) for name in self.pattern.variables}
            yield Match(bindings, list(self._inside), found)
            return
        root = self.pattern.roots[number]
        for candidate in self._reached(root):
            if candidate not in found:
                for _ in self._match(root, candidate):
                    yield from self._more_roots(number + 1, [*found, candidate])

    def _anchored(self, e: Anchor, node: Node) -> Iterator[Match]:
        for _ in self._match(e.whole, node.outputs[0]):
            roots = [self._found[part] for part in e.parts]
            below: dict[Node, None] = {}
            stack = [root.node for root in roots]
            while stack:
                inner = stack.pop()
                if inner in self._inside and inner not in below:
                    below[inner] = None
                    stack.extend(inner.producers())
            yield Match({name: self._bound.get(name) for name in self.pattern.variables}, list(below), roots)

    def _each_use(self, e: EachUse, node: Node) -> Iterator[Match]:
        value = node.outputs[e.value.index if isinstance(e.value, Op) else 0]
        for _ in self._match(e.value, value):
            outside = set(self._bound)
            found: list[dict[str, Any]] = []
            roots: list[Value] = []
            inside = list(self._inside)
            for reader, _slot in node.graph.consumers(value):
                use = Matcher(self.pattern, self.budget, self.steps, self.miss)
                use._bound = {**self._bound, e.seen.name: value}
                one = next(use._match(e.use, reader.outputs[0]), False) if reader.outputs else False
                self.steps = use.steps
                if one is False:
                    self._fail(reader, f"{reader.op} uses the value in another way")
                    break
                found.append(use._bound)
                roots.append(reader.outputs[0])
                inside.extend(use._inside)
            else:
                if roots:
                    names = self.pattern.variables.keys()
                    bindings = {
                        name: self._bound[name] if name in outside else [one.get(name) for one in found]
                        for name in names
                    }
                    yield Match(bindings, list(dict.fromkeys(inside)), roots)

    def _reached(self, e: Expr) -> list[Value]:
        """Values that `e` could be: reached by walking the uses of a variable in it that is bound already."""
        if isinstance(e, Var):
            bound = self._bound.get(e.name)
            return [bound] if isinstance(bound, Value) else []
        for child in children(e):
            below = self._reached(child)
            if below:
                found: dict[Value, None] = {}
                for value in below:
                    for node, _ in value.node.graph.consumers(value):
                        self._step()
                        found.update(dict.fromkeys(node.outputs))
                return [*below, *found] if isinstance(e, Alt) else list(found)
        return []

    # ---- one generator for each kind of expression --------------------------------------------------------------

    def _match(self, e: Expr, value: Value) -> Iterator[None]:
        self._step()
        self._found[e] = value
        match e:
            case Var():
                return self._match_var(e, value)
            case Op():
                return self._match_op(e, value)
            case Chain():
                return self._match_chain(e, value)
            case Literal():
                return self._match_literal(e, value)
            case Scaled():
                return self._match_scaled(e, value)
            case Alt():
                return self._match_alt(e, value)
        raise TypeError(e)

    def _match_alt(self, e: Alt, value: Value) -> Iterator[None]:
        for branch in e.branches:
            yield from self._match(branch, value)

    def _match_var(self, e: Var, value: Value) -> Iterator[None]:
        if e.kind == "number":
            yield from self._bind_number(e, number_of(value), value.node)
            return
        bound = self._bound.get(e.name, _UNBOUND)
        if bound is not _UNBOUND:
            if isinstance(bound, Value) and same_value(bound, value):
                yield
            else:
                self._fail(value.node, f"'{e.name}' is another value here")
            return
        dims = dict(self._dims)
        reason = self._constraint(e.constraint, value)
        if reason:
            self._dims = dims
            self._fail(value.node, f"'{e.name}' {reason}")
            return
        self._bound[e.name] = value
        yield
        del self._bound[e.name]
        self._dims = dims

    def _bind_number(self, e: Var, number: float | None, node: Node) -> Iterator[None]:
        if number is None:
            self._fail(node, f"'{e.name}' is not a constant number")
            return
        bound = self._bound.get(e.name, _UNBOUND)
        if bound is _UNBOUND:
            self._bound[e.name] = number
            yield
            del self._bound[e.name]
        elif close(bound, number):
            yield
        else:
            self._fail(node, f"'{e.name}' is {number:g} here and {bound:g} there")

    def _match_literal(self, e: Literal, value: Value) -> Iterator[None]:
        number = number_of(value)
        if number is not None and close(e.value, number, value.dtype):
            yield
        else:
            self._fail(value.node, f"{'not a constant number' if number is None else f'{number:.9g}'}, wanted {e}")

    def _match_scaled(self, e: Scaled, value: Value) -> Iterator[None]:
        node = value.node
        if node.domain or node.op not in ("Mul", "Div") or node.arity != 2:
            for inner in self._through(value):
                yield from self._match(e, inner)
            return
        slots = ((0, 1), (1, 0)) if node.op == "Mul" else ((0, 1),)
        for slot, other in slots:
            x, k = node.inputs[slot], node.inputs[other]
            if x is None or k is None:
                continue
            number = number_of(k)
            if number is None or not keeps_rank(k, x) or (node.op == "Div" and number == 0):
                continue
            factor = number if node.op == "Mul" else 1.0 / number
            for _ in self._enter(node):
                bind = (
                    self._bind_number(e.factor, factor, node)
                    if isinstance(e.factor, Var)
                    else iter([None] if isinstance(e.factor, Literal) and close(e.factor.value, factor) else [])
                )
                for _ in bind:
                    yield from self._match(e.x, x)

    def _match_op(self, e: Op, value: Value) -> Iterator[None]:
        node = value.node
        if node.op != e.op or node.domain != e.domain:
            yield from self._match_op_through(e, value)
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
            for _ in self._match_attrs(e, node, list(e.attrs.items())):
                yield from self._operands(e.operands, slots)
                if e.op in _COMMUTATIVE and not e.domain and len(slots) == 2:
                    yield from self._operands(e.operands, slots[::-1])
        del self._outputs[e.identity]

    def _match_op_through(self, e: Op, value: Value) -> Iterator[None]:
        inner = self._through(value)
        if not inner:
            self._fail(value.node, f"{value.node.op}, wanted {e.op}")
        for below in inner:
            for _ in self._enter(value.node):
                yield from self._match(e, below)

    def _slots(self, e: Op, node: Node) -> tuple[list[Value | None], str]:
        """The inputs that stand for the pattern's operands; inputs that the pattern names as attributes are not."""
        named = signature(node.domain, node.op, node.version)
        names = named.inputs if named is not None else ()
        slots = [v for i, v in enumerate(node.inputs[: node.arity]) if not (i < len(names) and names[i] in e.attrs)]
        while len(slots) > len(e.operands) and slots[-1] is None:
            slots.pop()
        if e.rest:
            slots = slots[: len(e.operands)]
        if len(slots) > len(e.operands):
            return [], f"{len(slots)} inputs, wanted {len(e.operands)}"
        return slots + [None] * (len(e.operands) - len(slots)), ""

    def _operands(self, operands: tuple[Expr | None, ...], slots: list[Value | None]) -> Iterator[None]:
        """Matches operand after operand, structured ones before variables: they fail sooner."""
        order = sorted(range(len(operands)), key=lambda i: _cost(operands[i]))
        return self._operand([(operands[i], slots[i], slots) for i in order], 0)

    def _operand(self, pairs: list[tuple[Expr | None, Value | None, list[Value | None]]], at: int) -> Iterator[None]:
        if at == len(pairs):
            yield
            return
        operand, value, slots = pairs[at]
        if operand is None or value is None:
            for _ in self._absent(operand, value):
                yield from self._operand(pairs, at + 1)
            return
        if isinstance(operand, Literal) and not any(o is not value and o and keeps_rank(value, o) for o in slots):
            self._fail(value.node, "a constant that raises the rank")
            return
        for _ in self._match(operand, value):
            yield from self._operand(pairs, at + 1)

    def _absent(self, operand: Expr | None, value: Value | None) -> Iterator[None]:
        """An empty slot: matches an operand that is left out, or an optional variable, which stays None."""
        if value is None and (operand is None or (isinstance(operand, Var) and operand.optional)):
            if operand is None or operand.name not in self._bound:
                if operand is not None:
                    self._bound[operand.name] = None
                yield
                if operand is not None:
                    del self._bound[operand.name]
            elif self._bound[operand.name] is None:
                yield

    def _match_attrs(self, e: Op, node: Node, wanted: list[tuple[str, Any]]) -> Iterator[None]:
        for name in node.attrs:
            if not e.rest and name not in e.attrs and not is_default(node, name):
                self._fail(node, f"{name} is {node.attrs[name]}, not the default")
                return
        yield from self._attr(node, wanted, 0)

    def _attr(self, node: Node, wanted: list[tuple[str, Any]], at: int) -> Iterator[None]:
        if at == len(wanted):
            yield
            return
        name, want = wanted[at]
        found = meaning(node, name)
        if isinstance(want, Var):
            bound = self._bound.get(want.name, _UNBOUND)
            if bound is _UNBOUND:
                self._bound[want.name] = found
                yield from self._attr(node, wanted, at + 1)
                del self._bound[want.name]
                return
            ok = same_attr(node, name, bound, found)
        elif callable(want):
            ok = bool(want(found))
        else:
            ok = same_attr(node, name, want, found)
        if ok:
            yield from self._attr(node, wanted, at + 1)
        else:
            self._fail(node, f"{name} {found}, wanted {want}" if not callable(want) else f"{name} {found}")

    # ---- sums and products --------------------------------------------------------------------------------------

    def _match_chain(self, e: Chain, value: Value) -> Iterator[None]:
        operands = sorted(e.operands, key=_cost)
        for leaves in self._cuts(e.op, value, len(operands)):
            yield from self._assign(operands, leaves)

    def _cuts(self, op: str, value: Value, count: int) -> Iterator[list[Leaf]]:
        """Every way to read `value` as a chain of `op` with `count` operands."""
        self._step()
        if count == 1:
            yield [value]
            return
        node = value.node
        inverse = node.op == _INVERSE[op]
        if node.domain or node.arity != 2 or not (node.op == op or inverse):
            if not (inner := self._through(value)):
                self._fail(node, f"{node.op}, wanted {op}")
            for below in inner:
                for _ in self._enter(node):
                    yield from self._cuts(op, below, count)
            return
        a, b = node.inputs
        if a is None or b is None:
            return
        for _ in self._enter(node):
            if inverse:
                number = number_of(b)
                if number is not None and keeps_rank(b, a) and (op == "Add" or number != 0):
                    for left in self._cuts(op, a, count - 1):
                        yield [*left, -number if op == "Add" else 1.0 / number]
                return
            for split in range(1, count):
                for left in self._cuts(op, a, split):
                    for right in self._cuts(op, b, count - split):
                        yield [*left, *right]

    def _assign(self, operands: list[Expr], leaves: list[Leaf]) -> Iterator[None]:
        if not operands:
            yield
            return
        operand, rest = operands[0], operands[1:]
        tried: set[Leaf] = set()
        for index, leaf in enumerate(leaves):
            if leaf in tried:
                continue
            tried.add(leaf)
            others = [*leaves[:index], *leaves[index + 1 :]]
            for _ in self._match_leaf(operand, leaf, others):
                yield from self._assign(rest, others)

    def _match_leaf(self, operand: Expr, leaf: Leaf, others: list[Leaf]) -> Iterator[None]:
        self._step()
        if isinstance(leaf, float):
            if isinstance(operand, Literal) and close(operand.value, leaf):
                yield
            elif isinstance(operand, Var) and operand.kind == "number":
                bound = self._bound.get(operand.name, _UNBOUND)
                if bound is _UNBOUND:
                    self._bound[operand.name] = leaf
                    yield
                    del self._bound[operand.name]
                elif close(bound, leaf):
                    yield
            return
        is_number = isinstance(operand, Literal) or (isinstance(operand, Var) and operand.kind == "number")
        # Shorter lists of others come later in the assignment: any leaf that stays proves the rank.
        shaped = is_number and leaf.tensor is not None and bool(leaf.tensor.shape)
        if shaped and others and not any(isinstance(o, Value) and keeps_rank(leaf, o) for o in others):
            self._fail(leaf.node, "a constant that raises the rank")
            return
        yield from self._match(operand, leaf)

    # ---- bookkeeping --------------------------------------------------------------------------------------------

    def _enter(self, node: Node) -> Iterator[None]:
        """`node` is inside the match while the caller looks further."""
        self._inside[node] = self._inside.get(node, 0) + 1
        yield
        self._inside[node] -= 1
        if not self._inside[node]:
            del self._inside[node]

    def _through(self, value: Value) -> list[Value]:
        """What `value` equals because its producer changes nothing."""
        inner = see_through(value)
        return [] if inner is None else [inner]

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

    def _fail(self, node: Node, reason: str) -> None:
        depth = len(self._inside)
        if depth > self.miss.depth:
            self.miss.depth, self.miss.node, self.miss.reason = depth, node, reason


def _cost(e: Expr | None) -> int:
    """Operands that fail cheaply come first: constants, then structures, then variables."""
    match e:
        case None | Literal():
            return 0
        case Var(kind="number"):
            return 1
        case Var(constraint=c):
            return 4 if c.constant else 5
        case Alt() | Scaled():
            return 3
    return 2


# ---- facts about values that need no pattern -----------------------------------------------------------------------


def see_through(value: Value) -> Value | None:
    """The value that `value` is a plain copy of: Identity, a Cast to the same type, Dropout in inference."""
    node = value.node
    if node.domain or not node.arity or value.index or node.inputs[0] is None:
        return None
    inner = node.inputs[0]
    match node.op:
        case "Identity":
            return inner
        case "Cast":
            return inner if inner.dtype and inner.dtype == node.attr("to") else None
        case "Dropout":
            mode = node.input(2)
            trained = node.version < 7 and not node.attr("is_test", 0)
            training = mode is not None and (mode.tensor is None or bool(mode.tensor.item()))
            return None if training or trained else inner
    return None


def constant_of(value: Value) -> Tensor | None:
    """The constant data of a value, through what changes nothing; None where it is not a constant."""
    while value.tensor is None:
        inner = see_through(value)
        if inner is None:
            return None
        value = inner
    return value.tensor


def same_value(a: Value, b: Value) -> bool:
    """One value, through what changes nothing, or two equal constants."""
    a, b = _source(a), _source(b)
    if a is b:
        return True
    x, y = a.tensor, b.tensor
    return x is not None and y is not None and x.size <= 4096 and same_tensor(x, y)


def _source(value: Value) -> Value:
    while (inner := see_through(value)) is not None:
        value = inner
    return value


def number_of(value: Value) -> float | None:
    """The number in a constant with one element; None for anything else."""
    tensor = constant_of(value)
    if tensor is None or tensor.size != 1 or tensor.dtype in (dtypes.STRING, dtypes.BOOL):
        return None
    item = tensor.item()
    return None if isinstance(item, complex) else float(item)


def keeps_rank(constant: Value, other: Value) -> bool:
    """Whether an elementwise operation with the one-element `constant` has the rank of `other`."""
    tensor = constant_of(constant)
    rank = len(tensor.shape) if tensor is not None else constant.rank
    return rank is not None and (rank == 0 or (other.rank is not None and rank <= other.rank))


def close(want: float, found: float, dtype: int = dtypes.FLOAT) -> bool:
    """Equal within 2 ulp of the constant's own type or 1e-6 relative."""
    if want == found:
        return True
    if not (np.isfinite(want) and np.isfinite(found)):
        return False
    epsilon = {dtypes.FLOAT16: 2.0**-10, dtypes.BFLOAT16: 2.0**-7}.get(dtype, 0.0)
    return bool(abs(want - found) <= max(1e-6, 2 * epsilon) * abs(want))


def meaning(node: Node, name: str) -> Any:
    """The attribute `name` of a node, whether the opset writes it as attribute or as a constant input."""
    found = node.attr(name)
    if found is not None:
        return found
    known = signature(node.domain, node.op, node.version)
    if known is not None and name in known.inputs:
        value = node.input(known.inputs.index(name))
        tensor = constant_of(value) if value is not None else None
        if tensor is not None:
            return tensor.numpy().tolist()
    return None


def is_default(node: Node, name: str) -> bool:
    """Whether an attribute that is written has the schema's default."""
    known = signature(node.domain, node.op, node.version)
    return known is not None and name in known.attributes and node.attrs[name] == known.attributes[name]


def same_attr(node: Node, name: str, want: Any, found: Any) -> bool:
    """Equal attribute values; axes count from either end, numbers match as constants do."""
    if name in ("axis", "axes") and want is not None and found is not None:
        rank = next((v.rank for v in node.inputs if v is not None), None)
        return _axes(want, rank) == _axes(found, rank)
    if isinstance(want, float) and isinstance(found, float):
        return close(want, found)
    return bool(want == found)


def _axes(axes: Any, rank: int | None) -> list[int]:
    listed = [axes] if isinstance(axes, int) else list(axes)
    return sorted(axis + rank if axis < 0 and rank is not None else axis for axis in listed)
