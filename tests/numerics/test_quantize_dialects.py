"""What is written for each target and processor: which operators, which integers, and how near the numbers are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graphopt.errors import UnequalError
from graphopt.ir import model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.tensor import Array
from graphopt.ir.text import parse
from graphopt.pipeline import quantize
from graphopt.quantize.cpu import detected

CNN = """(x: float32[N, 3, 12, 12]) -> (y) {
  a = Relu(Conv(x, float32[8, 3, 3, 3] random(1), float32[8] random(2), pads=[1, 1, 1, 1]))
  p = MaxPool(a, kernel_shape=[2, 2], strides=[2, 2])
  b = Relu(Conv(p, float32[8, 1, 3, 3] random(3), float32[8] random(4), group=8, pads=[1, 1, 1, 1]))
  u = ConvTranspose(HardSwish(Add(p, b)), float32[8, 4, 2, 2] random(5), strides=[2, 2])
  y = Gemm(Flatten(GlobalAveragePool(u)), float32[10, 4] random(6), float32[10] random(7), transB=1)
}"""
ENCODER = """(x: float32[N, 5, 32]) -> (y) {
  n = LayerNormalization(x, float32[32] 1.0, float32[32] 0.1)
  q = Transpose(Reshape(MatMul(n, float32[32, 32] random(1)), [0, 0, 4, 8]), perm=[0, 2, 1, 3])
  k = Transpose(Reshape(MatMul(n, float32[32, 32] random(2)), [0, 0, 4, 8]), perm=[0, 2, 3, 1])
  v = Transpose(Reshape(MatMul(n, float32[32, 32] random(3)), [0, 0, 4, 8]), perm=[0, 2, 1, 3])
  w = MatMul(Softmax(Mul(MatMul(q, k), 0.35)), v)
  r = Add(x, MatMul(Reshape(Transpose(w, perm=[0, 2, 1, 3]), [0, 0, 32]), float32[32, 32] random(4)))
  g = Gelu(Add(MatMul(LayerNormalization(r, float32[32] 1.0), float32[32, 64] random(5)), float32[64] random(6)))
  y = Add(r, MatMul(g, float32[64, 32] random(7)))
}"""
SHAPES = {CNN: (3, 12, 12), ENCODER: (5, 32)}
NETWORKS = pytest.mark.parametrize("text", [CNN, ENCODER], ids=["cnn", "encoder"])


def data(text: str, seed: int, count: int) -> list[dict[str, Array]]:
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal((4, *SHAPES[text])).astype(np.float32)} for _ in range(count)]


def model(text: str) -> onnx.ModelProto:
    found = parse(text, opset=20)
    infer(found)
    return model_to_proto(found)


def written(text: str, **options: Any) -> tuple[onnx.ModelProto, Any]:
    """The quantized model, which the checker takes, and the result."""
    quick = {"verify": "off", "allow_slower": True, "smooth": "off", "observer": "min-max"}
    result = quantize(model(text), **{"mode": "static", "calib": data(text, 1, 6), **quick, **options})
    assert not result.errors
    proto = model_to_proto(result.model)
    onnx.checker.check_model(proto, full_check=all(not node.domain for node in proto.graph.node))
    return proto, result


def run(proto: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    """As the model says, without onnxruntime's optimizer."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    found: Array = ort.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, feed)[0]
    return found


def error(text: str, proto: onnx.ModelProto) -> float:
    feed = data(text, 2, 1)[0]
    exact = run(model(text), feed)
    return float(np.linalg.norm(run(proto, feed) - exact) / np.linalg.norm(exact))


