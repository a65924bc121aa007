"""Random valid graphs: operators that fit, fragments in many spellings, and graphs of the rules' cases side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import onnx
from fuzz_case import Case
from fuzz_seeds import Pool
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOATS = (TensorProto.FLOAT,) * 6 + (TensorProto.FLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE)
_BATCH = 3
"""What the symbolic size B is where shapes are followed: unlike any other size."""
_LARGEST = 20_000
"""Elements of a value."""


@dataclass(frozen=True)
class Wire:
    """A value: its name, its element type, its shape where B is `_BATCH`."""

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
        wire = Wire(self.name(), kind, tuple(_BATCH if size == "B" else int(size) for size in shape))
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


def random_graph(rng: Random, pool: Pool) -> Case:
    """A valid model of a random kind."""
    if rng.random() < 0.3:
        return _side_by_side(rng, pool)
    sketch = Sketch(rng, rng.choice((11, 13, 14, 17, 17, 18, 20, 20, 21, 23)), rng.choice(FLOATS))
    size = rng.choice((4, 8, 8, 16))
    shapes = (("B", 4, size), ("B", 5, size), ("B", 2, 4, size), ("B", size), (2, 4, size), (size,), ("B", "B", size))
    for shape in rng.choices(shapes, k=rng.choice((1, 2, 2, 3))):
        sketch.input(sketch.kind, shape)
    steps = rng.choice((3, 6, 10, 16, 25))
    done = []
    while len(done) < steps:
        step = rng.choice(STEPS)
        try:
            step(sketch)
        except (IndexError, ValueError):
            continue  # nothing that it fits, or it would be too large
        done.append(step.__name__.strip("_"))
        if math.prod(sketch.wires[-1].shape) > _LARGEST:
            break
    return Case(_written(sketch), "+".join(done), foreign=False)


def _written(sketch: Sketch) -> bytes:
    """The model; its outputs are the last value, what nobody reads, and some inner values."""
    rng = sketch.rng
    read = {name for node in sketch.nodes for name in node.input}
    made = {name for node in sketch.nodes for name in node.output}
    free = [wire for wire in sketch.wires if wire.name in made and wire.name not in read]
    inner = [wire for wire in sketch.wires if wire.name in made and wire.name in read]
    chosen = free + rng.sample(inner, min(len(inner), rng.choice((0, 0, 0, 1, 2))))
    if rng.random() < 0.1:
        rng.shuffle(chosen)
    outputs = [helper.make_tensor_value_info(wire.name, wire.kind, None) for wire in chosen]
    graph = helper.make_graph(sketch.nodes, "g", sketch.inputs, outputs, sketch.weights)
    version = 8 if sketch.opset < 20 else 10
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", sketch.opset)], ir_version=version)
    return bytes(model.SerializeToString())


# ---- single operators ------------------------------------------------------------------------------------------------


def _unary(s: Sketch) -> None:
    kinds = ("Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Identity", "Sign", "Floor")
    # onnxruntime has no kernels of these for float64.
    s.like(
        s.rng.choice(kinds if s.kind == TensorProto.DOUBLE else (*kinds, "Erf", "Softplus", "HardSigmoid")), s.pick()
    )


def _root(s: Sketch) -> None:
    x = s.pick()
    square = s.like("Mul", x, x)
    s.like(s.rng.choice(("Sqrt", "Log", "Reciprocal")), s.swapped("Add", square, s.number(1.0)))


def _binary(s: Sketch) -> None:
    x = s.pick()
    y = s.pick(lambda wire: _stretches(x.shape, wire.shape))
    s.like(s.rng.choice(("Add", "Add", "Sub", "Mul", "Mul", "Max", "Min")), x, y)


def _with_constant(s: Sketch) -> None:
    x = s.pick()
    last = x.shape[-1:]
    shape = s.rng.choice(((), (1,), last, (1, *last), (1,) * (x.rank + 1), (*x.shape[-2:-1], 1), x.shape[-2:]))
    kind = s.rng.choice(("Add", "Mul", "Sub", "Div", "Pow", "Max"))
    if kind == "Pow":
        x, y = s.like("Abs", x), s.constant(np.full(shape, s.rng.choice((2.0, 3.0, 0.5, 1.0))))
    elif s.rng.random() < 0.3:
        y = s.constant(
            np.full(shape, s.rng.choice((0.0, 1.0, -1.0, 0.5, 2.0, 1e-3)) or (1.0 if kind == "Div" else 0.0))
        )
    else:
        y = s.constant(np.random.default_rng(s.rng.getrandbits(32)).uniform(0.5, 1.5, shape))
    if kind in ("Add", "Mul", "Max") and s.rng.random() < 0.5:
        x, y = y, x
    s.like(kind, x, y)


def _reduce(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 0)
    axes = s.rng.sample(range(-x.rank, 0), s.rng.choice((1, 1, 1, min(2, x.rank))))
    s.reduced(s.rng.choice(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")), x, axes, s.rng.random() < 0.7)


def _softmax(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 0)
    s.like(s.rng.choice(("Softmax", "Softmax", "LogSoftmax")), x, axis=s.rng.choice((-1, -1, x.rank - 1, 0)))


def _transpose(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 1)
    s.transposed(x, s.rng.sample(range(x.rank), x.rank))


def _reshape(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 0)
    last = x.shape[-1]
    choices = [(-1, last), (0, *(1,) * s.rng.randrange(2), -1), (-1,), (*(0,) * (x.rank - 1), 1, last)]
    if last % 2 == 0:
        choices += [(*(0,) * (x.rank - 1), 2, last // 2), (*(0,) * (x.rank - 1), last // 2, 2)]
    s.reshaped(x, s.rng.choice(choices))


def _squeeze(s: Sketch) -> None:
    x = s.pick()
    axis = s.rng.randrange(x.rank + 1)
    wide = s.with_axes("Unsqueeze", x, [axis], (*x.shape[:axis], 1, *x.shape[axis:]), 13)
    if s.rng.random() < 0.6:
        ones = [i for i, size in enumerate(wide.shape) if size == 1]
        at = s.rng.choice(ones)
        s.with_axes("Squeeze", wide, [at], (*wide.shape[:at], *wide.shape[at + 1 :]), 13)


def _slice(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 0 and wire.shape[-1] > 1)
    size = x.shape[-1]
    begin, step = s.rng.choice(((0, 1), (1, 1), (size // 2, 1), (0, 2)))
    end = s.rng.choice((size, (1 << 63) - 1, size // 2 if begin == 0 else size))
    left = len(range(size)[begin : min(end, size) : step])
    operands = [s.numbers([n]) for n in (begin, end, -1, step)]
    s.op("Slice", x, *operands, shape=(*x.shape[:-1], left), dtype=x.kind)


def _concat(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 0)
    y = s.pick(lambda wire: wire.rank == x.rank and wire.shape[:-1] == x.shape[:-1])
    s.op(
        "Concat",
        x,
        y,
        shape=(*x.shape[:-1], x.shape[-1] + y.shape[-1]),
        dtype=x.kind,
        axis=s.rng.choice((-1, x.rank - 1)),
    )


def _split(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 0 and wire.shape[-1] % 2 == 0)
    half = (*x.shape[:-1], x.shape[-1] // 2)
    parts = [Wire(s.name(), x.kind, half) for _ in range(2)]
    more: dict[str, Any] = {"num_outputs": 2} if s.opset >= 18 else {}
    s.nodes.append(helper.make_node("Split", [x.name], [part.name for part in parts], axis=-1, **more))
    s.wires.extend(parts)
    if s.rng.random() < 0.5:
        s.swapped(s.rng.choice(("Add", "Mul")), *parts)
    else:
        order = parts if s.rng.random() < 0.5 else parts[::-1]
        s.op("Concat", *order, shape=x.shape, dtype=x.kind, axis=-1)


def _gather(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 0)
    index = s.rng.choice((0, -1, x.shape[-1] - 1))
    if s.rng.random() < 0.5:
        s.op("Gather", x, s.constant(np.int64(index), TensorProto.INT64), shape=x.shape[:-1], dtype=x.kind, axis=-1)
    else:
        s.op("Gather", x, s.numbers([index, 0]), shape=(*x.shape[:-1], 2), dtype=x.kind, axis=x.rank - 1)


def _where(s: Sketch) -> None:
    x = s.pick()
    y = s.pick(lambda wire: _stretches(x.shape, wire.shape))
    kind = s.rng.choice(("Less", "Greater"))
    mask = s.like(kind, x, s.number(0.0))
    s.wires[-1] = mask = Wire(mask.name, TensorProto.BOOL, mask.shape)
    other = s.rng.choice((y, s.number(0.0), s.number(-1e4)))
    first, second = (x, other) if s.rng.random() < 0.5 else (other, x)
    s.op("Where", mask, first, second, shape=np.broadcast_shapes(x.shape, other.shape), dtype=x.kind)


def _cast(s: Sketch) -> None:
    x = s.pick()
    wide = s.rng.choice((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT32, x.kind))
    there = s.op("Cast", x, shape=x.shape, dtype=wide, to=wide)
    s.op("Cast", there, shape=x.shape, dtype=x.kind, to=x.kind)


def _clip(s: Sketch) -> None:
    x = s.pick()
    low, high = s.rng.choice(((0.0, 6.0), (-1.0, 1.0), (0.0, None), (None, 3.0)))
    bounds = [None if bound is None else s.constant(np.array(bound)) for bound in (low, high)]
    s.op("Clip", x, *bounds, shape=x.shape, dtype=x.kind)


def _pad(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 0)
    width = s.rng.choice((0, 1, 2))
    pads = [0] * (2 * x.rank)
    pads[-1] = width
    s.op("Pad", x, s.numbers(pads), shape=(*x.shape[:-1], x.shape[-1] + width), dtype=x.kind)


def _expand(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 0)
    ones = s.with_axes("Unsqueeze", x, [0], (1, *x.shape), 13)
    s.op("Expand", ones, s.numbers([2, *(1,) * x.rank]), shape=(2, *x.shape), dtype=x.kind)


def _shape_of(s: Sketch) -> None:
    """A reshape to a shape that is computed."""
    x = s.pick(lambda wire: wire.rank > 1)
    shape = s.op("Shape", x, shape=(x.rank,), dtype=TensorProto.INT64)
    at = s.rng.randrange(x.rank)
    one = s.op("Gather", shape, s.numbers([at]), shape=(1,), dtype=TensorProto.INT64, axis=0)
    kept = math.prod(x.shape) // x.shape[at]
    parts = [one, s.numbers([-1])] if s.rng.random() < 0.7 else [s.numbers([-1]), one]
    target = s.op("Concat", *parts, shape=(2,), dtype=TensorProto.INT64, axis=0)
    found = (x.shape[at], kept) if parts[0] is one else (kept, x.shape[at])
    s.op("Reshape", x, target, shape=found, dtype=x.kind)


# ---- products --------------------------------------------------------------------------------------------------------


def _linear(s: Sketch, x: Wire | None = None, width: int = 0) -> Wire:
    """x·W, often with a bias, at times scaled or transposed."""
    x = x or s.pick(lambda wire: wire.rank > 1)
    width = width or s.rng.choice((4, 8, 16))
    if s.rng.random() < 0.15:
        y = s.product(x, s.transposed(s.normal(width, x.shape[-1]), (1, 0)))
    else:
        y = s.product(x, s.normal(x.shape[-1], width))
    if s.rng.random() < 0.2:
        y = s.like("Mul", y, s.number(0.5))
    return s.swapped("Add", y, s.normal(width)) if s.rng.random() < 0.7 else y


def _gemm(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank == 2)
    flipped = s.rng.random() < 0.5
    width = s.rng.choice((4, 8))
    w = s.normal(width, x.shape[1]) if flipped else s.normal(x.shape[1], width)
    c = s.rng.choice((s.normal(width), s.normal(1, width), s.number(0.5)))
    alpha = s.rng.choice((1.0, 1.0, 0.5))
    s.op("Gemm", x, w, c, shape=(x.shape[0], width), dtype=x.kind, transB=int(flipped), alpha=alpha)


def _of_two(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 1)
    y = s.pick(lambda w: w.rank > 1 and w.shape[-1] == x.shape[-1] and _stretches(x.shape[:-2], w.shape[:-2]))
    perm = [*range(y.rank - 2), y.rank - 1, y.rank - 2]
    s.product(x, s.transposed(y, perm))


# ---- fragments -------------------------------------------------------------------------------------------------------


def _gelu(s: Sketch) -> None:
    x = s.pick()
    if s.rng.random() < 0.6 and s.kind != TensorProto.DOUBLE:
        root = s.near(math.sqrt(2))
        inner = s.like("Div", x, s.number(root)) if s.rng.random() < 0.5 else s.like("Mul", x, s.number(1 / root))
        gate = s.like("Erf", inner)
    else:
        cube = s.like("Pow", x, s.number(3.0)) if s.rng.random() < 0.5 else s.swapped("Mul", s.like("Mul", x, x), x)
        inner = s.swapped("Add", x, s.swapped("Mul", cube, s.number(s.near(0.044715))))
        gate = s.like("Tanh", s.swapped("Mul", inner, s.number(s.near(0.7978845608))))
    one = s.swapped("Add", gate, s.number(s.near(1.0)))
    if s.rng.random() < 0.5:
        s.swapped("Mul", s.swapped("Mul", x, s.number(0.5)), one)
    else:
        s.swapped("Mul", s.swapped("Mul", x, one), s.number(s.near(0.5)))


def _swish(s: Sketch) -> None:
    x = s.pick()
    gate = s.like("Sigmoid", x if s.rng.random() < 0.6 else s.swapped("Mul", x, s.number(s.near(1.702))))
    s.swapped("Mul", x if s.rng.random() < 0.9 else s.like("Relu", x), gate)


def _layer_norm(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 1)
    axes = s.rng.choice(([-1], [-1], [-1], [x.rank - 1], [-2], [-2, -1]))
    mean = s.reduced("ReduceMean", x, axes)
    centred = s.like("Sub", x, mean)
    again = centred if s.rng.random() < 0.8 else s.like("Sub", x, mean)
    square = s.like("Pow", again, s.number(s.near(2.0))) if s.rng.random() < 0.5 else s.like("Mul", again, centred)
    variance = s.reduced("ReduceMean", square, axes if s.rng.random() < 0.9 else [-1])
    root = s.like("Sqrt", s.swapped("Add", variance, s.number(s.rng.choice((1e-5, 1e-3, 1e-12, 1.0)))))
    _gain(s, _over(s, centred, root), bias=True)


def _rms_norm(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 1)
    square = s.like("Pow", x, s.number(2.0)) if s.rng.random() < 0.5 else s.like("Mul", x, x)
    mean = s.reduced("ReduceMean", square, s.rng.choice(([-1], [-1], [-2])))
    root = s.like("Sqrt", s.swapped("Add", mean, s.number(s.rng.choice((1e-6, 1e-3)))))
    _gain(s, _over(s, x, root), bias=False)


def _over(s: Sketch, x: Wire, root: Wire) -> Wire:
    """x / root, in three spellings; in the last one with a gain inside."""
    choice = s.rng.randrange(5)
    if choice < 2:
        return s.like("Div", x, root)
    if choice < 4:
        return s.swapped("Mul", x, s.like("Reciprocal", root))
    return s.swapped("Mul", x, s.like("Div", s.normal(x.shape[-1]), root))


def _gain(s: Sketch, y: Wire, bias: bool) -> None:
    shape = s.rng.choice((y.shape[-1:], y.shape[-1:], (), (y.shape[-2], 1)))
    if s.rng.random() < 0.8:
        y = s.swapped("Mul", y, s.normal(*shape))
    if bias and s.rng.random() < 0.8:
        s.swapped("Add", y, s.normal(*shape))


def _norm_of_two(s: Sketch) -> None:
    """A residual, and LayerNormalization where the opset has it."""
    x = s.pick(lambda wire: wire.rank > 1)
    y = s.pick(lambda wire: wire.shape == x.shape)
    total = s.swapped("Add", x, y)
    width = total.shape[-1]
    if s.opset >= 17:
        bias = s.normal(width) if s.rng.random() < 0.7 else None
        axis = s.rng.choice((-1, total.rank - 1))
        s.op("LayerNormalization", total, s.normal(width), bias, shape=total.shape, dtype=total.kind, axis=axis)


def _attention(s: Sketch) -> None:
    """Projections, heads, scores, mask, softmax, values, and what may be wrong with them."""
    x = s.pick(lambda wire: wire.rank == 3)
    heads, size = s.rng.choice(((2, 4), (4, 2), (2, 8), (1, 4)))
    shared = s.rng.random() < 0.15 and heads > 1
    memory = x if s.rng.random() < 0.8 else s.pick(lambda wire: wire.rank == 3)
    q = _heads(s, _linear(s, x, heads * size), heads, size)
    k = _heads(s, _linear(s, memory, heads * size), heads, size)
    v = _heads(s, _linear(s, memory, heads * size), heads, size)
    if shared:
        k = s.op("Slice", k, *map(s.numbers, ([0], [1], [1])), shape=(k.shape[0], 1, *k.shape[2:]), dtype=k.kind)
    scale = s.near(size**-0.5)
    if s.rng.random() < 0.3:
        q = s.swapped("Mul", q, s.number(abs(scale) ** 0.5))
        k = s.swapped("Mul", k, s.number(abs(scale) ** 0.5))
    scores = s.product(q, s.transposed(k, (0, 1, 3, 2)))
    if s.rng.random() < 0.7:
        scores = (
            s.like("Div", scores, s.number(1 / scale))
            if s.rng.random() < 0.5
            else s.swapped("Mul", scores, s.number(scale))
        )
    if s.rng.random() < 0.1:
        scores = s.like("Mul", s.like("Tanh", s.like("Div", scores, s.number(5.0))), s.number(s.near(5.0)))
    if s.rng.random() < 0.6:
        scores = _masked(s, scores)
    weights = s.like("Softmax", scores, axis=s.rng.choice((-1, -1, -1, 3, 3, 2)))
    if s.rng.random() < 0.1:
        weights = s.like("Dropout", weights)
    y = s.transposed(s.product(weights, v), (0, 2, 1, 3) if s.rng.random() < 0.95 else (0, 1, 2, 3))
    merged = s.reshaped(y, (0, 0, -1) if s.rng.random() < 0.7 else (0, -1, heads * size))
    if s.rng.random() < 0.8:
        _linear(s, merged)


def _heads(s: Sketch, x: Wire, heads: int, size: int) -> Wire:
    split = s.reshaped(x, (0, 0, heads, size) if s.rng.random() < 0.7 else (0, -1, heads, size))
    return s.transposed(split, (0, 2, 1, 3))


def _masked(s: Sketch, scores: Wire) -> Wire:
    _, heads, rows, columns = scores.shape
    if s.rng.random() < 0.4:
        shape = s.rng.choice(((rows, columns), (1, 1, rows, columns), (columns,), (1, heads, rows, columns), (1,)))
        fill = s.rng.choice((-1e4, -1e3, -30.0))
        numbers = np.random.default_rng(s.rng.getrandbits(32)).random(shape) < 0.3
        return s.swapped("Add", scores, s.constant(np.where(numbers, fill, 0.0)))
    if s.rng.random() < 0.5:
        causal = np.triu(np.ones((rows, columns), bool), 1)
        mask = s.constant(causal if s.rng.random() < 0.8 else ~causal, TensorProto.BOOL)
        return s.op("Where", mask, s.number(s.rng.choice((-1e4, -30.0))), scores, shape=scores.shape, dtype=scores.kind)
    bias = s.input(s.kind, s.rng.choice((("B", 1, 1, columns), ("B", 1, rows, columns), (rows, columns))))
    return s.swapped("Add", scores, bias)


def _rotary(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank == 4 and wire.shape[-1] % 2 == 0)
    size = x.shape[-1]
    half = size // 2
    first = s.op("Slice", x, *map(s.numbers, ([0], [half], [-1])), shape=(*x.shape[:-1], half), dtype=x.kind)
    ends = ([half], [(1 << 63) - 1], [-1])
    second = s.op("Slice", x, *map(s.numbers, ends), shape=(*x.shape[:-1], half), dtype=x.kind)
    turned = [s.like("Neg", second), first] if s.rng.random() < 0.9 else [s.like("Neg", first), second]
    rotated = s.op("Concat", *turned, shape=x.shape, dtype=x.kind, axis=-1)
    angles = np.outer(np.arange(x.shape[-2]), 0.5 ** np.arange(half))
    angles = np.concatenate([angles, angles], -1)
    cos, sin = (s.constant(f(angles)[None, None] if s.rng.random() < 0.5 else f(angles)) for f in (np.cos, np.sin))
    s.swapped("Add", s.swapped("Mul", x, cos), s.swapped("Mul", rotated, sin))


def _convolution(s: Sketch) -> None:
    """A convolution with a batch normalization, a bias or an activation behind it."""
    x = s.pick(lambda wire: wire.rank == 4)
    channels = x.shape[1]
    y = s.op("Conv", x, s.normal(4, channels, 1, 1), shape=(x.shape[0], 4, *x.shape[2:]), dtype=x.kind)
    choice = s.rng.randrange(4)
    if choice == 0:
        spread = s.constant(np.random.default_rng(s.rng.getrandbits(32)).uniform(0.5, 2, 4))
        parts = (s.normal(4), s.normal(4), s.normal(4), spread)
        s.op("BatchNormalization", y, *parts, shape=y.shape, dtype=y.kind, epsilon=s.rng.choice((1e-5, 1e-3)))
    elif choice == 1:
        s.swapped(s.rng.choice(("Add", "Mul")), y, s.constant(np.full(s.rng.choice(((4, 1, 1), (1, 4, 1, 1))), 0.5)))
    elif choice == 2:
        s.like("Relu", y)


def _integers(s: Sketch) -> None:
    """Arithmetic of integers, and back."""
    x = s.pick()
    kind = s.rng.choice((TensorProto.INT32, TensorProto.INT64))
    y = s.op("Cast", s.like("Clip", x) if s.opset < 12 else x, shape=x.shape, dtype=kind, to=kind)
    for _ in range(s.rng.choice((1, 2, 3))):
        other = s.constant(np.array(s.rng.choice((0, 1, 2, 3, -1))), kind)
        y = s.like(s.rng.choice(("Add", "Mul", "Sub")), y, other)
    s.op("Cast", y, shape=x.shape, dtype=x.kind, to=x.kind)


# ---- control flow ----------------------------------------------------------------------------------------------------


def _if(s: Sketch) -> None:
    """Both branches read the same value of outside; one of them may read another."""
    x = s.pick()
    y = s.pick(lambda wire: wire.shape == x.shape)
    condition = s.reduced("ReduceSum", x, range(-x.rank, 0), keep=False) if x.rank else x
    test = s.op("Greater", condition, s.constant(np.array(0.0)), shape=(), dtype=TensorProto.BOOL)
    if s.rng.random() < 0.2:
        test = s.constant(np.array(s.rng.random() < 0.5), TensorProto.BOOL)
    bodies = [_branch(s, x), _branch(s, y)]
    s.op("If", test, shape=x.shape, dtype=x.kind, then_branch=bodies[0], else_branch=bodies[1])


def _branch(s: Sketch, x: Wire) -> GraphProto:
    inner = Sketch(s.rng, s.opset, s.kind, wires=[x], count=s.count)
    for _ in range(s.rng.choice((1, 2, 3))):
        s.rng.choice((_gelu, _swish, _unary, _with_same))(inner)
    s.count = inner.count
    last = inner.wires[-1]
    if last.shape != x.shape:
        raise ValueError("it would stretch")
    output = helper.make_tensor_value_info(last.name, last.kind, None)
    return helper.make_graph(inner.nodes, "branch", [], [output], inner.weights)


def _with_same(s: Sketch) -> None:
    x = s.pick()
    s.swapped(s.rng.choice(("Add", "Mul")), x, s.number(s.rng.choice((0.0, 1.0, 0.5))))


def _loop(s: Sketch) -> None:
    """A few turns over a value that is carried, which reads another from outside."""
    x = s.pick()
    y = s.pick(lambda wire: wire.shape == x.shape)
    carried = Wire(s.name(), x.kind, x.shape)
    inner = Sketch(s.rng, s.opset, s.kind, wires=[y, carried], count=s.count)
    s.rng.choice((_gelu, _swish, _with_same))(inner)
    last = inner.like("Add", inner.wires[-1], carried)
    scaled = inner.like("Mul", last, inner.number(0.5))
    s.count = inner.count
    number, on, go = s.name(), s.name(), s.name()
    inner.nodes.append(helper.make_node("Identity", [on], [go]))
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        inner.nodes,
        "body",
        [info(number, TensorProto.INT64, []), info(on, TensorProto.BOOL, []), info(carried.name, x.kind, None)],
        [info(go, TensorProto.BOOL, []), info(scaled.name, x.kind, None)],
        inner.weights,
    )
    if scaled.shape != x.shape:
        raise ValueError("it would stretch")
    trips = s.constant(np.int64(s.rng.choice((0, 1, 2, 3))), TensorProto.INT64)
    s.op("Loop", trips, None, x, shape=x.shape, dtype=x.kind, body=body)


STEPS: tuple[Callable[[Sketch], object], ...] = (
    *(_unary,) * 2,
    _root,
    *(_binary,) * 5,
    *(_with_constant,) * 5,
    *(_reduce,) * 2,
    _softmax,
    *(_transpose,) * 3,
    *(_reshape,) * 3,
    _squeeze,
    *(_slice,) * 2,
    *(_concat,) * 2,
    *(_split,) * 2,
    _gather,
    *(_where,) * 2,
    *(_cast,) * 2,
    _clip,
    _pad,
    _expand,
    *(_shape_of,) * 2,
    *(_linear,) * 3,
    _gemm,
    *(_of_two,) * 2,
    *(_gelu,) * 3,
    _swish,
    *(_layer_norm,) * 3,
    *(_rms_norm,) * 2,
    _norm_of_two,
    *(_attention,) * 3,
    *(_rotary,) * 2,
    _convolution,
    _integers,
    _if,
    _loop,
)


def _stretches(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two shapes can be stretched to one that is not too large, for any B."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    if not all(x == y or 1 in (x, y) for x, y in pairs):
        return False
    return math.prod(np.broadcast_shapes(tuple(a), tuple(b))) <= _LARGEST


# ---- cases of rules --------------------------------------------------------------------------------------------------


def _side_by_side(rng: Random, pool: Pool) -> Case:
    """Graphs of several cases of rules as one model, which share inputs of one type."""
    model = ModelProto()
    origin = []
    shared: dict[bytes, str] = {}
    for number in range(rng.choice((1, 2, 2, 3, 4))):
        seed = pool.draw(rng, "rules")
        other = ModelProto.FromString(seed.model)
        if number and not _fits(model, other):
            continue
        origin.append(seed.name)
        _rename(other.graph, f"p{number}_", {})
        _share(model, other.graph, shared, rng)
        if not number:
            model.CopyFrom(other)
            continue
        for name in ("node", "initializer", "input", "output", "value_info"):
            getattr(model.graph, name).extend(getattr(other.graph, name))
    if rng.random() < 0.3:
        _expose(model.graph, rng)
    return Case(model.SerializeToString(), "+".join(origin), foreign=False)


def _fits(model: ModelProto, other: ModelProto) -> bool:
    imports = [{(one.domain, one.version) for one in proto.opset_import} for proto in (model, other)]
    return imports[0] == imports[1] and not other.functions and not model.functions


def _share(model: ModelProto, graph: GraphProto, shared: dict[bytes, str], rng: Random) -> None:
    """Inputs of a type that another graph has as well become that input, in half of all cases."""
    names: dict[str, str] = {}
    kept = []
    defaults = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        kind = value.type.SerializeToString()
        if value.name not in defaults and kind in shared and shared[kind] not in names.values() and rng.random() < 0.5:
            names[value.name] = shared[kind]
            continue
        if value.name not in defaults:
            shared.setdefault(kind, value.name)
        kept.append(value)
    values = list(kept)
    del graph.input[:]
    graph.input.extend(values)
    _rename(graph, "", names)


def _rename(graph: GraphProto, prefix: str, names: dict[str, str]) -> None:
    """Renames values: by `names`, and with a `prefix`; sizes keep their names, which several graphs may share."""

    def new(name: str) -> str:
        return names.get(name, prefix + name) if name else ""

    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        value.name = new(value.name)
    for node in graph.node:
        node.input[:] = map(new, node.input)
        node.output[:] = map(new, node.output)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, prefix, names)


def _expose(graph: GraphProto, rng: Random) -> None:
    """An inner value is an output too."""
    known = {value.name: value for value in graph.value_info}
    outputs = {value.name for value in graph.output}
    free = sorted(name for name in known.keys() - outputs)
    if free:
        graph.output.append(known[rng.choice(free)])
