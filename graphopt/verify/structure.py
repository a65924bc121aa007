"""Numbers for structures: two values get the same number exactly when they are computed in the same way.

Numbers are made by hash-consing: that of a value from its node's operator, attributes, and the numbers of its inputs;
a cut point is numbered by its name alone. So cones are compared back to the nearest cuts in one pass over each model.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections import Counter
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Any

import onnx
from google.protobuf.message import Message
from onnx import AttributeProto

from graphopt.ir import Function, Model, Node, Tensor, Value
from graphopt.ir.attributes import Reference, same_tensor
from graphopt.ir.encode import node_to_proto
from graphopt.ir.schema import is_random, onnx_schema, signature

_SMALL_BYTES = 1024
_FIRST_STABLE_OPSET = 13
"""From here on a new version of an operator with the same signature differs in the types it takes, not in meaning."""


@dataclass
class Numbers:
    """Hands out the numbers; shared by all models that are compared with one original."""

    _known: dict[Hashable, int] = field(default_factory=dict)

    def __call__(self, key: Hashable) -> int:
        return self._known.setdefault(key, len(self._known))


class Constants:
    """Numbers of constants: those of the original by name, others by what they are equal to.

    Data is read only where neither the name nor the place in a file says that two constants are the same.
    """

    def __init__(self, original: Model, numbers: Numbers) -> None:
        self._numbers = numbers
        self._named = {node.output.name: node for node in original.graph.sources("Constant")}
        self._digests: dict[tuple[int, tuple[int, ...]], dict[bytes, str]] = {}

    def number(self, node: Node) -> int:
        """The number of an initializer."""
        tensor, name = node.data, node.output.name
        if tensor is None:
            return self._numbers(("sparse", _sparse(node)))
        if tensor.nbytes <= _SMALL_BYTES:
            return self._numbers(_content(tensor))
        twin = self._named.get(name)
        if twin is node or (twin is not None and twin.data is not None and identical(twin.data, tensor)):
            return self._numbers(("constant", name))
        content = _content(tensor)
        equal = self._alike(tensor).get(content[-1])
        return self._numbers(content if equal is None else ("constant", equal))

    def _alike(self, tensor: Tensor) -> dict[bytes, str]:
        """The original's constants of this type and shape, by digest."""
        key = tensor.dtype, tensor.shape
        if key not in self._digests:
            alike = [n for n in self._named.values() if n.data is not None and (n.data.dtype, n.data.shape) == key]
            self._digests[key] = {_content(n.data)[-1]: n.output.name for n in alike if n.data is not None}
        return self._digests[key]


class Structure:
    """The numbers of all values of a model's main graph; constants of values are theirs, cuts count by name."""

    def __init__(self, model: Model, cuts: Collection[str], numbers: Numbers, constants: Constants) -> None:
        self._numbers = numbers
        self._functions = model.functions
        self._of: dict[Value, int] = {}
        self._seen: Counter[Hashable] = Counter()
        graph = model.graph
        for node in graph.sources("Input"):
            self._of[node.output] = numbers(("cut", node.output.name))
        for node in graph.sources("Constant"):
            self._of[node.output] = constants.number(node)
        self._as_read = dict(self._of)
        for value in self._of:
            if value.name in cuts:
                self._as_read[value] = numbers(("cut", value.name))
        for node in graph.ops():
            key = self._expression(node)
            for value in node.outputs:
                tensor = value.tensor
                own = numbers(_content(tensor)) if tensor is not None else numbers((key, value.index))
                self._of[value] = own
                self._as_read[value] = numbers(("cut", value.name)) if value.name in cuts else own

    def __getitem__(self, value: Value) -> int:
        """How `value` is computed from the nearest cuts."""
        return self._of[value]

    def _expression(self, node: Node) -> int:
        inputs = tuple(-1 if value is None else self._as_read[value] for value in node.inputs)
        while inputs and inputs[-1] == -1:
            inputs = inputs[:-1]
        key = (node.domain, node.op, node.overload, self._form(node), _attributes(node), inputs, len(node.outputs))
        if draws(node):
            # Two draws are two values, however alike they are written: the first stands for the other model's first.
            self._seen[key] += 1
            return self._numbers((key, self._seen[key]))
        return self._numbers(key)

    def _form(self, node: Node) -> Hashable:
        function = self._functions.get((node.domain, node.op, node.overload))
        return form(node.domain, node.op, node.version) if function is None else _body(function)


@functools.cache
def form(domain: str, op: str, version: int) -> Hashable:
    """What an operator's version means: versions that differ only in the types they take have one form."""
    schema = onnx_schema(domain, op, version)
    if schema is None:
        return version
    if schema.since_version < _FIRST_STABLE_OPSET:
        return schema.since_version
    return (
        tuple((parameter.name, str(parameter.option)) for parameter in schema.inputs),
        tuple((parameter.name, str(parameter.option)) for parameter in schema.outputs),
        tuple(sorted((n, a.required, a.default_value.SerializeToString()) for n, a in schema.attributes.items())),
    )


def identical(a: Tensor, b: Tensor) -> bool:
    """Equal type, shape and bits; nothing is read where both lie in one place."""
    if a is b or (a.proto is not None and a.proto is b.proto and a.base == b.base):
        return True
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    place = a.place()
    return (place is not None and place == b.place()) or same_tensor(a, b)


def _content(tensor: Tensor) -> tuple[str, int, tuple[int, ...], bytes]:
    array = tensor.numpy()
    if array.dtype == object:
        data = b"\0".join(text if isinstance(text, bytes) else str(text).encode() for text in array.flat)
    else:
        data = array.tobytes()
    if len(data) > _SMALL_BYTES:
        data = hashlib.blake2b(data, digest_size=24).digest()
    return "content", tensor.dtype, tensor.shape, data


def _sparse(node: Node) -> bytes:
    return _bytes(node.graph.sparse[node])


def _attributes(node: Node) -> Hashable:
    known = signature(node.domain, node.op, node.version)
    names = node.attrs.keys() if known is None else node.attrs.keys() | known.attributes.keys()
    written = tuple((name, _hashable(node.attr(name))) for name in sorted(names) if not (node.graphs or {}).get(name))
    return (written, _subgraphs(node)) if node.graphs else written


def _subgraphs(node: Node) -> tuple[bytes, ...]:
    graphs = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
    return tuple(_bytes(attribute) for attribute in node_to_proto(node).attribute if attribute.type in graphs)


def _hashable(value: Any) -> Hashable:
    if isinstance(value, float):
        try:
            return struct.pack("<f", value)
        except OverflowError:
            return value
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    if isinstance(value, Tensor):
        return _content(value)
    if isinstance(value, Message):
        return _bytes(value)
    if isinstance(value, (int, str, bytes, Reference)) or value is None:
        return value
    raise TypeError(f"an attribute cannot be {value!r}")


def _bytes(proto: Message) -> bytes:
    return bytes(proto.SerializeToString(deterministic=True))


def _body(function: Function) -> bytes:
    """A function by its attributes, inputs, outputs and nodes."""
    proto = onnx.FunctionProto()
    proto.CopyFrom(function.proto)
    del proto.node[:]
    proto.node.extend(node_to_proto(node) for node in function.graph.ops())
    return hashlib.blake2b(_bytes(proto), digest_size=24).digest()


def draws(node: Node) -> bool:
    """Whether `node`, or something in its subgraphs, is random."""
    if is_random(node.domain, node.op):
        return True
    inner = [graph for graphs in (node.graphs or {}).values() for graph in graphs]
    return any(is_random(n.domain, n.op) for graph in inner for scope in graph.scopes() for n in scope.ops())
