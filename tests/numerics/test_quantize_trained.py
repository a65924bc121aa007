"""Models that were trained quantized, wholly or in part: what is integer stays so, what is float becomes it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graphopt.ir import model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.tensor import Array
from graphopt.ir.text import parse
from graphopt.pipeline import fuse, quantize

UNSIGNED, MIDDLE = "uint8 0", "uint8 128"


def rounded(x: str, scale: float, zero: str = UNSIGNED, axis: str = "") -> str:
    """The fake quantization of training."""
    return f"DequantizeLinear(QuantizeLinear({x}, {scale}, {zero}{axis}), {scale}, {zero}{axis})"


def weights(text: str) -> str:
    return f"DequantizeLinear(QuantizeLinear({text}, s, z, axis=0), s, z, axis=0)"


TRAINED = f"""(x: float32[N, 3, 12, 12]) -> (y) {{
  s = float32[8] 0.03
  z = int8[8] 0
  a = {rounded("x", 0.04, MIDDLE)}
  b = Relu(Conv(a, {weights("float32[8, 3, 3, 3] random(1)")}, float32[8] random(2), pads=[1, 1, 1, 1]))
  c = {rounded("b", 0.05)}
  SECOND
  g = {rounded("Relu(Add(c, e))", 0.1)}
  h = Flatten(GlobalAveragePool(g))
  LAST
}}"""
WHOLE = TRAINED.replace(
    "SECOND",
    f"""d = Conv(c, {weights("float32[8, 8, 3, 3] random(3)")}, float32[8] random(4), pads=[1, 1, 1, 1])
  e = {rounded("d", 0.1, MIDDLE)}""",
).replace(
    "LAST", f"y = Gemm({rounded('h', 0.02)}, {weights('float32[8, 8] random(5)')}, float32[8] random(6), transB=1)"
)
PART = TRAINED.replace(
    "SECOND", "e = Conv(c, float32[8, 8, 3, 3] random(3), float32[8] random(4), pads=[1, 1, 1, 1])"
).replace("LAST", "y = Gemm(h, float32[8, 8] random(5), float32[8] random(6), transB=1)")


def model(text: str) -> onnx.ModelProto:
    found = parse(text, opset=20)
    infer(found)
    return model_to_proto(found)


def ran(proto: onnx.ModelProto, folder: Path) -> tuple[Counter[str], Array]:
    """How often each kernel is in onnxruntime's default session, and what it gives."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": data(2)})[0]
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node), result


def data(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((4, 3, 12, 12)).astype(np.float32)


def error(found: Array, exact: Array) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("text", [WHOLE, PART], ids=["whole", "part"])
def test_fusing_keeps_integer_kernels(text: str, tmp_path: Path) -> None:
    before, exact = ran(model(text), tmp_path)
    after, found = ran(model_to_proto(fuse(model(text)).model), tmp_path)
    print(dict(before), dict(after))
    integer = ("QLinearConv", "QLinearAdd")
    assert before["QLinearConv"] == (2 if text is WHOLE else 1)
    assert [after[op] for op in integer] == [before[op] for op in integer]
    assert after["MatMulIntegerToFloat"] == (text is WHOLE)
    assert error(found, exact) < 0.01


@pytest.mark.parametrize("zero", ["int8 -128", "int8 0"])
def test_integers_with_a_sign_run_on_kernels_without(zero: str, tmp_path: Path) -> None:
    proto = model(WHOLE.replace(MIDDLE, "int8 0").replace(UNSIGNED, zero))
    after, found = ran(model_to_proto(fuse(proto).model), tmp_path)
    assert (after["QLinearConv"], after["QLinearAdd"], after["MatMulIntegerToFloat"]) == (2, 1, 1)
    assert error(found, ran(proto, tmp_path)[1]) < 0.01


def test_what_is_integer_already_stays(tmp_path: Path) -> None:
    calib = [{"x": data(seed)} for seed in range(3, 9)]
    result = quantize(model(WHOLE), mode="static", calib=calib, verify="off", allow_slower=True)
    assert not result.errors
    assert (result.integer_planned, result.integer_running, result.integer_all) == (0, 3, 3)
    assert any("integers already" in note for note in result.notes)
    assert ran(model_to_proto(result.model), tmp_path)[0]["QLinearConv"] == 2


@pytest.mark.parametrize("mode", ["static", "auto"])
def test_only_what_is_float_is_quantized(mode: str, tmp_path: Path) -> None:
    calib = [{"x": data(seed)} for seed in range(3, 9)]
    result = quantize(model(PART), mode=mode, calib=calib, verify="off", allow_slower=True)  # type: ignore[arg-type]
    assert not result.errors
    assert (result.integer_planned, result.integer_running, result.integer_all) == (2, 3, 3)
    proto = model_to_proto(result.model)
    makers = {name: node for node in proto.graph.node for name in node.output}
    twice = [
        node.output[0]
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear"
        and node.input[0] in makers
        and makers[node.input[0]].op_type == "DequantizeLinear"
    ]
    assert twice == []
    scales = [onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    for kept in (0.04, 0.05, 0.1):
        assert any(scale.ndim == 0 and scale == np.float32(kept) for scale in scales)
    kernels, found = ran(proto, tmp_path)
    assert kernels["QLinearConv"] == 2
    assert error(found, ran(model(PART), tmp_path)[1]) < 0.02
