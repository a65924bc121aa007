"""Two models laid side by side, whatever their values are called: what is the same, and where they part.

From the inputs up, values are the same that have one number (`structure`). From the outputs down, values correspond
that are used in the same place, slot by slot, as long as the operators that use them are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from graphopt.ir import Graph, Model, Node, Value, dtypes
from graphopt.ir.operands import scalar
from graphopt.ir.schema import signature
from graphopt.verify.cuts import is_initializer
from graphopt.verify.results import Parting
from graphopt.verify.structure import Constants, Numbers, Structure

_COMMUTATIVE: Final = frozenset({"Add", "Mul", "And", "Or", "Xor", "Equal"})
_ROOTS: Final = ("Sqrt", "Pow")
_LARGEST: Final = 1e-2
"""The largest number that is an epsilon below a root."""

_NEAR: Final = 1e-3
"""The share by which one epsilon in two precisions may differ."""

_FEW: Final = 4
"""Numbers of a constant that are shown."""

Couple = tuple[Value, Value]


class Alignment:
    """The values of two models that have one interface, side by side."""

    def __init__(self, reference: Model, candidate: Model) -> None:
        numbers = Numbers()
        constants = Constants(reference, numbers)
        self._before = Structure(reference, numbers, constants)
        self._after = Structure(candidate, numbers, constants)
        self._reference, self._candidate = _needed(reference.graph), _needed(candidate.graph)
        self._outputs = list(zip(reference.graph.outputs, candidate.graph.outputs, strict=True))
        # By use: values of the reference, each with that of the candidate, and the nodes that do the same.
        self._used: dict[Value, Value] = {}
        self._alike: dict[Node, Node] = {}

    @property
    def is_equal(self) -> bool:
        """Whether all outputs are computed in the same way."""
        return all(map(self._is_one, self._outputs))

    def couples(self) -> list[Couple]:
        """Computed values that correspond and are not equal by structure, in the reference's order.

        They correspond by use, or have one name if most that do so by use have, and one type and shape.
        """
        self._align()
        named = {value.name: value for node in self._candidate for value in node.outputs}
        found = {a: named[a.name] for node in self._reference for a in node.outputs if a.name in named}
        # Where most names survive they tell: operands of a sum may be used in each other's place.
        if 2 * sum(a.name == b.name for a, b in self._used.items()) <= len(self._used):
            found |= self._used
        couples = [(a, b) for a, b in found.items() if (a.dtype, a.shape) == (b.dtype, b.shape)]
        moving = [pair for pair in couples if not self._is_one(pair) and pair[0].tensor is None]
        return sorted(moving, key=lambda pair: (pair[0].node.rank, pair[0].index))

    def retuned(self) -> list[tuple[Node, Node]]:
        """The nodes that differ in real attributes, or epsilons, alone, in the reference's order; else none.

        So the two are one graph, node for node, and have one constant in one place.
        """
        self._align()
        pairs = {a.node: b.node for a, b in self._used.items()}
        odd = sorted((pair for pair in pairs.items() if self._alike.get(pair[0]) is not pair[1]), key=_rank)
        readers = [_readers(pair) for pair in odd]
        if len(self._reference) != len(self._candidate) or not all(map(self._is_retuned, readers)):
            return []
        return readers

    def _is_retuned(self, pair: tuple[Node, Node]) -> bool:
        a, b = pair
        if (a.domain, a.op, a.version, len(a.inputs)) != (b.domain, b.op, b.version, len(b.inputs)) or a.graphs:
            return False
        if epsilons(a, b) is not None:
            return True
        different = attributes_that_differ(a, b)
        # Shapes and orders of axes differ where the data is the same.
        are_real = all(isinstance(one, float) for _, *both in different for one in both)
        return all(map(self._is_one, _fixed(self._operands(a, b)))) and bool(different) and are_real

    def parting(self) -> Parting:
        """How much is the same, and the first nodes that are not."""
        self._align()
        there = {self._after[value] for node in self._candidate for value in node.outputs}
        here = {self._before[value] for node in self._reference for value in node.outputs}
        left = [node for node in self._reference if any(self._before[value] not in there for value in node.outputs)]
        new = [node for node in self._candidate if any(self._after[value] not in here for value in node.outputs)]
        # What is alike may still not be known to be equal: it comes after a difference, or is of another version.
        alike = set(self._alike.values())
        other_left = [node for node in left if node not in self._alike]
        old = next(iter(other_left or left), None)
        there_is = next((self._used[v].node for v in old.outputs if v in self._used), None) if old is not None else None
        other = there_is or next((node for node in new if node not in alike), None)
        difference = self._difference(old, other) if old is not None and other is not None else ""
        total = max(len(self._reference), len(self._candidate))
        return Parting(len(self._reference) - len(other_left), total, describe(old), describe(other), difference)

    def _is_one(self, couple: Couple) -> bool:
        return self._before[couple[0]] == self._after[couple[1]]

    def _align(self) -> None:
        waiting = [] if self._used else self._outputs[::-1]
        while waiting:
            old, new = map(_behind_identity, waiting.pop())
            if old.node.is_source or new.node.is_source or old in self._used or self._is_one((old, new)):
                continue
            self._used[old] = new
            a, b = old.node, new.node
            if (a.domain, a.op, old.index, len(a.inputs)) == (b.domain, b.op, new.index, len(b.inputs)):
                operands = self._operands(a, b)
                does = self._before.operators[a] == self._after.operators[b] or not (
                    a.graphs or attributes_that_differ(a, b)
                )
                if does and all(map(self._is_one, _fixed(operands))):
                    self._alike[a] = b
                waiting += operands[::-1]

    def _operands(self, a: Node, b: Node) -> list[Couple]:
        """What two nodes of one operator read, slot by slot."""
        slots = list(zip(a.inputs, b.inputs, strict=True))
        couples = [(old, new) for old, new in slots if old is not None and new is not None]
        if a.op in _COMMUTATIVE and not a.domain and len(couples) == 2:
            crossed = [(couples[0][0], couples[1][1]), (couples[1][0], couples[0][1])]
            if any(map(self._is_one, crossed)) and not any(map(self._is_one, couples)):
                return crossed
        return couples

    def _difference(self, a: Node, b: Node) -> str:
        """What differs between two nodes of one operator: attributes, constants, or else what they read."""
        if (a.domain, a.op, len(a.inputs)) != (b.domain, b.op, len(b.inputs)):
            return ""
        found = [f"{name} is {old} and {new}" for name, old, new in attributes_that_differ(a, b)]
        for old, new in _fixed(self._operands(a, b)):
            if not self._is_one((old, new)):
                shown = _shown(old), _shown(new)
                differs = f"is {shown[0]} and {shown[1]}" if shown[0] != shown[1] else f"{shown[0]} holds other numbers"
                found.append(f"the constant '{old.name}' {differs}")
        others = [describe(one.node) for couple in self._operands(a, b) if not self._is_one(couple) for one in couple]
        if found or others:
            return ", ".join(found) or f"it reads {others[0]} and {others[1]}"
        if a.version != b.version:
            return f"its version is {a.version} and {b.version}"
        return "it reads the same in another order" if a.op in _COMMUTATIVE else ""


def describe(node: Node | None) -> str:
    """A node for people: `'layer.3/attn/Softmax' (Softmax)`."""
    return f"'{node.label}' ({node.op})" if node is not None else ""


def epsilons(a: Node, b: Node) -> tuple[float, float] | None:
    """The small numbers that two sums add below a root, where they are not the same."""
    if not (a.is_op("Add") and b.is_op("Add") and _is_below_root(a) and _is_below_root(b)):
        return None
    old, new = (next((n for v in node.inputs if 0 < (n := scalar(v) or 0) <= _LARGEST), None) for node in (a, b))
    return (old, new) if old is not None and new is not None and abs(old - new) > _NEAR * old else None


def _is_below_root(node: Node) -> bool:
    readers = [reader for reader, _ in node.graph.consumers(node.outputs[0])]
    return bool(readers) and all(reader.op in _ROOTS for reader in readers)


def _readers(pair: tuple[Node, Node]) -> tuple[Node, Node]:
    """Instead of two nodes that are constants, the ones that read them, where each has one reader."""
    found = [[reader for value in node.outputs for reader, _ in node.graph.consumers(value)] for node in pair]
    if all(node.is_op("Constant") for node in pair) and all(len(readers) == 1 for readers in found):
        return found[0][0], found[1][0]
    return pair


def _needed(graph: Graph) -> list[Node]:
    """The operations that the outputs depend on, in order, but for Identity."""
    found: set[Node] = set()
    stack = [graph.output]
    while stack:
        for value in stack.pop().inputs:
            if value is not None and value.node not in found and not value.node.is_source:
                found.add(value.node)
                stack.append(value.node)
    return sorted((node for node in found if not node.is_op("Identity")), key=lambda node: node.rank)


def _behind_identity(value: Value) -> Value:
    while value.node.is_op("Identity") and value.node.inputs[0] is not None:
        value = value.node.inputs[0]
    return value


def _rank(pair: tuple[Node, Node]) -> int:
    return pair[0].rank


def _fixed(operands: list[Couple]) -> Iterator[Couple]:
    return (couple for couple in operands if any(map(is_initializer, couple)))


def attributes_that_differ(a: Node, b: Node) -> list[tuple[str, Any, Any]]:
    """The attributes that differ between two nodes of one operator, whatever their versions."""
    known = signature(a.domain, a.op, a.version)
    names = a.attrs.keys() | b.attrs.keys() | (known.attributes.keys() if known is not None else set())
    written = ((name, a.attr(name), b.attr(name)) for name in sorted(names))
    return [one for one in written if one[1] != one[2]]


def _shown(value: Value) -> str:
    """A small constant's numbers, a large one's type and shape."""
    if value.tensor is None:
        return f"computed by {describe(value.node)}" if not value.node.is_source else "an input"
    if value.tensor.size <= _FEW:
        return str(value.tensor.numpy())
    return f"{dtypes.NAMES[value.tensor.dtype]}[{', '.join(map(str, value.tensor.shape))}]"
