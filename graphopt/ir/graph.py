"""One scope: a networkx graph of nodes, and the only functions that change it.

Nodes of the networkx graph are `Node` objects; an edge u → v with key `slot` says `v.inputs[slot].node is u`. The
operations stand in a list in topological order (`previous`, `next`, with growing `rank`) that every mutation keeps
true; it ends in the `Output` sentinel. Every mutation is journaled, so a transaction can take it back.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import networkx as nx
import onnx

from graphopt.ir.attributes import is_sparse
from graphopt.ir.dims import Shape, Size
from graphopt.ir.ledger import Ledger
from graphopt.ir.node import IR_DOMAIN, Node, Value
from graphopt.ir.tensor import Tensor

_NO_ATTRIBUTES: dict[str, Any] = {}
_NO_SLOTS: tuple[int, ...] = ()
# Shared by all sources, which never get a slot.
_NO_INPUTS: list[Value | None] = []
_RANK_STEP = 1 << 32


def _no_attributes() -> dict[str, Any]:
    return _NO_ATTRIBUTES


@functools.lru_cache(1024)
def _keys(slots: tuple[int, ...]) -> Mapping[int, dict[str, Any]]:
    """The edge keys between two nodes. Nearly all pairs have the same few, so all share one read-only mapping."""
    return MappingProxyType(dict.fromkeys(slots, _NO_ATTRIBUTES))


class _Producers(Mapping["Node", Mapping["Node", Mapping[int, dict[str, Any]]]]):
    """What networkx keeps as `_pred`: by node, what it reads, and in which slots. A node's inputs say it already."""

    def __init__(self, successors: Mapping[Node, Mapping[Node, Mapping[int, dict[str, Any]]]]) -> None:
        self._successors = successors

    def __getitem__(self, node: Node) -> dict[Node, Mapping[int, dict[str, Any]]]:
        return {producer: self._successors[producer][node] for producer in node.producers()}

    def __iter__(self) -> Iterator[Node]:
        return iter(self._successors)

    def __len__(self) -> int:
        return len(self._successors)

    def __contains__(self, node: object) -> bool:
        return node in self._successors

    def __setitem__(self, node: Node, producers: object) -> None:
        """networkx enters a node, which reads nothing yet."""

    def __delitem__(self, node: Node) -> None:
        """networkx takes a node out, which reads nothing any more."""


class CycleError(ValueError):
    """An edge would make the graph cyclic: the site that wanted it is not convex."""


