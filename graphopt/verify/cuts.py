"""Cut points, regions and cones: where two models may differ, from the names that survived in both.

A value of the main graph whose name is in both models is a cut point: a kept name keeps its meaning. If, at every cut
point, what both models compute from the cut points before it is equal, then by induction the models are equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from graphopt.ir import Graph, Model, Node, Tensor, Value
from graphopt.ir.attributes import is_sparse
from graphopt.ir.model import Function, FunctionKey
from graphopt.ir.node import IR_DOMAIN
from graphopt.verify.structure import Constants, Numbers, Structure

Functions = Mapping[FunctionKey, Function]


@dataclass(frozen=True)
class Cone:
    """What computes some values from the nearest cuts: nodes in topological order, the boundary, and constants by name.

    A sparse initializer is a constant without a tensor. `aliases` are values that stand for one of the boundary or of
    the constants.
    """

    nodes: tuple[Node, ...]
    boundary: tuple[str, ...]
    constants: Mapping[str, Tensor | None]
    aliases: Mapping[str, str]


@dataclass(frozen=True)
class Cuts:
    """The names of cut points. `constants` holds those that are a constant in one of the models, with its data.

    Once that is shown equal to what the other model computes, it may stand for it in both. `read_as` says for every cut
    point, and for every value that the original computes a second time, the first cut point that is the same there: to
    merge common subexpressions changes nothing.
    """

    names: frozenset[str]
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    read_as: Mapping[str, str] = field(default_factory=dict)

    def read(self, value: Value) -> str:
        """The name that a cone reads `value` by."""
        return value.name if value.name in self.names else self.read_as.get(value.name, value.name)

    def cone(self, roots: Iterable[Value]) -> Cone:
        """The cone of `roots`: back to the cuts, which the roots themselves do not count as."""
        nodes: set[Node] = set()
        boundary: dict[str, None] = {}
        constants: dict[str, Tensor | None] = {}
        aliases: dict[str, str] = {}
        stack: list[Node] = []
        for root in roots:
            if is_initializer(root):
                constants[root.name] = root.tensor
            elif root.node.is_source:
                boundary[root.name] = None
            else:
                stack.append(root.node)
        while stack:
            node = stack.pop()
            if node in nodes:
                continue
            nodes.add(node)
            for value in node.inputs:
                if value is None:
                    continue
                name = self.read(value)
                if name != value.name:
                    aliases[value.name] = name
                if is_initializer(value):
                    constants[name] = value.tensor
                elif name in self.constants:
                    constants[name] = self.constants[name]
                elif value.node.is_source or name in self.names:
                    boundary[name] = None
                else:
                    stack.append(value.node)
        return Cone(tuple(sorted(nodes, key=lambda node: node.rank)), tuple(boundary), constants, aliases)


@dataclass(frozen=True, eq=False)
class Region:
    """What lies between a cut point and the cuts before it, in both models.

    `output` is the name of the cut point, `key` tells the same region in another candidate. `operators` are numbers of
    what nodes do, whatever they read; an Identity has none. `functions` are those of the original and of the candidate.
    """

    output: str
    original: Value
    candidate: Value
    cuts: Cuts = field(repr=False)
    key: tuple[str, int, int] = field(repr=False)
    operators: Mapping[Node, int] = field(repr=False)
    functions: tuple[Functions, Functions] = field(repr=False)

    @cached_property
    def original_cone(self) -> Cone:
        return self.cuts.cone([self.original])

    @cached_property
    def candidate_cone(self) -> Cone:
        return self.cuts.cone([self.candidate])

    @property
    def inputs(self) -> tuple[str, ...]:
        """The boundary: names of the cuts that either cone starts from."""
        return tuple(dict.fromkeys([*self.original_cone.boundary, *self.candidate_cone.boundary]))

    @property
    def names(self) -> frozenset[str]:
        """The names of the values that either cone computes, those in subgraphs and called functions as well."""
        before, after = self.functions
        nodes = [*_within(self.original_cone.nodes, before), *_within(self.candidate_cone.nodes, after)]
        return frozenset(value.name for node in nodes for value in node.outputs) | {self.output}


class Comparer:
    """Finds the regions in which candidates differ from one original; the keys of regions are the same every time."""

    def __init__(self, original: Model) -> None:
        self._original = original
        self._numbers = Numbers()
        self._operators: dict[Node, int] = {}
        self.constants = Constants(original, self._numbers)
        self._whole = Structure(original, self._numbers, self.constants, operators=self._operators)

    def regions(self, candidate: Model) -> tuple[list[Region], int]:
        """The regions that differ, in the original's order, and how many cut points are equal without a run."""
        names = self._original.graph.names
        cuts = self._cuts(candidate.graph)
        operators = dict(self._operators)
        before = Structure(self._original, self._numbers, self.constants, cuts.read_as, operators)
        after = Structure(candidate, self._numbers, self.constants, cuts.read_as, operators)
        functions = self._original.functions, candidate.functions
        found, free = [], 0
        for name in _roots(self._original.graph, candidate.graph, cuts):
            old, new = names[name], candidate.graph.names[name]
            if _are_empty(old, new) or after[new] in (before[old], self._numbers(("cut", cuts.read_as.get(name)))):
                free += 1
            else:
                key = name, before[old], after[new]
                found.append(Region(name, old, new, cuts, key, operators, functions))
        return found, free

    def _cuts(self, candidate: Graph) -> Cuts:
        original = self._original.graph
        names = set()
        constants: dict[str, Tensor] = {}
        for name in original.names.keys() & candidate.names.keys():
            pair = original.names[name], candidate.names[name]
            if any(is_sparse(value.node) for value in pair):
                continue
            given = [value.node.op == "Input" and value.node.is_source for value in pair]
            fixed = [value.tensor for value in pair if value.tensor is not None or is_initializer(value)]
            if all(given) or (not any(given) and len(fixed) < 2):
                names.add(name)
                constants.update((name, tensor) for tensor in fixed if tensor is not None)
        # For each number that a value has in the original as a whole, the first cut point that has it.
        first: dict[int, str] = {}
        fixed_numbers = {self._whole[value] for value in original.names.values() if is_initializer(value)}
        for value in sorted((original.names[name] for name in names), key=_place):
            if self._whole[value] not in fixed_numbers:
                first.setdefault(self._whole[value], value.name)
        read_as = {}
        for value in original.names.values():
            twin = first.get(self._whole[value], value.name if value.name in names else None)
            if twin is not None and not is_initializer(value):
                read_as[value.name] = twin
        return Cuts(frozenset(names), constants, read_as)


