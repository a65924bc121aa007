"""Grids hold zero, reach their ranges, and are onnxruntime's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from graphopt.errors import ModelError
from graphopt.rewrite import Grid
from graphopt.rewrite.grids import activation_grid, levels, on_grid, quantized, weight_grid

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(deadline=None, max_examples=200)
@given(FINITE, FINITE, st.sampled_from(["uint8", "int8"]), st.booleans())
def test_zero_is_exact_and_the_range_is_reached(a: float, b: float, dtype: str, symmetric: bool) -> None:
    low, high = min(a, b), max(a, b)
    grid = activation_grid(low, high, dtype, symmetric)  # type: ignore[arg-type]
    scale, zero = float(grid.scale), int(grid.zero_point)
    limits = np.iinfo(grid.zero_point.dtype)
    assert grid.scale.dtype == np.float32
    assert grid.zero_point.dtype == dtype
    assert np.finfo(np.float32).tiny <= scale < np.inf
    assert limits.min <= zero <= limits.max
    # To half a step, both ends are numbers of the grid.
    assert (limits.min - zero) * scale <= min(low, 0) + 0.5001 * scale
    assert (limits.max - zero) * scale >= max(high, 0) - 0.5001 * scale
    if symmetric:
        assert zero == limits.min + 128


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_a_range_of_zero_width_has_scale_one(dtype: str) -> None:
    grid = activation_grid(0.0, 0.0, dtype)  # type: ignore[arg-type]
    assert float(grid.scale) == 1.0
    assert on_grid(np.zeros(3, np.float32), grid).tolist() == [0, 0, 0]


def test_a_constant_is_on_its_grid() -> None:
    for constant in (3.7, -3.7, 1e-30):
        grid = activation_grid(constant, constant)
        assert on_grid(np.array([constant], np.float32), grid)[0] == pytest.approx(constant, rel=1e-6)


@pytest.mark.parametrize(("low", "high"), [(np.nan, 1.0), (0.0, np.nan), (-np.inf, 0.0), (0.0, np.inf), (1.0, -1.0)])
def test_no_range_no_grid(low: float, high: float) -> None:
    with pytest.raises(ModelError) as caught:
        activation_grid(low, high)
    assert caught.value.code == "GO125"


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(("low", "high"), [(-1.5, 4.0), (0.0, 1e-3), (-70.0, -2.0)])
def test_integers_are_those_of_onnxruntime(dtype: str, low: float, high: float) -> None:
    ort = pytest.importorskip("onnxruntime")
    grid = activation_grid(low, high, dtype)  # type: ignore[arg-type]
    x = np.random.default_rng(0).uniform(1.3 * low - 1, 1.3 * high + 1, 1000).astype(np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1000]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("z", kind, []),
        ],
        [helper.make_tensor_value_info("q", kind, None), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    q, y = session.run(None, {"x": x, "s": grid.scale, "z": grid.zero_point})
    assert np.array_equal(q, quantized(x, grid))
    assert np.array_equal(y, on_grid(x, grid))


def test_the_grid_of_a_run_is_that_of_dynamic_quantize_linear() -> None:
    ort = pytest.importorskip("onnxruntime")
    x = np.random.default_rng(1).normal(size=500).astype(np.float32)
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in (("q", 2), ("s", 1), ("z", 2))]
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", 1, [500])], outputs)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    q, scale, zero = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    grid = activation_grid(float(x.min()), float(x.max()))
    assert float(grid.scale) == pytest.approx(float(scale), rel=1e-6)
    assert int(grid.zero_point) == int(zero)
    assert np.mean(quantized(x, grid) != q) < 0.01


def test_channels_have_grids_of_their_own() -> None:
    grid = Grid(np.array([0.5, 0.01], np.float32), np.array([0, 10], np.uint8), axis=1)
    x = np.array([[3.2, 0.204], [-1.0, -0.2]], np.float32)
    assert quantized(x, grid).tolist() == [[6, 30], [0, 0]]
    assert on_grid(x, grid) == pytest.approx(np.array([[3.0, 0.2], [0.0, -0.1]]))


@pytest.mark.parametrize(("bits", "symmetric"), [(8, True), (8, False), (7, True), (4, True), (4, False), (2, False)])
def test_weights_fit_their_grids(bits: int, symmetric: bool) -> None:
    rng = np.random.default_rng(bits)
    low, high = -rng.exponential(size=100), rng.exponential(size=100)
    scale, zero = weight_grid(low, high, bits, symmetric)
    first, last = levels(bits, symmetric)
    ends = np.stack([(first - zero) * scale, (last - zero) * scale])
    # A narrow grid with as many levels on both sides is a step short on one; one of bytes has both ends.
    slack = 1.01 * np.abs(scale) if bits < 7 and symmetric else 0.501 * np.abs(scale)
    assert (ends.min(0) <= low + slack).all()
    assert (ends.max(0) >= high - slack).all()
    assert (np.maximum(-ends.min(0), ends.max(0)) >= 0.999 * np.maximum(-low, high) - 0.5 * np.abs(scale)).all()


def test_groups_of_zeros_have_scale_one() -> None:
    for symmetric in (True, False):
        scale, zero = weight_grid(np.zeros(2), np.array([0.0, 1e-45]), 8, symmetric)
        assert scale[0] == 1.0
        assert zero[0] == 0
        assert scale[1] >= np.finfo(np.float32).tiny
