"""Random numbers: counted in two models, and drawn alike in both, so that what is made of them can be compared.

A draw without a `seed` is given one where a part of a model is written, never in the model. Draws of one kind in two
models stand for each other by the name of their output where it survived, else in the order in which the outputs need
them. An operator that also draws in a subgraph or a function, which may be inlined, has one seed everywhere.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from onnx import FunctionProto, NodeProto, helper

from graphopt.ir import Function, Graph, Model, Node
from graphopt.ir.infer import infer
from graphopt.ir.model import FunctionKey, canonical_domain
from graphopt.ir.schema import is_random, signature
from graphopt.rewrite.facts import number_of, see_through

Kind = tuple[str, str]
"""An operator, and its attributes but for the seed."""


def draws(node: Node, drawing: frozenset[FunctionKey] = frozenset()) -> bool:
    """Whether `node`, or something in its subgraphs, is random; `drawing` are the functions of which calls are."""
    return _draws(node, drawing) or (bool(node.graphs) and any(_draws(inner, drawing) for inner in _inside(node)))


def drawing_functions(functions: Mapping[FunctionKey, Function]) -> frozenset[FunctionKey]:
    """The functions that draw random numbers, themselves or in what they call."""
    found: frozenset[FunctionKey] = frozenset()
    while True:
        more = {key for key, one in functions.items() if any(_draws(node, found) for node in _held(one.graph))}
        if len(more) == len(found):
            return found
        found = frozenset(more)


def difference(reference: Model, candidate: Model) -> str:
    """How the random nodes that the outputs depend on differ in number between two models; empty where they do not."""
    before, after = count(reference), count(candidate)
    changed = sorted(kind for kind in before | after if before[kind] != after[kind])
    if not changed:
        return ""
    named = [f"{op}({attributes})" if len(changed) > 1 else op for op, attributes in changed]
    told = (f"{name}: {before[kind]} and {after[kind]}" for name, kind in zip(named, changed, strict=True))
    return f"the numbers of random nodes in the reference and the candidate differ ({', '.join(told)})"


def count(model: Model) -> Counter[Kind]:
    """How often each kind of draw stands in what the outputs depend on; what a function draws counts at each call."""
    drawing = drawing_functions(model.functions)
    if not any(draws(node, drawing) for node in model.graph.ops()):
        return Counter()
    infer(model)
    counted: dict[FunctionKey, Counter[Kind]] = {}
    while len(counted) < len(drawing):
        # Functions do not call each other in a cycle: in each round the calls of some are counted.
        for key in drawing - counted.keys():
            nodes = list(_held(model.functions[key].graph))
            if all(_key(node) not in drawing or _key(node) in counted for node in nodes):
                counted[key] = _total(nodes, counted)
    return _total((one for node in _needed(model.graph) for one in (node, *_inside(node))), counted)


class Seeds:
    """Seeds for the draws of models that are run side by side."""

    def __init__(self, *models: Model) -> None:
        self._of: dict[Node, int] = {}
        self._drawing = frozenset(key for model in models for key in drawing_functions(model.functions))
        random = [model for model in models if any(draws(node, self._drawing) for node in model.graph.ops())]
        self._of.update((node, _seed(node.op)) for model in random for node in _hidden(model) if _is_draw(node))
        hidden = {node.op for node in self._of}
        named: dict[tuple[Kind, str], int] = {}
        for model in random:
            self._number([node for node in _needed(model.graph) if _is_draw(node)], hidden, named)

    def write(self, node: Node, proto: NodeProto) -> bool:
        """Puts seeds into `proto`, which was written for `node`; whether it draws."""
        random = draws(node, self._drawing)
        if random:
            _put([proto], {one.output.name: self._of[one] for one in (node, *_inside(node)) if one in self._of})
        return random

    def write_functions(self, model: Model, protos: Iterable[FunctionProto]) -> None:
        """Puts seeds into the functions of `model`."""
        for proto in protos if self._of else ():
            function = model.functions[canonical_domain(proto.domain), proto.name, proto.overload]
            _put(proto.node, {node.output.name: self._of[node] for node in _held(function.graph) if node in self._of})

    def _number(self, nodes: list[Node], hidden: set[str], named: dict[tuple[Kind, str], int]) -> None:
        """Seeds the draws of a main graph; `named` are those of the models before, by the names of their outputs."""
        kinds = {node: _kind(node) for node in nodes}
        survived = [node for node in nodes if (kinds[node], node.output.name) in named]
        self._of.update((node, named[kinds[node], node.output.name]) for node in survived)
        taken = {(kinds[node], self._of[node]) for node in survived}
        for node in nodes:
            kind = kinds[node]
            seed = _seed(node.op if node.op in hidden else repr(kind))
            while (kind, seed) in taken and node.op not in hidden:
                seed += 1
            seed = self._of.setdefault(node, seed)
            taken.add((kind, seed))
            named.setdefault((kind, node.output.name), seed)


def _is_draw(node: Node) -> bool:
    in_training = node.is_op("Dropout") and bool(node.outputs) and see_through(node.output) is None
    return (in_training and not _drops_nothing(node)) or is_random(node.domain, node.op)


def _drops_nothing(dropout: Node) -> bool:
    ratio = dropout.input(1)
    return ratio is not None and number_of(ratio) == 0


def _draws(node: Node, drawing: frozenset[FunctionKey]) -> bool:
    return _is_draw(node) or (bool(drawing) and _key(node) in drawing)


def _kind(node: Node) -> Kind:
    known = signature(node.domain, node.op, node.version)
    names = (node.attrs.keys() | (known.attributes.keys() if known is not None else set())) - {"seed"}
    return node.op, ", ".join(f"{name}={node.attr(name)}" for name in sorted(names))


def _key(node: Node) -> FunctionKey:
    return node.domain, node.op, node.overload


def _held(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of all subgraphs in it."""
    return (node for scope in graph.scopes() for node in scope.ops())