class Graph(nx.MultiDiGraph):  # type: ignore[misc]
    """A scope: the main graph, a subgraph of a node (`holder`), or a function body.

    `inputs` are the graph's inputs in order (an `Input` node, or a `Constant` that a model of IR < 4 lists as input),
    `output` the sentinel whose slots are the graph's outputs, `names` the values of this scope by name. `protos` are
    the nodes of the file, `sparse` the data of sparse initializers.
    """

    node_attr_dict_factory = staticmethod(_no_attributes)
    edge_attr_dict_factory = staticmethod(_no_attributes)

    def __init__(self, ledger: Ledger | None = None, holder: Node | None = None) -> None:
        super().__init__()
        self._pred = _Producers(self._succ)
        self.ledger = ledger or Ledger()
        self.holder = holder
        self.inputs: list[Node] = []
        self.names: dict[str, Value] = {}
        self.captures: dict[int, Node] = {}
        self.opsets: dict[str, int] = holder.graph.opsets if holder else {}
        self.proto: onnx.GraphProto | None = None
        self.protos: Sequence[onnx.NodeProto] = ()
        self.sparse: dict[Node, onnx.SparseTensorProto] = {}
        self.output = Node(self, "Output", IR_DOMAIN)
        self.output.rank = _RANK_STEP
        self._first: Node = self.output
        self.add_node(self.output)

    # ---- reading -----------------------------------------------------------------------------------------------

    def ops(self) -> Iterator[Node]:
        """The operations in topological order. A node may be added or removed while this walks."""
        node: Node | None = self._first
        nodes, end = self._succ, self.output
        while node is not None and node is not end:
            if node in nodes:
                yield node
            # A node that was removed meanwhile still knows the neighbour it had.
            node = node.next

    def sources(self, op: str) -> list[Node]:
        """The `Input`, `Constant` or `Capture` nodes, oldest first."""
        found = [node for node in self._succ if node.op == op and node.domain == IR_DOMAIN]
        return sorted(found, key=lambda node: node.rank)

    @property
    def outputs(self) -> list[Value]:
        """The values that are the graph's outputs, in order."""
        return [value for value in self.output.inputs if value is not None]

    def consumers(self, value: Value) -> list[tuple[Node, int]]:
        """Who reads `value`, as (node, slot), in topological order; the Output sentinel and holders count."""
        return sorted(self.uses_of(value), key=lambda use: (use[0].rank, use[1]))

    def uses_of(self, value: Value) -> Iterator[tuple[Node, int]]:
        """What `consumers` says, one after the other, oldest first: for who does not need all of many."""
        for node, slots in self._succ[value.node].items():
            for slot in slots:
                if node.inputs[slot] is value:
                    yield node, slot

    def readers(self, node: Node) -> Collection[Node]:
        """The nodes that read an output of `node`, each once."""
        readers: Collection[Node] = self._succ[node].keys()
        return readers

    def is_output(self, value: Value) -> bool:
        """Whether `value` is an output of this graph."""
        slots = self._succ[value.node].get(self.output, _NO_SLOTS) if value.uses else _NO_SLOTS
        return any(self.output.inputs[slot] is value for slot in slots)

    def needs_identity(self, old: Value, new: Value) -> bool:
        """Whether `new` can stand for `old` only behind an Identity, which gives a graph output its name.

        A sparse constant needs one as well: onnxruntime runs no graph that gives it out as it is.
        """
        return self.is_output(old) and (new.node.is_source or self.is_output(new) or is_sparse(new.node))

    def scopes(self) -> Iterator[Graph]:
        """This graph and every subgraph in it, outer before inner."""
        stack = [self]
        while stack:
            graph = stack.pop()
            yield graph
            inner = [subgraph for node in graph.ops() if node.graphs for subgraph in node.subgraphs]
            stack.extend(reversed(inner))

    # ---- building ----------------------------------------------------------------------------------------------

    def add_input(self, name: str, dtype: int = 0, shape: Shape | None = None, default: Tensor | None = None) -> Value:
        """A graph input; with `default`, an initializer that the caller may override."""
        node = self.add_source("Input", name)
        node.data = default
        value = node.output
        value.dtype, value.shape = dtype, shape
        self.inputs.append(node)
        self.ledger.log(self.inputs.remove, node)
        return value

    def add_constant(self, data: Any, name: str = "constant", dtype: int | None = None) -> Value:
        """An initializer that holds `data`: a Tensor, or what `numpy.asarray` takes. `name` is made fresh."""
        node = self.add_source("Constant", self.ledger.fresh(name))
        node.data = data if isinstance(data, Tensor) else Tensor.of(data, dtype)
        value = node.output
        value.dtype, value.shape = node.data.dtype, node.data.shape
        return value

    def capture(self, outer: Value) -> Value:
        """The value in this scope that stands for `outer`, a value of an enclosing scope."""
        assert self.holder is not None
        parent = self.holder.graph
        if outer.node.graph is not parent:
            outer = parent.capture(outer)
        slots = parent._captured_slots(self.holder, outer)
        for slot in slots:
            if slot in self.captures:
                return self.captures[slot].output
        slot = slots[0] if slots else parent.add_slot(self.holder, outer)
        node = self.add_source("Capture", outer.name, register=False)
        node.slot = slot
        node.output.dtype, node.output.shape, node.output.content = outer.dtype, outer.shape, outer.content
        self.captures[slot] = node
        self.ledger.log(self.captures.__delitem__, slot)
        return node.output

    def add_op(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Any] | None = None,
        *,
        domain: str = "",
        version: int | None = None,
        outputs: int | Sequence[str] = 1,
        before: Node | None = None,
        name: str = "",
    ) -> Node:
        """A new operation just before `before` in the order (default: last). Output names are made fresh.

        Raises: CycleError when an input depends on a consumer that this order cannot place.
        """
        node = Node(self, op, domain, self.opsets.get(domain, 1) if version is None else version)
        names = [op.lower()] * outputs if isinstance(outputs, int) else outputs
        fresh = self.ledger.fresh
        node.outputs = tuple(Value(node, index, fresh(stem) if stem else "") for index, stem in enumerate(names))
        node.name = name
        node.edits = {key: value for key, value in (attrs or {}).items() if value is not None}
        node.inputs = [None] * len(inputs)
        node.arity = len(inputs)
        self._attach(node, before or self.output)
        for slot, value in enumerate(inputs):
            if value is not None:
                self._connect(node, slot, value)
        return node

    def add_operand(self, node: Node, value: Value | None) -> None:
        """Gives `node`, which must hold no captures, one more operand (None: an empty slot)."""
        assert node.arity == len(node.inputs)
        self.add_slot(node, value)
        self._set_arity(node, len(node.inputs))

    def add_slot(self, node: Node, value: Value | None) -> int:
        """Appends an input slot to `node` that reads `value`; returns the slot."""
        node.inputs.append(None)
        self.ledger.log(node.inputs.__delitem__, -1)
        if node is self.output:
            self._set_arity(node, len(node.inputs))
        self._connect(node, len(node.inputs) - 1, value)
        return len(node.inputs) - 1

    # ---- changing ----------------------------------------------------------------------------------------------

    def import_domain(self, domain: str, version: int = 1) -> None:
        """Adds an opset import that the model lacks."""
        if domain not in self.opsets and domain != IR_DOMAIN:
            self.opsets[domain] = version
            self.ledger.log(self.opsets.__delitem__, domain)

    def set_input(self, node: Node, slot: int, value: Value | None) -> None:
        """Makes `node` read `value` in `slot`. Raises CycleError when `value` depends on `node`."""
        self._connect(node, slot, value)

    def set_attr(self, node: Node, name: str, value: Any) -> None:
        """Writes an attribute; None removes it."""
        self._set_edits(node, {**node.edits, name: value})

    def set_op(self, node: Node, op: str, domain: str, version: int) -> None:
        """Changes what `node` is; inputs, outputs and attributes stay."""
        self.ledger.log(self.set_op, node, node.op, node.domain, node.version)
        self.ledger.changes.append(node)
        node.op, node.domain, node.version = op, domain, version

    def set_type(self, value: Value, dtype: int, shape: Shape | None) -> None:
        """Says what is known of a value's element type and shape."""
        if value.dtype != dtype or value.shape != shape:
            self.ledger.log(self.set_type, value, value.dtype, value.shape)
            self.ledger.changes.append(value.node)
            value.dtype, value.shape = dtype, shape if shape is None else self.ledger.shared(shape)

    def set_content(self, value: Value, content: tuple[Size, ...] | None) -> None:
        """Says what is known of a value's elements."""
        if value.content != content:
            self.ledger.log(self.set_content, value, value.content)
            self.ledger.changes.append(value.node)
            value.content = content

    def rename(self, value: Value, name: str) -> None:
        """Gives `value` the name `name`, which no other value of this scope may have."""
        assert name not in self.names
        del self.names[value.name]
        self.ledger.log(self.rename, value, value.name)
        self.ledger.names.add(name)
        value.name = name
        self.names[name] = value

    def remove(self, node: Node) -> None:
        """Removes an operation or source that nobody reads."""
        assert all(value.uses == 0 for value in node.outputs), f"{node} is still used"
        for slot, value in enumerate(node.inputs):
            if value is not None:
                self._connect(node, slot, None)
        if node.is_source and node in self.inputs:
            index = self.inputs.index(node)
            self.inputs.pop(index)
            self.ledger.log(self.inputs.insert, index, node)
        if node.slot >= 0:
            self._release(node)
        self._detach(node)

    def replace(self, old: Value, new: Value, *, take_name: bool = False) -> None:
        """Every reader of `old` reads `new` instead; graph outputs keep their names.

        `take_name` says that `new` means what `old` meant and is to be found under its name.
        """
        assert old is not new
        is_output = self.is_output(old)
        name, maker = old.name, new.node
        if is_output or take_name:
            if self.needs_identity(old, new) or self.is_output(new):
                new = self.add_op("Identity", [new], outputs=[name], before=maker.next or self._first).output
                new.dtype, new.shape = old.dtype, old.shape
            self.rename(old, self.ledger.fresh(f"{name}_replaced"))
            self.rename(new, name)
            if new.info is not old.info:
                self._set_info(new, old.info)
        for node, slot in self.consumers(old):
            if node is not maker:
                self._connect(node, slot, new)

    # ---- for loaders: nothing is taken back, but for a source ------------------------------------------------------

    def add_source(self, op: str, name: str, register: bool = True) -> Node:
        """A source without data. The `name` is taken as it is, and found unless `register` is off."""
        node = Node(self, op, IR_DOMAIN)
        node.inputs = _NO_INPUTS
        node.outputs = (Value(node, 0, name),)
        node.rank = self.ledger.serial()
        if register:
            self.register(node)
        self.add_node(node)
        self.ledger.log(self._detach_source, node)
        return node

    def append(self, node: Node) -> None:
        """Takes `node` in, last in the order."""
        self.add_node(node)
        self.register(node)
        self._link(node, self.output)

    def join(self, node: Node, slot: int, value: Value) -> None:
        """Makes `node` read `value` in an empty slot, wherever they stand: `reorder` follows."""
        node.inputs[slot] = value
        value.uses += 1
        self.add_edge(value.node, node, slot)

    def register(self, node: Node) -> None:
        """Lets the outputs of `node` be found by their names."""
        for value in node.outputs:
            if value.name:
                self.names[value.name] = value
                self.ledger.names.add(value.name)

    def reorder(self, order: Sequence[Node]) -> None:
        """Makes `order`, a topological order of all operations, the graph's order."""
        self._first = self.output
        self.output.previous = None
        self.output.rank = _RANK_STEP
        for node in order:
            self._link(node, self.output)

    # ---- networkx ----------------------------------------------------------------------------------------------

    def add_edge(self, u: Node, v: Node, key: int) -> int:
        """The edge that says `v.inputs[key].node is u`; for the primitives below only."""
        successors = self._succ[u]
        successors[v] = _keys((*successors.get(v, _NO_SLOTS), key))
        return key

    def remove_edge(self, u: Node, v: Node, key: int) -> None:
        """Takes one edge away; for the primitives below only."""
        left = tuple(slot for slot in self._succ[u][v] if slot != key)
        if left:
            self._succ[u][v] = _keys(left)
        else:
            del self._succ[u][v]

    # ---- primitives: each logs its own inverse -----------------------------------------------------------------

    def _captured_slots(self, holder: Node, outer: Value) -> list[int]:
        """The slots through which subgraphs of `holder` see `outer`."""
        slots = self._succ[outer.node].get(holder, _NO_SLOTS)
        return [slot for slot in slots if slot >= holder.arity and holder.inputs[slot] is outer]

    def _release(self, capture: Node) -> None:
        """Unpairs a Capture; the holder stops reading the value when none of its other subgraphs does."""
        slot, holder = capture.slot, self.holder
        assert holder is not None
        del self.captures[slot]
        self.ledger.log(self.captures.__setitem__, slot, capture)
        if not any(slot in graph.captures for graph in holder.subgraphs):
            holder.graph._connect(holder, slot, None)

    def _set_arity(self, node: Node, arity: int) -> None:
        self.ledger.log(self._set_arity, node, node.arity)
        node.arity = arity

    def _unregister(self, node: Node) -> None:
        for value in node.outputs:
            if self.names.get(value.name) is value:
                del self.names[value.name]

    def _detach_source(self, node: Node) -> None:
        self._unregister(node)
        self.remove_node(node)

    def _attach_source(self, node: Node) -> None:
        self.add_node(node)
        if node.op != "Capture":
            self.register(node)

    def _attach(self, node: Node, before: Node) -> None:
        self.add_node(node)
        self.register(node)
        self._link(node, before)
        self.ledger.log(self._detach, node)
        self.ledger.changes.append(node)

    def _detach(self, node: Node) -> None:
        if node.is_source:
            self._detach_source(node)
            self.ledger.log(self._attach_source, node)
            return
        following = node.next
        assert following is not None
        self._unlink(node)
        self._unregister(node)
        self.remove_node(node)
        self.ledger.log(self._attach, node, following)

    def _link(self, node: Node, before: Node) -> None:
        previous = before.previous
        node.previous, node.next = previous, before
        before.previous = node
        if previous is None:
            self._first = node
        else:
            previous.next = node
        low = previous.rank if previous else 0
        if before is self.output:
            node.rank = before.rank
            before.rank += _RANK_STEP
        elif before.rank - low < 2:
            self._relabel()
        else:
            node.rank = (low + before.rank) // 2

    def _unlink(self, node: Node) -> None:
        if node.previous is None:
            assert node.next is not None
            self._first = node.next
        else:
            node.previous.next = node.next
        assert node.next is not None
        node.next.previous = node.previous

    def _relabel(self) -> None:
        rank = _RANK_STEP
        node: Node | None = self._first
        while node is not None:
            node.rank = rank
            rank += _RANK_STEP
            node = node.next

    def _move(self, node: Node, before: Node) -> None:
        following = node.next
        self._unlink(node)
        self._link(node, before)
        self.ledger.log(self._move, node, following)

    def _connect(self, node: Node, slot: int, value: Value | None) -> None:
        old = node.inputs[slot]
        if old is value:
            return
        changes = self.ledger.changes
        changes.append(node)
        if value is not None and not value.node.is_source and value.node.rank >= node.rank:
            self._put_after(node, value.node)
        if old is not None:
            old.uses -= 1
            changes.append(old.node)
            self.remove_edge(old.node, node, slot)
        node.inputs[slot] = value
        if value is not None:
            value.uses += 1
            changes.append(value.node)
            self.add_edge(value.node, node, slot)
        self.ledger.log(self._connect, node, slot, old)

    def _put_after(self, node: Node, producer: Node) -> None:
        """Moves `node` and what depends on it behind `producer` (the affected region only)."""
        affected = {node}
        stack = [node]
        while stack:
            for reader in self._succ[stack.pop()]:
                if reader.rank <= producer.rank and reader not in affected:
                    affected.add(reader)
                    stack.append(reader)
        if producer in affected:
            raise CycleError(f"{producer} depends on {node}")
        before = producer.next
        assert before is not None
        for moved in sorted(affected, key=lambda n: n.rank):
            self._move(moved, before)

    def _set_edits(self, node: Node, edits: dict[str, Any]) -> None:
        self.ledger.log(self._set_edits, node, node.edits)
        self.ledger.changes.append(node)
        node.edits = edits

    def _set_info(self, value: Value, info: Any) -> None:
        self.ledger.log(self._set_info, value, value.info)
        value.info = info
