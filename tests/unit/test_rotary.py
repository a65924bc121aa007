"""Rotary embeddings through the whole pipeline: one operator for each tensor, in what the runtime takes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from graphopt.ir import Model, model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.pipeline.meanings import count_ops
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import built_in_rules
from graphopt.runtime import Runner
from graphopt.targets import target_named

ROTATED = """
  {0}a = Slice({0}, [0], [8], [3])
  {0}b = Slice({0}, [8], [9223372036854775807], [3])
  {0}r = Add(Mul({0}, c), Mul(Concat(Neg({0}b), {0}a, axis=-1), s))"""
LAYER = """
  q{0} = Transpose(Reshape(MatMul(x{0}, float32[64, 64] random(1)), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
  k{0} = Transpose(Reshape(MatMul(x{0}, float32[64, 64] random(2)), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
  v{0} = Transpose(Reshape(MatMul(x{0}, float32[64, 64] random(3)), [0, 0, 4, 16]), perm=[0, 2, 1, 3])
  {1}{2}
  p{0} = Softmax(Mul(MatMul(q{0}r, Transpose(k{0}r, perm=[0, 1, 3, 2])), 0.25), axis=-1)
  x{3} = Reshape(Transpose(MatMul(p{0}, v{0}), perm=[0, 2, 1, 3]), [0, 0, 64])"""


def decoder() -> Model:
    """Two layers of attention that share the tables of one rotary embedding."""
    layers = "".join(LAYER.format(i, ROTATED.format(f"q{i}"), ROTATED.format(f"k{i}"), i + 1) for i in range(2))
    return parse(
        f"""opset 17
        (x0: float32[B, S, 64], ids: int64[B, S]) -> (x2) {{
          f = Mul(Cast(Unsqueeze(ids, [2]), to=float32), float32[8] random(9))
          e = Concat(f, f, axis=-1)
          c = Unsqueeze(Cos(e), [1])
          s = Unsqueeze(Sin(e), [1])
          {layers}
        }}"""
    )


def fused(model: Model, target: str = "ort-cpu", keep_opset: bool = False) -> Counter[str]:
    rules = list(built_in_rules())
    optimize(model, target=target_named(target), rules=rules, keep_opset=keep_opset)
    return count_ops(model)


def run(model: Model, feeds: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    infer(model)
    with Runner() as runner, runner.load(model_to_proto(model).SerializeToString(), optimize=False) as session:
        return list(session.run(feeds).values())


def feeds(batch: int, rows: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    x = random.standard_normal((batch, rows, 64)).astype(np.float32)
    return {"x0": x, "ids": np.tile(np.arange(rows), (batch, 1))}


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
def test_one_operator_for_each_tensor_and_one_table_for_all_layers(target: str) -> None:
    model = decoder()
    ops = fused(model, target)
    assert ops["RotaryEmbedding"] == 4
    assert ops["Attention"] == 2
    assert ops["Cos"] == ops["Sin"] == 1
    assert not {"Concat", "Neg", "Slice", "Transpose"} & set(ops)
    for given in (feeds(1, 5), feeds(3, 2)):
        np.testing.assert_allclose(run(model, given)[0], run(decoder(), given)[0], rtol=0, atol=1e-5)


def test_an_opset_that_must_stay_gets_the_contrib_operator() -> None:
    model = decoder()
    ops = fused(model, keep_opset=True)
    assert model.opset == 17
    assert ops["com.microsoft.RotaryEmbedding"] == 4
    given = feeds(2, 3)
    np.testing.assert_allclose(run(model, given)[0], run(decoder(), given)[0], rtol=0, atol=1e-5)


def test_an_opset_that_must_stay_without_a_kernel_keeps_the_parts() -> None:
    model = decoder()
    ops = fused(model, "onnx", keep_opset=True)
    assert "RotaryEmbedding" not in ops
    assert ops["Cos"] == 1


def test_it_changes_nothing_the_second_time() -> None:
    model = decoder()
    once = fused(model)
    assert fused(model) == once


def test_tables_of_batch_1_run_on_any_batch() -> None:
    text = """opset 23
    (x: float32[B, 4, S, 8], f: float32[1, S, 4]) -> (y) {
      y = RotaryEmbedding(x, Cos(f), Sin(f), interleaved=0, num_heads=4)
    }"""
    model = parse(text)
    fused(model)
    random = np.random.default_rng(0)
    x, f = random.standard_normal((3, 4, 5, 8)), random.standard_normal((1, 5, 4))
    (y,) = run(model, {"x": x.astype(np.float32), "f": f.astype(np.float32)})
    (a, b), c, s = np.split(x, 2, -1), np.cos(f)[:, None], np.sin(f)[:, None]
    np.testing.assert_allclose(y, np.concatenate([a * c - b * s, b * c + a * s], -1), rtol=0, atol=1e-5)


def test_the_result_is_like_the_operand() -> None:
    model = parse("opset 23 (x: float16[B, S, 64], c: float16, s: float16) -> (y) { y = RotaryEmbedding(x, c, s) }")
    infer(model)
    y, x = model.graph.names["y"], model.graph.names["x"]
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