def regions(original: Model, candidate: Model) -> tuple[list[Region], int]:
    """The regions in which two models differ, and how many cut points are equal without a run."""
    return Comparer(original).regions(candidate)


def _within(nodes: Iterable[Node], functions: Functions) -> list[Node]:
    """`nodes`, and those in their subgraphs and in the functions that they call, however deep."""
    found: list[Node] = []
    called: set[FunctionKey] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        found.append(node)
        graphs = list(node.subgraphs)
        key = node.domain, node.op, node.overload
        if key in functions and key not in called:
            called.add(key)
            graphs.append(functions[key].graph)
        waiting += [inner for graph in graphs for inner in graph.ops()]
    return found


def _place(value: Value) -> tuple[int, int]:
    return value.node.rank, value.index


def _roots(original: Graph, candidate: Graph, cuts: Cuts) -> list[str]:
    """The names to compare: cut points that an output depends on in either model, and the outputs themselves."""
    alive = {value.name for graph in (original, candidate) for value in _alive(graph)} & cuts.names
    alive |= {value.name for value in original.outputs}
    values = (original.names[name] for name in alive)
    return [v.name for v in sorted(values, key=_place) if v.node.op != "Input"]


def _are_empty(a: Value, b: Value) -> bool:
    """Whether both are tensors without elements, of one type and shape."""
    return a.shape is not None and 0 in a.shape and (a.dtype, a.shape) == (b.dtype, b.shape)


def _alive(graph: Graph) -> Iterable[Value]:
    """The values that the graph's outputs depend on."""
    seen = {graph.output}
    stack = [graph.output]
    while stack:
        for value in stack.pop().inputs:
            if value is None:
                continue
            yield value
            if value.node not in seen:
                seen.add(value.node)
                stack.append(value.node)


def is_initializer(value: Value) -> bool:
    """Whether `value` is an initializer that no caller can override."""
    return value.node.domain == IR_DOMAIN and value.node.op == "Constant"
