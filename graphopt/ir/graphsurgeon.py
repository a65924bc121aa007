"""The bridge to onnx-graphsurgeon: its graphs as models, models as its graphs. Weights are handed over, not copied.

Imported on demand only: it loads onnx-graphsurgeon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter, dtype_to_onnx
from onnx_graphsurgeon.importers.onnx_importer import get_numpy_type, get_onnx_tensor_shape
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues
from onnx_graphsurgeon.util.misc import convert_from_onnx_attr_type, convert_to_onnx_attr_type

from graphopt.errors import ModelError
from graphopt.ir import attributes
from graphopt.ir.encode import value_info
from graphopt.ir.graph import Graph
from graphopt.ir.load import model_from_proto
from graphopt.ir.model import Function, Model, canonical_domain
from graphopt.ir.node import Node, Value
from graphopt.ir.protos import copy_fields
from graphopt.ir.tensor import Array, Tensor

_TYPES = ("tensor_type", "sequence_type")
_ORIGIN = "_origin"


@dataclass(frozen=True)
class _Origin:
    """What onnx-graphsurgeon has no word for, carried by the graph: the model's file, metadata, documentation."""

    path: Path | None
    proto: onnx.ModelProto


class Weights(LazyValues):  # type: ignore[misc]
    """The data of a constant: numbers are read when somebody asks a `gs.Constant` for its `values`.

    `outer` says that it is an initializer of the main graph, whichever subgraph reads it.
    """

    def __init__(self, source: Tensor, outer: bool = False) -> None:
        self.source = source
        self.outer = outer
        self.shape = list(source.shape)
        self.dtype = get_numpy_type(source.dtype) or source.dtype
        self.nbytes = source.nbytes

    @property
    def tensor(self) -> TensorProto:
        """A proto with the numbers in it, which is what `gs.export_onnx` writes."""
        raw = self.source.raw()
        if raw is not None:
            return TensorProto(data_type=self.source.dtype, dims=self.source.shape, raw_data=bytes(raw))
        proto = TensorProto()
        proto.CopyFrom(self.source.to_proto(""))
        return proto

    def load(self) -> Array:
        return np.array(self.source.numpy())


def to_graphsurgeon(model: Model) -> gs.Graph:
    """The `onnx_graphsurgeon.Graph` of a model, which stays as it is.

    Memory: about 3 kB for each node; BERT-base with its 438 MB of weights takes 3 MB, where `gs.import_onnx` takes 430.
    Weights stay where they are (in a mapped file, in a proto) until a script asks a constant for its `values`. File and
    metadata of the model are kept on the graph object, not by `gs.Graph.copy`; documentation of nodes and values and
    quantization annotations are not kept. Raises: ModelError GO049 for what onnx-graphsurgeon cannot say: optional and
    map types, overloads of functions, lists of subgraphs.
    """
    writer = _ToGraphsurgeon()
    functions = [writer.function(function) for function in model.functions.values()]
    graph = writer.scope(
        model.graph,
        opset=model.opset,
        import_domains=_imports(model.opsets),
        producer_name=model.proto.producer_name,
        producer_version=model.proto.producer_version,
        ir_version=model.proto.ir_version or None,
        functions=functions,
    )
    setattr(graph, _ORIGIN, _Origin(model.path, model.proto))
    return graph


def from_graphsurgeon(graph: gs.Graph) -> Model:
    """The model that an `onnx_graphsurgeon.Graph` says, as `gs.export_onnx` reads it; the graph stays as it is.

    Memory: about 3 kB for each node, where `gs.export_onnx` copies all weights twice. They are shared with the graph,
    arrays too: write into none of them while the model is in use. An initializer of the main graph stays one where only
    subgraphs read it, while `gs.export_onnx` copies it into each. External data of protos that graphsurgeon read is
    relative to the current folder. Raises: ModelError GO049 for what is not ONNX (an attribute without a type), GO04x
    as `load`.
    """
    origin: _Origin = vars(graph).get(_ORIGIN) or _Origin(None, onnx.ModelProto())
    base = origin.path.parent if origin.path is not None else Path.cwd()
    writer = _FromGraphsurgeon(base)
    proto = copy_fields(
        origin.proto, onnx.ModelProto(), "opset_import", "ir_version", "producer_name", "producer_version"
    )
    proto.opset_import.extend(_all_imports(graph, [graph, *graph.subgraphs(recursive=True)]))
    _say(proto, producer_name=graph.producer_name, producer_version=graph.producer_version)
    proto.ir_version = graph.ir_version or onnx.helper.find_min_ir_version_for(proto.opset_import, True)
    writer.main(graph, proto.graph)
    for function in graph.functions:
        writer.function(function, proto.functions.add())
    return model_from_proto(proto, origin.path, weights=writer.weights)