def _inside(node: Node) -> Iterator[Node]:
    return (inner for graph in node.subgraphs for inner in _held(graph))


def _hidden(model: Model) -> Iterator[Node]:
    """The nodes of subgraphs and functions."""
    yield from (inner for node in model.graph.ops() for inner in _inside(node))
    yield from (node for function in model.functions.values() for node in _held(function.graph))


def _total(nodes: Iterable[Node], inside: Mapping[FunctionKey, Counter[Kind]]) -> Counter[Kind]:
    total: Counter[Kind] = Counter()
    for node in nodes:
        if _is_draw(node):
            total[_kind(node)] += 1
        else:
            total.update(inside.get(_key(node), {}))
    return total


def _needed(graph: Graph) -> list[Node]:
    """The nodes that the outputs depend on, each after those it reads, in the order in which they are first needed."""
    found: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(graph.output, False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            found.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if not _tells_known_sizes(node):
                stack.extend((value.node, False) for value in reversed(node.inputs) if value is not None)
    return found[:-1]


def _tells_known_sizes(node: Node) -> bool:
    """Whether a node reads nothing but sizes, which are the same whatever the numbers are."""
    read = node.inputs[0] if node.is_op("Shape") or node.is_op("Size") else None
    return read is not None and read.shape is not None and all(isinstance(size, int) for size in read.shape)


def _seed(text: str) -> int:
    # Small enough to be exact in float32, with room to count on.
    return 1 + zlib.crc32(text.encode()) % (1 << 22)


def _put(nodes: Iterable[NodeProto], seeds: Mapping[str, int]) -> None:
    """Writes the seeds of draws, by the names of their outputs, unless they have one."""
    waiting = list(nodes)
    while waiting:
        proto = waiting.pop()
        graphs = [graph for attribute in proto.attribute for graph in (attribute.g, *attribute.graphs)]
        waiting.extend(node for graph in graphs for node in graph.node)
        if proto.output and proto.output[0] in seeds and all(attribute.name != "seed" for attribute in proto.attribute):
            seed = seeds[proto.output[0]]
            proto.attribute.append(helper.make_attribute("seed", seed if proto.op_type == "Dropout" else float(seed)))
