"""Nodes and values: what a graph is made of.

A `Value` is one tensor flowing; its identity is the object, its name an entry in its graph's table. A `Node` is one
operation, or, in the domain `ir`, one of: `Input`, `Constant`, `Capture` (a value of an outer scope), `Output` (the
sentinel whose slots are the graph's outputs).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import onnx

from graphopt.ir import attributes
from graphopt.ir.dims import Shape, Size
from graphopt.ir.tensor import Tensor

if TYPE_CHECKING:
    from graphopt.ir.graph import Graph

IR_DOMAIN = "ir"

# Shared by all nodes without attributes; nobody changes what `attrs` gives.
_NO_ATTRIBUTES: dict[str, Any] = {}


def qualified(domain: str, op: str) -> str:
    """`Op` in the standard domain, else `domain.Op`."""
    return f"{domain}.{op}" if domain else op


class Value:
    """One output of one node.

    `dtype` is an ONNX element type (0: unknown or not a tensor), `shape` a tuple of dimensions or None, `content` the
    elements of a small integer tensor as dimensions where shape inference knows them, `uses` the number of slots that
    read it (graph outputs and captures count), `info` the ValueInfoProto the file had for it.
    """

    __slots__ = ("content", "dtype", "index", "info", "name", "node", "shape", "uses")

    def __init__(self, node: Node, index: int, name: str) -> None:
        self.node = node
        self.index = index
        self.name = name
        self.dtype = 0
        self.shape: Shape | None = None
        self.content: tuple[Size, ...] | None = None
        self.uses = 0
        self.info: onnx.ValueInfoProto | None = None

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def tensor(self) -> Tensor | None:
        """The constant data of this value; None where it is not a constant.

        An initializer and an ONNX `Constant` node are constants; an overridable initializer is not.
        """
        node = self.node
        if node.op != "Constant":
            return None
        return node.data if node.domain == IR_DOMAIN else attributes.constant_tensor(node)

    @property
    def resolved(self) -> Value:
        """The value itself; of a capture, the value of an outer scope that it stands for."""
        value = self
        while value.node.slot >= 0:
            holder = value.node.graph.holder
            outer = holder.inputs[value.node.slot] if holder is not None else None
            assert outer is not None
            value = outer
        return value

    def __repr__(self) -> str:
        return f"<Value {self.name} of {self.node.op}>"


class Node:
    """One operation in one graph.

    `inputs[i]` is None for an empty slot. Slots from `arity` on are what subgraphs of this node capture; a `Capture`
    says in `slot` which of its holder's slots it stands for. `rank` grows along the graph's order; `previous` and
    `next` walk it. `graphs` holds subgraphs by attribute name.
    """

    __slots__ = (
        "_decoded",
        "_edits",
        "_name",
        "arity",
        "data",
        "domain",
        "graph",
        "graphs",
        "inputs",
        "next",
        "op",
        "origin",
        "outputs",
        "overload",
        "previous",
        "rank",
        "slot",
        "version",
    )

    def __init__(self, graph: Graph, op: str, domain: str = "", version: int = 0) -> None:
        self.graph = graph
        self.op = op
        self.domain = domain
        self.overload = ""
        self.version = version
        self._name: str | None = None
        self.inputs: list[Value | None] = []
        self.outputs: tuple[Value, ...] = ()
        self.arity = 0
        self.rank = 0
        self.previous: Node | None = None
        self.next: Node | None = None
        self.origin = -1
        self.slot = -1
        self.data: Tensor | None = None
        self.graphs: dict[str, list[Graph]] | None = None
        self._decoded: dict[str, Any] | None = None
        self._edits: dict[str, Any] | None = None

    @property
    def proto(self) -> onnx.NodeProto | None:
        """What the file says of this node; None for a node that was added since."""
        # A wrapper of a proto takes 500 bytes once it was looked at, so the node keeps only the proto's index.
        return self.graph.protos[self.origin] if self.origin >= 0 else None

    @property
    def name(self) -> str:
        """The name of the operation, "" for none; names of operations need not differ."""
        if self._name is None:
            proto = self.proto
            return proto.name if proto is not None else ""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def is_op(self, op: str, domain: str = "") -> bool:
        return self.op == op and self.domain == domain

    @property
    def is_source(self) -> bool:
        """Input, Constant or Capture: has no inputs in this graph."""
        return self.domain == IR_DOMAIN and self.op in ("Input", "Constant", "Capture")

    @property
    def output(self) -> Value:
        """The first output."""
        return self.outputs[0]

    def input(self, slot: int) -> Value | None:
        """The value in `slot`; None where the slot is empty or not there."""
        return self.inputs[slot] if slot < self.arity else None

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes that are written, decoded; schema defaults are not filled in. Do not change it."""
        if self._decoded is None:
            proto = self.proto
            decoded = attributes.decode(proto, self.graph.ledger.base) if proto is not None else {}
            for name, value in (self._edits or {}).items():
                if value is None:
                    decoded.pop(name, None)
                else:
                    decoded[name] = value
            self._decoded = decoded or _NO_ATTRIBUTES
        return self._decoded

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute `name`, else the schema's default, else `default`."""
        found = self.attrs.get(name)
        if found is not None:
            return found
        from graphopt.ir.schema import attribute_default

        known = attribute_default(self.domain, self.op, self.version, name)
        return default if known is None else known

    @property
    def edits(self) -> dict[str, Any]:
        """Attributes that differ from the proto this node was read from; None marks one that was removed."""
        return self._edits or {}

    @edits.setter
    def edits(self, edits: dict[str, Any]) -> None:
        self._edits = edits or None
        self._decoded = None

    @property
    def label(self) -> str:
        """What people know it by: its name, else that of its first output, else its operator."""
        return self.name or (self.outputs[0].name if self.outputs else self.op)

    @property
    def place(self) -> str:
        """How an error names this node."""
        if self.op == "Output" and self.domain == IR_DOMAIN:
            return "the graph's outputs"
        return f"node '{self.name or (self.outputs[0].name if self.outputs else '')}' ({self.op})"

    @property
    def subgraphs(self) -> list[Graph]:
        """The subgraphs, in the order of their attributes."""
        return [graph for graphs in (self.graphs or {}).values() for graph in graphs]

    def producers(self) -> Iterator[Node]:
        for value in self.inputs:
            if value is not None:
                yield value.node

    def __repr__(self) -> str:
        return f"<{qualified(self.domain, self.op)} {self.name or (self.outputs[0].name if self.outputs else '')}>"
