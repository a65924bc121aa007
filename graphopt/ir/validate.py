"""The IR's invariants, checked: a failure is a bug in whatever changed the graph last.

Each check takes one node or scope and yields what is wrong with it. `validate` runs all of them on everything,
`validate_site` the checks of nodes on a site and its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphopt.errors import GraphoptError
from graphopt.ir import attributes
from graphopt.ir.encode import written_name
from graphopt.ir.graph import Graph
from graphopt.ir.load import IMPORTED_BY_THE_RUNTIME
from graphopt.ir.model import Model
from graphopt.ir.node import IR_DOMAIN, Node

_SOURCES = ("Input", "Constant", "Capture")
# A neighbour with more edges than this is a shared constant or a sentinel: looking at all of them would make the check
# of many sites quadratic.
_MANY = 64


class ValidationError(GraphoptError):
    """An invariant of the IR does not hold; `where` names the node."""

    def __init__(self, invariant: str, where: str) -> None:
        super().__init__("GO071", invariant, where)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.where)


def validate(model: Model) -> None:
    """Checks every invariant of every scope. Raises: ValidationError."""
    for graph in model.scopes():
        _check(graph)
        _raise_first(graph.holder or graph.output, _scope_problems(graph))
    proto = model.graph.proto
    if proto is not None:
        _raise_first(model.graph.output, _signature_problems(model.graph, [info.name for info in proto.output]))
    for function in model.functions.values():
        output = function.graph.output
        _raise_first(output, _signature_problems(function.graph, list(function.proto.output)))
        if function.graph.captures:
            raise ValidationError("a function body captures nothing", output.place)


def validate_site(nodes: Iterable[Node]) -> None:
    """Checks the nodes given, which must be in their graphs, and their neighbours. Raises: ValidationError."""
    site = dict.fromkeys(nodes)
    near: dict[Node, None] = {}
    for node in site:
        _raise_first(node, _presence_problems(node))
        near.update(dict.fromkeys(node.producers()))
        near.update(dict.fromkeys(node.graph.successors(node)))
    light = [node for node in near if node not in site and len(node.graph._succ[node]) + len(node.inputs) <= _MANY]
    _check((*site, *light))


def _check(nodes: Iterable[Node]) -> None:
    for check in _CHECKS:
        for node in nodes:
            for problem in check(node):
                raise ValidationError(problem, node.place)


def _raise_first(node: Node, problems: Iterator[str]) -> None:
    for problem in problems:
        raise ValidationError(problem, node.place)


def _presence_problems(node: Node) -> Iterator[str]:
    if node not in node.graph:
        yield "a node is in its graph"


def _edge_problems(node: Node) -> Iterator[str]:
    """An edge u → v with key s is there exactly when `v.inputs[s].node is u`, within one scope."""
    graph = node.graph
    for value in node.inputs:
        if value is not None and (value.node.graph is not graph or value.node not in graph):
            yield f"no edge from another scope or a removed node ('{value.name}')"
            return
    reads = {(slot, value.node) for slot, value in enumerate(node.inputs) if value is not None}
    edges = {(slot, producer) for producer in node.producers() for slot in graph._succ[producer].get(node, ())}
    if edges != reads:
        slot = min(slot for slot, _ in edges ^ reads)
        yield f"an edge for each slot and a slot for each edge (slot {slot})"
        return
    for slot, value in enumerate(node.inputs):
        if value is not None and value.node.outputs[value.index : value.index + 1] != (value,):
            yield f"an input is an output of its node (slot {slot})"
    if not 0 <= node.arity <= len(node.inputs):
        yield "the arity lies within the slots"


def _reader_problems(node: Node) -> Iterator[str]:
    for reader, slots in node.graph._succ[node].items():
        read = (reader.inputs[slot] for slot in slots if slot < len(reader.inputs))
        if not any(value is not None and value.node is node for value in read):
            yield f"whom an edge leads to reads its node ({reader.place})"


def _counter_problems(node: Node) -> Iterator[str]:
    counts = dict.fromkeys(node.outputs, 0)
    for reader, slots in node.graph._succ[node].items():
        for slot in slots:
            value = reader.inputs[slot] if slot < len(reader.inputs) else None
            if value in counts:
                counts[value] += 1
    for value, count in counts.items():
        if value.uses != count:
            yield f"uses of '{value.name}' are counted (counter {value.uses}, slots {count})"


def _name_problems(node: Node) -> Iterator[str]:
    for index, value in enumerate(node.outputs):
        if value.node is not node or value.index != index:
            yield f"an output knows its node and place ({index})"
        if value.name and node.slot < 0:
            if node.graph.names.get(value.name) is not value:
                yield f"the table of names has '{value.name}'"
            if value.name not in node.graph.ledger.names:
                yield f"'{value.name}' is a name that was used"


def _order_problems(node: Node) -> Iterator[str]:
    """Operations stand in a list, with growing rank, each behind its producers; sources stand before all."""
    graph = node.graph
    if node.is_source:
        if node.previous is not None or node.next is not None or node.rank >= 0:
            yield "a source stands before the order"
        return
    previous, following = node.previous, node.next
    if (node is graph._first) != (previous is None) or (node is graph.output) != (following is None):
        yield "the order begins and ends"
    if previous is not None and (previous.next is not node or previous.rank >= node.rank):
        yield f"the order is linked and its ranks grow (after {previous.place})"
    if following is not None and (following.previous is not node or following.rank <= node.rank):
        yield f"the order is linked and its ranks grow (before {following.place})"
    for producer in node.producers():
        if producer.rank >= node.rank:
            yield f"the order is topological (after {producer.place})"


def _kind_problems(node: Node) -> Iterator[str]:
    """Sources hold what they should, operations are of a known domain and can be written."""
    graph = node.graph
    if node.is_source:
        if node.inputs or len(node.outputs) != 1:
            yield "a source has no inputs and one output"
        if node.op == "Input" and node not in graph.inputs:
            yield "an Input is listed as one"
        if node.op == "Constant" and node.data is None and node not in graph.sparse:
            yield "a Constant has data"
        if node.op == "Capture" and graph.captures.get(node.slot) is not node:
            yield f"a Capture is paired with a slot of the holder ({node.slot})"
        found = node.output.dtype, node.output.shape
        if node.op == "Constant" and node.data is not None and found != (node.data.dtype, node.data.shape):
            yield "a Constant has the type of its data"
        return
    if node is graph.output:
        if None in node.inputs or node.arity != len(node.inputs):
            yield "every graph output is there"
        return
    from_file = node.origin >= 0 and node.domain in IMPORTED_BY_THE_RUNTIME
    if node.domain not in (IR_DOMAIN, *graph.opsets) and not from_file:
        yield f"the domain '{node.domain or 'ai.onnx'}' has an opset import"
    for name, value in node.edits.items():
        try:
            if value is not None:
                attributes.encode(name, value)
        except (TypeError, ValueError) as error:
            yield f"the attribute '{name}' can be written ({error})"


def _capture_problems(node: Node) -> Iterator[str]:
    """Each slot behind the arity is paired with a Capture in a subgraph, and each Capture with such a slot."""
    if not node.graphs and node.arity == len(node.inputs):
        return
    paired = {slot for graph in node.subgraphs for slot in graph.captures}
    reads = {slot for slot in range(node.arity, len(node.inputs)) if node.inputs[slot] is not None}
    if paired != reads:
        yield f"captures are paired with slots (slot {min(paired ^ reads)})"
    for graph in node.subgraphs:
        if graph.holder is not node:
            yield "a subgraph knows its holder"
        for slot, capture in graph.captures.items():
            if capture.slot != slot or not capture.is_op("Capture", IR_DOMAIN) or capture not in graph:
                yield f"a captured slot has its Capture (slot {slot})"


# Edges first: a producer could only say that some reader of it is wrong.
_CHECKS = (
    _edge_problems,
    _reader_problems,
    _counter_problems,
    _name_problems,
    _order_problems,
    _kind_problems,
    _capture_problems,
)


def _scope_problems(graph: Graph) -> Iterator[str]:
    listed = [*graph.ops(), graph.output]
    if len(listed) != sum(1 for node in graph if not node.is_source):
        yield "the order lists every operation once"
    for name, value in graph.names.items():
        if value.name != name or value.node not in graph:
            yield f"a name in the table is one of a value ('{name}')"
    for node in graph.inputs:
        if node not in graph or node.op not in _SOURCES:
            yield f"a graph input is a source of its graph ('{node.output.name}')"


def _signature_problems(graph: Graph, declared: list[str]) -> Iterator[str]:
    """Outputs that the file declares are there, in order, by their names; others may follow."""
    names = [written_name(value) for value in graph.outputs]
    if names[: len(declared)] != declared:
        missing = next((a for a, b in zip(declared, [*names, ""], strict=False) if a != b), declared[-1])
        yield f"graph outputs keep their names ('{missing}')"