# ---- to onnx-graphsurgeon --------------------------------------------------------------------------------------------


class _ToGraphsurgeon:
    """Makes scopes from the outermost in; each value becomes one tensor, whatever scopes read it."""

    def __init__(self) -> None:
        self.tensors: dict[Value, gs.Tensor] = {}

    def scope(self, graph: Graph, **about: Any) -> gs.Graph:
        inputs = [self.tensor(node.output) for node in graph.inputs]
        nodes = [self.node(node) for node in graph.ops()]
        outputs = [self.tensor(value) for value in graph.outputs]
        if graph.proto is not None:
            about |= {"name": graph.proto.name, "doc_string": graph.proto.doc_string}
        return gs.Graph(nodes, inputs, outputs, **about)

    def function(self, function: Function) -> gs.Function:
        graph, proto = function.graph, function.proto
        if proto.overload:
            raise _unsaid("overloads", f"function '{proto.name}'")
        defaults = {a.name: _to_attribute(attributes.decode_one(a, graph.ledger.base)) for a in proto.attribute_proto}
        return gs.Function(
            proto.name,
            proto.domain,
            inputs=[self.tensor(node.output) for node in graph.inputs],
            nodes=[self.node(node) for node in graph.ops()],
            outputs=[self.tensor(value) for value in graph.outputs],
            doc_string=proto.doc_string,
            opset=graph.opsets.get("", 1),
            import_domains=_imports(graph.opsets),
            attrs={**dict.fromkeys(proto.attribute), **defaults},
        )

    def node(self, node: Node) -> gs.Node:
        if node.overload:
            raise _unsaid("overloads", node.place)
        attrs = {name: _to_attribute(value) for name, value in node.attrs.items()}
        inputs = [self.tensor(value) for value in node.inputs[: node.arity]]
        outputs = [self.tensor(value) for value in node.outputs]
        for name, graphs in (node.graphs or {}).items():
            if len(graphs) != 1:
                raise _unsaid("lists of subgraphs", node.place)
            attrs[name] = self.scope(graphs[0], opset=node.graph.opsets.get("", 1))
        return gs.Node(node.op, node.name, attrs, inputs, outputs, node.domain or None)

    def tensor(self, value: Value | None) -> gs.Tensor:
        if value is None or not value.name:
            return gs.Variable.empty()
        value = value.resolved
        known = self.tensors.get(value)
        if known is None:
            known = self.tensors[value] = _to_tensor(value)
        return known


def _to_tensor(value: Value) -> gs.Tensor:
    node = value.node
    sparse = node.graph.sparse.get(node)
    if sparse is not None:
        return gs.Constant(value.name, SparseValues(sparse))
    if node.is_source and node.data is not None:
        return gs.Constant(value.name, Weights(node.data, outer=node.graph.holder is None))
    said = value_info(value).type
    kind = said.WhichOneof("value")
    if kind is None:
        return gs.Variable(value.name)
    element = said if kind == "tensor_type" else said.sequence_type.elem_type
    if kind not in _TYPES or not element.HasField("tensor_type"):
        raise _unsaid(f"values of {kind.removesuffix('_type')} type", f"value '{value.name}'")
    number = element.tensor_type.elem_type
    dtype = (get_numpy_type(number) or number) if number else None
    return gs.Variable(value.name, dtype, get_onnx_tensor_shape(onnx.ValueInfoProto(type=element)), kind)


def _to_attribute(value: Any) -> Any:
    """An attribute of the IR as graphsurgeon keeps it; it exports protos as they are."""
    match value:
        case Tensor():
            return gs.Constant(value.proto.name if value.proto is not None else "", Weights(value))
        case [Tensor(), *_]:
            return [tensor.to_proto("") for tensor in value]
        case attributes.Reference(name=name, type=kind):
            return gs.Node.AttributeRef(name, convert_from_onnx_attr_type(kind))
    return value


