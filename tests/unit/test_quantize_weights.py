"""Weights as integers: on their grids, whatever their layout, and as onnxruntime's kernels read them."""

from __future__ import annotations

from itertools import product

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from graphopt.errors import ModelError
from graphopt.ir import Tensor, dtypes
from graphopt.ir.tensor import Array
from graphopt.quantize.rounding import weights as module
from graphopt.quantize.rounding.weights import dequantized, integers
from graphopt.rewrite.nbits import nbits_operands

RNG = np.random.default_rng(0)
W = RNG.standard_t(3, size=(200, 96)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_bytes_are_symmetric_and_right_to_half_a_step(axis: int | None) -> None:
    found = integers(Tensor.of(W), axis=axis)
    assert found.values.dtype == dtypes.NUMBERS["int8"]
    assert found.zero_point is None
    assert found.scale.shape == (() if axis is None else (W.shape[axis],))
    values, scale = found.values.numpy(), found.scale.numpy()
    other = None if axis is None else 1 - axis % 2
    assert values.shape == W.shape
    assert np.abs(values.astype(int)).max() == 127
    assert scale == pytest.approx(np.abs(W).max(axis=other) / 127)
    step = scale if other is None else np.expand_dims(scale, other)
    assert (np.abs(dequantized(found) - W) <= 0.501 * step).all()


@pytest.mark.parametrize(
    ("shape", "axis"), [((6, 4, 3, 3), 0), ((4, 6, 3, 3), 1), ((2, 5, 6), 2), ((6,), 0), ((0, 6), 1)]
)
def test_channels_lie_along_any_axis(shape: tuple[int, ...], axis: int) -> None:
    weights = (
        RNG.normal(size=shape) * np.arange(1, 7).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    ).astype(np.float32)
    found = integers(Tensor.of(weights), axis=axis)
    assert found.scale.shape == (6,)
    if weights.size:
        rest = tuple(a for a in range(len(shape)) if a != axis)
        assert found.scale.numpy() == pytest.approx(np.abs(weights).max(axis=rest) / 127)
        assert np.abs(dequantized(found) - weights).max() <= 0.501 * found.scale.numpy().max()


@pytest.mark.parametrize(("axis", "bits", "symmetric"), list(product([0, 1], [4, 8], [True, False])))
def test_blocks_have_scales_of_their_own_and_the_last_is_shorter(axis: int, bits: int, symmetric: bool) -> None:
    weights = W if axis == 0 else np.ascontiguousarray(W.T)
    found = integers(Tensor.of(weights), axis=axis, bits=bits, block=64, symmetric=symmetric)
    assert found.scale.shape == ((4, 96) if axis == 0 else (96, 4))
    assert dtypes.NAMES[found.values.dtype] == ("int" if symmetric else "uint") + str(bits)
    assert (found.zero_point is None) == symmetric
    back = dequantized(found) if axis == 0 else dequantized(found).T
    scale = np.abs(found.scale.numpy() if axis == 0 else found.scale.numpy().T)
    # With a sign, the side of the smaller reach may be cut by a step; else only what rounding z moves is.
    allowed = 1.01 if symmetric and bits == 4 else 1.001
    assert (np.abs(back - W) <= allowed * np.repeat(scale, 64, axis=0)[:200]).all()
    last = integers(Tensor.of(W[192:]), axis=0, bits=bits, block=64, symmetric=symmetric)
    assert dequantized(last) == pytest.approx(back[192:])


def test_channels_without_range_have_scale_one_and_stay_zero() -> None:
    weights = W.copy()
    weights[:, 3] = 0
    for options in ({"axis": 1}, {"axis": 0, "block": 32, "bits": 4, "symmetric": False}):
        found = integers(Tensor.of(weights), **options)  # type: ignore[arg-type]
        assert (found.scale.numpy()[..., 3] == 1).all()
        assert (dequantized(found)[:, 3] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["nearest", "search"])
def test_what_has_no_grid_is_refused_by_name(bad: float, method: str) -> None:
    weights = W.copy()
    weights[150, 50] = bad
    with pytest.raises(ModelError, match="NaN or Inf") as caught:
        integers(Tensor.of(weights), axis=1, method=method, name="encoder.weight")  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.where) == ("GO126", "tensor 'encoder.weight'")


