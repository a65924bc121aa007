"""A graph that grows: values of known types and shapes, and nodes that fit them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

BATCH = 3
"""What the symbolic size B is where shapes are followed: unlike any other size."""
LARGEST = 20_000
"""Elements of a value."""


@dataclass(frozen=True)
class Wire:
    """A value: its name, its element type, its shape where B is `BATCH`."""

    name: str
    kind: int
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass
class Sketch:
    """A graph that grows: nodes, weights, the values that may be read. `opset` decides how operators are written."""

    rng: Random
    opset: int
    kind: int
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def input(self, kind: int, shape: Sequence[int | str]) -> Wire:
        wire = Wire(self.name(), kind, tuple(BATCH if size == "B" else int(size) for size in shape))
        self.inputs.append(helper.make_tensor_value_info(wire.name, kind, shape))
        self.wires.append(wire)
        return wire

    def constant(self, array: Any, kind: int = 0) -> Wire:
        """An initializer, or at times a Constant node."""
        dtype = helper.tensor_dtype_to_np_dtype(kind or self.kind)
        tensor = numpy_helper.from_array(np.asarray(array).astype(dtype), self.name())
        if self.rng.random() < 0.2:
            self.nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
        else:
            self.weights.append(tensor)
        return Wire(tensor.name, kind or self.kind, tuple(tensor.dims))

    def numbers(self, values: Sequence[int]) -> Wire:
        return self.constant(np.array(values, np.int64), TensorProto.INT64)

    def normal(self, *shape: int) -> Wire:
        numbers = np.random.default_rng(self.rng.getrandbits(32)).normal(size=shape)
        return self.constant(numbers / math.sqrt(shape[0] if len(shape) > 1 else 1))

    def number(self, value: float) -> Wire:
        """A scalar, in one of the shapes that exporters give it."""
        return self.constant(np.full(self.rng.choice(((), (), (1,))), value))

    def op(self, kind: str, *operands: Wire | None, shape: Sequence[int], dtype: int = 0, **attributes: Any) -> Wire:
        """A node of one output, which may be read from now on."""
        wire = Wire(self.name(), dtype or self.kind, tuple(shape))
        names = [operand.name if operand else "" for operand in operands]
        self.nodes.append(helper.make_node(kind, names, [wire.name], **attributes))
        self.wires.append(wire)
        return wire

    def like(self, kind: str, x: Wire, *others: Wire, **attributes: Any) -> Wire:
        """A node whose output is as its operands are when they are stretched to each other."""
        shape = np.broadcast_shapes(x.shape, *(other.shape for other in others))
        return self.op(kind, x, *others, shape=shape, dtype=x.kind, **attributes)

    def with_axes(self, kind: str, x: Wire, axes: Sequence[int], shape: Sequence[int], since: int, **more: Any) -> Wire:
        """A node whose axes are an attribute before the opset `since`, an operand from it on."""
        if self.opset >= since:
            return self.op(kind, x, self.numbers(axes), shape=shape, dtype=x.kind, **more)
        return self.op(kind, x, shape=shape, dtype=x.kind, axes=list(axes), **more)

    def reduced(self, kind: str, x: Wire, axes: Sequence[int], keep: bool = True) -> Wire:
        places = {axis % x.rank for axis in axes}
        shape = [1 if i in places else size for i, size in enumerate(x.shape) if keep or i not in places]
        return self.with_axes(kind, x, axes, shape, 13 if kind == "ReduceSum" else 18, keepdims=int(keep))

    def transposed(self, x: Wire, perm: Sequence[int]) -> Wire:
        return self.op("Transpose", x, shape=[x.shape[i] for i in perm], dtype=x.kind, perm=list(perm))

    def reshaped(self, x: Wire, shape: Sequence[int]) -> Wire:
        """To a shape that holds for any B: B times something is -1."""
        full = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
        rest = math.prod(x.shape) // abs(math.prod(full))
        return self.op("Reshape", x, self.numbers(shape), shape=[rest if n == -1 else n for n in full], dtype=x.kind)

    def product(self, x: Wire, y: Wire) -> Wire:
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        return self.op("MatMul", x, y, shape=(*batch, x.shape[-2], y.shape[-1]), dtype=x.kind)

    def swapped(self, kind: str, x: Wire, y: Wire) -> Wire:
        """A sum or product in either order."""
        return self.like(kind, x, y) if self.rng.random() < 0.5 else self.like(kind, y, x)

    def near(self, value: float) -> float:
        """A number of a formula; now and then another one."""
        return value if self.rng.random() < 0.85 else value * self.rng.choice((1.01, 2.0, -1.0, 0.5)) + 1e-3

    def pick(self, want: Callable[[Wire], bool] = lambda wire: True) -> Wire:
        """A value of the graph's own float type, the later ones more often. Raises: IndexError."""
        found = [wire for wire in self.wires if wire.kind == self.kind and want(wire)]
        return found[-1 - min(int(self.rng.expovariate(0.4)), len(found) - 1)] if found else self.wires[1 << 30]


def stretches(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two shapes can be stretched to one that is not too large, for any B."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    if not all(x == y or 1 in (x, y) for x, y in pairs):
        return False
    return math.prod(np.broadcast_shapes(tuple(a), tuple(b))) <= LARGEST
