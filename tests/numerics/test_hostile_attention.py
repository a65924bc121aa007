"""Attentions that no kernel takes as they are: whatever is made of them loads, and computes what it did."""

from __future__ import annotations

from typing import Any

import pytest

from graphopt.errors import GraphoptError
from graphopt.ir import Model, model_to_proto
from graphopt.ir.text import parse
from graphopt.pipeline.meanings import count_ops
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import built_in_rules
from graphopt.targets import target_named

HEADS = """
  q = Transpose(Reshape(MatMul(x, float32[10, 12] random(1)), [0, 0, 4, 3]), perm=[0, 2, 1, 3])
  k = Transpose(Reshape(MatMul(x, float32[10, 12] random(2)), [0, 0, 4, 3]), perm=[0, 2, 1, 3])
  v = Transpose(Reshape(MatMul(x, float32[10, 12] random(3)), [0, 0, 4, 3]), perm=[0, 2, 1, 3])
  s = Mul(MatMul(q, Transpose(k, perm=[0, 1, 3, 2])), 0.57735)
"""
OUT = "y = Reshape(Transpose(MatMul(Softmax(s, axis=-1), v), perm=[0, 2, 1, 3]), [0, 0, 12])"
X = "x: float32[B, S, 10]"


def attention(more: str = "", scores: str = "s", *, heads: str = HEADS, out: str = OUT) -> str:
    """An attention of four heads of three, from a hidden size of ten, with `scores` in place of its own."""
    parameters = f"{X}, {more}" if more else X
    return f"({parameters}) -> (y) {{ {heads} {out.replace('Softmax(s', 'Softmax(' + scores)} }}"


CASES = {
    "heads that do not divide the hidden size": attention(),
    "a mask of unknown dimensions": attention("m: float32[B, One, One, S]", "Add(s, m)"),
    "a mask of unknown rank behind a reshape": attention("m: float32[One]", "Add(s, Reshape(m, [-1, 1, 1, 1]))"),
    "two masks of different dimensions": attention("a: float32[B, 1, 1, S], b: float32[S, 1]", "Add(Add(s, a), b)"),
    "a mask over the queries only": attention("m: float32[B, 1, S, 1]", "Add(s, m)"),
    "a mask of higher rank": attention(
        "m: float32[2, 1, 1, 1, 1]", "Add(s, m)", out="y = MatMul(Softmax(s, axis=-1), v)"
    ),
    "a scale of zero": attention(scores="Mul(s, 0.0)"),
    "a scale of NaN": attention(scores="Mul(s, nan)"),
    "a negative scale": attention(scores="Mul(s, -1.0)"),
    "an infinite scale": attention(scores="Mul(s, inf)"),
    "a scale that is an input": attention("k0: float32[]", "Mul(s, k0)"),
    "a scale for each head": attention(scores="Mul(s, float32[4, 1, 1] random(7))"),
    "a cap of zero": attention(scores="Mul(Tanh(Div(s, 0.0)), 0.0)"),
    "two caps that differ": attention(scores="Mul(Tanh(Div(s, 5.0)), 7.0)"),
    "a negative cap": attention(scores="Mul(Tanh(Div(s, -5.0)), -5.0)"),
    "a cap after the mask": attention("m: float32[B, 1, 1, S]", "Mul(Tanh(Div(Add(s, m), 5.0)), 5.0)"),
    "a mask that is NaN": attention(scores="Add(s, nan)"),
    "a mask of plus infinity": attention(scores="Add(s, inf)"),
    "softmax over the queries": attention(out="y = MatMul(Softmax(s, axis=2), v)"),
    "probabilities that somebody reads": f"({X}) -> (y, p) {{ {HEADS} p = Softmax(s, axis=-1) y = MatMul(p, v) }}",
    "the lowest number twice": attention(
        "a: bool[B, 1, 1, S], b: bool[S, S]",
        "Add(Add(s, Where(a, 0.0, -3.4028235e38)), Where(b, 0.0, -3.4028235e38))",
    ),
    "a small fill over masked scores": attention(
        "m: bool[B, 1, S, S]",
        "Where(Trilu(bool[3, 3] true, upper=0), Add(s, Where(m, 0.0, -1e4)), -1e4)",
    ),
    "a mask made by a product": attention(
        "a: bool[B, 1, 1, S], m: bool[S, S]",
        "Where(m, Add(s, Mul(Sub(1.0, MatMul(float32[3, 1] 1.0, Cast(a, to=float32))), -1e9)), -1e9)",
    ),
    "weights zeroed by one of two masks": attention(
        "m: bool[B, 1, S, S]",
        out=f"w = Where(m, Softmax(Where(m, Add(s, float32[3, 1] {{0.0, -inf, -inf}}), -inf), axis=-1), 0.0) "
        f"{OUT.replace('Softmax(s, axis=-1)', 'w')}",
    ),
    "a mask scaled with the scores": attention(
        "m: bool[B, 1, S, S]",
        "Mul(Add(MatMul(Mul(q, 40.0), Transpose(k, perm=[0, 1, 3, 2])), Where(m, 0.0, -1e9)), 0.3)",
    ),
    "a mask that multiplies": attention("m: float32[B, 1, 1, S]", "Mul(s, m)"),
    "heads that are repeated as tiles": attention(
        heads=f"""{HEADS.replace("s =", "unused =")}
          k2 = Slice(k, [0], [2], [1])
          s = Mul(MatMul(q, Transpose(Concat(k2, k2, axis=1), perm=[0, 1, 3, 2])), 0.57735)"""
    ),
    "a cache of (batch, positions, heads, size)": f"""({X}, past: float32[B, T, 4, 3]) -> (y, present) {{ {HEADS}
      present = Concat(past, Transpose(k, perm=[0, 2, 1, 3]), axis=1)
      w = Concat(past, Transpose(v, perm=[0, 2, 1, 3]), axis=1)
      t = MatMul(q, Transpose(present, perm=[0, 2, 3, 1]))
      y = MatMul(Softmax(t, axis=-1), Transpose(w, perm=[0, 2, 1, 3])) }}""",
    "a cache with the positions last": f"""({X}, past: float32[B, 4, 3, T], old: float32[B, 4, T, 3]) -> (y, present) {{
      {HEADS}
      present = Concat(past, Transpose(k, perm=[0, 1, 3, 2]), axis=-1)
      y = MatMul(Softmax(MatMul(q, present), axis=-1), Concat(old, v, axis=2)) }}""",
    "a cache that grows at its end": f"""({X}, past: float32[B, 4, T, 3]) -> (y, present) {{ {HEADS}
      present = Concat(k, past, axis=2)
      t = MatMul(q, Transpose(present, perm=[0, 1, 3, 2]))
      y = MatMul(Softmax(t, axis=-1), Concat(v, past, axis=2)) }}""",
}


