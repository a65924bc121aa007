"""Lanes of the last axis, by proof: what is equal, what is only alike."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.ir import Model
from graphopt.ir.infer import infer
from graphopt.ir.lanes import lanes
from graphopt.ir.text import parse


def model(inputs: str, body: str) -> Model:
    parsed = parse(f"({inputs}) -> () {{ {body} }}")
    infer(parsed)
    return parsed


def found(inputs: str, body: str, *names: str, elementwise: bool = False) -> list[list[int] | None]:
    values = model(inputs, body).graph.names
    answers = lanes(*(values[name] for name in names), elementwise=elementwise)
    return [None if answer is None else answer.reshape(-1).tolist() for answer in answers]


X = "x: float32[B, S, 4]"


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("y = Identity(x)", [1, 2, 3, 4]),
        ("y = Cast(x, to=float32)", [1, 2, 3, 4]),
        ("y = Neg(Neg(x))", [1, 2, 3, 4]),
        ("y = Slice(x, [1], [3], [2])", [2, 3]),
        ("y = Slice(x, [-1], [100], [-1])", [4]),
        ("y = Slice(x, [1], [4], [2], [2])", [2, 4]),
        ("a, b = Split(x, [1, 3], axis=-1)  y = Concat(Neg(b), a, axis=2)", [-2, -3, -4, 1]),
        ("a, y = Split(x, axis=-1, num_outputs=2)", [3, 4]),
        ("y = Gather(x, [3, -4], axis=-1)", [4, 1]),
        ("y = Gather(Reshape(x, [0, 0, 2, 2]), 1, axis=2)", [3, 4]),
        ("y = Gather(Reshape(x, [0, 0, 2, 2]), 1, axis=3)", [2, 4]),
        ("y = Squeeze(Slice(Reshape(x, [0, 0, 2, 2]), [0], [1], [2]), [2])", [1, 2]),
        ("y = Reshape(Transpose(Reshape(x, [0, 0, 2, 2]), perm=[0, 1, 3, 2]), [0, 0, 4])", [1, 3, 2, 4]),
        ("y = Reshape(Expand(Unsqueeze(x, [3]), [1, 1, 1, 2]), [0, 0, 8])", [1, 1, 2, 2, 3, 3, 4, 4]),
        ("y = Reshape(Tile(Unsqueeze(x, [3]), [1, 1, 1, 2]), [0, 0, 8])", [1, 1, 2, 2, 3, 3, 4, 4]),
        ("y = Tile(x, [1, 1, 2])", [1, 2, 3, 4, 1, 2, 3, 4]),
        ("y = Reshape(Concat(Unsqueeze(x, [3]), Unsqueeze(x, [3]), axis=3), [0, 0, 8])", [1, 1, 2, 2, 3, 3, 4, 4]),
    ],
)
def test_what_moves_lanes(body: str, wanted: list[int]) -> None:
    assert found(X, body, "x", "y") == [[1, 2, 3, 4], wanted]


@pytest.mark.parametrize(
    "body",
    [
        "y = Cos(x)",
        "y = Cast(x, to=float16)",
        "y = Unsqueeze(x, [0])",
        "y = Transpose(x, perm=[1, 0, 2])",
        "y = Slice(x, [0], [1], [1])",
        "y = Slice(x, [-1], [-100], [2], [-1])",
        "y = Expand(x, [3, 1, 1, 1])",
        "y = Gather(x, [0], axis=1)",
        "y = Concat(x, x, axis=1)",
        "y = Transpose(x, perm=[0, 2, 1])",
        "y = Reshape(x, [-1, 4])",
        "y = MatMul(x, float32[4, 4] random(1))",
        "y = Gather(x, ids, axis=-1)",
        "y = Gather(x, 1, axis=-1)",
        "y = Slice(x, ids, ids, [2])",
        "y = Slice(x, [3], [0], [2], [-1])",
        "y, z = Split(x, k, axis=-1)",
        "y = Transpose(Reshape(x, [0, 0, 2, 2]), perm=[0, 2, 1, 3])",
        "y = Concat(x, given, axis=-1)",
        "y = Reshape(x, sizes)",
        "y = Expand(x, sizes)",
        "y = Slice(x, k, [2], [1])",
    ],
)
def test_what_makes_other_lanes(body: str) -> None:
    more = "ids: int64[2], k: int64[1], sizes: int64[3], given: float32[B, S, D]"
    x, y = found(f"{X}, {more}", body, "x", "y")
    assert x == [1, 2, 3, 4]
    assert y is None or not {abs(lane) for lane in y} & set(x)


F = "f: float32[B, S, 2], g: float32[B, S, 2], p: float32[B, S, 1], ids: int64[3]"


@pytest.mark.parametrize(
    "body",
    [
        "y = Cos(Concat(f, f, axis=-1))",
        "y = Mul(Cast(Sin(Concat(f, f, axis=2)), to=float16), float16[1] 1.5)",
        "e = Concat(f, f, axis=-1)  y = Add(e, Concat(g, g, axis=-1))",
        "y = Mul(p, [1.0, 0.5, 1.0, 0.5])",
        "y = Add(Concat(f, f, axis=-1), p)",
        "y = Unsqueeze(Transpose(Concat(f, f, axis=-1), perm=[1, 0, 2]), [1])",
        "y = Reshape(Slice(Concat(f, f, axis=-1), [0], [1], [0]), [-1, 4])",
        "y = Gather(float32[5, 4] 0.5, ids)",
        "y = Concat(Gather(f, [0], axis=1), Gather(f, [0], axis=1), axis=-1)",
        "y = Concat(Unsqueeze(f, [0]), Unsqueeze(f, [0]), axis=-1)",
        "h = Concat(f, g, axis=1)  y = Concat(h, h, axis=2)",
    ],
)
def test_equal_halves(body: str) -> None:
    (y,) = found(F, body, "y", elementwise=True)
    assert y is not None
    assert y[:2] == y[2:]
    assert y[0] != y[1] or "0.5, ids" in body


@pytest.mark.parametrize(
    "body",
    [
        "y = Cos(Concat(f, g, axis=-1))",
        "y = Cos(Concat(f, Neg(f), axis=-1))",
        "y = Concat(Cos(f), Sin(f), axis=-1)",
        "y = Concat(Gather(f, [0], axis=1), Gather(f, [1], axis=1), axis=-1)",
        "y = Mul(p, [1.0, 0.5, 1.0, 0.25])",
        "y = Mul(Concat(f, f, axis=-1), [1.0, 1.0, 2.0, 1.0])",
        "y = MatMul(Concat(f, f, axis=-1), float32[4, 4] random(1))",
        "y = Concat(Cast(f, to=float16), Cast(Cast(f, to=bfloat16), to=float16), axis=-1)",
        "y = Cos(Reshape(Concat(f, f, axis=1), [0, -1, 4]))",
    ],
)
def test_halves_that_are_not_proved(body: str) -> None:
    (y,) = found(F, body, "y", elementwise=True)
    assert y is not None
    assert y[:2] != y[2:]


def test_broadcasting_tells_lanes_of_different_ranks_apart() -> None:
    """f[s, j] and f[i, j] of (S, 2) and (S, 1, 2) are other elements beside a third tensor."""
    body = "a = Add(f, g)  b = Add(Unsqueeze(f, [1]), g)  y = Concat(a, b, axis=-1)"
    (y,) = found("f: float32[3, 2], g: float32[3, 3, 2]", body, "y", elementwise=True)
    assert y is not None
    assert y[:2] != y[2:]


@pytest.mark.parametrize("first", ["f", "Transpose(f, perm=[1, 0, 2, 3])"])
def test_a_transposed_half_is_another_one(first: str) -> None:
    body = f"y = Concat({first}, Transpose(f, perm=[2, 1, 0, 3]), axis=-1)".replace("Concat(f,", "Concat(Identity(f),")
    (y,) = found("f: float32[3, 3, 3, 2]", body, "y", elementwise=True)
    assert y is not None
    assert y[:2] != y[2:]


def test_sizes_that_are_not_known() -> None:
    assert found("x: float32[B, S, D], z: float32", "y = Neg(x)  w = Neg(z)", "x", "y", "w") == [None, None, None]


def test_a_split_heads_dimension_is_part_of_the_lanes() -> None:
    values = model("x: float32[B, S, 8]", "y = Reshape(x, [0, 0, 2, 4])").graph.names
    x, y = lanes(values["x"], values["y"])
    assert x is not None
    assert y is not None
    assert y.shape == (2, 4)
    assert np.array_equal(x, y.reshape(-1))


def test_rows_and_lanes_may_be_cut_at_once() -> None:
    body = """
      rows = Slice(x, [1], [3], [1])
      apart = Slice(rows, [0], [4], [2])
      once = Slice(x, [0, 1], [4, 3], [2, 1])
      others = Slice(x, [0, 0], [4, 2], [2, 1])
    """
    apart, once, others = found("x: float32[B, 5, 8]", body, "apart", "once", "others")
    assert apart is not None
    assert apart == once
    assert apart != others
