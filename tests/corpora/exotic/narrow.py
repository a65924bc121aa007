"""Element types that numpy lacks: packed integers, small floats, complex numbers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from corpora.exotic.base import Theme, built, info, tensor, text

exotic = Theme("narrow")


def _cast(code: int, bits: bytes, *, opset: int = 21, ir: int = 10, dims: int = 5) -> onnx.ModelProto:
    """A constant of an element type, cast to float and added to an input; it goes out as it is, too."""
    nodes = [
        helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    outputs = [info("y", [dims]), info("c", [dims], code)]
    return built(nodes, [info("x", [dims])], outputs, [tensor("c", code, [dims], bits)], opset, ir)


@exotic()
def int4() -> onnx.ModelProto:
    """Five elements in three bytes."""
    return _cast(TensorProto.INT4, bytes([0x87, 0x21, 0x0F]))


@exotic()
def uint4() -> onnx.ModelProto:
    """Five elements in three bytes."""
    return _cast(TensorProto.UINT4, bytes([0xF7, 0x21, 0x0F]))


@exotic()
def int2() -> onnx.ModelProto:
    """Five elements in two bytes."""
    return _cast(TensorProto.INT2, bytes([0b11100100, 0b10]), opset=25, ir=13)


@exotic()
def uint2() -> onnx.ModelProto:
    """Five elements in two bytes."""
    return _cast(TensorProto.UINT2, bytes([0b11100100, 0b10]), opset=25, ir=13)


@exotic()
def int4_typed() -> onnx.ModelProto:
    """int4 in int32_data, two in each entry."""
    model = _cast(TensorProto.INT4, b"")
    constant = TensorProto(name="c", data_type=TensorProto.INT4, dims=[5], int32_data=[0x87, 0x21, 0x0F])
    model.graph.initializer[0].CopyFrom(constant)
    return model


@exotic()
def bfloat16() -> onnx.ModelProto:
    """With a NaN payload and a denormal."""
    return _cast(TensorProto.BFLOAT16, np.array([0x3F80, 0x7FC1, 0x0001, 0x8000, 0xFF80], np.uint16).tobytes())


@exotic()
def bfloat16_typed() -> onnx.ModelProto:
    """bfloat16 in int32_data."""
    model = _cast(TensorProto.BFLOAT16, b"")
    values = [0x3F80, 0x7FC1, 0x0001, 0x8000, 0xFF80]
    model.graph.initializer[0].CopyFrom(
        TensorProto(name="c", data_type=TensorProto.BFLOAT16, dims=[5], int32_data=values)
    )
    return model


@exotic()
def float8e4m3fn() -> onnx.ModelProto:
    """With NaN and the largest."""
    return _cast(TensorProto.FLOAT8E4M3FN, bytes([0x7F, 0x7E, 0x80, 0x01, 0x38]))


@exotic()
def float8e4m3fnuz() -> onnx.ModelProto:
    """With NaN where others have −0.0."""
    return _cast(TensorProto.FLOAT8E4M3FNUZ, bytes([0x80, 0x7F, 0x00, 0x01, 0x38]))


@exotic()
def float8e5m2() -> onnx.ModelProto:
    """With infinities and several NaNs."""
    return _cast(TensorProto.FLOAT8E5M2, bytes([0x7C, 0xFC, 0x7D, 0x7F, 0x3C]))


@exotic()
def float8e5m2fnuz() -> onnx.ModelProto:
    """With NaN where others have −0.0."""
    return _cast(TensorProto.FLOAT8E5M2FNUZ, bytes([0x80, 0x7F, 0x00, 0x01, 0x3C]))


@exotic(loads=False)
def float4e2m1() -> onnx.ModelProto:
    """Five elements in three bytes."""
    return _cast(TensorProto.FLOAT4E2M1, bytes([0x87, 0x21, 0x0F]), opset=23, ir=11)


@exotic()
def float8e8m0() -> onnx.ModelProto:
    """Powers of two, and NaN."""
    return _cast(TensorProto.FLOAT8E8M0, bytes([0x7F, 0x80, 0x00, 0xFF, 0x7E]), opset=24, ir=12)


@exotic()
def cast_there_and_back() -> onnx.ModelProto:
    """Casts to float8 and int4 and back, which lose something and must stay."""
    return text(
        """g (float[5] x) => (float[5] y, float[5] z) {
            a = Cast<to = 17>(x) y = Cast<to = 1>(a) b = Cast<to = 22>(x) z = Cast<to = 1>(b) }""",
        opset=21,
    )


@exotic()
def cast_saturates_not() -> onnx.ModelProto:
    """A constant too large for float8, cast with and without saturation."""
    return text(
        """g (float[2] x) => (float[2] y, float[2] z) <float[2] big = {1e6, -1e6}> {
            a = Cast<to = 17, saturate = 0>(big) b = Cast<to = 1>(a) y = Add(x, b)
            c = Cast<to = 17>(big) d = Cast<to = 1>(c) z = Add(x, d) }""",
        opset=21,
    )


@exotic()
def quantized_int4_weight() -> onnx.ModelProto:
    """An int4 weight by blocks under a DequantizeLinear."""
    model = text(
        "g (float[2, 8] x) => (float[2, 4] y) { d = DequantizeLinear<axis = 0, block_size = 4>(w, s, z) "
        "y = MatMul(x, d) }",
        opset=21,
    )
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.1, 0.2, (2, 4)).astype(np.float32)
    model.graph.initializer.append(tensor("w", TensorProto.INT4, [8, 4], rng.bytes(16)))
    model.graph.initializer.append(tensor("s", TensorProto.FLOAT, [2, 4], scales.tobytes()))
    model.graph.initializer.append(tensor("z", TensorProto.INT4, [2, 4], rng.bytes(4)))
    return model


@exotic()
def quantize_to_float8() -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear around float8, whose zero point says the type."""
    model = text(
        "g (float[4] x) => (float[4] y) <float s = {0.5}> { q = QuantizeLinear(x, s, z) "
        "y = DequantizeLinear(q, s, z) }",
        opset=21,
    )
    model.graph.initializer.append(tensor("z", TensorProto.FLOAT8E4M3FN, [], b"\x00"))
    return model


