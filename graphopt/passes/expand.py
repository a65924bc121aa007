"""Bodies in place of nodes: what calls of functions and branches that are known have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from graphopt.ir.attributes import Reference, constant_tensor
from graphopt.ir.graph import Graph
from graphopt.ir.node import Node, Value
from graphopt.rewrite import Site, Trace
from graphopt.rewrite.engine import SiteKey

_LONGEST_NAME = 200
"""Names that say where a value came from grow with the depth of the calls; longer ones nobody reads."""


@dataclass(frozen=True)
class Body:
    """A scope that is to stand in place of a node.

    `given` are its inputs and captures as values of the node's own scope (None: left out), `attributes` what its nodes
    may refer to, `prefix` the beginning of the names of what it computes. `once` says that nobody else copies it, so
    that its symbolic sizes can stay.
    """

    graph: Graph
    given: Mapping[Value, Value | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    once: bool = False


def expand(
    graph: Graph,
    name: str,
    body_of: Callable[[Node], Body | None],
    trace: Trace,
    exclude: Collection[SiteKey],
) -> int:
    """Puts copies of bodies in place of the nodes of one scope that have one; returns how many nodes went.

    Outputs of a node keep their names. What stands in a body is expanded in its turn, in a time linear in what is
    written; its constants are shared by all copies. `trace` is told of the sites under the `name` of the pass,
    `exclude` names some that stay. Not within a transaction: the order is made anew.
    """
    waiting = [iter(list(graph.ops()))]
    order: list[Node] = []
    copies: dict[Node, _Copy] = {}
    constants: dict[Node, Value] = {}
    while waiting:
        node = next(waiting[-1], None)
        if node is None:
            waiting.pop()
            continue
        order.append(node)
        body = body_of(node)
        if body is not None and not any((name, value.name) in exclude for value in node.outputs):
            copies[node] = copy = _Copy(body, graph, constants)
            waiting.append(iter(copy.made))
    if copies:
        graph.reorder(order)
        trace.count(name).applied += len(copies)
        trace.count(name).matched += len(copies)
    trace.sites += [_site(name, node, copy.made) for node, copy in copies.items()]
    for node, copy in copies.items():
        _put(graph, node, copy)
    return len(copies)


def _site(name: str, node: Node, made: Iterable[Node]) -> Site:
    roots = tuple(value.name for value in node.outputs if value.name)
    written = tuple(value.name for one in made for value in one.outputs if value.name)
    reads = tuple(value.name for value in node.inputs if value is not None)
    return Site(name, roots[0] if roots else "", roots, roots, written, reads)


def _put(graph: Graph, node: Node, copy: _Copy) -> None:
    """Lets everybody read the outputs of `copy` in place of those of `node`, under their names."""
    free = {value for made in copy.made for value in made.outputs}
    for old, new in zip(node.outputs, copy.outputs, strict=False):
        if old.name and new is not None:
            if new not in free:
                # What is passed through, or handed out twice, keeps the name that it has.
                new = graph.add_op("Identity", [new], outputs=[old.name], before=node.next).output
            free.discard(new)
            graph.set_type(new, new.dtype or old.dtype, old.shape if new.shape is None else new.shape)
            graph.replace(old, new, take_name=True)
    graph.remove(node)


class _Copy:
    """A copy of a body at the end of `graph`; `made` are its operations, `outputs` what stands for the body's."""

    def __init__(self, body: Body, graph: Graph, constants: dict[Node, Value]) -> None:
        self._body = body
        self._graph = graph
        self._constants = constants
        self._of: dict[Value, Value | None] = dict(body.given)
        self.made: list[Node] = []
        pending = self._operations(body.graph, graph)
        while pending:
            source, target = pending.pop()
            self._interface(source, target)
            pending += self._operations(source, target)
            for value in source.outputs:
                target.add_slot(target.output, self._of[value])
        self.outputs = [self._of[value] for value in body.graph.outputs]

    def _interface(self, source: Graph, target: Graph) -> None:
        """Gives `target`, a copy of the subgraph `source`, its inputs and captures."""
        if source.proto is not None:
            target.proto = onnx.GraphProto(name=source.proto.name, doc_string=source.proto.doc_string)
        assert source.holder is not None
        for slot, node in source.captures.items():
            outer = source.holder.inputs[slot]
            new = self._of[outer] if outer is not None else None
            self._of[node.output] = target.capture(new) if new is not None else None
        for node in source.inputs:
            name = target.ledger.fresh(self._name(node.output.name))
            self._of[node.output] = new = target.add_input(name, default=node.data)
            self._describe(new, node.output)

    def _operations(self, source: Graph, target: Graph) -> list[tuple[Graph, Graph]]:
        """Copies constants and operations; returns the subgraphs that are still to be copied, each with its copy."""
        inner: list[tuple[Graph, Graph]] = []
        for node in source.sources("Constant"):
            if node.output not in self._of:
                self._of[node.output] = self._constant(node, target)
        for node in source.ops():
            if node.is_op("Constant") and constant_tensor(node) is not None:
                self._of[node.output] = self._constant(node, target)
                continue
            copy = self._operation(node, target)
            if target is self._graph:
                self.made.append(copy)
            for name, graphs in (node.graphs or {}).items():
                copies = [Graph(target.ledger, copy) for _ in graphs]
                copy.graphs = {**(copy.graphs or {}), name: copies}
                inner += zip(graphs, copies, strict=True)
        return inner

    def _constant(self, node: Node, target: Graph) -> Value:
        shared = self._constants.get(node)
        if shared is not None and shared.node.graph is target:
            return shared
        if node in node.graph.sparse:
            new = target.add_source("Constant", target.ledger.fresh(node.output.name)).output
            target.sparse[new.node] = node.graph.sparse[node]
            new.dtype, new.shape = node.output.dtype, node.output.shape
        else:
            new = target.add_constant(node.data, node.output.name)
        self._constants[node] = new
        return new

    def _operation(self, node: Node, target: Graph) -> Node:
        inputs = [value and self._of[value] for value in node.inputs[: node.arity]]
        names = [value.name and self._name(value.name) for value in node.outputs]
        target.import_domain(node.domain, node.version)
        copy = target.add_op(
            node.op, inputs, domain=node.domain, version=node.version, outputs=names, name=self._name(node.name)
        )
        copy.overload = node.overload
        copy.origin = _origin(node, target)
        given = {key: value for key, value in node.attrs.items() if isinstance(value, Reference)}
        copy.edits = node.edits | {key: self._body.attributes.get(value.name) for key, value in given.items()}
        for value, new in zip(node.outputs, copy.outputs, strict=True):
            self._of[value] = new
            self._describe(new, value)
        return copy

    def _describe(self, new: Value, old: Value) -> None:
        """What is known of a value, but for sizes that may differ from copy to copy."""
        unknown = new.node.graph.ledger.unknowns.fresh
        new.dtype, new.shape = old.dtype, old.shape
        if old.shape is not None and not self._body.once:
            new.shape = tuple(size if isinstance(size, int) else unknown() for size in old.shape)
        if not old.dtype and old.info is not None:
            # A sequence, a map, an optional.
            new.info = onnx.ValueInfoProto(name=new.name, type=old.info.type)

    def _name(self, name: str) -> str:
        long = f"{self._body.prefix}/{name}"
        return long if name and self._body.prefix and len(long) <= _LONGEST_NAME else name


class _Protos(Sequence[onnx.NodeProto]):
    """The protos of a scope's own nodes, and those of nodes that were copied into it, which stay where they are."""

    def __init__(self, own: Sequence[onnx.NodeProto]) -> None:
        self._own = own
        self._size = len(own)
        self._others: list[tuple[Sequence[onnx.NodeProto], int]] = []

    def __len__(self) -> int:
        return self._size + len(self._others)

    def __getitem__(self, index: Any) -> Any:
        if index < self._size:
            return self._own[index]
        protos, place = self._others[index - self._size]
        return protos[place]

    def add(self, node: Node) -> int:
        """Takes in what the file says of `node`, a node of any scope; returns its index here."""
        protos, place = node.graph.protos, node.origin
        if isinstance(protos, _Protos) and place >= protos._size:
            protos, place = protos._others[place - protos._size]
        self._others.append((protos, place))
        return len(self) - 1


def _origin(node: Node, target: Graph) -> int:
    """Where `target` finds what the file says of `node`: attributes, documentation, metadata."""
    if node.origin < 0:
        return -1
    if not isinstance(target.protos, _Protos):
        target.protos = _Protos(target.protos)
    return target.protos.add(node)
