"""Products of integers through all stages: which kernels run them, what is shared, and how far the result is off."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from graphopt.ir import Model, model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.tensor import Array
from graphopt.ir.text import parse
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import Plan, built_in_rules
from graphopt.runtime import Runner
from graphopt.targets import target_named
from graphopt.testing.plans import made_plan

WIDTH = 64
ENCODER = f"""(x: float32[B, S, {WIDTH}], m: float32[B, 1, 1, S]) -> (y) {{
  n = LayerNormalization(x, float32[{WIDTH}] 1.0, float32[{WIDTH}] 0.1, axis=-1)
  q = Add(MatMul(n, float32[{WIDTH}, {WIDTH}] random(1)), float32[{WIDTH}] random(2))
  k = Add(MatMul(n, float32[{WIDTH}, {WIDTH}] random(3)), float32[{WIDTH}] random(4))
  v = Add(MatMul(n, float32[{WIDTH}, {WIDTH}] random(5)), float32[{WIDTH}] random(6))
  qs = Mul(Transpose(Reshape(q, [0, 0, 4, 16]), perm=[0, 2, 1, 3]), 0.25)
  kt = Transpose(Reshape(k, [0, 0, 4, 16]), perm=[0, 2, 3, 1])
  p = Softmax(Add(MatMul(qs, kt), m), axis=-1)
  a = Transpose(MatMul(p, Transpose(Reshape(v, [0, 0, 4, 16]), perm=[0, 2, 1, 3])), perm=[0, 2, 1, 3])
  o = Add(MatMul(Reshape(a, [0, 0, {WIDTH}]), float32[{WIDTH}, {WIDTH}] random(7)), float32[{WIDTH}] random(8))
  r = Add(x, o)
  f = LayerNormalization(r, float32[{WIDTH}] 1.0, float32[{WIDTH}] 0.1, axis=-1)
  g = Gelu(Add(MatMul(f, float32[{WIDTH}, 256] random(9)), float32[256] random(10)))
  d = Add(MatMul(g, float32[256, {WIDTH}] random(11)), float32[{WIDTH}] random(12))
  y = LayerNormalization(Add(r, d), float32[{WIDTH}] 1.0, axis=-1)
}}"""
PRODUCTS = 6
INTEGER = {
    "static": {"MatMulIntegerToFloat"},
    "dynamic": {"MatMulIntegerToFloat", "DynamicQuantizeMatMul"},
    "weights8": {"MatMulNBits"},
    "weights4": {"MatMulNBits"},
}


def feeds() -> dict[str, Array]:
    random = np.random.default_rng(3)
    mask = np.where(np.arange(9) < np.array([9, 6])[:, None], 0.0, -1e9).astype(np.float32)
    return {"x": random.standard_normal((2, 9, WIDTH)).astype(np.float32), "m": mask[:, None, None, :]}


def rewritten(text: str, plan: Plan | None, target: str = "ort-cpu", opset: int = 20) -> Model:
    model = parse(text, opset=opset)
    trace = optimize(model, target=target_named(target), rules=built_in_rules(), plan=lambda _: plan)
    assert not trace.failures
    return model


def ran(model: Model, given: dict[str, Array], runner: Runner) -> tuple[Counter[str], Array]:
    """How often each kernel ran in onnxruntime's default session, and the first output."""
    infer(model)
    data = model_to_proto(model).SerializeToString()
    with runner.load(data, optimize=True, profile=True) as session:
        result = next(iter(session.run(given).values()))
        return Counter(kernel.op for kernel in session.kernels()), result


def apart(a: Array, b: Array) -> float:
    """The root mean square of the difference, relative to that of `a`."""
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2)))


@pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
@pytest.mark.parametrize(
    "words", ["static", "static smooth bias", "dynamic", "weights8", "weights8 smooth", "weights4"]
)
def test_every_product_of_an_encoder_runs_on_an_integer_kernel(
    words: str, target: str, graphopt_runner: Runner
) -> None:
    plan = made_plan(words)
    kernels, result = ran(rewritten(ENCODER, plan, target), feeds(), graphopt_runner)
    _, wanted = ran(parse(ENCODER), feeds(), graphopt_runner)
    print(words, target, dict(kernels), apart(wanted, result))
    assert sum(kernels[op] for op in INTEGER[words.split()[0]]) == PRODUCTS
    if target == "ort-cpu":
        assert kernels["MatMul"] == kernels["FusedMatMul"] == kernels["SkipLayerNormalization"] == 0
    assert apart(wanted, result) < plan.tolerance


@pytest.mark.parametrize(("scheme", "op"), [("static", "QuantizeLinear"), ("dynamic", "DynamicQuantizeLinear")])
def test_what_several_products_read_is_quantized_once(scheme: str, op: str) -> None:
    counts = Counter(node.op for node in rewritten(ENCODER, made_plan(f"{scheme} smooth")).graph.ops())
    assert counts[op] == 4


def test_products_of_a_wide_activation_share_its_integers() -> None:
    text = """(x: float32[B, 5000]) -> (y, z) {
      y = MatMul(Relu(x), float32[5000, 2] random(1))
      z = MatMul(Relu(x), float32[5000, 3] random(2)) }"""
    counts = Counter(node.op for node in rewritten(text, made_plan("static smooth")).graph.ops())
    assert counts["Mul"] == counts["QuantizeLinear"] == 1


def test_smoothing_goes_into_norms_and_values() -> None:
    """What is left stands behind a GELU, which is not linear."""
    counts = Counter(node.op for node in rewritten(ENCODER, made_plan("static smooth")).graph.ops())
    assert counts["Mul"] == 1


QAT = """(x: float32[B, 16]) -> (y) {
  d = DequantizeLinear(QuantizeLinear(x, 0.03, int8 3), 0.03, int8 3)
  s = float32[8] 0.02
  z = int8[8] 0
  w = DequantizeLinear(QuantizeLinear(float32[8, 16] random(1), s, z, axis=0), s, z, axis=0)
  h = Relu(PRODUCT)
  e = DequantizeLinear(QuantizeLinear(h, 0.05, uint8 0), 0.05, uint8 0)
  v = DequantizeLinear(QuantizeLinear(float32[8, 4] random(2), 0.02, int8 0), 0.02, int8 0)
  y = Add(MatMul(e, v), [1.0, 2.0, 3.0, 4.0])
}"""


@pytest.mark.parametrize(
    "product", ["Gemm(d, w, float32[8] random(3), transB=1)", "MatMul(d, Transpose(w, perm=[1, 0]))"]
)
def test_a_model_that_was_trained_quantized_runs_on_integer_kernels(product: str, graphopt_runner: Runner) -> None:
    text = QAT.replace("PRODUCT", product)
    given = {"x": np.random.default_rng(0).standard_normal((7, 16)).astype(np.float32)}
    model = rewritten(text, None)
    kernels, result = ran(model, given, graphopt_runner)
    before, wanted = ran(parse(text), given, graphopt_runner)
    print(dict(before), dict(kernels))
    assert kernels["MatMulIntegerToFloat"] == 2
    assert kernels["QuantizeLinear"] == 2
    assert kernels["DequantizeLinear"] == 0
    assert np.allclose(result, wanted, atol=0.05 * 0.02 * 127)


def test_a_model_that_was_trained_quantized_is_not_quantized_again() -> None:
    text = QAT.replace("PRODUCT", "Gemm(d, w, transB=1)")
    once, again = (rewritten(text, plan, "onnx") for plan in (None, made_plan("static")))
    assert [node.op for node in again.graph.ops()] == [node.op for node in once.graph.ops()]