@exotic()
def int4_at_the_border() -> onnx.ModelProto:
    """An int4 input that goes through, and an output of uint4."""
    return text(
        "g (int4[5] x, float[3] f) => (int4[5] y, uint4[3] z) "
        "{ h = Cast<to = 3>(x) y = Cast<to = 22>(h) z = Cast<to = 21>(f) }",
        opset=21,
    )


@exotic(loads=False)
def complex_numbers() -> onnx.ModelProto:
    """Complex constants, raw and in float_data."""
    raw = np.array([1 + 2j, -0.0 - 1j], np.complex64).tobytes()
    constants = [
        tensor("c", TensorProto.COMPLEX64, [2], raw),
        TensorProto(name="d", data_type=TensorProto.COMPLEX64, dims=[1], float_data=[1.5, -2.5]),
        TensorProto(name="e", data_type=TensorProto.COMPLEX128, dims=[1], double_data=[1e300, 5e-324]),
    ]
    nodes = [helper.make_node("Identity", [t.name], [f"{t.name}_out"]) for t in constants]
    outputs = [info(f"{t.name}_out", list(t.dims), t.data_type) for t in constants]
    return built(nodes, [], outputs, constants)


@exotic()
def half_arithmetic() -> onnx.ModelProto:
    """Half floats whose products overflow and whose sums round."""
    model = text("g (float16[3] x) => (float16[3] y) { p = Mul(x, c) q = Add(p, c) y = Sub(q, c) }")
    values = np.array([60000, 6e-8, 2049], np.float16)
    model.graph.initializer.append(tensor("c", TensorProto.FLOAT16, [3], values.tobytes()))
    return model