def test_nothing_is_rounded_before_it_is_read() -> None:
    found = integers(Tensor.of(W), axis=0, bits=4, block=16, symmetric=False, method="search")
    assert found.zero_point is not None
    assert found.values.is_deferred
    assert found.scale.is_deferred
    assert found.zero_point.is_deferred


@pytest.mark.parametrize("options", [{"axis": 1}, {"axis": 0, "block": 32, "bits": 4}])
def test_smoothing_multiplies_along_what_is_summed_over(options: dict[str, int]) -> None:
    factors = RNG.uniform(0.1, 10, 200).astype(np.float32)
    plain = integers(Tensor.of(W * factors[:, None]), **options)  # type: ignore[arg-type]
    smoothed = integers(Tensor.of(W), smooth=factors, **options)  # type: ignore[arg-type]
    assert np.array_equal(plain.values.numpy(), smoothed.values.numpy())
    turned = integers(Tensor.of(W.T), smooth=factors, **{**options, "axis": 1 - options["axis"]})  # type: ignore[arg-type]
    assert np.array_equal(turned.values.numpy().T, smoothed.values.numpy())


@pytest.mark.parametrize("options", [{"axis": 1}, {"axis": 0, "block": 32, "bits": 4, "symmetric": False}])
def test_a_searched_grid_has_less_error_than_the_widest(options: dict[str, int]) -> None:
    importance = RNG.exponential(size=200).astype(np.float32)

    def error(**method: object) -> float:
        difference = dequantized(integers(Tensor.of(W), **options, **method)) - W  # type: ignore[arg-type]
        return float((importance[:, None] * difference**2).sum())

    share = 0.9 if "block" in options else 1.0
    assert error(method="search", gram=importance) < share * error(method="nearest")
    assert error(method="search", gram=importance) < error(method="search")


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_floats(kind: str) -> None:
    numpy = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}[kind]
    found = integers(Tensor.of(W.astype(numpy)), axis=1)
    assert dtypes.NAMES[found.scale.dtype] == ("float32" if kind == "float64" else kind)
    step = np.abs(W).max(axis=0) / 127
    assert (np.abs(dequantized(found) - W.astype(numpy).astype(np.float32)) <= 0.8 * step).all()


def test_parts_are_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"axis": 0}, {"axis": 1}, {"axis": 0, "block": 32, "bits": 4, "method": "search"}):
        whole = integers(Tensor.of(W), **options)
        expected = whole.values.numpy(), whole.scale.numpy()
        with monkeypatch.context() as patch:
            patch.setattr(module, "_ELEMENTS", 1000)
            parts = integers(Tensor.of(W), **options)
            assert np.array_equal(parts.values.numpy(), expected[0])
            assert np.array_equal(parts.scale.numpy(), expected[1])


def run_nbits(x: Array, weights: Array, axis: int, bits: int, block: int, symmetric: bool) -> tuple[Array, Array]:
    """What MatMulNBits says, and what it should."""
    ort = pytest.importorskip("onnxruntime")
    found = integers(Tensor.of(weights), axis=axis, bits=bits, block=block, symmetric=symmetric)
    operands = [tensor for tensor in nbits_operands(found, axis) if tensor is not None]
    names = ["B", "s", "z"][: len(operands)]
    count, depth = weights.shape[1 - axis], weights.shape[axis]
    node = helper.make_node(
        "MatMulNBits", ["x", *names], ["y"], domain="com.microsoft", K=depth, N=count, bits=bits, block_size=block
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor.to_proto(name) for tensor, name in zip(operands, names, strict=True)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    session = ort.InferenceSession(helper.make_model(graph, ir_version=10, opset_imports=opsets).SerializeToString())
    back = dequantized(found)
    return session.run(None, {"x": x})[0], x @ (back if axis == 0 else back.T)


@pytest.mark.parametrize(("bits", "symmetric", "axis"), list(product([4, 8], [True, False], [0, 1])))
@pytest.mark.parametrize(("depth", "block"), [(200, 32), (192, 64), (100, 16), (40, 128)])
def test_matmulnbits_reads_them_so(bits: int, symmetric: bool, axis: int, depth: int, block: int) -> None:
    weights = W[:depth] if axis == 0 else np.ascontiguousarray(W[:depth].T)
    x = RNG.normal(size=(3, depth)).astype(np.float32)
    found, expected = run_nbits(x, weights, axis, bits, block, symmetric)
    assert found == pytest.approx(expected, abs=1e-5 * float(np.abs(expected).max()))