def optimized(text: str, opset: int, target: str, *, keep_opset: bool = False) -> Model:
    model = parse(text, opset=opset)
    trace = optimize(model, target=target_named(target), rules=built_in_rules(), keep_opset=keep_opset)
    assert not trace.failures
    return model


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
@pytest.mark.parametrize("name", CASES)
def test_the_numbers_stay(laboratory: Any, name: str, target: str) -> None:
    after = optimized(CASES[name], 20, target)
    laboratory.assert_same_numbers(CASES[name], after)


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_an_opset_that_has_no_operator_keeps_it(laboratory: Any, opset: int) -> None:
    text = CASES["a mask of unknown dimensions"]
    after = optimized(text, opset, "onnx", keep_opset=True)
    assert model_to_proto(after).opset_import[0].version == opset
    assert count_ops(after)["Attention"] == 0
    laboratory.assert_same_numbers(text, after, opset)


HALF = (
    attention("m: bool[B, 1, 1, S]", "Add(s, {})").replace("float32", "float16").replace("0.57735", "float16 0.57735")
)


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
@pytest.mark.parametrize("fill", ["-65504.0", "-1e4", "-inf"])
def test_a_fill_at_the_end_of_half_precision(laboratory: Any, fill: str, target: str) -> None:
    text = HALF.replace("{}", f"Where(m, float16 0.0, float16 {fill})")
    laboratory.assert_same_numbers(text, optimized(text, 20, target))


PARTLY = f"""(x: float32[B, S, 12], m: float32[B, 1, S, S]) -> (y) {{
  n = com.microsoft.SkipLayerNormalization(x, x, float32[12] random(4), float32[12] random(5), epsilon=1e-5)
  f = com.microsoft.FusedMatMul(n, n, transB=1, alpha=0.5)
  g = com.microsoft.FastGelu(n, float32[12] random(6))
  a = com.microsoft.MultiHeadAttention(g, n, n, _, _, m, num_heads=4, scale=0.5)
  {HEADS.replace("x,", "a,").replace("float32[10, 12]", "float32[12, 12]")}
  z = {OUT.removeprefix("y = ")}
  y = MatMul(f, z)
}}"""


def test_a_model_partly_fused_by_another_tool(laboratory: Any) -> None:
    after = optimized(PARTLY, 17, "ort-cpu")
    ops = count_ops(after)
    assert ops["Softmax"] == 0
    laboratory.assert_same_numbers(PARTLY, after, 17)


def test_contradictory_shapes_are_left_alone() -> None:
    """What the runtime would refuse is no reason to write something else, nor to crash."""
    text = f"({X}, m: float32[B, 1, 5, 7]) -> (y) {{ {HEADS} {OUT.replace('Softmax(s', 'Softmax(Add(s, m)')} }}"
    bad = text.replace("float32[B, 1, 5, 7]", "float32[3, 3, 3, 3]")
    for one in (text, bad):
        try:
            after = optimized(one, 20, "ort-cpu")
        except GraphoptError:
            continue
        assert [node.output.name for node in after.graph.inputs] == ["x", "m"]
