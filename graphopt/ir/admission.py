"""What a model's tensors, attributes and functions must be before a graph is made of them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, SparseTensorProto, TensorProto

from graphopt.errors import ModelError
from graphopt.ir import dtypes
from graphopt.ir.external import KNOWN, path_of
from graphopt.ir.model import FunctionKey, canonical_domain
from graphopt.ir.tensor import Tensor
from graphopt.ir.wire import Region

_log = logging.getLogger(__name__)

MOST_MEMORY: Final = 5_000_000_000
"""Bytes. A model whose graphs would take more, by their numbers of nodes, constants and types, is refused."""

_NODE, _CONSTANT, _INFO = 2500, 1000, 300

_DAMAGED: Final = "the file is damaged, or its exporter has a bug: export the model again"
_HINTS: Final = {
    "GO031": "external data lies beside the model, in files",
    "GO037": "external data is a file in the model's folder, and there a number of bytes at a number of bytes",
    "GO042": "every value of a scope, and every function, has its own name",
    "GO045": "no node may read, through others, what it writes",
    "GO133": "functions may call each other, but not in a circle",
}

_ONE: Final = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
}
_MANY: Final = {
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
_TYPES: Final = {name: kind for kind, name in (_ONE | _MANY).items()}


class Admission:
    """Looks at the parts of one model; `where` names it, `path` is its file, `base` the folder of its external data.

    `files` are the files with external data of the parts that were let in, by location.
    """

    def __init__(self, base: Path, where: str, path: Path | None = None) -> None:
        self.base = base
        self.where = where
        self.files: dict[str, Path] = {}
        self._own = Path(os.path.realpath(path)) if path is not None else None
        self._sizes: dict[str, int] = {}
        self._memory = 0
        # Constants of one shape share it, which counts where there are a hundred thousand.
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}

    def room(self, nodes: int, constants: int, infos: int) -> None:
        """Counts what a scope has. Raises: ModelError GO130 when all scopes together have too much."""
        self._memory += _NODE * nodes + _CONSTANT * constants + _INFO * infos
        if self._memory > MOST_MEMORY:
            message = f"the graphs of the model would take more than {MOST_MEMORY // 10**9} GB of memory"
            raise self.error("GO130", message, hint="split the model")

    def tensor(self, proto: TensorProto, place: str, region: Region | None = None) -> Tensor:
        """The constant in `proto`. Raises: ModelError GO030, GO031, GO034, GO037, GO038, as `Tensor.location`."""
        tensor = Tensor(proto, base=self.base, region=region)
        tensor.shape = self._shapes.setdefault(tensor.shape, tensor.shape)
        return self.checked(tensor, place)

    def checked(self, tensor: Tensor, place: str) -> Tensor:
        """The constant, after a look whether its data can be read. Raises: as `tensor`."""
        try:
            tensor.check(self._sizes)
        except ModelError as error:
            raise self.error(error.code, error.message, place, error.hint) from error
        if tensor.proto is not None and tensor.proto.external_data and tensor.external is not None:
            self._beside(tensor.proto, place)
        return tensor

    def sparse(self, proto: SparseTensorProto, place: str) -> None:
        """Looks at a sparse tensor. Raises: as `tensor`, and ModelError GO132 when its parts do not go together."""
        values, indices = self.tensor(proto.values, place), self.tensor(proto.indices, place)
        shape, count = tuple(proto.dims), values.size
        size = math.prod(shape)
        if not shape or min(shape) < 1 or size >= 1 << 63:
            raise self.error("GO132", f"a sparse tensor of the shape {list(shape)}", place)
        fits = indices.dtype == dtypes.INT64 and indices.shape in ((count,), (count, len(shape)))
        if len(values.shape) != 1 or not fits:
            found = f"{count} values have indices {dtypes.NAMES[indices.dtype]}{list(indices.shape)}"
            raise self.error("GO132", f"a sparse tensor of the shape {list(shape)}: {found}", place)
        bounds = np.array(shape if len(indices.shape) == 2 else [size], np.int64)
        numbers = indices.numpy().reshape(count, len(bounds))
        if np.any((numbers < 0) | (numbers >= bounds)):
            raise self.error("GO132", f"an index of a sparse tensor lies outside its shape {list(shape)}", place)

    def attributes(self, protos: Iterable[AttributeProto], place: str) -> list[tuple[str, list[GraphProto]]]:
        """Looks at the attributes of a node; returns those that hold subgraphs, which are not looked at.

        Raises: as `sparse`, and ModelError GO131 for an attribute that is none.
        """
        found: list[tuple[str, list[GraphProto]]] = []
        seen: set[str] = set()
        for proto in protos:
            name = proto.name
            if not name or name in seen:
                problem = f"two attributes are called '{name}'" if name else "an attribute has no name"
                raise self.error("GO131", problem, place)
            seen.add(name)
            if proto.ref_attr_name:
                # What the caller of a function gives is not here.
                continue
            kind = proto.type
            self._typed(proto, kind, place)
            match kind:
                case AttributeProto.TENSOR:
                    self.tensor(proto.t, place)
                case AttributeProto.GRAPH:
                    found.append((name, [proto.g]))
                case AttributeProto.GRAPHS:
                    found.append((name, list(proto.graphs)))
                case AttributeProto.TENSORS:
                    for tensor in proto.tensors:
                        self.tensor(tensor, place)
                case AttributeProto.SPARSE_TENSOR:
                    self.sparse(proto.sparse_tensor, place)
                case AttributeProto.SPARSE_TENSORS:
                    for sparse in proto.sparse_tensors:
                        self.sparse(sparse, place)
        return found

    def kept(self, graphs: Iterable[GraphProto]) -> None:
        """Looks at the tensors and attributes of graphs that no graph is made of: those of training."""
        todo = list(graphs)
        while todo:
            graph = todo.pop()
            for tensor in graph.initializer:
                self.tensor(tensor, f"tensor '{tensor.name}'")
            for sparse in graph.sparse_initializer:
                self.sparse(sparse, f"tensor '{sparse.values.name}'")
            todo += self.inner(graph.node)

    def inner(self, nodes: Iterable[NodeProto]) -> list[GraphProto]:
        """Looks at the attributes of nodes; returns their subgraphs."""
        held = (self.attributes(node.attribute, f"node '{node.name}' ({node.op_type})") for node in nodes)
        return [graph for attributes in held for _, graphs in attributes for graph in graphs]

    def acyclic(self, functions: Mapping[FunctionKey, FunctionProto]) -> None:
        """Raises ModelError GO133 when a function calls itself, be it through others."""
        calls = {key: [called for called in _called(proto) if called in functions] for key, proto in functions.items()}
        callers: dict[FunctionKey, list[FunctionKey]] = {key: [] for key in calls}
        for key, called in calls.items():
            for one in called:
                callers[one].append(key)
        left = {key: len(called) for key, called in calls.items()}
        ready = [key for key, count in left.items() if not count]
        while ready:
            key = ready.pop()
            del left[key]
            for caller in callers[key]:
                left[caller] -= 1
                if not left[caller]:
                    ready.append(caller)
        if left:
            key = next(iter(left))
            raise self.error("GO133", "a function calls itself, or one that calls it", f"function '{key[1]}'")

    def error(self, code: str, message: str, place: str = "", hint: str = "") -> ModelError:
        """What is wrong at a place in the model."""
        where = f"{self.where}: {place}" if place else self.where
        return ModelError(code, message, where, hint or _HINTS.get(code, _DAMAGED))

    def _typed(self, proto: AttributeProto, kind: int, place: str) -> None:
        filled = [name for name in _ONE.values() if proto.HasField(name)]
        filled += [name for name in _MANY.values() if len(getattr(proto, name))]
        if kind not in _ONE and kind not in _MANY:
            raise self.error("GO131", f"the attribute '{proto.name}' has no type", place)
        if len(filled) > 1 or (filled and _TYPES[filled[0]] != kind):
            says, holds = _word(kind), " and ".join(_word(_TYPES[name]) for name in filled)
            raise self.error("GO131", f"the attribute '{proto.name}' is said to be {says}, and holds {holds}", place)

    def _beside(self, proto: TensorProto, place: str) -> None:
        """Takes note of a file, and of what is not known of it."""
        entries = {entry.key: entry.value for entry in proto.external_data}
        location = entries["location"]
        for key in entries.keys() - set(KNOWN):
            _log.warning("%s: %s: external data says '%s', which has no meaning", self.where, place, key)
        if location not in self.files:
            path = path_of(self.base, location, place)
            if path == self._own:
                raise self.error("GO037", f"external data '{location}' is the model itself", place)
            self.files[location] = path


def _word(kind: int) -> str:
    return str(AttributeProto.AttributeType.Name(kind))


def _called(proto: FunctionProto) -> set[FunctionKey]:
    """What a function calls, in its subgraphs, too."""
    found: set[FunctionKey] = set()
    todo = [proto.node]
    while todo:
        for node in todo.pop():
            found.add((canonical_domain(node.domain), node.op_type, node.overload))
            for attribute in node.attribute:
                if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                    todo += [attribute.g.node, *(graph.node for graph in attribute.graphs)]
    return found
