"""Convolutional networks in integers: what runs from the first quantization to the last product, and how near it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graphopt.ir import Model, Value, load, model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.tensor import Array
from graphopt.ir.text import parse
from graphopt.pipeline import quantize
from graphopt.pipeline.optimize import optimize
from graphopt.quantize.integer_paths import integer_paths
from graphopt.quantize.rounding.equalize import equalize
from graphopt.quantize.rounding.weights import integers
from graphopt.quantize.sites import Site, find_sites
from graphopt.rewrite import Grid, Recipe, built_in_rules
from graphopt.rewrite.grids import activation_grid
from graphopt.targets import target_named

RULES = built_in_rules()
OPSET = 18
Change = Callable[[Model, dict[str, Array]], object]

INTEGER = {
    *("QuantizeLinear", "QLinearConv", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearGlobalAveragePool"),
    *("QLinearAveragePool", "QLinearSigmoid", "QLinearLeakyRelu", "NhwcMaxPool", "MatMulIntegerToFloat", "QGemm"),
    *("Transpose", "Reshape", "Flatten", "Concat", "Split", "Slice", "Pad", "Clip", "MaxPool"),
}
"""What may run between the first quantization and the end: integer kernels, and what moves bytes."""

NETWORKS = {
    "residual": """(x: float32[N, 3, 16, 16]) -> (y) {
      i = Relu(Conv(x, float32[8, 3, 3, 3] random(1), float32[8] random(2), pads=[1, 1, 1, 1]))
      a = MaxPool(i, kernel_shape=[2, 2], strides=[2, 2])
      b = Relu(Conv(a, float32[8, 8, 3, 3] random(3), pads=[1, 1, 1, 1]))
      c = Relu(Add(a, Conv(b, float32[8, 8, 3, 3] random(4), float32[8] random(5), pads=[1, 1, 1, 1])))
      d = Conv(c, float32[16, 8, 1, 1] random(6), strides=[2, 2])
      e = Relu(Conv(c, float32[16, 8, 3, 3] random(7), strides=[2, 2], pads=[1, 1, 1, 1]))
      f = Relu(Add(Conv(e, float32[16, 16, 3, 3] random(8), pads=[1, 1, 1, 1]), d))
      y = Gemm(Flatten(GlobalAveragePool(f)), float32[10, 16] random(9), float32[10] random(10), transB=1)
    }""",
    "inverted": """(x: float32[N, 3, 16, 16]) -> (y) {
      a = HardSwish(Conv(x, float32[8, 3, 3, 3] random(1), float32[8] random(2), pads=[1, 1, 1, 1], strides=[2, 2]))
      b = Clip(Conv(a, float32[16, 8, 1, 1] random(3), float32[16] random(4)), 0.0, 6.0)
      c = Clip(Conv(b, float32[16, 1, 3, 3] random(5), float32[16] random(6), group=16, pads=[1, 1, 1, 1]), 0.0, 6.0)
      s = Relu(Conv(GlobalAveragePool(c), float32[4, 16, 1, 1] random(7), float32[4] 0.5))
      g = HardSigmoid(Conv(s, float32[16, 4, 1, 1] random(9), float32[16] random(10)), alpha=0.16666667)
      d = Add(Conv(Mul(c, g), float32[8, 16, 1, 1] random(11)), a)
      y = MatMul(ReduceMean(d, [2, 3], keepdims=0), float32[8, 10] random(12))
    }""",
    "encoder_decoder": """(x: float32[N, 3, 16, 16]) -> (y) {
      a = Relu(Conv(x, float32[8, 3, 3, 3] random(1), pads=[1, 1, 1, 1]))
      b = Relu(Conv(MaxPool(a, kernel_shape=[2, 2], strides=[2, 2]), float32[8, 8, 3, 3] random(2), pads=[1, 1, 1, 1]))
      c = Relu(Conv(MaxPool(b, kernel_shape=[2, 2], strides=[2, 2]), float32[8, 8, 3, 3] random(3), pads=[1, 1, 1, 1]))
      d = Concat(Resize(c, _, [1.0, 1.0, 2.0, 2.0]), b, axis=1)
      e = Conv(d, float32[8, 16, 3, 3] random(4), pads=[1, 1, 1, 1])
      f = ConvTranspose(e, float32[8, 8, 2, 2] random(5), float32[8] random(6), strides=[2, 2])
      y = Conv(Concat(f, a, axis=1), float32[2, 16, 1, 1] random(7), float32[2] random(8))
    }""",
    "split": """(x: float32[N, 3, 16, 16]) -> (y) {
      a = Conv(x, float32[8, 3, 3, 3] random(1), float32[8] random(2), pads=[1, 1, 1, 1])
      b = Mul(a, Sigmoid(a))
      c, d = Split(b, axis=1, num_outputs=2)
      e = LeakyRelu(Conv(d, float32[4, 4, 3, 3] random(3), float32[4] random(4), pads=[1, 1, 1, 1]), alpha=0.1)
      f = Concat(c, e, Add(d, e), axis=1)
      g = Conv(f, float32[8, 6, 3, 3] random(5), group=2, pads=[1, 1, 1, 1], dilations=[1, 1])
      y = Conv(Pad(g, [0, 0, 1, 1, 0, 0, 1, 1]), float32[4, 8, 3, 3] random(6), float32[4] random(7))
    }""",
    "dense": """(x: float32[N, 3, 16, 16]) -> (y) {
      a = Conv(x, float32[8, 3, 3, 3] random(1), pads=[1, 1, 1, 1])
      b = Relu(BatchNormalization(a, float32[8] random(2), float32[8] random(3), float32[8] random(4), float32[8] 1))
      c = Concat(a, Conv(b, float32[4, 8, 3, 3] random(5), pads=[1, 1, 1, 1]), axis=1)
      d = BatchNormalization(c, float32[12] random(6), float32[12] random(7), float32[12] random(8), float32[12] 1)
      e = AveragePool(Conv(Relu(d), float32[8, 12, 1, 1] random(9)), kernel_shape=[2, 2], strides=[2, 2])
      y = Conv(e, float32[4, 8, 3, 3] random(10))
    }""",
    "sequence": """(x: float32[N, 3, 40]) -> (y) {
      a = Relu(Conv(x, float32[8, 3, 5] random(1), float32[8] random(2), strides=[2]))
      b = Relu(Conv(a, float32[8, 1, 3] random(3), group=8))
      y = Conv(b, float32[4, 8, 1] random(4), float32[4] random(5))
    }""",
}


# ---- a plan made by hand -------------------------------------------------------------------------------------------


@dataclass
class HandMade:
    """Every product is static, ranges are the least and the greatest number seen."""

    sites: dict[str, Site]
    paths: set[str]
    seen: dict[str, Array]
    """What each value was, over all calibration data."""
    weights: dict[str, Any] = field(default_factory=dict)

    def recipe(self, root: Value) -> Recipe | None:
        site = self.sites.get(root.name)
        if site is None:
            return None
        if site.name not in self.weights:
            self.weights[site.name] = integers(site.weights, axis=site.channels)
        return Recipe("static", self.weights[site.name], input=self.observed(site.input))

    def grid(self, value: Value) -> Grid | None:
        return self.observed(value.name) if value.name in self.paths else None

    def observed(self, name: str) -> Grid:
        return activation_grid(float(self.seen[name].min()), float(self.seen[name].max()))


def network(text: str) -> Model:
    model = parse(text, opset=OPSET)
    infer(model)
    return model


def data(shape: tuple[Any, ...], seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal([64, *shape[1:]]).astype(np.float32)


def session(model: onnx.ModelProto, optimized: str = "") -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = optimized
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def values(model: Model, x: Array) -> dict[str, Array]:
    proto = model_to_proto(model)
    known = {value.name for value in proto.graph.output}
    names = [name for node in proto.graph.node for name in node.output if name and name not in known]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    for opset in proto.opset_import:
        if any(node.op_type == "Swish" for node in proto.graph.node):
            opset.version = max(opset.version, 24)
    found = session(proto)
    return {"x": x, **dict(zip([one.name for one in found.get_outputs()], found.run(None, {"x": x}), strict=True))}


def quantized(model: Model, x: Array, change: Change | None = None) -> onnx.ModelProto:
    def plan(fused: Model) -> HandMade:
        if change is not None:
            change(fused, values(fused, x))
        sites = {site.name: site for site in find_sites(fused) if not site.refusal}
        return HandMade(sites, integer_paths(fused, sites.values()), values(fused, x))

    trace = optimize(model, target=target_named("ort-cpu"), rules=RULES, plan=plan)
    assert not trace.failures
    return model_to_proto(model)


def run(model: onnx.ModelProto, x: Array) -> Array:
    found: Array = session(model).run(None, {"x": x})[0]
    return found


def error(model: onnx.ModelProto, written: onnx.ModelProto, x: Array) -> float:
    exact = run(model, x)
    return float(np.linalg.norm(run(written, x) - exact) / np.linalg.norm(exact))


# ---- from end to end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_integer_from_the_first_convolution_to_the_last_product(name: str, tmp_path: Any) -> None:
    model = network(NETWORKS[name])
    before = model_to_proto(network(NETWORKS[name]))
    shape = model.graph.sources("Input")[0].output.shape
    assert shape is not None
    written = quantized(model, data(shape, 1))
    session(written, str(tmp_path / "optimized.onnx"))
    kernels = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    off = error(before, written, data(shape, 2))
    print(f"{name}: relative error {off:.4f}; {' '.join(kernels)}")
    assert set(kernels[:-1]) <= INTEGER
    assert kernels.count("QuantizeLinear") == 1
    assert 1e-4 < off < 0.06


def test_activations_that_are_signed_keep_the_relu() -> None:
    text = "(x: float32[N, 3, 8, 8]) -> (y) { y = Relu(Conv(x, float32[4, 3, 3, 3] random(1))) }"
    model = network(text)

    class Signed(HandMade):
        def observed(self, name: str) -> Grid:
            return activation_grid(float(self.seen[name].min()), float(self.seen[name].max()), "int8", symmetric=True)

    def plan(fused: Model) -> Signed:
        sites = {site.name: site for site in find_sites(fused)}
        return Signed(sites, integer_paths(fused, sites.values()), values(fused, data((1, 3, 8, 8), 1)))

    optimize(model, target=target_named("ort-cpu"), rules=RULES, plan=plan)
    written = model_to_proto(model)
    assert run(written, data((1, 3, 8, 8), 2)).min() == 0
    assert error(model_to_proto(network(text)), written, data((1, 3, 8, 8), 2)) < 0.05


# ---- where grids are placed ----------------------------------------------------------------------------------------


def paths(text: str) -> set[str]:
    model = network(text)
    return integer_paths(model, [site for site in find_sites(model) if not site.refusal])


def test_the_relu_after_a_convolution_gets_its_grid() -> None:
    conv = "c = Conv(x, float32[3, 3, 1, 1] random(1))"
    assert paths(f"(x: float32[N, 3, 8, 8]) -> (y) {{ {conv} y = Relu(c) }}") == {"y"}
    assert paths(f"(x: float32[N, 3, 8, 8]) -> (y, c) {{ {conv} y = Relu(c) }}") == {"c"}
    assert paths(f"(x: float32[N, 3, 8, 8]) -> (y) {{ {conv} y = Clip(c, 1.0, 6.0) }}") == {"c"}


def test_a_sum_stays_integer_between_integers_only() -> None:
    before = "a = Conv(x, float32[3, 3, 1, 1] random(1)) b = Conv(x, float32[3, 3, 1, 1] random(2))"
    last = "y = Conv(s, float32[3, 3, 1, 1] random(3))"
    head = "(x: float32[N, 3, 8, 8]) -> (y)"
    assert paths(f"{head} {{ {before} s = Add(a, b) {last} }}") == {"a", "b", "s", "y"}
    assert paths(f"{head} {{ {before} s = Add(a, Softmax(b)) {last} }}") == {"a", "b", "y"}
    assert paths(f"{head} {{ {before} s = Add(a, x) {last} }}") == {"a", "b", "y"}
    assert paths(f"{head} {{ {before} s = Add(a, b) y = Exp(s) }}") == {"a", "b"}
    assert paths(f"{head} {{ {before} s = Add(a, Exp(Relu(Neg(b)))) {last} }}") == {"a", "b", "y"}
    # A chain is as long as its first float.
    assert paths(f"{head} {{ {before} r = Add(a, b) s = Add(r, Exp(a)) {last} }}") == {"a", "b", "y"}


def test_what_moves_numbers_is_looked_through() -> None:
    text = """(x: float32[N, 3, 8, 8]) -> (y) {
      a = Relu(Conv(x, float32[4, 3, 1, 1] random(1)))
      p = MaxPool(a, kernel_shape=[2, 2], strides=[2, 2])
      s = Add(p, Transpose(p, perm=[0, 1, 3, 2]))
      y = Gemm(Flatten(s), float32[64, 5] random(2))
    }"""
    names = paths(text)
    assert len(names) == 2
    assert names >= {"s"}


def test_a_transposed_convolution_has_a_grid_where_its_windows_do_not_meet() -> None:
    head = "(x: float32[N, 3, 8, 8]) -> (y)"
    conv = "a = Conv(x, float32[3, 3, 1, 1] random(1))"
    assert paths(f"{head} {{ {conv} y = ConvTranspose(a, float32[3, 3, 2, 2] random(2), strides=[2, 2]) }}") == {
        "a",
        "y",
    }
    assert paths(f"{head} {{ {conv} y = ConvTranspose(a, float32[3, 3, 3, 3] random(2), strides=[2, 2]) }}") == {"a"}


def test_a_result_that_no_grid_serves_keeps_its_convolution_in_floats() -> None:
    text = """(x: float32[N, 3, 8, 8]) -> (y) {
      a = Relu(Conv(x, float32[8, 3, 3, 3] random(1), pads=[1, 1, 1, 1]))
      b = Conv(a, float32[4, 8, 3, 3] random(2), [1e9, 0.0, 0.0, 0.0], pads=[1, 1, 1, 1])
      y = Conv(Sigmoid(b), float32[5, 4, 3, 3] random(3))
    }"""
    model = model_to_proto(network(text))
    calib = [{"x": data((1, 3, 8, 8), seed)} for seed in range(4)]
    result = quantize(model, mode="static", calib=calib, verify="off", allow_slower=True, observer="min-max")
    schemes = {site.name: (site.scheme, site.reason) for site in result.sites}
    assert schemes.pop("b") == ("float", "its result reaches 1.0e+09: a mask?")
    assert {scheme for scheme, _ in schemes.values()} == {"static"}
    assert error(model, model_to_proto(result.model), data((1, 3, 8, 8), 9)) < 0.03


# ---- cross-layer equalisation --------------------------------------------------------------------------------------

SPREAD = """(first: float32[8, 3, 3, 3], second: float32[8, 1, 3, 3], third: float32[12, 8, 1, 1],
  fourth: float32[12, 4, 1, 1], last: float32[5, 12], x: float32[N, 3, 12, 12], first_bias: float32[8],
  second_bias: float32[8], third_bias: float32[12], fourth_bias: float32[12]) -> (y) {
  a = Relu(Conv(x, first, first_bias, pads=[1, 1, 1, 1]))
  b = LeakyRelu(Conv(a, second, second_bias, group=8, pads=[1, 1, 1, 1]), alpha=0.2)
  c = Relu(Conv(b, third, third_bias))
  d = Relu(Conv(c, fourth, fourth_bias, group=3))
  y = Gemm(Flatten(GlobalAveragePool(d)), last, transB=1)
}"""


def spread(decades: float) -> Model:
    """One function, whatever the decades: channels between layers differ by factors of up to 10 ** decades, undone in
    the layer behind."""
    random = np.random.default_rng(0)
    proto = model_to_proto(network(SPREAD))
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in proto.graph.input}
    numbers = {name: random.standard_normal(shape) / 3 for name, shape in shapes.items() if name != "x"}
    for one, other in pairwise(["first", "second", "third", "fourth", "last"]):
        s = 10 ** random.uniform(-decades / 2, decades / 2, len(numbers[one]))
        numbers[one] = numbers[one] / s.reshape(-1, *(1,) * (numbers[one].ndim - 1))
        numbers[f"{one}_bias"] = numbers[f"{one}_bias"] / s
        weights = numbers[other]
        rows = np.repeat(s.reshape(-1, weights.shape[1]), len(weights) * weights.shape[1] // len(s), axis=0)
        numbers[other] = weights * rows.reshape(*rows.shape, *(1,) * (weights.ndim - 2))
    image = next(value for value in proto.graph.input if value.name == "x")
    del proto.graph.input[:]
    proto.graph.input.append(image)
    for name, array in numbers.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    model = load(proto)
    infer(model)
    return model


def reach(seen: dict[str, Array]) -> dict[str, Array]:
    """max |x| of each channel."""
    images = {name: array for name, array in seen.items() if array.ndim > 1}
    return {name: np.abs(np.moveaxis(array, 1, 0)).reshape(array.shape[1], -1).max(1) for name, array in images.items()}


def test_equalisation_keeps_the_function() -> None:
    model, x = spread(4), data((1, 3, 12, 12), 1)
    exact = run(model_to_proto(model), x)
    assert len(equalize(model, reach(values(model, x)))) == 4
    assert np.allclose(run(model_to_proto(model), x), exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("calibrated", [True, False])
def test_equalisation_takes_away_what_a_spread_of_channels_costs(calibrated: bool) -> None:
    x, final = data((1, 3, 12, 12), 1), data((1, 3, 12, 12), 2)
    exact = model_to_proto(spread(0))
    plain, without = (error(exact, quantized(spread(decades), x), final) for decades in (0, 4))

    def change(model: Model, seen: dict[str, Array]) -> list[str]:
        return equalize(model, reach(seen) if calibrated else {})

    repaired = error(exact, quantized(spread(4), x, change), final)
    print(f"relative error {plain:.4f}; channels spread: {without:.4f}, equalised {repaired:.4f}")
    assert without > 50 * plain
    assert repaired < (2 if calibrated else 4) * plain


def test_the_search_equalises_where_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, final = model_to_proto(spread(0)), data((1, 3, 12, 12), 2)

    def found(decades: float) -> tuple[float, list[bool]]:
        x = np.random.default_rng(1).standard_normal((12, 8, 3, 12, 12)).astype(np.float32)
        result = quantize(
            model_to_proto(spread(decades)), mode="static", calib=[{"x": batch} for batch in x], verify="off"
        )
        steps = [step.kept for step in result.steps if step.change.startswith("equalize")]
        return error(exact, model_to_proto(result.model), final), steps

    off, kept = found(4)
    monkeypatch.setattr("graphopt.pipeline.integers._UNEVEN", np.inf)
    without, never = found(4)
    print(f"relative error {off:.4f}, without equalisation {without:.4f}")
    assert (kept, never) == ([True], [])
    assert off < 0.06
    assert without > 10 * off


def test_equalisation_leaves_alone_what_is_read_twice_or_cut_elsewhere() -> None:
    conv = "a = Conv(x, float32[3, 3, 1, 1] random(1))"
    for between in ("b = Clip(a, 0.0, 6.0)", "b = Sigmoid(a)", "b = Add(a, Relu(a))", "b = Relu(a) z = Neg(b)"):
        results = "(y, z)" if "z =" in between else "(y)"
        text = (
            f"(x: float32[N, 3, 8, 8]) -> {results} {{ {conv} {between} y = Conv(b, float32[3, 3, 1, 1] random(2)) }}"
        )
        assert equalize(network(text)) == []
