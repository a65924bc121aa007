"""Common subexpressions: equal operations on equal operands are computed once."""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import blake2b
from typing import Any

from google.protobuf.message import Message

from graphopt.ir import dtypes
from graphopt.ir.model import FunctionKey, Model
from graphopt.ir.node import Node, Value
from graphopt.ir.schema import is_random, signature
from graphopt.ir.tensor import Tensor

_BY_VALUE = 65_536
"""Constants up to this many bytes are compared by value, larger ones by where they are."""


def merge_common(model: Model) -> int:
    """Merges operations that compute the same value in one scope; returns how many went.

        a = MatMul(x, w)                          a = MatMul(x, w)
        b = MatMul(x, w)                   →      y = Add(a, a)
        y = Add(a, b)

    Operators are the same by domain, name, overload, version and attributes; constants by their numbers. What is
    random, holds subgraphs or is not known to be a function of its inputs stays. Where both results are graph outputs,
    an Identity of the first gives the second its name; Identities themselves stay.
    """
    unsure = _unsure_functions(model)
    keys: dict[Value, Hashable] = {}
    merged = 0
    for graph in model.scopes():
        first: dict[Hashable, Node] = {}
        for node in graph.ops():
            if node.op == "Identity" or _is_alone(node) or not _is_function(node, model, unsure):
                continue
            survivor = first.setdefault(_expression(node, keys), node)
            if survivor is not node:
                for value, kept in zip(node.outputs, survivor.outputs, strict=True):
                    if value.name:
                        # Its only reader so far was passed over, and may have a twin now.
                        for reader, _ in graph.consumers(kept) if kept.uses == 1 else ():
                            if reader.rank < node.rank and _is_function(reader, model, unsure):
                                first.setdefault(_expression(reader, keys), reader)
                        graph.replace(value, kept)
                graph.remove(node)
                merged += 1
    return merged


def _is_alone(node: Node) -> bool:
    """Whether no other node reads the same values, but for constants, of which copies may be around."""
    for value in node.inputs:
        if value is not None and value.uses == 1 and value.node.op not in ("Constant", "Capture"):
            return True
    return False


def _is_function(node: Node, model: Model, unsure: set[FunctionKey]) -> bool:
    """Whether equal operands give equal results, as far as it is known."""
    key = (node.domain, node.op, node.overload)
    if key in model.functions:
        return key not in unsure
    if node.graphs:
        return False
    if node.is_op("Dropout") and (node.version < 7 or node.input(2) is not None):
        return False
    return signature(node.domain, node.op, node.version) is not None and not is_random(node.domain, node.op)


def _unsure_functions(model: Model) -> set[FunctionKey]:
    """The functions of the model that hold, or call one that holds, an operation that may be random."""
    callers: dict[FunctionKey, list[FunctionKey]] = {key: [] for key in model.functions}
    unsure: set[FunctionKey] = set()
    for key, function in model.functions.items():
        for graph in function.graph.scopes():
            for node in graph.ops():
                called = (node.domain, node.op, node.overload)
                if called in callers:
                    callers[called].append(key)
                elif not node.graphs and not _is_function(node, model, unsure):
                    unsure.add(key)
    pending = list(unsure)
    while pending:
        new = [caller for caller in callers[pending.pop()] if caller not in unsure]
        unsure.update(new)
        pending.extend(new)
    return unsure


def _expression(node: Node, keys: dict[Value, Hashable]) -> Hashable:
    operands = [value and _operand(value.resolved, keys) for value in node.inputs]
    while operands and operands[-1] is None:
        operands.pop()
    attributes = tuple(sorted([(name, _attribute(value)) for name, value in node.attrs.items()]))
    written = tuple([bool(value.name) for value in node.outputs])
    return node.op, node.domain, node.overload, node.version, attributes, tuple(operands), written


def _operand(value: Value, keys: dict[Value, Hashable]) -> Hashable:
    if value not in keys:
        tensor = value.tensor
        keys[value] = value if tensor is None else _tensor(tensor)
    return keys[value]


def _tensor(tensor: Tensor) -> Hashable:
    if tensor.external is not None:
        return tensor.dtype, tensor.shape, tensor.base, *tensor.extent()
    if tensor.dtype == dtypes.STRING or tensor.nbytes > _BY_VALUE:
        return tensor
    return tensor.dtype, tensor.shape, blake2b(tensor.numpy().tobytes()).digest()


def _attribute(value: Any) -> Hashable:
    """Equal for attribute values that are the same to the bit."""
    if isinstance(value, list):
        return tuple(map(_attribute, value))
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, Message):
        return bytes(value.SerializeToString(deterministic=True))
    found: Hashable = value
    return found
