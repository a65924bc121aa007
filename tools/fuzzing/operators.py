"""Steps that add an operator or two to a graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from fuzzing.sketch import Sketch, Wire, stretches


def unary(s: Sketch) -> None:
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
    y = s.pick(lambda wire: stretches(x.shape, wire.shape))
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


def _transposes(s: Sketch) -> None:
    x = s.pick(lambda wire: wire.rank > 2)
    for _ in range(2):
        x = s.transposed(x, s.rng.sample(range(x.rank), x.rank))


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
    y = s.pick(lambda wire: stretches(x.shape, wire.shape))
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


def linear(s: Sketch, x: Wire | None = None, width: int = 0) -> Wire:
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
    y = s.pick(lambda w: w.rank > 1 and w.shape[-1] == x.shape[-1] and stretches(x.shape[:-2], w.shape[:-2]))
    perm = [*range(y.rank - 2), y.rank - 1, y.rank - 2]
    s.product(x, s.transposed(y, perm))


OPERATORS: tuple[Callable[[Sketch], object], ...] = (
    *(unary,) * 2,
    _root,
    *(_binary,) * 5,
    *(_with_constant,) * 5,
    *(_reduce,) * 2,
    _softmax,
    *(_transpose,) * 3,
    _transposes,
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
    *(linear,) * 3,
    _gemm,
    *(_of_two,) * 2,
)
