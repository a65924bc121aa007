"""From ONNX protos to the IR. Nothing is lost: what the IR has no word for stays in the protos it keeps."""

from __future__ import annotations

import heapq
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import onnx

from graphopt.errors import ModelError
from graphopt.ir import dims, dtypes, gate, wire
from graphopt.ir.admission import Admission
from graphopt.ir.collector import collector_off
from graphopt.ir.dims import Shape, Size, Unknowns
from graphopt.ir.graph import CycleError, Graph
from graphopt.ir.ledger import Ledger
from graphopt.ir.model import Function, Model, canonical_domain
from graphopt.ir.node import IR_DOMAIN, Node, Value
from graphopt.ir.protos import copy_fields
from graphopt.ir.tensor import Tensor

_log = logging.getLogger(__name__)

_NO_REGIONS: Mapping[int, wire.Region] = MappingProxyType({})
_NO_WEIGHTS: Mapping[str, Tensor] = MappingProxyType({})

_FROM_ONE = "versions count from 1: set ir_version and opset_import to those that the model was written in"

# onnxruntime registers this domain by itself and loads models that forget to import it.
IMPORTED_BY_THE_RUNTIME = ("com.microsoft",)


class GraphsurgeonGraph(Protocol):
    """An `onnx_graphsurgeon.Graph`, said without importing it."""

    nodes: Any
    import_domains: Any


Source = str | os.PathLike[str] | onnx.ModelProto | GraphsurgeonGraph
"""A model: a file, a proto, or a graph of onnx-graphsurgeon. None is changed."""