def constants(proto: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def roundings(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for node in proto.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear"))


def activations(proto: onnx.ModelProto) -> set[str]:
    """The types of integers that activations are rounded to."""
    known = constants(proto)
    return {str(known[node.input[2]].dtype) for node in proto.graph.node if node.op_type == "QuantizeLinear"}


def largest_weight(proto: onnx.ModelProto) -> int:
    return max(int(np.abs(w.astype(int)).max()) for w in constants(proto).values() if w.dtype == np.int8 and w.ndim > 1)


def ops(proto: onnx.ModelProto) -> set[str]:
    return {f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in proto.graph.node}


@NETWORKS
def test_tensorrt_reads_symmetric_roundings_of_what_products_read(text: str) -> None:
    proto, result = written(text, target="tensorrt")
    known, makers = constants(proto), {name: node for node in proto.graph.node for name in node.output}
    assert not any("." in op for op in ops(proto))
    assert max(opset.version for opset in proto.opset_import) <= 21
    for node in roundings(proto):
        assert len(node.input) < 3 or not known[node.input[2]].any()
        numbers = known.get(node.input[0])
        assert numbers is None or numbers.dtype == np.int8
        assert known[node.input[1]].ndim == (numbers is not None)
    # Bytes are read by DequantizeLinear alone, and that by products.
    assert {str(known[node.input[2]].dtype) for node in roundings(proto) if len(node.input) > 2} <= {"int8"}
    bytes_ = {node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    assert {n.op_type for n in proto.graph.node if bytes_ & {*n.input}} == {"DequantizeLinear"}
    floats = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    products = [node for node in proto.graph.node if floats & {*node.input}]
    assert {node.op_type for node in products} <= {"Conv", "MatMul", "Gemm"}
    for node in products:
        assert all(makers[name].op_type == "DequantizeLinear" for name in node.input[:2])
        assert node.op_type != "Conv" or len(node.input) < 3 or known[node.input[2]].dtype == np.float32
    assert len(products) == {CNN: 3, ENCODER: 6}[text]
    assert 1e-4 < error(text, proto) < 0.04
    assert result.latency is None
    assert any("tensorrt" in note and "not here" in note for note in result.notes)


@NETWORKS
def test_cuda_gets_symmetric_activations(text: str) -> None:
    proto, result = written(text, target="ort-cuda")
    assert activations(proto) == {"int8"}
    assert error(text, proto) < 0.04
    assert result.latency is None


@NETWORKS
def test_the_standard_has_no_operators_of_onnxruntime(text: str) -> None:
    for mode in ("static", "weight-only", "dynamic") if text == ENCODER else ("static",):
        proto, _ = written(text, target="onnx", mode=mode)
        assert not any("." in op for op in ops(proto))
        assert {opset.domain for opset in proto.opset_import} <= {"", "ai.onnx"}
        assert error(text, proto) < 0.04


def test_four_bits_in_standard_operators_raise_the_opset() -> None:
    proto, _ = written(ENCODER, target="onnx", mode="weight-only", weight_bits=4, block=16)
    narrow = [node for node in roundings(proto) if any(a.name == "block_size" and a.i == 16 for a in node.attribute)]
    assert len(narrow) == 6
    assert proto.opset_import[0].version >= 21
    assert not any("." in op for op in ops(proto))
    assert error(ENCODER, proto) < 0.2


@NETWORKS
def test_weights_have_seven_bits_where_sums_are_of_sixteen(text: str) -> None:
    proto, result = written(text, cpu="x86")
    assert (largest_weight(proto), activations(proto)) == (63, {"uint8"})
    assert error(text, proto) < 0.05
    assert (result.latency is None) == (detected() != "x86")


@NETWORKS
def test_arm_gets_unsigned_activations_and_whole_weights(text: str) -> None:
    proto, result = written(text, cpu="arm")
    assert (largest_weight(proto), activations(proto)) == (127, {"uint8"})
    assert error(text, proto) < 0.04
    assert (result.latency is None) == (detected() != "arm")


def test_ranges_found_at_run_time_are_not_for_tensorrt() -> None:
    with pytest.raises(UnequalError) as caught:
        written(ENCODER, target="tensorrt", mode="dynamic", calib=None)
    assert caught.value.code == "GO146"
    assert "calibration" in caught.value.message


def test_what_a_target_has_no_kernel_for_stays_float() -> None:
    _, result = written(CNN, target="tensorrt")
    reasons = {site.op: site.reason for site in result.sites if site.scheme == "float"}
    assert [*reasons] == ["ConvTranspose"]
    assert "floats" in reasons["ConvTranspose"]
