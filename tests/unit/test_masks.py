"""Whether a mask leaves every row a key: what is proved holds in onnxruntime, and what does not hold is not proved."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime as ort
import pytest

from graphopt.ir import Value, model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.masks import never_empty
from graphopt.ir.text import parse

# x: (S, 2), past: (P, 2); i: positions of the queries, j: of the keys.
FRAME = """(x: float32[S, 2], past: float32[P, 2], given: bool[1, S]) -> (y) {{
  s = Squeeze(Slice(Shape(x), [0], [1]), [0])
  p = Squeeze(Slice(Shape(past), [0], [1]), [0])
  t = Add(p, s)
  i = Unsqueeze(Add(Range(0, s, 1), p), [1])
  j = Unsqueeze(Range(0, t, 1), [0])
  own = Unsqueeze(Range(0, s, 1), [1])
  {}
}}"""
TRIL = "bool[6, 6] {" + ", ".join("true" if c <= r else "false" for r in range(6) for c in range(6)) + "}"
BAND = "bool[6, 6] {" + ", ".join("true" if -2 < c - r <= 0 else "false" for r in range(6) for c in range(6)) + "}"
CUT = "Slice(Slice({}, Unsqueeze(p, [0]), Unsqueeze(t, [0]), [0]), [0], Unsqueeze(t, [0]), [1])"

PROVED = {
    "causal": "y = LessOrEqual(j, i)",
    "causal, the other way around": "y = GreaterOrEqual(i, j)",
    "the opposite of the future": "y = Not(Greater(j, i))",
    "a window": "y = And(LessOrEqual(j, i), Greater(j, Sub(i, 3)))",
    "a window of one": "y = And(LessOrEqual(j, i), Greater(j, Sub(i, 1)))",
    "causal, or anything else": "y = Or(LessOrEqual(j, i), Greater(i, j))",
    "causal without a past": "y = LessOrEqual(Unsqueeze(Range(0, s, 1), [0]), own)",
    "a view of it": "y = Unsqueeze(LessOrEqual(j, i), [0, 1])",
    "a table": f"y = {TRIL}",
    "a table, cut to size": f"y = {CUT.format(TRIL)}",
    "a band, cut to size": f"y = {CUT.format(BAND)}",
    "what is added": "y = Where(LessOrEqual(j, i), 0.0, -inf)",
    "what is added to the opposite": "y = Where(Greater(j, i), -10000.0, 0.0)",
    "two masks": "y = Add(Where(LessOrEqual(j, i), 0.0, -inf), Where(Greater(j, Sub(i, 2)), 0.0, -inf))",
    "a triangle": "y = Trilu(float32[4, 4] -inf, 1)",
    "a lower triangle": "y = Cast(Trilu(float32[4, 5] 1.0, 0, upper=0), to=bool)",
    "zeros and ones, bit by bit": "y = Cast(BitwiseAnd(Cast(LessOrEqual(j, i), to=int64), int64[1, 1] 1), to=bool)",
    "a table of what is added": "y = float32[2, 2] {0, -inf, -1.0, 0}",
    "a table of what is added in float16": "y = float16[2, 2] {0, -inf, -1.0, 0}",
    "a table, some of its heads": f"y = Slice(Unsqueeze({TRIL}, [0]), [0], [1], [0])",
    "a filled tensor": "y = Cast(ConstantOfShape([3, 4], value=int64[1] 2), to=bool)",
    "a filled tensor, denied": "y = Not(Cast(ConstantOfShape([3, 4]), to=bool))",
    "a filled tensor that is added": "y = ConstantOfShape([3, 4])",
    "a triangle of a filled tensor": "y = Trilu(Expand(-inf, Concat(Unsqueeze(s, [0]), Unsqueeze(s, [0]), axis=0)), 1)",
}
NOT_PROVED = {
    "the past alone": "y = Less(j, i)",
    "the future alone": "y = Greater(j, i)",
    "a window that was left": "y = And(LessOrEqual(j, Sub(i, 1)), Greater(j, Sub(i, 3)))",
    "no window": "y = And(LessOrEqual(j, i), Greater(j, i))",
    "data": "y = Identity(given)",
    "causal and data": "y = And(LessOrEqual(Unsqueeze(Range(0, s, 1), [0]), own), given)",
    "the wrong way around": "y = Not(LessOrEqual(j, i))",
    "a table that is the wrong way around": f"y = Not({TRIL})",
    "a table, cut too far": f"y = Slice({TRIL}, [2], [3], [1])",
    "a triangle without its diagonal": "y = Trilu(float32[4, 4] -inf, 0)",
    "a triangle taller than wide": "y = Cast(Trilu(float32[5, 4] 1.0, 1), to=bool)",
    "every key denied": "y = Where(LessOrEqual(j, i), -inf, -inf)",
    "bits that have none in common": "y = Cast(BitwiseAnd(int64[2, 2] 1, int64[2, 2] 2), to=bool)",
    "fractions as integers": "y = Cast(Cast(float32[2, 2] 0.5, to=int64), to=bool)",
    "a table of what is added to others": "y = float32[2, 2] {-inf, 0, -inf, -inf}",
    "a filled tensor of zeros": "y = Cast(ConstantOfShape([3, 4]), to=bool)",
    "a filled tensor of what is denied": "y = ConstantOfShape([3, 4], value=float32[1] -inf)",
    "positions of another kind": "y = GreaterOrEqual(Mul(j, 2), Mul(i, 3))",
    "positions that are data": "y = Less(Cast(x, to=int64), Cast(x, to=int64))",
    "a row that is broadcast": "y = Expand(Slice(Less(j, i), [0], [1], [0]), [1, 1])",
}


def mask_of(text: str) -> Value:
    model = parse(text)
    infer(model)
    (mask,) = model.graph.output.inputs
    assert mask is not None
    return mask


def rows_have_keys(text: str, s: int, p: int) -> bool:
    model = parse(text)
    infer(model)
    session = ort.InferenceSession(model_to_proto(model).SerializeToString())
    feeds = {"x": np.zeros((s, 2), np.float32), "past": np.zeros((p, 2), np.float32), "given": np.zeros((1, s), bool)}
    wanted = {one.name for one in session.get_inputs()}
    (mask,) = session.run(None, {name: feed for name, feed in feeds.items() if name in wanted})
    return bool((mask if mask.dtype == bool else np.abs(mask) < 1).any(axis=-1).all())


@pytest.mark.parametrize("body", PROVED.values(), ids=PROVED.keys())
def test_proved(body: str) -> None:
    text = FRAME.format(body)
    assert never_empty(mask_of(text))
    assert all(rows_have_keys(text, s, p) for s, p in itertools.product((1, 3), (0, 1, 3)))


@pytest.mark.parametrize("body", NOT_PROVED.values(), ids=NOT_PROVED.keys())
def test_not_proved(body: str) -> None:
    text = FRAME.format(body)
    assert not never_empty(mask_of(text))
    assert not all(rows_have_keys(text, s, p) for s, p in itertools.product((1, 3), (0, 1, 3)))


def test_a_mask_may_say_what_is_denied() -> None:
    future = mask_of(FRAME.format(NOT_PROVED["the future alone"]))
    assert never_empty(future, denies=True)
    assert not never_empty(mask_of(FRAME.format(PROVED["causal"])), denies=True)