def load(source: Source) -> Model:
    """The model in a file, or the one that a proto or a graph of onnx-graphsurgeon says; none is changed.

    Weights in external files are not read; those of a proto are relative to the current folder. Where several
    `Constant` nodes write one name the last one counts, as in onnxruntime. Raises: ModelError GO02x when the file is
    missing or is not a model, GO03x when weights are not there or not what their shape says, GO04x when its graph is
    not one (cycles, dangling or duplicate names, domains or opsets that are not known), GO13x when it is too large or
    its parts are none; TypeError for anything else.
    """
    if isinstance(source, onnx.ModelProto):
        gate.check(source, "model")
        return model_from_proto(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        proto, regions = gate.read(path)
        return model_from_proto(proto, path, regions)
    if any(kind.__module__.partition(".")[0] == "onnx_graphsurgeon" for kind in type(source).__mro__):
        from graphopt.ir.graphsurgeon import from_graphsurgeon

        return from_graphsurgeon(source)
    raise TypeError(f"a model is a path, a ModelProto or a graph of onnx-graphsurgeon, not {type(source).__name__}")


def model_from_proto(
    proto: onnx.ModelProto,
    path: Path | None = None,
    regions: Mapping[int, wire.Region] = _NO_REGIONS,
    weights: Mapping[str, Tensor] = _NO_WEIGHTS,
) -> Model:
    """The IR of a proto, which is kept (not copied) as the home of constants and of what the IR has no word for.

    `regions` are the raw data that `proto` lacks, by index of the initializer, `weights` the initializers of the main
    graph that it lacks, by name. Raises: as `load`.
    """
    where = str(path) if path else "model"
    if not proto.graph.ListFields() or not (proto.opset_import or proto.ir_version):
        hint = "an ONNX model is a ModelProto; a tensor or a graph alone is not one"
        raise ModelError("GO023", "not an ONNX model: no graph in it", where, hint)
    with collector_off():
        opsets = _opsets(proto, where)
        # The current folder may be another when the weights are read.
        ledger = Ledger(path.absolute().parent if path else Path.cwd())
        admission = Admission(ledger.base or Path(), where, path)
        loader = _Loader(ledger, admission, proto.ir_version, regions, weights)
        graph = Graph(ledger)
        graph.opsets = opsets
        loader.build([(graph, proto.graph)])
        rest = copy_fields(proto, onnx.ModelProto(), "graph", "functions")
        model = Model(graph, opsets, ledger, rest, path=path)
        for function in proto.functions:
            _add_function(model, function, loader)
        admission.acyclic({key: function.proto for key, function in model.functions.items()})
        admission.kept(g for t in proto.training_info for g in (t.initialization, t.algorithm))
        model.data_files = admission.files
    if loader.repeated:
        message = "%s: %d names are written by several Constant nodes each, '%s' is one; the last one counts"
        _log.warning(message, where, len(loader.repeated), loader.repeated[0])
    return model


def add_function(model: Model, proto: onnx.FunctionProto) -> None:
    """Gives `model` one more function. Raises: as `load`."""
    admission = Admission(model.base, str(model.path or "model"), model.path)
    _add_function(model, proto, _Loader(model.ledger, admission, model.proto.ir_version))


def _add_function(model: Model, proto: onnx.FunctionProto, loader: _Loader) -> None:
    body = Graph(model.ledger)
    body.opsets = {canonical_domain(o.domain): o.version for o in proto.opset_import} or model.opsets
    loader.build_function(body, proto)
    key = (canonical_domain(proto.domain), proto.name, proto.overload)
    if key in model.functions:
        raise loader.error("GO042", f"two functions called '{proto.name}'")
    model.functions[key] = Function(proto, body)


def _opsets(proto: onnx.ModelProto, where: str) -> dict[str, int]:
    # Where a domain is imported twice the last one counts, as in onnxruntime.
    opsets = {canonical_domain(entry.domain): entry.version for entry in proto.opset_import}
    if proto.ir_version < 0:
        raise ModelError("GO040", f"there is no version {proto.ir_version} of the IR", where, _FROM_ONE)
    upgrade = f"onnx {onnx.__version__}, which is installed, knows {{}} up to {{}}: upgrade onnx"
    if proto.ir_version > onnx.IR_VERSION:
        hint = upgrade.format("versions of the IR", onnx.IR_VERSION)
        raise ModelError(
            "GO041", f"version {proto.ir_version} of the IR is newer than any this tool knows", where, hint
        )
    for domain, version in opsets.items():
        if version < 1:
            message = f"the domain '{domain or 'ai.onnx'}' has no opset {version}"
            raise ModelError("GO040", message, where, _FROM_ONE)
    newest = onnx.defs.onnx_opset_version()
    if opsets.get("", 0) > newest:
        hint = upgrade.format("opsets", newest)
        raise ModelError("GO041", f"opset {opsets['']} is newer than any this tool knows", where, hint)
    for entry in proto.opset_import:
        domain = canonical_domain(entry.domain)
        if entry.version != opsets[domain]:
            message = "%s: the domain '%s' is imported as %d and as %d; the last one counts"
            _log.warning(message, where, domain or "ai.onnx", entry.version, opsets[domain])
    if proto.ir_version < 3:
        # Before IR 3 there was no opset_import; such files are opset 1.
        opsets.setdefault("", 1)
    return opsets


def type_of(info: onnx.TypeProto, unknowns: Unknowns) -> tuple[int, Shape | None]:
    """(element type, shape) of a tensor type; (0, None) of anything else."""
    if not info.HasField("tensor_type"):
        return 0, None
    tensor = info.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    return tensor.elem_type, tuple(_dim(d, unknowns) for d in tensor.shape.dim)


def _dim(proto: onnx.TensorShapeProto.Dimension, unknowns: Unknowns) -> Size:
    # Some exporters write -1 for a size that they do not know.
    if proto.HasField("dim_value") and proto.dim_value >= 0:
        return proto.dim_value
    return dims.parse(proto.dim_param) if proto.dim_param else unknowns.fresh()


class _Loader:
    """Builds scopes one after the other, outer before inner, without recursion."""

    def __init__(
        self,
        ledger: Ledger,
        admission: Admission,
        ir_version: int,
        regions: Mapping[int, wire.Region] = _NO_REGIONS,
        weights: Mapping[str, Tensor] = _NO_WEIGHTS,
    ) -> None:
        self.ledger = ledger
        self.admission = admission
        self.error = admission.error
        self.overridable = ir_version >= 4
        self.regions = regions
        self.weights = weights
        self.repeated: list[str] = []

    def build(self, pending: list[tuple[Graph, onnx.GraphProto]]) -> None:
        scopes = []
        while pending:
            graph, proto = pending.pop()
            scopes.append(graph)
            pending.extend(reversed(self._scope(graph, proto)))
        for graph in scopes:
            self._sort(graph)

    def build_function(self, graph: Graph, proto: onnx.FunctionProto) -> None:
        self.admission.room(len(proto.node), len(proto.input), len(proto.value_info))
        place = f"function '{proto.name}'"
        for _, defaults in self.admission.attributes(proto.attribute_proto, place):
            self.admission.kept(defaults)
        for name in proto.input:
            self._claim(graph, name, place)
            graph.add_input(name)
        inner = self._nodes(graph, proto.node, {info.name: info for info in proto.value_info})
        self._outputs(graph, proto.output)
        self.build(inner)
        self._sort(graph)

    def _scope(self, graph: Graph, proto: onnx.GraphProto) -> list[tuple[Graph, onnx.GraphProto]]:
        """Builds one scope; returns its subgraphs."""
        graph.proto = proto
        constants = len(proto.initializer) + len(proto.sparse_initializer) + len(proto.input)
        self.admission.room(len(proto.node), constants, len(proto.value_info) + len(proto.output))
        infos = {info.name: info for info in proto.value_info}
        # Kept, even where they speak of nothing that is there: a new value must not be called so.
        graph.ledger.names.update(infos)
        self._sources(graph, proto, infos)
        inner = self._nodes(graph, proto.node, infos)
        self._outputs(graph, [info.name for info in proto.output])
        for info, value in zip(proto.output, graph.outputs, strict=True):
            value.info = value.info or info
            if value.dtype == 0:
                self._type(value, info)
        return inner

    def _sources(self, graph: Graph, proto: onnx.GraphProto, infos: dict[str, onnx.ValueInfoProto]) -> None:
        initializers = self._initializers(graph, proto)
        for info in proto.input:
            self._claim(graph, info.name, "graph input")
            default = initializers.pop(info.name, None)
            if default is not None and not self.overridable:
                value = self._constant(graph, info.name, default)
                graph.inputs.append(value.node)
            else:
                value = graph.add_input(info.name, *self._type_of(info), default=default)
            value.info = info
        for name, tensor in initializers.items():
            self._constant(graph, name, tensor)
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            self._claim(graph, name, "sparse initializer")
            value = graph.add_source("Constant", name).output
            value.dtype, value.shape = sparse.values.data_type, tuple(sparse.dims)
            graph.sparse[value.node] = sparse
            self.admission.sparse(sparse, f"tensor '{name}'")

    def _initializers(self, graph: Graph, proto: onnx.GraphProto) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        regions = self.regions if graph.holder is None else _NO_REGIONS
        for name, tensor in self.weights.items() if graph.holder is None else ():
            found[name] = self.admission.checked(tensor, f"tensor '{name}'")
        for index, tensor in enumerate(proto.initializer):
            name = tensor.name
            if name in found:
                raise self.error("GO042", f"two initializers called '{name}'", f"tensor '{name}'")
            if not name:
                raise self.error("GO134", "a constant has no name", f"initializer {index}")
            found[name] = self.admission.tensor(tensor, f"tensor '{name}'", regions.get(index))
        return found

    def _constant(self, graph: Graph, name: str, tensor: Tensor) -> Value:
        value = graph.add_source("Constant", name).output
        value.node.data = tensor
        value.dtype, value.shape = tensor.dtype, tensor.shape
        return value

    def _type(self, value: Value, info: onnx.ValueInfoProto) -> None:
        value.dtype, value.shape = self._type_of(info)
        if value.dtype == 0:
            # A sequence, a map, an optional: only the proto can say.
            value.info = info

    def _type_of(self, info: onnx.ValueInfoProto) -> tuple[int, Shape | None]:
        dtype, shape = type_of(info.type, self.ledger.unknowns)
        if dtype and dtype not in dtypes.NAMES:
            raise self.error("GO034", f"unknown element type {dtype}", f"value '{info.name}'")
        return dtype, shape

    def _nodes(
        self, graph: Graph, protos: Sequence[onnx.NodeProto], infos: dict[str, onnx.ValueInfoProto]
    ) -> list[tuple[Graph, onnx.GraphProto]]:
        """Makes the nodes, connects them, and returns the subgraphs that are still to be built."""
        graph.protos = protos
        for index, proto in enumerate(protos):
            if proto.op_type == "Constant" and self._written_again(graph, proto, index):
                continue
            node = self._node(graph, proto, index)
            written = [value.name for value in node.outputs if value.name]
            if len(written) > 1 and len(set(written)) < len(written):
                raise self.error("GO042", "two outputs of one name", node.place)
            for value in node.outputs:
                if value.name:
                    self._claim(graph, value.name, node)
                    info = infos.get(value.name)
                    if info is not None:
                        self._type(value, info)
            graph.append(node)
        inner: list[tuple[Graph, onnx.GraphProto]] = []
        for node in graph.ops():
            proto = protos[node.origin]
            names = proto.input
            node.inputs = [None] * len(names)
            node.arity = len(names)
            for slot, name in enumerate(names):
                if name:
                    graph.join(node, slot, self._lookup(graph, name, node))
            inner.extend(self._subgraphs(node, proto))
        return inner

    def _node(self, graph: Graph, proto: onnx.NodeProto, index: int) -> Node:
        """The node that `proto`, number `index` of its scope, says; not yet connected."""
        domain = sys.intern(canonical_domain(proto.domain))
        # Version 1 for a domain that the runtime imports: it has no other.
        node = Node(graph, sys.intern(proto.op_type), domain, graph.opsets.get(domain, 1))
        node.overload = proto.overload
        node.origin = index
        node.outputs = tuple([Value(node, slot, name) for slot, name in enumerate(proto.output)])
        if not node.op:
            raise self.error("GO134", "a node has no operator", node.place)
        if domain == IR_DOMAIN:
            raise self.error("GO043", f"the domain '{domain}' is graphopt's own", node.place, "rename the domain")
        if domain not in graph.opsets and domain not in IMPORTED_BY_THE_RUNTIME:
            message = f"the domain '{domain or 'ai.onnx'}' has no opset import"
            raise self.error("GO043", message, node.place, f"add an opset_import entry for '{domain or 'ai.onnx'}'")
        return node

    def _written_again(self, graph: Graph, proto: onnx.NodeProto, index: int) -> bool:
        """Whether this `Constant` writes the name of an earlier one, which then takes its value."""
        first = graph.names.get(proto.output[0]) if len(proto.output) == 1 else None
        if first is None or not first.node.is_op("Constant"):
            return False
        self.repeated.append(first.name)
        first.node.origin = index
        return True

    def _subgraphs(self, node: Node, proto: onnx.NodeProto) -> list[tuple[Graph, onnx.GraphProto]]:
        """Makes the empty subgraphs of `node`, paired with what they are to hold."""
        made: list[tuple[Graph, onnx.GraphProto]] = []
        for name, protos in self.admission.attributes(proto.attribute, node.place) if proto.attribute else ():
            graphs = [Graph(self.ledger, node) for _ in protos]
            node.graphs = {**(node.graphs or {}), name: graphs}
            made.extend(zip(graphs, protos, strict=True))
        return made

    def _outputs(self, graph: Graph, names: Sequence[str]) -> None:
        output = graph.output
        output.inputs = [None] * len(names)
        output.arity = len(names)
        for slot, name in enumerate(names):
            graph.join(output, slot, self._lookup(graph, name, output))

    def _claim(self, graph: Graph, name: str, claimant: Node | str) -> None:
        if not name:
            raise self.error("GO134", "a value has no name", str(claimant))
        if name in graph.names:
            place = claimant if isinstance(claimant, str) else claimant.place
            raise self.error("GO042", f"two values called '{name}'", place)

    def _lookup(self, graph: Graph, name: str, reader: Node) -> Value:
        """The value called `name` in this scope, else in the nearest outer one, captured."""
        found = graph.names.get(name)
        scope = graph
        while found is None and scope.holder is not None:
            scope = scope.holder.graph
            found = scope.names.get(name)
        if found is None or not name:
            what = "a graph output" if reader is graph.output else "an input"
            raise self.error("GO044", f"nothing produces '{name}', which is {what}", reader.place)
        try:
            return found if scope is graph else graph.capture(found)
        except CycleError as error:
            raise self.error("GO045", "the graph has a cycle", reader.place) from error

    def _sort(self, graph: Graph) -> None:
        """Puts the operations in a topological order: the file's own where it is one."""
        if all(p.rank < n.rank for n in graph.ops() for p in n.producers()):
            return
        waiting = {n: sum(1 for p in {*n.producers()} if not p.is_source) for n in graph.ops()}
        ready = [(node.rank, node) for node, count in waiting.items() if count == 0]
        heapq.heapify(ready)
        order = []
        while ready:
            _, node = heapq.heappop(ready)
            order.append(node)
            for reader in graph.successors(node):
                if reader in waiting:
                    waiting[reader] -= 1
                    if waiting[reader] == 0:
                        heapq.heappush(ready, (reader.rank, reader))
        if len(order) < len(waiting):
            stuck = min((n for n, count in waiting.items() if count), key=lambda n: n.rank)
            raise self.error("GO045", "the graph has a cycle", stuck.place)
        graph.reorder(order)
