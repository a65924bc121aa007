"""One value in two types: each has at most one half and one float32 form, made where the value is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from graphopt.ir import Graph, Model, Node, Tensor, Value, dtypes
from graphopt.ir.infer import infer_node
from graphopt.ir.tensor import Array
from graphopt.quantize.half.reach import to_half


@dataclass
class Types:
    """The forms of the values of `model` while it is converted.

    A value that became half gets a fresh name, and its float32 form has the name that it had: what is called so means
    the same as before. `names` are those names.
    """

    model: Model
    names: dict[Value, str] = field(default_factory=dict)
    _halves: dict[Value, Value] = field(default_factory=dict)
    _singles: dict[Value, Value] = field(default_factory=dict)

    def has_half(self, value: Value) -> bool:
        """Whether somebody asked for the half form of `value`."""
        return value in self._halves

    def convert(self, value: Value, *, rename: bool = True) -> None:
        """Makes `value`, which its producer gives in half precision from now on, half."""
        graph = value.node.graph
        self.names[value] = value.name
        graph.set_type(value, dtypes.FLOAT16, value.shape)
        if rename and value.name:
            graph.rename(value, graph.ledger.fresh(half_name(value.name)))

    def half(self, value: Value) -> Value:
        """The half form of a float32 value, for readers in the scope of `value`."""
        return self._seen_from(value, self._half(value.resolved))

    def single(self, value: Value) -> Value:
        """The float32 form of `value`, for readers in its scope."""
        return self._seen_from(value, self._single(value.resolved))

    def stored_half(self, value: Value) -> Value:
        """The float32 form of constant weights that lie in the file as halves."""
        half = self._half(value.resolved)
        if half not in self._singles:
            self._singles[half] = cast_after(half, dtypes.FLOAT, f"{value.resolved.name}_single")
        return self._seen_from(value, self._singles[half])

    def _half(self, value: Value) -> Value:
        if value.dtype == dtypes.FLOAT16:
            return value
        widened = value.node.input(0) if value.node.is_op("Cast") else None
        if widened is not None and widened.dtype == dtypes.FLOAT16:
            return widened
        if value not in self._halves:
            tensor, stem = value.tensor, half_name(value.name)
            constant = None if tensor is None else value.node.graph.add_constant(half_tensor(tensor), stem)
            self._halves[value] = constant or cast_after(value, dtypes.FLOAT16, stem)
        return self._halves[value]

    def _single(self, value: Value) -> Value:
        if value not in self.names:
            return value
        if value not in self._singles:
            single = cast_after(value, dtypes.FLOAT, f"{value.name}_single")
            give_name(single, self.names[value])
            single.info = value.info
            self._singles[value] = single
        return self._singles[value]

    def _seen_from(self, value: Value, form: Value) -> Value:
        return value.node.graph.capture(form) if form.node.graph is not value.node.graph else form


def half_tensor(tensor: Tensor) -> Tensor:
    """The same numbers in half precision, computed when they are read."""
    return Tensor.deferred(dtypes.FLOAT16, tensor.shape, lambda: to_half(tensor.numpy()))


def clamped_tensor(tensor: Tensor, lowest: float) -> Tensor:
    """Those of a mask: what half precision does not hold, but for infinities, is `lowest`, or the largest."""

    def clamped() -> Array:
        numbers = tensor.numpy()
        return to_half(np.where(np.isinf(numbers), numbers, numbers.clip(lowest, -lowest)))

    return Tensor.deferred(dtypes.FLOAT16, tensor.shape, clamped)


def after(value: Value) -> Node:
    """The first operation that may read `value`, or the end of its scope."""
    graph = value.node.graph
    following = next(graph.ops(), graph.output) if value.node.is_source else value.node.next
    assert following is not None
    return following


def cast_after(value: Value, dtype: int, stem: str) -> Value:
    """`value` as `dtype`, by a Cast that stands right after its producer."""
    return made_after(value, "Cast", [value], {"to": dtype}, stem)


def made_after(
    value: Value, op: str, inputs: Sequence[Value | None], attrs: dict[str, Any], stem: str, version: int | None = None
) -> Value:
    """The typed result of a new operation that stands right after the producer of `value`."""
    graph: Graph = value.node.graph
    node = graph.add_op(op, inputs, attrs, version=version, outputs=[stem], before=after(value))
    infer_node(node)
    return node.output


def half_name(name: str) -> str:
    """What the half of a value is called, which keeps its own name for float32."""
    return f"{name}_half"


def give_name(value: Value, name: str) -> None:
    """Calls `value` so where nothing else of its scope is called so."""
    if name and name not in value.node.graph.names:
        value.node.graph.rename(value, name)


def declare_half(value: Value) -> None:
    """Says float16 of a graph input or output of which the file said float32."""
    if value.info is not None:
        info = onnx.ValueInfoProto()
        info.CopyFrom(value.info)
        info.type.tensor_type.elem_type = dtypes.FLOAT16
        value.info = info
