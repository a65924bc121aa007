"""Numbers for structures: two values get the same number only if they are computed in the same way.

Numbers are made by hash-consing: that of a value from its node's operator, attributes, and the numbers of its inputs;
a cut point is read as its name alone. So cones are compared back to the nearest cuts in one pass over each model.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import os
import struct
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import Message
from onnx import AttributeProto

from graphopt.files import open_regular
from graphopt.ir import Function, Graph, Model, Node, Tensor, Value
from graphopt.ir.attributes import Reference, same_tensor
from graphopt.ir.encode import node_to_proto
from graphopt.ir.model import FunctionKey
from graphopt.ir.schema import onnx_schema, signature
from graphopt.verify.random_ops import drawing_functions, draws

_SMALL_BYTES = 1024
_LARGE_BYTES = 1 << 20
_FIRST_STABLE_OPSET = 13
"""From here on a new version of an operator with the same signature differs in the types it takes, not in meaning."""


@dataclass
class Numbers:
    """Hands out the numbers; shared by all models that are compared with one original."""

    _known: dict[Hashable, int] = field(default_factory=dict)

    def __call__(self, key: Hashable) -> int:
        return self._known.setdefault(key, len(self._known))


class Constants:
    """Numbers of constants: equal ones have one number. Those of the original are found by name first.

    Data is read only where neither the name nor the place in a file says that two constants are the same, and whole
    only where their beginnings are equal.
    """

    def __init__(self, original: Model, numbers: Numbers) -> None:
        self._numbers = numbers
        self._named: dict[str, tuple[Tensor, int]] = {}
        self._alike: dict[Hashable, list[tuple[Tensor, int]]] = {}
        for node in original.graph.sources("Constant"):
            if node.data is not None:
                self._named[node.output.name] = node.data, self.number_of(node.data)

    def number(self, node: Node) -> int:
        """The number of an initializer."""
        if node.data is None:
            return self._numbers(("sparse", _bytes(node.graph.sparse[node])))
        tensor, number = self._named.get(node.output.name, (None, -1))
        return number if tensor is not None and identical(tensor, node.data) else self.number_of(node.data)

    def number_of(self, tensor: Tensor) -> int:
        """The number of a tensor's type, shape and data."""
        content = _content(tensor)
        if content is not None:
            return self._numbers(content)
        key = tensor.dtype, tensor.shape, _beginning(tensor)
        alike = self._alike.setdefault(key, [])
        for known, number in alike:
            if identical(known, tensor):
                return number
        number = self._numbers((key, len(alike)))
        alike.append((tensor, number))
        return number


class Structure:
    """The numbers of all values of a model's main graph; an Identity is what it reads.

    `cuts` maps values, by name, to the cut points that they are read as. `operators` are the numbers of what nodes do,
    whatever they read: those of the model that are known are taken from there, the others are added.
    """

    def __init__(
        self,
        model: Model,
        numbers: Numbers,
        constants: Constants,
        cuts: Mapping[str, str] | None = None,
        operators: dict[Node, int] | None = None,
    ) -> None:
        self.operators = {} if operators is None else operators
        self._cuts = cuts or {}
        self._numbers = numbers
        self._functions = model.functions
        self._drawing = drawing_functions(model.functions)
        self._bodies: dict[FunctionKey, Hashable] = {}
        self._of: dict[Value, int] = {}
        self._as_read: dict[Value, int] = {}
        self._seen: Counter[Hashable] = Counter()
        graph = model.graph
        for node in [*graph.sources("Input"), *graph.sources("Constant")]:
            number = constants.number(node) if node.op == "Constant" else numbers(("cut", node.output.name))
            self._note(node.output, number)
        for node in graph.ops():
            if node.is_op("Identity") and node.inputs[0] is not None:
                self._note(node.output, self._as_read[node.inputs[0]])
                continue
            key = self._expression(node)
            for value in node.outputs:
                tensor = value.tensor
                content = _content(tensor) if tensor is not None else None
                self._note(value, numbers((key, value.index) if content is None else content))

    def __getitem__(self, value: Value) -> int:
        """How `value` is computed from the nearest cuts."""
        return self._of[value]

    def _note(self, value: Value, number: int) -> None:
        cut = self._cuts.get(value.name)
        self._of[value] = number
        self._as_read[value] = number if cut is None else self._numbers(("cut", cut))

    def _expression(self, node: Node) -> int:
        inputs = tuple(-1 if value is None else self._as_read[value] for value in node.inputs)
        while inputs and inputs[-1] == -1:
            inputs = inputs[:-1]
        does = self.operators.get(node)
        if does is None:
            whole = (node.domain, node.op, node.overload, self._form(node), _attributes(node), len(node.outputs))
            does = self.operators[node] = self._numbers(whole)
        key = (does, inputs)
        if draws(node, self._drawing):
            # Two draws are two values, however alike they are written: the first stands for the other model's first.
            self._seen[key] += 1
            return self._numbers((key, self._seen[key]))
        return self._numbers(key)

    def _form(self, node: Node) -> Hashable:
        key = node.domain, node.op, node.overload
        function = self._functions.get(key)
        if function is None:
            own = form(node.domain, node.op, node.version)
            return (own, self._held(node.subgraphs)) if node.graphs else own
        if key not in self._bodies:
            self._bodies[key] = _body(function), self._held([function.graph])
        return self._bodies[key]

    def _held(self, graphs: Sequence[Graph]) -> Hashable:
        """What the operators in `graphs` mean, and in every function that they call, however deep."""
        forms: list[Hashable] = []
        called: dict[FunctionKey, bytes] = {}
        waiting = list(graphs)
        while waiting:
            for node in (node for scope in waiting.pop().scopes() for node in scope.ops()):
                key = node.domain, node.op, node.overload
                function = self._functions.get(key)
                if function is None:
                    forms.append(form(node.domain, node.op, node.version))
                elif key not in called:
                    called[key] = _body(function)
                    waiting.append(function.graph)
        return tuple(forms), tuple(called.items())


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
    places = a.place(), b.place()
    if places[0] is None or places[1] is None or a.nbytes < _LARGE_BYTES:
        return (places[0] is not None and places[0] == places[1]) or same_tensor(a, b)
    # Read piece by piece: what is compared through a mapping stays in memory.
    return places[0] == places[1] or all(map(operator.eq, _pieces(*places[0]), _pieces(*places[1])))


def _pieces(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with os.fdopen(open_regular(path)[0], "rb", buffering=0) as file:
        file.seek(offset)
        for start in range(0, length, _LARGE_BYTES):
            yield file.read(min(_LARGE_BYTES, length - start))


def _content(tensor: Tensor) -> tuple[int, tuple[int, ...], bytes] | None:
    """What tells a small constant from others; None for a large one."""
    if tensor.nbytes > _SMALL_BYTES:
        return None
    return tensor.dtype, tensor.shape, _data(tensor)


def _data(tensor: Tensor) -> bytes:
    array = tensor.numpy()
    if array.dtype != object:
        return array.tobytes()
    texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.flat]
    # With their lengths in front: a string may hold any byte.
    return struct.pack(f"<{len(texts)}q", *map(len, texts)) + b"".join(texts)


def _beginning(tensor: Tensor) -> bytes:
    array = tensor.numpy()
    return _data(tensor) if array.dtype == object else array.reshape(-1)[:_SMALL_BYTES].tobytes()


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
        return value.dtype, value.shape, hashlib.blake2b(_data(value)).digest()
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
