"""Steps that add what exporters write for one meaning, in many spellings, and what is nearly that."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from fuzzing.operators import linear
from fuzzing.sketch import Sketch, Wire


def gelu(s: Sketch) -> None:
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


def swish(s: Sketch) -> None:
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
    q = _heads(s, linear(s, x, heads * size), heads, size)
    k = _heads(s, linear(s, memory, heads * size), heads, size)
    v = _heads(s, linear(s, memory, heads * size), heads, size)
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
        linear(s, merged)


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


FRAGMENTS: tuple[Callable[[Sketch], object], ...] = (
    *(gelu,) * 3,
    swish,
    *(_layer_norm,) * 3,
    *(_rms_norm,) * 2,
    _norm_of_two,
    *(_attention,) * 3,
    *(_rotary,) * 2,
    _convolution,
    _integers,
)