def _imports(opsets: Mapping[str, int]) -> list[onnx.OperatorSetIdProto]:
    return [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]


def _unsaid(what: str, where: str) -> ModelError:
    return ModelError("GO049", f"onnx-graphsurgeon has no word for {what}", where)


# ---- from onnx-graphsurgeon ------------------------------------------------------------------------------------------


class _FromGraphsurgeon:
    """Writes scopes as protos, but for the initializers of the main graph, which are gathered in `weights`.

    `base` is the folder that external data of the model is to be relative to.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.weights: dict[str, Tensor] = {}

    def main(self, graph: gs.Graph, proto: onnx.GraphProto) -> None:
        known = _outer_constants(graph)
        dense = self._sparse_apart(known, proto)
        self.weights = {name: self._tensor(constant) for name, constant in dense.items()}
        self._scope(graph, proto, known)

    def function(self, function: gs.Function, proto: onnx.FunctionProto) -> None:
        _say(proto, name=function.name, domain=function.domain, doc_string=function.doc_string)
        proto.opset_import.extend(_all_imports(function, [function, *function.subgraphs(recursive=True)]))
        proto.input.extend(tensor.name for tensor in function.inputs)
        proto.output.extend(tensor.name for tensor in function.outputs)
        for name, default in function.attrs.items():
            if default is None:
                proto.attribute.append(name)
            else:
                self._attribute(name, default, proto.attribute_proto.add(), {})
        known = _constants(function)
        # A function body has no initializers: its constants are nodes.
        for name, constant in known.items():
            value = self._tensor(constant).to_proto(name)
            proto.node.append(onnx.helper.make_node("Constant", [], [name], value=value))
        self._nodes(function, proto.node.add, known)

    def _scope(self, graph: gs.Graph, proto: onnx.GraphProto, known: Mapping[str, gs.Constant]) -> None:
        """Writes one scope; `known` are constants that it finds in itself or around it."""
        own = {name: constant for name, constant in _constants(graph).items() if known.get(name) is not constant}
        _say(proto, name=graph.name or "graph", doc_string=graph.doc_string)
        proto.input.extend(map(_info, graph.inputs))
        proto.output.extend(map(_info, graph.outputs))
        for name, constant in self._sparse_apart(own, proto).items():
            proto.initializer.append(self._tensor(constant).to_proto(name))
        ends = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
        made = (tensor for node in graph.nodes for tensor in node.outputs if tensor.name not in ends)
        proto.value_info.extend(_info(t) for t in made if t.name and (t.dtype is not None or t.shape is not None))
        self._nodes(graph, proto.node.add, {**known, **own})

    def _sparse_apart(self, constants: Mapping[str, gs.Constant], proto: onnx.GraphProto) -> dict[str, gs.Constant]:
        """Writes the sparse ones into `proto`; returns the others."""
        dense = dict(constants)
        for name, constant in constants.items():
            if isinstance(constant._values, SparseValues):
                sparse = proto.sparse_initializer.add()
                sparse.CopyFrom(dense.pop(name)._values.tensor)
                sparse.values.name = name
        return dense

    def _nodes(self, graph: gs.Graph, add: Any, known: Mapping[str, gs.Constant]) -> None:
        for node in graph.nodes:
            proto = add()
            try:
                _say(proto, op_type=node.op, name=node.name, domain=node.domain)
                proto.input.extend(tensor.name for tensor in node.inputs)
                proto.output.extend(tensor.name for tensor in node.outputs)
                for name, value in node.attrs.items():
                    self._attribute(name, value, proto.attribute.add(), known)
            except (TypeError, ValueError, AttributeError) as error:
                raise ModelError("GO049", f"this is not ONNX: {error}", f"node '{node.name}' ({node.op})") from error

    def _attribute(self, name: str, value: Any, proto: AttributeProto, known: Mapping[str, gs.Constant]) -> None:
        proto.name = name
        match value:
            case gs.Graph():
                proto.type = AttributeProto.GRAPH
                self._scope(value, proto.g, known)
            case gs.Constant():
                proto.type = AttributeProto.TENSOR
                proto.t.CopyFrom(self._tensor(value).to_proto(value.name))
            case gs.Node.AttributeRef():
                proto.type = convert_to_onnx_attr_type(value.type)
                proto.ref_attr_name = value.name
            case type() | np.dtype():
                proto.CopyFrom(attributes.encode(name, dtype_to_onnx(value)))
            case _:
                proto.CopyFrom(attributes.encode(name, value))

    def _tensor(self, constant: gs.Constant) -> Tensor:
        """The data of a constant, where it is; what lies in files of another folder is mapped."""
        values = constant._values
        if isinstance(values, Weights):
            tensor = values.source
        elif isinstance(values, LazyValues):
            tensor = Tensor(values.tensor, base=Path.cwd())
        else:
            tensor = _array_tensor(values, constant)
        if tensor.external is not None and tensor.base != self.base:
            tensor = Tensor(None, tensor.numpy())
        return tensor


def _say(proto: Message, **texts: str | None) -> None:
    """Sets the fields that have a text."""
    for name, text in texts.items():
        if text:
            setattr(proto, name, text)


def _array_tensor(array: Array, constant: gs.Constant) -> Tensor:
    wanted = constant.export_dtype
    try:
        if wanted != array.dtype:
            return Tensor.of(array, dtype_to_onnx(wanted))
        return Tensor(None, np.ascontiguousarray(array).reshape(array.shape))
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError("GO049", f"no element type of ONNX is {wanted}", f"tensor '{constant.name}'") from error


def _info(tensor: gs.Tensor) -> onnx.ValueInfoProto:
    if isinstance(tensor, gs.Variable) and tensor.dtype is not None and tensor.type not in _TYPES:
        raise _unsaid(f"values of {str(tensor.type).removesuffix('_type')} type", f"value '{tensor.name}'")
    info: onnx.ValueInfoProto = OnnxExporter.export_value_info_proto(tensor, do_type_check=False)
    return info


def _tensors(graph: gs.Graph) -> Iterator[gs.Tensor]:
    """Every tensor that one scope names, as often as it does."""
    yield from graph.inputs
    for node in graph.nodes:
        yield from node.inputs
        yield from node.outputs
    yield from graph.outputs


def _constants(graph: gs.Graph) -> dict[str, gs.Constant]:
    """The constants that a scope reads, by name. Raises: ModelError GO042 when another tensor has the name of one."""
    named: dict[str, gs.Tensor] = {}
    for tensor in _tensors(graph):
        other = named.setdefault(tensor.name, tensor)
        if other is not tensor and (isinstance(other, gs.Constant) or isinstance(tensor, gs.Constant)):
            raise ModelError("GO042", f"two tensors called '{tensor.name}'", f"graph '{graph.name}'")
    return {name: tensor for name, tensor in named.items() if isinstance(tensor, gs.Constant)}


def _outer_constants(graph: gs.Graph) -> dict[str, gs.Constant]:
    """The constants of the main graph: those it reads, those it had, and those that several of its subgraphs read.

    One whose name means something else in another scope stays in each scope that reads it.
    """
    found = _constants(graph)
    named: dict[str, list[gs.Tensor]] = {tensor.name: [tensor] for tensor in _tensors(graph)}
    for scope in graph.subgraphs(recursive=True):
        once = {tensor.name: tensor for tensor in _tensors(scope)}
        for name, tensor in once.items():
            named.setdefault(name, []).append(tensor)
    for name, tensors in named.items():
        first = tensors[0]
        if isinstance(first, gs.Constant) and all(tensor is first for tensor in tensors):
            values = first._values
            if len(tensors) > 1 or (isinstance(values, Weights) and values.outer):
                found[name] = first
    return found


def _all_imports(graph: gs.Graph, scopes: Iterable[gs.Graph]) -> list[onnx.OperatorSetIdProto]:
    """The opset imports of a graph, with version 1 of domains that only its nodes name, as `gs.export_onnx` has it."""
    imports = list(graph.import_domains or _imports({"": graph.opset}))
    known = {canonical_domain(entry.domain) for entry in imports}
    used = {canonical_domain(node.domain or "") for scope in scopes for node in scope.nodes}
    return imports + _imports(dict.fromkeys(sorted(used - known), 1))
